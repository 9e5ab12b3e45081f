"""Checkpoints for tests: LLaVA-OneVision and SmolVLM2, tiny, random, in the layout in which they are published."""

from __future__ import annotations

from pathlib import Path

from anymodal.testing_checkpoints import make_tokenizer, publish, spread_weights
from anymodal.testing_checkpoints_qwen import MEAN, STD

CROP = 36  # px: 9 x 9 features of 4 px


def make_llava_onevision(folder: str | Path, *, seed: int = 0, shards: int = 1, aspect: str = "anyres_max_9") -> Path:
    """LLaVA-OneVision in the layout of llava-hf/llava-onevision-qwen2-7b-ov-hf: crops of 36 px with 81 features."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    folder = Path(folder)
    tokenizer = make_tokenizer(folder, ["<|im_start|>", "<|im_end|>", "<image>", "<video>"], style="bytes",
                               eos_token="<|im_end|>", processor_class="LlavaOnevisionProcessor")
    number = tokenizer.convert_tokens_to_ids
    vision = SiglipVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
                                image_size=CROP, patch_size=4, vision_use_head=False)
    text = Qwen2Config(vocab_size=len(tokenizer) + 3, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32768, bos_token_id=None,
                       eos_token_id=None)
    grids = [[y * CROP, x * CROP] for y in range(1, 4) for x in range(1, 4)]
    model = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=number("<image>"), video_token_index=number("<video>"),
        image_grid_pinpoints=grids, vision_aspect_ratio=aspect))
    picture = {"do_resize": True, "size": {"height": CROP, "width": CROP}, "resample": 3, "do_rescale": True,
               "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True, "do_pad": True,
               "image_mean": MEAN, "image_std": STD, "image_grid_pinpoints": grids,
               "image_processor_type": "LlavaOnevisionImageProcessor", "processor_class": "LlavaOnevisionProcessor"}
    model.generation_config.eos_token_id = number("<|im_end|>")
    return publish(
        spread_weights(model, seed), folder, shards=shards,
        renames={r"^vision_tower\.(?!vision_model)": "vision_tower.vision_model."},  # as transformers had it then
        files={"preprocessor_config.json": picture})


def make_smolvlm2(folder: str | Path, *, seed: int = 0, shards: int = 1) -> Path:
    """SmolVLM2 in the layout of HuggingFaceTB/SmolVLM2-2.2B-Instruct: squares of 32 px with four tokens."""
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

    folder = Path(folder)
    places = [f"<row_{y}_col_{x}>" for y in range(1, 5) for x in range(1, 5)]
    tokenizer = make_tokenizer(
        folder, ["<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>",
                 "<global-img>", *places], style="bytes", eos_token="<end_of_utterance>",
        processor_class="SmolVLMProcessor")
    vision = SmolVLMVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
                                 image_size=32, patch_size=4)
    text = LlamaConfig(vocab_size=len(tokenizer) + 3, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192, bos_token_id=None,
                       eos_token_id=None)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(
        vision_config=vision, text_config=text, scale_factor=4, image_token_id=tokenizer.convert_tokens_to_ids("<image>")))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    picture = {"do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True,
               "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
               "image_processor_type": "SmolVLMImageProcessor", "max_image_size": {"longest_edge": 32},
               "processor_class": "SmolVLMProcessor", "resample": 1, "rescale_factor": 1 / 255,
               "size": {"longest_edge": 96}}
    return publish(spread_weights(model, seed), folder, shards=shards, files={"preprocessor_config.json": picture})
