"""Standing rules: one happening is one event, their state is the log's, and how they are scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.errors import InputError
from anymodal.session.log import LogInfo, RuleEvent
from anymodal.session.rules import Rules, events
from anymodal.session.sqlite_log import SqliteLog
from anymodal.stages.items import Percept
from anymodal.training.rule_scoring import SILENCE, RuleScore, happenings_of, score_rule
from anymodal.types import Evidence, Tokens


@dataclass
class Judged:
    yes: float
    evidence: tuple[Evidence, ...] = ()


class ScriptedMind:
    """Answers each question with what its script says for the window at hand."""

    def __init__(self, script: dict[str, list[float]]) -> None:
        self.script, self.window, self.asked = script, 0, []

    def judge(self, state, prompts, *, evidence=False):
        self.asked += [(self.window, p) for p in prompts]
        found = [self.script[p][self.window] for p in prompts]
        return [Judged(p, (Evidence(self.window, self.window + 1.0, "audio"),) if evidence else ()) for p in found]


def percept(k: int, repeats: int | None = None) -> Percept:
    tokens = Tokens("s", "audio", k, "audio", float(k), k + 1.0, np.zeros((1, 4), np.float32))
    return Percept("s", k, float(k), k + 1.0, (tokens,), repeats={} if repeats is None else {"audio": repeats})


@pytest.fixture
def log(tmp_path):
    with SqliteLog.create(tmp_path / "s.log", LogInfo("s", "tiny", "x", 1.0, "float32")) as made:
        yield made


def watch(log, mind, rules, windows) -> list[RuleEvent]:
    found = []
    for k in windows:
        mind.window = k
        log.append_window(percept(k))
        found += rules.watch(mind, None, percept(k))
    return found


BELL = "Now: a bell rings?"


def test_one_happening_is_one_event(log):
    rules = Rules(log)
    rules.add("Tell me when a bell rings.")
    mind = ScriptedMind({BELL: [.1, .9, .8, .4, .7, .1, .9, .1, .1, .2, .6, .1]})
    found = watch(log, mind, rules, range(12))
    assert [e.t_s for e in found] == [1.0, 10.0]  # .4 is no end; .1 for one window is none either
    assert found[0].confidence == .9 and found[0].evidence == (Evidence(1.0, 2.0, "audio"),)
    assert list(events(log)) == found
    assert [e.t_s for e in events(log, before_s=5.0)] == [1.0]


def test_rules_change_while_running(log):
    rules = Rules(log)
    bell = rules.add("tell me when a bell rings")
    mind = ScriptedMind({BELL: [.9] * 12, "Now: a beep is heard?": [.9] * 12})
    assert [e.rule for e in watch(log, mind, rules, [0, 1])] == [bell.name]
    beep = rules.add("alert me when a beep is heard")
    rules.pause(bell.name)
    assert [(e.rule, e.t_s) for e in watch(log, mind, rules, [2, 3])] == [(beep.name, 2.0)]
    rules.resume(bell.name)
    assert [(e.rule, e.t_s) for e in watch(log, mind, rules, [4, 5])] == [(bell.name, 4.0)]
    rules.remove(beep.name)
    assert [r.name for r in rules.list()] == [bell.name]
    mind.asked.clear()
    watch(log, mind, rules, [6])
    assert mind.asked == [(6, BELL)]
    assert rules.add("a beep is heard").name not in (bell.name, beep.name)


@pytest.mark.parametrize("text", [
    "", "tell me when", "when", "tell me", "alert me, please", "Let me know if a bell rings!", "A BELL RINGS",
    "tell me when the bell rings"])
def test_an_empty_rule_or_a_second_one_is_refused(log, text):
    rules = Rules(log)
    rules.add("Tell me when a bell rings")
    with pytest.raises(InputError):
        rules.add(text)
    assert len(rules.list()) == len(Rules(log).list()) == 1


def test_an_unknown_rule_is_named(log):
    with pytest.raises(InputError, match="rule-9"):
        Rules(log).pause("rule-9")


def test_windows_that_show_nothing_new_are_not_judged(log):
    rules = Rules(log)
    mind = ScriptedMind({BELL: [.1] * 9})
    watch(log, mind, rules, [0])
    rules.add("a bell rings")
    for k, repeats in ((1, 0), (2, None), (3, 2), (4, 2), (5, None)):
        mind.window = k
        log.append_window(percept(k))
        rules.watch(mind, None, percept(k, repeats))
    assert [k for k, _ in mind.asked] == [1, 2, 5]  # window 0 was not judged for it, so 1 is


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([.05, .4, .95]), min_size=4, max_size=14), st.integers(1, 13), st.booleans())
def test_a_session_that_is_opened_again_goes_on_as_if_it_had_not_ended(tmp_path_factory, chances, cut, again):
    """Also if the last window was judged before and is judged once more."""
    found = []
    for stop in (None, min(cut, len(chances) - 1)):
        path = tmp_path_factory.mktemp("log") / "s.log"
        mind = ScriptedMind({BELL: chances})
        with SqliteLog.create(path, LogInfo("s", "tiny", "x", 1.0, "float32")) as log:
            rules = Rules(log)
            rules.add("a bell rings")
            watch(log, mind, rules, range(len(chances) if stop is None else stop))
            whole = rules.list()
            found.append(list(events(log)))
        if stop is not None:
            with SqliteLog.open(path) as log:
                rules = Rules(log)
                assert rules.list() == whole
                watch(log, mind, rules, range(stop - again, len(chances)))
                found[-1] = list(events(log))
    assert found[0] == found[1]


# --- scoring ---------------------------------------------------------------------------------------------------------

F, T, N = False, True, None


@pytest.mark.parametrize(("truth", "told", "expected"), [
    ([F, T, T, F, F, F], [1], (1, 1, 0, 0, 0)),
    ([F, T, T, F, F, F], [3], (1, 1, 0, 0, 2)),
    ([F, T, T, F, F, F], [], (1, 0, 0, 0, 0)),
    ([F, T, T, F, F, F], [1, 2], (1, 1, 0, 1, 0)),
    ([F, T, T, F, F, F], [0, 5], (1, 0, 2, 0, 0)),
    ([F, N, F, F, F, T], [1, 5], (1, 1, 0, 0, 0)),
    ([T, F, F, F, T], [0, 4], (2, 2, 0, 0, 0)),
])
def test_scores(truth, told, expected):
    score = score_rule(truth, told)
    assert (score.happenings, score.told, score.false_alarms, score.duplicates, score.delay_windows) == expected


def test_pauc_lies_between_silence_and_at_once():
    truth = [F, T, T, T, F, F]
    values = [score_rule(truth, [k]).to_json()["pauc"] for k in (1, 2, 3, 4)]
    assert values[0] == 100 and values == sorted(values, reverse=True) and values[-1] > SILENCE
    assert score_rule(truth, []).to_json()["pauc"] == SILENCE == 25.0


def test_scores_add_up():
    both = score_rule([T, F, F] * 1200, [0]) + score_rule([F] * 3600, [7])
    assert both.hours == 2 and both.false_alarms == 1
    assert both.to_json()["false_alarms_per_hour"] == 0.5
    assert RuleScore().to_json()["recall"] is None


def test_doubt_makes_no_happening():
    assert happenings_of([N, N, F, F, F, N, T, N, F, F, T]) == [(5, 7), (10, 10)]
    assert happenings_of([N, N, F]) == []
