"""Windows in, tokens out, in batches that may mix sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymodal.stages.items import Percept
from anymodal.types import Window

if TYPE_CHECKING:
    from anymodal.perception import Perception

BATCH = 4  # windows; on a CPU larger ones are no faster


class Perceive:
    """Encodes and pools windows, always `batch` rows at a time.

    A short batch is filled up with silence: with one shape for all, a window's tokens are the same to the last bit
    whatever shares its batch.
    """

    def __init__(self, perception: Perception, *, batch: int = BATCH) -> None:
        self.perception, self.batch = perception, batch
        self._held: list[tuple[str, Window]] = []

    def push(self, item: tuple[str, Window]) -> list[Percept]:
        """Take (session, window); gives nothing until a batch is full, then its Percepts in order."""
        self._held.append(item)
        return self.close() if len(self._held) == self.batch else []

    def close(self) -> list[Percept]:
        """The Percepts of what is held."""
        held, self._held = self._held, []
        return self.encode(held)

    def encode(self, items: Sequence[tuple[str, Window]]) -> list[Percept]:
        """At most a few batches of (session, window) at once -> their Percepts in order."""
        if not items:
            return []
        tokens = self.perception.encode_many(items, rows=self.batch)
        return [Percept.of(session, window, found) for (session, window), found in zip(items, tokens)]
