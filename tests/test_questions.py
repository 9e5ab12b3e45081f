"""What the playground asks: the same questions for the same seeds, in every scene."""

from __future__ import annotations

import hashlib
import json
import random

from anymodal.playground.questions import KINDS, facts, make_questions
from anymodal.playground.truth import question_to_json
from anymodal.playground.world import DEVICE_MOTIONS, DeviceMotion, make_scene

DRAWN = "46ac07f0466a0084bc21de06165a0ba1aea27bd7105eadf5e6d8c24c78a0ae88"  # change it only if you mean to ask others
SENSES = (("video", "audio", "imu"), ("video",), ("audio", "imu"))


def test_seeds_draw_the_questions_they_always_drew():
    drawn = hashlib.sha256()
    for i in range(50):
        questions = make_questions(make_scene("train", 7, i), random.Random(i), held_out=i % 2 == 1,
                                   count=None if i % 5 else 12, present=SENSES[i % 3])
        for question in questions:
            drawn.update(json.dumps(question_to_json(question)).encode())
    assert drawn.hexdigest() == DRAWN


def test_a_device_that_did_everything_leaves_nothing_to_deny():
    scene = make_scene("train", 7, 0, seconds=12)
    scene.motions = [DeviceMotion(kind, 2.0 * i, 2.0 * i + 1) for i, kind in enumerate(DEVICE_MOTIONS)]
    found = facts(scene, random.Random(0))
    assert found.keys() <= set(KINDS)
    assert not any(fact.kind == "device_when" for fact in found["unanswerable"])
