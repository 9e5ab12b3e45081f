"""Tiny checkpoints of the systems that listen through ImageBind, with random weights, in their published layouts.

    folder = make_pandagpt(tmp_path / "panda")         as openllmplayground/pandagpt_7b_max_len_1024
    folder = make_video_llama(tmp_path / "videollama") as DAMO-NLP-SG/Video-LLaMA-2-7B-Finetuned

Their files say nothing of sizes, which in the published ones are always the same; so a bundle of a tiny one gives those in
its YAML: `tiny_bundle`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from anymodal.config import find_bundle
from anymodal.testing_checkpoints import make_tokenizer, publish, spread_weights
from anymodal.testing_checkpoints_blip import LLAMA, QFORMER, make_blip2_t5

IMAGEBIND = {"size": {"width": 24, "layers": 2, "heads": 2}, "joint": 20}
PICTURE_PX = 28  # ImageBind's pictures have 14 px patches
TEMPORAL = {"width": QFORMER["hidden_size"], "heads": QFORMER["num_attention_heads"],
            "mlp_width": QFORMER["intermediate_size"]}
LORA = {"rank": 4, "alpha": 8.0}


def make_pandagpt(folder: str | Path, *, seed: int = 0) -> Path:
    """PandaGPT: the linear layer and LoRA in `pytorch_model.pt`, beside `imagebind_huge.pth` and Vicuna's folder."""
    import torch

    folder = Path(folder)
    _make_llama(folder / "vicuna", seed)
    save_imagebind(folder / "imagebind_huge.pth", ("vision", "audio"), seed + 1)
    drawn = torch.Generator().manual_seed(seed + 2)
    width, rank = LLAMA["hidden_size"], LORA["rank"]
    state = {"llama_proj.weight": torch.randn(width, IMAGEBIND["joint"], generator=drawn) * 0.4,
             "llama_proj.bias": torch.randn(width, generator=drawn) * 0.05}
    for layer in range(LLAMA["num_hidden_layers"]):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            at = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{name}.lora"  # as peft 0.3 has it
            state[f"{at}_A.default.weight"] = torch.randn(rank, width, generator=drawn) * 0.2
            state[f"{at}_B.default.weight"] = torch.randn(width, rank, generator=drawn) * 0.2
    torch.save(state, folder / "pytorch_model.pt")
    return folder


def make_video_llama(folder: str | Path, *, seed: int = 0) -> Path:
    """Video-LLaMA: the two branches' .pth, beside `imagebind_huge.pth` and the folders of LLaMA-2-chat and BLIP-2.

    The branches' files have what was trained, under LAVIS' names, and whatever buffers the whole model had.
    """
    import torch

    folder = Path(folder)
    make_blip2_t5(folder / "blip2", seed=seed)
    _make_llama(folder / "llama-2-7b-chat-hf", seed + 1)
    save_imagebind(folder / "imagebind_huge.pth", ("audio",), seed + 2)
    buffers = {"Qformer.bert.embeddings.position_ids": torch.arange(512)[None],
               "llama_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}
    width = QFORMER["hidden_size"]
    for name, prefix, proj, queries, rows, read in (("VL", "video", "llama_proj", 32, 32, width),
                                                    ("AL", "audio", "audio_llama_proj", 8, 8, IMAGEBIND["joint"])):
        position = "video_frame_position_embedding" if prefix == "video" else "audio_position_embedding"
        drawn = torch.Generator().manual_seed(seed + rows)
        state = {f"{prefix}_query_tokens": torch.randn(1, queries, width, generator=drawn),
                 f"{position}.weight": torch.randn(rows, read, generator=drawn),
                 f"{proj}.weight": torch.randn(LLAMA["hidden_size"], width, generator=drawn) * 0.4,
                 f"{proj}.bias": torch.randn(LLAMA["hidden_size"], generator=drawn) * 0.05,
                 **_lavis_qformer(f"{prefix}_Qformer.bert.", read, seed + rows), **buffers}
        torch.save({"model": state, "optimizer": {}, "config": {}, "scaler": None, "epoch": 4},
                   folder / f"{name}_LLaMA_2_7B_Finetuned.pth")
    return folder


def tiny_bundle(name: str, folder: Path, **changes: Any) -> Path:
    """A shipped bundle's YAML, written into `folder` for the tiny checkpoint there, with its sizes. changes: keys of it."""
    raw = yaml.safe_load(find_bundle(name).read_text(encoding="utf-8"))
    raw["checkpoint"]["id"] = str(folder)
    for sense in raw["modalities"].values():
        if sense["encoder"]["use"].endswith(":ImageBind"):
            sense["encoder"] |= IMAGEBIND
            sense["encoder"]["inputs"] = {**sense["encoder"].get("inputs", {}), "image_px": PICTURE_PX}
            if sense["adapter"]["use"].endswith(":TemporalQFormer"):
                sense["adapter"] |= TEMPORAL
    if raw["language"]["use"].endswith(":LoraLM"):
        raw["language"] |= LORA
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**raw, **changes}), encoding="utf-8")
    return path


def save_imagebind(path: Path, modalities: tuple[str, ...], seed: int) -> None:
    """Some towers of a tiny ImageBind, in one file as published."""
    import torch

    from encoders.imagebind import ImageBind

    state = {}
    for modality in modalities:
        tower = ImageBind(ImageBind.Config(modality=modality, inputs={"image_px": PICTURE_PX}, **IMAGEBIND))
        state |= spread_weights(tower, seed).state_dict()
    torch.save(state, path)


def _make_llama(folder: Path, seed: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(folder, ["<pad>"], pad_token="<pad>")
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **{**LLAMA, "max_position_embeddings": 4096},
                                         pad_token_id=0))
    publish(spread_weights(model, seed), folder, files={"generation_config.json": {"bos_token_id": 1, "eos_token_id": 2,
                                                                                   "pad_token_id": 0}})


def _lavis_qformer(prefix: str, read: int, seed: int) -> dict[str, Any]:
    """Tensors of a Q-Former of two layers that looks at features in each, under LAVIS' names."""
    import torch
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    model = spread_weights(Blip2QFormerModel(Blip2QFormerConfig(
        **{**QFORMER, "num_hidden_layers": 2}, cross_attention_frequency=1, encoder_hidden_size=read,
        use_qformer_text_input=False)), seed)
    state = {f"{prefix}embeddings.position_ids": torch.arange(512)[None]}
    for key, tensor in model.state_dict().items():
        key = re.sub(r"^layernorm\.", "embeddings.LayerNorm.", key)
        state[prefix + re.sub(r"\b((?:cross)?attention)\.attention\.", r"\1.self.", key)] = tensor
    return state
