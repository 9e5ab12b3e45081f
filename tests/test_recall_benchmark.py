"""The questions of `benchmarks/recall.py` are about one thing each, of the age they are counted under."""

import random

import numpy as np
import pytest

from anymodal.bundle import load_bundle
from anymodal.language.past import NEWEST
from anymodal.playground.streams import LongStream
from anymodal.session.local import new_session
from anymodal.stages.perceive import Perceive
from benchmarks import recall

STREAM = LongStream("val", 5, 80, static=True, chapter_s=8, act_s=4)


@pytest.fixture(autouse=True)
def seconds_for_minutes(monkeypatch):
    monkeypatch.setattr(recall, "RECENT_S", 8.0)
    monkeypatch.setattr(recall, "OLD_S", 16.0)


def shown_in(chapter):
    return {f"{color} {shape}" for thing in STREAM.chapter(chapter).things for color, shape in thing.names()}


def test_what_is_asked_about_was_shown_once_and_when_it_is_said_to_have_been():
    ages = set()
    for minute in range(3, STREAM.chapters + 1):
        for age, questions in recall.asked_at(STREAM, minute, random.Random(minute)).items():
            for question in questions:
                (chapter,) = [n for n in range(minute) if any(name in question.question for name in shown_in(n))]
                ended_s = chapter * 8 + question.evidence[0].end_s
                assert ended_s > 8 * (minute - 1) if age == "recent" else 8 * minute - 48 <= ended_s <= 8 * minute - 16
                ages.add(age)
    assert ages == {"recent", "old"}


def test_both_memories_are_asked_the_same(agent):
    found = recall.scores(agent.bundle, STREAM)
    asked = {who: {(age, kind): len(v) for (w, age, kind), v in found.items() if w == who} for who in ("ours", "last4")}
    assert asked["ours"] == asked["last4"] and {age for age, _ in asked["ours"]} == {"recent", "old"}


def test_kinds_weigh_alike_and_ratios_are_of_what_they_say():
    found = {("ours", "recent", "size"): [1.0] * 9 + [0.0], ("ours", "recent", "motion"): [0.5],
             ("ours", "old", "size"): [0.35], ("last4", "recent", "size"): [0.7], ("last4", "old", "size"): [0.0]}
    old, recent, backward = recall.rows(found)
    assert (recent.ours, recent.baseline) == (pytest.approx(70), pytest.approx(70)) and recent.verdict == "ok"
    assert old.ratio == pytest.approx(0.5) and old.verdict == "below" and np.isinf(backward.ratio)


def test_what_left_the_memory_is_asked_of_the_windows_that_show_it():
    tiny = load_bundle("tiny")
    stream = LongStream("val", 9, 192, chapter_s=16, act_s=8)
    stage = Perceive(tiny.perception, gate=True)
    with new_session(tiny, None) as session:
        recall.feed(session, [p for w in stream.windows(tiny.spec) for p in stage.push(("s", w))] + stage.close())
        shown = [{name for thing in stream.chapter(n).things for name in thing.names()} for n in range(stream.chapters)]
        once = [t for n in range(5) for t in stream.chapter(n).things
                if not t.recolor and not any((t.color, t.shape) in names for k, names in enumerate(shown) if k != n)]
        right, asked = 0, 0
        for thing in once:
            *deltas, answer = session.stream(f"What size is the {thing.color} {thing.shape}?")
            if answer.windows_seen > tiny.spec.memory.past_windows + NEWEST:
                continue  # it was taken for something that is there now
            asked, right = asked + 1, right + (answer.text == thing.size)
            assert len(deltas) == 1 and deltas[0].text == answer.text and 0 < answer.ttft_s < 60
            assert all(e.end_s <= session.end_s for e in answer.evidence)
            assert session.ask(f"What size is the {thing.color} {thing.shape}?").text == answer.text
        assert asked >= 4 and right >= 0.7 * asked
        there = session.ask("what could you see at 0:03?")
        assert there.windows == (1, 2, 3, 4, 5, 190, 191) and there.to_json()["windows"] == list(there.windows)
        assert (there.windows_seen, there.last_window) == (7, 191)
        now = session.ask("what can you see?")
        assert now.windows == () and "windows" not in now.to_json() and now.windows_seen == 192
        early = session.ask(f"What size is the {once[0].color} {once[0].shape}?", at_s=16.0)
        assert early.windows_seen == 16, "it was in memory then"
