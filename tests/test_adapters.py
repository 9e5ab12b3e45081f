"""Adapters compute what the published ones compute, from tensors with the published names."""

import re

import pytest
import torch
import transformers as tf

from anymodal.adapters.blip2_qformer import LAVIS_PREFIXES, Blip2QFormer, lavis_names
from anymodal.adapters.temporal_qformer import AUDIO_PREFIXES, VIDEO_PREFIXES, TemporalQFormer

FEATURES, LM = 24, 40  # widths


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        yield


def close(a: torch.Tensor, b: torch.Tensor, most: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= most


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """No tensor at a value that would hide an error: biases and gates begin at zero, norms at one."""
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    return module.eval()


# --- BLIP-2's Q-Former -----------------------------------------------------------------------------------------------

VISION = {"hidden_size": FEATURES, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
          "image_size": 28, "patch_size": 14}
QUERIES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
           "encoder_hidden_size": FEATURES, "vocab_size": 60, "max_position_embeddings": 16}
TEXT = {"model_type": "llama", "hidden_size": LM, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 50,
        "num_attention_heads": 4}
KINDS = {"blip-2": (tf.Blip2Config, tf.Blip2ForConditionalGeneration, "image_token_index"),
         "instructblip": (tf.InstructBlipConfig, tf.InstructBlipForConditionalGeneration, "image_token_index"),
         "instructblipvideo": (tf.InstructBlipVideoConfig, tf.InstructBlipVideoForConditionalGeneration,
                               "video_token_index")}


def published_qformer(kind: str, tmp_path):
    """A tiny model of transformers, the adapter filled from its saved files, and its config.json."""
    import json

    from safetensors.torch import load_file

    config, model, token = KINDS[kind]
    model = randomized(model(config(vision_config=VISION, qformer_config=QUERIES, text_config=TEXT, num_query_tokens=5,
                                    **{token: 49})))
    model.save_pretrained(tmp_path)
    published = json.loads((tmp_path / "config.json").read_text())
    state = load_file(tmp_path / "model.safetensors")
    own = {k: v for k, v in state.items() if k.startswith(("query_tokens", "qformer.", "language_projection."))}
    adapter = Blip2QFormer.from_pretrained_config(published, feature_width=FEATURES, lm_width=LM, steps=3)
    adapter.load_state_dict(own, strict=True)
    return model, adapter.eval()


@torch.no_grad()
def test_blip2_qformer_equals_transformers(tmp_path):
    model, adapter = published_qformer("blip-2", tmp_path)
    pixels = torch.randn(3, 3, 28, 28)
    features = model.vision_model(pixels).last_hidden_state
    wanted = model.language_projection(model.get_image_features(pixels).qformer_outputs.last_hidden_state)
    valid = torch.tensor([[True, True, False]])
    states = adapter(features[None], valid)  # three frames of one window, one after the other
    close(adapter.project(states), wanted.flatten(0, 1)[None])
    assert not adapter.question_conditioned
    assert adapter.real(valid).tolist() == [[True] * 10 + [False] * 5]
    with pytest.raises(ValueError, match="reads no instruction"):
        adapter(features[None], valid, ids=torch.ones(1, 3, dtype=torch.long))


@pytest.mark.parametrize("kind", ["instructblip", "instructblipvideo"])
@torch.no_grad()
def test_instructed_qformer_equals_transformers(kind, tmp_path):
    model, adapter = published_qformer(kind, tmp_path)
    ids, seen = torch.tensor([[7, 3, 9, 4, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    pixels = torch.randn(2, 3, 28, 28)
    features = model.vision_model(pixels).last_hidden_state
    if kind == "instructblipvideo":
        found = model.get_video_features(pixels[None], qformer_input_ids=ids, qformer_attention_mask=seen)
        wanted = found.pooler_output
    else:
        found = model.get_image_features(pixels, qformer_input_ids=ids.expand(2, -1),
                                         qformer_attention_mask=seen.expand(2, -1))
        wanted = found.pooler_output.flatten(0, 1)[None]
    valid = torch.ones(1, 2, dtype=torch.bool)
    tokens = adapter.project(adapter(features[None], valid, ids, seen.bool()))
    close(tokens, wanted.reshape(tokens.shape))
    short = adapter.project(adapter(features[None], valid, ids[:, :4]))  # the padding changes nothing
    close(tokens, short)
    other = adapter.project(adapter(features[None], valid, ids[:, :3]))
    assert float((tokens - other).abs().max()) > 1e-3  # and the instruction does
    with pytest.raises(ValueError, match="give `ids`"):
        adapter(features[None], valid)


def lavis_state(module: torch.nn.Module, prefixes: dict[str, str], *, text: bool = False) -> dict[str, torch.Tensor]:
    """The module's tensors under the names that LAVIS' files have, written out by hand from its layout."""
    back = {ours: theirs for theirs, ours in reversed(prefixes.items())}
    found = {}
    for name, tensor in module.state_dict().items():
        theirs = next(name.replace(ours, prefix, 1) for ours, prefix in back.items() if name.startswith(ours))
        theirs = re.sub(r"attention\.attention\.", "attention.self.", theirs)
        found[theirs.replace(".layernorm.", ".LayerNorm." if text else ".embeddings.LayerNorm.")] = tensor
    return found


def from_lavis(state: dict[str, torch.Tensor], prefixes: dict[str, str], *, text: bool = False):
    found = {}
    for name, tensor in state.items():
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        name = prefixes[prefix] + name[len(prefix):]
        for pattern, to in lavis_names(text=text):
            if to is None and re.search(pattern, name):
                break
            name = re.sub(pattern, to or "", name)
        else:
            found[name] = tensor
    return found


@pytest.mark.parametrize("text", [False, True])
def test_lavis_names_are_read(text):
    adapter = randomized(Blip2QFormer(Blip2QFormer.Config(
        queries=4, width=32, layers=2, heads=4, mlp_width=48, text=text, vocab=60), feature_width=FEATURES, lm_width=LM))
    prefixes = {k: v for k, v in LAVIS_PREFIXES.items() if k in ("query_tokens", "Qformer.bert.", "llama_proj.")}
    state = lavis_state(adapter, prefixes, text=text)
    assert "Qformer.bert.encoder.layer.0.crossattention.self.query.weight" in state
    assert "Qformer.bert.embeddings.LayerNorm.weight" in state and "llama_proj.weight" in state
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    found = from_lavis(state, prefixes, text=text)
    assert found.keys() == adapter.state_dict().keys()
    assert all(torch.equal(found[k], v) for k, v in adapter.state_dict().items())


# --- temporal Q-Former -----------------------------------------------------------------------------------------------

def bert_queries(state: dict[str, torch.Tensor], name: str, queries: torch.Tensor, features: torch.Tensor,
                 *, heads: int, layers: int, cross_every: int) -> torch.Tensor:
    """BERT's layers with cross-attention, written out over tensors under LAVIS' names: (B, Q, W), (B, P, D)."""
    def linear(x, key):
        return torch.nn.functional.linear(x, state[f"{name}.{key}.weight"], state[f"{name}.{key}.bias"])

    def norm(x, key):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], state[f"{name}.{key}.weight"],
                                              state[f"{name}.{key}.bias"], 1e-12)

    def attend(x, y, key):
        q, k, v = (linear(z, f"{key}.self.{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
                   for z, part in ((x, "query"), (y, "key"), (y, "value")))
        out = ((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return norm(linear(out.transpose(1, 2).flatten(2), f"{key}.output.dense") + x, f"{key}.output.LayerNorm")

    x = norm(queries, "embeddings.LayerNorm")
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        x = attend(x, x, f"{layer}.attention")
        if i % cross_every == 0:
            x = attend(x, features, f"{layer}.crossattention")
        wide = torch.nn.functional.gelu(linear(x, f"{layer}.intermediate_query.dense"))
        x = norm(linear(wide, f"{layer}.output_query.dense") + x, f"{layer}.output_query.LayerNorm")
    return x


SMALL = {"queries": 4, "width": 32, "heads": 4, "mlp_width": 48}


@torch.no_grad()
def test_temporal_qformer_is_video_llamas():
    adapter = randomized(TemporalQFormer(TemporalQFormer.Config(
        **SMALL, steps=3, positions=6, frames={**SMALL, "queries": 2, "layers": 3}), feature_width=FEATURES, lm_width=LM))
    state = lavis_state(adapter, VIDEO_PREFIXES)
    assert {"query_tokens", "video_query_tokens", "video_frame_position_embedding.weight", "llama_proj.bias",
            "Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
            "video_Qformer.bert.encoder.layer.1.crossattention.self.key.weight"} <= state.keys()
    again = from_lavis(state, VIDEO_PREFIXES)
    assert all(torch.equal(again[k], v) for k, v in adapter.state_dict().items())

    features = torch.randn(1, 3, 7, FEATURES)
    frames = bert_queries(state, "Qformer.bert", state["query_tokens"].expand(3, -1, -1), features[0], heads=4, layers=3,
                          cross_every=2)
    placed = frames + state["video_frame_position_embedding.weight"][:3, None]
    pooled = bert_queries(state, "video_Qformer.bert", state["video_query_tokens"], placed.flatten(0, 1)[None], heads=4,
                          layers=2, cross_every=1)
    wanted = torch.nn.functional.linear(pooled, state["llama_proj.weight"], state["llama_proj.bias"])
    valid = torch.ones(1, 3, dtype=torch.bool)
    tokens = adapter.project(adapter(features, valid))
    close(tokens, wanted)
    valid[0, 2] = False  # a step that is not there is not seen
    close(adapter.project(adapter(features, valid)), adapter.project(adapter(features[:, :2], valid[:, :2])))


@torch.no_grad()
def test_audio_branch_takes_vectors_as_they_are():
    adapter = randomized(TemporalQFormer(TemporalQFormer.Config(**SMALL, steps=3, positions=3), feature_width=FEATURES,
                                         lm_width=LM))
    state = lavis_state(adapter, AUDIO_PREFIXES)
    assert {"audio_query_tokens", "audio_position_embedding.weight", "audio_llama_proj.weight"} <= state.keys()
    clips = torch.randn(2, 3, 1, FEATURES)
    placed = clips[:, :, 0] + state["audio_position_embedding.weight"]
    wanted = bert_queries(state, "audio_Qformer.bert", state["audio_query_tokens"].expand(2, -1, -1), placed, heads=4,
                          layers=2, cross_every=1)
    close(adapter(clips, torch.ones(2, 3, dtype=torch.bool)), wanted)
    with pytest.raises(ValueError, match="4 steps are more than the 3 positions"):
        adapter(torch.randn(2, 4, 1, FEATURES), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="5 steps a window are more"):
        TemporalQFormer.Config(**SMALL, steps=5, positions=3)
