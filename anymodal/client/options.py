"""Every time and size that a client goes by. Times in seconds, sizes in bytes."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

from anymodal.errors import InputError

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Options:
    """Checked on construction: raises InputError."""

    connect_timeout_s: float = 10.0
    """Until a connection stands, its first word included."""
    request_timeout_s: float = 60.0
    """Without a byte, of a request over HTTP."""
    answer_timeout_s: float = 120.0
    """Until the next piece of an answer, or until a command is answered."""
    close_timeout_s: float = 5.0
    """For what is still to be sent when a session is left."""
    ping_s: float = 15.0
    """Between pings; a server that does not answer one for as long is lost."""
    reconnect_s: float = 120.0
    """A lost connection is tried again for so long."""
    backoff_first_s: float = 0.2
    backoff_most_s: float = 10.0
    retries: int = 3
    """Of a request over HTTP that met a busy server or no server."""
    buffer_bytes: int = 64 * MIB
    """What waits to be sent, and what was sent and is not safe yet. Past it the oldest media are dropped, and counted."""
    message_bytes: int = 8 * MIB
    """Of one message; larger frames are refused before they are sent."""
    most_events: int = 10_000
    """That wait for `async for event in session`; past it the oldest are dropped, and counted."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= (each.name == "most_events"):
                raise InputError(f"{each.name} must be a number, not negative, found {value!r}", fix=f"set {each.name}")


class Backoff:
    """Waits that double, each drawn from the upper half of its range, so that clients do not come back all at once."""

    def __init__(self, first_s: float, most_s: float, rng: random.Random | None = None) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._rng = rng or random.Random()
        self._times = 0

    def next_s(self) -> float:
        whole_s = min(self._most_s, self._first_s * 2 ** min(self._times, 30))
        self._times += 1
        return whole_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._times = 0
