"""Attention over questions packed behind one prefix, without the scores that the packing forbids.

A packed row is [prefix | question 1 | question 2 | ...]: every question sees the prefix and itself. A dense mask over
the row costs (P + S)^2 scores, nearly all of them masked; here the prefix costs P^2, the questions S * (P + 2C), where a
chunk of C tokens is at least as long as any question, so that a token's own question lies in its chunk or the one before.
Equal to dense attention under the same mask, by test.
Shapes: B rows, H heads, P prefix, S packed (a multiple of C), D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
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


@dataclass(frozen=True, slots=True)
class Packing:
    """Additive masks: `prefix` (P, P), and `own` (B, 1, S/C, C, 2C) of each chunk over the one before and itself."""

    prefix: Tensor
    own: Tensor

    @classmethod
    def of(cls, before: int, owner: Tensor, chunk: int, dtype: torch.dtype) -> Packing:
        """owner (B, S): which question a token belongs to, below 0 for padding."""
        rows, packed = owner.shape
        device = owner.device
        prefix = torch.full((before, before), NEVER, dtype=dtype, device=device).triu(1)
        blocks = owner.view(rows, packed // chunk, chunk)
        last = nn.functional.pad(blocks, (0, 0, 1, 0), value=-9)[:, :-1]
        keys = torch.cat([last, blocks], -1)
        order = torch.arange(2 * chunk, device=device)
        causal = order[None, :] <= order[chunk:, None]
        allowed = causal & (blocks[..., :, None] == keys[..., None, :])
        own = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill(~allowed, NEVER)
        return cls(prefix, own[:, None])


def packed_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                     scaling: float, packing: Packing | None = None, **_: object) -> tuple[Tensor, None]:
    """query, key, value (B, H, P + S, D) -> (B, P + S, H, D), in the interface of transformers."""
    before, chunk = packing.prefix.shape[0], packing.own.shape[-2]
    query = query * scaling
    pre_q, pre_k, pre_v = (x[:, :, :before] for x in (query, key, value))
    seen = torch.softmax(pre_q @ pre_k.mT + packing.prefix, -1) @ pre_v
    own_q, own_k, own_v = (x[:, :, before:].unflatten(2, (-1, chunk)) for x in (query, key, value))
    near_k, near_v = (torch.cat([nn.functional.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], 3) for x in (own_k, own_v))
    far = (query[:, :, before:] @ pre_k.mT).unflatten(2, (-1, chunk))
    weights = torch.softmax(torch.cat([far, own_q @ near_k.mT + packing.own], -1), -1)
    out = (weights[..., :before].flatten(2, 3) @ pre_v) + (weights[..., before:] @ near_v).flatten(2, 3)
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
