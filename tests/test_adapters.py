"""Adapters compute what the published ones compute, from tensors with the published names."""

import re

import numpy as np
import pytest
import torch
import transformers as tf

from anymodal.adapters.blip2_qformer import LAVIS_PREFIXES, Blip2QFormer
from anymodal.adapters.c_abstractor import CAbstractor
from anymodal.adapters.linear import Linear
from anymodal.adapters.mlp import Mlp
from anymodal.adapters.perceiver import PerceiverResampler, from_open_flamingo
from anymodal.adapters.resampler2d import Resampler2d
from anymodal.adapters.spatiotemporal_pool import SpatioTemporalPool
from anymodal.adapters.temporal_qformer import AUDIO_PREFIXES, VIDEO_PREFIXES, TemporalQFormer
from anymodal.adapters.token_merging import TokenMerging, merge_tokens
from anymodal.adapters.visual_abstractor import VisualAbstractor
from anymodal.adapters.window_qformer import PREFIXES as WINDOW_PREFIXES
from anymodal.adapters.window_qformer import WindowQFormer
from anymodal.errors import ConfigError

FEATURES, LM = 24, 40  # widths


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        yield


def close(a: torch.Tensor, b: torch.Tensor, most: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert float((a - b).detach().abs().max()) <= most


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
    q = {**config().qformer_config.to_dict(), **published["qformer_config"]}  # files leave defaults out
    adapter = Blip2QFormer(Blip2QFormer.Config(
        queries=published["num_query_tokens"], width=q["hidden_size"], layers=q["num_hidden_layers"],
        heads=q["num_attention_heads"], mlp_width=q["intermediate_size"], cross_every=q["cross_attention_frequency"],
        eps=q["layer_norm_eps"], act=q["hidden_act"], text=kind != "blip-2", vocab=q["vocab_size"],
        max_text=q["max_position_embeddings"]), feature_width=FEATURES, lm_width=LM)
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


def from_lavis(state: dict[str, torch.Tensor], prefixes: dict[str, str], renames):
    """Under the names here, as a checkpoint's tensors are read."""
    found = {}
    for name, tensor in state.items():
        prefix = next(p for p in prefixes if name.startswith(p))
        name = prefixes[prefix] + name[len(prefix):]
        for pattern, to in renames:
            name = re.sub(pattern, to, name)
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
    found = from_lavis(state, prefixes, adapter.renames)
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
        **SMALL, positions=6, frames={**SMALL, "queries": 2, "layers": 3}), feature_width=FEATURES, lm_width=LM))
    state = lavis_state(adapter, VIDEO_PREFIXES)
    assert {"query_tokens", "video_query_tokens", "video_frame_position_embedding.weight", "llama_proj.bias",
            "Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
            "video_Qformer.bert.encoder.layer.1.crossattention.self.key.weight"} <= state.keys()
    again = from_lavis(state, VIDEO_PREFIXES, adapter.renames)
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
    adapter = randomized(TemporalQFormer(TemporalQFormer.Config(**SMALL, positions=3), feature_width=FEATURES,
                                         lm_width=LM))
    state = lavis_state(adapter, AUDIO_PREFIXES)
    assert {"audio_query_tokens", "audio_position_embedding.weight", "audio_llama_proj.weight"} <= state.keys()
    clips = torch.randn(2, 3, 1, FEATURES)
    placed = clips[:, :, 0] + state["audio_position_embedding.weight"]
    wanted = bert_queries(state, "audio_Qformer.bert", state["audio_query_tokens"].expand(2, -1, -1), placed, heads=4,
                          layers=2, cross_every=1)
    close(adapter(clips, torch.ones(2, 3, dtype=torch.bool)), wanted)
    with pytest.raises(ConfigError, match="4 steps are more than the 3 positions"):
        adapter(torch.randn(2, 4, 1, FEATURES), torch.ones(2, 4, dtype=torch.bool))


# --- windowed Q-Former -----------------------------------------------------------------------------------------------

def window_qformer(**options) -> WindowQFormer:
    return randomized(WindowQFormer(WindowQFormer.Config(**{**SMALL, "queries": 1, "frames": 5, "stride": 5, **options}),
                                    feature_width=FEATURES, lm_width=LM))


def heard(adapter, features: torch.Tensor) -> torch.Tensor:
    return adapter.project(adapter(features[:, None], torch.ones(len(features), 1, dtype=torch.bool)))


@torch.no_grad()
def test_window_qformer_is_salmonns():
    adapter = window_qformer(parts=(16, 8))
    state = lavis_state(adapter, WINDOW_PREFIXES)
    assert {"ln_speech.weight", "ln_audio.bias", "speech_query_tokens", "speech_llama_proj.weight"} <= state.keys()
    features = torch.randn(2, 23, FEATURES)
    features[:, 18:, 16:] = 0  # the second encoder's features end earlier
    parts = [torch.nn.functional.layer_norm(x, x.shape[-1:], state[f"{n}.weight"], state[f"{n}.bias"])
             for n, x in (("ln_speech", features[..., :16]), ("ln_audio", features[:, :18, 16:]))]
    both = torch.cat([parts[0], torch.nn.functional.pad(parts[1], (0, 0, 0, 5))], -1)
    wanted = [bert_queries(state, "speech_Qformer.bert", state["speech_query_tokens"].expand(2, -1, -1),
                           both[:, at : at + 5], heads=4, layers=2, cross_every=1) for at in (0, 5, 10, 15)]
    wanted = torch.nn.functional.linear(torch.cat(wanted, 1), state["speech_llama_proj.weight"],
                                        state["speech_llama_proj.bias"])
    close(heard(adapter, features), wanted)  # 23 frames: the last three are left out
    with pytest.raises(ConfigError, match="parts .* add up to 20"):
        window_qformer(parts=(12, 8))


@pytest.mark.parametrize("cuts", [(5,), (10, 15), (5, 10, 15, 20, 25)])
@torch.no_grad()
def test_sound_in_chunks_gives_the_tokens_of_the_whole(cuts):
    adapter, features = window_qformer(queries=2), torch.randn(1, 33, FEATURES)
    pieces = [heard(adapter, piece) for piece in features.tensor_split(cuts, dim=1)]
    close(torch.cat(pieces, 1), heard(adapter, features), 1e-6)
    with pytest.raises(ConfigError, match="4 frames a window are fewer"):
        heard(adapter, features[:, :4])


def test_thirty_seconds_of_sound_are_88_tokens():
    adapter = window_qformer(frames=17, stride=17)
    assert heard(adapter, torch.randn(1, 1500, FEATURES)).shape == (1, 88, LM)


# --- Perceiver resampler ---------------------------------------------------------------------------------------------

def perceiver(**options) -> PerceiverResampler:
    return randomized(PerceiverResampler(PerceiverResampler.Config(
        **{"queries": 4, "layers": 2, "heads": 2, "head_width": 8, **options}),
        feature_width=FEATURES, lm_width=options.get("native", False) and FEATURES or LM))


@pytest.mark.parametrize("act", ["relu", "gelu"])
@pytest.mark.parametrize("qk_norm", [False, True])
@torch.no_grad()
def test_perceiver_equals_idefics(act, qk_norm):
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    config = tf.IdeficsConfig(vision_config={"embed_dim": FEATURES},
                              perceiver_config={"qk_layer_norms_perceiver": qk_norm})
    theirs = randomized(IdeficsPerceiverResampler(config, FEATURES, 2, 2, 8, 4))
    for _, mlp in theirs.blocks:
        mlp.act = torch.nn.ReLU() if act == "relu" else torch.nn.GELU()
    ours = perceiver(act=act, qk_norm=qk_norm, native=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    features = torch.randn(2, 3, 5, FEATURES)
    close(ours.project(ours(features, torch.ones(2, 3, dtype=torch.bool))), theirs(features.flatten(1, 2)))


def open_flamingo_resampler(state: dict[str, torch.Tensor], x: torch.Tensor, heads: int) -> torch.Tensor:
    """Flamingo's resampler written out over OpenFlamingo's tensors: (B, F, V, D)."""
    def norm(x, key):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"])

    x = (x + state["frame_embs"][: x.shape[1], None]).flatten(1, 2)
    latents = state["latents"].expand(len(x), -1, -1)
    for i in range(2):
        name = f"layers.{i}.0"
        q_in = norm(latents, f"{name}.norm_latents")
        kv = torch.cat([norm(x, f"{name}.norm_media"), q_in], 1) @ state[f"{name}.to_kv.weight"].mT
        q, k, v = (z.unflatten(-1, (heads, -1)).transpose(1, 2)
                   for z in (q_in @ state[f"{name}.to_q.weight"].mT, *kv.chunk(2, -1)))
        out = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1) @ v
        latents = latents + out.transpose(1, 2).flatten(2) @ state[f"{name}.to_out.weight"].mT
        wide = torch.nn.functional.gelu(norm(latents, f"layers.{i}.1.0") @ state[f"layers.{i}.1.1.weight"].mT)
        latents = latents + wide @ state[f"layers.{i}.1.3.weight"].mT
    return norm(latents, "norm")


@torch.no_grad()
def test_perceiver_reads_open_flamingos_tensors():
    ours, inner = perceiver(frames=3, native=True), 16
    state = {"latents": torch.randn(4, FEATURES), "frame_embs": torch.randn(3, FEATURES)}
    for name in ("norm", *(f"layers.{i}.{n}" for i in (0, 1) for n in ("0.norm_media", "0.norm_latents", "1.0"))):
        state |= {f"{name}.weight": torch.randn(FEATURES), f"{name}.bias": torch.randn(FEATURES)}
    for i in (0, 1):
        shapes = {"0.to_q": (inner, FEATURES), "0.to_kv": (2 * inner, FEATURES), "0.to_out": (FEATURES, inner),
                  "1.1": (4 * FEATURES, FEATURES), "1.3": (FEATURES, 4 * FEATURES)}
        state |= {f"layers.{i}.{n}.weight": torch.randn(s) * 0.2 for n, s in shapes.items()}
    ours.load_state_dict(from_open_flamingo(state), strict=True)
    features = torch.randn(2, 3, 5, FEATURES)
    close(ours(features, torch.ones(2, 3, dtype=torch.bool)), open_flamingo_resampler(state, features, 2), 2e-5)
    with pytest.raises(KeyError, match="layers.0.2.weight"):
        from_open_flamingo({"layers.0.2.weight": torch.zeros(1)})


# --- the others ------------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_linear_merges_neighbours():
    adapter = randomized(Linear(Linear.Config(merge=2, norm=True), feature_width=FEATURES, lm_width=LM))
    features, valid = torch.randn(1, 2, 4, FEATURES), torch.tensor([[True, False]])
    rows = features.reshape(4, 2 * FEATURES)  # two neighbours a row
    wanted = torch.nn.functional.linear(rows, adapter.projection.weight, adapter.projection.bias)
    wanted = torch.nn.functional.layer_norm(wanted, (LM,), adapter.norm.weight, adapter.norm.bias)
    tokens = adapter.project(adapter(features, valid))
    close(tokens[0], wanted)
    with pytest.raises(ConfigError, match="3 features a step are no multiple of merge 2"):
        adapter(features[:, :, :3], valid)


@torch.no_grad()
def test_mlp_equals_llavas():
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    config = tf.LlavaConfig(vision_config=tf.CLIPVisionConfig(**VISION), 
                            text_config=tf.LlamaConfig(hidden_size=LM, num_attention_heads=4))
    theirs = randomized(LlavaMultiModalProjector(config))
    ours = Mlp(Mlp.Config(act=config.projector_hidden_act, bias=config.multimodal_projector_bias), feature_width=FEATURES,
               lm_width=LM)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    features = torch.randn(2, 3, 5, FEATURES)
    close(ours.project(ours(features, torch.ones(2, 3, dtype=torch.bool))), theirs(features.flatten(1, 2)))
    with pytest.raises(ValueError, match="'glue'"):
        Mlp.Config(act="glue")


@pytest.mark.parametrize("side", [4, 6])  # that of the queries' grid, and a finer picture
@torch.no_grad()
def test_resampler2d_is_one_attention_with_places(side):
    adapter = Resampler2d(Resampler2d.Config(queries=16, heads=4), feature_width=FEATURES, lm_width=LM)
    places = adapter.pos_embed.clone()
    rate = 10000.0 ** (-torch.arange(10) / 10)  # W / 4 = 10 frequencies; query 7 is in row 1, column 3
    close(places[7], torch.cat([(3 * rate).sin(), (3 * rate).cos(), (1 * rate).sin(), (1 * rate).cos()]), 1e-6)
    assert not adapter.pos_embed.requires_grad
    randomized(adapter).pos_embed.copy_(places)
    assert adapter.state_dict().keys() == {
        "query", "pos_embed", "kv_proj.weight", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight",
        "attn.out_proj.bias", "ln_q.weight", "ln_q.bias", "ln_kv.weight", "ln_kv.bias", "ln_post.weight", "ln_post.bias",
        "proj"}

    features = torch.randn(1, 1, side * side, FEATURES)
    value = adapter.ln_kv(features[0, 0] @ adapter.kv_proj.weight.mT)
    grid = places.view(1, 4, 4, LM).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic")[0].flatten(1).mT
    q, k, v = (torch.nn.functional.linear(x, w, b).unflatten(-1, (4, -1)).transpose(0, 1) for x, w, b in zip(
        (adapter.ln_q(adapter.query) + places, value + grid, value), adapter.attn.in_proj_weight.chunk(3),
        adapter.attn.in_proj_bias.chunk(3)))
    out = ((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v
    wanted = adapter.ln_post(adapter.attn.out_proj(out.transpose(0, 1).flatten(1))) @ adapter.proj
    close(adapter.project(adapter(features, torch.ones(1, 1, dtype=torch.bool)))[0], wanted, 5e-5)
    with pytest.raises(ConfigError, match="square grid of features, found 5"):
        adapter(features[:, :, :5], torch.ones(1, 1, dtype=torch.bool))


@torch.no_grad()
def test_visual_abstractor_goes_around_the_normed_queries():
    adapter = randomized(VisualAbstractor(VisualAbstractor.Config(queries=3, layers=2, heads=4, mlp_width=20),
                                          feature_width=FEATURES, lm_width=LM))
    s = {k: v for k, v in adapter.state_dict().items()}

    def linear(x, key):
        return torch.nn.functional.linear(x, s[f"{key}.weight"], s[f"{key}.bias"])

    def norm(x, key, eps=1e-5):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], s[f"{key}.weight"], s[f"{key}.bias"], eps)

    features, x = torch.randn(7, FEATURES), s["query_tokens"][0]
    for i in range(2):
        name = f"encoder.layers.{i}.crossattention"
        x = norm(x, f"{name}.norm1")
        both = torch.cat([x, norm(features, f"{name}.normk")])
        q, k, v = (linear(y, f"{name}.attention.{n}").unflatten(-1, (4, -1)).transpose(0, 1)
                   for y, n in ((x, "query"), (both, "key"), (both, "value")))
        read = (((q @ k.mT) / 6**0.5).softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + linear(read, f"{name}.output.out_proj")
        y, mlp = norm(x, f"{name}.output.norm2"), f"{name}.output.mlp"
        y = torch.nn.functional.silu(linear(y, f"{mlp}.w1")) * linear(y, f"{mlp}.w3")
        x = x + linear(norm(y, f"{mlp}.ffn_ln", 1e-6), f"{mlp}.w2")
    wanted = torch.cat([linear(x, "visual_fc"), s["vit_eos"][0]])
    one = torch.ones(1, 1, dtype=torch.bool)
    close(adapter.project(adapter(features[None, None], one))[0], wanted, 2e-5)


@torch.no_grad()
def test_c_abstractor_is_blocks_pooling_blocks():
    adapter = randomized(CAbstractor(CAbstractor.Config(queries=4, width=12, depth=1, patches=16), feature_width=FEATURES,
                                     lm_width=LM))
    s = {k: v for k, v in adapter.state_dict().items()}

    def norm(x, key):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], s[f"{key}.norm.weight"], s[f"{key}.norm.bias"], 1e-6)

    def block(x, name):  # x (h, w, D), convolutions as sums over shifted grids
        silu = torch.nn.functional.silu
        y = silu(norm(x @ s[f"{name}.first.0.conv.weight"][:, :, 0, 0].mT, f"{name}.first.0"))
        wide, kernel = torch.nn.functional.pad(y, (0, 0, 1, 1, 1, 1)), s[f"{name}.near.0.conv.weight"][:, 0]
        h, w = x.shape[:2]
        y = sum(wide[i : i + h, j : j + w] * kernel[:, i, j] for i in range(3) for j in range(3))
        y = silu(norm(y, f"{name}.near.0"))
        z = y.mean((0, 1)) @ s[f"{name}.squeeze.1.weight"][:, :, 0, 0].mT + s[f"{name}.squeeze.1.bias"]
        z = silu(z) @ s[f"{name}.squeeze.3.weight"][:, :, 0, 0].mT + s[f"{name}.squeeze.3.bias"]
        y = norm((y * z.sigmoid()) @ s[f"{name}.last.conv.weight"][:, :, 0, 0].mT, f"{name}.last")
        around = f"{name}.around"
        if f"{around}.conv.weight" in s:
            x = norm(x @ s[f"{around}.conv.weight"][:, :, 0, 0].mT, around)
        return silu(y + x)

    features = torch.randn(16, FEATURES)
    x = block((features + s["place"][0]).view(4, 4, -1), "before.0")
    x = block(x.view(2, 2, 2, 2, 12).mean((1, 3)), "after.0").view(4, 12)
    x = torch.nn.functional.silu(torch.nn.functional.linear(x, s["to_lm.0.weight"], s["to_lm.0.bias"]))
    wanted = torch.nn.functional.linear(x, s["to_lm.2.weight"], s["to_lm.2.bias"])
    close(adapter.project(adapter(features[None, None], torch.ones(1, 1, dtype=torch.bool)))[0], wanted, 2e-5)


@torch.no_grad()
def test_spatiotemporal_pool():
    adapter = SpatioTemporalPool(SpatioTemporalPool.Config(frames=5), feature_width=FEATURES, lm_width=LM)
    features, valid = torch.randn(1, 3, 4, FEATURES), torch.tensor([[True, True, False]])
    x = features[0].numpy()
    wanted = np.stack([x[0].mean(0), x[1].mean(0), *[0 * x[0, 0]] * 3, *((x[0] + x[1]) / 2)])
    states = adapter(features, valid)
    close(states[0], torch.from_numpy(wanted), 1e-6)
    assert adapter.project(states).shape == (1, 9, LM)
    with pytest.raises(ConfigError, match="6 frames are more than the 5"):
        adapter(torch.randn(1, 6, 4, FEATURES), torch.ones(1, 6, dtype=torch.bool))


def merged_slowly(x: list[np.ndarray], keep: int) -> tuple[list[np.ndarray], list[int]]:
    """Bipartite soft matching as the paper tells it, token by token."""
    sizes = [1] * len(x)
    while len(x) > keep:
        odd, even = range(1, len(x), 2), range(0, len(x), 2)
        pairs = []
        for i in odd:
            scores = [float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])) for j in even]
            pairs.append((max(scores), i, even[int(np.argmax(scores))]))
        pairs = sorted(pairs, reverse=True)[: min(len(x) - keep, len(x) // 2)]
        totals = [v * n for v, n in zip(x, sizes)]
        for _, i, j in pairs:
            totals[j], sizes[j] = totals[j] + totals[i], sizes[j] + sizes[i]
        gone = {i for _, i, _ in pairs}
        x = [totals[i] / sizes[i] for i in range(len(x)) if i not in gone]
        sizes = [sizes[i] for i in range(len(sizes)) if i not in gone]
    return x, sizes


@pytest.mark.parametrize("keep", [1, 3, 8, 13])
@torch.no_grad()
def test_token_merging(keep):
    x = torch.randn(2, 13, 6, dtype=torch.float64)
    found, sizes = merge_tokens(x, keep)
    for row in range(2):
        wanted, counts = merged_slowly(list(x[row].numpy()), keep)
        close(found[row], torch.from_numpy(np.stack(wanted)), 1e-12)
        assert sizes[row].tolist() == counts
    close((found * sizes[..., None]).sum(1), x.sum(1), 1e-12)  # nothing is lost

    adapter = TokenMerging(TokenMerging.Config(queries=2), feature_width=FEATURES, lm_width=LM)
    a, b = torch.randn(2, FEATURES)
    states = adapter(torch.stack([a, a, a, b, b, b])[None, None], torch.ones(1, 1, dtype=torch.bool))
    close(states[0], torch.stack([a, b]), 1e-6)  # equal features become one


# --- all of them -----------------------------------------------------------------------------------------------------

ALL = {
    "linear": lambda: (Linear, Linear.Config(merge=3)),
    "mlp": lambda: (Mlp, Mlp.Config()),
    "blip2": lambda: (Blip2QFormer, Blip2QFormer.Config(**SMALL, layers=2)),
    "temporal": lambda: (TemporalQFormer, TemporalQFormer.Config(**SMALL, frames={**SMALL, "layers": 2})),
    "windowed": lambda: (WindowQFormer, WindowQFormer.Config(**SMALL, frames=9, stride=9)),
    "perceiver": lambda: (PerceiverResampler, PerceiverResampler.Config(queries=4, layers=1, heads=2, frames=3)),
    "resampler 2-D": lambda: (Resampler2d, Resampler2d.Config(queries=4, heads=4)),
    "visual abstractor": lambda: (VisualAbstractor, VisualAbstractor.Config(queries=2, layers=1, heads=4)),
    "c-abstractor": lambda: (CAbstractor, CAbstractor.Config(queries=4, width=12, depth=1)),
    "pooling": lambda: (SpatioTemporalPool, SpatioTemporalPool.Config()),
    "merging": lambda: (TokenMerging, TokenMerging.Config(queries=4)),
}


@pytest.mark.parametrize("name", ALL)
def test_steps_that_are_not_there_change_nothing_and_all_weights_learn(name):
    cls, config = ALL[name]()
    adapter = cls(config, feature_width=FEATURES, lm_width=LM)
    features, valid = torch.randn(2, 3, 9, FEATURES), torch.tensor([[True, True, False], [True, True, True]])
    other = torch.where(valid[..., None, None], features, torch.randn_like(features))

    def real(given):
        tokens = adapter.project(adapter(given, valid))
        assert tokens.shape[0] == 2 and tokens.shape[2] == LM
        if name == "windowed" or getattr(adapter, "per_step", False):  # in this test a read of sound is one step
            return tokens.unflatten(1, (3, -1))[valid].flatten(0, 1)
        return tokens.flatten(0, 1)

    tokens = real(features)
    close(tokens, real(other), 1e-6)
    (tokens**2).sum().backward()
    still = [n for n, p in adapter.named_parameters()
             if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert still == []
