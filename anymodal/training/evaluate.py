"""How often a bundle is right on held-out clips, by question type, beside what it would say without seeing them.

    render to mp4 --> Agent.stream, as `ask` does --> score     controls, on the same questions of the first clips:
                                                                   text_only    no sensors, refusals barred
                                                                   majority     the type's commonest training answer
                                                                   other_clip   the sensors of another clip
                                                                   shuffled     the clip's frames in another order
                                                                   tensors      rendered without a file
"""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anymodal.agent import Agent, load
from anymodal.errors import InputError, OutputError, check_writable, nearest
from anymodal.language.mind import MindState
from anymodal.media import read_windows
from anymodal.playground.files import USUAL, clip_truth, in_threads, load_truth, render_clip, senses_of
from anymodal.playground.offworld import OFF_WORLD_TEST
from anymodal.playground.questions import CANNOT_TELL, DESCRIPTIONS, OUTSIDE, Question, facts
from anymodal.playground.truth import ClipTruth
from anymodal.playground.wordings import ask
from anymodal.playground.world import COLORS, HELD_OUT_PAIRS, SHAPES, SIZES, SPLITS, Scene, Thing
from anymodal.training.asking import answer_batch, scene_windows, shuffle_frames, watch
from anymodal.training.report import build_report, show_report
from anymodal.training.scoring import is_right, type_of
from anymodal.types import Answer

CONTROL_CLIPS = 150
PER_CLIP = 12
COMPOSITIONAL_CLIPS = 100
COMPOSITIONAL_KINDS = ("color", "shape", "size", "place_now", "place_first", "motion", "yn_color")
MAJORITY_CLIPS = 300


@dataclass(slots=True)
class Row:
    """One question asked. `controls`: whether each control's answer was right too."""

    clip: int
    kind: str
    question: Question
    answer: Answer
    controls: dict[str, bool] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return is_right(self.question, self.answer.text)


@dataclass(slots=True)
class Findings:
    """Everything that was asked: rows of held-out clips, refusals asked for, and the compositional clips' rows."""

    rows: list[Row] = field(default_factory=list)
    off_world: list[Answer] = field(default_factory=list)
    compositional: list[Row] = field(default_factory=list)
    clip_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)


def run_eval(
    bundle: str | Path | Agent = "tiny",
    *,
    seed: int = 1,
    count: int = 500,
    seconds: float | None = 8.0,
    split: str = "test",
    json_path: str | Path | None = None,
    controls: bool = True,
    control_count: int | None = None,
    folder: str | Path | None = None,
    direct: bool = False,
    progress: Callable[[int, int], None] | None = None,
    compositional: bool = True,
    per_clip: int = PER_CLIP,
    show: bool = True,
) -> dict[str, Any]:
    """Ask a bundle about held-out clips; returns the report, prints it as tables and writes it to `json_path`.

    count clips of `seconds` (None: 4 to 30 s), at most `per_clip` questions each, rare types first. control_count:
    clips that the controls are run on. folder: keeps the clips, else they are removed. direct: render to tensors
    instead of mp4. compositional: also ask about attribute pairs never seen in training. progress: called with
    (clips done, clips in all). Raises InputError, OutputError, ConfigError.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", fix=nearest(split, SPLITS))
    if count < 1:
        raise InputError(f"cannot evaluate on {count} clips", fix="give a count of 1 or more")
    if json_path:
        check_writable(Path(json_path))
    agent = bundle if isinstance(bundle, Agent) else load(bundle)
    extra = min(COMPOSITIONAL_CLIPS, max(1, count // 5)) if compositional and split != "compositional" else 0
    controlled = min(count, CONTROL_CLIPS if control_count is None else control_count) if controls else 0
    ticks = iter(range(1, count + extra + 1))

    def tick() -> None:
        if progress:
            progress(next(ticks), count + extra)

    began_s = time.perf_counter()
    findings, senses = Findings(), senses_of(agent.spec)
    with _folder(folder) as place:
        held_out = Clips(place, split, seed, count, seconds, direct, per_clip, senses)
        _ask_clips(agent, held_out, findings, controlled, tick)
        if controlled:
            _without_sensors(agent, [r for r in findings.rows if r.clip < controlled], seconds)
        if extra:
            _ask_pairs(agent, Clips(place, "compositional", seed, extra, seconds, direct, per_clip, senses), findings, tick)
    report = build_report(findings, agent.spec, {
        "bundle": agent.spec.name, "split": split, "seed": seed, "clips": count, "clip_seconds": seconds,
        "path": "tensors" if direct else "mp4", "control_clips": controlled})
    report["speed"]["total_s"] = time.perf_counter() - began_s
    if show:
        show_report(report)
    if json_path:
        write_json(report, Path(json_path))
    return report


def write_json(report: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix="give another file") from error


@contextlib.contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="anymodal-eval-") as made:
            yield Path(made)
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}", fix="give another folder") from error
    yield Path(folder)


# --- clips -------------------------------------------------------------------------------------------------------

@dataclass(slots=True)
class Clips:
    """The clips of one run, in order: (index, truth with the questions to ask, its mp4 or None for tensors)."""

    folder: Path
    split: str
    seed: int
    count: int
    seconds: float | None
    direct: bool
    per_clip: int
    modalities: tuple[str, ...] = USUAL

    def __iter__(self) -> Iterator[tuple[int, ClipTruth, Path | None]]:
        asked: Counter[str] = Counter()
        made = in_threads(self._make, range(self.count), 1)  # ahead, while the model answers
        with contextlib.closing(made):
            for index, (truth, media) in enumerate(made):
                chosen = balanced(truth, asked, self.per_clip)
                yield index, ClipTruth(truth.scene, chosen, truth.made), media

    def _make(self, index: int) -> tuple[ClipTruth, Path | None]:
        if self.direct:
            return clip_truth(self.split, self.seed, index, seconds=self.seconds, modalities=self.modalities), None
        folder = self.folder / self.split
        folder.mkdir(exist_ok=True)
        media = render_clip(folder, split=self.split, seed=self.seed, index=index, seconds=self.seconds,
                            modalities=self.modalities)
        return load_truth(media.with_suffix(".json")), media


def balanced(truth: ClipTruth, asked: Counter[str], most: int) -> tuple[Question, ...]:
    """At most `most` of a clip's questions: those of the types asked least so far, which `asked` counts on."""
    kinds = {q: type_of(q.type, len(truth.scene.things)) for q in truth.questions}
    chosen = sorted(truth.questions, key=lambda q: (asked[kinds[q]], kinds[q]))[:most]
    asked.update(kinds[q] for q in chosen)
    return tuple(chosen)


def _answers(agent: Agent, truth: ClipTruth, media: Path | None, texts: Sequence[str]) -> list[Answer]:
    if media is not None:
        return [piece for _, piece in agent.stream(media, texts) if isinstance(piece, Answer)]
    mind = agent.bundle.mind
    state = watch(agent.perception, mind, scene_windows(truth.scene, agent.spec))
    return [piece for text in texts for piece in mind.answer(state, text) if isinstance(piece, Answer)]


# --- asking ------------------------------------------------------------------------------------------------------

def _ask_clips(agent: Agent, clips: Clips, findings: Findings, controlled: int, tick: Callable[[], None]) -> None:
    mind, previous, first = agent.bundle.mind, None, []
    for index, truth, media in clips:
        strange = OFF_WORLD_TEST[index :: clips.count]
        began_s = time.perf_counter()
        answers = _answers(agent, truth, media, [q.question for q in truth.questions] + list(strange))
        findings.clip_s.append(time.perf_counter() - began_s)
        findings.first_token_s.append(answers[0].ttft_s)
        findings.off_world += answers[len(truth.questions) :]
        rows = [Row(index, type_of(q.type, len(truth.scene.things)), q, a)
                for q, a in zip(truth.questions, answers, strict=False)]
        findings.rows += rows
        if index < controlled:
            state = _control_clip(agent, truth, media, rows)
            if previous is None:
                first = rows
            else:
                _control(mind, previous, rows, "other_clip")
            previous = state
        tick()
    if controlled > 1:
        _control(mind, previous, first, "other_clip")


def _control_clip(agent: Agent, truth: ClipTruth, media: Path | None, rows: list[Row]) -> MindState:
    """Run the controls that need this clip alone; returns the session that has seen it as it is."""
    mind, straight = agent.bundle.mind, scene_windows(truth.scene, agent.spec)
    if media is None:
        windows = straight
    else:
        with read_windows(media, agent.spec) as reader:
            windows = list(reader)
        _control(mind, watch(agent.perception, mind, straight), rows, "tensors")
    _control(mind, watch(agent.perception, mind, shuffle_frames(windows, seed=rows[0].clip)), rows, "shuffled")
    return watch(agent.perception, mind, windows)


def _control(mind: Any, state: MindState, rows: Sequence[Row], name: str, barred: Sequence[str] = ()) -> None:
    answers = answer_batch(mind, state, [r.question.question for r in rows], barred=barred)
    for row, answer in zip(rows, answers, strict=True):
        row.controls[name] = is_right(row.question, answer.text)


def _without_sensors(agent: Agent, rows: list[Row], seconds: float | None) -> None:
    mind = agent.bundle.mind
    _control(mind, mind.open(), rows, "text_only", barred=(CANNOT_TELL, OUTSIDE))
    usual = majority_answers(seconds, MAJORITY_CLIPS, senses_of(agent.spec))
    for row in rows:
        row.controls["majority"] = is_right(row.question, usual.get(row.kind, ""))


def majority_answers(seconds: float | None, clips: int, modalities: tuple[str, ...] = USUAL) -> dict[str, str]:
    """By type, the answer that is right most often on training clips."""
    said: dict[str, Counter[str]] = {}
    for index in range(clips):
        truth = clip_truth("train", 0, index, seconds=seconds, modalities=modalities)
        for question in truth.questions:
            said.setdefault(type_of(question.type, len(truth.scene.things)), Counter())[question.answer] += 1
    return {kind: counts.most_common(1)[0][0] for kind, counts in said.items() if kind not in DESCRIPTIONS}


# --- attribute pairs kept from training --------------------------------------------------------------------------

def _ask_pairs(agent: Agent, clips: Clips, findings: Findings, tick: Callable[[], None]) -> None:
    for index, truth, media in clips:
        rng = random.Random(f"pairs/{clips.seed}/{index}")
        questions = held_out_questions(truth.scene, rng)
        if questions:
            answers = _answers(agent, truth, media, [q.question for q in questions])
            findings.compositional += [Row(index, type_of(q.type, len(truth.scene.things)), q, a)
                                       for q, a in zip(questions, answers, strict=True)]
        tick()


def held_out_questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Questions about an object whose colour and shape were never seen together in training, one of each type."""
    found: list[Question] = []
    for kind, rows in facts(scene, rng).items():
        mine = [f for f in rows if kind in COMPOSITIONAL_KINDS and _names_held_out(scene, f.slots["obj"])]
        if mine:
            fact = rng.choice(mine)
            found.append(Question(kind, ask(rng, kind, fact.slots, held_out=True), fact.answer, fact.accept[:4],
                                  fact.evidence))
    return found


def _names_held_out(scene: Scene, name: str) -> bool:
    named = [t for t in scene.things if fits(t, name)]
    return len(named) == 1 and (named[0].color, named[0].shape) in HELD_OUT_PAIRS


def fits(thing: Thing, name: str) -> bool:
    """Does a description such as "large red object" fit the thing?"""
    colors = {thing.color, thing.recolor[1]} if thing.recolor else {thing.color}
    words = name.split()
    return all((w in colors) if w in COLORS else (w == thing.shape) if w in SHAPES else (w == thing.size) if w in SIZES
               else w == "object" for w in words)
