"""How well standing rules do: recall, false alarms, delay, duplicates, and PAUC.

PAUC, the proactive area under the curve, is a metric of ProactiveVideoQA (Wang et al. 2025, arXiv 2507.09313): over the
time span of what should be told, the score, from 0 to 2, of what was told so far. Here its 0.5-weighted form is taken
to begin at a score of 0.5, which gives silence the 25.0 of 100 that is reported for it; a right event scores 2 from its
window on. The paper's own code joins scores by its own rules and judges text by a language model: figures of playground
rules are for comparison with the silence floor, not with its tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WEIGHT, BEST = 0.5, 2.0
SILENCE = 100 * WEIGHT / BEST


@dataclass(frozen=True, slots=True)
class RuleScore:
    """Counts of one rule or, added up, of several. `hours`: of media, times rules; `pauc_sum` is over happenings."""

    happenings: int = 0
    told: int = 0
    false_alarms: int = 0
    duplicates: int = 0
    delay_windows: int = 0
    pauc_sum: float = 0.0
    hours: float = 0.0

    def __add__(self, other: RuleScore) -> RuleScore:
        return RuleScore(*(getattr(self, n) + getattr(other, n) for n in self.__slots__))

    def to_json(self) -> dict[str, float | int | None]:
        """The figures; None where there is nothing to divide by."""
        def share(part: float, whole: float) -> float | None:
            return round(part / whole, 4) if whole else None

        return {"happenings": self.happenings, "recall": share(self.told, self.happenings),
                "false_alarms_per_hour": share(self.false_alarms, self.hours),
                "delay_windows": share(self.delay_windows, self.told),
                "duplicate_rate": share(self.duplicates, self.told + self.duplicates),
                "pauc": share(self.pauc_sum, self.happenings), "pauc_silence": SILENCE}


def happenings_of(truth: Sequence[bool | None]) -> list[tuple[int, int]]:
    """(first, last) window of each happening: windows in a row in which the rule holds. Windows in doubt (None) belong
    to the happening beside them, and make none of their own; one window between two is no end of the first."""
    spans: list[tuple[int, int]] = []
    for k, true in enumerate(truth):
        if true is False:
            continue
        if spans and k - spans[-1][1] <= 2:
            spans[-1] = (spans[-1][0], k)
        else:
            spans.append((k, k))
    return [(a, b) for a, b in spans if any(truth[k] for k in range(a, b + 1))]


def score_rule(truth: Sequence[bool | None], told: Sequence[int], *, window_s: float = 1.0, late: int = 1) -> RuleScore:
    """Score the windows in which a rule's events began against its truth, window by window.

    An event belongs to the happening in which it lies, or which ended at most `late` windows before; a second one is a
    duplicate. One that belongs to none is a false alarm, unless its window is in doubt.
    """
    spans = happenings_of(truth)
    first: dict[int, int] = {}
    alarms = duplicates = delay = 0
    area = 0.0
    for k in sorted(told):
        mine = next((i for i, (a, b) in enumerate(spans) if a <= k <= b + late), None)
        if mine is None:
            alarms += not (k < len(truth) and truth[k] is None)
        elif mine in first:
            duplicates += 1
        else:
            first[mine] = k
    for i, (a, b) in enumerate(spans):
        start = next(k for k in range(a, b + 1) if truth[k])
        length = b + late + 1 - start
        waited = min(length, max(0, first[i] - start)) if i in first else length
        delay += waited if i in first else 0
        area += 100 * (waited * WEIGHT + (length - waited) * BEST) / (length * BEST)
    return RuleScore(len(spans), len(first), alarms, duplicates, delay, area, len(truth) * window_s / 3600)
