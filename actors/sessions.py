"""Sessions on a cluster, as their users see them.

    with connect("auto") as sessions:
        door = sessions.open("door", "clip.mp4")
        print(door.ask("what colour is the circle?"))

They are detached: they go on when this process ends, until they are stopped. `anymodal ps` lists them.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from actors.cluster import Cluster
from actors.faults import as_fault
from actors.runtime import read_runtime
from actors.session_parts import RETRY_EVERY_S
from actors.supervisor import Supervisor, resumed
from anymodal.config import load_spec
from anymodal.errors import AnymodalError, ConfigError, PlacementError, RuntimeFault, SessionError
from anymodal.session.log import Retention
from anymodal.types import Answer, Delta, Packet

NAMESPACE = "anymodal"
CALLS = 128  # at once, of all users; a question or a feed takes one only while it is looked at
STOP_TIMEOUT_S = 60.0
LOST = "it was restarted, and what it had not stored is lost"


def default_folder() -> Path:
    """Where sessions keep their logs unless told otherwise: on a local disk of the supervisor's node."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "anymodal" / "sessions"


class Sessions:
    """The sessions of one bundle on a cluster. Starts their supervisor if there is none; a context manager.

    address: of a running Ray; None uses the one this process has joined, or starts a private one, whose sessions end
    with this process. folder: where their logs are, for a supervisor that is started now.
    """

    def __init__(self, bundle: str | Path = "tiny", address: str | None = None, *,
                 folder: str | Path | None = None) -> None:
        self.spec, path = load_spec(bundle)
        self.runtime = read_runtime(self.spec)
        name = str(bundle) if str(bundle) != str(path) else str(path.resolve())
        self._cluster = Cluster(address)
        try:
            self._actor = ray.remote(Supervisor).options(
                name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_restarts=-1,
                max_concurrency=CALLS, num_cpus=0).remote(name, str(Path(folder or default_folder()).absolute()))
            try:
                self.ready()
            except (ConfigError, PlacementError):  # it cannot work at all
                self.end()
                raise
        except BaseException:
            self._cluster.close()
            raise

    def ready(self) -> dict[str, int]:
        """Process ids by role, once all are up."""
        return self.call("ready", timeout_s=self.runtime.start_timeout_s)

    def open(self, name: str, media: str | Path | None = None, *, sidecars: Mapping[str, str | Path] | None = None,
             live: bool = False, streams: Mapping[str, str] | None = None,
             idle_timeout_s: float | None = None, stale_s: float | None = None, gate: bool = False,
             retention: Retention | None = None) -> RemoteSession:
        """Begin a session, or go on with that of this name. media: watched from now on; without it push packets.

        live, streams, idle_timeout_s, stale_s, gate, retention: of a session that is not running yet, as of `Agent.open`.
        """
        place = None if media is None else str(media) if "://" in str(media) else str(Path(media).absolute())
        tables = {kind: str(Path(path).absolute()) for kind, path in (sidecars or {}).items()}
        options = {"live": live, "streams": streams and dict(streams), "idle_timeout_s": idle_timeout_s,
                   "stale_s": stale_s, "gate": gate or None, "retention": retention and asdict(retention)}
        self.call("open", name, place, tables, options)
        return RemoteSession(self, name)

    def session(self, name: str) -> RemoteSession:
        return RemoteSession(self, name)

    def list(self) -> list[dict[str, Any]]:
        return self.call("list")

    def stop(self, *names: str) -> None:
        """End sessions; their logs stay. With the last one end the supervisor and its parts."""
        self._end("close", names)

    def forget(self, *names: str) -> None:
        """The same, and their logs are deleted."""
        self._end("forget", names)

    def _end(self, how: str, names: Sequence[str]) -> None:
        for name in names:
            self.call(how, name)
        if not self.list():
            self.end()

    def end(self) -> None:
        """End the supervisor and its parts, and wait until their processes are gone. Sessions that are still open are
        gone on with by the next supervisor."""
        stop_supervisor(self._actor)

    def call(self, method: str, *given: Any, timeout_s: float | None = None) -> Any:
        """Call the supervisor: again after its death, since every method here may be called twice."""
        deadline_s = time.monotonic() + self.runtime.start_timeout_s
        while True:
            try:
                return self.call_once(method, *given, timeout_s=timeout_s)
            except RuntimeFault as fault:
                if not fault.passing or time.monotonic() > deadline_s:
                    raise
                time.sleep(RETRY_EVERY_S)

    def call_once(self, method: str, *given: Any, timeout_s: float | None = None) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*given),
                           timeout=timeout_s or self.runtime.start_timeout_s)
        except RayError as error:
            raise as_fault(error, "supervisor") from error

    def close(self) -> None:
        """Leave the cluster. Sessions go on, except on a private Ray."""
        self._cluster.close()

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteSession:
    """A session by its name. As `anymodal.session.Session`."""

    def __init__(self, sessions: Sessions, name: str) -> None:
        self._sessions, self.name = sessions, name
        self._broke = False  # a push did not arrive

    def ask(self, question: str, *, at_s: float | None = None, dialogue: str | None = None, wait_s: float = 0.0) -> Answer:
        for piece in self.stream(question, at_s=at_s, dialogue=dialogue, wait_s=wait_s):
            if isinstance(piece, Answer):
                return piece
        raise SessionError("the answer was cancelled", fix="ask again")

    def stream(self, question: str, *, at_s: float | None = None, dialogue: str | None = None,
               wait_s: float = 0.0) -> RemoteAsking:
        """An answer's text, then the answer; closing or cancelling it ends it. A part that dies meanwhile is waited for,
        the supervisor too."""
        return RemoteAsking(self._sessions, (self.name, question), at_s, dialogue, wait_s)

    def push(self, packets: Sequence[Packet]) -> list[AnymodalError]:
        """Hand over packets; gives what was wrong with some. Raises SessionError where the session takes none, and
        RuntimeFault where the supervisor dies meanwhile: what was pushed and not yet seen is then a gap that says so."""
        try:
            if self._broke and packets:
                begin_s = self._sessions.call_once("windows", self.name) * self._sessions.spec.window_s
                end_s = min(packet.pts_s for packet in packets)
                self._sessions.call_once("missing", self.name, "supervisor", LOST, begin_s, end_s)
                self._broke = False
            return self._sessions.call_once("push", self.name, list(packets))
        except RuntimeFault as fault:
            self._broke = self._broke or fault.passing
            raise

    def search(self, query: str) -> list[Any]:
        return self._sessions.call("search", self.name, query)

    def events(self, *, before_s: float | None = None) -> list[Any]:
        return self._sessions.call("events", self.name, before_s)

    def rule(self, action: str, *given: str) -> Any:
        """What `anymodal.session.session.Session.rules` does: rule("add", "tell me when a bell rings"), rule("list"),
        rule("pause", name), rule("resume", name), rule("remove", name)."""
        return self._sessions.call_once("rule", self.name, action, *given)

    def flush(self) -> None:
        self._sessions.call("flush", self.name)

    @property
    def windows(self) -> int:
        return self._sessions.call("windows", self.name)

    def wait(self, *, stall_s: float = 600.0) -> int:
        """Return once all that is fed has been seen. Raises what ended it early, RuntimeFault after `stall_s`, and
        SessionError while packets are pushed: `flush` first."""
        seen, since_s = -1, time.monotonic()
        while True:
            windows, running = self._sessions.call("watched", self.name)
            if not running:
                return windows
            if windows != seen:
                seen, since_s = windows, time.monotonic()
            elif time.monotonic() - since_s > stall_s:
                raise RuntimeFault(f"session {self.name!r} has seen nothing new for {stall_s:g} s",
                                   fix="look at the source")

    def stop(self) -> None:
        self._sessions.stop(self.name)

    def forget(self) -> None:
        """End it, and delete its log."""
        self._sessions.forget(self.name)


class RemoteAsking(Iterator[Delta | Answer]):
    """As `anymodal.session.asking.Asking`: one thread iterates, any may `cancel`."""

    def __init__(self, sessions: Sessions, what: tuple[str, str], at_s: float | None, dialogue: str | None,
                 wait_s: float) -> None:
        self._sessions, self._what, self._at_s = sessions, what, at_s
        self._dialogue, self._wait_s = dialogue, wait_s
        self._key, self._cancelled = "", False
        self._turn = uuid.uuid4().hex  # of all attempts
        self._pieces = resumed(self._attempt, lambda: None, sessions.runtime.start_timeout_s, lambda: self._cancelled)

    def _attempt(self) -> Iterator[Delta | Answer]:
        self._key = uuid.uuid4().hex
        self._at_s = self._sessions.call_once("begin", self._key, *self._what, self._at_s, self._dialogue, self._wait_s,
                                              self._turn)
        while not self._cancelled and (piece := self._sessions.call_once("next", self._key)) is not None:
            yield piece

    def __next__(self) -> Delta | Answer:
        try:
            return next(self._pieces)
        except RuntimeFault:
            if self._cancelled:
                raise StopIteration from None
            raise

    def cancel(self) -> None:
        self._cancelled = True
        with suppress(RuntimeFault):
            self._sessions.call_once("cancel", self._key)

    def close(self) -> None:
        self.cancel()
        self._pieces.close()


def supervisors() -> dict[str, Any]:
    """Handles of the supervisors on the cluster that this process has joined, by bundle."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return {each["name"]: ray.get_actor(each["name"], namespace=NAMESPACE) for each in found
            if each["namespace"] == NAMESPACE}


def stop_supervisor(actor: Any) -> None:
    """End a supervisor for good; its parts are its own and end with it."""
    pids: list[int] = []
    with suppress(RayError):
        pids = list(ray.get(actor.ready.remote(), timeout=STOP_TIMEOUT_S).values())
    with suppress(RayError):
        ray.kill(actor, no_restart=True)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while any(_is_there(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.05)


def _is_there(pid: int) -> bool:
    """On this machine; of another node's processes nothing is known."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
