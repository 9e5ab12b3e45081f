"""Putting a question to a mind: windows that it is shown once more, earlier turns, and what its answer goes by.

A question is a fork of what the mind holds. Windows that it names, or that its words point to, stand right before it; one
that a step of its answer looks at is put in before the answer goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anymodal.language.layout import Reader
from anymodal.language.named import THING
from anymodal.language.options import barring, only
from anymodal.language.past import NEWEST, Past, chosen
from anymodal.language.pointer import Pointer
from anymodal.language.pointing import Pointing
from anymodal.language.prompt import window_label
from anymodal.language.relied import SpanWriter, relied, spans
from anymodal.language.rows import Places, Rows
from anymodal.language.telling import Teller, Told
from anymodal.language.tokenizer import ANSWER, ENDS, EOS, NOTE, moment_in
from anymodal.memory import Span, named, whole_at
from anymodal.session.log import Turn
from anymodal.stages.items import Percept
from anymodal.types import Evidence

if TYPE_CHECKING:
    from anymodal.language.mind import Mind

MOST_LOOKS = 6  # windows that a question is shown once more, those that its answer looks at included


@dataclass(slots=True)
class Asked:
    """A question as a fork begins with it, `rows`, over the entries `seen`; windows that are `shown` in it once more, by
    number; and what was `said` since, which its next rows go on with. `windows`: those that `pointing` goes by; `spans`:
    what evidence may say. `decline`: the token that declines to answer, and what its score gains where an answer begins.
    `told`: the answer, where tokens tell it whole. `blind`: all that an answer may begin with, where nothing was seen of
    what is asked. `relied`: what an answer relies on, where tokens tell that as its text ends; else its model does.
    """

    rows: Rows
    seen: Sequence[Span]
    places: Places
    shown: set[int]
    windows: Sequence[Span]
    spans: SpanWriter | None = None
    pointing: Pointing | None = None
    told: Told | None = None
    blind: Sequence[int] = ()
    decline: tuple[int, float] | None = None
    relied: tuple[Evidence, ...] = ()
    said: list[int] = field(default_factory=list)
    begun: bool = False
    _in_step: bool = field(default=False, init=False)
    _texted: bool = field(default=False, init=False)  # the text has begun

    def weigh(self, scores: Tensor) -> Tensor:
        """Log-probabilities of the next token, with what soft tokens say."""
        if self.told is not None:
            self.relied = spans(self.told.runs, self.windows)
            return self.told.weigh(scores)
        if self.blind and not self.begun and scores[list(self.blind)].isfinite().any():
            return only(scores, self.blind)
        scores = scores if self.pointing is None else self.pointing.weigh(scores)
        if self.spans is not None and not (self._texted or self._in_step):
            scores = barring(scores, ENDS)
        if self.spans is not None:
            scores = self.spans.weigh(scores)
        if self.begun:
            return scores if self.pointing is None or not self.pointing.text else self._ended(scores)
        if self.decline is None or not self.decline[1]:
            return scores
        weights = torch.zeros_like(scores)
        weights[self.decline[0]] = self.decline[1]
        return torch.log_softmax(scores + weights, -1)

    def _ended(self, scores: Tensor) -> Tensor:
        """Where the text ends, and tokens tell what it relies on, the answer does, too."""
        top = int(scores.argmax())
        if top not in ENDS or self.relied:
            return scores
        self.relied = spans(relied(self.pointing, self.pointing.text), self.windows)
        if not self.relied:
            return scores
        surely = scores[top].clone()
        scores = scores.index_fill(0, torch.tensor([top], device=scores.device), -torch.inf)
        return scores.index_fill(0, torch.tensor([EOS], device=scores.device), float(surely))

    def say(self, token: int) -> None:
        self.begun = True
        self.said.append(token)
        self._in_step = token == NOTE or self._in_step and token != ANSWER
        self._texted = self._texted or not self._in_step and token != ANSWER
        if self.told is not None:
            self.told.push()
        if self.spans is not None:
            self.spans.push(token)
        if self.pointing is not None:
            self.pointing.push(token)


class Asker:
    """Puts questions to one mind."""

    def __init__(self, mind: Mind) -> None:
        self._mind, self._layout, self._finder, self._memory = mind, mind.layout, mind.finder, mind.spec.memory
        self.pointer = Pointer.of(mind.spec, mind.finder, mind.layout.tokenizer)
        self._teller = None if self.pointer is None else Teller(self.pointer, mind.finder, mind.layout.tokenizer)
        outside = mind.spec.point.outside if mind.spec.point else ""
        self.outside = mind.layout.tokenizer.encode(outside)[0] if outside else None

    def __call__(self, question: str, seen: Sequence[Span], free: int, turns: Sequence[Turn] = (),
               recalled: Sequence[Percept] = (), said: Sequence[np.ndarray] = ()) -> Asked:
        """What a fork begins with: windows that are shown again, earlier turns and the question. said: what tokens of each
        entry that is seen say, where that is known."""
        question = self._mind.spelt(question)
        turns = [replace(turn, question=self._mind.spelt(turn.question)) for turn in turns]
        places = Places(free, self._layout.twins)
        whole = [k for k, e in enumerate(seen) if e.whole and e.parts]
        windows = [seen[k] for k in whole]
        if self._finder is not None:
            said = [said[k] for k in whole] if said else self._finder.spans(windows)
        shown = self._shown_again(question, seen, recalled, self._found(question, windows, said))
        rows = [*(self._mind.entry(entry, places) for entry in shown),
                self._mind.laid([self._layout.question(question, turns)], places)]
        all_of_it = not recalled and all(e.whole for e in seen)
        merged = max((k for k, e in enumerate(seen) if not e.whole), default=-1)
        pointing = self._point(question, windows, said, all_of_it, sum(k < merged for k in whole))
        known = None if self.outside is None else self._mind.calibration
        told = None if self._teller is None or not all_of_it else self._teller(question, said)
        blind = self._blind(question, [*seen, *shown])
        if told is not None and self.pointer.sense(THING) not in _senses([*seen, *shown]):
            told, blind = None, [] if self.pointer.unseen is None else [self.pointer.unseen]
        inside = pointing is not None and pointing.named.inside
        decline = None if known is None or inside else (self.outside, known.outside)
        times = sorted({e.t0_s for e in (*seen, *shown)})
        labels = [window_label(self._layout.tokenizer, t0_s)[1:] for t0_s in times] if self._layout.spans else []
        return Asked(Rows.cat(rows), seen, places, {entry.first for entry in shown}, windows,
                     SpanWriter(labels) if labels else None, pointing, told, blind, decline)

    def _blind(self, question: str, entries: Sequence[Span]) -> list[int]:
        """What an answer begins with where no entry has a sense that it needs: that it cannot be told. Else nothing."""
        if self.pointer is None or self.pointer.unseen is None:
            return []
        needs, senses = self.pointer.needs(question), _senses(entries)
        if needs:
            return [self.pointer.unseen] if any(map(senses.isdisjoint, needs)) else []
        if senses:
            return []
        return [self.pointer.unseen] if self.outside is None or self.pointer.usual(question) else [self.outside]

    def _point(self, question: str, windows: Sequence[Span], said: Sequence[np.ndarray], all_of_it: bool,
               whole_from: int) -> Pointing | None:
        """What windows that are whole tell of a question. Whether they are `all_of_it`; from place `whole_from` on they are
        all that there is."""
        if self.pointer is None:
            return None
        labels = [window_label(self._layout.tokenizer, e.t0_s)[1:] for e in windows]
        return self.pointer.point(question, labels, said, all_of_it, whole_from)

    def looks(self, asked: Asked, reader: Reader) -> bool:
        """Whether an answer has come to a window to look at: then `asked` goes on with what was said, and that window."""
        if reader.look_s is None or self._mind.beside or not self._memory.look_again:
            return False
        entry = whole_at(asked.seen, reader.look_s, self._mind.spec.window_s)
        if asked.pointing is not None and entry is not None:
            whole = [e for e in asked.seen if e.whole and e.parts]
            asked.pointing.looked = next((k for k, e in enumerate(whole) if e.first <= entry.first <= e.last), None)
        if entry is None or entry.first in asked.shown or len(asked.shown) >= MOST_LOOKS:
            return False
        asked.shown.add(entry.first)
        said, shown = self._mind.laid([asked.said], asked.places), self._mind.entry(entry, asked.places)
        asked.rows = Rows.cat([asked.rows, said, shown, self._mind.laid([self._layout.looked], asked.places)])
        asked.said = []
        return True

    def turns(self, turns: Sequence[Turn]) -> list[Turn]:
        """The latest turns that fit their budget."""
        count, room = 0, self._memory.turn_tokens
        for turn in reversed(turns):
            room -= len(self._layout.turn(turn))
            if room < 0:
                break
            count += 1
        return list(turns[len(turns) - count :])

    def _shown_again(self, question: str, seen: Sequence[Span], recalled: Sequence[Percept],
                     found: Sequence[Span] = ()) -> list[Span]:
        """The windows that a question names, those `found` by its words and the most wanted recalled ones that fit their
        budget, in order of time."""
        shown: dict[int, Span] = {}
        room, hop_s = self._memory.recalled_tokens, self._mind.spec.window_s
        for entry in (*named(question, seen, self._memory.look_again, hop_s), *found, *map(Span.of, recalled)):
            size = self._mind.size(entry)
            if entry.first not in shown and size <= room:
                shown[entry.first] = entry
                room -= size
        return [shown[index] for index in sorted(shown)]

    def _found(self, question: str, windows: Sequence[Span], said: Sequence[np.ndarray]) -> list[Span]:
        """The few windows that say what a question names."""
        if self._finder is None or not self._finder.words(question):
            return []
        return [windows[k] for k in self._finder.few(question, said, self._memory.look_again)]

    def past(self, question: str, percepts: Sequence[Percept], seen: Sequence[Span],
             beside: Sequence[Percept] = ()) -> Past:
        """What a question about the past is asked of. beside: windows that these are read with."""
        question, finder, window_s = self._mind.spelt(question), self._finder, self._mind.spec.window_s
        most = self._memory.past_windows if moment_in(question) is None else len(percepts)  # all around a moment
        if finder is None:
            return Past.of([percepts[k] for k in chosen([0.0] * len(percepts), most)], seen, window_s)
        windows = [Span.of(p) for p in sorted([*percepts, *beside], key=lambda p: p.index)]
        newest = seen[-(NEWEST + finder.reach) :]
        windows += [e for e in newest if e.whole and not (windows and e.last <= windows[-1].last)]
        said = {k: told for e, told in zip(windows, finder.spans(windows), strict=True) for k in range(e.first, e.last + 1)}
        happening = finder.happening(question, [said[p.index] for p in percepts])
        return Past.of([percepts[k] for k in chosen(happening, most)], seen, window_s, said)


def _senses(entries: Sequence[Span]) -> set[str]:
    """Of which something was seen."""
    return {part.modality for entry in entries for part in entry.parts}
