"""Language models whose past cannot be shared: each question reads the whole list again.

For models that `Capability` refuses, such as MPT with its ALiBi, and for encoder-decoders, whose encoder sees the question
together with what is asked about. The memory keeps the list within its budget all the same, so a stream is bounded, but a
question costs a pass over the list, and a rule one at every window: it is for files and rare questions.

    trunk = PlainTrunk(model); trunk.extend(rows)      embeddings are kept, nothing is computed
    forks = trunk.fork([suffix, ...])                  as `forks.Forks`: logits, step, keep

Shapes: N forks, L tokens, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from anymodal.language.attach import Seen, seeing
from anymodal.language.capability import Capability
from anymodal.language.pretrained import PretrainedLM
from anymodal.language.rows import Rows
from anymodal.language.tree import Tree


class PlainLM(PretrainedLM):
    """A decoder-only language model that is not forked. `anymodal.language.pretrained:PretrainedLM` has its options."""

    @property
    def capability(self) -> Capability:
        config = self.model.config
        most = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
        return Capability("own", None, most, None, None)

    def trunk(self, capacity: int) -> PlainTrunk:
        return PlainTrunk(self.model)


class Reading:
    """A decoder-only model that has read embeddings (L, W) and what they come with, and goes on. `logits` (V,)."""

    def __init__(self, model: nn.Module, rows: Rows, windows: int | None) -> None:
        self.model, self._cache = model, DynamicCache()
        self._media = [medium for _, medium in rows.media]
        self._windows = windows
        upto = torch.zeros(1, len(rows), dtype=torch.long, device=rows.embeds.device)
        for at, _ in rows.media:
            upto[:, at:] += 1
        self.logits = self._pass(rows.embeds, upto)

    def step(self, token: Tensor) -> None:
        """One more token, an id without a dimension."""
        embeds = self.model.get_input_embeddings()(token[None])
        self.logits = self._pass(embeds, torch.full((1, 1), len(self._media), device=embeds.device))

    def _pass(self, embeds: Tensor, upto: Tensor) -> Tensor:
        seen = None if self._windows is None else Seen(self._media, upto, self._windows)
        with seeing(seen):
            return self.model(inputs_embeds=embeds[None], past_key_values=self._cache, use_cache=True).logits[0, -1]


class PlainTrunk:
    """A list of embeddings that only grows. `read`: makes of it, and of what is asked, something that goes on."""

    def __init__(self, model: nn.Module, *, windows: int | None = None,
                 read: Callable[[nn.Module, Rows, int | None], Reading] = Reading) -> None:
        self.model, self.windows, self._read = model, windows, read
        self._rows: Rows | None = None

    @property
    def length(self) -> int:
        return 0 if self._rows is None else len(self._rows)

    @property
    def nbytes(self) -> int:
        return 0 if self._rows is None else self._rows.embeds.numel() * self._rows.embeds.element_size()

    def free(self, length: int | None = None) -> int:
        """The first free position: tokens are counted."""
        return self.length if length is None else length

    def clear(self) -> bool:
        self._rows = None
        return True

    def extend(self, rows: Tensor | Rows) -> None:
        """Append input embeddings (L, W), alone or as Rows."""
        rows = rows if isinstance(rows, Rows) else Rows(rows)
        self._rows = rows if self._rows is None else Rows.cat([self._rows, rows])

    def fork(self, suffixes: Sequence[Tensor | Rows], *, length: int | None = None, room: int = 0) -> PlainForks:
        """Continuations of the first `length` tokens."""
        return PlainForks([self._reading(suffix, length) for suffix in suffixes])

    def packed(self, tree: Sequence[Sequence[int]] | Tree, *, room: int = 0) -> PlainForks:
        """Continuations by ids."""
        if isinstance(tree, Tree):
            tree = [tree.ids[path[:length]].tolist() for path, length in zip(tree.paths, tree.lengths)]
        embed = self.model.get_input_embeddings()
        return self.fork([embed(torch.tensor(ids, device=embed.weight.device)) for ids in tree])

    @torch.inference_mode()
    def _reading(self, suffix: Tensor | Rows, length: int | None) -> Reading:
        length = self.length if length is None else length
        before = [self._rows[:length]] if length else []
        return self._read(self.model, Rows.cat([*before, suffix]), self.windows)


class PlainForks:
    """N continuations, each by itself. `logits` (N, V): of the next token."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    @property
    def logits(self) -> Tensor:
        return torch.stack([reading.logits for reading in self._readings])

    @torch.inference_mode()
    def step(self, ids: Tensor) -> Tensor:
        """One more token for each: ids (N,) -> `logits` (N, V)."""
        for reading, token in zip(self._readings, ids, strict=True):
            reading.step(token)
        return self.logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._readings = [self._readings[row] for row in rows]
