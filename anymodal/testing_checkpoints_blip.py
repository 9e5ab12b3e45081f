"""Tiny checkpoints of the BLIP-2 line, with random weights, in the layouts in which they are published.

    folder = make_blip2(tmp_path / "blip2")             as Salesforce/blip2-opt-2.7b
    folder = make_instructblip(tmp_path / "instruct")   as Salesforce/instructblip-vicuna-7b
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anymodal.testing_checkpoints import CORPUS, make_tokenizer, publish, spread_weights

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28,
          "patch_size": 14}
QFORMER = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
QUERIES = 4
PICTURE = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
           "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
           "resample": 3, "rescale_factor": 1 / 255, "size": {"height": 28, "width": 28}}
LLAMA = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 4, "max_position_embeddings": 2048}


def make_blip2(folder: str | Path, *, seed: int = 0, shards: int = 2) -> Path:
    """BLIP-2 over OPT, in the layout of Salesforce/blip2-opt-2.7b: 28 px pictures, four queries."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    folder = Path(folder)
    tokenizer = opt_tokenizer(folder)
    newline = tokenizer.encode("\n", add_special_tokens=False)[-1]  # ends an answer of the published one
    text = {"model_type": "opt", "vocab_size": len(tokenizer), "hidden_size": 48, "word_embed_proj_dim": 48, "ffn_dim": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 2048, "dropout": 0.0,
            "bos_token_id": 2, "eos_token_id": newline, "pad_token_id": 1}
    config = Blip2Config(vision_config=VISION, qformer_config=QFORMER, text_config=text, num_query_tokens=QUERIES,
                         image_token_index=tokenizer.convert_tokens_to_ids("<image>"))
    return publish(spread_weights(Blip2ForConditionalGeneration(config), seed), folder, shards=shards, files=_files(
        "Blip2Processor", "BlipImageProcessor", {"bos_token_id": 2, "eos_token_id": newline, "pad_token_id": 1}))


def make_blip2_t5(folder: str | Path, *, seed: int = 0, shards: int = 2) -> Path:
    """BLIP-2 over flan-T5, in the layout of Salesforce/blip2-flan-t5-xl."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    folder = Path(folder)
    tokenizer = t5_tokenizer(folder)
    text = {"model_type": "t5", "vocab_size": len(tokenizer), "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2,
            "num_decoder_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
            "is_encoder_decoder": True, "decoder_start_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
            "pad_token_id": 0, "dropout_rate": 0.0}
    config = Blip2Config(vision_config=VISION, qformer_config=QFORMER, text_config=text, num_query_tokens=QUERIES,
                         image_token_index=tokenizer.convert_tokens_to_ids("<image>"))
    return publish(spread_weights(Blip2ForConditionalGeneration(config), seed, 3.0), folder, shards=shards, files=_files(
        "Blip2Processor", "BlipImageProcessor",
        {"bos_token_id": 1, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}))


def make_instructblip(folder: str | Path, *, seed: int = 0, shards: int = 2, video: bool = False) -> Path:
    """InstructBLIP over Vicuna, in the layout of Salesforce/instructblip-vicuna-7b; with `video` as InstructBLIP-Video."""
    from transformers import (
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipVideoConfig,
        InstructBlipVideoForConditionalGeneration,
    )

    folder = Path(folder)
    marker = "<video>" if video else "<image>"
    tokenizer = make_tokenizer(folder, [marker, "<pad>"], pad_token="<pad>")
    asked = bert_tokenizer(folder / "qformer_tokenizer")
    text = {"model_type": "llama", "vocab_size": len(tokenizer), **LLAMA, "pad_token_id": 0}
    kind = InstructBlipVideoConfig if video else InstructBlipConfig
    config = kind(vision_config=VISION, qformer_config={**QFORMER, "vocab_size": len(asked), "pad_token_id": 0},
                  text_config=text, num_query_tokens=QUERIES,
                  **{f"{marker[1:-1]}_token_index": tokenizer.convert_tokens_to_ids(marker)})
    model = (InstructBlipVideoForConditionalGeneration if video else InstructBlipForConditionalGeneration)(config)
    return publish(spread_weights(model, seed), folder, shards=shards, files=_files(
        "InstructBlipVideoProcessor" if video else "InstructBlipProcessor",
        "InstructBlipVideoImageProcessor" if video else "BlipImageProcessor",
        {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}))


def make_minigpt4(folder: str | Path, *, seed: int = 0) -> Path:
    """MiniGPT-4: `prerained_minigpt4_7b.pth` with the projection alone, beside the folders of BLIP-2 and Vicuna it needs.

    Its bundle names these two `blip2` (a BLIP-2 over flan-T5) and `vicuna`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(folder)
    make_blip2_t5(folder / "blip2", seed=seed)
    tokenizer = make_tokenizer(folder / "vicuna", ["<pad>"], pad_token="<pad>")
    language = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **LLAMA, pad_token_id=0))
    publish(spread_weights(language, seed + 1), folder / "vicuna", pickled=True, files={
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}})
    drawn = torch.Generator().manual_seed(seed + 2)
    projection = {"llama_proj.weight": torch.randn(LLAMA["hidden_size"], QFORMER["hidden_size"], generator=drawn) * 0.4,
                  "llama_proj.bias": torch.randn(LLAMA["hidden_size"], generator=drawn) * 0.05}
    torch.save({"model": projection, "epoch": 3}, folder / "prerained_minigpt4_7b.pth")  # spelt so where it is published
    return folder


def opt_tokenizer(folder: Path) -> Any:
    """OPT's: byte-level BPE, </s> before every text, <image> added behind it all."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AddedToken, GPT2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator([*CORPUS, "Question: Answer:\n"], trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made = json.loads(bpe.to_str())["model"]
    tokenizer = GPT2Tokenizer(vocab=made["vocab"], merges=[tuple(m) for m in made["merges"]], bos_token="</s>",
                              eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True)
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def t5_tokenizer(folder: Path) -> Any:
    """T5's: unigram pieces, </s> behind every text, <image> added behind it all."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AddedToken, T5Tokenizer

    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    unigram.train_from_iterator([*CORPUS, "Question: Answer:"], trainers.UnigramTrainer(
        vocab_size=250, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
    pieces = [tuple(piece) for piece in json.loads(unigram.to_str())["model"]["vocab"]]
    pieces += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(4))]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=4)
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def bert_tokenizer(folder: Path) -> Any:
    """The Q-Former's own: BERT's word pieces, lower case, [CLS] and [SEP] around every text, and LAVIS' [DEC]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizer

    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tokenizer = BertTokenizer(vocab=pieces.get_vocab(), truncation_side="left")
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def _files(processor: str, pictures: str, generation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"preprocessor_config.json": {**PICTURE, "image_processor_type": pictures, "processor_class": processor},
            "processor_config.json": {"num_query_tokens": QUERIES, "processor_class": processor},
            "generation_config.json": {**generation, "_from_model_config": True}}
