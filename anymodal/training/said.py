"""The loss on what each soft token says: its words, read through the language model's own norm and output layer.

Shapes: B windows or clips, K windows of a clip, N tokens, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anymodal.training.words import EVENT_WORDS


def said_loss(lm, ids_of: Callable[[str], list[int]], soft: dict[str, Tensor], words: list[dict],
              events: float = 1.0) -> Tensor:
    """Cross-entropy of the words that each soft token should say, read through the LM's norm and output layer.

    soft: (B, K, N, W) by modality. `events`: the weight of words of events.
    """
    total = torch.zeros((), device=lm.model.lm_head.weight.device)
    for modality, tokens in soft.items():
        rows = [said for window in words for said in window[modality]]
        per_window = len(words[0][modality])
        ids = [[i for w in row for i in ids_of(w)] for row in rows]
        owner = torch.tensor([i for i, row in enumerate(ids) for _ in row], device=tokens.device)
        target = torch.tensor([i for row in ids for i in row], device=tokens.device)
        share = 1 / torch.tensor([len(row) for row in ids], device=tokens.device)
        heavy = torch.tensor([events if w in EVENT_WORDS else 1.0 for row in rows for w in row
                              for _ in ids_of(w)], device=tokens.device)
        mine = tokens.flatten(0, 1)
        mine = mine[:, :per_window] if per_window > 1 else mine.mean(1, keepdim=True)
        logits = lm.model.lm_head(lm.model.model.norm(mine.flatten(0, 1))).float()
        losses = -torch.log_softmax(logits, -1)[owner, target] * share[owner] * heavy
        total = total + losses.sum() / len(rows)
    return total
