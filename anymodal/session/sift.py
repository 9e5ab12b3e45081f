"""Which standing rules a window could concern: those that name something the joint space finds in it, or just before.

A hundred rules cost the language model ten times a window; what they are about is on show in few windows. So a rule is
put to the model only where a phrase that it names is not all but excluded in the newest windows. What names nothing known
("a person comes in"), or says "no" or "other", is put to it at every window. All of it follows from the log alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from anymodal.session.log import SessionLog
from anymodal.session.phrases import Phrases
from anymodal.stages.items import Percept

REACH = 2  # windows: what has gone may be what a rule waits for
UNLIKELY = 0.1  # below, a phrase is excluded; on playground streams 92 % (sounds) to 100 % of what rules wait for is above
_NEGATED = re.compile(r"\b(?:no|not|none|nothing|nobody|never|neither|without|until|gone|absent|missing|other|another|else|"
                      r"except|all|every|only)\b|n't\b", re.IGNORECASE)


class Sift:
    """Calls must not overlap."""

    def __init__(self, phrases: Phrases, log: SessionLog) -> None:
        self._phrases, self._log = phrases, log
        self._likely: dict[int, frozenset[tuple[str, int]]] = {}  # window -> phrases not excluded in it

    def concerned(self, percept: Percept, conditions: Sequence[str]) -> list[bool]:
        """Whether each condition could begin or go on to hold in a window that is in the log."""
        if self._phrases.spec is None:
            return [True] * len(conditions)
        first = max(self._log.first_window(), percept.index - REACH + 1)
        shown = frozenset().union(*(self._shown(k) for k in range(first, percept.index + 1)))
        self._likely = {k: v for k, v in self._likely.items() if k >= first}
        return [not (named := self._named(text)) or not named.isdisjoint(shown) for text in conditions]

    def _named(self, text: str) -> frozenset[tuple[str, int]]:
        """The phrases without which a condition does not hold."""
        if _NEGATED.search(text):
            return frozenset()
        return frozenset((m, i) for m, numbers in self._phrases.named(text).items() for i in numbers)

    def _shown(self, window: int) -> frozenset[tuple[str, int]]:
        if window not in self._likely:
            found: set[tuple[str, int]] = set()
            for modality in self._phrases.texts:
                if (joint := self._log.joint(modality, window, window)) is not None:
                    likely = (self._phrases.chances(modality, joint.vectors) >= UNLIKELY).any(0)
                    found |= {(modality, int(i)) for i in likely.nonzero()[0]}
            self._likely[window] = frozenset(found)
        return self._likely[window]
