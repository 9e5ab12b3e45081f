"""The playground's sounds: however one is made, it is what its kind and its pitch say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.playground.sound import render_audio
from anymodal.playground.world import PITCHES, SOUNDS, Scene, Sound

HZ = 16000
looks = st.integers(0, 2**31 - 1)


def scene_of(kind: str, pitch: str, look: int, seconds: float = 0.7) -> Scene:
    return Scene(3.0, 1.0, [], [Sound(kind, pitch, 1.0, 1.0 + seconds, look % 97 / 97)], [], "plain", look)


def heard(kind: str, pitch: str, look: int, **how) -> np.ndarray:
    return render_audio(scene_of(kind, pitch, look), HZ, **how)[HZ : HZ + int(0.7 * HZ)]


def loudest_hz(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax() * HZ / len(wave))


@given(look=looks, kind=st.sampled_from(SOUNDS), pitch=st.sampled_from(PITCHES))
@settings(max_examples=60, deadline=None)
def test_a_sound_is_there_and_nothing_else_is_as_loud(look, kind, pitch):
    clip = render_audio(scene_of(kind, pitch, look), HZ)
    assert clip.dtype == np.float32 and len(clip) == 3 * HZ and np.abs(clip).max() <= 1
    before, sound, after = clip[: int(0.9 * HZ)], clip[HZ : HZ + int(0.7 * HZ)], clip[2 * HZ :]
    assert np.abs(before).max() < 0.04 and np.abs(sound).max() > 0.08 and np.abs(after).max() < 0.04
    assert np.array_equal(clip, render_audio(scene_of(kind, pitch, look), HZ)), "the same each time"


@given(look=looks, pitch=st.sampled_from(PITCHES))
@settings(max_examples=60, deadline=None)
def test_chirps_go_one_way_and_beeps_none(look, pitch):
    third = int(0.7 * HZ) // 3
    for kind, least in (("rising chirp", 1.15), ("falling chirp", 1.15), ("beep", 0.0)):
        wave = heard(kind, pitch, look)
        first, last = loudest_hz(wave[:third]), loudest_hz(wave[-third:])
        if kind == "beep":
            assert 0.9 < last / first < 1.1
        else:
            assert (last / first if kind == "rising chirp" else first / last) > least


@given(look=looks, kind=st.sampled_from(["beep", "bell"]))
@settings(max_examples=60, deadline=None)
def test_low_and_high_are_apart(look, kind):
    low, high = (heard(kind, pitch, look) for pitch in PITCHES)
    power = [np.abs(np.fft.rfft(wave)) ** 2 for wave in (low, high)]
    hz = np.fft.rfftfreq(len(low), 1 / HZ)
    middle = [np.exp((np.log(hz[1:]) * p[1:]).sum() / p[1:].sum()) for p in power]
    assert middle[0] < middle[1]


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_half_of_the_sounds_are_plain(kind):
    same = []
    for look in range(60):
        varied, plain = (heard(kind, "high", look, plain=p) for p in (False, True))
        alike = np.corrcoef(np.abs(np.fft.rfft(varied)), np.abs(np.fft.rfft(plain)))[0, 1]
        same.append(alike > 0.9)
    assert 15 <= sum(same) <= 48, "drawn anew for each, and not for all"
