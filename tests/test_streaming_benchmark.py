"""The streaming benchmark runs to its end and writes what it says; its figures are for a quiet machine."""

import json

from benchmarks import streaming


def test_the_benchmark_writes_its_rows_and_a_picture(tmp_path):
    rows = streaming.main(["--quick", "--case", "tiny", "--json", str(tmp_path / "rows.json"),
                           "--picture", str(tmp_path / "curves.png")])
    written = {row["measure"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert written.keys() == {row.measure for row in rows} >= {
        "ttft_10min_vs_rebuild", "ttft_10min_vs_last4", "memory_min24_vs_min10", "window_p95_min24_vs_min10",
        "fork32_memory_vs_copy", "gate_streams", "gate_accuracy"}
    assert all(row["case"] == "tiny" and row["ours"] > 0 and row["baseline"] > 0 for row in written.values())
    assert written["fork32_memory_vs_copy"]["ratio"] < 0.3, "a prefix of 256 tokens here, of 4,096 in earnest"
    assert written["gate_accuracy"]["target"] == 0.99 and not written["gate_accuracy"].get("at_most")
    assert written["ttft_10min_vs_rebuild"]["at_most"] and (tmp_path / "curves.png").stat().st_size > 10_000
