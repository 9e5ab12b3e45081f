"""Finding the past again: `session.search("red circle")`, and the windows that a question should look at again.

The bundle's YAML lists the phrases that its joint space was trained to tell apart, by modality. A window is indexed once,
when it enters: each of its joint vectors (one for each query of the adapter) is softly assigned to the phrases of its
modality, and what is likely is kept, a few numbers a window. A search looks up the phrases that have the words asked for,
so it takes no longer after hours than after minutes. The index is made of the log alone, and is made again with it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anymodal.errors import ConfigError, QuestionError
from anymodal.language.tokenizer import moment_in, times_in
from anymodal.session.log import SessionLog
from anymodal.session.phrases import Phrases

if TYPE_CHECKING:


    from anymodal.memory import Memory
    from anymodal.stages.items import Percept

AT_ONCE = 256  # windows read from the log at once
LEAST = 0.05  # probabilities below are not kept
NEAR = 2  # windows before and after a moment that are brought back with it, or that a window is read with
MOST_SHOWN = 100  # windows that show a thing, looked through for those that do not repeat one another
SURE = 0.6  # a span so much less likely than the likeliest may be a mistake, and so may
BRIEF_S = 3.0  # a shorter one, where others are longer
JOINED = 1  # windows between two hits that do not part them


@dataclass(frozen=True, slots=True)
class Hit:
    """A span of media time that shows what was searched for. `score` in [0, 1]: of its likeliest window."""

    start_s: float
    end_s: float
    modality: str
    stream: str
    score: float


@dataclass(frozen=True, slots=True)
class Said:
    """What the joint space finds in a window: the likeliest phrase of a stream."""

    modality: str
    stream: str
    text: str
    score: float


class Recall:
    """An index over a session's log, brought up to date when it is asked. Calls must not overlap."""

    def __init__(self, phrases: Phrases, log: SessionLog) -> None:
        self._spec, self._log, self._phrases = phrases.spec, log, phrases
        self._found: dict[tuple[str, str, int], tuple[array, array]] = {}  # -> windows, probabilities
        self._next = 0

    def search(self, query: str, *, least: float | None = None, first: int = 0, before: int | None = None) -> list[Hit]:
        """Spans in any modality, likeliest first. Only windows from `first` on, and with a smaller number than `before`.

        Raises QuestionError for a query with no word that the bundle can look for, ConfigError for a bundle without any.
        """
        if self._spec is None:
            raise ConfigError("this bundle has no `search`: it lists no phrases to look for", fix="see docs/streaming.md")
        chosen = self._phrases.named(query)
        if not chosen:
            raise QuestionError(f"no word of {query!r:.80} can be searched for",
                                fix=f"known words: {', '.join(sorted(self._phrases.known))}")
        self.update()
        hits: list[Hit] = []
        for modality, numbers in chosen.items():
            for stream in sorted({s for m, s, _ in self._found if m == modality}):
                scores = self._scores(modality, stream, numbers, first, before)
                hits += self._spans(scores, modality, stream, self._spec.at_least if least is None else least)
        return sorted(hits, key=lambda h: (-h.score, h.start_s))

    def lost(self, question: str, memory: Memory, most: int, *, last: int) -> list[Percept]:
        """At most `most` windows that a question names and that the memory no longer has whole, most wanted first; as of
        window `last`."""
        before = max((e.last for e in memory.entries if not e.whole), default=-1) + 1
        whole = {k for e in memory.entries if e.whole for k in range(e.first, e.last + 1)}  # also among merged ones
        repeats = whole - {e.first for e in memory.entries}  # on show, but under an earlier window's time
        if not before and not repeats:
            return []
        numbers = self.windows(question, before=before, most=most, known=whole, last=last, repeats=repeats)
        found = (percept for k in numbers for percept in self._log.windows(k, k))
        wanted = frozenset(numbers)
        return [p for p in found if p.index in repeats or not _is_there(p, wanted)]

    def past(self, question: str, memory: Memory, *, last: int) -> list[Percept]:
        """Windows, in order of time, that a question is about and that the memory no longer has whole, as of window `last`:
        those around the moment that it names, or those that show what it names. None for a question with other times."""
        before = max((e.last for e in memory.entries if not e.whole), default=-1) + 1
        if (moment := moment_in(question)) is not None:
            k = int(moment[0] / self._log.info.window_s + 1e-6)
            if not self._log.first_window() <= k < before:
                return []
            near = range(max(self._log.first_window(), k - NEAR), min(last, k + NEAR) + 1)
            return [p for n in near for p in self._log.windows(n, n) if p.tokens]
        return [] if times_in(question) or not before else self._shown(question, before, last)

    def beside(self, percepts: Sequence[Percept], *, last: int) -> list[Percept]:
        """The windows up to window `last` that are near these and not among them, in order of time; not many."""
        known, first = {p.index for p in percepts}, self._log.first_window()
        near = {n for k in known for n in range(max(first, k - NEAR), min(last, k + NEAR) + 1)} - known
        return [p for n in sorted(near)[:MOST_SHOWN] for p in self._log.windows(n, n)]

    def _shown(self, question: str, before: int, last: int) -> list[Percept]:
        """Windows that show what a question names; none if some do from window `before` on. Of a stream's spans, those much
        shorter than its longest, or less likely than its likeliest, count for nothing."""
        if self._spec is None or not self._phrases.named(question):
            return []
        hop_s, by_stream = self._log.info.window_s, {}
        for hit in self.search(question, before=last + 1):  # likeliest first
            by_stream.setdefault((hit.modality, hit.stream), []).append(hit)
        spans: list[tuple[int, int]] = []
        for hits in by_stream.values():
            likely = [h for h in hits if h.score >= SURE * hits[0].score]
            least_s = min(BRIEF_S, max(h.end_s - h.start_s for h in likely))
            spans += [(round(h.start_s / hop_s), round(h.end_s / hop_s)) for h in likely if h.end_s - h.start_s >= least_s]
        if not spans or any(end > before for _, end in spans):
            return []
        shown = dict.fromkeys([k for start, end in sorted(spans) for k in range(start, end)][:MOST_SHOWN])
        chosen: dict[int, Percept] = {}
        for k in (*shown, max(end for _, end in spans) - 1):
            chosen |= {p.index: p for p in self._log.windows(k, k) if p.tokens and not _is_there(p, chosen)}
        return [chosen[k] for k in sorted(chosen)]

    def windows(self, question: str, *, before: int, most: int, known: Container[int] = (), last: int = -1,
                repeats: Container[int] = ()) -> list[int]:
        """At most `most` windows with numbers below `before`, not among those `known`, that a question should look at
        again, most wanted first: those of a time it names, one that `repeats` another too, then those that show what it
        names, if none from `before` to `last` does: where each span of them begins and ends, then all of the likeliest."""
        hop_s = self._log.info.window_s
        first = self._log.first_window()
        wanted: list[int] = []
        named = [int(t_s / hop_s + 1e-6) for t_s in times_in(question)]
        for k in named:
            wanted += [k, k - 1, k + 1]
        searched = before and self._spec is not None and self._phrases.named(question)
        if searched and not self.search(question, first=before, before=last + 1):
            spans = [(round(h.start_s / hop_s), round(h.end_s / hop_s)) for h in self.search(question, before=before)]
            for start, end in spans:
                wanted += [*range(start, min(end, start + 2)), end - 1]
            for start, end in spans[:most]:
                wanted += range(start, min(end, start + most))
        found = [k for k in dict.fromkeys(wanted) if first <= k < before and k not in known]
        return [*(k for k in dict.fromkeys(named) if k in repeats and k <= last), *found][:most]

    def says(self, window: int) -> list[Said]:
        """What each stream of a window shows, one phrase for each list of them, where one is likely enough to be found."""
        if self._spec is None:
            return []
        self.update()
        best: dict[tuple[str, str, int], tuple[float, int]] = {}
        for (modality, stream, number), (windows, chances) in self._found.items():
            at = bisect_left(windows, window)
            likely = at < len(windows) and windows[at] == window and chances[at] >= self._spec.at_least
            if likely and self._phrases.words[modality][number]:
                key = modality, stream, int(self._phrases.of_token[modality][:, number].argmax())
                best[key] = max(best.get(key, (0.0, -1)), (chances[at], number))
        return [Said(m, s, self._phrases.texts[m][i], round(score, 4)) for (m, s, _), (score, i) in sorted(best.items())]

    def update(self, most: int | None = None) -> None:
        """Index what the log holds and was not indexed yet, at most so many windows of it."""
        last = self._log.last_window()
        self._next = max(self._next, self._log.first_window())
        if most is not None:
            last = min(last, self._next + most - 1)
        while self._next <= last:
            stop = min(last, self._next + AT_ONCE - 1)
            for modality in self._phrases.texts:
                found = self._log.joint(modality, self._next, stop)
                if found is not None:
                    self._index(modality, found.windows, found.streams, found.vectors)
            self._next = stop + 1

    def _index(self, modality: str, windows: Iterable[int], streams: Sequence[str], vectors: np.ndarray) -> None:
        """vectors (N, Q, E), or (N, E)."""
        for window, stream, row in zip(windows, streams, self._phrases.chances(modality, vectors), strict=True):
            for number in np.flatnonzero(row >= LEAST).tolist():
                kept = self._found.setdefault((modality, stream, number), (array("q"), array("f")))
                kept[0].append(int(window))
                kept[1].append(float(row[number]))

    def _scores(self, modality: str, stream: str, numbers: list[int], first: int,
                before: int | None) -> dict[int, float]:
        scores: dict[int, float] = {}
        for number in numbers:
            windows, chances = self._found.get((modality, stream, number), ((), ()))
            start, stop = bisect_left(windows, first), len(windows) if before is None else bisect_left(windows, before)
            for window, chance in zip(windows[start:stop], chances[start:stop], strict=True):
                scores[window] = min(1.0, scores.get(window, 0.0) + chance)
        return scores

    def _spans(self, scores: dict[int, float], modality: str, stream: str, least: float) -> list[Hit]:
        hop_s, first = self._log.info.window_s, self._log.first_window()
        spans: list[list[int]] = []
        for window in sorted(k for k, score in scores.items() if score >= least and k >= first):
            if spans and window - spans[-1][-1] <= JOINED + 1:
                spans[-1].append(window)
            else:
                spans.append([window])
        return [Hit(s[0] * hop_s, (s[-1] + 1) * hop_s, modality, stream, round(max(scores[k] for k in s), 4))
                for s in spans]


def _is_there(percept: Percept, numbers: Container[int]) -> bool:
    """Whether in every stream it repeats a window among `numbers`, so that it shows nothing more."""
    streams = {t.stream for t in percept.tokens}
    return bool(streams) and streams <= set(percept.repeats) and all(k in numbers for k in percept.repeats.values())
