"""The decode benchmark compares the same frames, and writes the rows it promises."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("decord")

from anymodal.testing import gradient_frame, make_video, make_wav  # noqa: E402
from benchmarks.decode import RATES_HZ, by_decord, main, measure, naive_pyav, ours  # noqa: E402
from benchmarks.report import best_of_interleaved, report  # noqa: E402


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = [gradient_frame(128, i, 96) for i in range(40)]
    return make_video(tmp_path_factory.mktemp("bench") / "clip.mp4", frames, options={"bf": "2"})


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_all_three_ways_bring_the_same_frames(clip, rate_hz):
    mine, decord, naive = (way(clip, rate_hz) for way in (ours, by_decord, naive_pyav))
    assert mine.shape == naive.shape == decord.shape and mine.shape[1:] == (224, 224, 3)
    assert np.array_equal(mine, naive)
    assert np.abs(mine.astype(int) - decord).mean() < 2


def test_the_rows_are_written(clip, tmp_path, capsys):
    rows = measure([clip], repeats=1)
    report("title", rows, tmp_path / "rows.json")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert all({"measure", "ours", "baseline", "ratio", "target"} <= row.keys() for row in written)
    summary = {row["measure"]: row for row in written}
    assert summary["decode_vs_decord"]["target"] == 1.0 and summary["decode_vs_naive_pyav"]["target"] == 2.0
    for row in written:
        assert row["ratio"] == pytest.approx(row["baseline"] / row["ours"], rel=1e-3)
    assert "decode_vs_naive_pyav" in capsys.readouterr().out


def test_contenders_take_turns():
    order = []
    times_s = best_of_interleaved([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert order == ["a", "b", "b", "a", "a", "b"] and all(0 <= t < 1 for t in times_s)


def test_what_cannot_be_measured_or_written_is_said_first(clip, tmp_path, monkeypatch, capsys):
    sound = make_wav(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000)
    for arguments, wanted in (([tmp_path / "missing.mp4"], "no file"), ([sound], "has no video"),
                              ([clip, "--json", tmp_path / "nowhere" / "a.json"], "a.json cannot be written")):
        monkeypatch.setattr("sys.argv", ["decode", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and wanted in capsys.readouterr().err
