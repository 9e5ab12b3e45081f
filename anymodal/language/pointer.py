"""What soft tokens say weighs in on what an answer says, and when.

The language model decides what kind of answer a question gets, and which steps lead to it. Which of a kind's words it says
("it bounces"), and which window's time, it reads off soft tokens through many layers; the word reader reads the same tokens
surely. So where the next token is one of a kind's words, or of a window's time, its probability is multiplied by how likely
that is of what the question names. That is a pointer-generator (See et al. 2017, arXiv 1704.04368) which points by product
instead of mixture: what the language model holds impossible stays so.
Shapes: K windows, N tokens of each, V words that tokens may say, T tokens of text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anymodal.config import SearchSpec
from anymodal.language.finder import Finder
from anymodal.language.named import Named, Names
from anymodal.language.tokenizer import ANSWER, EVIDENCE, NOTE, TextTokenizer
from anymodal.language.word_reader import NOTHING

YN = True
DOUBT = 1.0
FLOOR = 0.02  # the least that soft tokens leave of anything
Options = Mapping[tuple[int, ...], float]  # ids of what may be said -> how likely it is


class Pointer:
    """`search.points`: kinds of words that are weighed; `search.unseen`: what is said of what is not there."""

    def __init__(self, spec: SearchSpec, finder: Finder, tokenizer: TextTokenizer) -> None:
        self.finder, self._names = finder, Names(spec, finder)
        self.kinds = {kind: {tuple(tokenizer.encode(v)): tuple(finder.number(w) for w in v.split() if w in finder.kind)
                             for v in spec.words[kind]} for kind in spec.points}
        self.nothing, self.more = tuple(tokenizer.encode(NOTHING)), tokenizer.encode("red, red")[1]
        self.unseen = tokenizer.encode(spec.unseen)[0] if spec.unseen else None
        self.yes, self.no = (tokenizer.encode(word)[0] for word in ("yes", "no"))

    def point(self, question: str, labels: Sequence[tuple[int, ...]], said: Sequence[np.ndarray]) -> Pointing | None:
        """What the tokens of windows `said` (N, V each), whose times read as `labels`, tell of a question; None: nothing."""
        named = self._names.of(question)
        if not said or not named.happenings and not named.thing:
            return None
        return Pointing(self, named, list(labels), list(said))


@dataclass(slots=True)
class Pointing:
    """Of one question. `looked`: the number, among its windows, of the one that its answer looked at last."""

    pointer: Pointer
    named: Named
    labels: list[tuple[int, ...]]
    said: list[np.ndarray]
    looked: int | None = None
    when: list[np.ndarray] = field(init=False)  # of each happening, how likely it is in each window
    there: np.ndarray = field(init=False)  # how likely each window shows the thing
    _ids: list[int] = field(default_factory=list, init=False)  # of the step or the text that has begun
    _notes: int = field(default=0, init=False)
    _first: int | None = field(default=None, init=False)  # the window whose time was said first
    _told: bool = field(default=False, init=False)  # evidence has begun

    def __post_init__(self) -> None:
        starts = [self.pointer.finder.number("starts")]
        self.when = [np.array([max(_all(s, [*w, *h.thing, *(starts if h.begins else ())]) for w in h.words) for s in self.said])
                     for h in self.named.happenings]
        if self.named.since is not None and self.named.since < len(self.when) > 1:
            self.when[0] = self.when[0] * (np.arange(len(self.said)) >= self.when[self.named.since].argmax())
        self.there = np.array([_all(s, [*self.named.thing]) for s in self.said])

    def weigh(self, scores: Tensor) -> Tensor:
        """Log-probabilities (T,) of the next token, with what soft tokens say."""
        if self._told:
            return scores
        if not self._ids and not self._notes:
            scores = self._unseen(scores)
            if YN and int(scores.argmax()) in (self.pointer.yes, self.pointer.no):
                seen = self.seen
                return _among(scores, {(self.pointer.yes,): seen, (self.pointer.no,): 1 - seen}, ())
        top = int(scores.argmax())
        for options, begun in self._open():
            if any(option[: len(begun)] == begun and len(option) > len(begun) and option[len(begun)] == top for option in options):
                return _among(scores, options, begun)
        if self._notes and top in (ANSWER, self.pointer.more) and (kind := self._listed()) is not None:
            rest = max((c for o, c in self._words(kind).items() if not self._was_said(o) and o != self.pointer.nothing), default=0.0)
            return _among(scores, {(ANSWER,): 1 - rest, (self.pointer.more,): rest}, ())
        return scores

    def push(self, token: int) -> None:
        """The next token is this one."""
        if token == NOTE:
            self._ids, self._notes = [], self._notes + 1
        elif token == ANSWER:
            if self._first is None:
                begins = [label for label in self.labels if tuple(self._ids[: len(label)]) == label]
                self._first = self.labels.index(max(begins, key=len)) if begins else None
            self._ids = []
        else:
            self._told = self._told or token in EVIDENCE.values()
            self._ids.append(token)

    # --- what may follow ---------------------------------------------------------------------------------------------

    def _open(self):
        """What could be said next or goes on, with what was said of it."""
        label = self._label()
        if (times := self._times(label)) is not None:
            yield times, label
        for kind in self.pointer.kinds:
            begun = self._begun(kind)
            if self._free(kind, begun):
                yield self._words(kind), begun

    def _label(self) -> tuple[int, ...]:
        """The ids at the end that a window's time begins with."""
        return _tail(self._ids, self.labels)

    def _times(self, label: tuple[int, ...]) -> Options | None:
        if self._notes > 1:
            if not self.named.side or self._first is None:
                return None
            beside = self._beside()
            return {ids: float(k == beside) for k, ids in enumerate(self.labels)}
        if not self.when:
            return None
        said = sum(1 for ids in self.labels if ids and _has(self._ids[: len(self._ids) - len(label)], ids))
        when = self.when[min(said, len(self.when) - 1)]
        return dict(zip(self.labels, when.tolist()))

    def _beside(self) -> int:
        """The window before or after the first one named that shows the thing."""
        step = self.named.side
        for k in range(self._first + step, len(self.said) if step > 0 else -1, step):
            if self.there[k] > 0.5:
                return k
        return self._first

    def _free(self, kind: str, begun: tuple[int, ...]) -> bool:
        """Whether words of a kind are what tokens tell: not where a question names one itself, but for the first of a step."""
        if kind in self.named.kinds and kind not in self.named.happening_kinds:
            return bool(self._notes) and not self._ids[: len(self._ids) - len(begun)]
        return True

    def _begun(self, kind: str) -> tuple[int, ...]:
        return _tail(self._ids, self.pointer.kinds[kind])

    def _words(self, kind: str) -> Options:
        scope = self.said
        if self.named.side and self._first is not None:
            scope = [self.said[self._beside()]]
        elif self.looked is not None:
            scope = [self.said[self.looked]]
        found = {}
        for option, words in self.pointer.kinds[kind].items():
            others = {n for more in self.pointer.kinds[kind].values() if {*words} < {*more} for n in more} - {*words}
            found[option] = max(_all(s, [*words, *self.named.thing], [*others]) for s in scope)
        if self._notes and not self._ids and kind == "event":
            found[self.pointer.nothing] = max(0.05, 1 - max(found.values()))
        return found

    def _listed(self) -> str | None:
        """The kind of the words that a step lists, where what happens to a thing is listed."""
        for kind in self.pointer.kinds:
            if kind in ("event",) and self._ids and any(tuple(self._ids[-len(o):]) == o for o in self.pointer.kinds[kind]):
                return kind
        return None

    def _was_said(self, option: tuple[int, ...]) -> bool:
        return _has(self._ids, option)

    @property
    def seen(self) -> float:
        """How likely all that a question names is there at some time."""
        return float(min([self.there.max(), *(w.max() for w in self.when)]))

    def _unseen(self, scores: Tensor) -> Tensor:
        if self.pointer.unseen is None:
            return scores
        seen = min(1 - FLOOR, max(FLOOR, self.seen))
        weighed = scores + DOUBT * math.log(seen)
        weighed[self.pointer.unseen] = scores[self.pointer.unseen] + DOUBT * math.log(1 - seen)
        return weighed - weighed.logsumexp(0)


def _all(said: np.ndarray, words: Sequence[int], others: Sequence[int] = ()) -> float:
    """How likely a token says all words, and none of the others: of the (N, V) of a window, the most."""
    chances = said[:, list(words)].min(1) if len(words) else np.ones(len(said))
    if len(others):
        chances = np.minimum(chances, 1 - said[:, list(others)].max(1))
    return float(chances.max(initial=0.0))


def _tail(ids: Sequence[int], options) -> tuple[int, ...]:
    """The longest end of `ids` that one of the options goes on from."""
    for n in range(min(len(ids), 4), 0, -1):
        end = tuple(ids[-n:])
        if any(o[:n] == end and len(o) > n for o in options):
            return end
    return ()


def _has(ids: Sequence[int], option: tuple[int, ...]) -> bool:
    return any(tuple(ids[i : i + len(option)]) == option for i in range(len(ids) - len(option) + 1))


def _among(scores: Tensor, options: Options, begun: tuple[int, ...]) -> Tensor:
    """The probability that the options' next tokens have together, shared among them anew."""
    best: dict[int, float] = {}
    for option, chance in options.items():
        if option[: len(begun)] == begun and len(option) > len(begun):
            best[option[len(begun)]] = max(best.get(option[len(begun)], 0.0), chance)
    ids = torch.tensor(list(best), device=scores.device)
    mine = scores[ids]
    weighed = mine + torch.tensor([max(c, FLOOR) for c in best.values()], device=scores.device).log()
    return scores.index_copy(0, ids, weighed - weighed.logsumexp(0) + mine.logsumexp(0))
