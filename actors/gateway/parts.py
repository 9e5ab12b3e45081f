"""What is known of the parts that do the work: whether they do, and whether one has died."""

from __future__ import annotations

import logging
import time

from actors.gateway.metrics import Metrics

LOOK_EVERY_S = 2.0
SLOW_S = 10.0  # parts that have not said anything for so long are not ready

log = logging.getLogger("anymodal")


class Parts:
    """What is known of a host's parts. A part whose process is another one than before has died and come back."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.fault = "starting"
        self.looked_s = time.monotonic()  # when they were last seen to work
        self.since_s: float | None = None  # when they were first seen not to

    def works(self, metrics: Metrics, pids: dict[str, int]) -> None:
        now_s = time.monotonic()
        changed = [role for role, pid in pids.items() if self.pids.get(role, pid) != pid]
        for role in changed:
            metrics.kills.labels(role).inc()
            metrics.recoveries.labels(role).inc()
        if changed:
            metrics.recovery_time.observe(now_s - (self.since_s or self.looked_s))
            log.warning("came back after a death: %s", ", ".join(changed))
        self.pids, self.fault, self.looked_s, self.since_s = pids, "", now_s, None

    def fails(self, error: Exception) -> None:
        self.fault = str(error)
        self.since_s = self.since_s or time.monotonic()

    def ready(self) -> str:
        """What keeps them from working, or ""."""
        silent_s = time.monotonic() - self.looked_s
        return self.fault or (f"no word of the parts for {silent_s:.0f} s" if silent_s > SLOW_S + LOOK_EVERY_S else "")
