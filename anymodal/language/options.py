"""What may be said next, by token ids: texts that go on from what was said, each with its likelihood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

LEAST = 0.02  # what soft tokens leave of anything
NEVER = 1e-4  # and of what is no answer at all
Options = Mapping[tuple[int, ...], float]  # ids of what may be said -> how likely it is


def end_of(ids: Sequence[int], options: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest end of `ids` that an option goes on from."""
    longest = min(len(ids), max(map(len, options), default=1) - 1)
    ends = (tuple(ids[len(ids) - n :]) for n in range(longest, 0, -1))
    return next((end for end in ends if any(o[: len(end)] == end and len(o) > len(end) for o in options)), ())


def ends(ids: Sequence[int], option: tuple[int, ...]) -> bool:
    return tuple(ids[-len(option) :]) == option


def times_in(ids: Sequence[int], options: Iterable[tuple[int, ...]]) -> int:
    """How many of the options stand in `ids`."""
    return sum(any(tuple(ids[i : i + len(o)]) == o for i in range(len(ids) - len(o) + 1)) for o in options)


def follows(options: Iterable[tuple[int, ...]], begun: tuple[int, ...]) -> set[int]:
    """What the options go on with."""
    return {o[len(begun)] for o in options if o[: len(begun)] == begun and len(o) > len(begun)}


def only(scores: Tensor, tokens: Iterable[int | None]) -> Tensor:
    """Log-probabilities where nothing but these tokens may follow."""
    weights = torch.full_like(scores, -torch.inf)
    weights[[i for i in tokens if i is not None]] = 0.0
    return torch.log_softmax(scores + weights, -1)


def barring(scores: Tensor, tokens: Iterable[int]) -> Tensor:
    """Log-probabilities where none of these tokens may follow."""
    return torch.log_softmax(scores.index_fill(0, torch.tensor([*tokens], device=scores.device), -torch.inf), -1)


def weighed(scores: Tensor, options: Options, begun: tuple[int, ...] = ()) -> Tensor:
    """The probability that the options' next tokens have together, shared among them anew."""
    chances: dict[int, float] = {}
    for option, chance in options.items():
        for token in follows([option], begun):
            chances[token] = max(chances.get(token, 0.0), chance)
    ids = torch.tensor(list(chances), device=scores.device)
    weights = torch.tensor([max(c, LEAST) if c else NEVER for c in chances.values()], device=scores.device).log()
    mine = scores[ids]
    return scores.index_copy(0, ids, torch.log_softmax(mine + weights, 0) + mine.logsumexp(0))
