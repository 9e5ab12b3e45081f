"""Depth and heat of the playground: what the cameras show, what is asked about it, and how it is learnt."""

from __future__ import annotations

import random

import av
import numpy as np
import pytest

from anymodal.config import build_part, load_spec, parse_spec
from anymodal.language.tokenizer import TextTokenizer
from anymodal.perception import Perception
from anymodal.playground.facts import CANNOT_TELL
from anymodal.playground.fields import (
    RAMP_S,
    changed,
    fields_of,
    hottest,
    nearest,
    owners,
    render_depth,
    render_thermal,
)
from anymodal.playground.files import render_clip
from anymodal.playground.questions import FIELDS, make_questions, unseen_questions
from anymodal.playground.world import SHAPES, Scene, make_scene
from anymodal.training.clips import clip_signals, join
from anymodal.training.drills import drills
from anymodal.training.fields import PHRASES, FieldStage, patch_labels, phrase_of
from anymodal.training.text import TextSide
from anymodal.training.words import window_words

ALL = ("video", "audio", "imu", "depth", "thermal")


def scenes(count: int, seconds: float = 8) -> list[Scene]:
    return [make_scene("val", 5, i, seconds=seconds) for i in range(count)]


def test_things_stand_apart_in_distance_and_heat():
    for scene in scenes(60):
        fields = fields_of(scene)
        for values, least in ((fields.far_m, 0.3), (fields.warm_c, 4.0)):
            ordered = sorted(values)
            assert len(ordered) == len(scene.things)
            assert all(b - a > least for a, b in zip(ordered, ordered[1:]))


def test_a_change_of_heat_lies_within_one_second_in_which_its_thing_is_seen():
    found = 0
    for scene in scenes(80):
        for thing, change in zip(scene.things, fields_of(scene).changes, strict=True):
            if change is None:
                continue
            found += 1
            second = int(change.t_s)
            assert change.t_s + RAMP_S < second + 1 <= scene.duration_s
            assert thing.visible(np.array([float(second), second + 0.999])).all()
            assert (thing, change) in changed(scene, second)
    assert found > 40


@pytest.mark.parametrize("count", range(6))
def test_pictures_show_the_nearest_and_the_hottest_thing(count):
    """Read from the pixels alone: least distance, greatest heat, at the place of the thing that is named."""
    scene = make_scene("val", 6, count, seconds=6)
    depth, heat = (draw(scene, np.arange(7) - 1e-3, 192, 192)[..., 0] for draw in (render_depth, render_thermal))
    for k in range(6):
        at = (float(k + 1) - 1e-3,)
        for thing, picture, extreme in ((nearest(scene, k), depth[k + 1], np.argmin), (hottest(scene, k), heat[k + 1],
                                                                                       np.argmax)):
            if thing is None or not thing.visible(np.array(at))[0]:
                continue
            values = np.where(picture == 0, 65535, picture) if extreme is np.argmin else picture
            pixels = owners(scene, np.array(at), 192)[0]
            shown = [i for i in np.unique(pixels) if i >= 0 and (pixels == i).sum() > 60]
            means = {i: np.median(values[pixels == i]) for i in shown}
            best = min(means, key=means.get) if extreme is np.argmin else max(means, key=means.get)
            assert scene.things[best] is thing


def test_pixels_without_a_reading_are_zero_and_few():
    for scene in scenes(8):
        picture = render_depth(scene, np.array([1.0]), 96, 96)
        assert picture.dtype == np.uint16 and picture.shape == (1, 96, 96, 1)
        assert (picture == 0).mean() < 0.03


def test_other_questions_are_the_same_with_and_without_the_cameras():
    for scene in scenes(20):
        usual = make_questions(scene, random.Random(1), held_out=True)
        more = make_questions(scene, random.Random(1), held_out=True, present=ALL)
        assert [q for q in more if q.type not in FIELDS] == usual
        assert {q.type for q in more} - {q.type for q in usual} <= FIELDS


def test_answers_are_what_the_scene_says():
    asked = 0
    for scene in scenes(60):
        for question in make_questions(scene, random.Random(2), kinds=tuple(FIELDS), present=ALL, noise=0.0):
            asked += 1
            (span,) = question.evidence
            second = int(span.end_s) - 1
            if question.type == "warmer":
                assert span.modality == "thermal"
                assert question.answer in {c.word for _, c in changed(scene, int(span.start_s))}
            else:
                find, modality = (nearest, "depth") if question.type == "nearest" else (hottest, "thermal")
                assert span.modality == modality and find(scene, second).shape == question.answer
    assert asked > 120


def test_without_a_camera_its_questions_cannot_be_told():
    scene = next(s for s in scenes(9) if s.things)
    (question,) = unseen_questions(scene, random.Random(0), present=("video",))
    assert question.answer == CANNOT_TELL
    assert not unseen_questions(scene, random.Random(0), present=ALL)


def test_drills_of_each_camera_need_it():
    scene = next(s for s in scenes(9) if len(s.things) > 1)
    for name, sense in (("nearest", "depth"), ("hottest", "thermal")):
        assert drills(scene, random.Random(1), 5, (sense,), (name,))
        assert not drills(scene, random.Random(1), 5, ("video",), (name,))


def test_files_hold_every_level(tmp_path):
    media = render_clip(tmp_path, split="val", seed=5, index=1, seconds=2, modalities=ALL)
    scene = make_scene("val", 5, 1, seconds=2)
    for name, draw in (("depth", render_depth), ("thermal", render_thermal)):
        with av.open(str(media.with_suffix(f".{name}.mkv"))) as container:
            frames = [f.to_ndarray(format="gray16le") for f in container.decode(video=0)]
        assert np.array_equal(frames, draw(scene, np.arange(20) / 10, 160, 120)[..., 0])


def test_clip_signals_share_their_closing_pictures():
    clips = [clip_signals(scene, 24, fields_px=24) for scene in scenes(2, seconds=3)]
    both = join(clips)
    assert both.fields["depth"].shape == (14, 24, 24, 1) and both.fields_index.shape == (6, 3)
    theirs = clips[1].fields["thermal"][clips[1].fields_index[1]]
    assert np.array_equal(both.fields["thermal"][both.fields_index[4]], theirs)
    assert both.fields_valid.sum() == 2 * (3 * 3 - 1), "nothing is on show after the end"


def test_patches_are_labelled_with_what_they_show():
    scene = next(s for s in scenes(20) if len(s.things) > 1 and all(t.visible(np.array([1.0]))[0] for t in s.things))
    labels = patch_labels(scene, np.array([1.0]), 6)
    assert set(labels["shape"][0]) <= {SHAPES.index(t.shape) for t in scene.things} | {len(SHAPES)}
    near = scene.things[int(np.argmin(fields_of(scene).far_m))]
    first = labels["depth"][0] == 1
    assert first.any() and set(labels["shape"][0][first]) == {SHAPES.index(near.shape)}
    assert ((labels["depth"][0] < 0) == (labels["shape"][0] == len(SHAPES))).all()


def test_words_and_phrases_say_the_same():
    seen = set()
    for scene in scenes(30):
        for k in range(8):
            said = window_words(scene, k)
            for modality, groups in PHRASES.items():
                for words, group in zip(said[modality], groups, strict=True):
                    index = phrase_of(words, group)
                    if index is not None:
                        shapes = {w for w in words if w in SHAPES}
                        assert shapes == {w for w in group[index].split() if w in SHAPES}
                        assert ("colder" in words) == ("colder" in group[index])
                        seen.add(group[index])
    assert len(seen) > 20


def test_the_stage_trains_these_senses_alone():
    spec, path = load_spec("tiny")
    raw = spec.model_dump(mode="json", exclude_none=True)
    sense = {"rate_hz": 2, "size_px": 48, "pixels": "gray16", "encoder": {
        "use": "encoders.raster:RasterTransformer", "image_px": 48, "patch_px": 8, "stem": [8], "width": 32, "scale": 1e-3}}
    for name, queries in (("depth", 1), ("thermal", 2)):
        raw["modalities"][name] = {**sense, "adapter": {
            "use": "anymodal.adapters.qformer:QFormer", "queries": queries, "width": 32, "heads": 4, "layers": 1,
            "steps": 3, "patches": 36}}
    raw["prompt"]["order"] = list(raw["modalities"])
    spec = parse_spec(raw)
    tokenizer = TextTokenizer(path.parent / "tiny" / "tokenizer.json")
    lm, perception = build_part(spec.language), Perception(spec, 256)
    text = TextSide(build_part(spec.joint_text), tokenizer)
    stage = FieldStage(perception, lm, tokenizer, text, scenes=3, per_scene=2)
    loss, parts = stage.loss(stage.draw()(0))
    loss.backward()
    assert np.isfinite(float(loss.detach())) and {"patch_depth", "first_thermal", "said_depth", "thermal_1"} <= parts.keys()
    trained = {id(p) for _, p in stage.trainable()}
    for name, parameter in perception.named_parameters():
        mine = name.split(".")[1] in ("depth", "thermal") and not name.startswith("familiarity")
        assert (id(parameter) in trained) == mine, name
        assert mine or parameter.grad is None, name
    assert perception.encoders["depth"].body.stem.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in [*lm.model.parameters(), *text.parameters()])
