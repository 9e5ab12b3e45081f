"""The supervisor: owns the sessions of one bundle on a cluster, their logs' writers and their lives.

A detached actor, found by name: no driver's end touches it. The parts it started are its own, so they end with it and
none is left behind. When it is restarted it takes the logs over, which fences whoever wrote them, and goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from actors.session_parts import RETRY_EVERY_S, TRIP, Parts
from anymodal.errors import AnymodalError, RuntimeFault, SessionError
from anymodal.session.local import Session, SqliteLog, new_session, old_session
from anymodal.session.log import Feed, Retention
from anymodal.session.news import token_counts
from anymodal.session.sqlite_log import forget
from anymodal.types import Answer, Delta, Packet

SUFFIX = ".session"  # of logs
RULE_ACTIONS = ("add", "list", "pause", "resume", "remove")
ABANDONED_S = 3600.0  # an answer that has not been fetched by then was given up by its asker
POLL_S = 2.0  # every call answers at least this often


class ActorSession(Session):
    """A Session whose parts are actors: it outlives them."""

    _whole_batches = True
    _at_once = TRIP

    def __init__(self, parts: Parts, log: SqliteLog, **options: Any) -> None:
        self._patience_s = parts.runtime.start_timeout_s
        self._read = partial(parts.read, ahead=not options.get("gate"))  # what a gate stops is not encoded
        self._beginning = threading.Lock()
        self._resuming: threading.Thread | None = None
        self.fault: AnymodalError | None = None  # why what was being fed could not be gone on with
        super().__init__(parts, log, **options)

    def begin(self, media: str | None = None, sidecars: Mapping[str, str] | None = None) -> None:
        """Feed, unless it is being fed from the same place."""
        with self._beginning:
            feeder = self._feeder
            if feeder is None or not feeder.running or media not in (None, feeder.name):
                self.feed(media, sidecars=sidecars)
            self.fault = None

    def resume(self) -> None:
        """Go on with what was being fed; who asks meanwhile need not wait for the source."""
        self._resuming = threading.Thread(target=self._resume, name=f"resume {self.id}", daemon=True)
        self._resuming.start()

    def _resume(self) -> None:
        try:
            self.begin()
        except AnymodalError as error:
            self.fault = error

    def running(self, within_s: float = 0.0) -> bool:
        """Is it being fed, still after a while? Raises what ended the feed, or what keeps it from going on; SessionError
        while packets are pushed."""
        self._check_flushed()
        if self._resuming is not None:
            self._resuming.join(within_s)
            if self._resuming.is_alive():
                return True
        if (feeder := self._feeder) is not None and feeder.running and not feeder.join(within_s):
            return True
        self._raise_fault()
        if self.fault is not None:
            raise self.fault
        return False

    def _take(self, batch: list[Any]) -> None:
        percepts = self._persist(lambda: self._encode(batch))  # once: a gate decides differently the second time
        self._persist(lambda: self._store(batch, percepts))

    def _state_at(self, at_s: float | None) -> Any:
        return self._persist(lambda: super(ActorSession, self)._state_at(at_s))

    def _persist(self, work: Callable[[], Any]) -> Any:
        """Again, on a rebuilt state, as long as parts may be coming back."""
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                return work()
            except RuntimeFault as fault:
                if not fault.passing or time.monotonic() > deadline_s or self._closed:
                    raise
                self._lost()
                time.sleep(RETRY_EVERY_S)

    def _lost(self) -> None:
        """The mind's state is gone, and it may not have judged the last window."""
        self._state.lose()
        self._judged = False

    def _answer(self, asking: Any) -> Iterator[Delta | Answer]:
        if asking.at_s is None:
            asking.at_s = self.end_s  # a second attempt sees what the first one saw

        def attempt() -> Iterator[Delta | Answer]:
            return super(ActorSession, self)._answer(asking)

        def lost() -> None:
            with self._turns.taken():
                self._lost()

        yield from resumed(attempt, lost, self._patience_s, asking.stopped)


def resumed(attempt: Callable[[], Iterator[Delta | Answer]], lost: Callable[[], None], patience_s: float,
            stopped: Callable[[], bool] = lambda: False) -> Iterator[Delta | Answer]:
    """An answer that is begun again when a part dies: text that was given is not given twice.

    Raises RuntimeFault where the second attempt says something else, or after `patience_s` without an attempt that
    gets anywhere.
    """
    given, deadline_s = "", time.monotonic() + patience_s
    while True:
        said = ""
        try:
            for piece in attempt():
                if isinstance(piece, Answer):
                    yield piece
                    continue
                said += piece.text
                if not (said.startswith(given) or given.startswith(said)):
                    raise RuntimeFault("a part died, and the answer came out differently the second time",
                                       fix="ask again")
                if len(said) > len(given):
                    new, given = said[len(given):], said
                    yield Delta(new)
            return
        except RuntimeFault as fault:
            other = bool(said) and not said.startswith(given[: len(said)])
            if not fault.passing or stopped() or time.monotonic() > deadline_s or other:
                raise
            lost()
            time.sleep(RETRY_EVERY_S)


class Supervisor:
    """Hosts the sessions whose logs are in a folder, by name. Its methods are called from many threads."""

    def __init__(self, bundle: str, folder: str, parts: Callable[[str], Parts] = Parts) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._bundle = bundle
        # what a restarted supervisor goes on with: a folder may hold sessions of several bundles
        self._register = self._folder / f"open-{hashlib.sha256(bundle.encode()).hexdigest()[:8]}.json"
        self._lock = threading.Lock()
        self._sessions: dict[str, ActorSession] = {}
        self._faults: dict[str, AnymodalError] = {}
        self._askings: dict[str, Any] = {}
        self._fault: AnymodalError | None = None  # what keeps it from working at all
        try:
            self._parts = parts(bundle)
        except AnymodalError as error:
            self._fault = error
            return
        noted = self._noted()
        kept = {name: options for name, options in noted.items() if self._path(name).exists()}  # others were forgotten
        if kept != noted:
            self._note(kept)
        for name, options in kept.items():
            try:
                self._sessions[name] = self._reopened(name, options, check=False)  # it waits for no mind
            except AnymodalError as error:
                self._faults[name] = error

    def ready(self) -> dict[str, int]:
        """Process ids, once all parts are up. Raises what keeps it from working."""
        if self._fault is not None:
            raise self._fault
        return {"supervisor": os.getpid(), **self._parts.pids()}

    # -- sessions -----------------------------------------------------------------------------------------------

    def open(self, name: str, media: str | None, sidecars: Mapping[str, str], options: Mapping[str, Any]) -> None:
        """Begin a session, or go on with the one of this name. May be called twice. Raises MediaError, LogError.

        options: `live`, `streams`, `idle_timeout_s`, `stale_s`, `gate`, as of `Agent.open`, and the fields of its
        `retention`; None is the default. A supervisor that is restarted opens it with the same.
        """
        if not name or Path(name).name != name or name.startswith("."):
            raise SessionError(f"{name!r} is no name for a session", fix="letters, digits, - and _")
        with self._lock:
            new = not self._path(name).exists()
            if name not in self._sessions:
                self._sessions[name] = self._made(name, options)
                self._faults.pop(name, None)
                self._note({**self._noted(), name: dict(options)})
        if media is not None:
            try:
                self._find(name).begin(media, sidecars)
            except AnymodalError:
                if new:
                    self.forget(name)  # as if it had not been opened
                raise

    def push(self, name: str, packets: list[Packet]) -> list[AnymodalError]:
        """Packets in order; gives what was wrong with some of them. Raises SessionError where the session takes none."""
        session, wrong = self._find(name), []
        for packet in packets:
            try:
                session.push(packet)
            except SessionError:
                raise
            except AnymodalError as error:
                wrong.append(error)
        return wrong

    def be_patient(self, name: str) -> None:
        self._find(name).be_patient()

    def missing(self, name: str, source: str, reason: str, start_s: float, end_s: float) -> None:
        self._find(name).missing(source, reason, start_s, end_s)

    def flush(self, name: str) -> None:
        self._find(name).flush()

    def windows(self, name: str) -> int:
        """How many were seen."""
        return self._find(name).windows

    def watched(self, name: str) -> tuple[int, bool]:
        """Windows seen, and whether anything is still being fed; waits a moment for that. Raises what ended a feed."""
        session = self._find(name)
        running = session.running(POLL_S)
        return session.windows, running

    def list(self) -> list[dict[str, Any]]:
        """A row per session."""
        rows = []
        for name, session in list(self._sessions.items()):
            feeder = session._feeder
            try:
                seen = session.windows, session.end_s
            except AnymodalError as error:
                rows.append(self._row(name, error, 0, 0.0))
            else:
                rows.append(self._row(name, session.fault or (feeder and feeder.error), *seen, feeder and feeder.running))
        return rows + [self._row(name, error, 0, 0.0) for name, error in list(self._faults.items())]

    def _row(self, name: str, fault: AnymodalError | None, windows: int, seen_s: float,
             feeding: bool | None = False) -> dict[str, Any]:
        return {"session": name, "bundle": self._bundle, "windows": windows, "seen_s": seen_s, "feeding": bool(feeding),
                "log": str(self._path(name)), "error": str(fault or "")}

    def close(self, name: str) -> None:
        """End a session; its log stays."""
        with self._lock:
            session = self._sessions.pop(name, None)
            self._faults.pop(name, None)
            self._note({key: options for key, options in self._noted().items() if key != name})
        if session is not None:
            session.close()

    def forget(self, name: str) -> None:
        """End a session and delete its log."""
        self.close(name)
        if self._path(name).exists():
            forget(self._path(name))

    def names(self) -> list[str]:
        """Of all sessions and logs."""
        logs = (path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}"))
        return sorted({*self._sessions, *self._faults, *logs})

    # -- questions ----------------------------------------------------------------------------------------------

    def begin(self, asking: str, name: str, question: str, at_s: float | None, dialogue: str | None,
              wait_s: float, key: str = "") -> float:
        """Begin an answer, to be fetched by `next`; gives the media time it is as of. `key`: see `Session.stream`."""
        self._drop_abandoned()
        session = self._find(name)
        begun = session.stream(question, at_s=at_s, dialogue=dialogue, wait_s=wait_s, key=key)
        if begun.at_s is None:
            begun.at_s = session.end_s
        self._askings[asking] = begun
        return begun.at_s

    def next(self, asking: str) -> Delta | Answer | None:
        """The next piece, None after the last one."""
        if asking not in self._askings:
            raise RuntimeFault("the supervisor does not know this answer: it was restarted", fix="ask again")
        try:
            piece = next(self._askings[asking], None)
        except BaseException:
            self._askings.pop(asking, None)
            raise
        if piece is None:
            self._askings.pop(asking, None)
        return piece

    def cancel(self, asking: str) -> None:
        if (found := self._askings.pop(asking, None)) is not None:
            found.cancel()

    def _drop_abandoned(self) -> None:
        now_s = time.perf_counter()
        for key, asking in list(self._askings.items()):
            if now_s - asking.began_s > asking.wait_s + ABANDONED_S:
                self.cancel(key)

    def search(self, name: str, query: str) -> list[Any]:
        return self._find(name).search(query)

    def events(self, name: str, before_s: float | None) -> list[Any]:
        return self._find(name).events(before_s=before_s)

    def tell(self, name: str, question: str, answer: str, dialogue: str) -> None:
        self._find(name).tell(question, answer, dialogue=dialogue)

    def seen(self, name: str, after: int, wait_s: float) -> list[Any]:
        return self._find(name).seen(after, wait_s=min(wait_s, POLL_S))

    def tokens(self, name: str) -> dict[str, int]:
        return token_counts(self._find(name).log)

    def rule(self, name: str, action: str, *given: str) -> Any:
        """One of RULE_ACTIONS on a session's standing rules."""
        if action not in RULE_ACTIONS:
            raise SessionError(f"no action {action!r} on rules", fix=f"one of {', '.join(RULE_ACTIONS)}")
        return getattr(self._find(name).rules, action)(*given)

    # -- inside -------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> ActorSession:
        if name in self._faults:
            raise self._faults[name]
        if name not in self._sessions:
            raise SessionError(f"no session {name!r}", fix=f"open: {', '.join(self._sessions) or 'none'}")
        return self._sessions[name]

    def _made(self, name: str, options: Mapping[str, Any]) -> ActorSession:
        if self._path(name).exists():
            return self._reopened(name, options)
        return new_session(self._parts, self._path(name), kind=ActorSession, **_given(name, options))

    def _reopened(self, name: str, options: Mapping[str, Any], *, check: bool = True) -> ActorSession:
        session = old_session(self._parts, self._path(name), kind=ActorSession, check=check, **_given(name, options))
        *_, noted = None, *session.log.entries(Feed)
        if noted is not None and noted.media:
            session.resume()
        return session

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"

    def _noted(self) -> dict[str, dict[str, Any]]:
        with suppress(OSError, ValueError):
            return json.loads(self._register.read_text())
        return {}

    def _note(self, sessions: dict[str, dict[str, Any]]) -> None:
        half = self._register.with_suffix(".half")
        half.write_text(json.dumps(sessions))
        os.replace(half, self._register)


def _given(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in options.items() if value is not None}
    return {**given, "retention": Retention(**given.get("retention", {})), "stopped_by": f"anymodal stop {name} --forget"}
