"""Training clips as parts of a long stream, and the windows that questions are shown again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from anymodal.config import load_spec
from anymodal.language.prompt import window_label
from anymodal.language.tokenizer import TextTokenizer, times_in
from anymodal.playground.facts import Question
from anymodal.training.later import delayed, draw_times
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
                    Question("count", question, answer, (), AT_3), range(start, start + 8), dice)
    assert (moved.question, moved.answer) == expected
    assert moved.evidence == (Evidence(start + 3.0, start + 4.0, "video"),)


def test_bare_numbers_are_times_only_where_a_time_is_asked_for():
    assert delayed(Question("drill_when", "when: the ring stops", "5"), range(60, 68), random.Random(0)).answer == "1:05"
    assert delayed(Question("count", "how many?", "5"), range(60, 68), random.Random(0)).answer == "5"


def test_some_ask_in_seconds_and_all_name_the_same_time():
    row = Question("at", "What was there at 3 s?", "ring")
    asked = {delayed(row, range(4000, 4008), random.Random(i)).question for i in range(40)}
    assert asked == {"What was there at 4003 s?", "What was there at 1:06:43?"}
    assert {t for text in asked for t in times_in(text)} == {4003.0}


def test_times_of_windows_with_gaps_are_those_of_their_own():
    times = [5, 9, 10, 30]
    row = Question("event_when", "What was there at 1 s?", "between 1 and 3 s", (), (Evidence(0.0, 2.0, "video"),))
    moved = delayed(row, times, random.Random(0))
    assert (moved.question, moved.answer) == ("What was there at 9 s?", "between 9 and 11 s")
    assert moved.evidence == (Evidence(5.0, 10.0, "video"),)
    whole = replace(row, answer="at 4 s", evidence=(Evidence(3.0, 4.0, "video"),))  # the clip's end
    assert delayed(whole, times, random.Random(0)).answer == "at 31 s"
    assert delayed(whole, times, random.Random(0)).evidence == (Evidence(30.0, 31.0, "video"),)


@pytest.mark.parametrize("length", [1, 8, 24])
def test_clips_are_within_the_first_minute_hour_or_ten_hours(length):
    tokenizer = TextTokenizer(load_spec("tiny")[1].parent / "tiny" / "tokenizer.json")
    drawn = [draw_times(random.Random(i), length, 3) for i in range(300)]
    for times in drawn:
        assert all(at == sorted(set(at)) and len(at) == length for at in times)
        assert len({len(window_label(tokenizer, float(t_s))) for at in times for t_s in at}) == 1, "labels of one length"
    starts = [times[0][0] for times in drawn]
    assert max(at[-1] for times in drawn for at in times) < 36_000
    for low, high in ((0, 60), (60, 3600), (3600, 36_000)):
        assert sum(low <= s < high for s in starts) > 40
    if length > 1:
        assert 60 < sum(times[0][-1] - times[0][0] >= length for times in drawn) < 240, "some with gaps, some without"
