"""Which of a client's numbers are safe: what they brought is in the log, or was done, so that not even the end of this
process makes it necessary to send them again."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from actors.gateway.inputs import Piece

MOST_PENDING = 4096  # numbers that are not yet safe; older ones count as if they were


class Safety:
    """`safe`: up to which number nothing has to be sent again; `sound_s`: where input_audio_buffer goes on behind it;
    `done`: the newest number of an event other than media that was done."""

    def __init__(self) -> None:
        self.safe = self.done = 0
        self.sound_s = 0.0
        self._pending: OrderedDict[int, float] = OrderedDict()  # number -> media time at which it is safe
        self._sound_at: deque[tuple[int, float]] = deque()  # number -> where input_audio_buffer goes on behind it

    def note(self, number: int, pieces: Iterable[Piece], *, is_media: bool, sound_s: float) -> None:
        """An event was taken. Media are safe once the windows that hold them are out, others once they are done."""
        pieces = tuple(pieces)
        self._pending[number] = max((p.end_s for p in pieces), default=0.0) if is_media else float("inf")
        if any(piece.sound for piece in pieces):
            self._sound_at.append((number, sound_s))
        if len(self._pending) > MOST_PENDING:
            self._pending.popitem(last=False)

    def refused(self, number: int) -> None:
        """It brought nothing that could be used."""
        self._pending.pop(number, None)

    def finished(self, number: int) -> None:
        """An event other than media was done."""
        self.done = max(self.done, number)
        self._pending.pop(number, None)

    def told_until(self, end_s: float, newest: int) -> None:
        """Windows up to a time are out; `newest`: the number of the client's last event."""
        while self._pending:
            number, safe_s = next(iter(self._pending.items()))
            if safe_s > end_s + 1e-6:
                break
            self._pending.popitem(last=False)
        self.safe = next(iter(self._pending)) - 1 if self._pending else newest
        while self._sound_at and self._sound_at[0][0] <= self.safe:
            self.sound_s = self._sound_at.popleft()[1]
