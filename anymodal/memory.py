"""What the mind keeps of a stream: a list of input embeddings within a token budget. No torch, no cache, no clock.

    [system | long-term | recent windows]

Windows are appended whole; one that repeats the newest in every stream (the change gate saw nothing) only lengthens its
entry. When the list is full, a compaction merges old neighbours into long-term entries, each laid out like a window that
begins where its stretch of time does. The list with the merged entries is in effect some windows later, so that it can
be prepared beside the one in use; which window that is follows from the windows alone. So does everything here: the same
windows give the same list, live or from the log.

Neighbours are merged by least cost, n_a n_b / (n_a + n_b) x (1 - cosine of their tokens), with n the windows they
cover (Ward 1963, doi:10.1080/01621459.1963.10500845). A merged token is the mean of the windows' tokens at its place.
Shapes: N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from anymodal.config import MemorySpec
from anymodal.errors import ConfigError
from anymodal.language.tokenizer import clock, times_in
from anymodal.session.values import BFLOAT16, from_bfloat16, rounded, to_bfloat16
from anymodal.stages.items import Percept
from anymodal.types import Evidence, Tokens


@dataclass(frozen=True, slots=True)
class Part:
    """One stream's tokens in an entry: embeds (N, D), and of how many windows; `familiarity` is summed over these.

    `positions` (N, 3), `takes` and `extras` (L, N, D) as in `types.Tokens`. An entry takes the positions of one window,
    whatever it covers: a list is then as short in positions as in tokens.
    """

    stream: str
    modality: str
    embeds: np.ndarray
    windows: int
    familiarity: float
    positions: np.ndarray | None = None
    takes: tuple[int, int, int] = (0, 0, 0)
    extras: np.ndarray | None = None

    @classmethod
    def of(cls, tokens: Tokens) -> Part:
        """Of one window."""
        return cls(tokens.stream, tokens.modality, tokens.embeds, 1, tokens.familiarity, tokens.positions, tokens.takes,
                   tokens.extras)

    def shows(self, tokens: Tokens) -> bool:
        """The same stream's same tokens?"""
        return tokens.stream == self.stream and np.array_equal(tokens.embeds, self.embeds) and all(
            (a is None) == (b is None) and (a is None or np.array_equal(a, b))
            for a, b in ((tokens.positions, self.positions), (tokens.extras, self.extras)))


@dataclass(frozen=True, slots=True)
class Span:
    """An entry of the list: windows `first` to `last`, both included, over media time [t0_s, t1_s).

    repeats: (frames, dropped) of each window that repeats the first one.
    """

    first: int
    last: int
    t0_s: float
    t1_s: float
    parts: tuple[Part, ...]
    frames: int = 0
    dropped: int = 0
    repeats: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, percept: Percept) -> Span:
        """One window."""
        parts = tuple(map(Part.of, percept.tokens))
        return cls(percept.index, percept.index, percept.t0_s, percept.t1_s, parts, percept.frames, percept.dropped)

    @property
    def windows(self) -> int:
        return self.last - self.first + 1

    @property
    def whole(self) -> bool:
        """Are its tokens those of each of its windows, not means?"""
        return self.windows == 1 + len(self.repeats)

    def shows(self, percept: Percept) -> bool:
        """Does the next window repeat this entry, in every stream?"""
        return (self.whole and bool(percept.tokens) and len(percept.tokens) == len(self.parts)
                and all(t.stream in percept.repeats and p.shows(t) for t, p in zip(percept.tokens, self.parts)))

    def longer(self, percept: Percept) -> Span:
        """With one more window, which repeats it."""
        parts = tuple(replace(p, windows=p.windows + 1, familiarity=p.familiarity + t.familiarity)
                      for p, t in zip(self.parts, percept.tokens))
        return Span(self.first, percept.index, self.t0_s, percept.t1_s, parts, self.frames + percept.frames,
                    self.dropped + percept.dropped, (*self.repeats, (percept.frames, percept.dropped)))

    def until(self, windows: int) -> Span:
        """As it was with so many windows; at least one."""
        gone, t1_s = self.repeats[windows - 1 :], self.t0_s + (self.t1_s - self.t0_s) * windows / self.windows
        parts = tuple(replace(p, windows=windows, familiarity=p.familiarity * windows / p.windows) for p in self.parts)
        return Span(self.first, self.first + windows - 1, self.t0_s, t1_s, parts, self.frames - sum(f for f, _ in gone),
                    self.dropped - sum(d for _, d in gone), self.repeats[: windows - 1])

    @property
    def soft_tokens(self) -> int:
        return sum(len(p.embeds) for p in self.parts)


@dataclass(frozen=True, slots=True)
class Compaction:
    """The long-term entries made after window `window`: they cover all windows up to `after_window`; later ones stay
    whole. The list that begins with them is in effect from window `effective_from` on. An entry of the session's log.
    """

    kind: ClassVar[str] = "compaction"
    window: int
    after_window: int
    effective_from: int
    entries: tuple[Span, ...]
    budget_tokens: int = 0  # of the memory; 0: not known

    @property
    def key(self) -> str:
        return str(self.after_window)

    def check(self, spec: MemorySpec) -> None:
        """Raise ConfigError for a memory that has no room for what this one's had."""
        if spec.budget_tokens < self.budget_tokens:
            raise ConfigError(f"memory.budget_tokens is {spec.budget_tokens}, the log's memory has {self.budget_tokens}",
                              fix=f"set memory.budget_tokens to {self.budget_tokens}")

    def to_row(self) -> dict[str, Any]:
        """Plain values, and the embeddings and extras in an array of bytes each: they are bfloat16 already."""
        parts = [p for e in self.entries for p in e.parts]
        width = parts[0].embeds.shape[1] if parts else 0
        values = np.concatenate([p.embeds for p in parts]) if parts else np.zeros((0, 0), np.float32)
        places = [p.positions for p in parts if p.positions is not None]
        extras = [p.extras.reshape(-1, width) for p in parts if p.extras is not None]
        rows = {"positions": np.concatenate(places)} if places else {}
        if extras:
            rows["extras"] = to_bfloat16(np.concatenate(extras)).view(np.uint8)
        return {"window": self.window, "after_window": self.after_window, "effective_from": self.effective_from,
                "budget_tokens": self.budget_tokens, "width": width, "values": to_bfloat16(values).view(np.uint8), **rows,
                "entries": [[e.first, e.last, e.t0_s, e.t1_s, e.frames, e.dropped,
                             [[p.stream, p.modality, len(p.embeds), p.windows, p.familiarity,
                               None if p.positions is None else p.takes, 0 if p.extras is None else len(p.extras)]
                              for p in e.parts]] for e in self.entries]}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Compaction:
        width, places = row["width"] or 1, row.get("positions")
        values, extras = (from_bfloat16(np.ascontiguousarray(found).view(np.uint16)).reshape(-1, width)
                          for found in (row["values"], row.get("extras", np.zeros(0, np.uint8))))
        entries, at, place, extra = [], 0, 0, 0
        for first, last, t0_s, t1_s, frames, dropped, found in row["entries"]:
            parts = []
            for stream, modality, count, windows, familiarity, *rows in found:  # none before version 2 of logs
                takes, layers = rows or (None, 0)
                own = None if takes is None else places[place : place + count]
                more = extras[extra : extra + layers * count].reshape(layers, count, width) if layers else None
                parts.append(Part(stream, modality, values[at : at + count], windows, familiarity, own,
                                  (0, 0, 0) if takes is None else tuple(takes), more))
                at, place, extra = at + count, place + (0 if own is None else count), extra + layers * count
            entries.append(Span(first, last, t0_s, t1_s, tuple(parts), frames, dropped))
        return cls(row["window"], row["after_window"], row["effective_from"], tuple(entries),
                   row.get("budget_tokens", 0))


@dataclass
class Memory:
    """The list in use, `entries`; while a compaction is being prepared also the list that will follow, `upcoming`.

    text_tokens: how many tokens of text an entry has beside its soft ones. `system_tokens` come before all entries.
    order: modalities as a prompt has them.
    """

    spec: MemorySpec
    text_tokens: Callable[[Span], int]
    order: Sequence[str] = ()
    system_tokens: int = 1
    beside: bool = False  # soft tokens reach the model beside its text, and take no room there
    entries: list[Span] = field(default_factory=list, init=False)
    upcoming: list[Span] | None = field(default=None, init=False)
    pending: Compaction | None = field(default=None, init=False)
    in_effect_s: float = field(default=0.0, init=False)  # the end of the window that the list came into effect with
    _settled: int = field(default=-1, init=False)  # no compaction before this window
    _merged: int = field(default=-1, init=False)  # the last window of the entries that a compaction made
    _tokens: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._tokens = self.system_tokens

    @property
    def tokens(self) -> int:
        """Of the list in use."""
        return self._tokens

    @property
    def upcoming_tokens(self) -> int:
        return self.system_tokens + sum(map(self.size, self.upcoming or ()))

    @property
    def last_window(self) -> int:
        return self.entries[-1].last if self.entries else -1

    def restore(self, compaction: Compaction) -> None:
        """Begin as of a compaction; the windows after its `after_window` are to be appended.

        Raises ConfigError for one that was made with a larger budget; the list is as it was.
        """
        compaction.check(self.spec)
        self.entries, self._settled = list(compaction.entries), compaction.effective_from
        self._tokens = self.system_tokens + sum(map(self.size, self.entries))
        self._merged = compaction.after_window

    def size(self, entry: Span) -> int:
        """Tokens of an entry with its text."""
        return self.text_tokens(entry) + (0 if self.beside else entry.soft_tokens)

    def append(self, percept: Percept) -> Compaction | None:
        """Add the next window; returns the compaction that it brought about, if any, which is then `pending`.

        Raises ConfigError for a window with more tokens than the budget allows, ValueError for one out of order;
        the list is as it was.
        """
        if self.entries and percept.index != self.last_window + 1:
            raise ValueError(f"window {percept.index} cannot follow window {self.last_window}")
        entry = Span.of(percept)
        size = self.size(entry)
        if size > self.spec.window_tokens:
            raise ConfigError(f"window {percept.index} has {size} tokens, the memory takes {self.spec.window_tokens} "
                              f"of its {self.spec.budget_tokens}", fix="raise memory.budget_tokens")
        if _add(self.entries, entry, percept, self._merged, size):
            self._tokens += size
        if self.upcoming is not None:
            _add(self.upcoming, entry, percept, self.pending.after_window, size)
        if self.pending is not None and percept.index >= self.pending.effective_from:
            self._take_effect(percept)
        elif percept.index == self._settled:
            self.in_effect_s = percept.t1_s
        full = self._tokens > self.spec.compact_at * self.spec.budget_tokens
        if full and self.pending is None and percept.index >= self._settled:
            return self._compact(percept)
        return None

    def _take_effect(self, percept: Percept) -> None:
        self._merged = self.pending.after_window
        self.entries, self.upcoming, self.pending = self.upcoming, None, None
        self._tokens = self.system_tokens + sum(map(self.size, self.entries))
        self.in_effect_s = percept.t1_s

    def _compact(self, percept: Percept) -> Compaction:
        whole, kept = len(self.entries), 0
        while whole > 1 and kept + self.size(self.entries[whole - 1]) <= self.spec.keep_recent * self.spec.budget_tokens:
            whole -= 1
            kept += self.size(self.entries[whole])
        room = self.spec.compact_to * self.spec.budget_tokens - self.system_tokens - kept
        merged = tuple(map(_round, merge(self.entries[:whole], room, self.size, self.order)))
        made = Compaction(percept.index, merged[-1].last, percept.index + self.spec.slices, merged,
                          self.spec.budget_tokens)
        self.pending, self.upcoming = made, [*merged, *self.entries[whole:]]
        return made


def _add(entries: list[Span], entry: Span, percept: Percept, merged: int, size: int) -> bool:
    """Add a window to a list; False: it repeats the newest entry, which covers it now. Entries that a compaction made,
    up to window `merged`, stay as they were logged. Windows that take no tokens (`size`) are one entry, however many."""
    if entries and entries[-1].first > merged and entries[-1].shows(percept):
        entries[-1] = entries[-1].longer(percept)
        return False
    if not size and entries and entries[-1].first > merged and not entries[-1].soft_tokens:
        entries[-1] = _join(entries[-1], entry, ())
        return False
    entries.append(entry)
    return True


# --- merging ---------------------------------------------------------------------------------------------------------

def merge(entries: Sequence[Span], room: float, size: Callable[[Span], int], order: Sequence[str] = ()) -> list[Span]:
    """Merge the cheapest neighbours, oldest first among equals, until the entries fit `room` tokens or one is left."""
    found = list(entries)
    costs = [_cost(a, b) for a, b in zip(found, found[1:])]
    total = sum(map(size, found))
    while total > room and costs:
        at = int(np.argmin(costs))
        one = _join(found[at], found[at + 1], order)
        total += size(one) - size(found[at]) - size(found[at + 1])
        found[at : at + 2] = [one]
        del costs[at]
        if at:
            costs[at - 1] = _cost(found[at - 1], one)
        if at < len(costs):
            costs[at] = _cost(one, found[at + 1])
    return found


def similarity(a: Span, b: Span) -> float:
    """The mean cosine of corresponding tokens; a token that has none counts 0. Two entries without tokens: 1."""
    theirs = {p.stream: p for p in b.parts}
    total = 0.0
    for part in a.parts:
        if part.stream in theirs:
            n = min(len(part.embeds), len(theirs[part.stream].embeds))
            x, y = part.embeds[:n].astype(np.float64), theirs[part.stream].embeds[:n].astype(np.float64)
            norms = np.sqrt((x * x).sum(1) * (y * y).sum(1))
            total += float(((x * y).sum(1) / np.maximum(norms, 1e-12)).sum())
    count = max(a.soft_tokens, b.soft_tokens)
    return total / count if count else 1.0


def _cost(a: Span, b: Span) -> float:
    return a.windows * b.windows / (a.windows + b.windows) * (1 - similarity(a, b))


def _join(a: Span, b: Span, order: Sequence[str]) -> Span:
    theirs = {p.stream: p for p in b.parts}
    parts = [_mean(p, theirs.pop(p.stream)) if p.stream in theirs else p for p in a.parts]
    parts += theirs.values()
    rank = {modality: i for i, modality in enumerate(order)}
    parts.sort(key=lambda p: rank.get(p.modality, len(rank)))
    return Span(a.first, b.last, a.t0_s, b.t1_s, tuple(parts), a.frames + b.frames, a.dropped + b.dropped)


def _mean(a: Part, b: Part) -> Part:
    """Corresponding tokens weighted by their windows; where one part has more tokens, those stay as they are.

    Positions are those that both have, or else those of the one with more tokens.
    """
    windows = a.windows + b.windows
    longer, n = (a if len(a.embeds) >= len(b.embeds) else b), min(len(a.embeds), len(b.embeds))

    def mean(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        values[..., :n, :] = (a.windows * x[..., :n, :] + b.windows * y[..., :n, :]) / np.float32(windows)
        return values

    extras = longer.extras
    if a.extras is not None and b.extras is not None and len(a.extras) == len(b.extras):
        extras = mean(extras, a.extras, b.extras)
    return replace(longer, stream=a.stream, modality=a.modality, embeds=mean(longer.embeds, a.embeds, b.embeds),
                   windows=windows, familiarity=a.familiarity + b.familiarity, extras=extras)


def _round(entry: Span) -> Span:
    """With the values that a log gives back."""
    parts = tuple(replace(p, embeds=rounded(p.embeds, BFLOAT16),
                          extras=None if p.extras is None else rounded(p.extras, BFLOAT16)) for p in entry.parts)
    return Span(entry.first, entry.last, entry.t0_s, entry.t1_s, parts, entry.frames, entry.dropped)


def named(question: str, entries: Sequence[Span], most: int, window_s: float) -> list[Span]:
    """At most `most` windows whose time a question names and that stand whole in the list, each as an entry of its own."""
    found = (whole_at(entries, t_s, window_s) for t_s in times_in(question) if most)
    return [entry for entry in found if entry is not None][:most]


def whole_at(entries: Sequence[Span], t_s: float, window_s: float) -> Span | None:
    """The window at a time, as an entry of its own, if it stands whole in the list."""
    k = int(t_s / window_s + 1e-6)
    for entry in reversed(entries):
        if entry.first <= k <= entry.last and entry.whole:
            return replace(entry, first=k, last=k, t0_s=k * window_s, t1_s=(k + 1) * window_s, repeats=())
    return None


def since(entries: Sequence[Span], first: int, window_s: float) -> tuple[list[Span], float]:
    """The windows from number `first` on, as far back as they stand whole, on a clock that begins with the earliest; and
    when that is."""
    found: list[Span] = []
    for k in range(entries[-1].last if entries else -1, max(0, first) - 1, -1):
        if (entry := whole_at(entries, k * window_s, window_s)) is None:
            break
        found.append(entry)
    found.reverse()
    return reclocked(found, window_s), found[0].t0_s if found else 0.0


def reclocked(windows: Sequence[Span], window_s: float) -> list[Span]:
    """The same windows, behind one another on a clock of their own."""
    return [replace(e, first=k, last=k, t0_s=k * window_s, t1_s=(k + 1) * window_s) for k, e in enumerate(windows)]


def widened(evidence: Sequence[Evidence], seen: Sequence[Span], window_s: float,
            recalled: Sequence[Percept] = ()) -> tuple[Evidence, ...]:
    """Spans that end with a merged entry end where its stretch of time does; a recalled window is what it is. Nothing
    relies on what was not seen: what the model writes beyond is cut off.
    """
    whole = {clock(p.t0_s) for p in recalled}
    ends = {label: e.t1_s for e in seen if e.windows > 1 and (label := clock(e.t0_s)) not in whole}
    last_s = seen[-1].t1_s if seen else 0.0
    return tuple(replace(e, end_s=min(last_s, max(e.end_s, ends.get(clock(e.end_s - window_s), 0.0))))
                 for e in evidence if e.start_s < last_s)
