"""What soft tokens say weighs in on one answer, token by token.

Where the next token is one of a kind's words, or of a window's time, its probability is multiplied by how likely that is of
what the question names, as windows' tokens say it together.
Shapes: K windows, N tokens of each, V words that tokens may say, T tokens of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anymodal.language.listing import Listing, chances
from anymodal.language.named import LONE, THING, Named
from anymodal.language.options import LEAST, Options, end_of, ends, follows, only, times_in, weighed
from anymodal.language.shown import THERE, both, lasting
from anymodal.language.tokenizer import ANSWER, ENDS, EVIDENCE, NOTE

if TYPE_CHECKING:
    from anymodal.language.pointer import Pointer

DOUBT = 1.0  # power of how likely it is that what is named is not there
LATER = 3  # windows beside a change that tell what came of it
STEPS = 2  # that may lead to yes or no
AWAY = 0.1  # likelihood below which it does not
SHARP = 4.0  # power of how much likelier one word of what a thing keeps is than another: not all pairs were trained on


@dataclass(slots=True)
class Pointing:
    """Weighs one answer's tokens, which are pushed as they are said. `looked`: the place of the window that it looked at
    last."""

    pointer: Pointer
    named: Named
    labels: list[tuple[int, ...]]
    said: np.ndarray  # (K, N, V)
    all_of_it: bool = True
    plain: bool = True  # yes means that what is named was there at some time
    moment: bool = False  # it is asked of a time
    whole_from: int = 0  # the window from which on all are there
    looked: int | None = None
    when: list[np.ndarray] = field(init=False)  # of all that happens, how likely it is in each window (K,)
    there: np.ndarray = field(init=False)  # how likely each window shows the thing (K,)
    edge: int | None = field(default=None, init=False)  # the window of the first or last of what happens that is asked of
    left: np.ndarray = field(init=False)  # how likely it leaves in each (K,)
    seen: float = field(init=False)  # how likely all that the question names is there at some time
    listing: Listing | None = field(default=None, init=False)  # of things that are to be counted
    _ids: list[int] = field(default_factory=list, init=False)  # of the step, or of the text, that has begun
    _step: tuple[int, ...] = field(default=(), init=False)  # the last one
    _steps: int = field(default=0, init=False)
    _in_step: bool = field(default=False, init=False)
    _noted: int | None = field(default=None, init=False)  # the first window whose time a step said
    _told: bool = field(default=False, init=False)  # the text has ended

    def __post_init__(self) -> None:
        named, begins = self.named, self.pointer.begins
        if self.pointer.change is not None and not named.counts and not named.side:
            self.said = self.pointer.change.renamed(self.said, named.thing)
        told = [np.max([both(self.said, [*words, *h.thing]) for words in h.words], 0) for h in named.happenings]
        self.when = [np.minimum(t, both(self.said, [*h.words[0], *begins])) if h.kind in LONE and len(h.words) == 1 else t
                     for t, h in zip(told, named.happenings, strict=True)]
        if named.edge:
            began = np.max([both(self.said, [*words, *begins]) for words in named.happenings[0].words], 0)
            places = [int(k) for k in np.flatnonzero(began > THERE) if k >= self.whole_from]
            self.edge = places[0 if named.edge > 0 else -1] if places and (self.all_of_it or named.edge < 0) else None
            self.when[0] = began * (np.arange(len(began)) == self.edge)
        if named.since:
            self.when[0] = self.when[0] * (np.arange(len(self.said)) >= self.when[named.since].argmax())
        there, leaves = both(self.said, named.thing), [*self.pointer.leaves.values()]
        self.left = np.max([both(self.said, [*named.thing, n]) for n in leaves], 0) if leaves else np.zeros_like(there)
        self.there = lasting(there, self.left)
        if named.heard:
            self.when[0] = self.when[0] * self.there
        asked = [t.max() for t, h in zip(told, named.happenings, strict=True)
                 if named.anything or h.kind not in self.pointer.none or len(h.words) == 1]
        seen = float(min(self.there.max(), *asked, 1.0))
        self.seen = min(1 - LEAST, max(LEAST if self.all_of_it else 0.5, seen))
        if named.counts and self.pointer.things and self.all_of_it:
            shown = chances(self.said, self.pointer.things, named.thing, self.pointer.turns)
            self.listing = Listing(shown, self.pointer.more, ANSWER, self.pointer.nothing)

    @property
    def text(self) -> list[int]:
        """What was said of an answer's text."""
        return [] if self._in_step or self._told else self._ids

    def push(self, token: int) -> None:
        """The answer goes on with this token."""
        if token in (NOTE, ANSWER):
            if token == ANSWER and self._noted is None:
                begins = [label for label in self.labels if tuple(self._ids[: len(label)]) == label]
                self._noted = self.labels.index(max(begins, key=len)) if begins else None
            self._steps, self._in_step = self._steps + (token == NOTE), token == NOTE
            self._step, self._ids = tuple(self._ids), []
        else:
            self._told = self._told or token in EVIDENCE.values()
            self._ids.append(token)

    def weigh(self, scores: Tensor) -> Tensor:
        """Log-probabilities (T,) of the next token, with what soft tokens say."""
        if self._told:
            return scores
        if not self._ids and not self._in_step and self.named.anything and self.plain:
            if not self.all_of_it and self.seen <= THERE:
                return only(scores, [self.pointer.yes, self.pointer.no, self.pointer.unseen])
            either = only(torch.zeros_like(scores), [self.pointer.yes, self.pointer.no])  # it never learned to read that
            return weighed(either, {(self.pointer.yes,): self.seen, (self.pointer.no,): 1 - self.seen})
        if not self._ids and not self._in_step and self.named.polar:
            scores = self._polar(scores)
        elif not self._ids and not self._in_step and self.named.heard:
            return self._sounding(scores)
        elif not self._ids and not self._in_step and self.named.either:
            return self._either(scores)
        elif not self._ids and not self._steps:
            scores = self._whether_seen(scores)
        top = int(scores.argmax())
        if not self._ids and top in (self.pointer.yes, self.pointer.no) and (yes := self._yes()) is not None:
            return weighed(scores, {(self.pointer.yes,): yes, (self.pointer.no,): 1 - yes})
        if (later := self._later()) and top in later:
            weights = torch.zeros_like(scores)
            weights[later] = float(np.log(LEAST))
            return torch.log_softmax(scores + weights, -1)
        if top in self.pointer.clock and self._ids and not self.named.counts:
            scores = self._clock(scores, top)
            top = int(scores.argmax())
        if top in ENDS and self._seconds():
            return only(scores, [self.pointer.seconds])
        options, begun = self._count(top) if self.listing else self._open(top)
        return weighed(scores, options, begun) if options else scores

    def _whether_seen(self, scores: Tensor) -> Tensor:
        """At an answer's beginning: whether it can be told goes by whether what is named is there, but for yes and no,
        which tell just that."""
        unseen = self.pointer.unseen
        if unseen is None or self.named.counts or self.named.edge:
            return scores
        weights = torch.full_like(scores, DOUBT * float(np.log(self.seen)))
        weights[unseen] = DOUBT * float(np.log(1 - self.seen))
        weights[[self.pointer.yes, self.pointer.no]] = 0.0
        return torch.log_softmax(scores + weights, -1)

    def _polar(self, scores: Tensor) -> Tensor:
        """Where yes or no is asked for: nothing else, but that the question is of another world, or cannot be told of what
        is not seen."""
        pointer = self.pointer
        shown = bool(self.named.thing) and self.there.max() >= THERE
        keep = [pointer.yes, pointer.no, pointer.outside, None if shown else pointer.unseen]
        return only(scores, keep + [NOTE] * (self._steps < STEPS))

    def _sounding(self, scores: Tensor) -> Tensor:
        """Where it is asked what is heard while a thing is seen: a sound, which a step finds first, or silence."""
        pointer, kind = self.pointer, self.named.happenings[0].kind
        sounds, none = self._words(kind), pointer.none[kind]
        any_ = max(sounds.values())
        options = {(NOTE,): any_, none: 1 - any_} if not self._steps else sounds | {none: 1 - any_}
        return weighed(only(scores, [*follows(options, ()), pointer.outside, pointer.unseen]), options)

    def _either(self, scores: Tensor) -> Tensor:
        """Where it is asked which of two words of a kind a thing has: one of them, or it cannot be told."""
        kind, said = self.pointer.alternatives(self.named.either)
        words = self._words(kind) if said else {}
        options = {ids: words[ids] for ids in said}
        if max(options.values(), default=0.0) <= THERE:  # it may be another one
            return scores
        unseen = None if self.seen > THERE else self.pointer.unseen
        return weighed(only(scores, [*follows(options, ()), unseen]), options)

    def _yes(self) -> float | None:
        """How likely yes is right. Where no step came before, or one that lists what happens: if what is named is there.
        Where a step named two of a kind, what there is and what is asked for: if they are the same. None: not known."""
        happenings, step = self.named.happenings, self._step
        if not self._steps or len(happenings) == 1 and happenings[0].thing and happenings[0].kind in self.pointer.lists:
            return self.seen if self.plain else None
        if self.pointer.more not in step:
            return None
        comma = step.index(self.pointer.more)
        there, asked = step[:comma], step[comma + 1 :]
        alike = any(there in table and asked in table for table in self.pointer.kinds.values())
        return float(there == asked) if alike else None

    def _turned(self, words: list[int]) -> float:
        """How likely a thing is such as these words say on the side of its change that is asked about: by what the change's
        window says of it, and by the next few windows that show it."""
        side, pointer, when = self.named.side, self.pointer, self.when[0] if self.when else np.zeros(1)
        noted = int(when.argmax()) if when.max() > THERE else self._noted
        change = [*words, pointer.becomes, *pointer.sides[side > 0]]
        near = [k for k in range(len(self.said))[:: side] if (k - noted) * side > 0 and self.there[k] > THERE][:LATER]
        told = max(AWAY, float(both(self.said[[noted]], change).max()))
        return float(both(self.said[near], words).mean()) * told if near else told

    # --- what may be said next ---------------------------------------------------------------------------------------

    def _count(self, top: int) -> tuple[Options, tuple[int, ...]]:
        """The same where things are counted: their list, and then its length."""
        if self._in_step:
            options, begun = self.listing.open(self._ids)
            return (options, begun) if top in follows(options, begun) else ({}, ())
        count, begun = self.listing.count(self._step), tuple(self._ids)
        if count is None or top not in follows(self.pointer.numbers, begun):
            return {}, ()
        return {ids: float(n == count) for ids, n in self.pointer.numbers.items()}, begun

    def _open(self, top: int) -> tuple[Options, tuple[int, ...]]:
        """What may be said where `top` is likeliest, with what was said of it. Nothing: it is for the language model."""
        label = end_of(self._ids, self.labels)
        if top in follows(self.labels, label):
            return self._times(self._ids[: len(self._ids) - len(label)]), label
        if self._in_step and self.looked is not None and (names := self._visible()):
            begun = end_of(self._ids, names)
            return (names, begun) if top in follows(names, begun) else ({}, ())
        if (other := self._no_answer()) and top in follows(other, ()):
            return other | self._words(self._asked()), ()
        for kind, table in self.pointer.kinds.items():
            begun = end_of(self._ids, table)
            none = self.pointer.none.get(kind)
            begins = not self._in_step and not self._ids
            if begins and (instead := self._instead(kind)) and top in follows(table, ()):
                other = {self.pointer.none[instead]: self._none(instead)} if instead in self.pointer.none else {}
                return dict.fromkeys(table, 0.0) | self._words(instead) | other, ()
            if none and begins and top in follows([*table, none], ()) and self._meant(kind) and (
                    not self.named.happenings or self.named.happens(kind)):
                return self._words(kind) | {none: self._none(kind)}, ()
            if begun in table and not self._in_step and top not in follows(table, begun) and self._meant(kind):
                found = self._words(kind)  # it would end with what is but part of a word: "top" of "top left"
                longer = {ids: found[ids] for ids in table if ids[: len(begun)] == begun != ids}
                if max(longer.values(), default=0.0) > found[begun]:
                    return longer | {(*begun, top): found[begun]}, begun
            behind = self._in_step and self.pointer.more in self._ids  # what there is stands what is asked for
            if top in follows([*table, self.pointer.nothing], begun) and self._meant(kind):
                if not self._names(kind) and not (behind and self.named.happens(kind) and kind not in self.pointer.lists):
                    return self._words(kind), begun
                if behind and self._names(kind):
                    asked = self.named.words & {n for words in table.values() for n in words}
                    return {ids: float({*words} == asked) for ids, words in table.items()}, begun
                if self._in_step and not behind:
                    return self._words(kind), begun
            listed = self._in_step and kind in self.pointer.lists and any(ends(self._ids, ids) for ids in table)
            if listed and top in (self.pointer.more, ANSWER):
                rest = max(self._words(kind).values())
                return {(self.pointer.more,): rest, (ANSWER,): 1 - rest}, ()
        return {}, ()

    def _visible(self) -> Options:
        """Names of the thing, where it is asked whether the window of a sound or of a motion shows it; or nothing."""
        named, k = self.named, self.looked
        if not named.thing or not named.happenings or any(h.kind not in LONE for h in named.happenings):
            return {}
        found = {ids: float(both(self.said[[k]], [*words, *named.thing]).max())
                 for ids, words in self.pointer.things.items()}
        there, most = float(self.there[k]), max(found.values(), default=0.0)
        return {ids: there * chance / max(most, LEAST) for ids, chance in found.items()} | {self.pointer.nothing: 1 - there}

    def _instead(self, kind: str) -> str | None:
        """The kind that is asked for where words are of another one that says the same: a way, not a place."""
        return next((rival for rival in self.pointer.rivals[kind] if self.named.happens(rival)), None)

    def _asked(self) -> str | None:
        """The kind that is asked for, where a thing has a word of it in any case."""
        asked = (h.kind for h in self.named.happenings if len(h.words) > 1)
        return next((kind for kind in asked if kind in self.pointer.asks and kind not in self.pointer.none), None)

    def _no_answer(self) -> Options:
        """How what was said might go on to say that there is no word of another kind, which was not asked for."""
        if self._in_step or not self._ids or self._asked() is None:
            return {}
        said = tuple(self._ids)
        return {text[len(said):]: 0.0 for text in self.pointer.none.values() if text[: len(said)] == said != text}

    def _none(self, kind: str) -> float:
        """How likely no word of a kind is true of the thing: at the end where it leaves, else at any time."""
        if kind not in self.pointer.leaves:
            none = 1 - max(self._words(kind).values())
            return none if none > AWAY else 0.0
        back = np.append(np.maximum.accumulate(self.there[::-1])[::-1][1:], 0.0)  # it is seen again
        left, last = float((self.left * (1 - back)).max()), float(self.there[-1])
        none = max(left, 1 - last) if last < AWAY else left
        return none if none > AWAY else 0.0

    def _times(self, said: Sequence[int]) -> Options:
        """Times of windows, after what was said: of what happens, in order; later, of the window beside the one noted."""
        if self._steps > 1:
            beside = self._beside()
            return {} if beside is None else {label: float(k == beside) for k, label in enumerate(self.labels)}
        if not self.when:
            return dict(zip(self.labels, self._looks(), strict=True)) if self.named.thing and self._in_step else {}
        when = self.when[min(len(self.times(said)), len(self.when) - 1)]
        if when.max() > THERE:  # which the language model would overrule
            when = np.where(when > AWAY, when, 0.0)
        return dict(zip(self.labels, when.tolist(), strict=True)) if self.all_of_it or when.max() > THERE else {}

    def _seconds(self) -> bool:
        """Whether the text stands behind a time of seconds, which are to be named: "at 31 s"."""
        said = max((o for o in self.labels if ends(self._ids, o)), key=len, default=())
        return bool(said) and not self._in_step and len(said) < len(self._ids) and self.pointer.colons.isdisjoint(said)

    def _clock(self, scores: Tensor, top: int) -> Tensor:
        """Where a time goes on: only with what makes it a window's, and not beyond one."""
        if (begun := end_of(self._ids, self.labels)) and not self._whole(begun):
            may = follows(self.labels, begun)
            return scores if top in may else only(scores, may)
        if not begun and not any(ends(self._ids, label) for label in self.labels):
            return scores
        beyond = torch.tensor(self.pointer.clock, device=scores.device)
        return torch.log_softmax(scores.index_fill(0, beyond, -torch.inf), -1)

    def _whole(self, label: tuple[int, ...]) -> bool:
        """Whether a time that another begins with is rather the one meant: "1", not "1:01"."""
        longer = [k for k, other in enumerate(self.labels) if other[: len(label)] == label != other]
        if label not in self.labels or not longer or not self.when:
            return False
        when = self.when[min(len(self.times(self._ids[: -len(label)])), len(self.when) - 1)]
        return float(when[self.labels.index(label)]) > max(THERE, *when[longer])

    def _looks(self) -> list[float]:
        """How likely each window is to be looked at for the thing: where it is, or where it is first."""
        sooner = np.concatenate([[0.0], np.maximum.accumulate(self.there)[:-1]]) if self.named.start else 0.0
        return (self.there * (1 - sooner)).tolist()

    def times(self, ids: Sequence[int]) -> list[int]:
        """The windows whose times stand in `ids`, in order."""
        found, i = [], 0
        while i < len(ids):
            label = max((o for o in self.labels if tuple(ids[i : i + len(o)]) == o), key=len, default=())
            found += [self.labels.index(label)] if label else []
            i += len(label) or 1
        return found

    def _beside(self) -> int | None:
        """The window next to the noted one, on the side that is asked about, that shows the thing."""
        side, noted = self.named.side, self._noted
        if not side or noted is None:
            return None
        places = range(noted + side, len(self.said) if side > 0 else -1, side)
        return next((k for k in places if self.there[k] > THERE), noted)

    def _later(self) -> list[int]:
        """Tokens of all but what came first of two whose times were noted, where that is asked."""
        noted = self.times(self._step) if self.named.first else []
        if len(noted) != 2 or noted[0] == noted[1]:
            return []
        first = self.named.happenings[noted[0] > noted[1]]
        words = {*first.thing, *(n for w in first.words for n in w)}
        return [i for i, n in self.pointer.number.items() if n not in words]

    def _names(self, kind: str) -> bool:
        """Whether the question names a word of a kind itself, of those that a step compares."""
        return kind in self.named.kinds and kind not in self.pointer.lists

    def _meant(self, kind: str) -> bool:
        """Whether words are of this kind, of those that say the same, and it is known of what."""
        named, rivals = self.named, self.pointer.rivals[kind]
        if kind in LONE:
            return named.heard or self.edge is not None
        if not named.thing and named.happenings and not named.happens(kind) or any(map(named.happens, rivals)):
            return False
        alone = kind in named.kinds and named.kinds.isdisjoint(rivals)
        return not rivals or kind not in self.pointer.asks or named.happens(kind) or alone

    def _words(self, kind: str) -> Options:
        """How likely tokens say each word of a kind of the thing, in the window that is meant."""
        beside = self._beside()
        k = self.looked if beside is None else beside
        if kind in LONE and self.edge is not None:
            k = self.edge
        elif self.plain and kind in self.pointer.none and kind not in self.pointer.leaves:
            k = None  # a way is told by any window in which it moves
        scope, table = self.said if k is None else self.said[[k]], self.pointer.kinds[kind]
        thing = [n for n in self.named.thing if self.named.happenings or not any(n in words for words in table.values())]
        found: dict[tuple[int, ...], np.ndarray | float] = {}
        other = self.pointer.sides[self.named.start] if kind in self.pointer.leaves else ()
        for ids, words in table.items():
            longer = {n for more in table.values() if {*words} < {*more} for n in more} - {*words}  # "top", not "top left"
            told = kind in self.pointer.lists and times_in(self._ids, [ids])  # nothing is listed twice
            found[ids] = np.zeros(len(scope)) if told else both(scope, [*words, *thing], [*longer, *other])
        if kind in LONE:
            found = {ids: both(scope, table[ids]) * (self.there if k is None else self.there[[k]]) for ids in table}
        sure = np.max([*found.values()], 0)  # (K,)
        if kind in THING and self.plain and sure.any():  # which it keeps: no window alone tells
            found = {ids: float(sure.max() * (chances @ sure) / sure.sum()) for ids, chances in found.items()}
            most = max(found.values())
            found = {ids: most * (chance / most) ** SHARP for ids, chance in found.items()}
        else:
            found = {ids: float(chances.max()) for ids, chances in found.items()}
        if beside is not None and kind == self.pointer.changing:
            found = {ids: self._turned([*words, *thing]) for ids, words in table.items()}
        if max(found.values()) > THERE:  # which the language model would overrule
            found = {ids: chance if chance > AWAY else 0.0 for ids, chance in found.items()}
        if self._in_step and not self._ids:
            there = float(self.there[k]) if k is not None and self._names(kind) and kind not in self.pointer.lists else 0.0
            found[self.pointer.nothing] = 1 - max(there, *found.values())
        return found
