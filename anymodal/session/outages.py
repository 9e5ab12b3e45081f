"""Why nothing came: what is known of sources that were away, for the gaps that they leave in a session."""

from __future__ import annotations

import math
from collections import OrderedDict

MOST = 256  # the newest are kept


class Outages:
    """Any thread may note while another asks."""

    def __init__(self) -> None:
        self._noted: OrderedDict[tuple[str, float], tuple[float, str]] = OrderedDict()

    def note(self, source: str, reason: str, start_s: float, end_s: float = math.inf) -> None:
        """Nothing comes of a source in [start_s, end_s) of media time, until it is noted otherwise with the same start."""
        self._noted[source, start_s] = end_s, reason
        while len(self._noted) > MOST:
            self._noted.popitem(last=False)

    def why(self, t0_s: float, t1_s: float) -> str:
        """The reasons in a span, such as "front: connection refused; yard: it ended"; "" where none is known."""
        found = {f"{source}: {reason}" for (source, start_s), (end_s, reason) in list(self._noted.items())
                 if start_s < t1_s and end_s > t0_s}
        return "; ".join(sorted(found))
