"""Sensor tables beside a clip: found, read, checked, resampled."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from anymodal.errors import SidecarError
from anymodal.media import StreamSpec, find_sidecars, open_media, read_sidecar
from anymodal.media.sidecar import IMU_AXES, resample
from anymodal.testing import make_imu_csv, make_wav

AXES = ("accel_x_m_s2", "gyro_z_rad_s")


def test_sidecars_are_found_by_name(tmp_path):
    kinds = ("mp4", "imu.csv", "imu.jsonl", "depth.jsonl", "json", "a.b.csv")
    for name in ("clip2.imu.csv", *(f"clip.{kind}" for kind in kinds)):
        (tmp_path / name).write_text("")
    found = find_sidecars(tmp_path / "clip.mp4")
    assert {k: v.name for k, v in found.items()} == {"imu": "clip.imu.csv", "depth": "clip.depth.jsonl"}
    (tmp_path / "we[i]rd.imu.csv").write_text("")
    assert "imu" in find_sidecars(tmp_path / "we[i]rd.mp4")
    assert find_sidecars(tmp_path / "nowhere" / "clip.mp4") == {}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_both_formats_read_alike_whatever_the_order_of_columns(tmp_path, suffix):
    path = tmp_path / f"clip.imu.{suffix}"
    rows = [{"note": 7, "gyro_z_rad_s": -k, "time_s": k / 10, "accel_x_m_s2": 2.5 * k} for k in range(5)]
    if suffix == "csv":
        lines = [",".join(rows[0])] + [",".join(str(v) for v in row.values()) for row in rows]
        path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    times_s, readings = read_sidecar(path, AXES)
    assert np.allclose(times_s, np.arange(5) / 10)
    assert np.allclose(readings, [[2.5 * k, -k] for k in range(5)]) and readings.dtype == np.float32


GOOD = "time_s,accel_x_m_s2,gyro_z_rad_s\n0,1,2\n0.1,1,2\n"
BAD_CSV = {
    "unsorted": (GOOD + "0.05,1,2\n", "line 4: time_s 0.05 comes after 0.1", "sort"),
    "duplicate": (GOOD + "0.1,1,2\n", "line 4: time_s 0.1 is repeated", "duplicates"),
    "time no number": (GOOD + "soon,1,2\n", "line 4: time_s is 'soon', not a number", "finite"),
    "time NaN": (GOOD + "nan,1,2\n", "line 4: time_s is 'nan'", "finite"),
    "time missing": (GOOD + ",1,2\n", "line 4: time_s is ''", "finite"),
    "reading no number": (GOOD + "0.2,x,2\n", "line 4: accel_x_m_s2 is 'x'", "finite"),
    "reading infinite": (GOOD + "0.2,1,inf\n", "gyro_z_rad_s is 'inf'", "finite"),
    "short row": (GOOD + "0.2,1\n", "line 4: 2 cells, the header has 3", "one cell per column"),
    "missing column": ("time_s,accel_x_m_s2,gyro_z_deg_s\n0,1,2\n", "no column 'gyro_z_rad_s'", "gyro_z_deg_s"),
    "no time column": ("t,accel_x_m_s2,gyro_z_rad_s\n0,1,2\n", "no column 'time_s'", "known"),
    "no header": ("", "no column 'time_s'", "header"),
    "no rows": ("time_s,accel_x_m_s2,gyro_z_rad_s\n", "has no readings", "reading"),
    "binary": ("time_s\0,\0", "no column", "did you mean"),
}


@pytest.mark.parametrize("what", BAD_CSV)
def test_a_bad_table_says_where_and_how_to_mend_it(tmp_path, what):
    text, message, fix = BAD_CSV[what]
    path = tmp_path / "clip.imu.csv"
    path.write_text(text)
    with pytest.raises(SidecarError) as raised:
        read_sidecar(path, AXES)
    assert message in raised.value.message and fix in raised.value.fix
    assert str(path) in raised.value.message and raised.value.exit_code == 3
    if "column" in what:
        assert "accel_x_m_s2, gyro_z_rad_s" in raised.value.message  # the columns wanted


BAD_JSONL = {
    "not JSON": ("{", "line 1: not JSON"),
    "no object": ("[1, 2]", "line 1: not a JSON object"),
    "missing key": ('{"time_s": 0, "accel_x_m_s2": 1}', "no column 'gyro_z_rad_s'"),
    "text": ('{"time_s": "now", "accel_x_m_s2": 1, "gyro_z_rad_s": 0}', "time_s is 'now'"),
    "null": ('{"time_s": 0, "accel_x_m_s2": null, "gyro_z_rad_s": 0}', "accel_x_m_s2 is None"),
    "true": ('{"time_s": 0, "accel_x_m_s2": true, "gyro_z_rad_s": 0}', "accel_x_m_s2 is True"),
}


@pytest.mark.parametrize("what", BAD_JSONL)
def test_a_bad_jsonl_says_where(tmp_path, what):
    text, message = BAD_JSONL[what]
    path = tmp_path / "clip.imu.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(SidecarError, match="mend|number|object|known|did you mean|header") as raised:
        read_sidecar(path, AXES)
    assert message in raised.value.message


def test_a_file_that_is_no_text_or_not_there(tmp_path):
    path = tmp_path / "clip.imu.csv"
    path.write_bytes(b"\xff\xfe\x00time")
    with pytest.raises(SidecarError, match="UTF-8"):
        read_sidecar(path, AXES)
    with pytest.raises(SidecarError, match="no sidecar"):
        read_sidecar(tmp_path / "none.csv", AXES)


def test_resampling_is_linear_between_readings_and_does_not_bridge_gaps():
    times_s = np.array([-0.05, 0.15, 0.3, 1.5, 1.62])
    readings = np.stack([2 * times_s, -times_s], axis=1).astype(np.float32)
    runs = list(resample(times_s, readings, Fraction(10)))
    assert [(first, len(rows)) for first, rows in runs] == [(0, 4), (15, 2)]
    for first, rows in runs:
        grid_s = (first + np.arange(len(rows))) / 10
        assert np.allclose(rows, np.stack([2 * grid_s, -grid_s], axis=1), atol=1e-6)
    assert list(resample(np.array([0.01, 0.02]), np.zeros((2, 1), np.float32), Fraction(10))) == []


def test_a_sensor_comes_with_its_clip_and_ends_with_it(tmp_path):
    pytest.importorskip("av")
    clip = make_wav(tmp_path / "clip.wav", np.zeros(16000 * 2 + 800, np.float32), 16000)
    times_s = np.arange(0, 6, 0.013)
    readings = np.stack([np.sin(times_s + k) for k in range(6)], axis=1)
    make_imu_csv(tmp_path / "clip.imu.csv", times_s, readings, IMU_AXES)
    specs = {"audio": StreamSpec("audio", 16000), "imu": StreamSpec("imu", 50, axes=IMU_AXES)}
    with open_media(clip, specs) as source:
        packets = [p for p in source if p.stream == "imu"]
        assert source.duration_s == pytest.approx(2.05)
    found = np.concatenate([p.data for p in packets])
    assert packets[0].pts_s == 0 and len(found) == 103  # 0 ... 2.04 s
    assert np.abs(found[:, 0] - np.sin(np.arange(103) / 50)).max() < 1e-3


def test_times_on_another_clock_are_told(tmp_path):
    pytest.importorskip("av")
    clip = make_wav(tmp_path / "clip.wav", np.zeros(16000, np.float32), 16000)
    make_imu_csv(tmp_path / "clip.imu.csv", 1.7e9 + np.arange(9), np.ones((9, 6)), IMU_AXES)
    specs = {"audio": StreamSpec("audio", 16000), "imu": StreamSpec("imu", 50, axes=IMU_AXES)}
    with open_media(clip, specs) as source:
        assert {p.stream for p in source} == {"audio"}
        assert "after the clip's end" in source.warnings[0]


def test_a_sidecar_can_be_named(tmp_path):
    pytest.importorskip("av")
    clip = make_wav(tmp_path / "clip.wav", np.zeros(16000, np.float32), 16000)
    table = make_imu_csv(tmp_path / "other.csv", np.array([0.0, 0.4, 0.8]), np.ones((3, 1)), ("depth_m",))
    specs = {"depth": StreamSpec("depth", 5, axes=("depth_m",))}
    with open_media(clip, specs, {"depth": table}) as source:
        assert sum(len(p.data) for p in source) == 5
    with pytest.raises(SidecarError, match="did you mean 'depth'"):
        open_media(clip, specs, {"dept": table})
