"""`Client`: the asynchronous client, in a thread with a loop of its own. Same names, nothing to await."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anymodal.client.asking import Asking
from anymodal.client.client import AsyncClient
from anymodal.client.errors import ClosedError
from anymodal.client.live import LiveSession
from anymodal.client.rules import Rules
from anymodal.types import Answer, Delta

T = TypeVar("T")
STOP_TIMEOUT_S = 10.0


class Loop:
    """An event loop in a daemon thread. Every wait in it has an end of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="anymodal client", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result. Interrupted (Ctrl-C), it is cancelled."""
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            work.close()
            raise ClosedError("the client is closed" if self._loop.is_closed() else "called from the client's own thread",
                              fix="make another client" if self._loop.is_closed() else "use AsyncClient there")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """The result of a plain function, called where the loop runs."""

        async def work() -> T:
            return function(*args, **options)

        return self.run(work())

    def stop(self) -> None:
        """May be called twice."""
        if self.closed:
            return
        self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


def _same(method: Callable[..., Any]) -> Any:
    """The method or property of an asynchronous class, waited for."""
    if isinstance(method, property):
        return property(lambda self: self._loop.call(method.fget, self._inner), doc=method.fget.__doc__)
    if inspect.iscoroutinefunction(method):
        @functools.wraps(method)
        def waited(self: Any, *args: Any, **options: Any) -> Any:
            return self._loop.run(method(self._inner, *args, **options))

        return waited

    @functools.wraps(method)
    def called(self: Any, *args: Any, **options: Any) -> Any:
        return self._loop.call(method, self._inner, *args, **options)

    return called


class _Wrapped:
    def __init__(self, inner: Any, loop: Loop) -> None:
        self._inner, self._loop = inner, loop


class SyncAsking(_Wrapped):
    """Iterate it for Delta, Delta, ... and at last the Answer; or take `answer()` alone."""

    answer, cancel = _same(Asking.answer), _same(Asking.cancel)

    def __iter__(self) -> SyncAsking:
        return self

    def __next__(self) -> Delta | Answer:
        return _next(self._loop, self._inner)


class SyncRules(_Wrapped):
    __doc__ = Rules.__doc__
    add, list = _same(Rules.add), _same(Rules.list)
    pause, resume, remove = _same(Rules.pause), _same(Rules.resume), _same(Rules.remove)


class SyncLiveSession(_Wrapped):
    """Made by `Client.live`; a context manager. `for event in session` waits for events; `next_event` for a while."""

    push_frame, push_audio, push_imu = map(_same, (LiveSession.push_frame, LiveSession.push_audio, LiveSession.push_imu))
    push, flush = _same(LiveSession.push), _same(LiveSession.flush)
    stream_file, stream_camera = _same(LiveSession.stream_file), _same(LiveSession.stream_camera)
    search, next_event, close = _same(LiveSession.search), _same(LiveSession.next_event), _same(LiveSession.close)
    check, now_s, frame_due = _same(LiveSession.check), _same(LiveSession.now_s), _same(LiveSession.frame_due)
    ticket, session, wants = _same(LiveSession.ticket), _same(LiveSession.session), _same(LiveSession.wants)
    connected, stats = _same(LiveSession.connected), _same(LiveSession.stats)
    pushed_s, seen_s = _same(LiveSession.pushed_s), _same(LiveSession.seen_s)

    def __init__(self, inner: LiveSession, loop: Loop) -> None:
        super().__init__(inner, loop)
        self.rules = SyncRules(inner.rules, loop)

    @functools.wraps(LiveSession.ask)
    def ask(self, question: str, **options: Any) -> SyncAsking:
        return SyncAsking(self._loop.call(self._inner.ask, question, **options), self._loop)

    def __enter__(self) -> SyncLiveSession:
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> SyncLiveSession:
        return self

    def __next__(self) -> Any:
        return _next(self._loop, self._inner)


class Client(_Wrapped):
    __doc__ = AsyncClient.__doc__

    @functools.wraps(AsyncClient.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        inner = AsyncClient(*args, **options)  # what is wrong is said before there is a thread
        super().__init__(inner, Loop())

    models, upload, delete = _same(AsyncClient.models), _same(AsyncClient.upload), _same(AsyncClient.delete)

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def model(self) -> str | None:
        return self._inner.model

    @property
    def options(self) -> Any:
        return self._inner.options

    @functools.wraps(AsyncClient.ask)
    def ask(self, media: Any, question: str, **options: Any) -> SyncAsking:
        return SyncAsking(self._loop.call(self._inner.ask, media, question, **options), self._loop)

    @functools.wraps(AsyncClient.live)
    def live(self, **options: Any) -> SyncLiveSession:
        return SyncLiveSession(self._loop.call(self._inner.live, **options), self._loop)

    def close(self) -> None:
        """Live sessions too, without a last word. May be called twice."""
        if not self._loop.closed:
            self._loop.run(self._inner.close())
            self._loop.stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _anext(found: Any) -> tuple[Any, ...]:
    """() at the end: StopIteration cannot leave a coroutine."""
    try:
        return (await anext(found),)
    except StopAsyncIteration:
        return ()


def _next(loop: Loop, found: Any) -> Any:
    got = loop.run(_anext(found))
    if not got:
        raise StopIteration
    return got[0]
