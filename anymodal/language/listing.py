"""What may be said next in a step that lists things, each once: "red circle, blue star".

A thing is listed by the words it is named by, in kinds such as colour and shape. One that takes another colour stays one.
Shapes: K windows, N tokens of each, V words that tokens may say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHOWN = 0.5  # likelihood from which on tokens show a thing
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


def chances(said: np.ndarray, items: Items, like: Sequence[int], becomes: int | None) -> dict[tuple[int, ...], float]:
    """How likely each of the items was shown, of those that are `like` these words, too: in two windows, for a word is
    sometimes misread in one. A token that says the words of two things does not tell which are whose. said: (K, N, V).
    becomes: what tokens say of a thing whose first word changes."""
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
    if becomes is None:
        return {ids: _sure(chance) for ids, chance in found.items()}
    begin = {ids: int((at > SHOWN).argmax()) for ids, at in when.items() if at.max() > SHOWN}
    for ids, (_, *rest) in items.items():
        earlier = [o for o in begin if items[o][1:] == tuple(rest) and o != ids and found[o] > SHOWN]
        if ids in begin and any(begin[o] < begin[ids] for o in earlier):
            k = begin[ids]
            changed = said[max(0, k - 1) : k + 1][..., [becomes, *rest]].min(-1).max()
            found[ids] = found[ids] if changed < SHOWN else 0.0
    return {ids: _sure(chance) for ids, chance in found.items()}


def _sure(chance: float) -> float:
    """`SURE` as a half, and what is above or below it all but certain."""
    chance = 0.5 * chance / SURE if chance < SURE else 0.5 + 0.5 * (chance - SURE) / (1 - SURE)
    return chance**SHARP / (chance**SHARP + (1 - chance) ** SHARP)
