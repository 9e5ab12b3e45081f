"""What windows show of a thing, by what their tokens say together of it.

Shapes: K windows, N tokens of each, V words that tokens may say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THERE = 0.5  # likelihood from which on a window shows a thing


def windows(said: Sequence[np.ndarray]) -> np.ndarray:
    """Of windows with several numbers of tokens: (K, N, V), nothing where there are none."""
    alike = np.zeros((len(said), max(map(len, said)), said[0].shape[-1]), np.float32)
    for window, tokens in zip(alike, said, strict=True):
        window[: len(tokens)] = tokens
    return alike


def both(said: np.ndarray, words: Sequence[int], others: Sequence[int] = ()) -> np.ndarray:
    """How likely a token of each window says all of these words and none of the others: (K,) of (K, N, V)."""
    chances = said[..., list(words)].min(-1) if len(words) else np.ones(said.shape[:-1], np.float32)
    if len(others):
        chances = np.minimum(chances, 1 - said[..., list(others)].max(-1))
    return chances.max(-1)


def lasting(there: np.ndarray, left: np.ndarray) -> np.ndarray:
    """What was seen before, has not `left` since, and is seen later is there in between, read or not."""
    before, later = there.copy(), np.maximum.accumulate(there[::-1])[::-1]
    for k in range(1, len(there)):
        before[k] = max(there[k], before[k - 1] * (1 - left[k - 1]))
    return np.minimum(before, later)


@dataclass(frozen=True, slots=True)
class Change:
    """A thing's first word becomes another, as tokens say it: with `becomes`, of the thing as it was with `old`, as it is
    now with `new`. `firsts`: words that may change; `others`: those that stay."""

    becomes: int
    old: Sequence[int]
    new: Sequence[int]
    firsts: Sequence[int]
    others: Sequence[int]

    def renamed(self, said: np.ndarray, thing: Sequence[int]) -> np.ndarray:
        """As `said`, where a thing that is named by its first word on one side of its change has that on the other, too:
        "the red star" that has turned blue is not gone."""
        mine, rest = [n for n in thing if n in self.firsts], [n for n in thing if n not in self.firsts]
        if len(mine) != 1:
            return said
        for then, now, onwards in ((self.old, self.new, True), (self.new, self.old, False)):
            changes = both(said, [self.becomes, *then, *mine, *rest])
            k = int(changes.argmax())
            if changes[k] < THERE:
                continue
            stays = rest or [max(self.others, key=lambda n: both(said[[k]], [self.becomes, *then, *mine, n])[0])]
            chances = {n: both(said[[k]], [self.becomes, *now, n, *stays])[0] for n in self.firsts if n not in mine}
            word = max(chances, key=chances.get)
            if chances[word] < THERE:
                continue
            side, said = slice(k, None) if onwards else slice(0, k + 1), said.copy()
            said[side, :, mine[0]] = np.maximum(said[side, :, mine[0]], said[side][..., [word, *stays]].min(-1))
        return said
