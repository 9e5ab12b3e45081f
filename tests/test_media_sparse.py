"""Sparse frames: decord and PyAV give the same frames at the same pts; nothing hangs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("decord")

from anymodal.errors import InputError, MediaError, QuestionError  # noqa: E402
from anymodal.media import StreamSpec, open_media, sparse, sparse_frames  # noqa: E402
from anymodal.media.video import VideoReader  # noqa: E402
from anymodal.testing import gradient_frame, make_audio, make_video  # noqa: E402

TIMES_S = [0.9, 0.0, 0.31, 0.31, 1.0, 99.0]
FILES = {
    "a.mp4": {"options": {"bf": "3", "g": "10"}},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx-vp9"},
    "a.ts": {},
    "vfr.mp4": {"pts": (np.arange(30) ** 1.2 * 25).astype(int).tolist(), "time_base": Fraction(1, 1000)},
    "late.mp4": {"pts": list(range(10, 40))},
    "turned.mp4": {"rotation_deg": 90},
    "ten-bit.mp4": {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sparse")


def clip(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        make_video(path, [gradient_frame(96, i, 64) for i in range(30)], **FILES[name])
    return path


@pytest.mark.parametrize("size_px", [96, None])
@pytest.mark.parametrize("name", FILES)
def test_both_backends_agree(folder, name, size_px):
    path = clip(folder, name)
    frames, pts_s = sparse_frames(path, TIMES_S, size_px, "decord")
    expected, expected_s = sparse_frames(path, TIMES_S, size_px, "pyav")
    assert np.array_equal(pts_s, expected_s) and pts_s.dtype == np.float64
    assert frames.shape == expected.shape == (len(TIMES_S), *frames.shape[1:]) and frames.dtype == np.uint8
    difference = np.abs(frames.astype(int) - expected)
    assert difference.mean(axis=(1, 2, 3)).max() <= sparse.DECORD_TOLERANCE
    neighbour = np.abs(np.diff(expected[[1, 0]].astype(int), axis=0)).mean()
    assert neighbour > 5 * sparse.DECORD_TOLERANCE  # the tolerance tells one frame from another


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "vfr.mp4", "late.mp4", "turned.mp4"])
def test_it_is_decord_that_answers(folder, name):
    path = clip(folder, name)
    reader = VideoReader(path, 96)
    assert sparse._by_decord(path, reader, [reader.start], 30.0) is not None
    reader.close()


def test_the_frame_is_the_last_at_or_before_its_time(folder):
    path = clip(folder, "vfr.mp4")
    with open_media(path, {"video": StreamSpec("video", 20, 96)}) as source:
        on_grid = {p.pts_s: p.data for p in source}
    frames, pts_s = sparse_frames(path, list(on_grid), 96, "pyav")
    assert all(at <= t + 1e-9 for at, t in zip(pts_s, on_grid))
    assert all(np.array_equal(a, b) for a, b in zip(frames, on_grid.values()))


def test_times_count_from_the_earliest_stream(tmp_path):
    pictures = [gradient_frame(32, i) for i in range(10)]
    path = make_video(
        tmp_path / "a.mkv", pictures, pts=[i + 10 for i in range(10)], audio=np.zeros(16000, np.float32), audio_hz=16000
    )
    _, pts_s = sparse_frames(path, [0.0, 0.5], 32, "pyav")
    assert pts_s == pytest.approx([0.4, 0.48], abs=0.03)


def test_no_times_no_frames(folder):
    frames, pts_s = sparse_frames(clip(folder, "a.mp4"), [], 96)
    assert frames.shape == (0, 96, 96, 3) and pts_s.shape == (0,)


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_broken_file_gives_frames_or_an_error_but_never_hangs(folder, tmp_path, damage):
    data = bytearray(clip(folder, "a.mkv").read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 3 :] = np.random.default_rng(0).bytes(len(data) - len(data) // 3)
    path = tmp_path / "broken.mkv"
    path.write_bytes(data)
    frames, pts_s = sparse_frames(path, [0.0, 0.2, 5.0], 96, timeout_s=20)
    assert len(frames) == len(pts_s) == 3 and np.abs(frames[0].astype(int) - frames[1]).mean() > 1


def test_a_hang_ends_in_an_error_and_the_next_call_works(folder, monkeypatch, tmp_path):
    path = clip(folder, "a.mp4")
    stuck = tmp_path / "decord_worker.py"
    stuck.write_text("import time\ntime.sleep(600)\n")
    sparse._worker.stop()
    with monkeypatch.context() as patch:
        patch.setattr(sparse, "__file__", str(tmp_path / "sparse.py"))
        with pytest.raises(MediaError, match="no frame within 0.5 s") as raised:
            sparse_frames(path, [0.0], 96, timeout_s=0.5)
    assert "pyav" in raised.value.fix and sparse._worker._process is None
    assert sparse_frames(path, [0.0], 96)[0].shape == (1, 96, 96, 3)


def test_a_crash_falls_back_to_pyav(folder, monkeypatch, tmp_path):
    path = clip(folder, "a.mp4")
    (tmp_path / "decord_worker.py").write_text("import os\nos.abort()\n")
    sparse._worker.stop()
    monkeypatch.setattr(sparse, "__file__", str(tmp_path / "sparse.py"))
    assert sparse_frames(path, [0.5], 96)[1] == pytest.approx([0.48])
    sparse._worker.stop()


def test_bad_requests(folder, tmp_path):
    path = clip(folder, "a.mp4")
    with pytest.raises(InputError, match="unknown backend"):
        sparse_frames(path, [0.0], backend="opencv")
    for time_s in (-0.5, float("nan"), float("inf")):
        with pytest.raises(QuestionError, match="begins at 0"):
            sparse_frames(path, [time_s])
    with pytest.raises(MediaError, match="no file"):
        sparse_frames(tmp_path / "none.mp4", [0.0])
    with pytest.raises(MediaError, match="no decodable video"):
        sparse_frames(make_audio(tmp_path / "a.wav", np.zeros(800, np.float32), 8000), [0.0])
