"""What a live session tells by itself: windows as they are seen, and what rules see in them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.gateway.faults import as_answer
from anymodal import protocol as p
from anymodal.errors import RuntimeFault, SessionError
from anymodal.session.feeder import SHED
from anymodal.session.news import Seen

if TYPE_CHECKING:
    from actors.gateway.live import Live

NEWS_WAIT_S, RETRY_S = 1.0, 0.25


class Telling:
    """`told`: the last window that was told; `rules`: name -> text, and the time of the last event told. For the event
    loop."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.told = -1
        self.rules: dict[str, tuple[str, float]] = {}

    async def watch(self) -> None:
        """Until the session is closed."""
        live = self._live
        while True:
            try:
                session = await live.session()
                seen = await live.gateway.waits.run(partial(session.seen, self.told, wait_s=NEWS_WAIT_S))
            except SessionError:  # closed
                return
            except Exception as error:
                if isinstance(error, RuntimeFault) and error.passing:  # a part was restarted
                    await asyncio.sleep(RETRY_S)
                    continue
                live.fail(as_answer(error))
                await asyncio.sleep(NEWS_WAIT_S)
                continue
            for window in seen:
                self.window(window)
            if not seen:
                await asyncio.sleep(0)

    def window(self, seen: Seen) -> None:
        live = self._live
        dropped = Counter(seen.dropped)
        if seen.gap == SHED:
            live.gateway.metrics.drops.labels("stale").inc(dropped.total())
        dropped.update(live.inbox.shed)
        live.inbox.shed.clear()
        says = tuple(p.Hit(start_s=seen.start_s, end_s=seen.end_s, **asdict(said)) for said in seen.says)
        self.told = seen.window
        live.inputs.out_s = live.end_s
        live.outbox.put(p.WindowSeen, index=seen.window, start_s=seen.start_s, end_s=seen.end_s, streams=seen.streams,
                        dropped=dict(dropped), gap=seen.gap, says=says)
        for event in seen.began:
            self.rule(event)
        live.gateway.metrics.windows.inc()
        live.traces.window(seen, dropped)
        live.save()
        live.look_again()

    def rule(self, event: Any) -> None:
        """What a rule saw begin, once."""
        text, told_s = self.rules.get(event.rule, ("", -1.0))
        if event.t_s <= told_s:
            return
        self.rules[event.rule] = (text, event.t_s)
        evidence = tuple(p.Span(**asdict(span)) for span in event.evidence)
        self._live.outbox.put(p.RuleEvent, rule=event.rule, text=text, t_s=event.t_s, confidence=event.confidence,
                              evidence=evidence)

    def all_rules(self, rules: Any) -> None:
        """As they are."""
        self.rules = {rule.name: (rule.text, self.rules.get(rule.name, ("", -1.0))[1]) for rule in rules}
        self._live.outbox.put(p.Rules, rules=tuple(
            p.Rule(name=r.name, text=r.text, paused=r.paused, active=r.happening) for r in rules))
