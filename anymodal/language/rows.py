"""What enters a language model: embeddings, and for models that have them, rows of positions and extras.

With M-RoPE a token has three positions: in time, height and width. Text has the same in all three and counts on by one
from behind the largest there is. Soft tokens bring places relative to where they begin; what follows them with no text
between is of the same grid: it begins where they do, later in time by what they take. So a clip that comes window by
window has the positions that it has as a whole.

A second camera in a window has a grid of its own, behind the first one's, as a second video has in the published prompts;
its later windows lie on it in the same way.

    text  text | video 0 1 of a window | video 2 3 of the next | text
    0 0 0 1 1 1  2+(t, h, w) ...         2+(2+t, h, w) ...       behind the largest

Source: Wang et al. 2024, arXiv 2409.12191 (M-RoPE); Meng et al. 2024, arXiv 2406.04334 (deepstack).
Shapes: L tokens, W width, K layers.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from anymodal.language.attach import Medium
from anymodal.language.capability import AXES

NO_ID = -1_000_000  # of what is no text


class Soft(Protocol):
    """Soft tokens, as `types.Tokens` and `memory.Part` have them."""

    stream: str
    modality: str
    embeds: np.ndarray  # (L, W)
    positions: np.ndarray | None  # (L, 3)
    takes: tuple[int, int, int]
    extras: np.ndarray | None  # (K, L, W)


@dataclass(frozen=True, slots=True)
class Rows:
    """Input embeddings (L, W) with the place of each among all, (L, 3), and extras (K, L, W); None: as text has them.

    media: what comes beside the text, with the number of the first token that sees it: `anymodal.language.attach`.
    """

    embeds: Tensor
    positions: Tensor | None = None
    extras: Tensor | None = None
    media: tuple[tuple[int, Medium], ...] = ()

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, which: slice) -> Rows:
        start, stop, _ = which.indices(len(self))
        return Rows(self.embeds[which], None if self.positions is None else self.positions[which],
                    None if self.extras is None else self.extras[:, which],
                    tuple((at - start, medium) for at, medium in self.media if start <= at < stop))

    def split(self, size: int) -> Iterable[Rows]:
        """Pieces of at most `size` tokens."""
        return (self[at : at + size] for at in range(0, len(self), size))

    @classmethod
    def cat(cls, parts: Sequence[Rows | Tensor]) -> Rows:
        """One behind the other. Either all have positions or none has; where some have extras, those of the rest are 0."""
        rows = [p if isinstance(p, Rows) else cls(p) for p in parts]
        embeds = torch.cat([r.embeds for r in rows])
        layers = max((len(r.extras) for r in rows if r.extras is not None), default=0)
        extras = None
        if layers:
            extras = embeds.new_zeros(layers, *embeds.shape)
            at = 0
            for r in rows:
                if r.extras is not None:
                    extras[: len(r.extras), at : at + len(r)] = r.extras
                at += len(r)
        media, at = [], 0
        for r in rows:
            media += [(at + first, medium) for first, medium in r.media]
            at += len(r)
        placed = [r.positions for r in rows if r.positions is not None]
        if placed and len(placed) < len(rows):
            raise ValueError(f"{len(placed)} of {len(rows)} pieces have positions")
        return cls(embeds, torch.cat(placed) if placed else None, extras, tuple(media))


class Places:
    """Gives tokens their places as they come, in the order of a prompt. `free`: the first position behind all so far."""

    def __init__(self, free: int = 0, twins: Container[tuple[int, int]] = ()) -> None:
        """twins: pairs of ids of which the second, right behind the first, has the first one's place."""
        self.free, self._twins = free, twins
        self._end_grids()

    def _end_grids(self) -> None:
        self._elapsed = 0  # how far the windows since the last text are on in time
        self._grids: dict[str, tuple[int, int]] = {}  # by stream: where its grid begins, and what had elapsed then
        self._first: dict[str, str] = {}  # by modality: the stream whose grid is the common one

    def text(self, ids: Sequence[int]) -> np.ndarray:
        """Places (len(ids), 3) of text: 1-D, behind everything; a grid ends with it."""
        if len(ids):
            self._end_grids()
        at = self.free + np.arange(len(ids)) - twins_before(ids, self._twins)
        self.free = int(at[-1]) + 1 if len(ids) else self.free
        return np.repeat(at[:, None], AXES, 1)

    def window(self, parts: Iterable[Soft]) -> list[np.ndarray]:
        """Places (L, 3) of each of the soft parts of one window, which lie beside each other in time.

        A further stream of pictures lies on a grid of its own, behind all so far. A part without positions is laid out as
        text is, and ends grids as text does.
        """
        found, longest = [], 0
        for part in parts:
            if part.positions is None:
                found.append(self.text((NO_ID,) * len(part.embeds)))
                longest = 0
                continue
            begin, since = self._grid(part)
            moves = (self._elapsed - since) * (np.array(part.takes) > 0)
            places = part.positions.astype(np.int64) + (begin + moves)
            found.append(places)
            self.free = max(self.free, int(places.max(initial=-1)) + 1)
            longest = max(longest, part.takes[0])
        self._elapsed += longest
        return found

    def _grid(self, part: Soft) -> tuple[int, int]:
        """Where a stream's grid begins, and what had elapsed then. Sound counts on in height, too: it has no grid."""
        further = self._first.setdefault(part.modality, part.stream) != part.stream and not part.takes[1]
        if part.stream not in self._grids:
            common = next(iter(self._grids.values()), (self.free, 0))
            self._grids[part.stream] = (self.free, self._elapsed) if further else common
        return self._grids[part.stream]


def twins_before(ids: Sequence[int], twins: Container[tuple[int, int]]) -> np.ndarray:
    """How many of the ids up to each, itself included, are a twin of the one before them."""
    same = [False, *(pair in twins for pair in zip(ids, ids[1:]))] if twins else [False] * len(ids)
    return np.cumsum(same[: len(ids)], dtype=np.int64)


def lay(pieces: Iterable[Sequence[int] | Soft], places: Places) -> np.ndarray:
    """Places (L, 3) of an entry's pieces, ids of text or soft tokens; those with no text between lie beside each other."""
    found = []
    for soft, group in groupby(pieces, key=lambda piece: hasattr(piece, "embeds")):
        own = list(group)
        found += places.window(own) if soft else [places.text(ids) for ids in own]
    return np.concatenate(found) if found else np.zeros((0, AXES), np.int64)


def largest(positions: Tensor) -> Tensor:
    """Of tokens (L, 3): the first free position behind each, (L,)."""
    return positions.amax(-1).cummax(0).values + 1
