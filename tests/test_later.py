"""Training clips as parts of a long stream, and the windows that questions are shown again."""

from __future__ import annotations

import random

import pytest

from anymodal.language.tokenizer import times_in
from anymodal.playground.facts import Question
from anymodal.training.later import delayed, draw_start
from anymodal.types import Evidence

AT_3 = (Evidence(3.0, 4.0, "video"),)


@pytest.mark.parametrize(("start", "question", "answer", "expected"), [
    (40, "What was there at 3 s?", "ring", ("What was there at 43 s?", "ring")),
    (60, "What was there at 3 s?", "ring", ("What was there at 1:03?", "ring")),
    (3600, "WHAT AT 3 S", "ring", ("WHAT AT 1:00:03", "ring")),
    (65, "When did it stop?", "at 3 s", ("When did it stop?", "at 1:08")),
    (65, "When did it stop?", "between 3 and 4 s", ("When did it stop?", "between 1:08 and 1:09")),
    (65, "How many rings?", "3", ("How many rings?", "3"))])
def test_a_question_moves_with_its_clip(start, question, answer, expected):
    dice = random.Random(0)  # whose first draw is no plain number of seconds
    moved = delayed(Question("event_when", question, answer, (), AT_3) if "When" in question else
                    Question("count", question, answer, (), AT_3), start, dice)
    assert (moved.question, moved.answer) == expected
    assert moved.evidence == (Evidence(start + 3.0, start + 4.0, "video"),)


def test_bare_numbers_are_times_only_where_a_time_is_asked_for():
    assert delayed(Question("drill_when", "when: the ring stops", "5"), 60, random.Random(0)).answer == "1:05"
    assert delayed(Question("count", "how many?", "5"), 60, random.Random(0)).answer == "5"


def test_some_ask_in_seconds_and_all_name_the_same_time():
    asked = {delayed(Question("at", "What was there at 3 s?", "ring"), 4000, random.Random(i)).question for i in range(40)}
    assert asked == {"What was there at 4003 s?", "What was there at 1:06:43?"}
    assert {t for text in asked for t in times_in(text)} == {4003.0}


def test_clips_begin_within_the_first_minute_hour_or_ten_hours():
    starts = [draw_start(random.Random(i), 24) for i in range(400)]
    assert min(starts) >= 1 and max(starts) < 36_000
    for low, high in ((1, 60), (60, 3600), (3600, 36_000)):
        assert sum(low <= s < high for s in starts) > 40
