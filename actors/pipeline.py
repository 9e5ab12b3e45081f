"""The main path, distributed: the stages of `anymodal/agent.py`, each in an actor of its own.

      asker --start--> SourceActor --Window--> PerceptionActor --Percepts--> MindActor <--ask, read-- asker
                            ^----------------------credit------------------------'

| actor | consumes | produces | waits for | when overloaded |
|---|---|---|---|---|
| source | Clips, a thread each | Windows (object store) | a credit per window | decodes no further |
| perception | Windows of any clips | Percepts: tokens only | a batch, or `batch_wait_s` | is bounded by the credits |
| mind | Percepts, Questions | Deltas and Answers | the next window in order | BusyError past `clips` sessions |
| asker | Progress, Deltas, Answers | - | no reply longer than `stall_timeout_s` | - |

A window's credit comes back when the mind has it, so a slow mind stops the decoding, and no frames pile up. The asker
pulls text with calls that answer at once or within seconds. All actors start in parallel; a dead one is restarted by
Ray and loads its part again; what was in flight on it ends in a RuntimeFault, and may be asked again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.cluster import Cluster
from actors.faults import as_fault
from actors.mind import MindActor
from actors.perception import PerceptionActor
from actors.placement import needs, place
from actors.runtime import read_runtime
from actors.source import Progress, SourceActor
from anymodal.agent import new_clip
from anymodal.asked import pooled
from anymodal.config import load_spec
from anymodal.errors import MediaError, RuntimeFault
from anymodal.language.layout import make_layout
from anymodal.language.prompt import check_question, check_questions
from anymodal.models import weights_folder
from anymodal.stages.items import Clip, Percept, Question
from anymodal.stages.think import Piece, time_first_tokens
from anymodal.types import Answer, Delta

RETRY_EVERY_S = 0.2
FAREWELL_S = 5.0


def connect(address: str, model: str | Path = "tiny") -> Pipeline:
    """A pipeline on the running cluster at an address."""
    return Pipeline(model, address)


class Pipeline:
    """Answers questions about media like `anymodal.agent.Agent`, from three actors. A context manager; close it.

    address: "auto", "host:port" or "ray://host:port" of a running Ray; None uses the Ray this process has joined, or
    starts a private one. clips: passes over media at once, instead of the bundle's own `runtime.clips`.
    Raises ConfigError, WeightsError, PlacementError, RuntimeFault. May be used from several threads.
    """

    def __init__(self, bundle: str | Path = "tiny", address: str | None = None, *, clips: int | None = None) -> None:
        self.spec, path = load_spec(bundle)
        self.runtime = read_runtime(self.spec, clips=clips)
        self._tokenizer = make_layout(self.spec, weights_folder(self.spec, path)).tokenizer
        self._bundle = str(bundle) if str(bundle) != str(path) else str(path.resolve())
        self._actors: dict[str, Any] = {}
        self._group = None
        self._lock, self._calls = threading.Lock(), 0
        self._cluster = Cluster(address)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    # -- asking -------------------------------------------------------------------------------------------------

    def ask(self, media: str | Path | None, question: str | Sequence[str], *, at_s: float | None = None,
            sidecars: Mapping[str, str | Path] | None = None, folder_rate_hz: float | None = None) -> Answer | list[Answer]:
        """Answer a question, or a list of questions in one pass over the media. As `Agent.ask`."""
        pieces = self.stream(media, question, at_s=at_s, sidecars=sidecars, folder_rate_hz=folder_rate_hz)
        answers = [piece for _, piece in pieces if isinstance(piece, Answer)]
        return answers[0] if isinstance(question, str) else answers

    def stream(self, media: str | Path | None, questions: str | Sequence[str], *, at_s: float | None = None,
               sidecars: Mapping[str, str | Path] | None = None, folder_rate_hz: float | None = None,
               warnings: list[str] | None = None) -> Iterator[tuple[int, Delta | Answer]]:
        """(the question's number, Delta or Answer) as text is generated. As `Agent.stream`.

        `warnings` receives what was damaged in the media. Raises RuntimeFault where an actor failed.
        """
        texts = check_questions([questions] if isinstance(questions, str) else questions, self._tokenizer,
                                self.spec.prompt.max_question_tokens)
        clip = new_clip(media if media is None or "://" in str(media) else Path(media).absolute(), at_s,
                        {name: Path(path).absolute() for name, path in (sidecars or {}).items()}, folder_rate_hz)
        return time_first_tokens(self._run(clip, texts, warnings), time.perf_counter())

    def check(self, question: str) -> None:
        """Raise QuestionError for a question that cannot be asked."""
        check_question(question, self._tokenizer, self.spec.prompt.max_question_tokens)

    def _run(self, clip: Clip, texts: Sequence[str], warnings: list[str] | None) -> Iterator[Piece]:
        try:
            self._call("mind", "open", clip.session)
            self._call("source", "start", clip)
            progress = self._watch(clip)
            if warnings is not None:
                warnings += progress.warnings
            self._call("mind", "ask", [
                Question(clip.session, number, text, clip.at_s, progress.windows, self._pooled(clip.session, text))
                for number, text in enumerate(texts)])
            left = len(texts)
            while left:
                for piece in self._call("mind", "read", clip.session):
                    left -= isinstance(piece[1], Answer)
                    yield piece
        finally:
            self._tell("source", "stop", clip.session)
            self._tell("mind", "close", clip.session)

    def _pooled(self, session: str, question: str) -> tuple[Percept, ...]:
        """Windows as an adapter that reads the question sees them; none for other adapters."""
        if self.spec.asked is None:
            return ()
        chosen, seen = self._call("mind", "recent", session)
        return tuple(pooled(self, question, chosen, seen=seen))

    def pool(self, question: str, percepts: Sequence[Percept]) -> list[Percept]:
        """As `Perception.pool`."""
        return self._call("perception", "pool", question, list(percepts))

    def _watch(self, clip: Clip) -> Progress:
        """Wait until the mind has seen all of a clip."""
        windows, heard_s = -1, time.monotonic()
        while not (progress := self._call("source", "watch", clip.session)).done:
            if progress.windows > windows:
                windows, heard_s = progress.windows, time.monotonic()
            elif time.monotonic() - heard_s > self.runtime.media_timeout_s:
                raise MediaError(f"{clip.media} brought nothing for {self.runtime.media_timeout_s:g} s",
                                 fix="check the file or its address, or raise runtime.media_timeout_s")
        return progress

    def _call(self, role: str, method: str, *given: Any, timeout_s: float | None = None) -> Any:
        """Call an actor and wait for its reply. Raises RuntimeFault for a death or a silence."""
        with self._lock:
            actor = self._actors.get(role)
            if actor is None:
                raise RuntimeFault("the pipeline is closed", fix="make a new one")
            self._calls += 1
        try:
            reply = getattr(actor, method).remote(*given)
            return ray.get(reply, timeout=timeout_s or self.runtime.stall_timeout_s)
        except RayError as error:
            raise as_fault(error, role) from error
        finally:
            with self._lock:
                self._calls -= 1

    def _tell(self, role: str, method: str, *given: Any) -> None:
        """Call an actor, come of it what may."""
        with suppress(RuntimeFault):
            self._call(role, method, *given, timeout_s=FAREWELL_S)

    # -- running ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """All actors at once: each imports and loads its part while the others do."""
        self._group = place(self.runtime)
        wanted = needs(self.runtime)

        name = f"anymodal-{uuid.uuid4().hex}"  # actors find each other by name: a restarted one could lose a handle

        def start(role: str, host: type, *given: Any) -> None:
            place_of = PlacementGroupSchedulingStrategy(self._group, list(wanted).index(role))
            actor = ray.remote(host).options(
                name=f"{name}-{role}", num_cpus=wanted[role]["CPU"], num_gpus=wanted[role].get("GPU", 0),
                max_restarts=-1, scheduling_strategy=place_of)
            self._actors[role] = actor.remote(*given)

        start("mind", MindActor, self._bundle, self.runtime)
        start("perception", PerceptionActor, self._bundle, self.runtime, f"{name}-mind")
        start("source", SourceActor, self.spec, self.runtime, f"{name}-perception")
        replies = {role: actor.ready.remote() for role, actor in self._actors.items()}
        deadline_s = time.monotonic() + self.runtime.start_timeout_s
        for role, reply in replies.items():
            try:
                ray.get(reply, timeout=max(0.0, deadline_s - time.monotonic()))
            except RayError as error:
                raise as_fault(error, role) from error

    def wait_ready(self) -> None:
        """Return once every actor is up, restarted ones included. Raises RuntimeFault after `start_timeout_s`."""
        deadline_s = time.monotonic() + self.runtime.start_timeout_s
        for role in list(self._actors):
            while True:
                try:
                    self._call(role, "ready")
                    break
                except RuntimeFault as fault:
                    if time.monotonic() > deadline_s:
                        raise RuntimeFault(f"the {role} does not come back: {fault.message}",
                                           fix="see the cluster's logs and memory") from fault
                    time.sleep(RETRY_EVERY_S)

    def load(self, *roles: str) -> dict[str, dict[str, Any]]:
        """What each actor (or those of some roles) holds now: process ids, windows in flight, sessions, batches."""
        return {role: self._call(role, "load") for role in roles or self._actors}

    def close(self) -> None:
        """Stop the actors, and the Ray that was started here. May be called twice."""
        with self._lock:
            actors, self._actors = self._actors, {}
        with suppress(RayError, ConnectionError):
            for actor in actors.values():
                ray.kill(actor, no_restart=True)
            if self._group is not None:
                remove_placement_group(self._group)
        deadline_s = time.monotonic() + FAREWELL_S
        while self._calls and time.monotonic() < deadline_s:  # Ray must not go while another thread waits for it
            time.sleep(0.02)
        self._group = None
        self._cluster.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
