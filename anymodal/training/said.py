"""The loss on what each soft token says: its words, read through the language model's own norm and output layer.

Shapes: B windows or clips, K windows of a clip, R windows of all clips, N tokens, H tokens in any order, L words, V words
of the vocabulary, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from anymodal.training.words import EVENT_WORDS, HAPPENINGS, NOTHING


def said_loss(lm, ids_of: Callable[[str], list[int]], soft: dict[str, Tensor], words: list[dict],
              events: float = 1.0) -> Tensor:
    """Cross-entropy of the words that each soft token should say, read through the LM's norm and output layer.

    soft: (B, K, N, W) by modality. `events`: the weight of words of events, and of all words of tokens that say what
    happens. These may say it in any order: the one that costs least counts, as in DETR (Carion et al. 2020,
    arXiv 2005.12872).
    """
    total = torch.zeros((), device=lm.model.lm_head.weight.device)
    for modality, tokens in soft.items():
        per_window = len(words[0][modality])
        mine = tokens.flatten(0, 1)
        mine = mine[:, :per_window] if per_window > 1 else mine.mean(1, keepdim=True)
        logp = torch.log_softmax(lm.model.lm_head(lm.model.model.norm(mine)).float(), -1)
        fixed = per_window - (HAPPENINGS if modality == "video" else 0)
        free = mine.shape[1] - fixed if modality == "video" else 0  # an adapter may have fewer
        total = total + _cost(logp[:, :fixed], [w[modality][:fixed] for w in words], ids_of, events).mean()
        if free > 0:
            told = [w[modality][fixed : fixed + free] for w in words]
            pairs = torch.stack([_cost(logp[:, fixed + n, None].expand(-1, free, -1), told, ids_of, events, events)
                                 for n in range(free)], 1)  # (R, H tokens, H things to say)
            orders = torch.tensor(list(permutations(range(free))), device=pairs.device)
            total = total + pairs[:, torch.arange(free), orders].mean(-1).amin(1).mean()
    return total


def _cost(logp: Tensor, rows: list[list[tuple[str, ...]]], ids_of: Callable[[str], list[int]], events: float,
          all_words: float = 1.0) -> Tensor:
    """Mean weighted cross-entropy of each token's words: (R, N) of logp (R, N, V). all_words: weight of those of tokens
    that say something."""
    ids = [[[(i, events if w in EVENT_WORDS else 1.0 if row == NOTHING else all_words) for w in row for i in ids_of(w)]
            for row in window] for window in rows]
    longest = max(len(row) for window in ids for row in window)
    table = torch.tensor([[row + [(0, 0.0)] * (longest - len(row)) for row in window] for window in ids],
                         device=logp.device)  # (R, N, L, 2)
    share = table[..., 1] / torch.tensor([[len(row) for row in window] for window in ids], device=logp.device)[..., None]
    return -(logp.gather(-1, table[..., 0].long()) * share).sum(-1)
