"""The streaming benchmark runs to its end and writes what it says; its figures are for a quiet machine."""

import json

import pytest

from benchmarks import streaming, streaming_actors


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


@pytest.mark.parametrize("case", ["tiny", "large"])
def test_the_end_of_a_whole_run_has_one_name(case):
    def point(minute):
        return streaming.Point(minute, *[0.1] * 6, resident=2**30, tokens=9)

    run = streaming.Run(case, None, [], 60, 9, points=[point(m) for m in (1, 10, 60 * streaming.HOURS[case])])
    assert [(r.measure, r.case) for r in streaming.endurance(run)] == [
        ("memory_h8_vs_min10", case), ("window_p95_h8_vs_min10", case)]
    assert {1, 10, 60} <= {*streaming.MINUTES[case]}, "what rows compare is measured"


def test_rows_over_actors_say_their_case():
    rows = streaming_actors.rows("tiny", 9.0, 10.0, {1: 0.1, 16: 0.14, 32: 0.3})
    assert [(r.measure, r.case, r.verdict) for r in rows] == [
        ("ingest_vs_bound", "tiny", "ok"), ("answer_p95_16_vs_1", "tiny", "ok"), ("answer_p95_32_vs_1", "tiny", "")]
    assert all(row.to_json()["case"] == "tiny" for row in rows)
