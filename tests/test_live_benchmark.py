"""The live benchmark runs to its end against a server process and writes its rows; its figures are for a quiet machine."""

import json

import pytest

from anymodal.testing_bundle import random_bundle
from benchmarks import live

pytestmark = pytest.mark.timeout(300)


def test_the_benchmark_writes_its_rows(tmp_path, capsys):
    bundle = random_bundle(tmp_path, runtime={"perception": {"threads": 1}, "mind": {"threads": 1}})
    rows = live.main(["--model", str(bundle), "--clients", "2", "1", "--seconds", "2", "--turns", "1", "--minutes", "0.1",
                      "--speed", "20", "--json", str(tmp_path / "rows.json")])
    written = {(row["measure"], row.get("case", "")): row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert len(written) == len(rows)
    for case in ("1 client", "2 clients"):
        assert 0 < written["live_ttft_p50", case]["ours"] <= written["live_ttft_p95", case]["ours"]
        waited = written["live_capture_to_window_p50", case]
        assert waited["ours"] > waited["baseline"] > 0, "a window is told after it is full"
        assert written["live_cpu_load", case]["ours"] > 0 and written["live_stale_p95", case]["ours"] >= 0
        assert 0 <= written["live_drops", case]["ours"] <= written["live_drops", case]["baseline"]
    assert written["live_drops", "2 clients"]["baseline"] == 2 * written["live_drops", "1 client"]["baseline"] > 0
    assert written["live_ttft_vs_resend", ""]["target"] == 0.2 and written["live_ttft_vs_resend", ""]["baseline"] > 0
    assert 0 < written["reconnect_s", ""]["ours"] < 60
    memory = written["live_memory_min0.1_vs_min0.05", ""]
    assert memory["target"] == 1.05 and memory["ours"] > 50, "MiB: torch alone takes more"
    assert "frames, " in capsys.readouterr().out
    assert all(row["at_most"] for row in written.values())


def test_what_makes_no_sense_is_refused(capsys):
    with pytest.raises(SystemExit):
        live.main(["--clients", "0"])
    assert "--clients" in capsys.readouterr().err
