"""The case `encoders` of `benchmarks/models.py`: published towers beside transformers' own models and processors.

Every encoder that transformers has, too: the same weights at random, the same batch, the same attention, both in inference
mode. Before anything is timed the outputs of both are compared. Widths are real, and of most models only a few layers are
built, so that all of it takes about five minutes on one core: 4 layers of width 768 of CLIP, SigLIP and DINOv2, 2 of width
1408 of EVA-CLIP-g, Whisper tiny whole (4 layers of 384), 2 layers of AST, CLAP's whole sound tower, and PE-Audio with its
codec and 2 layers. Pictures become 224 px, sounds are windows of 1 s, of PE-Audio, whose codec takes most of all, of 0.2 s.

encoder_same_batch       4 prepared items through both. Ours run transformers' own modules, operation by operation, up to
                         the hidden state that is asked for: of the same state the ratio is 1, but for a run's noise.
encoder_prepare          4 items to the encoder's input: ours against the published processor or feature extractor.
encoder_streams_batched  4 streams' windows prepared and encoded in one batch, against a plain loop: the published processor
                         and model, window by window. Of `tiny` its whole perception, in batches of 4 windows against one.
                         A GPU has room for more than one window at once, so there and of `tiny` 1.5 is wanted; a CPU core
                         is busy with one window of a large tower, and 1 is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.report import Row, best_of_interleaved

BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
GIANT = {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
STREAMS = 4
FASTER, AS_FAST = 1.5, 1.0
SHORT = 5  # times as many repeats of what takes milliseconds
DIFFERENCE = 1e-3  # of outputs whose deviation is about 1; another order of the same sums stays far below it
PICTURE = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@dataclass(frozen=True)
class Pair:
    """An encoder and its reference with the same weights.

    given: one window's input a stream, frames (H, W, 3) or samples (N,). published: such a list -> the reference's input.
    takes: what that is called. same: the reference's output in our layout.
    """

    name: str
    ours: nn.Module
    theirs: nn.Module
    given: list[np.ndarray]
    published: Callable[[list[np.ndarray]], Tensor]
    takes: str = "pixel_values"
    more: dict[str, Any] = field(default_factory=dict)
    same: Callable[[Any], Tensor] = lambda out: out.last_hidden_state

    def prepare(self, given: list[np.ndarray]) -> Tensor:
        rate_hz = getattr(self.ours, "rate_hz", None)
        return self.ours.prepare(given) if rate_hz is None else self.ours.prepare(np.stack(given), rate_hz)

    def reference(self, ready: Tensor) -> Any:
        return self.theirs(**{self.takes: ready}, **self.more)


@torch.inference_mode()
def encoders(quick: bool, repeats: int, device: str = "cpu") -> list[Row]:
    """Rows of every encoder, and of the default bundle's perception."""
    rows = []
    for pair in (*pictures(quick), *sounds(quick)):
        pair.ours.to(device), pair.theirs.to(device)
        rows += _measured(pair, repeats, device)
    return [*rows, _tiny(repeats, device)]


def _measured(pair: Pair, repeats: int, device: str) -> list[Row]:
    ready = pair.prepare(pair.given).to(device)
    ours, theirs = pair.ours(ready)[0], pair.same(pair.reference(ready))
    torch.testing.assert_close(ours, theirs, atol=DIFFERENCE, rtol=0)
    count, wait = len(pair.given), torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def row(measure: str, ours: Callable, theirs: Callable, target: float, turns: int = 1) -> Row:
        contenders = [lambda: (ours(), wait()), lambda: (theirs(), wait())]
        ours_s, theirs_s = best_of_interleaved(contenders, turns * repeats)
        return Row(measure, count / ours_s, count / theirs_s, theirs_s / ours_s, target, "windows/s", pair.name)

    one_by_one = [[item] for item in pair.given]
    return [
        row("encoder_same_batch", lambda: pair.ours(ready), lambda: pair.reference(ready), AS_FAST),
        row("encoder_prepare", lambda: pair.prepare(pair.given), lambda: pair.published(pair.given), AS_FAST, SHORT),
        row("encoder_streams_batched", lambda: pair.ours(pair.prepare(pair.given).to(device)),
            lambda: [pair.reference(pair.published(item).to(device)) for item in one_by_one],
            batched_target(device)),
    ]


def batched_target(device: str) -> float:
    """The least ratio that is wanted of windows that share a batch of a large tower."""
    return FASTER if device.startswith("cuda") else AS_FAST


# --- what sees -------------------------------------------------------------------------------------------------------

def towers(size: dict, px: int) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """(name, ours, transformers' own) of CLIP and SigLIP with the same weights. SigLIP is without its pooling head, which
    none of ours computes unless asked for what it pools."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

    from encoders.clip import ClipTower
    from encoders.siglip import SiglipTower

    for name, config, model, tower, options in (
            ("CLIP", CLIPVisionConfig, CLIPVisionModel, ClipTower, {}),
            ("SigLIP", SiglipVisionConfig, SiglipVisionModel, SiglipTower, {"vision_use_head": False})):
        own = config(**size, **options, image_size=px, patch_size=16, attn_implementation="sdpa")
        theirs = model._from_config(own).eval()
        ours = tower.from_pretrained_config(own.to_dict(), preprocessor=picture_rule("CLIP", px),
                                            select="cls_patch" if name == "CLIP" else "patch").eval()
        ours.vision_model.load_state_dict(theirs.state_dict())
        yield name, ours, theirs


def pictures(quick: bool) -> Iterator[Pair]:
    """CLIP, SigLIP, DINOv2 and EVA-CLIP-g."""
    from transformers import Blip2VisionConfig, Blip2VisionModel, Dinov2Config, Dinov2Model

    from encoders.dinov2 import Dinov2Tower
    from encoders.eva import EvaTower

    px = 56 if quick else 224
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (px * 2, px * 3, 3), np.uint8) for _ in range(STREAMS)]
    size = TINY if quick else {**BASE, "num_hidden_layers": 4}
    for name, ours, theirs in towers(size, px // 16 * 16):
        yield Pair(name, ours, theirs, frames, pixels("CLIP", px // 16 * 16))

    shape = {k: v for k, v in size.items() if k != "intermediate_size"}
    own = Dinov2Config(**shape, image_size=70 if quick else 518, patch_size=14, attn_implementation="sdpa")
    theirs = Dinov2Model._from_config(own).eval()
    ours = Dinov2Tower.from_pretrained_config(own.to_dict(), preprocessor=picture_rule("Bit", px),
                                              select="cls_patch").eval()
    ours.load_state_dict(theirs.state_dict())
    yield Pair("DINOv2", ours, theirs, frames, pixels("Bit", px))

    size = TINY if quick else {**GIANT, "num_hidden_layers": 2}
    own = Blip2VisionConfig(**size, image_size=px, patch_size=14, attn_implementation="sdpa")
    theirs = Blip2VisionModel._from_config(own).eval()
    ours = EvaTower.from_pretrained_config(own.to_dict(), preprocessor=picture_rule("Blip", px), select="cls_patch").eval()
    ours.vision_model.load_state_dict(theirs.state_dict())
    yield Pair("EVA-CLIP-g", ours, theirs, frames, pixels("Blip", px))


def picture_rule(family: str, px: int) -> dict[str, Any]:
    """A preprocessor_config.json: of BLIP a whole frame becomes a square, of the others its middle."""
    side = {"height": px, "width": px}
    middle = {"size": {"shortest_edge": px}, "crop_size": side, "do_center_crop": True}
    size = {"size": side} if family == "Blip" else middle
    return {**PICTURE, **size, "image_processor_type": f"{family}ImageProcessor"}


def pixels(family: str, px: int) -> Callable[[list[np.ndarray]], Tensor]:
    """transformers' processor on Pillow, whose pixels ours are to the last bit."""
    import transformers

    rule = picture_rule(family, px)
    del rule["image_processor_type"]
    made = getattr(transformers, f"{family}ImageProcessorPil")(**rule)
    return lambda frames: made(frames, return_tensors="pt").pixel_values


# --- what hears ------------------------------------------------------------------------------------------------------

def sounds(quick: bool) -> Iterator[Pair]:
    """Whisper's encoder, AST, CLAP's and PE-Audio's sound towers."""
    from transformers import (
        ASTConfig,
        ASTFeatureExtractor,
        ASTModel,
        ClapAudioConfig,
        ClapAudioModel,
        ClapFeatureExtractor,
        PeAudioEncoder,
        PeAudioEncoderConfig,
        PeAudioFeatureExtractor,
        WhisperConfig,
        WhisperFeatureExtractor,
    )
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from encoders.audio_spectrogram import AudioSpectrogramTower
    from encoders.clap import ClapTower
    from encoders.pe_audio import PeAudioTower
    from encoders.whisper import WhisperTower

    sizes = {"d_model": 64, "encoder_ffn_dim": 64, "encoder_layers": 2, "encoder_attention_heads": 2} if quick else {
        "d_model": 384, "encoder_ffn_dim": 1536, "encoder_layers": 4, "encoder_attention_heads": 6}
    own = WhisperConfig(**sizes, attn_implementation="sdpa")
    yield _heard("Whisper", WhisperTower, "encoder", own, WhisperEncoder, WhisperFeatureExtractor(), "input_features")

    own = ASTConfig(**({**TINY, "max_length": 128} if quick else {**BASE, "num_hidden_layers": 2}),
                    attn_implementation="sdpa")
    yield _heard("AST", AudioSpectrogramTower, "model", own, ASTModel, ASTFeatureExtractor(max_length=own.max_length),
                 "input_values", same=lambda out: out.last_hidden_state[:, 2:])

    sizes = {"patch_embeds_hidden_size": 8, "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 2], "hidden_size": 64,
             "num_hidden_layers": 4} if quick else {}
    yield _heard("CLAP", ClapTower, "audio_model", ClapAudioConfig(**sizes), ClapAudioModel,
                 ClapFeatureExtractor(truncation="rand_trunc"), "input_features", {"is_longer": None},
                 lambda out: out.last_hidden_state.permute(0, 3, 2, 1).flatten(1, 2))

    sizes = {"hidden_size": 16, "head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32,
             "dac_config": {"model_type": "dac", "encoder_hidden_size": 2, "codebook_dim": 4,
                            "downsampling_ratios": [2, 8, 10, 12]}} if quick else {}
    own = PeAudioEncoderConfig(**sizes, num_hidden_layers=2, attn_implementation="sdpa")
    yield _heard("PE-Audio", PeAudioTower, "audio_encoder", own, PeAudioEncoder, PeAudioFeatureExtractor(), "input_values",
                 seconds=0.2)


def _heard(name: str, tower: type, part: str, own: Any, model: type, extractor: Any, takes: str,
           more: dict[str, Any] | None = None, same: Callable[[Any], Tensor] = Pair.same, seconds: float = 1.0) -> Pair:
    theirs = model._from_config(own).eval()
    ours = tower.from_pretrained_config(own.to_dict(), preprocessor=extractor.to_dict()).eval()
    getattr(ours, part).load_state_dict(theirs.state_dict())
    rng, rate_hz = np.random.default_rng(0), ours.rate_hz
    waves = [(0.1 * rng.standard_normal(round(seconds * rate_hz))).astype(np.float32) for _ in range(STREAMS)]
    published = partial(extractor, sampling_rate=rate_hz, return_tensors="pt")
    return Pair(name, ours, theirs, waves, lambda given: published(given)[takes], takes, more or {}, same)


# --- the default bundle ----------------------------------------------------------------------------------------------

def _tiny(repeats: int, device: str) -> Row:
    """Windows/s of 4 streams whose windows share a batch, against one stream at a time; their tokens are compared."""
    from anymodal.bundle import load_bundle

    perception = load_bundle("tiny", device=device).perception
    items = [(f"s{i}", window) for i, window in enumerate(windows(perception.spec, STREAMS))]
    for together, alone in zip(perception.encode_many(items, rows=STREAMS), perception.encode_many(items, rows=1),
                               strict=True):
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a.embeds, b.embeds, atol=DIFFERENCE)
    ours_s, theirs_s = best_of_interleaved(
        [lambda: perception.encode_many(items, rows=STREAMS), lambda: perception.encode_many(items, rows=1)],
        SHORT * repeats)
    return Row("encoder_streams_batched", STREAMS / ours_s, STREAMS / theirs_s, theirs_s / ours_s, FASTER, "windows/s",
               "tiny")


def windows(spec: Any, count: int) -> Sequence[Any]:
    """Windows with a noise of every usual sense of a bundle, whole."""
    from anymodal.types import Signal, Window

    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        signals = {}
        for name, sense in spec.modalities.items():
            if not sense.usual:
                continue
            steps = round(sense.rate_hz * spec.window_s)
            if sense.is_picture:
                data = rng.integers(0, 256, (steps + 1, sense.size_px, sense.size_px, 3), np.uint8)
                signals[name] = Signal(name, data[:-1], sense.rate_hz, 0.0, closing=data[-1])
            else:
                shape = (steps, len(sense.axes)) if sense.axes else (steps,)
                signals[name] = Signal(name, 0.1 * rng.standard_normal(shape).astype(np.float32), sense.rate_hz, 0.0)
        found.append(Window(0, 0.0, spec.window_s, signals))
    return found
