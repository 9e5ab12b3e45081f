"""The benchmark of published models runs to its end and writes what it says; its figures are for a quiet machine."""

import json

import pytest
import torch

from anymodal.testing_checkpoints import make_llava
from benchmarks import models


def test_the_benchmark_writes_its_rows(tmp_path):
    rows = models.main(["--quick", "--case", "encoders", "--json", str(tmp_path / "rows.json")])
    written = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["measure"], row["case"]) for row in written} == {
        (f"encoder_{what}", name) for what in ("same_batch", "streams_batched") for name in ("CLIP", "SigLIP")}
    assert len(rows) == len(written) and all(row["ours"] > 0 and row["baseline"] > 0 for row in written)


def test_loading_is_measured_in_a_process_of_its_own(tmp_path):
    took_s, peak, share = models._loaded(make_llava(tmp_path / "llava", vocab_size=5000), "mind")
    assert took_s > 0 and 2e6 < share < 3e6 and peak > share


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_nothing_is_made_up(capsys):
    assert models.main(["--quick", "--case", "gpu"]) == []
    assert "nothing was measured" in capsys.readouterr().err
