"""The benchmark of another renderer asks the same of both sets of clips, and draws what the truth says."""

import json

import numpy as np
import pytest
from PIL import ImageColor

from anymodal.playground.files import clip_truth
from anymodal.playground.world import SHAPES
from benchmarks import transfer


def test_the_benchmark_writes_its_rows(tmp_path):
    made = transfer.main(["--clips", "2", "--split", "val", "--seed", "7", "--json", str(tmp_path / "rows.json"),
                          "--keep", str(tmp_path / "clips")])
    written = json.loads((tmp_path / "rows.json").read_text())
    assert {"count", "exists", "transfer_overall"} < {row["measure"] for row in written} == {row.measure for row in made}
    assert all(0 <= row["ours"] <= 100 and 0 <= row["baseline"] <= 100 for row in written)
    assert len([*(tmp_path / "clips").glob("*.mp4")]) == len([*(tmp_path / "clips").glob("*.imu.csv")]) == 2


@pytest.mark.parametrize("number", range(4))
def test_things_are_where_the_scene_has_them_in_their_colours(number):
    scene, found, of = clip_truth("val", 8, number, seconds=4.0).scene, 0, 0
    frames = transfer.pictures(scene, np.random.default_rng(number))
    assert len(frames) == 4 * transfer.RATE_HZ
    for k in range(0, len(frames), 20):
        height, width, _ = frames[k].shape
        for thing in scene.things:
            (x,), (y,) = thing.at(np.array([k / transfer.RATE_HZ]))
            if thing.shape == "ring" or not thing.visible(np.array([k / transfer.RATE_HZ]))[0]:
                continue
            shown = frames[k][int(y * height), int(x * width)].astype(int)
            named = [ImageColor.getrgb(p[thing.color_at(k / transfer.RATE_HZ)]) for p in transfer.PALETTES]
            found, of = found + (min(np.abs(shown - rgb).max() for rgb in named) < 8), of + 1
    assert found >= 0.9 * of > 2, "but where one thing hides another"


def test_shapes_have_corners_of_their_own():
    assert {shape: len(transfer._corners(shape)) for shape in SHAPES if shape not in ("circle", "ring")} == {
        "square": 4, "triangle": 3, "star": 10, "cross": 12}
