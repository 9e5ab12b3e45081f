"""The benchmark of published models runs to its end and writes what it says; its figures are for a quiet machine."""

import json

import numpy as np
import pytest
import torch

from anymodal.bundle import load_bundle
from anymodal.playground.files import render_clips
from anymodal.testing_checkpoints import make_llava
from benchmarks import models, models_encoders, models_scaling


def test_the_benchmark_writes_its_rows(tmp_path):
    rows = models.main(["--quick", "--case", "encoders", "--json", str(tmp_path / "rows.json")])
    written = json.loads((tmp_path / "rows.json").read_text())
    towers = ("CLIP", "SigLIP", "DINOv2", "EVA-CLIP-g", "Whisper", "AST", "CLAP", "PE-Audio")
    assert {(row["measure"], row["case"]) for row in written} == {
        (f"encoder_{what}", name) for what in ("same_batch", "prepare", "streams_batched") for name in towers} | {
        ("encoder_streams_batched", "tiny")}
    assert len(rows) == len(written) and all(row["ours"] > 0 and row["baseline"] > 0 for row in written)


def test_an_encoder_that_says_something_else_is_not_timed():
    pair = next(models_encoders.pictures(quick=True))
    with torch.no_grad():
        pair.theirs.encoder.layers[0].mlp.fc2.bias.add_(1.0)
    with pytest.raises(AssertionError, match="not close"):
        models_encoders._measured(pair, 1, "cpu")


def test_answers_to_frames_scaled_in_decode_are_compared_with_those_to_full_ones(tmp_path):
    equal, accuracy = models.main(["--quick", "--case", "scaling"])
    assert (equal.measure, accuracy.measure) == ("scaling_answers_equal", "scaling_accuracy")
    assert equal.case == accuracy.case == "tiny, 3 questions" and 0 <= equal.ours <= 1
    assert {accuracy.ours * 3 % 1, accuracy.baseline * 3 % 1} <= {0.0}


def test_both_ways_of_scaling_give_the_same_packets_but_for_their_pixels(tmp_path):
    spec = load_bundle("tiny").spec
    (clip,) = render_clips(tmp_path, seed=1, count=1, seconds=1.0)
    both = [list(models_scaling.packets(spec, clip, in_decode=which)) for which in (True, False)]
    assert [(p.stream, p.pts_s, p.data.shape) for p in both[0]] == [(p.stream, p.pts_s, p.data.shape) for p in both[1]]
    for ours, theirs in zip(*both, strict=True):
        if ours.stream == "video":
            off = np.abs(ours.data.astype(int) - theirs.data)
            assert ours.data.shape == (96, 96, 3) and 0 < off.mean() < 8
        else:
            assert np.array_equal(ours.data, theirs.data)


def test_loading_is_measured_in_a_process_of_its_own(tmp_path):
    took_s, peak, share = models._loaded(make_llava(tmp_path / "llava", vocab_size=5000), "mind")
    assert took_s > 0 and 2e6 < share < 3e6 and peak > share


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_nothing_is_made_up(capsys):
    assert models.main(["--quick", "--case", "gpu"]) == []
    assert "nothing was measured" in capsys.readouterr().err
