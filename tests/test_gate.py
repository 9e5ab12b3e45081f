"""The change gate: what it lets pass, what it must not, and what perception makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.bundle import load_bundle
from anymodal.config import GateSpec, load_spec, parse_spec
from anymodal.errors import ConfigError
from anymodal.playground.streams import LongStream
from anymodal.stages.gate import Gate
from anymodal.stages.perceive import Perceive
from anymodal.testing_bundle import random_bundle
from anymodal.types import Signal, Window

PLACE = np.random.default_rng(5).integers(40, 200, (8, 8, 3)).repeat(4, 0).repeat(4, 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(random_bundle(tmp_path_factory.mktemp("bundle")))


def frames(seed: int = 0, *, noise: float = 3.0, light: float = 0.0, square_at=(None,) * 5) -> np.ndarray:
    """A fixed view, noisy, with a red square of 6 px at some columns."""
    rng = np.random.default_rng(seed)
    out = np.stack([PLACE + light + rng.normal(0, noise, PLACE.shape) for _ in square_at])
    for frame, x in zip(out, square_at, strict=True):
        if x is not None:
            frame[10:16, x : x + 6] = (250, 0, 0)
    return np.clip(out, 0, 255).astype(np.uint8)


def window(index: int, *, video=None, audio=None, imu=None) -> Window:
    rng = np.random.default_rng(1000 + index)
    video = frames(index) if video is None else video
    audio = rng.normal(0, 0.004, 16000) if audio is None else audio
    imu = rng.normal((0, 0, 9.8, 0, 0, 0), (0.1, 0.1, 0.1, 0.02, 0.02, 0.02), (50, 6)) if imu is None else imu
    signals = {"video": Signal("video", video[:4], 4, float(index), video[4] if len(video) > 4 else None),
               "audio": Signal("audio", audio.astype(np.float32), 16000, float(index)),
               "imu": Signal("imu", imu.astype(np.float32), 50, float(index))}
    return Window(index, float(index), index + 1.0, signals)


def repeated(windows: list[Window], spec: GateSpec = GateSpec()) -> list[dict[str, int]]:
    gate = Gate(spec)
    return [dict(gate.push("s", w).repeats) for w in windows]


def tone(index: int, hz: float, start_s: float = 0.0) -> np.ndarray:
    t = np.arange(16000) / 16000
    return np.random.default_rng(index).normal(0, 0.004, 16000) + 0.1 * np.sin(2 * np.pi * hz * t) * (t >= start_s)


def test_noise_is_no_change():
    assert repeated([window(k) for k in range(1, 12)]) == [{}] + [{"video": 1, "audio": 1, "imu": 1}] * 10


def test_what_changes_is_encoded_and_what_it_left_behind_once_more():
    """A window in which something happens must not stand for the quiet ones after it."""
    moves = window(3, video=frames(3, square_at=[4, 8, 12, 16, 20]))
    after = [window(k, video=frames(k, square_at=[20] * 5)) for k in (4, 5, 6)]
    found = [r.get("video") for r in repeated([window(1), window(2), moves, *after])]
    assert found == [None, 1, None, None, 4, 4]


@pytest.mark.parametrize(("change", "stream"), [
    ({"video": frames(2, square_at=[None, None, None, None, 9])}, "video"),  # in its last moment
    ({"video": frames(2, square_at=[9] * 5)}, "video"),  # between the windows
    ({"video": frames(2)[:3]}, "video"),  # a shorter window
    ({"audio": tone(2, 440)}, "audio"), ({"audio": tone(2, 3000, 0.9)}, "audio"),
    ({"imu": np.random.default_rng(2).normal((0, 9.8, 0, 0, 0, 0), 0.1, (50, 6))}, "imu"),
    ({"imu": np.random.default_rng(2).normal((0, 0, 9.8, 0, 0, 0), 2.0, (50, 6))}, "imu"),
    ({"imu": np.full((50, 6), np.nan)}, "imu"), ({"audio": np.full(16000, np.nan)}, "audio"),
])
def test_a_change_of_one_stream_is_encoded_alone(change, stream):
    first, second = repeated([window(1), window(2, **change)])
    assert first == {}
    assert set(second) == {"video", "audio", "imu"} - {stream}


def test_another_tone_or_its_end_is_a_change_and_its_going_on_is_none():
    sounds = [tone(1, 440), tone(2, 440), tone(3, 880), tone(4, 880), np.random.default_rng(1).normal(0, 0.004, 16000)]
    found = repeated([window(k, audio=s) for k, s in enumerate(sounds, 1)])
    assert [r.get("audio") for r in found] == [None, 1, None, 3, None]


def test_slow_drift_is_compared_to_what_was_encoded():
    """The light changes a little with every window: that is let pass, but not for ever."""
    found = [r.get("video") for r in repeated([window(k, video=frames(k, light=0.5 * k)) for k in range(1, 100)],
                                              GateSpec(refresh=1000))]
    again = [k for k, r in enumerate(found, 1) if r is None]
    assert 2 <= len(again) <= 4 and again[0] == 1


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 8), st.lists(st.booleans(), min_size=10, max_size=40), st.integers(0, 39))
def test_going_on_from_the_middle_decides_the_same(refresh, moved, middle):
    windows, x = [], 4
    for k, m in enumerate(moved):
        x = 4 + (x + 8) % 20 if m else x
        windows.append(window(k, video=frames(k, square_at=[x] * 5)))
    whole = repeated(windows, GateSpec(refresh=refresh))
    middle = min(middle, len(windows) - 1)
    begin = Gate(GateSpec(refresh=refresh)).begins(middle)
    assert repeated(windows[begin:], GateSpec(refresh=refresh))[middle - begin :] == whole[middle:]
    assert all(not r for r in whole[::refresh])


def test_sessions_do_not_share_and_a_replay_is_encoded():
    gate = Gate(GateSpec())
    assert not gate.push("a", window(1)).repeats
    assert not gate.push("b", window(2)).repeats
    assert gate.push("a", window(2)).repeats
    assert not gate.push("a", window(1)).repeats
    gate.forget("a")
    assert not gate.push("a", window(3)).repeats


def test_perception_reuses_tokens_and_counts(bundle):
    stage = Perceive(bundle.perception, gate=True)
    plain = Perceive(bundle.perception)
    moves = frames(3, noise=0, square_at=[4, 4, 12, 12, 12])
    items = [("s", window(1)), ("s", window(2)), ("s", window(3, video=moves)), ("t", window(1))]
    found, full = stage.encode(items), plain.encode(items)
    assert [dict(p.repeats) for p in found] == [{}, {"video": 1, "audio": 1, "imu": 1}, {"audio": 1, "imu": 1}, {}]
    for percept, other in zip(found, full, strict=True):
        names = [[(t.stream, t.window, t.t0_s) for t in p.tokens] for p in (percept, other)]
        assert names[0] == names[1]
        assert percept.frames == other.frames
    assert np.array_equal(found[1].tokens[0].embeds, found[0].tokens[0].embeds)
    np.testing.assert_allclose(found[2].tokens[0].embeds, full[2].tokens[0].embeds, atol=1e-3)
    assert (stage.skipped.streams, stage.skipped.streams_skipped) == (12, 5)
    assert (stage.skipped.frames, stage.skipped.frames_skipped) == (20, 4 + 5 + 3 + 4)


def test_a_window_that_fails_is_never_repeated(bundle, monkeypatch):
    stage = Perceive(bundle.perception, gate=True)
    real = bundle.perception.encode_many
    monkeypatch.setattr(bundle.perception, "encode_many", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage.encode([("s", window(1))])
    monkeypatch.setattr(bundle.perception, "encode_many", real)
    assert not stage.encode([("s", window(2))])[0].repeats


def test_the_gate_is_set_in_the_yaml():
    import yaml

    from anymodal.config import find_bundle

    raw = yaml.safe_load(find_bundle("tiny").read_text())
    assert parse_spec({**raw, "gate": {"video_levels": 4, "refresh": 8}}).gate.refresh == 8
    with pytest.raises(ConfigError, match="video_levels"):
        parse_spec({**raw, "gate": {"video_level": 4}})


def test_a_static_stream_is_mostly_let_pass_and_its_events_never():
    spec, _ = load_spec("tiny")
    stream = LongStream("val", 3, 180, static=True)
    gate = Gate(spec.gate)
    skipped = []
    for w in stream.windows(spec):
        repeats = gate.push("s", w).repeats
        skipped.append("video" in repeats)
        scene, begin_s = stream.scene_at(w.t0_s)
        events = [e for t in scene.things for e in t.events if w.t0_s <= e.t_s + begin_s < w.t1_s]
        assert not (events and "video" in repeats), (w.index, events)
    assert np.mean(skipped) > 0.7
