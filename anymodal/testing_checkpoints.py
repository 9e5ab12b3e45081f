"""Checkpoints for tests: an architecture made tiny, with random weights, in the layout in which it is published.

    folder = make_llava(tmp_path / "llava")     config.json, weights and tokenizer as the real one's, a few hundred kB

What they answer is gibberish; that it is the same gibberish as transformers' own model makes of them is what they are for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORDS = 700  # size of a tiny tokenizer, special tokens beside it
CORPUS = ("what is happening in this picture, and where is the red circle now?", "USER: ASSISTANT: yes no Yes No",
          "the video shows a person who walks; after the bell rings, they stop and look at the camera.",
          "0 1 2 3 4 5 6 7 8 9 10:30 question answer describe image frame second audio sound")


def make_tokenizer(folder: Path, special: Sequence[str], *, style: str = "llama", **saved: Any) -> Any:
    """A tiny tokenizer in published files. style: "llama" (spaces as ▁, <s> in front) or "bytes" (as GPT-2's and Qwen's).

    special: tokens of its own, numbered from WORDS on. saved: keys of tokenizer_config.json.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    base = ["<unk>", "<s>", "</s>"] if style == "llama" else ["<|endoftext|>"]
    model = Tokenizer(models.BPE(unk_token="<unk>" if style == "llama" else None, byte_fallback=style == "llama"))
    if style == "llama":
        model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        model.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(content=" ", left=1)])
        alphabet = [f"<0x{n:02X}>" for n in range(256)]
    else:
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        alphabet = []
    trainer = trainers.BpeTrainer(vocab_size=WORDS, show_progress=False, special_tokens=[*base, *alphabet],
                                  initial_alphabet=[] if style == "llama" else pre_tokenizers.ByteLevel.alphabet())
    if style == "llama":  # words are learned apart, as from a large corpus
        model.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    model.train_from_iterator(CORPUS, trainer)
    if style == "llama":
        whole = json.loads(model.to_str())
        whole["added_tokens"] = [t for t in whole["added_tokens"] if t["content"] in base]  # bytes are ordinary tokens
        whole["pre_tokenizer"] = None
        model = Tokenizer.from_str(json.dumps(whole))
        model.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", model.token_to_id("<s>"))])
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} if style == "llama" else \
        {"eos_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, **{**named, **saved})
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def publish(model: Any, folder: Path, *, renames: Mapping[str, str] = {}, shards: int = 1,  # noqa: B006
            pickled: bool = False, files: Mapping[str, Mapping[str, Any]] = {}) -> Path:  # noqa: B006
    """Save a transformers model as its real checkpoint is published. renames: patterns of keys -> replacements.

    shards: files of safetensors, with their index. pickled: pytorch_model.bin instead. files: JSON beside the weights.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder))
    state = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= load_file(str(path))
        path.unlink()
    for pattern, replacement in renames.items():
        state = {re.sub(pattern, replacement, key): tensor for key, tensor in state.items()}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    elif shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        keys, index = sorted(state), {}
        for number in range(shards):
            name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            own = keys[number * len(keys) // shards : (number + 1) * len(keys) // shards]
            save_file({k: state[k] for k in own}, folder / name, metadata={"format": "pt"})
            index |= dict.fromkeys(own, name)
        total = sum(t.numel() * t.element_size() for t in state.values())
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": index}), encoding="utf-8")
    return folder


def spread_weights(model: Any, seed: int = 0, scale: float = 4.0) -> Any:
    """Draw a model's weights anew and large, so that what it says depends on what it was shown."""
    import torch

    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                width = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=drawn) * scale / width**0.5 / 2)
            elif parameter.dim():
                parameter.add_(torch.randn(parameter.shape, generator=drawn) * 0.05)
    return model.eval()


@contextmanager
def drawn(seed: int) -> Iterator[None]:
    """Within it, fresh weights are the same each time."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def make_llava(folder: str | Path, *, seed: int = 0, shards: int = 1, pickled: bool = False,
               vision: Mapping[str, Any] = {}, **text: Any) -> Path:  # noqa: B006
    """LLaVA-1.5 in the layout of llava-hf/llava-1.5-7b-hf: 28 px pictures of four features. vision, text: keys of
    vision_config and text_config."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    folder = Path(folder)
    tokenizer = make_tokenizer(folder, ["<image>", "<pad>"], pad_token="<pad>", processor_class="LlavaProcessor")
    vision = CLIPVisionConfig(**{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
                                 "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 16,
                                 **vision})
    language = LlamaConfig(**{"vocab_size": len(tokenizer) + 2, "hidden_size": 48, "intermediate_size": 96,
                              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                              "max_position_embeddings": 4096, **text})
    with drawn(seed):
        model = LlavaForConditionalGeneration(LlavaConfig(
            vision_config=vision, text_config=language, image_seq_length=4,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>")))
    picture = {"do_resize": True, "size": {"shortest_edge": 28}, "do_center_crop": True,
               "crop_size": {"height": 28, "width": 28}, "do_rescale": True, "rescale_factor": 1 / 255,
               "do_normalize": True, "do_convert_rgb": True, "resample": 3,
               "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    return publish(
        spread_weights(model, seed), folder, shards=shards, pickled=pickled,
        renames={r"^vision_tower\.(?!vision_model)": "vision_tower.vision_model."},  # as transformers had it then
        files={"preprocessor_config.json": {**picture, "image_processor_type": "CLIPImageProcessor",
                                            "processor_class": "LlavaProcessor"},
               "processor_config.json": {"image_token": "<image>", "patch_size": 14, "processor_class": "LlavaProcessor",
                                         "num_additional_image_tokens": 1,
                                         "vision_feature_select_strategy": "default"}})


# --- comparing -------------------------------------------------------------------------------------------------------

def own_logits(agent: Any, media: Any, question: str, ids: Sequence[int] = (), **given: Any) -> Any:
    """Logits (len(ids) + 1, V) of an agent's answer to a clip, where it is made to say `ids`. given: as `Agent.ask`."""
    import torch

    from anymodal.agent import new_clip
    from anymodal.stages.perceive import Perceive

    mind, perceive = agent.bundle.mind, Perceive(agent.perception)
    clip = new_clip(media, given.pop("at_s", None), given.pop("sidecars", None))
    percepts = [p for window in agent.source.push(clip) for p in perceive.push((clip.session, window))]
    state = mind.open(windows=[*percepts, *perceive.close()])
    forks = mind.fork(state, [mind.layout.question(question)], room=len(ids) + 1)
    found = [forks.logits[0]]
    for token in ids:
        found.append(forks.step(torch.tensor([token], device=mind.device))[0])
    return torch.stack(found).float().cpu()


def reference_answer(model: Any, inputs: Mapping[str, Any], most: int = 32, **options: Any) -> tuple[list[int], Any]:
    """What transformers' own model says greedily: all its ids, and the logits (len(ids), V) that each was chosen by."""
    import torch

    with torch.inference_mode():
        out = model.generate(**inputs, do_sample=False, max_new_tokens=most, output_logits=True,
                             return_dict_in_generate=True, **options)
    return out.sequences[0, -len(out.logits) :].tolist(), torch.cat(out.logits).float()


def worst_difference(agent: Any, media: Any, question: str, model: Any, inputs: Mapping[str, Any], *, most: int = 32,
                     **given: Any) -> float:
    """The largest difference of any logit while both say what transformers' own model says; and they do say the same."""
    ids, logits = reference_answer(model, inputs, most)
    own = own_logits(agent, media, question, ids[:-1], **given)
    assert own.argmax(-1).tolist() == ids, "another token is likelier than the reference's"
    return float((own - logits).abs().max())
