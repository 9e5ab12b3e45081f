"""A file's windows: what the agent sees."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("av")

from anymodal.media import StreamSpec, probe, read_windows, stream_specs  # noqa: E402
from anymodal.media.sidecar import IMU_AXES  # noqa: E402
from anymodal.testing import gradient_frame, make_imu_csv, make_video  # noqa: E402

BUNDLE = SimpleNamespace(
    window_s=1.0,
    modalities={
        "video": SimpleNamespace(rate_hz=4, size_px=32, axes=()),
        "audio": SimpleNamespace(rate_hz=16000, size_px=None, axes=()),
        "imu": SimpleNamespace(rate_hz=50, size_px=None, axes=IMU_AXES),
    },
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    t_s = np.arange(5 * 44100) / 44100
    make_video(
        folder / "clip.mp4",
        [gradient_frame(64, i, 48) for i in range(125)],
        audio=(0.3 * np.sin(2 * np.pi * 300 * t_s)).astype(np.float32),
    )
    times_s = np.arange(0, 6, 0.01)
    make_imu_csv(folder / "clip.imu.csv", times_s, np.stack([np.sin(times_s + k) for k in range(6)], 1), IMU_AXES)
    return folder / "clip.mp4"


def test_a_clip_of_five_seconds_is_five_full_windows(clip):
    with read_windows(clip, BUNDLE) as reader:
        windows = list(reader)
        assert reader.duration_s == pytest.approx(5.0, abs=0.03)
        assert (reader.dropped, reader.warnings) == (0, [])
        assert set(reader.streams) == {"video", "audio", "imu"}
    assert [(w.index, w.t0_s, w.t1_s, dict(w.dropped)) for w in windows] == [(k, k, k + 1.0, {}) for k in range(5)]
    for k, window in enumerate(windows):
        shapes = {name: s.data.shape for name, s in window.signals.items()}
        assert shapes == {"video": (4, 32, 32, 3), "audio": (16000,), "imu": (50, 6)}
        assert all(s.t0_s == k and s.modality == name for name, s in window.signals.items())
        grid_s = k + np.arange(50) / 50
        assert np.abs(window.signals["imu"].data[:, 2] - np.sin(grid_s + 2)).max() < 1e-3


def test_as_of_a_time_only_windows_that_had_ended(clip):
    whole = list(read_windows(clip, BUNDLE))
    for at_s, count in [(0.0, 0), (0.99, 0), (1.0, 1), (2.9999999, 3), (3.5, 3), (5.0, 5), (5.9, 5)]:
        part = list(read_windows(clip, BUNDLE, at_s=at_s))
        assert [w.index for w in part] == list(range(count)), at_s
        for a, b in zip(part, whole):
            assert all(np.array_equal(a.signals[n].data, b.signals[n].data) for n in b.signals)


def test_reading_can_resume_at_a_window(clip):
    whole = list(read_windows(clip, BUNDLE))
    rest = list(read_windows(clip, BUNDLE, first_window=3))
    assert [w.index for w in rest] == [3, 4]
    for a, b in zip(rest, whole[3:]):
        assert all(np.allclose(a.signals[n].data, b.signals[n].data, atol=1e-6) for n in b.signals)


def test_windows_come_while_the_file_is_decoded(clip):
    reader = read_windows(clip, BUNDLE)
    assert next(reader).index == 0
    assert reader.duration_s is None  # the end was not reached yet
    reader.close()
    assert list(reader) == []


def test_a_probe_tells_what_is_there(clip):
    info = probe(clip)
    assert info.has_video and info.has_audio and not info.is_image and set(info.sidecars) == {"imu"}
    video, audio = info.first("video"), info.first("audio")
    assert (video.codec, video.width_px, video.height_px, video.rate_hz) == ("h264", 64, 48, 25.0)
    assert (audio.codec, audio.rate_hz, audio.channels) == ("aac", 44100.0, 1)
    assert info.duration_s == pytest.approx(5.0, abs=0.05)


def test_a_still_image_is_one_window(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.jpg"), "w", format="image2") as out:
        stream = out.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(gradient_frame(64, 0, 48), "rgb24").reformat(format="yuvj420p")
        out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    windows = list(read_windows(tmp_path / "a.jpg", BUNDLE))
    assert [(w.index, w.signals["video"].data.shape) for w in windows] == [(0, (1, 32, 32, 3))]


def test_specs_come_from_a_bundle():
    specs = stream_specs(BUNDLE.modalities)
    assert specs["imu"] == StreamSpec("imu", 50, None, IMU_AXES)
    assert stream_specs(specs) == specs
    with pytest.raises(ValueError, match="rate_hz"):
        StreamSpec("video", 0)


def test_the_package_is_light_until_used():
    code = (
        "import sys, anymodal.media, anymodal.testing; from anymodal.media import Windower, StreamSpec;"
        "heavy = {'av', 'decord', 'torch', 'ray'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
