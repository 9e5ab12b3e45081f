"""What standing rules ask, and the playground's questions about the latest window."""

import random

import numpy as np
import pytest

from anymodal.errors import InputError
from anymodal.playground.rule_questions import Condition, asked, conditions, eventful, excerpt, judge, rule_questions
from anymodal.playground.world import DeviceMotion, Event, Scene, Sound, Thing, make_scene
from anymodal.session.rule_text import condition_of, now_question, same_rule


@pytest.mark.parametrize("rule", [
    "Tell me when a bell rings", "tell me when a bell rings.", "Please let me know if a bell rings!",
    "When a bell rings, tell me",
    "Notify me as soon as a bell rings, please.", "a bell rings",
    "Could you alert me whenever a bell rings?", "if a bell rings",
    "Hey, can you tell me every time a bell rings?"])
def test_every_way_to_ask_waits_for_the_same(rule):
    assert now_question(rule) == "Now: a bell rings?"
    assert same_rule(rule, "A bell rings")


def test_a_condition_keeps_its_own_words():
    assert condition_of("Tell me when the watch stops and the light is on") == "the watch stops and the light is on"
    assert condition_of("the alert sounds when it should not") == "the alert sounds when it should not"


@pytest.mark.parametrize("rule", ["", "  ", "tell me when", "Tell me when .", "?!", 7, "x" * 400])
def test_a_rule_that_waits_for_nothing_is_refused(rule):
    with pytest.raises(InputError):
        now_question(rule)


def scene_of(**changes) -> Scene:
    circle = Thing("red", "circle", "small", 0.1, -1e-6, 9.0, [0.0, 4.5], [0.2, 0.5], [0.5, 0.5], direction="right",
                   events=[Event("stops", 4.5)])
    made = {"duration_s": 8.0, "aspect": 1.0, "things": [circle], "sounds": [Sound("bell", "low", 2.3, 3.4, 0.5)],
            "motions": [DeviceMotion("shaking", 5.2, 6.05)], "background": "plain", "look": 3}
    return Scene(**{**made, **changes})


@pytest.mark.parametrize(("condition", "truth"), [
    (Condition("sound", "bell"), {1: False, 2: True, 3: True, 4: False}),
    (Condition("sound", "beep"), {2: False}),
    (Condition("sound", "bell", pitch="high"), {2: False}),
    (Condition("event", "stops", "red", "circle"), {3: False, 4: True, 5: False}),
    (Condition("event", "stops", "blue", "circle"), {4: False}),
    (Condition("event", "stops"), {4: True}),
    (Condition("device", "shaking"), {4: False, 5: True, 6: None, 7: False}),
    (Condition("moving", "right", "red", "circle"), {1: True, 4: None, 6: False}),
    (Condition("visible", "", "red", "circle"), {0: True, 7: True}),
    (Condition("place", "middle", "red", "circle"), {6: True, 0: False}),
])
def test_truth_is_of_one_window(condition, truth):
    assert {k: judge(scene_of(), condition, float(k), k + 1.0) for k in truth} == truth


def test_questions_are_balanced_and_about_the_last_window():
    rng = random.Random(1)
    rows = []
    for i in range(150):
        scene = eventful(make_scene("val", 5, i, seconds=12), rng, 4)
        assert scene.duration_s == 4
        rows += rule_questions(scene, rng)
    yes = np.mean([q.answer == "yes" for q in rows])
    assert 0.42 < yes < 0.58
    assert all(q.evidence[0].start_s == 3 and q.evidence[0].end_s == 4 for q in rows)
    assert all(q.question.startswith("Now: ") and q.type == "rule_now" for q in rows)
    assert len({q.question for q in rows}) > 0.7 * len(rows)


def test_a_condition_is_said_in_many_ways_and_read_back():
    rng = random.Random(0)
    for condition in {c for i in range(20) for c in conditions(make_scene("val", 1, i, seconds=8), rng)}:
        said = {condition.text(rng) for _ in range(30)}
        assert len(said) >= 4, condition
        assert all("{" not in text and "  " not in text for text in said)
        assert now_question(asked(condition, rng)).startswith("Now: ")


def test_an_excerpt_looks_and_happens_like_the_original():
    for i in range(10):
        scene = make_scene("val", 2, i, seconds=10)
        part = excerpt(scene, 3.0, 8.0)
        rng = random.Random(i)
        for condition in conditions(scene, rng):
            if all(t.recolor is None for t in scene.things):
                for k in range(5):
                    there, here = judge(scene, condition, k + 3.0, k + 4.0), judge(part, condition, float(k), k + 1.0)
                    assert here == there or None in (here, there), (condition, k)
        for thing in part.things:
            t = np.linspace(0, 4.9, 20)
            old = next(x for x in scene.things if x.shape == thing.shape and {thing.color} <= {c for c, _ in x.names()})
            np.testing.assert_allclose(thing.at(t), old.at(t + 3.0), atol=1e-6)
            assert (thing.visible(t) == old.visible(t + 3.0)).all()
