"""The time that every soft token carries: a fixed vector, made of its window's hour, minute and second."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from anymodal.language.tokenizer import TextTokenizer

STAMP = 2.0  # its length; a token's own is about 2.7


def window_stamp(like: Tensor, t0_s: float) -> Tensor:
    """What is added to every soft token of a window that starts at `t0_s`, (W,) for a table of embeddings like (V, W).

    Then "at 3 s" is found as "the circle" is, by content; from the label alone, two positions away to twenty, the
    language model learned to find colours and shapes within minutes and moments not at all. The vectors of any two
    seconds are nearly orthogonal; embeddings of the numbers themselves are not (cosines of .8 to .95 among the first).
    """
    return torch.as_tensor(_stamp(round(t0_s * 10), like.shape[-1])).to(like.device, like.dtype)


@torch.no_grad()
def spread_numbers(embeds: Tensor, tokenizer: TextTokenizer, start: int = 0) -> None:
    """Lay the embeddings (V, W) of the numbers from `start` to 59 along the stamps of those seconds: saying a second is
    then copying what a token carries, as saying a colour is. 00 to 09, said after a colon, are laid half along them.

    Numbers that training has not met are pushed by the softmax into nearly one and the same vector, as any word is.
    """
    ids = [tokenizer.encode(str(number))[1] for number in range(60)]  # without the space
    known = embeds[ids[:start]] if start else embeds
    length = float(known.float().norm(dim=-1).mean())  # as long as other words
    for number in range(start, 60):
        embeds[ids[number]] = window_stamp(embeds, float(number)) * (length / STAMP)
    for number in range(10):
        padded = tokenizer.encode(f"1:0{number}")[-1]
        embeds[padded] = window_stamp(embeds, number + 0.5) * (length / STAMP)


@lru_cache(maxsize=4096)
def _stamp(tenths: int, width: int) -> np.ndarray:
    seconds = tenths // 10
    hour, minute, second, rest = _table(width)
    total = second[seconds % 60].copy()
    for table, at in ((minute, seconds // 60 % 60), (hour, seconds // 3600 % 60), (rest, tenths % 10)):
        if at:
            total += table[at]
    return (total * (STAMP / np.linalg.norm(total))).astype(np.float32)


@lru_cache(maxsize=4)
def _table(width: int) -> np.ndarray:
    """Vectors of hours, minutes, seconds and tenths, each the one of its number, turned by a quarter of its numbers: what
    reads the minute off a stamp reads all minutes."""
    one = np.random.RandomState(60).standard_normal((4, 60, width))[2] / np.sqrt(width)
    return np.stack([np.roll(one, quarter * width // 4, axis=1) for quarter in (2, 1, 0, 3)])
