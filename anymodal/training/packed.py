"""Attention over questions packed behind one prefix, without the scores that the packing forbids.

A packed row is [prefix | question 1 | question 2 | ...]: every question sees the prefix and itself. A dense mask over
the row costs (P + S)^2 scores, nearly all of them masked; here the prefix costs P^2, the questions S * (P + C): each lies
within one of the row's chunks of C tokens. Equal to dense attention under the same mask, by test.
Shapes: B rows, H heads, P prefix, S packed (a multiple of C), D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "anymodal_packed"
NEVER = -1e9
CHUNK = 64


def chunk_for(longest: int) -> int:
    """The least chunk that questions of up to `longest` tokens allow."""
    return max(CHUNK, -(-longest // 16) * 16)


def layout(lengths: Sequence[int], chunk: int) -> list[int]:
    """Where each question begins, so that none crosses the border of a chunk: the longest first, each where it fits."""
    starts, filled = [0] * len(lengths), []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = next((n for n, used in enumerate(filled) if used + lengths[i] <= chunk), len(filled))
        if at == len(filled):
            filled.append(0)
        starts[i] = at * chunk + filled[at]
        filled[at] += lengths[i]
    return starts


@dataclass(frozen=True, slots=True)
class Packing:
    """Additive masks: `prefix` (P, P), and `own` (B, 1, S/C, C, C) of each chunk over itself."""

    prefix: Tensor
    own: Tensor

    @classmethod
    def of(cls, before: int, owner: Tensor, chunk: int, dtype: torch.dtype) -> Packing:
        """owner (B, S): which question a token belongs to, below 0 for padding."""
        rows, packed = owner.shape
        device = owner.device
        prefix = torch.full((before, before), NEVER, dtype=dtype, device=device).triu(1)
        blocks = owner.view(rows, packed // chunk, chunk)
        causal = torch.ones((chunk, chunk), dtype=torch.bool, device=device).tril()
        allowed = causal & (blocks[..., :, None] == blocks[..., None, :])
        own = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill(~allowed, NEVER)
        return cls(prefix, own[:, None])


def packed_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                     scaling: float, packing: Packing | None = None, **_: object) -> tuple[Tensor, None]:
    """query, key, value (B, H, P + S, D) -> (B, P + S, H, D), in the interface of transformers."""
    before, chunk = packing.prefix.shape[0], packing.own.shape[-1]
    query = query * scaling
    sizes = (before, query.shape[2] - before)
    (pre_q, all_q), (pre_k, all_k), (pre_v, all_v) = (x.split(sizes, 2) for x in (query, key, value))
    seen = torch.softmax(pre_q @ pre_k.mT + packing.prefix, -1) @ pre_v
    own_q, own_k, own_v = (x.unflatten(2, (-1, chunk)) for x in (all_q, all_k, all_v))
    far = (all_q @ pre_k.mT).unflatten(2, (-1, chunk))
    weights = torch.softmax(torch.cat([far, own_q @ own_k.mT + packing.own], -1), -1)
    on_prefix, on_own = weights.split((before, chunk), -1)
    out = (on_prefix.flatten(2, 3) @ pre_v) + (on_own @ own_v).flatten(2, 3)
    out = torch.cat([seen, out], 2)
    if (attached := getattr(module, "attached", None)) is not None:  # adapter prompts; the query is scaled already
        out = out + attached(query, 1.0)
    return out.transpose(1, 2), None


@contextmanager
def packed_attention_of(model: nn.Module) -> Iterator[None]:
    """Within it, the model's forward takes `packing`; after it, the model attends as before."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)
