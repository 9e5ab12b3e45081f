"""The parts that sessions on actors share: a reader, perception and a mind, and how a supervisor calls them.

`Parts` looks to a Session like a bundle, so that a session on actors is the Session of one process with its parts
elsewhere. Reading and perception keep nothing: a call that meets a death is made again. The mind's states are lost with
it: `RemoteMind` then raises RuntimeFault, and the session rebuilds its state from the log.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, Full, Queue
from types import SimpleNamespace
from typing import Any

import ray
from ray.exceptions import RayError

from actors.faults import as_fault
from actors.hosting import Host
from actors.perception import PerceptionActor
from actors.placement import check_fits, check_total, needs
from actors.runtime import Runtime, read_runtime
from anymodal.config import load_spec
from anymodal.errors import AnymodalError, RuntimeFault
from anymodal.language.layout import Layout, make_layout
from anymodal.memory import Compaction, Memory
from anymodal.models import weights_folder
from anymodal.stages.items import Percept
from anymodal.stages.lanes import Lanes
from anymodal.stages.perceive import BATCH
from anymodal.threads import limit_threads
from anymodal.types import Answer, Delta, Tokens, Window

ROLES = ("source", "perception", "mind")
RETRY_EVERY_S = 0.1
ANSWERS_S = 0.25  # that windows wait for answers
TRIP = 4 * BATCH  # windows of a file that go from part to part with one call: calls cost, too
MOST_CALLS = 10_000  # that wait for actors at once


# -- hosts ------------------------------------------------------------------------------------------------------------


class ReaderActor:
    """Decodes media of several sessions. Keeps where each pass is, and nothing that cannot be read again."""

    def __init__(self, spec: Any, threads: int = 1) -> None:
        limit_threads(threads)
        self._spec = spec
        self._passes: dict[str, SimpleNamespace] = {}

    def ready(self) -> int:
        import anymodal.media.clip  # noqa: F401

        return os.getpid()

    def open(self, key: str, media: str, sidecars: Mapping[str, str], first_window: int) -> None:
        """Begin a pass. Raises MediaError, SidecarError."""
        from anymodal.media import read_windows

        self._passes[key] = SimpleNamespace(
            windows=read_windows(media, self._spec, sidecars=sidecars, first_window=first_window), error=None)

    def next(self, key: str, count: int) -> tuple[list[Window], list[str]]:
        """The next windows, fewer only at the end; and what was damaged so far. Raises what ended the pass."""
        if key not in self._passes:
            raise RuntimeFault("the source does not know this pass: it was restarted", fix="begin it again")
        this = self._passes[key]
        if this.error is not None:
            raise this.error
        found: list[Window] = []
        try:
            while len(found) < count and (window := next(this.windows, None)) is not None:
                found.append(window)
        except AnymodalError as error:
            if not found:
                raise
            this.error = error  # what came before is whole
        return found, this.windows.warnings

    def close(self, key: str) -> None:
        if (this := self._passes.pop(key, None)) is not None:
            this.windows.close()


@dataclass
class _Saying:
    """An answer on its way: what was said and not yet fetched. `error`: what ended it."""

    pieces: list[Delta | Answer] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    done: bool = False
    error: Exception | None = None
    work: asyncio.Task = field(init=False)


class SessionMindActor(Host):
    """States of sessions, and answers on their way, which go on while they are fetched. Everything it computes goes through
    one thread, in turns."""

    def __init__(self, bundle: str, runtime: Runtime) -> None:
        super().__init__(bundle, runtime.mind)
        self._states: dict[str, Any] = {}
        self._answers: dict[str, _Saying] = {}

    def _build(self, bundle) -> None:
        self._mind, self._identity = bundle.mind, bundle.identity
        self._joint_text = lambda phrases: bundle.joint_text(phrases)  # loaded with the first search

    async def identity(self) -> str:
        """Of the bundle."""
        await self.ready()
        return self._identity

    async def open(self, key: str, compaction: Compaction | None, windows: list[Percept]) -> None:
        """A state from a log."""
        await self.ready()
        self._states[key] = await self._run(self._mind.open, compaction, windows)

    async def extend(self, key: str, percepts: list[Percept]) -> None:
        """See windows, once the answers on their way were given, or have had `ANSWERS_S`: then one by one, between them."""
        state, at = self._find(key), 0
        try:
            while at < len(percepts):
                if answering := [saying.work for saying in self._answers.values() if not saying.done]:
                    _, answering = await asyncio.wait(answering, timeout=ANSWERS_S)
                few = percepts[at : at + (1 if answering else BATCH)]
                await self._run(self._mind.extend_all, state, few)
                at += len(few)
        except BaseException:
            self._states.pop(key, None)  # half a window may be in it
            raise

    async def beside(self) -> bool:
        """Whether soft tokens reach the language model beside its text."""
        await self.ready()
        return self._mind.beside

    async def spelt(self, text: str) -> str:
        """What is asked for, spelt right. It waits for nothing that is computed."""
        await self.ready()
        return self._mind.spelt(text)

    async def joint_text(self, phrases: list[str]) -> Any:
        """Phrases in the joint space."""
        await self.ready()
        return await self._run(self._joint_text, phrases)

    async def begin(self, key: str, answer: str, question: str, given: dict[str, Any]) -> None:
        state = self._find(key)
        pieces = self._mind.answer(state, question, **given)
        self._answers[answer] = saying = _Saying()
        saying.work = asyncio.ensure_future(self._say(pieces, saying))

    async def _say(self, pieces: Iterator[Delta | Answer], saying: _Saying) -> None:
        try:
            while (piece := await self._run(next, pieces, None)) is not None:
                saying.pieces.append(piece)
                saying.news.set()
        except Exception as error:
            saying.error = error
        saying.done = True
        saying.news.set()

    async def next(self, answer: str) -> list[Delta | Answer]:
        """The next pieces, once there are some; nothing behind the last one."""
        if answer not in self._answers:
            raise RuntimeFault("the mind does not know this answer: it was restarted", fix="ask again")
        saying = self._answers[answer]
        if not saying.pieces and not saying.done:
            await saying.news.wait()
        saying.news.clear()
        pieces, saying.pieces = saying.pieces, []
        if not pieces:
            self._answers.pop(answer, None)
            if saying.error is not None:
                raise saying.error
        return pieces

    async def judge(self, key: str, prompts: list[str], evidence: bool) -> list:
        state = self._find(key)
        return await self._run(lambda: self._mind.judge(state, prompts, evidence=evidence))

    async def drop(self, *keys: str) -> None:
        """Forget states and answers."""
        for key in keys:
            self._states.pop(key, None)
            if (saying := self._answers.pop(key, None)) is not None:
                saying.work.cancel()
                saying.done = True
                saying.news.set()  # whoever waits for more

    async def held(self) -> int:
        """How many states there are."""
        return len(self._states)

    def _find(self, key: str) -> Any:
        """A session's state; a mind that was restarted has none, and may not have its bundle either."""
        if key not in self._states:
            raise RuntimeFault("the mind does not know this session: it was restarted", fix="ask again")
        return self._states[key]


# -- calling them -----------------------------------------------------------------------------------------------------


class Parts:
    """Starts the actors, which end with the process that started them. A bundle to the sessions."""

    def __init__(self, bundle: str) -> None:
        self.spec, path = load_spec(bundle)
        self.runtime = read_runtime(self.spec)
        self._start(bundle)
        self.lanes = Lanes(MOST_CALLS)  # here nothing is computed: sessions wait for actors, which take turns
        self.shared_perception = RemotePerception(self)
        self.mind = RemoteMind(self, make_layout(self.spec, weights_folder(self.spec, path)))

    def _start(self, bundle: str) -> None:
        wanted = needs(self.runtime)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for role, need in wanted.items():
            check_fits(role, need, nodes)
        check_total(wanted, {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")})

        def start(role: str, host: type, *given: Any, **options: Any) -> Any:
            return ray.remote(host).options(num_cpus=wanted[role]["CPU"], num_gpus=wanted[role].get("GPU", 0),
                                            max_restarts=-1, **options).remote(*given)

        self._actors = {"source": start("source", ReaderActor, self.spec, self.runtime.source.threads,
                                         max_concurrency=self.runtime.clips + 1),
                        "perception": start("perception", PerceptionActor, bundle, self.runtime),
                        "mind": start("mind", SessionMindActor, bundle, self.runtime)}

    @property
    def identity(self) -> str:
        return self.insist("mind", "identity")

    def joint_text(self, phrases: Sequence[str]) -> Any:
        return self.insist("mind", "joint_text", list(phrases))

    def pids(self) -> dict[str, int]:
        """Process ids by role; waits until all are up."""
        replies = {role: actor.ready.remote() for role, actor in self._actors.items()}
        return {role: self._get(role, reply, self.runtime.start_timeout_s) for role, reply in replies.items()}

    def begin(self, role: str, method: str, *given: Any) -> Any:
        """Make a call; `finish` waits for it."""
        return getattr(self._actors[role], method).remote(*given)

    def finish(self, role: str, reply: Any) -> Any:
        return self._get(role, reply, self.runtime.stall_timeout_s)

    def call(self, role: str, method: str, *given: Any) -> Any:
        """Call a part and wait. Raises RuntimeFault for a death or a silence."""
        return self.finish(role, self.begin(role, method, *given))

    def insist(self, role: str, method: str, *given: Any, reply: Any = None) -> Any:
        """The same for what may be done twice: again after a death, for `start_timeout_s`."""
        deadline_s = time.monotonic() + self.runtime.start_timeout_s
        while True:
            try:
                reply = self.begin(role, method, *given) if reply is None else reply
                return self.finish(role, reply)
            except RuntimeFault as fault:
                if not fault.passing or time.monotonic() > deadline_s:
                    raise
                reply = None
                time.sleep(RETRY_EVERY_S)

    def read(self, media: str, spec: Any, *, sidecars: Mapping[str, str | Path] | None = None,
             first_window: int = 0, ahead: bool = True) -> RemoteReader:
        """As `anymodal.media.read_windows`. `ahead`: windows go to perception before they are asked for."""
        return RemoteReader(self, media, {name: str(path) for name, path in (sidecars or {}).items()}, first_window, ahead)

    def _get(self, role: str, reply: Any, timeout_s: float) -> Any:
        try:
            return ray.get(reply, timeout=timeout_s)
        except RayError as error:
            raise as_fault(error, role) from error


class Sending:
    """Windows of one pass on their way to perception, in one call: there they fill a batch."""

    def __init__(self, parts: Parts, method: str, session: str, windows: Sequence[Window], *given: Any) -> None:
        self._parts, self._call = parts, ("perception", method, session, list(windows), *given)
        self._reply, self._percepts = parts.begin(*self._call), None

    def percepts(self) -> list[Percept]:
        """Waits for them, and sends the windows again where perception dies."""
        if self._percepts is None:
            self._percepts = self._parts.insist(*self._call, reply=self._reply)
            self._reply = None
        return self._percepts


@dataclass(frozen=True, slots=True)
class Sent(Window):
    """A window that perception has already. `sending`, `place`: what it is part of."""

    sending: Sending | None = field(default=None, compare=False)
    place: int = field(default=0, compare=False)


class RemoteReader:
    """Windows of a pass in another process, fetched by a thread ahead of their reader. Unless a gate is to see them first
    they are sent to perception at once: then no part waits for another one, and at most two trips wait for the reader.
    When the source dies, the pass goes on behind the last window that came."""

    def __init__(self, parts: Parts, media: str, sidecars: dict[str, str], first_window: int, ahead: bool = True) -> None:
        self._parts, self._media, self._sidecars, self._next = parts, media, sidecars, first_window
        self._ahead = ahead
        self.warnings: list[str] = []
        self._batches: Queue[list[Window] | None] = Queue(1)
        self._error: Exception | None = None
        self._batch: deque[Window] = deque()
        self._closed = threading.Event()
        self._begin()
        threading.Thread(target=self._fetch_all, name=f"fetch {media}", daemon=True).start()

    def __iter__(self) -> RemoteReader:
        return self

    def __next__(self) -> Window:
        while not self._batch:
            if self._closed.is_set():
                raise StopIteration
            with suppress(Empty):
                self._batch += self._batches.get(timeout=RETRY_EVERY_S) or ()
                if not self._batch:
                    self._closed.set()
                    if self._error is not None:
                        raise self._error
        return self._batch.popleft()

    def _begin(self) -> None:
        self._key = uuid.uuid4().hex
        self._parts.insist("source", "open", self._key, self._media, self._sidecars, self._next)

    def _fetch_all(self) -> None:
        """Put trips; None is the end, or that of what went wrong."""
        try:
            reply = self._ask()
            while windows := self._fetch(reply):
                self._next = windows[-1].index + 1
                reply = self._ask()  # decoded while these are seen
                if not self._put(self._sent(windows) if self._ahead else windows):
                    return
        except Exception as error:
            self._error = error
        self._put(None)

    def _put(self, found: list[Window] | None) -> bool:
        """False where nobody reads any more."""
        while not self._closed.is_set():
            with suppress(Full):
                self._batches.put(found, timeout=RETRY_EVERY_S)
                return True
        return False

    def _sent(self, windows: list[Window]) -> list[Window]:
        sending = Sending(self._parts, "encode", self._key, windows)
        return [Sent(w.index, w.t0_s, w.t1_s, w.signals, w.dropped, w.videos, sending, i) for i, w in enumerate(windows)]

    def _ask(self) -> Any:
        return self._parts.begin("source", "next", self._key, TRIP)

    def _fetch(self, reply: Any) -> list[Window]:
        deadline_s = time.monotonic() + self._parts.runtime.media_timeout_s
        while True:
            try:
                windows, self.warnings = self._parts.finish("source", reply)
                return windows
            except RuntimeFault as fault:
                if not fault.passing or time.monotonic() > deadline_s or self._closed.is_set():
                    raise
                time.sleep(RETRY_EVERY_S)
                self._begin()
                reply = self._ask()

    def close(self) -> None:
        self._closed.set()
        self._parts.begin("source", "close", self._key)

    def __enter__(self) -> RemoteReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemotePerception:
    """As `anymodal.perception.Perception`, as far as Perceive calls it. Windows of all sessions share its batches."""

    def __init__(self, parts: Parts) -> None:
        self.spec, self._parts = parts.spec, parts
        self.under_way = 0  # here: the actor makes the batches

    def encode_many(self, items: Sequence[tuple[str, Window]], *, rows: int | None = None,
                    once: bool = False) -> list[list[Tokens]]:
        unsent: dict[str, list[Window]] = {}  # by session
        places: list[tuple[Sending | str, int] | None] = []
        for session, window in items:
            if isinstance(window, Sent):
                places.append((window.sending, window.place))
            elif window.signals:
                waiting = unsent.setdefault(session, [])
                places.append((session, len(waiting)))
                waiting.append(window)
            else:
                places.append(None)
        how = ("encode_alone",) if once else ("encode", rows)
        sent = {session: Sending(self._parts, how[0], session, windows, *how[1:]) for session, windows in unsent.items()}
        found: list[list[Tokens]] = []
        for (session, w), place in zip(items, places, strict=True):
            if place is None:
                found.append([])
                continue
            sending = sent[place[0]] if isinstance(place[0], str) else place[0]
            found.append([replace(t, session=session, window=w.index, t0_s=w.t0_s, t1_s=w.t1_s)
                          for t in sending.percepts()[place[1]].tokens])
        return found

    def pool(self, question: str, percepts: Sequence[Percept]) -> list[Percept]:
        """As `Perception.pool`; features do not outlive the actor that keeps them."""
        return self._parts.insist("perception", "pool", question, list(percepts))


class RemoteState:
    """A state in another process, with a memory of its own like the one there: both follow from the windows alone. Let
    go of there when it is let go of here."""

    def __init__(self, parts: Parts, memory: Memory, made: list[Compaction]) -> None:
        self.key, self.memory, self.made = uuid.uuid4().hex, memory, made
        weakref.finalize(self, parts.begin, "mind", "drop", self.key).atexit = False

    @property
    def exact_from_s(self) -> float:
        return self.memory.in_effect_s


class RemoteMind:
    """As `anymodal.language.mind.Mind`. Raises RuntimeFault where the state is lost."""

    def __init__(self, parts: Parts, layout: Layout) -> None:
        self.spec, self._parts, self.layout = parts.spec, parts, layout

    def check(self, question: str) -> None:
        self.layout.check(question)

    def spelt(self, text: str) -> str:
        return self._parts.insist("mind", "spelt", text) if self.spec.word_reader else text  # else it is left as it is

    def open(self, compaction: Compaction | None = None, windows: Iterable[Percept] = ()) -> RemoteState:
        memory = Memory(self.spec.memory, self.layout.text_tokens, self.spec.prompt.order, len(self.layout.head),
                        self._parts.call("mind", "beside"))
        if compaction is not None:
            memory.restore(compaction)
        windows = list(windows)
        state = RemoteState(self._parts, memory, [c for w in windows if (c := memory.append(w)) is not None])
        self._parts.call("mind", "open", state.key, compaction, windows)
        return state

    def extend_all(self, state: RemoteState, percepts: Sequence[Percept]) -> list[Compaction]:
        if percepts:
            self._parts.call("mind", "extend", state.key, percepts)
        return [made for percept in percepts if (made := state.memory.append(percept)) is not None]

    def answer(self, state: RemoteState, question: str, *, cancelled: Callable[[], bool] = lambda: False,
               **given: Any) -> Iterator[Delta | Answer]:
        key = uuid.uuid4().hex
        self._parts.call("mind", "begin", state.key, key, question, given)
        try:
            while not cancelled() and (pieces := self._parts.call("mind", "next", key)):
                if text := "".join(piece.text for piece in pieces if isinstance(piece, Delta)):
                    yield Delta(text)  # what was said meanwhile takes one way
                yield from (piece for piece in pieces if isinstance(piece, Answer))
        finally:
            self._parts.begin("mind", "drop", key)

    def judge(self, state: RemoteState, prompts: Sequence[str], *, evidence: bool = False) -> list:
        return self._parts.call("mind", "judge", state.key, list(prompts), evidence) if prompts else []
