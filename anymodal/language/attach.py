"""Media that reach a language model beside its text: what each token of text sees, and where in the model it is added.

A language model part either takes soft tokens among its text (nothing of this is needed then), or it is attached to:
`gated_cross.GatedCrossLM` reads media between its layers, `adapter_prompts.AdapterPromptLM` within its attention. Then only
text enters the cache of keys and values. Each entry of a session's memory brings a `Medium`, and text sees the last
`windows` media that had come when it did. What has been read stays as it is when a window comes or goes: nothing of the
text is computed again, and a medium's keys and values are computed once and kept while it is among the last ones.
Shapes: B sessions or samples, L tokens of text, E media, M tokens of a medium, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anymodal.config import PartSpec, build_part, resolve
from anymodal.errors import ConfigError
from anymodal.language.capability import Capability

if TYPE_CHECKING:
    from anymodal.language.forks import Trunk
    from anymodal.language.plain import PlainTrunk


class Medium:
    """The tokens (M, D) of one entry of the memory, and what layers have made of them."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self._made: dict[int, tuple[Tensor, ...]] = {}

    def made(self, layer: int, make: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """`make(tokens)`, once for each layer."""
        if layer not in self._made:
            self._made[layer] = make(self.tokens)
        return self._made[layer]

    def forget(self) -> None:
        """Let go of what layers made; it is made again when it is wanted."""
        self._made.clear()

    @property
    def nbytes(self) -> int:
        """What it holds beside its tokens."""
        return sum(t.numel() * t.element_size() for made in self._made.values() for t in made)


class Seen:
    """What the tokens of a pass see: of one session as Media, or of B samples as a tensor (B, E, M, D).

    upto: how many of the media had come at each token, (B, L); it sees the last `windows` of them. None: all see all.
    """

    def __init__(self, media: Sequence[Medium] | Tensor, upto: Tensor | None = None, windows: int = 1) -> None:
        self.media, self.upto, self.windows = media, upto, windows
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.media.shape[1] if isinstance(self.media, Tensor) else len(self.media)

    def kept(self, layer: int, make: Callable[[], Any]) -> Any:
        """`make()`, once for each layer; what gradients are to flow through is made anew."""
        if torch.is_grad_enabled():
            return make()
        if layer not in self._kept:
            self._kept[layer] = make()
        return self._kept[layer]

    def project(self, layer: int, make: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `make` makes of each medium's tokens (..., M, D), laid end to end: (B, E * M, ...)."""
        if isinstance(self.media, Tensor):
            return tuple(x.flatten(1, 2) for x in make(self.media))
        if torch.is_grad_enabled():
            return tuple(x[None] for x in make(torch.cat([m.tokens for m in self.media])))
        return tuple(torch.cat(parts)[None] for parts in zip(*(m.made(layer, make) for m in self.media)))

    def mask(self) -> Tensor | None:
        """Which tokens of media each token of text sees: bool (B, L, E * M); None: all of them."""
        if self.upto is None:
            return None
        number = torch.arange(len(self), device=self.upto.device)
        upto = self.upto[..., None]
        seen = (number < upto) & (number >= upto - self.windows)
        if isinstance(self.media, Tensor):
            return seen.repeat_interleave(self.media.shape[2], 2)
        sizes = torch.tensor([len(m.tokens) for m in self.media], device=seen.device)
        return seen.repeat_interleave(sizes, 2)

    def means(self, count: int) -> Tensor | None:
        """Of what is seen once n media have come, their mean: (B, E + 1, count, D) for n = 0 to E, or without `upto`
        (B, 1, count, D); None where there are no media. Raises ConfigError for media of neither 1 nor `count` tokens.
        """
        if not len(self):
            return None
        if isinstance(self.media, Tensor):
            tokens = counted(self.media, count)
        else:
            tokens = torch.stack([counted(m.tokens, count) for m in self.media])[None]
        if self.upto is None:
            return tokens.mean(1, keepdim=True)
        sums = nn.functional.pad(tokens.cumsum(1), (0, 0, 0, 0, 1, 0))
        to = torch.arange(sums.shape[1], device=sums.device)
        begin = (to - self.windows).clamp(min=0)
        return (sums - sums[:, begin]) / (to - begin).clamp(min=1)[:, None, None].to(sums.dtype)


def counted(tokens: Tensor, count: int) -> Tensor:
    """(..., n, D) -> (..., count, D). Raises ConfigError for n other than 1 and `count`."""
    if tokens.shape[-2] not in (1, count):
        raise ConfigError(f"a window brings {tokens.shape[-2]} tokens to {count} prompts",
                          fix=f"use an adapter that makes 1 or {count} tokens a window, or set prompts")
    return tokens.expand(*tokens.shape[:-2], count, tokens.shape[-1])


_seen: ContextVar[Seen | None] = ContextVar("seen", default=None)


@contextmanager
def seeing(seen: Seen | None) -> Iterator[None]:
    """Within it, passes of an attached model in this thread see these media."""
    token = _seen.set(seen)
    try:
        yield
    finally:
        _seen.reset(token)


def seen_now() -> Seen | None:
    return _seen.get()


class AttachedLM(nn.Module):
    """A language model part, `model`, and what is attached to it. `width`: of the tokens that media bring.

    `windows`: the last so many of the memory's entries are seen. The base's weights do not learn, unless `freeze` is off.
    """

    def __init__(self, base: Mapping[str, Any], windows: int, freeze: bool) -> None:
        super().__init__()
        part = build_part(PartSpec(**base))
        self.model, self.width, self.windows = part.model, part.width, windows
        self._trunk, self._capability = getattr(part, "trunk", None), getattr(part, "capability", None)
        if freeze:
            self.model.requires_grad_(False)

    @classmethod
    def width_of(cls, options: Mapping[str, Any]) -> int:
        """Its width, without building it. options: those of `Config`."""
        base = dict(options["base"])
        return resolve(base.pop("use")).width_of(base)

    def tie_weights(self) -> None:
        self.model.tie_weights()

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """What an entry of the memory brings, of its streams' tokens (..., n, D): they come one behind the other."""
        return torch.cat(list(parts), -2)

    @property
    def capability(self) -> Capability:
        return self._capability or Capability.of(self.model)

    def trunk(self, capacity: int) -> Trunk | PlainTrunk:
        """Room for what a session has read: shared by its questions where the base's past can be."""
        from anymodal.language.forks import Trunk

        if self._trunk is None:
            return Trunk(self.model, capacity, windows=self.windows)
        plain = self._trunk(capacity)
        plain.windows = self.windows
        return plain

    def forward(self, inputs_embeds: Tensor, media: Tensor | None = None, upto: Tensor | None = None, **more: Any) -> Any:
        """As the base's forward, for training: media (B, E, M, D), upto (B, L): see `Seen`."""
        with seeing(None if media is None else Seen(media, upto, self.windows)):
            return self.model(inputs_embeds=inputs_embeds, **more)


TIED = ("lm_head.weight", "model.lm_head.weight")  # the table of embeddings again


def owned(lm: nn.Module) -> nn.Module:
    """What of a language model part is kept in a file: the model, or all of a part that is attached to one."""
    return lm if isinstance(lm, AttachedLM) else lm.model


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of a causal LM of transformers, in order. Raises ConfigError where they cannot be told."""
    count = model.config.get_text_config().num_hidden_layers
    found = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise ConfigError(f"{type(model).__name__} has {len(found)} lists of {count} layers: which are its decoder's "
                          "cannot be told", fix="choose a decoder-only language model such as Llama, Qwen2, OPT or MPT")
    return found[0]
