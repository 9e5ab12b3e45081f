"""Measuring a bundle: scores right on known cases, controls that do what they say, fits that recover a truth."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from rich.console import Console

from anymodal.agent import load
from anymodal.errors import InputError, OutputError
from anymodal.language.mind import Calibration
from anymodal.media import read_windows
from anymodal.perception import Familiarity
from anymodal.playground.files import clip_scene, clip_truth, render_clip
from anymodal.playground.questions import CANNOT_TELL, OUTSIDE, Question
from anymodal.playground.world import HELD_OUT_PAIRS
from anymodal.testing_bundle import random_bundle
from anymodal.training import calibrate, evaluate, scoring
from anymodal.training.asking import answer_batch, scene_windows, shuffle_frames, watch
from anymodal.training.clips import clip_signals
from anymodal.training.outliers import strange_window
from anymodal.training.report import show_report
from anymodal.types import Answer, Evidence


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return load(random_bundle(tmp_path_factory.mktemp("bundle")))


def video(start_s: float, end_s: float) -> Evidence:
    return Evidence(start_s, end_s, "video")


# --- scores ------------------------------------------------------------------------------------------------------

def test_exact_match_forgives_case_and_punctuation_only():
    question = Question("color", "?", "it is Red", ("red",))
    assert scoring.is_right(question, "It is  red.") and scoring.is_right(question, "RED!")
    assert not scoring.is_right(question, "reddish") and not scoring.is_right(question, "")
    assert scoring.is_refusal("i cannot tell.") and scoring.is_refusal(OUTSIDE) and not scoring.is_refusal("it is gone")


def test_attribute_f1_binds_words_to_their_object():
    truth = "small red circle, large blue star; low bell; shaking"
    assert scoring.attribute_f1(truth, truth) == 1.0
    assert scoring.attribute_f1("large blue star and small red circle; shaking; low bell", truth) == 1.0
    swapped = scoring.attribute_f1("small blue circle, large red star; low bell; shaking", truth)
    assert swapped == pytest.approx(7 / 9)
    assert scoring.attribute_f1("small red circle", truth) == pytest.approx(2 * 1 * (3 / 9) / (1 + 3 / 9))
    assert scoring.attribute_f1("I cannot tell", truth) == 0.0
    assert scoring.attributes("large white ring top left changes colour") == [
        frozenset({"large", "white", "ring", "top left", "changes colour"})]


@pytest.mark.parametrize(("said", "truth", "wanted"), [
    ([video(2, 3)], [video(2.2, 2.7)], 1.0), ([video(2, 4)], [video(2, 3)], 0.5), ([], [video(0, 1)], 0.0),
    ([video(0, 1), video(5, 6)], [video(0, 1), video(5, 6)], 1.0), ([video(0, 2), video(1, 3)], [video(0, 3)], 1.0),
    ([Evidence(4, 5, "audio")], [video(4, 5)], 1.0), ([video(6, 7)], [video(0, 1)], 0.0)])
def test_evidence_overlap(said, truth, wanted):
    assert scoring.evidence_iou(said, truth, 1.0) == pytest.approx(wanted)


def test_intervals():
    share = scoring.wilson(8, 10)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # worked by hand
    assert math.isnan(scoring.wilson(0, 0).value) and scoring.wilson(5, 5).high == 1.0
    right, asked = np.array([[1, 0], [1, 2], [0, 0]]), np.array([[1, 0], [2, 2], [1, 0]])
    found = scoring.macro(right, asked)
    assert found.value == pytest.approx((2 / 4 + 2 / 2) / 2) and found.low <= found.value <= found.high
    rng = np.random.default_rng(0)
    many = scoring.macro(rng.binomial(1, 0.7, (400, 3)), np.ones((400, 3)))
    assert many.low < 0.7 < many.high and many.high - many.low < 0.08


def test_calibration_error():
    error, bins = scoring.reliability([0.95] * 10 + [0.25] * 4, [True] * 9 + [False] + [True] + [False] * 3)
    assert error == pytest.approx(10 / 14 * 0.05)
    assert [(b["n"], round(b["right"], 2)) for b in bins] == [(4, 0.25), (10, 0.9)]


# --- clips and questions -----------------------------------------------------------------------------------------

def test_tensor_windows_are_those_of_training(agent):
    scene = clip_scene("val", 1, 3, 3.0)
    windows, trained = scene_windows(scene, agent.spec), clip_signals(scene, agent.spec.modalities["video"].size_px)
    assert len(windows) == 3
    for k, window in enumerate(windows):
        signal = window.signals["video"]
        frames = [*signal.data, *([] if signal.closing is None else [signal.closing])]
        assert len(frames) == trained.valid[k].sum()
        assert np.array_equal(frames, trained.frames[trained.index[k]][trained.valid[k]])
        assert np.array_equal(window.signals["audio"].data, trained.audio[k])
        assert np.array_equal(window.signals["imu"].data, trained.imu[k])


def test_tensor_windows_are_those_of_files(agent, tmp_path):
    """The same grid and nearly the same signals, so that the two paths can be compared."""
    scene = clip_scene("val", 1, 1, 3.0)
    with read_windows(render_clip(tmp_path, split="val", seed=1, index=1, seconds=3.0), agent.spec) as reader:
        filed = list(reader)
    straight = scene_windows(scene, agent.spec)
    assert [(w.index, w.t0_s, w.t1_s) for w in filed] == [(w.index, w.t0_s, w.t1_s) for w in straight]
    for ours, theirs in zip(straight, filed, strict=True):
        assert ours.signals["video"].data.shape == theirs.signals["video"].data.shape
        assert np.abs(ours.signals["video"].data.astype(int) - theirs.signals["video"].data).mean() < 16
        assert (ours.signals["video"].closing is None) == (theirs.signals["video"].closing is None)
        sounds = [w.signals["audio"].data for w in (ours, theirs)]
        assert np.abs(sounds[0] - sounds[1]).max() < 0.25 and len(sounds[0]) == len(sounds[1])


def test_shuffling_keeps_every_frame_and_nothing_else_moves(agent):
    windows = scene_windows(clip_scene("val", 1, 2, 4.0), agent.spec)
    mixed = shuffle_frames(windows, seed=3)

    def frames(found):
        return [f.tobytes() for w in found for f in w.signals["video"].data]

    assert frames(mixed) != frames(windows) and Counter(frames(mixed)) == Counter(frames(windows))
    for a, b, after in zip(windows, mixed, [*mixed[1:], None], strict=True):
        assert b.signals["audio"] is a.signals["audio"] and b.signals["imu"] is a.signals["imu"]
        closing = b.signals["video"].closing
        assert (closing is None) == (a.signals["video"].closing is None)
        if after is not None:
            assert np.array_equal(closing, after.signals["video"].data[0])


def test_a_batch_answers_as_the_mind_does(agent):
    truth, mind = clip_truth("val", 0, 4, seconds=3.0), agent.bundle.mind
    state = watch(agent.perception, mind, scene_windows(truth.scene, agent.spec))
    questions = [q.question for q in truth.questions][:8]
    alone = [a for q in questions for a in mind.answer(state, q) if isinstance(a, Answer)]
    batch = answer_batch(mind, state, questions)
    assert [a.text for a in batch] == [a.text for a in alone]
    assert [a.evidence for a in batch] == [a.evidence for a in alone]
    assert [mind.calibration(a.logprob) for a in batch] == pytest.approx([a.confidence for a in alone], abs=1e-3)
    barred = [alone[0].text]
    assert not answer_batch(mind, state, questions[:1], barred=barred)[0].text.startswith(alone[0].text)


def test_rare_types_are_asked_first():
    asked: Counter[str] = Counter()
    for index in range(12):
        chosen = evaluate.balanced(clip_truth("test", 0, index, seconds=8.0), asked, 6)
        assert len(chosen) == 6
    assert max(asked.values()) <= 6 and len(asked) >= 25


def test_held_out_questions_are_about_pairs_never_trained_on():
    found = 0
    for index in range(12):
        scene = clip_scene("compositional", 1, index, 8.0)
        for question in evaluate.held_out_questions(scene, random.Random(index)):
            found += 1
            assert question.type in evaluate.COMPOSITIONAL_KINDS
            if question.type == "color":
                assert question.answer in {c for c, _ in HELD_OUT_PAIRS}
            if question.type == "shape":
                assert question.answer in {s for _, s in HELD_OUT_PAIRS}
    assert found > 12


def test_the_commonest_answers_are_answers():
    usual = evaluate.majority_answers(8.0, clips=25)
    assert usual["exists"] in ("yes", "no") and usual["unanswerable"] == CANNOT_TELL
    assert usual["size.many"] in ("small", "large") and "caption" not in usual


# --- whole runs --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("direct", [True, False])
def test_a_run_reports_everything(agent, tmp_path, monkeypatch, direct):
    monkeypatch.setattr(evaluate, "OFF_WORLD_TEST", ("Who wrote Hamlet?", "Is the toaster purple?"))
    monkeypatch.setattr(evaluate, "MAJORITY_CLIPS", 5)
    ticks = []
    report = evaluate.run_eval(agent, seed=5, count=2, seconds=2.0, per_clip=4, direct=direct, show=False,
                               json_path=tmp_path / "report.json", folder=tmp_path,
                               progress=lambda done, total: ticks.append((done, total)))
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert set(report["types"]) == set(scoring.TYPES) and report["control_clips"] == 2
    assert sum(row["n"] for row in report["types"].values()) + sum(v["n"] for v in report["captions"].values()) == 8
    asked = [row for row in report["types"].values() if row["n"]]
    others = ("text_only", "majority", "other_clip", "shuffled", *(() if direct else ("tensors",)))
    assert all(row[c] is not None for row in asked for c in others)
    assert all(sum(m["n"] for m in row["mistakes"]) == round(row["n"] * (1 - row["right"])) for row in asked)
    assert report["off_world"]["refused"]["n"] == 2 and report["path"] == ("tensors" if direct else "mp4")
    assert report["speed"]["clip_s"]["median"] > 0 and 0 <= report["calibration"]["ece"] <= 1
    assert len(list((tmp_path / "test").glob("*.mp4"))) == (0 if direct else 2) if not direct else True


def test_a_perfect_bundle_scores_one_hundred(agent, monkeypatch):
    """Answers replaced by the truth: every score is at its top, in the report and in what is printed."""
    def oracle(_, truth, __, texts):
        asked = {q.question: q for q in truth.questions}
        return [Answer(t, asked[t].answer, 1.0, asked[t].evidence) if t in asked else Answer(t, OUTSIDE, 1.0)
                for t in texts]

    monkeypatch.setattr(evaluate, "_answers", oracle)
    report = evaluate.run_eval(agent, count=6, direct=True, controls=False, compositional=False, show=False)
    assert report["overall"]["right"] == report["off_world"]["refused"]["right"] == 1.0
    assert report["evidence"]["right"] == 1.0 and report["calibration"]["ece"] == 0.0
    assert report["off_world"]["wrongly_refused"]["right"] == 0.0
    assert all(row["f1"] in (None, 1.0) for row in report["captions"].values())
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    show_report(report, console)
    text = console.export_text()
    assert "overall" in text and "100.0" in text and "off-world" in text


def test_another_clips_sensors_are_another_clips(agent, monkeypatch):
    """The control asks about clip 0 with clip 1's session and the other way round."""
    seen = []
    monkeypatch.setattr(evaluate, "OFF_WORLD_TEST", ())
    monkeypatch.setattr(evaluate, "_answers", lambda _, truth, __, texts: [Answer(t, "", 0.5) for t in texts])
    monkeypatch.setattr(evaluate, "_control_clip", lambda agent, truth, media, rows: truth.made["index"])
    monkeypatch.setattr(evaluate, "_control", lambda mind, state, rows, name: seen.append((rows[0].clip, state, name)))
    clips = evaluate.Clips(None, "test", 1, 3, 4.0, True, 2)
    evaluate._ask_clips(agent, clips, evaluate.Findings(), 3, lambda: None)
    assert seen == [(1, 0, "other_clip"), (2, 1, "other_clip"), (0, 2, "other_clip")]


def test_wrong_arguments_and_places(agent, tmp_path):
    with pytest.raises(InputError, match="test"):
        evaluate.run_eval(agent, split="tset")
    with pytest.raises(InputError, match="1 or more"):
        evaluate.run_eval(agent, count=0)
    with pytest.raises(OutputError, match="taken"):
        (tmp_path / "taken").write_text("a file")
        evaluate.run_eval(agent, count=1, folder=tmp_path / "taken")
    with pytest.raises(OutputError, match="nowhere"):
        evaluate.run_eval(agent, count=1, json_path=tmp_path / "nowhere" / "report.json", progress=pytest.fail)
    with pytest.raises(OutputError, match="nowhere"):
        evaluate.write_json({}, tmp_path / "nowhere" / "report.json")


# --- fits --------------------------------------------------------------------------------------------------------

def test_platt_recovers_a_known_calibration():
    rng = np.random.default_rng(0)
    logprob = -rng.exponential(1.0, 20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-(2.0 * logprob + 3.0)))
    found = calibrate.platt(logprob, right)
    assert (found.scale, found.offset) == pytest.approx((2.0, 3.0), abs=0.15)
    assert calibrate.platt([-1.0, -2.0], [True, True])(-1.0) > 0.5


def test_familiarity_of_a_known_cloud():
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.1, 2.0, 16)
    rows = torch.randn(3000, 16, generator=generator) * spread + 5
    strange = torch.randn(500, 16, generator=generator) * spread + 5
    strange[:, 2] += 3.0  # many times this direction's own spread, little beside the largest
    part = Familiarity(16)
    calibrate.fit(part, rows[:2000], rows[2000:], strange)
    assert (part(rows) == 1).float().mean() > 0.96
    assert (part(strange) < 0.5).float().mean() > 0.95
    halved = Familiarity(16)
    halved.load_state_dict({k: v.bfloat16().float() for k, v in part.state_dict().items()})
    assert torch.allclose(halved(rows), part(rows), atol=0.05)  # a bundle kept in bf16 measures the same


def test_strange_windows_fit_the_bundle_and_differ(agent):
    windows = [strange_window(np.random.default_rng(i), agent.spec) for i in range(3)]
    for window in windows:
        signals, size = window.signals, agent.spec.modalities["video"].size_px
        assert signals["video"].data.shape == (4, size, size, 3) and signals["video"].data.std() > 1
        assert signals["audio"].data.shape == (16000,) and np.abs(signals["audio"].data).max() <= 1
        assert signals["imu"].data.shape == (50, 6) and all(np.isfinite(s.data).all() for s in signals.values())
    assert len({w.signals["audio"].data.tobytes() for w in windows}) == 3
    again = strange_window(np.random.default_rng(0), agent.spec)
    assert np.array_equal(again.signals["video"].data, windows[0].signals["video"].data)


def test_a_question_of_another_world_is_declined_as_readily_as_was_fitted(monkeypatch):
    agent = load("tiny")
    mind, found = agent.bundle.mind, {}
    questions = ["What colour is the walrus?", "what happens at 2 s?", "When did the bell ring?"]
    state = watch(agent.perception, mind, scene_windows(clip_scene("val", 0, 2, 4.0), agent.spec))
    for gain in (0.0, 4.0, 60.0):
        monkeypatch.setattr(mind, "calibration", Calibration(outside=gain))
        found[gain] = mind.strangeness(state, questions), [a.text for a in answer_batch(mind, state, questions)]
    assert found[4.0][0] == pytest.approx([odds + 4 for odds in found[0.0][0]], abs=1e-3)
    assert found[0.0][1] != found[60.0][1] == [OUTSIDE.lower()] * 3
    nothing = mind.open()
    assert mind.strangeness(nothing, questions[2:]) == [-float("inf")], "of what is not heard nothing can be told"
    assert [p.text for q in questions for p in mind.answer(state, q) if isinstance(p, Answer)] == found[60.0][1]


def test_fits_are_written_and_read_back(tmp_path):
    path = random_bundle(tmp_path)
    usual = calibrate.fit_familiarity(path, clips=24, files=1)
    assert set(usual) == {"video", "audio", "imu"} and all(0 < low < high for low, high in usual.values())
    fitted = calibrate.fit_calibration(path, clips=3, per_clip=4)
    agent = load(path)
    assert agent.bundle.mind.calibration == fitted
    windows = scene_windows(clip_scene("train", 0, 2, calibrate.SHORT_S), agent.spec)
    assert min(t.familiarity for tokens in agent.perception.encode("a", windows) for t in tokens) > 0.95
    strange = [t for i in range(20) for tokens in agent.perception.encode(
        "b", [strange_window(np.random.default_rng(1000 + i), agent.spec)]) for t in tokens]
    assert np.mean([t.familiarity for t in strange if t.modality == "audio"]) < 0.95
    assert agent.perception.familiarity["video"].usual.tolist() == pytest.approx(usual["video"])


def test_doubt_on_clips_of_another_world(agent, tmp_path):
    clip = render_clip(tmp_path, split="val", seed=4, index=0, seconds=2.0)
    found = calibrate.natural_confidence(agent, [clip], questions=calibrate.NATURAL_QUESTIONS[:4], below=1.1)
    assert found["n"] == 4 and found["share_below"] == 1.0 and found["by_clip"] == {clip.name: 1.0}
    assert len(set(calibrate.NATURAL_QUESTIONS)) == 40


def test_the_shipped_bundle_answers_better_than_guessing():
    """A smoke test of the committed weights; `anymodal eval` measures them. The commonest answers get under .3."""
    report = evaluate.run_eval("tiny", seed=9, count=4, direct=True, controls=False, compositional=False, show=False)
    assert report["overall"]["right"] > 0.35
