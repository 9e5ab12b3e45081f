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
def spread_numbers(embeds: Tensor, tokenizer: TextTokenizer) -> None:
    """Lay the embeddings (V, W) of the numbers 0 to 59 along the stamps of those seconds, before any training: saying
    a second is then copying what a token carries, as saying a colour is.
    """
    ids = [tokenizer.encode(str(number))[1] for number in range(60)]  # without the space
    length = float(embeds.float().norm(dim=-1).mean())  # as long as other words
    for number, at in enumerate(ids):
        embeds[at] = window_stamp(embeds, float(number)) * (length / STAMP)


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
    return np.random.RandomState(60).standard_normal((4, 60, width)) / np.sqrt(width)
