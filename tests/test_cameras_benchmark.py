"""The benchmark of depth and heat asks about every second, and tells what it was right in."""

import json

from anymodal.playground.questions import FIELDS
from benchmarks import cameras


def test_the_benchmark_writes_its_rows(tmp_path):
    made = cameras.main(["--clips", "4", "--json", str(tmp_path / "rows.json")])
    written = json.loads((tmp_path / "rows.json").read_text())
    assert {row["measure"] for row in written} == set(FIELDS) == {row.measure for row in made}
    for row in written:
        assert 0 < row["baseline"] < row["ours"] <= 100 and row["target"] == 0.9, row
    assert all(int(row["unit"].split()[-1]) > 20 for row in written if row["measure"] != "warmer"), "of every second"
