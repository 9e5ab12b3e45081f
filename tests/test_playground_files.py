"""The playground's files: real media whose pictures, sounds and readings are where the truth says they are."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest

from anymodal.errors import InputError, OutputError
from anymodal.media.sidecar import IMU_AXES, find_sidecars, read_sidecar
from anymodal.playground.files import (
    SIZES_PX,
    SOUND_HZ,
    clip_scene,
    clip_truth,
    draw_encoding,
    load_truth,
    render_clips,
    resample,
)
from anymodal.playground.render import render_frames, render_imu
from anymodal.playground.sound import render_audio
from anymodal.playground.truth import scene_from_json, scene_to_json
from anymodal.playground.world import HELD_OUT_PAIRS, SPLITS

SEED, SECONDS = 3, 2.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return render_clips(tmp_path_factory.mktemp("clips"), seed=SEED, count=4, seconds=SECONDS)


def decoded_audio(path) -> tuple[np.ndarray, int]:
    """Mono samples placed by their pts: sample n is heard at n / rate on the media clock."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        out = np.zeros(int((SECONDS + 40) * stream.rate), np.float32)
        end = 0
        for frame in container.decode(stream):
            mono = frame.to_ndarray().mean(0)
            at = round(frame.pts * frame.time_base * stream.rate)
            low = max(0, -at)
            out[at + low : at + len(mono)] = mono[low:]
            end = max(end, at + len(mono))
        return out[:end], stream.rate


def test_files_of_a_clip(clips):
    assert [p.name for p in clips] == [f"clip-{i:05d}.mp4" for i in range(4)]
    for path in clips:
        truth = load_truth(path.with_suffix(".json"))
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert video.width >= 320 and video.height >= 240
            assert video.width / video.height == pytest.approx(truth.scene.aspect, rel=0.02)
            assert video.average_rate == truth.made["rate_hz"] and audio.rate == truth.made["audio_hz"]
            assert audio.channels == (1 if truth.made["pan"] is None else 2)
            assert container.duration / av.time_base == pytest.approx(SECONDS, abs=0.05)
        assert find_sidecars(path) == {"imu": path.with_suffix(".imu.csv")}
    assert not list(clips[0].parent.glob("*.part"))


def test_bytes_are_a_pure_function_of_the_clip(clips, tmp_path):
    again = render_clips(tmp_path, seed=SEED, first=1, count=3, seconds=SECONDS, workers=2)
    assert [p.name for p in again] == [p.name for p in clips[1:]]
    for ours, theirs in zip(again, clips[1:], strict=True):
        for suffix in (".mp4", ".imu.csv", ".json"):
            assert ours.with_suffix(suffix).read_bytes() == theirs.with_suffix(suffix).read_bytes(), (ours.name, suffix)


def test_json_is_as_documented(clips):
    for path in clips:
        row = json.loads(path.with_suffix(".json").read_text())
        assert {"scene", "questions"} <= set(row)
        assert {"objects", "sounds", "device_motions", "duration_s"} <= set(row["scene"])
        assert row["questions"]
        for question in row["questions"]:
            assert {"type", "question", "answer", "accept", "evidence"} == set(question)
            assert len(question["accept"]) <= 4
            assert all(0 <= e["start_s"] < e["end_s"] <= SECONDS for e in question["evidence"])


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_truth_survives_json(split):
    for index in range(6):
        scene = clip_scene(split, SEED, index)
        assert scene_from_json(json.loads(json.dumps(scene_to_json(scene)))) == scene


def test_pictures_show_the_scene_at_their_pts(clips):
    for path in clips:
        truth = load_truth(path.with_suffix(".json"))
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        times_s = np.array([float(f.pts * f.time_base) for f in frames])
        assert len(frames) == round(SECONDS * truth.made["rate_hz"])
        assert np.allclose(times_s, np.arange(len(frames)) / truth.made["rate_hz"], atol=1e-3)
        picked = range(0, len(frames), 7)
        wanted = render_frames(truth.scene, times_s[list(picked)], truth.made["width_px"], truth.made["height_px"])
        for i, want in zip(picked, wanted, strict=True):
            error = np.abs(frames[i].to_ndarray(format="rgb24").astype(int) - want).mean()
            assert error < 10, (path.name, i)


def test_sounds_are_where_the_truth_says(clips, tmp_path):
    index = next(i for i in range(80) for s in clip_scene("val", 1, i, 4).sounds if s.kind == "beep" and s.t0_s > 0.3)
    path, = render_clips(tmp_path, split="val", seed=1, first=index, seconds=4, modalities=("video", "audio"))
    scene = load_truth(path.with_suffix(".json")).scene
    samples, rate_hz = decoded_audio(path)
    grid = np.arange(4 * SOUND_HZ) / SOUND_HZ
    heard = np.interp(grid, np.arange(len(samples)) / rate_hz, samples)
    drawn = render_audio(scene, SOUND_HZ)
    spectrum = np.fft.irfft(np.fft.rfft(heard, 2 * len(grid)) * np.conj(np.fft.rfft(drawn, 2 * len(grid))))
    lag = int(np.argmax(spectrum))
    lag = lag - 2 * len(grid) if lag > len(grid) else lag
    assert abs(lag) / SOUND_HZ < 0.001
    beep = next(s for s in scene.sounds if s.kind == "beep")
    at = int(beep.t0_s * rate_hz)
    reach = int(0.01 * rate_hz)
    before, after = samples[at - 2 * reach : at - reach], samples[at + reach : at + 2 * reach]
    assert np.sqrt((after**2).mean()) > 5 * np.sqrt((before**2).mean())


def test_pictures_and_sounds_are_interleaved(clips):
    with av.open(str(clips[0])) as container:
        newest = {"video": 0.0, "audio": 0.0}
        for packet in container.demux():
            if packet.dts is not None:
                newest[packet.stream.type] = float(packet.dts * packet.time_base)
                if min(newest.values()) > 0.2:
                    assert abs(newest["video"] - newest["audio"]) < 1.6


def test_readings_are_on_the_media_clock(clips):
    for path in clips:
        truth = load_truth(path.with_suffix(".json"))
        times_s, readings = read_sidecar(path.with_suffix(".imu.csv"), IMU_AXES)
        rate_hz = truth.made["imu_hz"]
        assert np.allclose(times_s, np.arange(round(SECONDS * rate_hz)) / rate_hz)
        assert np.allclose(readings, render_imu(truth.scene, rate_hz), rtol=1e-3, atol=1e-3)


def test_encodings_vary_and_fit_the_scene():
    drawn = [(clip_scene("test", 1, i, 8), draw_encoding(clip_scene("test", 1, i, 8), "test", 1, i)) for i in range(80)]
    for scene, encoding in drawn:
        assert encoding.width_px >= 320 and encoding.height_px >= 240
        assert encoding.width_px % 2 == encoding.height_px % 2 == 0
        assert encoding.width_px / encoding.height_px == pytest.approx(scene.aspect, rel=0.01)
    assert {e.rate_hz for _, e in drawn} == {12, 15, 24, 25, 30}
    assert {e.audio_hz for _, e in drawn} == {44100, 48000} and {e.imu_hz for _, e in drawn} == {50, 100}
    assert {(e.width_px, e.height_px) for _, e in drawn} == {size for sizes in SIZES_PX.values() for size in sizes}


@pytest.mark.parametrize("wanted_hz", [44100, 48000])
def test_resampling_keeps_a_tone_and_its_phase(wanted_hz):
    t, wanted_t = np.arange(SOUND_HZ) / SOUND_HZ, np.arange(wanted_hz) / wanted_hz
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    wanted = np.sin(2 * np.pi * 440 * wanted_t)
    assert np.allclose(resample(tone, SOUND_HZ, wanted_hz), wanted, atol=1e-4)


def test_only_what_is_asked_for(tmp_path):
    calls = []
    path, = render_clips(tmp_path, seconds=1, modalities=("video",), kinds=("color", "count"),
                         progress=lambda done, count: calls.append((done, count)))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1 and not container.streams.audio
    assert not path.with_suffix(".imu.csv").exists()
    assert {q.type for q in load_truth(path.with_suffix(".json")).questions} <= {"color", "count"}
    sound, = render_clips(tmp_path, seconds=1, first=5, modalities=("audio",))
    with av.open(str(sound)) as container:
        assert not container.streams.video and container.streams.audio[0].codec_context.name == "aac"
    assert calls == [(1, 1)]


def test_splits_and_seeds_share_no_clip():
    scenes = [json.dumps(scene_to_json(clip_scene(split, seed, index, 8)))
              for split in SPLITS for seed in (0, 1) for index in range(5)]
    assert len(set(scenes)) == len(scenes)


@pytest.mark.parametrize("seconds", [None, 1.0, 8.0])
def test_at_least_half_of_any_clips_have_three_or_more_objects(seconds):
    drawn = []
    for seed in range(60):
        counts = [len(clip_scene("test", seed, i, seconds).things) for i in range(20)]
        assert all(2 * sum(c >= 3 for c in counts[:n]) >= n for n in range(2, 21)), seed
        drawn += counts
    assert np.bincount(drawn, minlength=6)[1:].min() > 0.03 * len(drawn) and max(drawn) <= 5
    assert np.mean([c >= 3 for c in drawn]) < 0.65  # questions about few stay as frequent


def test_clips_of_pairs_never_trained_on_have_one_whatever_their_number():
    for i in range(20):
        assert set().union(*(t.names() for t in clip_scene("compositional", 7, i, 8).things)) & HELD_OUT_PAIRS, i


def test_wordings_can_be_held_out():
    known = {q.question for q in clip_truth("test", 0, 0, seconds=8, held_out_wordings=False).questions}
    held = {q.question for q in clip_truth("test", 0, 0, seconds=8, held_out_wordings=True).questions}
    assert not known & held


@pytest.mark.parametrize(("options", "word"), [
    ({"split": "tset"}, "test"), ({"count": 0}, "1 or more"), ({"seconds": 0.2}, "length"),
    ({"modalities": ("video", "odor")}, "audio"), ({"modalities": ("imu",)}, "video"),
    ({"kinds": ("colour",)}, "color")])
def test_wrong_arguments_say_how_to_mend_them(tmp_path, options, word):
    with pytest.raises(InputError) as error:
        render_clips(tmp_path, **options)
    assert word in str(error.value)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        render_clips(tmp_path / "taken", seconds=1)
    (tmp_path / "clip-00000.mp4").mkdir()
    with pytest.raises(OutputError, match="clip-00000.mp4"):
        render_clips(tmp_path, seconds=1)
    assert not list(tmp_path.glob("*.part")) and not (tmp_path / "clip-00000.json").exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"scene": 3, "questions": []}'])
def test_a_broken_truth_file(tmp_path, text):
    path = tmp_path / "clip.json"
    path.write_text(text)
    with pytest.raises(InputError, match="clip.json"):
        load_truth(path)


def test_a_visual_event_is_at_its_time(tmp_path):
    """An object that appears is in no frame before its time and in every frame after."""
    index, thing = next((i, t) for i in range(80) for t in clip_scene("val", 2, i, 4).things
                        if t.appear_s > 0 and t.vanish_s > 4 and t.size == "large" and t.direction == "still"
                        and not t.recolor)
    path, = render_clips(tmp_path, split="val", seed=2, first=index, seconds=4, modalities=("video",))
    with av.open(str(path)) as container:
        frames = [(f.pts * f.time_base, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    height, width = frames[0][1].shape[:2]
    reach = max(2, int(0.1 * thing.radius * height))
    x, y = int(thing.xs[0] * width), int(thing.ys[0] * height)
    if thing.shape == "ring":
        y += int(0.72 * thing.radius * height)
    patches = [(t, p[y - reach : y + reach, x - reach : x + reach].mean((0, 1))) for t, p in frames]
    jumps = [(abs(b - a).max(), t) for (_, a), (t, b) in zip(patches, patches[1:], strict=False)]
    rate_hz = load_truth(path.with_suffix(".json")).made["rate_hz"]
    assert 0 <= float(max(jumps)[1]) - thing.appear_s <= float(Fraction(1, rate_hz)) + 1e-3
