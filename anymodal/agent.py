"""The main path, in one process. `actors/pipeline.py` is the same path over Ray, made of the same stages.

    media --Source--> Window --Perceive--> Percept --Think--> Delta, Delta, ... Answer
          (decode,            (encode +            (KV cache,
           align)              pool)                a fork per question)

| stage | consumes | produces | waits for | when overloaded |
|---|---|---|---|---|
| Source | a file, folder, address | Windows on the media clock | the next window being asked for | decodes no further |
| Perceive | Windows | Percepts: a few tokens a window | a full batch, or the clip's end | - |
| Think | Percepts | a longer KV cache | - | merges the oldest windows, past `memory.budget_tokens` |
| Think | a Question | text, then evidence and confidence | all windows, or those up to `at_s` | - |

Every stage is pulled by the one after it, so no more than a batch of windows is ever held. Questions share one pass:
the clip is encoded once, and each question answers on a fork of the cache.
"""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anymodal.asked import pooled
from anymodal.errors import ConfigError, need
from anymodal.language.prompt import check_questions
from anymodal.stages.items import Clip, Closing, Opening, Question
from anymodal.stages.perceive import Perceive
from anymodal.stages.source import Source
from anymodal.stages.think import Piece, Think, time_first_tokens
from anymodal.threads import limit_threads, usable_cores
from anymodal.types import Answer, Delta

if TYPE_CHECKING:
    from anymodal.session.log import Retention
    from anymodal.session.session import Session

MOST_THREADS = 4  # a small model gets slower beyond


def load(name: str | Path = "tiny", *, device: str = "cpu", dtype: str = "float32",
         threads: int | None = None) -> Agent:
    """A shipped bundle's name, or the path of a YAML -> an Agent ready to answer.

    `threads`: of torch in this process; None takes the usable cores, at most four, unless OMP_NUM_THREADS is set.
    Raises ConfigError, WeightsError, MissingExtraError.
    """
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = min(MOST_THREADS, usable_cores())
    if threads is not None:
        limit_threads(threads)
    need("torch", extra="run")
    from anymodal.bundle import load_bundle

    check_device(device)
    return Agent(load_bundle(name, device=device, dtype=dtype))


class Agent:
    """Answers questions about media. Made by `load`."""

    def __init__(self, bundle) -> None:
        self.bundle = bundle
        self.spec = bundle.spec
        self.source = Source(bundle.spec)
        self.perception = bundle.perception
        self.think = Think(bundle.mind)

    def ask(self, media: str | Path | None, question: str | Sequence[str], *, at_s: float | None = None,
            sidecars: Mapping[str, str | Path] | None = None, folder_rate_hz: float | None = None) -> Answer | list[Answer]:
        """Answer a question, or a list of questions in one pass over the media.

        media: path or URL of a video, sound or image, an image folder, or None. at_s: answer as of this media time.
        sidecars: sensor tables by modality, beside those found next to the clip. folder_rate_hz: images a second of a
        folder of images.
        Raises MediaError, SidecarError, QuestionError.
        """
        questions = [question] if isinstance(question, str) else list(question)
        pieces = self.stream(media, questions, at_s=at_s, sidecars=sidecars, folder_rate_hz=folder_rate_hz)
        answers = [piece for _, piece in pieces if isinstance(piece, Answer)]
        return answers[0] if isinstance(question, str) else answers

    def stream(self, media: str | Path | None, questions: str | Sequence[str], *, at_s: float | None = None,
               sidecars: Mapping[str, str | Path] | None = None,
               folder_rate_hz: float | None = None) -> Iterator[tuple[int, Delta | Answer]]:
        """The same, as text is generated: (the question's number, Delta or Answer), question after question."""
        texts = check_questions([questions] if isinstance(questions, str) else questions, self.bundle.tokenizer,
                                self.spec.prompt.max_question_tokens)
        clip = new_clip(media, at_s, sidecars, folder_rate_hz)
        return time_first_tokens(self._run(clip, texts), time.perf_counter())

    def open(self, media: str | Path | None = None, *, log: str | Path | None = None,
             sidecars: Mapping[str, str | Path] | None = None, streams: Mapping[str, str] | None = None,
             live: bool = False, gate: bool = False, idle_timeout_s: float = math.inf,
             stale_s: float | None = None, retention: Retention | None = None) -> Session:
        """Begin a session: it watches as long as it is open and answers meanwhile. Close it, or use it in a `with`.

        media: watched from now on, if given; otherwise `feed` or `push`. log: where the session is kept, a new file;
        None keeps it only as long as it is open. streams: name -> modality of what will be pushed, such as
        {"left": "video", "right": "video"}; None is one of each usual modality. live: windows that come faster than they
        are seen are shed, not waited for: those more than stale_s behind (None is four windows). gate: streams that have
        not changed are not encoded again. idle_timeout_s: a stream silent for so long is not waited for. retention: what
        the log may drop of its past.
        """
        from anymodal.session.local import forget, new_session

        session = new_session(self.bundle, log, retention=retention, streams=streams, live=live,
                              gate=gate, idle_timeout_s=idle_timeout_s, stale_s=stale_s)
        if media is not None:
            try:
                session.feed(media, sidecars=sidecars)
            except BaseException:
                session.close()
                if log is not None:
                    forget(log)  # as if it had not been opened
                raise
        return session

    def reopen(self, log: str | Path, *, write: bool = True, streams: Mapping[str, str] | None = None,
               live: bool = False, gate: bool = False, idle_timeout_s: float = math.inf,
               stale_s: float | None = None, retention: Retention | None = None) -> Session:
        """Go on with a session from its log; `feed()` goes on with the file it was watching.

        From now on no one else's writes are taken. write=False only asks, beside whoever is writing.
        """
        from anymodal.session.local import old_session

        return old_session(self.bundle, log, write=write, retention=retention, streams=streams, live=live, gate=gate,
                           idle_timeout_s=idle_timeout_s, stale_s=stale_s)

    def _run(self, clip: Clip, texts: Sequence[str]) -> Iterator[Piece]:
        think, perceive = self.think, Perceive(self.perception)
        think.push(Opening(clip.session))
        try:
            for window in self.source.push(clip):
                for percept in perceive.push((clip.session, window)):
                    think.push(percept)
            for percept in perceive.close():
                think.push(percept)
            for number, text in enumerate(texts):
                chosen, seen = think.recent(clip.session)
                looked_at = tuple(pooled(self.perception, text, chosen, seen=seen))
                yield from think.push(Question(clip.session, number, text, clip.at_s, pooled=looked_at))
        finally:
            think.push(Closing(clip.session))


def new_clip(media: str | Path | None, at_s: float | None, sidecars: Mapping[str, str | Path] | None,
             folder_rate_hz: float | None = None) -> Clip:
    """A session of its own for one pass over some media."""
    tables = {name: str(path) for name, path in (sidecars or {}).items()}
    return Clip(uuid.uuid4().hex, None if media is None else str(media), at_s, tables, folder_rate_hz)


def check_device(device: str) -> None:
    """Raise ConfigError unless torch can compute there."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}", fix="cpu, cuda or cuda:0") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} is not there: torch sees no CUDA GPU",
                          fix="use device cpu, or install a CUDA build of torch")
