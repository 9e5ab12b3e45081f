"""What `anymodal train` shows: rate and time left, and a picture of the curves."""

import json

import pytest


def test_the_curves_are_drawn_and_a_resumed_run_counts_once(tmp_path):
    from anymodal.training.curves import draw_curves, read_metrics

    metrics = tmp_path / "metrics.jsonl"
    rows = [{"stage": "frames", "step": s, "steps": 80, "time": 1.0 + n, "steps_per_s": 2.0, "eta_s": 3, "loss": v}
            for n, (s, v) in enumerate([(20, 4.0), (40, 3.0), (40, 2.5), (60, 2.0)])]
    rows.append({"stage": "language", "step": 20, "steps": 20, "time": 9.0, "loss": 1.0, "accuracy": 0.5})
    metrics.write_text("\n".join(map(json.dumps, rows)) + '\n{"stage": "lang')
    found = read_metrics(metrics)
    assert found == {"frames": {"loss": [(20, 4.0), (40, 2.5), (60, 2.0)]},
                     "language": {"loss": [(20, 1.0)], "accuracy": [(20, 0.5)]}}
    picture = draw_curves(metrics, tmp_path / "curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_no_metrics_is_said(tmp_path):
    from anymodal.errors import InputError
    from anymodal.training.curves import draw_curves

    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="holds no metrics"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


def test_training_reports_rate_and_time_left(capsys, tmp_path):
    from anymodal.commands.train import Report

    report = Report({"frames": 128, "language": None}, None, tmp_path / "m.jsonl", tmp_path / "c.png")
    report({"stage": "frames", "step": 20, "steps": 200, "steps_per_s": 2.5, "eta_s": 3723, "loss": 1.25})
    report({"stage": "language", "step": 200, "steps": 200, "steps_per_s": 2.5, "eta_s": 0, "loss": 1.0})
    assert capsys.readouterr().err.splitlines() == [
        "frames 20/200 loss 1.250 | 320 samples/s | ETA 1:02:03",
        "language 200/200 loss 1.000 | 2.50 steps/s | ETA 0:00:00"]
