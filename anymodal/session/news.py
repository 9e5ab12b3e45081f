"""What a session has seen, window by window, for those who look on: short rows instead of tokens.

The newest windows are kept as they were told, with what was dropped of each stream and the rule events that began with
them; of older ones the log tells what it stores.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anymodal.session.log import RuleEvent, SessionLog
from anymodal.session.recall import Said
from anymodal.stages.items import VIDEO, Percept
from anymodal.types import Window

KEPT = 64  # newest windows
AT_ONCE = 64  # windows told by one call


@dataclass(frozen=True, slots=True)
class Seen:
    """A window that is in the log. `streams`: those it has something of; `dropped`: late or shed packets by stream; `gap`:
    why it has nothing; `began`: the rule events of it; `tokens`: how many the mind reads, by modality; `says`: what the
    joint space finds in it; `repeats`: what a gate skipped, stream -> the earlier window that it is as."""

    window: int
    start_s: float
    end_s: float
    streams: tuple[str, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    gap: str = ""
    began: tuple[RuleEvent, ...] = ()
    tokens: Mapping[str, int] = field(default_factory=dict)
    says: tuple[Said, ...] = ()
    repeats: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, percept: Percept, window: Window | None = None, gap: str = "",
           began: Sequence[RuleEvent] = ()) -> Seen:
        """`window`: the percept's, while it is at hand; the log keeps only the frames dropped of all its videos."""
        dropped = {VIDEO: percept.dropped} if window is None and percept.dropped else {}
        if window is not None:
            dropped = {stream: count for stream, count in window.dropped.items() if count}
        tokens: Counter[str] = Counter()
        for each in percept.tokens:
            tokens[each.modality] += len(each.embeds)
        return cls(percept.index, percept.t0_s, percept.t1_s, tuple(t.stream for t in percept.tokens), dropped,
                   gap or percept.gap, tuple(began), dict(tokens), repeats=dict(percept.repeats))


class News:
    """The newest windows of a session. Calls of `put` and `since` must not overlap."""

    def __init__(self) -> None:
        self._newest: deque[Seen] = deque(maxlen=KEPT)
        self.last = -1

    def put(self, seen: Seen) -> None:
        self._newest.append(seen)
        self.last = seen.window

    def since(self, log: SessionLog, after: int) -> list[Seen]:
        """The windows after number `after`, oldest first, at most AT_ONCE."""
        first = max(after + 1, log.first_window())
        last = min(log.last_window(), first + AT_ONCE - 1)
        told = {seen.window: seen for seen in self._newest if first <= seen.window <= last}
        if len(told) <= last - first:  # some are only in the log
            told = {percept.index: Seen.of(percept) for percept in log.windows(first, last)} | told
        return [told[window] for window in sorted(told)]


def token_counts(log: SessionLog) -> dict[str, int]:
    """How many tokens of each modality a log's windows have."""
    counts: Counter[str] = Counter()
    for percept in log.windows(log.first_window()):
        for each in percept.tokens:
            counts[each.modality] += len(each.embeds)
    return dict(counts)
