"""Media and a conversation about them as one session, which lasts as long as the answer takes.

What is shown comes one after the other on the session's clock: a second image follows the first one's window. What was
asked and answered between is told where it stood, so that a question may refer to it.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from actors.gateway.hosts import Asking, Host, HostSession
from actors.gateway.media import Shown
from actors.gateway.metrics import Metrics
from anymodal.errors import AnymodalError, MediaError, SessionError, SidecarError
from anymodal.types import Answer, Delta

DIALOGUE = "chat"


@dataclass(frozen=True, slots=True)
class Said:
    """An earlier question with its answer."""

    question: str
    answer: str


def prefix(state: Path) -> str:
    """How the sessions of one gateway's clips are called: one that is killed removes its own at the next start."""
    return f"clip-{hashlib.sha256(str(state.absolute()).encode()).hexdigest()[:8]}-"


class ClipAsking(Iterator[Delta | Answer]):
    """An answer about a clip. One thread iterates, any may `close`; that waits until all is put away.

    `tokens`: of the media, by modality, once the answer is there.
    """

    def __init__(self, host: Host, state: Path, steps: Sequence[Shown | Said], question: str, at_s: float | None,
                 metrics: Metrics) -> None:
        self._stage = metrics.stage
        self.tokens: dict[str, int] = {}
        self._host, self._name = host, prefix(state) + uuid.uuid4().hex
        self._steps, self._question, self._at_s = steps, question, at_s
        self._session: HostSession | None = None
        self._asking: Asking | None = None
        self._closed = False
        self._turn = threading.Lock()  # held while a piece is made
        self._pieces = self._run()

    def __next__(self) -> Delta | Answer:
        with self._turn:
            try:
                return next(self._pieces)
            except AnymodalError:
                if self._closed:
                    raise StopIteration from None
                raise

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._closed = True
        with suppress(AnymodalError):
            if (asking := self._asking) is not None:
                asking.cancel()
            if (session := self._session) is not None:
                session.close()  # ends a wait for media
        with self._turn:
            self._pieces.close()

    def _run(self) -> Iterator[Delta | Answer]:
        session = self._session = self._host.open(self._name, live=False)
        try:
            for step in self._steps:
                if self._closed:
                    raise SessionError("the question was taken back", fix="ask again")
                if isinstance(step, Said):
                    session.tell(step.question, step.answer, dialogue=DIALOGUE)
                    continue
                try:
                    with self._stage("watch"):
                        session.feed(str(step.path), step.sidecars)
                        session.wait()
                except (MediaError, SidecarError) as error:
                    raise step.fault(error) from error
            self._asking = session.stream(self._question, at_s=self._at_s, dialogue=DIALOGUE)
            for piece in self._asking:
                if isinstance(piece, Answer):
                    self.tokens = session.tokens()
                yield piece
        finally:
            with suppress(AnymodalError):
                session.forget()


def forget_left(host: Host, state: Path) -> None:
    """Clips of a gateway that was killed."""
    for name in host.names():
        if name.startswith(prefix(state)):
            with suppress(AnymodalError):
                host.forget(name)
