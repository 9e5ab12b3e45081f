"""Windows in, tokens out, in batches that may mix sessions; with a gate, what has not changed is not encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anymodal.stages.gate import Gate, Gated
from anymodal.stages.items import Percept
from anymodal.types import Tokens, Window

if TYPE_CHECKING:
    from anymodal.perception import Perception

BATCH = 4  # windows; on a CPU larger ones are no faster
LIVE_BATCH = 2  # of live streams, whose windows mostly come alone: the rest of a batch is then computed for nothing


@dataclass(slots=True)
class Skipped:
    """What a gate has seen and what it let pass: windows of single streams, and frames with the closing ones."""

    streams: int = 0
    streams_skipped: int = 0
    frames: int = 0
    frames_skipped: int = 0


class Perceive:
    """Encodes and pools windows, always `batch` rows at a time.

    A short batch is filled up with silence: with one shape for all, and on one thread, a window's tokens are the same to
    the last bit whatever shares its batch. With a `gate`, streams that repeat an earlier window get its tokens, unchanged
    frames of a window are encoded once, and `skipped` counts both; windows are then encoded one by one, since few are left.
    """

    def __init__(self, perception: Perception, *, batch: int = BATCH, gate: bool = False) -> None:
        self.perception, self.batch = perception, batch
        self.gate = Gate(perception.spec.gate) if gate else None
        self.skipped = Skipped()
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
        if self.gate is not None:
            return self._encode_changed(items, self.gate)
        tokens = self.perception.encode_many(items, rows=self.batch)
        return [Percept.of(session, window, found) for (session, window), found in zip(items, tokens)]

    def begins(self, index: int) -> int:
        """The window to go on from, so that window `index` comes out as from an unbroken stream."""
        return index if self.gate is None else self.gate.begins(index)

    def forget(self, session: str) -> None:
        """A session ended: what the gate remembers of it is let go."""
        if self.gate is not None:
            self.gate.forget(session)

    def _encode_changed(self, items: Sequence[tuple[str, Window]], gate: Gate) -> list[Percept]:
        known = self.perception.spec.prompt.order
        gated = [gate.push(session, replace(w, signals={n: s for n, s in w.signals.items() if s.modality in known}))
                 for session, w in items]
        try:
            fresh = self.perception.encode_many([(s, g.window) for (s, _), g in zip(items, gated)], rows=1, once=True)
        except BaseException:
            for session, _ in items:
                gate.forget(session)  # later windows must not repeat tokens that were never made
            raise
        for tokens, found in zip(fresh, gated, strict=True):
            for made in tokens:
                found.encoded[made.stream].tokens = made
        for (_, window), found in zip(items, gated):
            self._count(window, found)
        return [self._percept(session, window, found) for (session, window), found in zip(items, gated, strict=True)]

    def _percept(self, session: str, window: Window, gated: Gated) -> Percept:
        order = self.perception.spec.prompt.order
        streams = [(order.index(s.modality), place, name) for place, (name, s) in enumerate(window.signals.items())
                   if s.modality in order]
        tokens: list[Tokens] = []
        for _, _, name in sorted(streams):
            found = gated.encoded[name].tokens
            assert found is not None  # its window was encoded in this batch or an earlier one
            tokens.append(replace(found, window=window.index, t0_s=window.t0_s, t1_s=window.t1_s))
        return replace(Percept.of(session, window, tokens), repeats=dict(gated.repeats))

    def _count(self, window: Window, gated: Gated) -> None:
        self.skipped.streams += len(gated.encoded)
        self.skipped.streams_skipped += len(gated.repeats)
        for name, signal in window.signals.items():
            if signal.is_picture and name in gated.encoded:
                count = len(signal.data) + (signal.closing is not None)
                self.skipped.frames += count
                left = gated.window.signals.get(name)
                kept = 0 if left is None else len({f.tobytes() for f in left.data} | (
                    set() if left.closing is None else {left.closing.tobytes()}))
                self.skipped.frames_skipped += count - kept
