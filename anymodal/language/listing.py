"""What may be said next in a step that lists things, each once: "red circle, blue star".

A thing is listed by the words it is named by, in kinds such as colour and shape. One that takes another colour stays one.
Shapes: K windows, N tokens of each, V words that tokens may say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHOWN = 0.5  # likelihood from which on tokens show a thing
NEXT = 2  # windows at most from where a thing was last seen to where it is seen in another colour
SURE = 0.65  # likelihood from which on it is rather listed than not: a misread thing makes one too many
SHARP = 6.0  # power of its odds: a list is not made likelier by what the language model would rather say
Items = Mapping[tuple[int, ...], tuple[int, ...]]  # ids of a thing's name -> the words' numbers


@dataclass(slots=True)
class Listing:
    """`chances`: how likely each thing is to be listed, by the ids of its name; between two comes `more`, behind the last
    `end`, and `nothing` stands alone."""

    chances: dict[tuple[int, ...], float]
    more: int
    end: int
    nothing: tuple[int, ...]

    def open(self, ids: Sequence[int]) -> tuple[dict[tuple[int, ...], float], tuple[int, ...]]:
        """What may follow a list's beginning, and how much of it was said. Nothing, where `ids` are no list."""
        names = parts(ids, self.more)
        *whole, begun = names if names else [()]
        if any(name not in self.chances for name in whole):
            return {}, ()
        left = {name: chance * (name not in whole) for name, chance in self.chances.items()}
        rest = max((chance for name, chance in left.items() if name != begun), default=0.0)
        if begun in self.chances:
            return {(self.more,): rest, (self.end,): 1 - rest}, ()
        options = {name: chance for name, chance in left.items() if name[: len(begun)] == begun}
        return options | ({} if whole or begun else {self.nothing: 1 - rest}), begun

    def count(self, ids: Sequence[int]) -> int | None:
        """How many things a whole list has; None for what is none."""
        names = parts(ids, self.more)
        if tuple(ids) == self.nothing:
            return 0
        return len(names) if names and all(name in self.chances for name in names) else None


def parts(ids: Sequence[int], comma: int) -> list[tuple[int, ...]]:
    """What stands between commas."""
    found: list[list[int]] = [[]]
    for id_ in ids:
        if id_ == comma:
            found.append([])
        else:
            found[-1].append(id_)
    return [tuple(part) for part in found]


@dataclass(frozen=True, slots=True)
class Turns:
    """What tokens say of a thing whose first word changes, of one that comes, and of one that goes."""

    becomes: int
    comes: Sequence[int]
    leaves: Sequence[int]

    def same(self, said: np.ndarray, new: Sequence[int], begin: int, old: Sequence[int], last: int) -> bool:
        """Whether what is first seen in window `begin` is what was last seen in `last` under another first word: it is said
        to have changed; or the one is seen no more when the other is, and neither is said to have gone or come."""

        def tells(k: int, words: Sequence[int]) -> bool:
            """It or the window before it."""
            return float(said[max(0, k - 1) : k + 1][..., list(words)].min(-1).max()) >= SHOWN

        if tells(begin, [self.becomes, *new[1:]]):
            return True
        came = any(tells(begin, [word, *new]) for word in self.comes)
        went = any(tells(last + 1, [word, *old]) for word in self.leaves)
        return 0 <= begin - last <= NEXT and not came and not went


def chances(said: np.ndarray, items: Items, like: Sequence[int], turns: Turns | None) -> dict[tuple[int, ...], float]:
    """How likely each of the items was shown, of those that are `like` these words, too: in two windows, for a word is
    sometimes misread in one. A token that says the words of two things does not tell which are whose. said: (K, N, V).
    turns: where a thing's first word may change, which stays one thing."""
    kinds = [sorted(set(words)) for words in zip(*items.values(), strict=True)]
    others = {n: said[..., [o for o in kind if o != n]].max(-1) for kind in kinds for n in kind}  # (K, N) each
    when = {}
    for ids, words in items.items():
        if any(n in kind and n != word for n in like for kind, word in zip(kinds, words, strict=True)):
            when[ids] = np.zeros(len(said))  # not like these
            continue
        several = np.minimum.reduce([others[n] for n in words])
        when[ids] = (said[..., [*words, *like]].min(-1) * (1 - several)).max(-1)
    found = {ids: float(np.sort(at)[-2:].mean()) for ids, at in when.items()}
    if turns is None:
        return {ids: _sure(chance) for ids, chance in found.items()}
    seen = {ids: np.flatnonzero(at > SHOWN) for ids, at in when.items() if at.max() > SHOWN}
    for ids, at in seen.items():
        words = items[ids]
        earlier = [o for o in seen if items[o][1:] == words[1:] and seen[o][0] < at[0] and found[o] > SHOWN]
        if any(turns.same(said, words, at[0], items[o], seen[o][-1]) for o in earlier):
            found[ids] = 0.0
    return {ids: _sure(chance) for ids, chance in found.items()}


def _sure(chance: float) -> float:
    """`SURE` as a half, and what is above or below it all but certain."""
    chance = 0.5 * chance / SURE if chance < SURE else 0.5 + 0.5 * (chance - SURE) / (1 - SURE)
    return chance**SHARP / (chance**SHARP + (1 - chance) ** SHARP)
