"""Audio on the grid: sample n is the sound at n / rate_hz, in every container, whatever the stream's start."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from anymodal.media import StreamSpec, open_media, probe  # noqa: E402
from anymodal.media.audio import AudioReader  # noqa: E402
from anymodal.testing import gradient_frame, make_audio, make_video, make_wav  # noqa: E402


def read(path, rate_hz: int = 16000, **options) -> tuple[float, np.ndarray]:
    """(time of the first sample, all samples), after checking that the packets have no hole."""
    with open_media(path, {"audio": StreamSpec("audio", rate_hz)}, **options) as source:
        packets = list(source)
    assert all(p.data.dtype == np.float32 and p.data.ndim == 1 and p.rate_hz == rate_hz for p in packets)
    assert all(0 < len(p.data) <= 0.25 * rate_hz for p in packets)
    at = packets[0].pts_s
    for packet in packets:
        assert packet.pts_s == pytest.approx(at, abs=1e-9)
        at += len(packet.data) / rate_hz
    return packets[0].pts_s, np.concatenate([p.data for p in packets])


def clicks(rate_hz: int, at: list[int], length: int) -> np.ndarray:
    """Silence with a smooth click (1 ms wide, which no codec or resampler can smear much) at each sample of `at`."""
    samples = np.zeros(length, np.float32)
    half = rate_hz // 500
    bump = 0.9 * np.hanning(2 * half + 1).astype(np.float32)
    for n in at:
        samples[n - half : n + half + 1] += bump
    return samples


def peaks(samples: np.ndarray, rate_hz: int, count: int) -> list[int]:
    samples, found = np.abs(samples.copy()), []
    for _ in range(count):
        found.append(int(np.argmax(samples)))
        samples[max(0, found[-1] - rate_hz // 50) : found[-1] + rate_hz // 50] = 0
    return sorted(found)


LOSSLESS = {
    "a.wav": "pcm_s16le", "f.wav": "pcm_f32le", "a.mov": "pcm_s24le",
    "a.flac": "flac", "a.mkv": "flac", "a.ogg": "flac",
}
LOSSY = {"a.mp3": "libmp3lame", "o.ogg": "libopus", "a.m4a": "aac", "a.webm": "libopus", "a.ts": "aac"}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_audio_is_exact_at_its_own_rate(tmp_path, name):
    rng = np.random.default_rng(3)
    samples = (rng.integers(-30000, 30000, 10_001) / 32768).astype(np.float32)
    path = make_audio(tmp_path / name, samples, 16000, LOSSLESS[name])
    start_s, found = read(path)
    assert start_s == 0
    assert np.array_equal(found, samples)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("source_hz, rate_hz", [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 44100)])
def test_a_click_lands_on_its_sample_after_resampling(tmp_path, name, source_hz, rate_hz):
    at = [source_hz // 5, source_hz // 2 + 7, source_hz + 3]
    path = make_audio(tmp_path / name, clicks(source_hz, at, 3 * source_hz // 2), source_hz, LOSSLESS[name])
    _, found = read(path, rate_hz)
    assert len(found) == -(-3 * source_hz // 2 * rate_hz // source_hz)
    assert peaks(found, rate_hz, 3) == [round(n * rate_hz / source_hz) for n in at]


@pytest.mark.parametrize("name", LOSSY)
def test_a_click_through_a_lossy_codec_lands_within_a_few_samples(tmp_path, name):
    source_hz = 48000
    at = [source_hz // 5, source_hz // 2 + 7, source_hz + 3]
    path = make_audio(tmp_path / name, clicks(source_hz, at, 2 * source_hz), source_hz, LOSSY[name])
    _, found = read(path, 16000)
    expected = np.array([n / 3 for n in at])
    shift = 1024 / 3 if name == "a.ts" else 0  # a transport stream has no edit list: the encoder's delay stays
    assert np.abs(np.array(peaks(found, 16000, 3)) - expected - shift).max() <= 4


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source_hz=st.sampled_from([8000, 11025, 22050, 44100, 48000]),
    rate_hz=st.sampled_from([8000, 16000, 24000, 44100]),
    start_ms=st.integers(0, 37).map(lambda k: 40 * k),  # what a mov edit list and every rate can tell exactly
    length_ms=st.integers(60, 700),
)
def test_the_streams_own_start_places_it_exactly(tmp_path, source_hz, rate_hz, start_ms, length_ms):
    click = source_hz * length_ms // 2000
    start = start_ms * source_hz // 1000
    samples = clicks(source_hz, [click], source_hz * length_ms // 1000)
    path = make_video(
        tmp_path / "late.mov",
        [gradient_frame(16, i) for i in range(60)],
        audio=samples,
        audio_hz=source_hz,
        audio_codec="pcm_s16le",
        audio_start_s=start / source_hz,
    )
    specs = {"video": StreamSpec("video", 2, 16), "audio": StreamSpec("audio", rate_hz)}
    with open_media(path, specs) as source:
        packets = [p for p in source if p.stream == "audio"]
    found = np.concatenate([p.data for p in packets])
    assert packets[0].pts_s == 0  # silence until the stream starts
    assert len(found) == -(-(start + len(samples)) * rate_hz // source_hz)
    expected = (start + click) * rate_hz / source_hz
    assert abs(peaks(found, rate_hz, 1)[0] - expected) <= 0.51
    assert np.abs(found[: max(0, int(expected) - rate_hz // 100)]).max(initial=0) < 0.02


def test_resampling_agrees_with_resampling_the_whole_at_once(tmp_path):
    rng = np.random.default_rng(0)
    t_s = np.arange(44100) / 44100
    samples = sum(np.sin(2 * np.pi * f * t_s + rng.uniform(0, 6)) for f in (220, 1000, 3300)).astype(np.float32) / 4
    path = make_audio(tmp_path / "tones.wav", samples, 44100, "pcm_f32le")
    _, found = read(path)
    frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
    frame.sample_rate = 44100
    resampler = av.AudioResampler("flt", "mono", 16000)
    whole = np.concatenate([f.to_ndarray()[0] for f in [*resampler.resample(frame), *resampler.resample(None)]])
    assert np.abs(found - whole[: len(found)]).max() < 1e-5
    exact = sum(np.interp(np.arange(16000) / 16000, t_s, samples) for _ in range(1))
    assert np.abs(found - exact)[100:-100].max() < 0.05


def test_mono_is_the_mean_of_the_channels(tmp_path):
    left, right = np.full(1600, 0.5, np.float32), np.full(1600, -0.25, np.float32)
    _, found = read(make_audio(tmp_path / "stereo.wav", np.stack([left, right]), 16000, "pcm_f32le"))
    assert np.allclose(found, 0.125)
    six = np.stack([np.full(1600, k / 10, np.float32) for k in range(6)])
    _, found = read(make_audio(tmp_path / "six.wav", six, 16000, "pcm_f32le"))
    assert np.allclose(found, 0.25, atol=1e-6)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f64le", "pcm_mulaw"])
def test_every_sample_format(tmp_path, codec):
    t_s = np.arange(16000) / 16000
    samples = (0.5 * np.sin(2 * np.pi * 440 * t_s)).astype(np.float32)
    _, found = read(make_audio(tmp_path / "a.wav", samples, 16000, codec))
    assert len(found) == 16000
    assert np.abs(found - samples).max() < 0.03


def with_gap(path, gap_s: float, rate_hz: int = 16000) -> tuple[np.ndarray, int]:
    """A file whose pts jump by `gap_s` after one second. Returns the sound and the index of the gap."""
    samples = clicks(rate_hz, [rate_hz // 2, rate_hz + 3 * rate_hz // 8], 2 * rate_hz)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        for at in range(0, len(samples), 1600):
            piece = (samples[None, at : at + 1600] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = at + (round(gap_s * rate_hz) if at >= rate_hz else 0)
            out.mux(stream.encode(frame))
    return samples, rate_hz


def test_a_gap_becomes_silence_and_later_sound_keeps_its_time(tmp_path):
    samples, at = with_gap(tmp_path / "gap.mkv", 0.75)
    _, found = read(tmp_path / "gap.mkv")
    assert len(found) == len(samples) + 12000
    assert np.allclose(found[at : at + 12000], 0)
    assert peaks(found, 16000, 2) == [8000, 16000 + 6000 + 12000]


def test_a_jitter_of_the_times_is_no_gap(tmp_path):
    samples, _ = with_gap(tmp_path / "jitter.mkv", 0.004)
    _, found = read(tmp_path / "jitter.mkv")
    assert len(found) == len(samples)


@pytest.mark.parametrize(
    "name, codec", [("a.wav", "pcm_s16le"), ("a.m4a", "aac"), ("a.mp3", "libmp3lame"), ("a.flac", "flac")]
)
def test_a_span_is_what_the_whole_has_there(tmp_path, name, codec):
    rng = np.random.default_rng(1)
    samples = (0.1 * rng.standard_normal(44100 * 14)).astype(np.float32)
    path = make_audio(tmp_path / name, samples, 44100, codec)
    _, whole = read(path)
    start_s, found = read(path, start_s=12.3, end_s=13.1)
    assert start_s == pytest.approx(12.3)
    assert len(found) == 12800
    assert np.abs(found - whole[196800 : 196800 + 12800]).max() < 1e-5


def test_missing_durations_are_found(tmp_path):
    path = make_audio(tmp_path / "raw.aac", np.zeros(48000, np.float32), 48000, "aac", container_format="adts")
    assert probe(path).duration_s == pytest.approx(1.0, abs=0.05)
    reader = AudioReader(path)
    assert float(reader.measure()) == pytest.approx(1.0, abs=0.05)
    reader.close()


def test_several_streams_are_selectable(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(2)]
        for k, stream in enumerate(streams):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 1000 * (k + 1), np.int16), "s16", "mono")
            frame.sample_rate = 16000
            out.mux(stream.encode(frame))
    assert read(path)[1].mean() == pytest.approx(1000 / 32768)
    assert read(path, audio_stream=1)[1].mean() == pytest.approx(2000 / 32768)


def test_a_wav_that_python_wrote(tmp_path):
    samples = clicks(22050, [5000], 11025)
    _, found = read(make_wav(tmp_path / "w.wav", samples, 22050), 22050)
    assert np.abs(found - samples).max() < 1e-4


def test_aac_read_on_in_the_middle_is_what_it_is_read_from_the_start(tmp_path):
    """Its noise goes on from all before: a session that goes on after a kill would see another sound."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16 * 44100).clip(-1, 1).astype(np.float32)
    path = make_audio(tmp_path / "noise.mp4", noise, 44100, codec="aac", options={"b": "32k"})
    reader = AudioReader(path)
    whole = np.concatenate([samples for _, samples in reader.sample(reader.start, 16000)])
    rest = AudioReader(path)
    later = np.concatenate([samples for _, samples in rest.sample(rest.start, 16000, Fraction(13))])
    assert np.array_equal(later, whole[13 * 16000 :])
