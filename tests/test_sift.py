"""Which standing rules a window could concern."""

from __future__ import annotations

import pytest
from test_recall import SPEC, text, write

from anymodal.session.log import LogInfo
from anymodal.session.phrases import Phrases
from anymodal.session.sift import REACH, Sift
from anymodal.session.sqlite_log import SqliteLog

ROWS = [{"video": ("red circle",)}, {"video": ("blue ring",)}, {"video": ()}, {"video": ()}, {"video": ("green star",)}]


@pytest.fixture
def percepts(tmp_path):
    with SqliteLog.create(tmp_path / "s.log", LogInfo("s", "tiny", "x", 1.0, "bfloat16")) as log:
        write(log, ROWS)
        yield log, list(log.windows())


@pytest.mark.parametrize(("condition", "windows"), [
    ("the red circle stops", [0]), ("a disc disappears", [0]), ("a blue object appears", [1]), ("the ring bounces", [1]),
    ("the pink cross appears", []), ("the blue ring stops", [1]), ("the green star is at the top", [4])])
def test_a_rule_is_asked_where_what_it_names_is_or_was_a_moment_ago(percepts, condition, windows):
    log, seen = percepts
    sift = Sift(Phrases(SPEC, text), log)
    wanted = {k + late for k in windows for late in range(REACH)}
    assert {p.index for p in seen if sift.concerned(p, [condition])[0]} == wanted & set(range(len(seen)))


@pytest.mark.parametrize("condition", ["a person comes in", "there is no red circle", "another ring appears",
                                       "the bell isn't heard", "nothing but the ring is there"])
def test_a_rule_that_names_nothing_known_or_says_no_is_asked_at_every_window(percepts, condition):
    log, seen = percepts
    sift = Sift(Phrases(SPEC, text), log)
    assert all(sift.concerned(p, [condition])[0] for p in seen)
    assert all(Sift(Phrases(None, text), log).concerned(p, ["the red circle stops"])[0] for p in seen)


def test_it_follows_from_the_log_alone(percepts):
    log, seen = percepts
    conditions = ["the red circle stops", "the ring bounces"]
    sift = Sift(Phrases(SPEC, text), log)
    assert [sift.concerned(p, conditions) for p in seen] == \
        [Sift(Phrases(SPEC, text), log).concerned(p, conditions) for p in seen], "one that was opened at this window"
