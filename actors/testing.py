"""A stand-in for a cluster: the hosts of sessions' parts as threads of this process, which may be killed like actors."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedTooLong
from typing import Any

from actors.faults import as_fault
from actors.perception import PerceptionActor
from actors.session_parts import Parts, ReaderActor, SessionMindActor
from anymodal.errors import RuntimeFault


class LocalParts(Parts):
    """Real hosts without Ray. `kill(role)`: what it held is lost, calls in flight on it fail, and another one starts.

    `calls`: how often each method was called, by (role, method). `before`: called with (role, method) ahead of each.
    """

    def _start(self, bundle: str) -> None:
        self._bundle = bundle
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._threads = ThreadPoolExecutor(4)
        self._lock = threading.Lock()
        self._hosts: dict[str, Any] = {}
        self._in_flight: dict[str, list[Future]] = {}
        self.calls: dict[tuple[str, str], int] = {}
        self.before = lambda role, method: None
        for role in ("source", "perception", "mind"):
            self.kill(role)

    def kill(self, role: str) -> None:
        made = {"source": lambda: ReaderActor(self.spec), "mind": lambda: SessionMindActor(self._bundle, self.runtime),
                "perception": lambda: PerceptionActor(self._bundle, self.runtime)}[role]()
        with self._lock:
            self._hosts[role], dead, self._in_flight[role] = made, self._in_flight.get(role, []), []
        for future in dead:
            if not future.done():
                future.set_exception(RuntimeFault(f"the {role} died or is being restarted"))

    def close(self) -> None:
        """End all hosts, those that were killed too."""
        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._threads.shutdown(wait=False)

    def pids(self) -> dict[str, int]:
        return dict.fromkeys(self._hosts, 0)

    def begin(self, role: str, method: str, *given: Any) -> Future:
        self.before(role, method)
        outcome: Future = Future()
        if self._loop.is_closed():  # garbage that is collected later says goodbye to nobody
            outcome.set_exception(RuntimeError(f"{role}.{method}: the parts have ended"))
            return outcome
        with self._lock:
            self.calls[role, method] = self.calls.get((role, method), 0) + 1
            self._in_flight[role].append(outcome)
            call = getattr(self._hosts[role], method)

        def settle(done: Future) -> None:
            if not outcome.done():
                error = done.exception()
                if error is None:
                    outcome.set_result(done.result())
                else:
                    outcome.set_exception(error)

        if inspect.iscoroutinefunction(call):
            asyncio.run_coroutine_threadsafe(call(*given), self._loop).add_done_callback(settle)
        else:
            self._threads.submit(call, *given).add_done_callback(settle)
        return outcome

    def _get(self, role: str, reply: Future, timeout_s: float) -> Any:
        try:
            return reply.result(timeout_s)
        except WaitedTooLong as error:
            raise as_fault(error, role) from error
        except Exception as error:
            raise as_fault(error, role) from error
