"""Many continuations of one prefix: forks share its keys and values, and each keeps only its own tail.

Attention of a token over [prefix | its fork's tail] is computed in two parts, one over the prefix for the tokens of all
forks together, one over the tails, and merged by their log-sum-exps, which is exact. So N forks read the prefix once
and hold it once, as in Hydragen (Juravsky et al. 2024, arXiv 2402.05099).

    trunk = Trunk(model, capacity=2048)
    trunk.extend(embeds)                          append to the prefix
    forks = Forks(trunk, [suffix, suffix, ...])   one continuation each, of any lengths; `logits` of what comes next
    forks.step(ids)                               one more token for each
    forks.keep(rows)                              go on with some of them

A trunk may be extended while forks of it are alive: they see the first `length` positions that they were forked from.
Shapes: N forks, L new tokens, T tail, P prefix, H heads, K key-value heads, D head width, W width, V vocabulary.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache

from anymodal.language.capability import Capability

NAME = "anymodal_forks"
CHUNK = 256  # tokens that enter a trunk at a time


# --- attention -------------------------------------------------------------------------------------------------------

@dataclass(slots=True)
class _Pass:
    """What one forward pass attends to beside its own keys."""

    trunk: Trunk
    length: int  # of the prefix
    start: int  # where in the tails the new tokens begin
    pads: Tensor | None  # (N,): how many tokens at a tail's start are padding; None: none


def forked_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                     scaling: float, forks: _Pass | None = None, sliding_window: int | None = None,
                     softcap: float | None = None, **_: object) -> tuple[Tensor, None]:
    """query (N, H, L, D), key and value (N, K, T, D) of the tails -> (N, L, H, D), in the interface of transformers."""
    rows, heads, new, width = query.shape
    tail = _tail_mask(forks, new, key.shape[2], sliding_window, query.device)
    out, lse = _attend(query, key, value, tail, scaling, softcap)
    if forks.length:
        keys, values = forks.trunk.layer(module.layer_idx, forks.length)
        mask = None
        if sliding_window is not None and forks.start + new + forks.length > sliding_window:
            keys, values, mask = _in_reach(keys, values, forks, new, rows, sliding_window)
        folded = query.transpose(0, 1).reshape(1, heads, rows * new, width)
        far, far_lse = _attend(folded, keys, values, mask, scaling, softcap)
        far = far.view(heads, rows, new, width).transpose(0, 1)
        far_lse = far_lse.reshape(heads, rows, new).transpose(0, 1)
        share = torch.sigmoid(far_lse - lse)[..., None].to(out.dtype)
        out = out + share * (far - out)
    return out.transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | str | None, scale: float,
            softcap: float | None) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores. `mask`: bool, "causal", or None for all."""
    causal = mask == "causal" if isinstance(mask, str) else False
    mask = None if isinstance(mask, str) else mask
    if query.device.type == "cpu" and softcap is None:
        bias = None
        if mask is not None:
            bias = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=bias, scale=scale)
    else:
        groups = query.shape[1] // key.shape[1]
        scores = (query.unflatten(1, (-1, groups)) @ key[:, :, None].mT).flatten(1, 2).float() * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril_()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        lse = scores.logsumexp(-1)
        weights = torch.exp(scores - lse.clamp(min=torch.finfo(lse.dtype).min)[..., None]).to(value.dtype)
        out = (weights.unflatten(1, (-1, groups)) @ value[:, :, None]).flatten(1, 2)
    if mask is not None:  # a row that sees nothing weighs nothing, whatever the kernel made of it
        nothing = ~mask.any(-1)
        lse = lse.masked_fill(nothing, -torch.inf)
        out = out.masked_fill(nothing[..., None], 0)
    return out, lse


def _tail_mask(forks: _Pass, new: int, total: int, window: int | None, device: torch.device) -> Tensor | str | None:
    """Which of a tail's tokens (N, 1, L, T) its new tokens see: those up to themselves that are no padding."""
    short = window is None or total <= window
    if forks.pads is None and short:
        return None if new == 1 else "causal" if new == total else _causal(forks.start, new, total, device)
    mask = _causal(forks.start, new, total, device)
    if not short:
        mask = mask & ~_causal(forks.start - window, new, total, device)
    mask = mask[None, None]
    if forks.pads is not None:
        at = torch.arange(total, device=device)
        own = at[None, :] == forks.start + torch.arange(new, device=device)[:, None]  # padding sees itself, not nothing
        mask = mask & (at >= forks.pads[:, None])[:, None, None] | own
    return mask


def _causal(start: int, new: int, total: int, device: torch.device) -> Tensor:
    return torch.ones(new, total, dtype=torch.bool, device=device).tril_(start)


def _in_reach(keys: Tensor, values: Tensor, forks: _Pass, new: int, rows: int,
              window: int) -> tuple[Tensor, Tensor, Tensor]:
    """The prefix's last keys, which a sliding layer may see, and which new token sees which (1, 1, N * L, P)."""
    reach = min(window, forks.length)
    keys, values = keys[:, :, -reach:], values[:, :, -reach:]
    device = keys.device
    at = forks.start + torch.arange(new, device=device).expand(rows, new)
    if forks.pads is not None:
        at = at - forks.pads[:, None]
    oldest = reach + at.reshape(-1, 1) - window  # sees keys from beyond here
    return keys, values, (torch.arange(reach, device=device) > oldest)[None, None]


AttentionInterface.register(NAME, forked_attention)


_passes: dict[int, tuple[int, str]] = {}  # by id of a model: passes under way, and how it attends otherwise
_passes_lock = threading.Lock()


@contextmanager
def _forked(model: nn.Module) -> Iterator[None]:
    """Within it, the model attends through `forked_attention`, and makes no mask of its own.

    Sessions in several threads share a model: it goes back when the last pass is over.
    """
    config, key = model.config, id(model)
    with _passes_lock:
        count, before = _passes.get(key, (0, config._attn_implementation))
        _passes[key] = count + 1, before
        config._attn_implementation = NAME
    try:
        yield
    finally:
        with _passes_lock:
            count, before = _passes.pop(key)
            if count > 1:
                _passes[key] = count - 1, before
            else:
                config._attn_implementation = before


# --- keys and values -------------------------------------------------------------------------------------------------

class _Store(Cache):
    """Keys and values (N, K, capacity, D) of each layer; grows by doubling, so that appending costs what is appended.

    Presents itself to transformers as a cache whose `update` gives everything from `begin` on.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(layers=[])
        self.capacity, self.length, self.begin = capacity, 0, 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object,
               **__: object) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[2]
        found = []
        for store, states in ((self.keys, key_states), (self.values, value_states)):
            if layer_idx == len(store):
                store.append(self._room(states, max(self.capacity, end)))
            elif store[layer_idx].shape[2] < end:
                grown = self._room(states, max(2 * store[layer_idx].shape[2], end))
                grown[:, :, : self.length] = store[layer_idx][:, :, : self.length]
                store[layer_idx] = grown
            store[layer_idx][:, :, self.length : end] = states
            found.append(store[layer_idx][:, :, self.begin : end])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    @staticmethod
    def _room(states: Tensor, capacity: int) -> Tensor:
        rows, heads, _, width = states.shape
        return states.new_empty(rows, heads, capacity, width)

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


class Trunk:
    """The keys and values of a prefix that only grows. `capacity`: tokens there is room for before it is moved."""

    def __init__(self, model: nn.Module, capacity: int = CHUNK) -> None:
        self.model = model
        self._store = _Store(capacity)
        self._forks: weakref.WeakSet[Forks] = weakref.WeakSet()
        Capability.of(model)  # refuses what could not be forked

    @property
    def length(self) -> int:
        return self._store.length

    @property
    def nbytes(self) -> int:
        """Bytes reserved; the system lends most of them only when they are written."""
        return self._store.nbytes

    def clear(self) -> bool:
        """Forget the prefix and keep its room for another one. False, with nothing done, while forks of it are alive."""
        if self._forks:
            return False
        self._store.length = 0
        return True

    def layer(self, index: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, K, length, D) of a layer."""
        return self._store.keys[index][:, :, :length], self._store.values[index][:, :, :length]

    @torch.inference_mode()
    def extend(self, embeds: Tensor) -> None:
        """Append input embeddings (L, W)."""
        for piece in embeds.split(CHUNK):
            store = self._store
            store.begin = store.length
            _forward(self.model, piece[None], store, _Pass(self, store.length, 0, None), head=False)
            store.length += len(piece)


class Forks:
    """N continuations of a trunk's first `length` positions, decoded together. `logits` (N, V): of the next token."""

    @torch.inference_mode()
    def __init__(self, trunk: Trunk, suffixes: Sequence[Tensor], *, length: int | None = None, room: int = 64) -> None:
        """suffixes: N of (L, W), each at least one token. `room`: tokens that will follow, about."""
        self.trunk, self.model = trunk, trunk.model
        trunk._forks.add(self)
        self.length = trunk.length if length is None else length
        longest = max(map(len, suffixes))
        padding = [longest - len(s) for s in suffixes]
        first = suffixes[0]
        self.pads = torch.tensor(padding, device=first.device) if any(padding) else None
        self._store = _Store(longest + room)
        self.logits = self._push(torch.stack([nn.functional.pad(s, (0, 0, p, 0)) for s, p in zip(suffixes, padding)]))

    @property
    def nbytes(self) -> int:
        """Bytes reserved for the tails: all that the forks hold."""
        return self._store.nbytes

    @torch.inference_mode()
    def step(self, ids: Tensor) -> Tensor:
        """One more token for each: ids (N,) -> `logits` (N, V)."""
        self.logits = self._push(self.model.get_input_embeddings()(ids)[:, None])
        return self.logits

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        chosen = torch.tensor(list(rows), device=self.logits.device)
        store = self._store
        store.keys, store.values = ([t.index_select(0, chosen) for t in x] for x in (store.keys, store.values))
        self.logits = self.logits[chosen]
        self.pads = None if self.pads is None else self.pads[chosen]

    def _push(self, embeds: Tensor) -> Tensor:
        store = self._store
        logits = _forward(self.model, embeds, store, _Pass(self.trunk, self.length, store.length, self.pads))
        store.length += embeds.shape[1]
        return logits


def _forward(model: nn.Module, embeds: Tensor, store: _Store, forks: _Pass, head: bool = True) -> Tensor:
    """embeds (N, L, W) -> logits (N, V) after the last, or nothing of use without `head`."""
    places = torch.arange(embeds.shape[1], device=embeds.device) + (forks.length + forks.start)
    places = places.expand(len(embeds), -1)
    if forks.pads is not None:
        places = (places - forks.pads[:, None]).clamp(min=0)
    body = model if head else model.base_model
    extra = {"logits_to_keep": 1} if head else {}
    with _forked(model):
        out = body(inputs_embeds=embeds, position_ids=places, past_key_values=store, use_cache=True, forks=forks,
                   **extra)
    return out[0][:, -1]
