"""Many continuations of one prefix: forks share its keys and values, and each keeps only its own tail.

Attention of a token over [prefix | its fork's tail] is computed in two parts, one over the prefix for the tokens of all
forks together, one over the tails, and merged by their log-sum-exps, which is exact. So N forks read the prefix once
and hold it once, as in Hydragen (Juravsky et al. 2024, arXiv 2402.05099). Suffixes given as ids may be packed into a
`Tree`: then beginnings that they share are computed once, too.

    trunk = Trunk(model, capacity=2048)
    trunk.extend(embeds)                          append to the prefix
    forks = Forks(trunk, [suffix, suffix, ...])   one continuation each, of any lengths; `logits` of what comes next
    Forks.packed(trunk, [ids, ids, ...])          the same, sharing what the ids begin with
    forks.step(ids)                               one more token for each
    forks.keep(rows)                              go on with some of them

A trunk may be extended while forks of it are alive: they see the first `length` tokens that they were forked from.
Where a model has rows of positions (M-RoPE), tokens come with theirs as `Rows`; what comes without goes on as text, from
behind the largest of all before it. Positions are kept here and handed to the model: none is left in it between passes.
Shapes: N forks, L new tokens, T tail, P prefix, H heads, K key-value heads, D head width, W width, V vocabulary, S nodes.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache

from anymodal.errors import ConfigError
from anymodal.language.attach import Medium, Seen, seeing
from anymodal.language.capability import Capability
from anymodal.language.rows import AXES, Rows, largest
from anymodal.language.tree import Tree

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
    tree: Tree | None = None  # the new tokens are its nodes, in one row

    def places(self, rows: int, new: int, device: torch.device) -> Tensor:
        """How far behind the prefix the new tokens are, (N, L); less than 0: padding."""
        if self.tree is not None:
            return self.tree.depths[None]
        at = torch.arange(self.start, self.start + new, device=device).expand(rows, new)
        return at if self.pads is None else at - self.pads[:, None]


def forked_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                     scaling: float, forks: _Pass | None = None, sliding_window: int | None = None,
                     softcap: float | None = None, **_: object) -> tuple[Tensor, None]:
    """query (N, H, L, D), key and value (N, K, T, D) of the tails -> (N, L, H, D), in the interface of transformers."""
    if forks.tree is not None:
        out, lse = _attend_ancestors(query, key, value, forks.tree, scaling, sliding_window, softcap)
    else:
        tail = _tail_mask(forks, query.shape[2], key.shape[2], sliding_window, query.device)
        out, lse = _attend(query, key, value, tail, scaling, softcap)
    if forks.length:
        far, far_lse = _attend_prefix(module, query, forks, scaling, sliding_window, softcap)
        share = torch.sigmoid(far_lse - lse)[..., None].to(out.dtype)
        out = out + share * (far - out)
    if (attached := getattr(module, "attached", None)) is not None:  # adapter prompts
        out = out + attached(query, scaling)
    return out.transpose(1, 2), None


def _attend_prefix(module: nn.Module, query: Tensor, forks: _Pass, scaling: float, window: int | None,
                   softcap: float | None) -> tuple[Tensor, Tensor]:
    """All new tokens over the prefix that their forks share."""
    rows, heads, new, width = query.shape
    keys, values = forks.trunk.layer(module.layer_idx, forks.length)
    folded = query.transpose(0, 1).reshape(1, heads, rows * new, width)
    only, spread = _different(module, forks.tree)
    if only is not None:
        folded = folded[:, :, only]
    mask = None
    if window is not None and forks.length + forks.start + new > window:
        places = forks.places(rows, new, query.device).reshape(-1)
        places = places if only is None else places[only]
        keys, values = (x[:, :, -min(window, forks.length) :] for x in (keys, values))
        oldest = keys.shape[2] + places[:, None] - window  # sees keys from beyond here
        mask = (torch.arange(keys.shape[2], device=keys.device) > oldest)[None, None]
    out, lse = _attend(folded, keys, values, mask, scaling, softcap)
    if spread is not None:
        out, lse = out[:, :, spread], lse[:, :, spread]
    return out.view(heads, rows, new, width).transpose(0, 1), lse.reshape(heads, rows, new).transpose(0, 1)


def _different(module: nn.Module, tree: Tree | None) -> tuple[Tensor | None, Tensor | None]:
    """Which nodes' queries over the prefix need to be computed, and which of these stands for each node; None: all.

    In the first layer queries differ only by token and depth; in the last one only the leaves' are of use.
    """
    if tree is None:
        return None, None
    if module.layer_idx == 0:
        return tree.examples, tree.kinds
    if module.layer_idx == module.config.num_hidden_layers - 1:
        spread = torch.zeros_like(tree.ids)
        spread[tree.leaves] = torch.arange(len(tree.leaves), device=spread.device)
        return tree.leaves, spread
    return None, None


def _attend_ancestors(query: Tensor, key: Tensor, value: Tensor, tree: Tree, scaling: float, window: int | None,
                      softcap: float | None) -> tuple[Tensor, Tensor]:
    """Each node (1, H, S, D) over itself and its ancestors: row by row of the tree, of which each node is taken once."""
    rows, longest = tree.paths.shape
    flat = tree.paths.reshape(-1)
    query, key, value = (x[0][:, flat].unflatten(1, (rows, longest)).transpose(0, 1) for x in (query, key, value))
    mask: Tensor | str = "causal"
    if window is not None and longest > window:
        mask = _causal(0, longest, longest, query.device)
        mask = (mask & ~_causal(-window, longest, longest, query.device))[None, None]
    out, lse = _attend(query, key, value, mask, scaling, softcap)
    out = out.transpose(0, 1).flatten(1, 2)[:, tree.first]  # (H, S, D)
    return out[None], lse.transpose(0, 1).flatten(1, 2)[None, :, tree.first]


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

    def __init__(self, model: nn.Module, capacity: int = CHUNK, *, windows: int | None = None) -> None:
        """windows: how many of the last media text sees, of a model that is attached to; None: of one that is not."""
        self.model, self.windows = model, windows
        self._media: list[Medium] = []
        self._came: list[int] = []  # the first token that sees it, of each medium
        self.capability = Capability.of(model)  # refuses what could not be forked
        self._store = _Store(capacity)
        self._free: list[int] = []  # the first free position behind each token, where it is not the number of tokens
        self._forks: weakref.WeakSet[Forks] = weakref.WeakSet()

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
        for memory in (self._free, self._media, self._came):
            memory.clear()
        return True

    def free(self, length: int | None = None) -> int:
        """The first free position behind the first `length` tokens, or behind all: where text goes on."""
        length = self.length if length is None else length
        if self.capability.rows == 1:
            return length
        return self._free[length - 1] if length else 0

    def media(self, length: int) -> list[Medium]:
        """The last media that the first `length` tokens bring: what text sees that goes on from there."""
        count = bisect_left(self._came, length)
        return self._media[max(0, count - (self.windows or 0)) : count]

    def _see(self, piece: Rows) -> Seen | None:
        """What the tokens of a piece see that is being appended. Of earlier media only the last `windows` are at hand."""
        if self.windows is None:
            return None
        first = max(0, len(self._media) - self.windows)
        for medium in self._media[:first]:
            medium.forget()
        upto = torch.full((1, len(piece)), len(self._media) - first, device=piece.embeds.device)
        for at, medium in piece.media:
            upto[:, at:] += 1
            self._media.append(medium)
            self._came.append(self.length + at)
        return Seen(self._media[first:], upto, self.windows)

    def fork(self, suffixes: Sequence[Tensor | Rows], *, length: int | None = None, room: int = 64) -> Forks:
        """Continuations of the first `length` tokens: see `Forks`."""
        return Forks(self, suffixes, length=length, room=room)

    def packed(self, suffixes: Sequence[Sequence[int]] | Tree, *, room: int = 64) -> Forks:
        """Continuations by ids: see `Forks.packed`."""
        return Forks.packed(self, suffixes, room=room)

    def layer(self, index: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, K, length, D) of a layer."""
        return self._store.keys[index][:, :, :length], self._store.values[index][:, :, :length]

    @torch.inference_mode()
    def extend(self, rows: Tensor | Rows) -> None:
        """Append input embeddings (L, W), alone or as Rows. Raises ConfigError for what the model does not take."""
        for piece in self.checked(rows).split(CHUNK):
            store = self._store
            store.begin = store.length
            places = piece.positions
            if places is None:
                places = self.free() + torch.arange(len(piece), device=piece.embeds.device)
            _forward(self.model, piece.embeds[None], places[None], store, _Pass(self, store.length, 0, None), keep=0,
                     extras=None if piece.extras is None else piece.extras[:, None], seen=self._see(piece))
            store.length += len(piece)
            if self.capability.rows > 1:
                places = places if places.dim() > 1 else places[:, None]
                self._free += largest(places).clamp(min=self.free(store.length - len(piece))).tolist()

    def checked(self, rows: Tensor | Rows) -> Rows:
        """As Rows. Raises ConfigError for positions or extras that the model does not take."""
        rows = rows if isinstance(rows, Rows) else Rows(rows)
        name = type(self.model).__name__
        if rows.positions is not None and (self.capability.rows == 1 or rows.positions.shape[1:] != (AXES,)):
            raise ConfigError(f"soft tokens have positions {tuple(rows.positions.shape)}, {name} takes "
                              f"{self.capability.rows} a token", fix="use the encoder that the language model goes with")
        if rows.extras is not None and len(rows.extras) > self.capability.extras:
            raise ConfigError(f"soft tokens have extras for {len(rows.extras)} layers, {name} takes them for "
                              f"{self.capability.extras}", fix="use the encoder that the language model goes with")
        return rows


class Forks:
    """N continuations of a trunk's first `length` positions, decoded together. `logits` (N, V): of the next token."""

    @torch.inference_mode()
    def __init__(self, trunk: Trunk, suffixes: Sequence[Tensor | Rows], *, length: int | None = None,
                 room: int = 64) -> None:
        """suffixes: N of (L, W), each at least one token; the positions of Rows count from the trunk's beginning, too.

        `room`: tokens that will follow, about.
        """
        self.trunk, self.model = trunk, trunk.model
        trunk._forks.add(self)
        self.length = trunk.length if length is None else length
        rows = [trunk.checked(s) for s in suffixes]
        self._see(medium for r in rows for _, medium in r.media)
        longest = max(map(len, rows))
        padding = [longest - len(r) for r in rows]
        device = rows[0].embeds.device
        self.pads = torch.tensor(padding, device=device) if any(padding) else None
        self._store, self._tree, self._room = _Store(longest + room), None, room
        self._ahead = trunk.free(self.length) - self.length  # of positions, where they are not as many as tokens
        embeds = torch.stack([nn.functional.pad(r.embeds, (0, 0, p, 0)) for r, p in zip(rows, padding)])
        places, extras = None, None
        if any(r.positions is not None for r in rows):
            text = self.length + self._ahead + torch.arange(longest, device=device)[:, None].expand(-1, AXES)
            own = [text[: len(r)] if r.positions is None else r.positions for r in rows]
            places = torch.stack([nn.functional.pad(x, (0, 0, p, 0)) for x, p in zip(own, padding)])
        if layers := max(0 if r.extras is None else len(r.extras) for r in rows):
            extras = embeds.new_zeros(layers, *embeds.shape)
            for row, (r, p) in enumerate(zip(rows, padding)):
                if r.extras is not None:
                    extras[: len(r.extras), row, p:] = r.extras
        self.logits = self._push(embeds, places, extras)
        if places is not None:  # each row goes on behind the largest of its own, and of all before
            behind = places.amax((1, 2)).clamp(min=self.length + self._ahead - 1) + 1
            self._ahead = (behind - self.length - torch.tensor([len(r) for r in rows], device=device))[:, None]

    @classmethod
    @torch.inference_mode()
    def packed(cls, trunk: Trunk, suffixes: Sequence[Sequence[int]] | Tree, *, room: int = 64) -> Forks:
        """Of N lists of ids, each at least one: what they begin with alike is computed once. A Tree may serve again."""
        self = cls.__new__(cls)
        self.trunk, self.model, self.length, self.pads = trunk, trunk.model, trunk.length, None
        self._see()
        trunk._forks.add(self)
        embed = trunk.model.get_input_embeddings()
        tree = suffixes if isinstance(suffixes, Tree) else Tree.of(suffixes, embed.weight.device)
        self._store, self._tree, self._room = _Store(len(tree.ids)), tree, room
        self._ahead = trunk.free() - self.length
        this = _Pass(trunk, self.length, 0, None, tree)
        places = tree.depths[None] + (self.length + self._ahead)
        self.logits = _forward(self.model, embed(tree.ids)[None], places, self._store, this, tree.leaves,
                               seen=self._seen)[0]
        return self

    def _see(self, more: Iterable[Medium] = ()) -> None:
        """All tokens of the forks see the last media up to here, and `more`."""
        trunk = self.trunk
        self._seen = None if trunk.windows is None else Seen([*trunk.media(self.length), *more])

    @property
    def nbytes(self) -> int:
        """Bytes reserved for the tails: all that the forks hold."""
        return self._store.nbytes

    @torch.inference_mode()
    def step(self, ids: Tensor) -> Tensor:
        """One more token for each: ids (N,) -> `logits` (N, V)."""
        if self._tree is not None:
            self._unpack(range(len(self.logits)))
        self.logits = self._push(self.model.get_input_embeddings()(ids)[:, None])
        return self.logits

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        chosen = torch.tensor(list(rows), device=self.logits.device)
        if self._tree is not None:
            self._unpack(rows)
            self.logits = self.logits[chosen]
            return
        store = self._store
        store.keys, store.values = ([t.index_select(0, chosen) for t in x] for x in (store.keys, store.values))
        self.logits = self.logits[chosen]
        self.pads = None if self.pads is None else self.pads[chosen]
        self._ahead = self._ahead[chosen] if isinstance(self._ahead, Tensor) else self._ahead

    def _unpack(self, rows: Sequence[int]) -> None:
        """From here on each row has a tail of its own."""
        nodes, self.pads = self._tree.rows_to_the_right(rows)
        lengths = torch.tensor([self._tree.lengths[row] for row in rows], device=nodes.device)
        ends = self._tree.depths[nodes[:, -1]] + 1 - lengths
        self._ahead = self._ahead + ends[:, None]  # some are less deep than they are long
        packed, self._tree = self._store, None
        self._store = _Store(nodes.shape[1] + self._room)
        for layer, pair in enumerate(zip(packed.keys, packed.values, strict=True)):
            own = (x[0][:, nodes.reshape(-1)].unflatten(1, nodes.shape).transpose(0, 1) for x in pair)
            self._store.update(*own, layer)
        self._store.length = nodes.shape[1]

    def _push(self, embeds: Tensor, places: Tensor | None = None, extras: Tensor | None = None) -> Tensor:
        """`places` (N, L, 3), or those of text."""
        store = self._store
        this = _Pass(self.trunk, self.length, store.length, self.pads)
        if places is None:
            places = this.places(*embeds.shape[:2], embeds.device).clamp(min=0) + (self.length + self._ahead)
        logits = _forward(self.model, embeds, places, store, this, extras=extras, seen=self._seen)
        store.length += embeds.shape[1]
        return logits[:, -1]


def _forward(model: nn.Module, embeds: Tensor, places: Tensor, store: _Store, forks: _Pass, keep: Tensor | int = 1, *,
             extras: Tensor | None = None, seen: Seen | None = None) -> Tensor:
    """embeds (N, L, W) at `places` (N, L), or (N, L, 3), with extras (K, N, L, W) -> logits (N, k, V) after the last
    `keep`, or those of these numbers; 0: nothing of use."""
    head = isinstance(keep, Tensor) or keep
    body = model if head else model.base_model
    more = {"logits_to_keep": keep} if head else {}
    if extras is not None:
        more["visual_pos_masks"] = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        more["deepstack_visual_embeds"] = [layer.flatten(0, 1) for layer in extras]
    places = places if places.dim() == 2 else places.permute(2, 0, 1)
    with _forked(model), seeing(seen):
        out = body(inputs_embeds=embeds, position_ids=places, past_key_values=store, use_cache=True, forks=forks,
                   **more)
    return out[0]
