"""What the playground asks: the same questions for the same seeds, in every scene."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from anymodal.playground.questions import KINDS, facts, make_questions
from anymodal.playground.truth import question_to_json
from anymodal.playground.world import DEVICE_MOTIONS, SOUNDS, DeviceMotion, Sound, make_scene

DRAWN = "c7ed6299596e202f25bfdf10c7f1eb3e03ab03055a27138dffa98860218b520c"  # change it only if you mean to ask others
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


def test_a_clip_in_which_everything_sounds_leaves_no_sound_to_ask_for():
    scene = make_scene("train", 7, 0, seconds=60)
    scene.sounds = [Sound(kind, "low", 8.0 * i, 8.0 * i + 0.5, 0.5) for i, kind in enumerate(SOUNDS)]
    found = facts(scene, random.Random(0))
    assert not any(fact.kind in ("sound_when", "pitch") for fact in found["unanswerable"])


@pytest.mark.parametrize("seconds", [1, 60, 300, 3600])
def test_clips_of_every_length_have_questions(seconds):
    for i in range(8 if seconds < 3600 else 2):
        scene = make_scene("test", 1, i, seconds=seconds)
        for question in make_questions(scene, random.Random(i)):
            assert all(0 <= e.start_s < e.end_s <= seconds for e in question.evidence)


def test_other_wordings_are_others_once_each_and_in_good_english():
    for i in range(150):
        found = facts(make_scene("train", 7, i), random.Random(i), ("video", "audio", "imu", "depth", "thermal"))
        for every in found.values():
            for fact in every:
                assert len(set(fact.accept) | {fact.answer}) == len(fact.accept) + 1 <= 5, fact
                assert not any(w.startswith("a ") and w.endswith("clicks") or w == "there are 1" for w in fact.accept)
