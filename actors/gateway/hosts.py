"""The two ways to run, with one face: `LocalHost` keeps sessions in this process, `ActorHost` on Ray.

Everything here blocks: call it through `workers`. Sessions have names; their logs lie in a folder, where a restarted
gateway finds them. `Asking` is an answer on its way: iterate it in one thread, `cancel` it from any.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from anymodal.agent import Agent, load
from anymodal.config import BundleSpec, load_spec
from anymodal.errors import AnymodalError, SessionError
from anymodal.language.layout import make_layout
from anymodal.language.tokenizer import TextTokenizer
from anymodal.models import weights_folder
from anymodal.session.log import RuleEvent
from anymodal.session.news import Seen, token_counts
from anymodal.session.recall import Hit
from anymodal.session.rules import Rule
from anymodal.session.sqlite_log import forget
from anymodal.types import Answer, Delta, Packet

if TYPE_CHECKING:
    from actors.gateway.decoding import ApartReader, Decoders

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
SUFFIX = ".session"  # of logs


class Asking(Protocol):
    def __iter__(self) -> Iterator[Delta | Answer]: ...

    def __next__(self) -> Delta | Answer: ...

    def cancel(self) -> None:
        """It then ends, without an Answer, at the latest after the token that is being made."""


class RuleBook(Protocol):
    """As `anymodal.session.rules.Rules`."""

    def add(self, text: str) -> Rule: ...

    def list(self) -> tuple[Rule, ...]: ...

    def pause(self, name: str) -> None: ...

    def resume(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...


class HostSession(Protocol):
    """A session that is open. As `anymodal.session.Session`, whose errors its methods raise."""

    name: str
    rules: RuleBook

    @property
    def windows(self) -> int:
        """How many have been seen."""

    def feed(self, media: str, sidecars: Mapping[str, str]) -> None:
        """Show a file, behind what was seen before."""

    def wait(self) -> None:
        """Until all that is fed has been seen. Raises what ended it early."""

    def push(self, packets: Sequence[Packet]) -> list[AnymodalError]:
        """Take packets in order; what was wrong with some of them."""

    def be_patient(self) -> None:
        """A window is kept open while all streams are silent: who pushes may be away, and bring the rest later."""

    def missing(self, source: str, reason: str, start_s: float, end_s: float = math.inf) -> None:
        """Nothing comes of a source in this span of media time, and why."""

    def flush(self) -> None:
        """Nothing more comes for now: all that was pushed is seen, a window cut short too."""

    def stream(self, question: str, *, at_s: float | None = None, dialogue: str | None = None,
               wait_s: float = 0.0) -> Asking: ...

    def tell(self, question: str, answer: str, *, dialogue: str) -> None:
        """What was asked and answered elsewhere: later questions of the dialogue may refer to it."""

    def tokens(self) -> dict[str, int]:
        """How many tokens of each modality all windows have."""

    def search(self, query: str) -> list[Hit]: ...

    def events(self, *, before_s: float | None = None) -> list[RuleEvent]: ...

    def seen(self, after: int = -1, *, wait_s: float = 0.0) -> list[Seen]:
        """Windows behind number `after`, a few dozen at once; waits a while for the first."""

    def close(self) -> None:
        """End it; the log stays. What was pushed and not seen is lost: `flush` first."""

    def forget(self) -> None:
        """End it, and delete its log."""


class Host(Protocol):
    """Where sessions are. `name`: of the model, as clients call it."""

    name: str
    spec: BundleSpec
    tokenizer: TextTokenizer

    def ready(self) -> dict[str, int]:
        """Process ids by role, once all parts work. Raises what keeps them from it."""

    def open(self, name: str, *, streams: Mapping[str, str] | None = None, live: bool = True,
             idle_timeout_s: float | None = None, stale_s: float | None = None) -> HostSession:
        """Begin a session, or go on with the one of this name: its streams have to be given again.

        streams: name -> modality of what will be pushed; None is one of each modality. live: what comes faster than it
        is seen is shed, once it is more than `stale_s` behind (None: four windows). idle_timeout_s: a stream silent for
        so long is not waited for; None waits.
        """

    def decode_with(self, decoders: Decoders) -> None:
        """Files that are fed to sessions which are not live are read by these from now on, unless that is done in other
        processes already."""

    def known(self, name: str) -> bool:
        """Is there a session, or its log?"""

    def names(self) -> list[str]:
        """Of all sessions and logs."""

    def forget(self, name: str) -> None:
        """End a session, if it is open, and delete its log."""

    def close(self) -> None:
        """Sessions end; their logs stay."""


def check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise SessionError(f"{name!r:.120} is no name for a session", fix="letters, digits, - and _")
    return name


# -- in this process ---------------------------------------------------------------------------------------------


class LocalHost:
    """`bundle`: a name or a YAML's path, or an Agent that is loaded already. `threads`: of torch for each session at work;
    None: one for parts of a bundle's own, which are small, so that several sessions compute at once."""

    def __init__(self, bundle: str | Path | Agent = "tiny", *, folder: Path, threads: int | None = None) -> None:
        if not isinstance(bundle, Agent):
            small = load_spec(bundle)[0].checkpoint is None
            bundle = load(bundle, threads=threads or (1 if small else None))
        self._agent = bundle
        self.spec, self.tokenizer = self._agent.spec, self._agent.bundle.tokenizer
        self.name = self.spec.name
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open: dict[str, LocalSession] = {}
        self._lock = threading.Lock()
        self._decoders: Decoders | None = None

    def ready(self) -> dict[str, int]:
        self._agent.bundle.perception, self._agent.bundle.mind  # noqa: B018  (loaded now, not at the first question)
        return {"gateway": os.getpid()}

    def open(self, name: str, *, streams: Mapping[str, str] | None = None, live: bool = True,
             idle_timeout_s: float | None = None, stale_s: float | None = None) -> LocalSession:
        path = self._path(name)
        options = {"streams": streams, "live": live, "stale_s": stale_s,
                   "idle_timeout_s": float("inf") if idle_timeout_s is None else idle_timeout_s}
        with self._lock:
            if name not in self._open:
                session = (self._agent.reopen(path, **options) if path.exists()
                           else self._agent.open(log=path, **options))
                self._open[name] = LocalSession(self, name, session, None if live else self._decoders)
            return self._open[name]

    def decode_with(self, decoders: Decoders) -> None:
        self._decoders = decoders

    def known(self, name: str) -> bool:
        return name in self._open or self._path(name).exists()

    def names(self) -> list[str]:
        return sorted({*self._open, *(path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}"))})

    def forget(self, name: str) -> None:
        path = self._path(name)
        if (session := self._open.get(name)) is not None:
            session.close()
        if path.exists():
            forget(path)

    def close(self) -> None:
        for session in list(self._open.values()):
            session.close()

    def _path(self, name: str) -> Path:
        return self._folder / f"{check_name(name)}{SUFFIX}"


class LocalSession:
    """See HostSession. `decoders`: what reads the files that are fed; None: this process itself."""

    def __init__(self, host: LocalHost, name: str, session: Any, decoders: Decoders | None) -> None:
        self.name, self.rules = name, session.rules
        self._host, self._session = host, session
        self.flush, self.wait, self.be_patient = session.flush, session.wait, session.be_patient
        self.stream, self.search, self.events = session.stream, session.search, session.events
        self.tell, self.seen, self.missing = session.tell, session.seen, session.missing
        self._decoders, self._reader, self._closing = decoders, None, False
        if decoders is not None:
            session._read = self._read

    @property
    def windows(self) -> int:
        return self._session.windows

    def feed(self, media: str, sidecars: Mapping[str, str]) -> None:
        self._session.feed(media, sidecars=sidecars)

    def push(self, packets: Sequence[Packet]) -> list[AnymodalError]:
        wrong = []
        for packet in packets:
            try:
                self._session.push(packet)
            except AnymodalError as error:
                wrong.append(error)
        return wrong

    def tokens(self) -> dict[str, int]:
        return token_counts(self._session.log)

    def close(self) -> None:
        with self._host._lock:
            self._host._open.pop(self.name, None)
        self._closing = True
        if self._reader is not None:
            self._reader.stop()  # the session waits for the thread that reads
        self._session.close()
        if self._reader is not None:
            self._reader.close()

    def forget(self) -> None:
        self._host.forget(self.name)

    def _read(self, *given: Any, **options: Any) -> ApartReader:
        """As `anymodal.media.read_windows`."""
        reader = self._reader = self._decoders.begin(*given, **options)
        if self._closing:
            reader.stop()
        return reader.open()


# -- on Ray ------------------------------------------------------------------------------------------------------


class ActorHost:
    """Through `actors.sessions.Sessions`: the supervisor of a running Ray, or of one that is started here."""

    def __init__(self, bundle: str | Path = "tiny", address: str | None = None, *, folder: Path) -> None:
        from actors.sessions import Sessions
        from anymodal.config import load_spec

        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        spec, path = load_spec(bundle)
        self.tokenizer = make_layout(spec, weights_folder(spec, path)).tokenizer
        self._sessions = Sessions(bundle, address, folder=folder)
        self.spec, self.name = spec, spec.name

    def ready(self) -> dict[str, int]:
        return self._sessions.ready()

    def open(self, name: str, *, streams: Mapping[str, str] | None = None, live: bool = True,
             idle_timeout_s: float | None = None, stale_s: float | None = None) -> ActorHostSession:
        self._sessions.open(check_name(name), live=live, streams=streams, idle_timeout_s=idle_timeout_s, stale_s=stale_s)
        return ActorHostSession(self._sessions, name)

    def decode_with(self, decoders: Decoders) -> None:
        """Source actors decode."""

    def known(self, name: str) -> bool:
        return check_name(name) in self.names()

    def names(self) -> list[str]:
        return self._sessions.call("names")

    def forget(self, name: str) -> None:
        self._sessions.call("forget", check_name(name))

    def close(self) -> None:
        """Leave the cluster. On a Ray of its own that ends all; elsewhere sessions go on."""
        self._sessions.close()


class ActorHostSession:
    """See HostSession."""

    def __init__(self, sessions: Any, name: str) -> None:
        self.name = name
        self._sessions, self._remote = sessions, sessions.session(name)
        self.rules = _ActorRules(self._remote)
        self.push, self.flush, self.wait = self._remote.push, self._remote.flush, self._remote.wait
        self.stream, self.search, self.events = self._remote.stream, self._remote.search, self._remote.events

    @property
    def windows(self) -> int:
        return self._remote.windows

    def feed(self, media: str, sidecars: Mapping[str, str]) -> None:
        self._sessions.open(self.name, media, sidecars=sidecars)

    def be_patient(self) -> None:
        self._sessions.call("be_patient", self.name)

    def missing(self, source: str, reason: str, start_s: float, end_s: float = math.inf) -> None:
        self._sessions.call("missing", self.name, source, reason, start_s, end_s)

    def tell(self, question: str, answer: str, *, dialogue: str) -> None:
        self._sessions.call_once("tell", self.name, question, answer, dialogue)

    def seen(self, after: int = -1, *, wait_s: float = 0.0) -> list[Seen]:
        return self._sessions.call("seen", self.name, after, wait_s)

    def tokens(self) -> dict[str, int]:
        return self._sessions.call("tokens", self.name)

    def close(self) -> None:
        self._sessions.call("close", self.name)

    def forget(self) -> None:
        self._sessions.call("forget", self.name)


class _ActorRules:
    def __init__(self, remote: Any) -> None:
        self._rule = remote.rule

    def add(self, text: str) -> Rule:
        return self._rule("add", text)

    def list(self) -> tuple[Rule, ...]:
        return self._rule("list")

    def pause(self, name: str) -> None:
        self._rule("pause", name)

    def resume(self, name: str) -> None:
        self._rule("resume", name)

    def remove(self, name: str) -> None:
        self._rule("remove", name)
