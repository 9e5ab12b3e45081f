"""Checkpoints for tests, of the Qwen families: tiny, random, in the layout in which they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anymodal.testing_checkpoints import make_tokenizer, publish, spread_weights

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
           "<|video_pad|>")
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}


def _tokenizer(folder: Path, special: tuple[str, ...], processor: str) -> Any:
    return make_tokenizer(folder, special, style="bytes", eos_token="<|im_end|>", processor_class=processor)


def _preprocessor(kind: str, processor: str, patch_px: int, mean: list[float], std: list[float]) -> dict[str, Any]:
    unit = (2 * patch_px) ** 2
    return {"min_pixels": 4 * unit, "max_pixels": 64 * unit, "patch_size": patch_px, "temporal_patch_size": 2,
            "merge_size": 2, "image_mean": mean, "image_std": std, "image_processor_type": kind,
            "processor_class": processor}


def _text(vocab: int) -> dict[str, Any]:
    return {"vocab_size": vocab, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32768,
            "rope_parameters": ROPE, "bos_token_id": None, "eos_token_id": None}


def make_qwen2_5_vl(folder: str | Path, *, seed: int = 0, shards: int = 1, tied: bool = False) -> Path:
    """Qwen2.5-VL in the layout of Qwen/Qwen2.5-VL-7B-Instruct, with patches of 4 px."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder = Path(folder)
    tokenizer = _tokenizer(folder, SPECIAL, "Qwen2_5_VLProcessor")
    number = tokenizer.convert_tokens_to_ids
    vision = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 48,
              "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        vision_config=vision, text_config=_text(len(tokenizer) + 3), tie_word_embeddings=tied,
        image_token_id=number("<|image_pad|>"), video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"), vision_end_token_id=number("<|vision_end|>")))
    model.generation_config.eos_token_id = [number("<|im_end|>"), number("<|endoftext|>")]
    picture = _preprocessor("Qwen2VLImageProcessor", "Qwen2_5_VLProcessor", 4, MEAN, STD)
    return publish(  # the published keys: visual.* and model.*, as transformers had them then
        spread_weights(model, seed), folder, shards=shards,
        renames={r"^model\.visual\.": "visual.", r"^model\.language_model\.": "model."},
        files={"preprocessor_config.json": picture})


def make_qwen3_vl(folder: str | Path, *, seed: int = 0, shards: int = 1, tied: bool = True) -> Path:
    """Qwen3-VL in the layout of Qwen/Qwen3-VL-4B-Instruct, with patches of 4 px; two layers have extras."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    folder = Path(folder)
    tokenizer = _tokenizer(folder, SPECIAL, "Qwen3VLProcessor")
    number = tokenizer.convert_tokens_to_ids
    vision = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 48,
              "patch_size": 4, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2]}
    text = {**_text(len(tokenizer) + 3), "head_dim": 12}
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=tied,
        image_token_id=number("<|image_pad|>"), video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"), vision_end_token_id=number("<|vision_end|>")))
    model.generation_config.eos_token_id = [number("<|im_end|>"), number("<|endoftext|>")]
    half = [0.5, 0.5, 0.5]
    unit = 8**2
    picture = {**_preprocessor("Qwen2VLImageProcessorFast", "Qwen3VLProcessor", 4, half, half),
               "size": {"shortest_edge": 4 * unit, "longest_edge": 64 * unit}}
    for key in ("min_pixels", "max_pixels"):
        del picture[key]
    return publish(spread_weights(model, seed), folder, shards=shards, files={"preprocessor_config.json": picture})


def make_qwen2_5_omni(folder: str | Path, *, seed: int = 0, shards: int = 1) -> Path:
    """The thinker of Qwen2.5-Omni in the layout of Qwen/Qwen2.5-Omni-7B, with patches of 4 px and 16 mel bins."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniThinkerConfig

    folder = Path(folder)
    special = ("<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|vision_bos|>",
               "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>")
    tokenizer = _tokenizer(folder, special, "Qwen2_5OmniProcessor")
    number = tokenizer.convert_tokens_to_ids
    vision = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 48,
              "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}
    audio = {"num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "d_model": 32,
             "output_dim": 48, "n_window": 100}
    model = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(
        vision_config=vision, audio_config=audio, text_config=_text(len(tokenizer) + 3),
        audio_token_index=number("<|AUDIO|>"), image_token_index=number("<|IMAGE|>"),
        video_token_index=number("<|VIDEO|>"), audio_start_token_id=number("<|audio_bos|>"),
        audio_end_token_id=number("<|audio_eos|>"), vision_start_token_id=number("<|vision_bos|>"),
        vision_end_token_id=number("<|vision_eos|>")))
    model.generation_config.eos_token_id = [number("<|im_end|>"), number("<|endoftext|>")]
    both = {**_preprocessor("Qwen2VLImageProcessor", "Qwen2_5OmniProcessor", 4, MEAN, STD), "chunk_length": 300,
            "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16, "hop_length": 160,
            "n_fft": 400, "n_samples": 4800000, "nb_max_frames": 30000, "padding_side": "right", "padding_value": 0.0,
            "return_attention_mask": True, "sampling_rate": 16000}
    publish(spread_weights(model, seed), folder, shards=shards,
            renames={r"^model\.(audio_tower|visual)\.": r"\1.", r"^model\.language_model\.": "model.", "^": "thinker."},
            files={"preprocessor_config.json": both})
    config = json.loads((folder / "config.json").read_text())
    whole = {"architectures": ["Qwen2_5OmniModel"], "model_type": "qwen2_5_omni", "enable_audio_output": False,
             "enable_talker": False, "thinker_config": {
                 **config, "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"]}}
    (folder / "config.json").write_text(json.dumps(whole, indent=2))
    return folder
