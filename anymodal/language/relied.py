"""The windows that an answer relies on, by what their soft tokens say of what the question names.

A language model writes its evidence as the times of windows, and of times beyond those of clips it has seen few. Where
tokens tell what was asked, they tell where it was, too, at any time of a stream.
Shapes: K windows, N tokens of each, V words that tokens may say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from anymodal.language.named import LONE, THING
from anymodal.language.options import follows, only
from anymodal.language.shown import THERE, both
from anymodal.language.tokenizer import EOS, EVIDENCE
from anymodal.memory import Span
from anymodal.types import Evidence

if TYPE_CHECKING:
    from anymodal.language.pointing import Pointing

GOING = 0.3  # likelihood from which on a thing goes a way
Run = tuple[int, int, str]  # places of the first and the last window, and the sense


def relied(pointing: Pointing, answer: Sequence[int]) -> list[Run]:
    """What an answer of these tokens relies on; nothing: tokens do not tell."""
    named, pointer = pointing.named, pointing.pointer
    if answer[:1] in ([pointer.unseen], [pointer.outside]):
        return []
    if pointing.moment:  # it asks of the window that was looked at
        looked = pointing.looked
        return [] if looked is None or named.happenings else [(looked, looked, pointer.sense(THING))]
    if told := [k for k in pointing.times(answer) if max((w[k] for w in pointing.when), default=0) > GOING]:
        return [(k, k, pointer.sense(h.kind for h in named.happenings)) for k in told]
    if answer[:1] == [pointer.no] and len(named.happenings) < 2 and pointing.seen < THERE:
        absent = pointing.plain and (named.happenings or named.polar)
        kinds = [*(h.kind for h in named.happenings), *THING]
        return [(0, len(pointing.said) - 1, pointer.sense(kinds))] if absent else []
    if named.counts:
        return [(0, len(pointing.said) - 1, pointer.sense(THING))]
    if named.happenings:
        found = [_happening(pointing, k, answer) for k in range(len(named.happenings))]
        return list(dict.fromkeys(found)) if all(found) else []
    shown = [(a, b, pointer.sense(THING)) for a, b in runs(pointing.there > THERE)]
    if not named.thing or not shown:
        return []
    if named.start:
        return [(shown[0][0], *shown[0][::2])]
    return shown if pointing.plain else [(shown[-1][1], *shown[-1][1:])]  # "now"


def _happening(pointing: Pointing, place: int, answer: Sequence[int]) -> Run | None:
    """The windows of one that a question names: of what an answer says of it, where it says that."""
    pointer, happening, when = pointing.pointer, pointing.named.happenings[place], pointing.when[place]
    sense, table = pointer.sense({happening.kind}), pointer.kinds.get(happening.kind, {})
    words = next((w for ids, w in table.items() if list(ids) == list(answer[: len(ids)])), None)
    there = pointing.there > THERE
    if words is not None and not pointing.named.edge:
        begins = pointer.begins if happening.kind in LONE else ()
        when = both(pointing.said, [*words, *happening.thing, *begins]) * (there if pointing.named.heard else 1)
    if happening.kind == "way" and pointing.named.thing:  # it goes that way from when it is seen until it stops
        marks = np.flatnonzero((when > GOING) & there if words is not None else there)
        return (int(np.flatnonzero(there)[0]), int(marks[-1]), sense) if len(marks) else None
    if when.max() <= THERE:
        return None
    k = int((when > THERE).argmax() if happening.kind in LONE else when.argmax())
    if happening.kind == "motion" and answer[:1] == [pointer.yes]:
        on = np.max([both(pointing.said, w) for w in happening.words], 0) > THERE
        return next(((a, b, sense) for a, b in runs(on) if a <= k <= b), (k, k, sense))
    return k, k, sense


def spans(found: Sequence[Run], windows: Sequence[Span]) -> tuple[Evidence, ...]:
    """The times of what windows, by place, an answer relies on; where others lie between, it is several."""
    evidence: list[Evidence] = []
    for first, last, sense in found:
        begin = first
        for k in range(first, last + 1):
            if k == last or windows[k + 1].t0_s > windows[k].t1_s + 1e-6:
                evidence.append(Evidence(windows[begin].t0_s, windows[k].t1_s, sense))
                begin = k + 1
    return tuple(evidence)


def runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """First and last places of what is marked in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@dataclass(slots=True)
class SpanWriter:
    """What may stand in evidence that a language model writes: times of windows that it has, the later one last.
    labels: their times, in order."""

    labels: Sequence[tuple[int, ...]]
    _ids: list[int] | None = field(default=None, init=False)  # of the span that has begun

    def push(self, token: int) -> None:
        if token in EVIDENCE.values():
            self._ids = []
        elif self._ids is not None:
            self._ids.append(token)

    def weigh(self, scores: Tensor) -> Tensor:
        if self._ids is None:
            return scores
        ids = tuple(self._ids)
        may = follows(self.labels, ids)
        for k, label in enumerate(self.labels):
            if ids[: len(label)] == label:  # the first time is said
                may |= follows(self.labels[k:], ids[len(label) :])
                may |= {EOS, *EVIDENCE.values()} if ids[len(label) :] in self.labels[k:] else set()
        return only(scores, may) if may else scores
