"""A follow-up is asked as the question that it means, and a session answers it."""

from __future__ import annotations

import pytest

from anymodal.config import load_spec
from anymodal.session.follow_up import FollowUps
from anymodal.session.log import Turn
from anymodal.types import Evidence


def turn(question: str, text: str, start_s: float = 5.0, end_s: float = 6.0) -> Turn:
    return Turn(0, 8.0, question, text, 0.9, (Evidence(start_s, end_s, "video"),), "")


@pytest.fixture(scope="module")
def follow_ups():
    spec = load_spec("tiny")[0]
    return FollowUps(spec.search, spec.point)


STAR, BELL = turn("Where was the red star at first?", "top left"), turn("When did you hear a bell?", "at 5 s")


@pytest.mark.parametrize(("before", "asked", "meant"), [
    ([STAR], "and its size?", "what is the size of the red star?"),
    ([STAR], "Where is it now?", "where is the red star now?"),
    ([STAR], "Is it large?", "is the red star large?"),
    ([STAR], "And the blue one?", "where was the blue star at first?"),
    ([STAR], "What about the green circle?", "where was the green circle at first?"),
    ([STAR], "And after that?", "what was happening at 6 s?"),
    ([turn("what did you hear?", "a bell", 71, 72)], "what happened next?", "what was happening at 1:12?"),
    ([STAR], "and before that?", "what was happening at 4 s?"),
    ([BELL], "and a rising chirp?", "when did you hear a rising chirp?"),
    ([BELL], "and its pitch?", "what is the pitch of the bell?"),
    ([turn("is the star red?", "yes")], "what colour is it?", "what colour is the star?"),
    ([turn("is the star red?", "yes")], "and the circle?", "is the circle red?"),
    ([turn("is the circle large?", "no")], "where is it?", "where is the circle?"),
    ([turn("was the bell high or low?", "high")], "and the beep?", "was the beep high or low?"),
    ([STAR], "and is it still there?", "and is the red star still there?"),
    ([turn("What shape is the red object?", "circle")], "where is it now?", "where is the red circle now?"),
    ([turn("which shape is nearest now?", "star"), turn("where is it now?", "top")], "and its size?",
     "what is the size of the star?"),
])
def test_a_follow_up_means_a_whole_question(follow_ups, before, asked, meant):
    assert follow_ups.meant(asked, before, 1.0, 80.0) == meant


@pytest.mark.parametrize("question", [
    "What colour is the cross?", "The blue cross, is it small?", "When?", "How many shapes?", "Is it raining?",
    "What time is it?"])
def test_a_whole_question_is_left_as_it_is(follow_ups, question):
    assert follow_ups.meant(question, [STAR], 1.0, 80.0) == question
    assert follow_ups.meant("and its size?", [], 1.0, 80.0) == "and its size?", "nothing was asked before"
    assert FollowUps(None).meant("and its size?", [STAR], 1.0, 80.0) == "and its size?"


def test_there_is_nothing_before_the_first_second_or_after_the_last(follow_ups):
    whole = turn("what is there?", "red star", 0.0, 8.0)
    for question in ("and after that?", "and before that?"):
        assert follow_ups.meant(question, [whole], 1.0, 8.0) == question
    assert follow_ups.meant("and after that?", [whole], 1.0, 9.0) == "what was happening at 8 s?"


@pytest.mark.parametrize(("question", "whole"), [
    ("When did you hear a rising chirp?", True), ("How many objects are there?", True), ("And is the star red?", True),
    ("Did you hear anything?", True), ("What colour is it?", False), ("When?", False), ("And when was that?", False)])
def test_what_needs_no_earlier_question(follow_ups, question, whole):
    assert follow_ups.whole(question) is whole and not FollowUps(None).whole(question)
