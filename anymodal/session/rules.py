"""Standing rules of a session: "tell me when a bell rings".

All rules that a window could concern (`sift`) are judged together, each by its `now_question`. A rule's happening begins at
a window that is surely yes and ends at one that is surely no; what begins again in the window right after its end had not
ended. So one happening is one event.

All that a rule is lies in the log, as `RuleChange` and `RuleEvent` entries: a session that is opened again has the same
rules in the same state. Windows that repeat earlier ones in every stream are not judged again: nothing happens in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anymodal.errors import InputError, nearest
from anymodal.session.log import RuleChange, RuleEvent, SessionLog
from anymodal.session.rule_text import condition_of, now_question, same_rule
from anymodal.stages.items import Percept

if TYPE_CHECKING:
    from anymodal.language.mind import Mind, MindState

Concerned = Callable[[Percept, Sequence[str]], Sequence[bool]]
BEGINS, ENDS = 0.5, 0.3  # probability of yes at which a happening begins, and below which it ends
MOST_RULES = 1000
ADDED, PAUSED, RESUMED, REMOVED = "added", "paused", "resumed", "removed"


@dataclass(frozen=True, slots=True)
class Rule:
    """A standing rule. `since`: the window after which it holds; `happening`: whether what it waits for goes on."""

    name: str
    text: str
    since: int
    paused: bool = False
    happening: bool = False
    began_s: float = 0.0  # of the last happening,
    ended: int = -2  # and the window in which it ended

    @property
    def question(self) -> str:
        return now_question(self.text)


class Rules:
    """A session's rules. `lock()` is held by every call; `watch` is called under it. `check`: raises for a question that
    the mind cannot read. `concerned`: which of these conditions a window could concern; the others do not hold in it.
    """

    def __init__(self, log: SessionLog, *, lock: Callable[[], AbstractContextManager] = nullcontext,
                 check: Callable[[str], None] = lambda _: None, concerned: Concerned | None = None) -> None:
        self._log, self._lock, self._check = log, lock, check
        self._concerned = concerned or (lambda _, texts: [True] * len(texts))
        self._rules, self._count = _folded(log)

    def __len__(self) -> int:
        return len(self._rules)

    def list(self) -> tuple[Rule, ...]:
        """All rules, paused ones too, oldest first."""
        with self._lock():
            return tuple(self._rules.values())

    def add(self, text: str) -> Rule:
        """A new rule, judged from the next window on. Raises InputError for one that is empty or there already."""
        self._check(now_question(text))
        with self._lock():
            for rule in self._rules.values():
                if same_rule(rule.text, text):
                    fix = f"resume {rule.name!r}" if rule.paused else "word it differently, or leave it out"
                    raise InputError(f"{rule.name} waits for the same: {rule.text!r:.80}", fix=fix)
            if len(self._rules) >= MOST_RULES:
                raise InputError(f"a session has at most {MOST_RULES} rules", fix="remove one that is no longer needed")
            rule = Rule(f"rule-{self._count + 1}", text, self._log.last_window())
            self._log.append(RuleChange(rule.since, rule.name, ADDED, text))
            self._rules[rule.name] = rule
            self._count += 1
            return rule

    def pause(self, name: str) -> None:
        """Judge a rule no more until it is resumed; what was happening counts as over."""
        self._change(name, PAUSED, paused=True)

    def resume(self, name: str) -> None:
        self._change(name, RESUMED, paused=False)

    def remove(self, name: str) -> None:
        with self._lock():
            self._find(name)
            self._log.append(RuleChange(self._log.last_window(), name, REMOVED))
            del self._rules[name]

    def watch(self, mind: Mind, state: MindState, percept: Percept) -> list[RuleEvent]:
        """Judge the window that the state saw last; what has begun with it. Judging it again finds nothing new."""
        due = [r for r in self._rules.values() if not r.paused and r.since < percept.index and not _as_before(percept, r)]
        judged = self._judge(mind, state, percept, due)
        began = [(r, yes) for r, yes in zip(due, judged, strict=True) if not r.happening and yes >= BEGINS]
        for rule, yes in zip(due, judged, strict=True):
            if rule.happening and yes < ENDS:
                self._note(RuleEvent(percept.index, rule.name, percept.t0_s, False, 1 - yes))
        again = {r.name for r, _ in began if 0 <= r.ended >= percept.index - 1}  # it had not ended after all
        seen = mind.judge(state, [r.question for r, _ in began if r.name not in again], evidence=True)
        spans = iter(seen)
        events: list[RuleEvent] = []
        for rule, yes in began:
            goes_on = rule.name in again
            evidence = () if goes_on else next(spans).evidence
            t_s = rule.began_s if goes_on else percept.t0_s
            event = RuleEvent(percept.index, rule.name, t_s, True, yes, evidence)
            self._note(event)
            events += [] if goes_on else [event]
        return events

    def _judge(self, mind: Mind, state: MindState, percept: Percept, due: Sequence[Rule]) -> list[float]:
        """How likely each rule's condition holds in a window. The mind is asked about those that it could concern."""
        asked = self._concerned(percept, [condition_of(r.text) for r in due])
        judged = iter(mind.judge(state, [r.question for r, could in zip(due, asked, strict=True) if could]))
        return [next(judged).yes if could else 0.0 for could in asked]

    def _note(self, event: RuleEvent) -> None:
        self._log.append(event)
        self._rules[event.rule] = _after(self._rules[event.rule], event)

    def _change(self, name: str, action: str, *, paused: bool) -> None:
        with self._lock():
            rule = self._find(name)
            if rule.paused != paused:
                last = self._log.last_window()
                self._log.append(RuleChange(last, name, action))
                self._rules[name] = replace(rule, paused=paused, since=last, happening=False, ended=-2)

    def _find(self, name: str) -> Rule:
        if name not in self._rules:
            raise InputError(f"no rule {name!r}", fix=nearest(str(name), self._rules) if self._rules else "add one first")
        return self._rules[name]


def events(log: SessionLog, *, before_s: float | None = None) -> Iterator[RuleEvent]:
    """What rules have seen begin, each happening once, in order."""
    told: dict[str, float] = {}
    for event in log.entries(RuleEvent, before_s=before_s):
        if event.began and told.get(event.rule) != event.t_s:
            told[event.rule] = event.t_s
            yield event


def _folded(log: SessionLog) -> tuple[dict[str, Rule], int]:
    """The rules as the log's entries left them, and how many were ever added."""
    rules: dict[str, Rule] = {}
    count = 0
    for change in log.entries(RuleChange):
        if change.action == ADDED:
            count += 1
            rules[change.rule] = Rule(change.rule, change.text, change.window)
        elif change.action == REMOVED:
            rules.pop(change.rule, None)
        elif change.rule in rules:
            rules[change.rule] = replace(rules[change.rule], paused=change.action == PAUSED, since=change.window)
    for event in log.entries(RuleEvent):
        rule = rules.get(event.rule)
        if rule is not None and event.window > rule.since:
            rules[event.rule] = _after(rule, event)
    return rules, count


def _after(rule: Rule, event: RuleEvent) -> Rule:
    if event.began:
        return replace(rule, happening=True, began_s=event.t_s)
    return replace(rule, happening=False, ended=event.window)


def _as_before(percept: Percept, rule: Rule) -> bool:
    """Whether the window shows what one that the rule was judged at showed."""
    streams = {t.stream for t in percept.tokens}
    repeated = bool(streams) and streams <= set(percept.repeats)
    return repeated and min(percept.repeats.values()) > rule.since
