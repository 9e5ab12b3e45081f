"""Media reach a language model beside its text: nothing changes before training, and after it only what should."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from anymodal.agent import load
from anymodal.config import MemorySpec, PartSpec, build_part, configs_dir, load_spec, parse_spec
from anymodal.errors import ConfigError, WeightsError
from anymodal.language.adapter_prompts import AdapterPromptLM, attention_of
from anymodal.language.attach import TIED, Medium, Seen, decoder_layers, owned
from anymodal.language.encoder_decoder import EncoderDecoderLM
from anymodal.language.forks import Forks, Trunk
from anymodal.language.gated_cross import GatedCrossLM
from anymodal.language.layout import make_layout
from anymodal.language.mind import Mind
from anymodal.language.plain import PlainLM
from anymodal.language.pretrained import PretrainedLM
from anymodal.language.prompt import answer_ids, question_ids
from anymodal.language.rows import Rows
from anymodal.language.tree import Tree
from anymodal.memory import Compaction
from anymodal.playground.questions import Question
from anymodal.session.log import Turn
from anymodal.stages.items import Percept
from anymodal.testing import gradient_frame, make_video
from anymodal.testing_bundle import random_bundle
from anymodal.training.language import clip_prefix, clip_seen, pack, packed_loss
from anymodal.training.loop import StagePlan, run_stage
from anymodal.training.recipe import Recipe, plans
from anymodal.types import Tokens

WIDTH, VOCAB = 32, 99
SMALL = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 128, "initializer_range": 0.2}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "llama": {"model_type": "llama", **SMALL},
    "qwen2": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2},
    "qwen3": {"model_type": "qwen3", **GROUPED},
    "mistral": {"model_type": "mistral", **GROUPED, "sliding_window": 6},
    "gemma": {"model_type": "gemma", **GROUPED},
    "gemma3": {"model_type": "gemma3_text", **GROUPED, "sliding_window": 6},
    "opt": {"model_type": "opt", "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "ffn_dim": 48,
            "num_attention_heads": 4, "word_embed_proj_dim": WIDTH, "max_position_embeddings": 128, "init_std": 0.2},
    "mpt": {"model_type": "mpt", "vocab_size": VOCAB, "d_model": WIDTH, "n_layers": 2, "n_heads": 4, "max_seq_len": 128,
            "initializer_range": 0.2},
}
FORKABLE = [name for name in FAMILIES if name != "mpt"]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def base(family: str = "llama") -> dict:
    """The `base` of an attached part."""
    attention = "eager" if family == "mpt" else "sdpa"
    return {"use": "anymodal.language.pretrained:PretrainedLM", "text": FAMILIES[family], "attention": attention}


def plain(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model(inputs_embeds=model.get_input_embeddings()(ids), use_cache=False).logits


def opened(lm: nn.Module) -> nn.Module:
    """With gates as training leaves them."""
    with torch.no_grad():
        for name, tensor in lm.named_parameters():
            if name.endswith(("_gate", "gates")):
                tensor.copy_(torch.randn_like(tensor))
    return lm.eval()


def same(a: torch.Tensor, b: torch.Tensor, most: float = 1e-5) -> None:
    assert a.shape == b.shape and float((a - b).detach().abs().max()) <= most


# --- soft tokens -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_soft_tokens_enter_where_words_do(family):
    part = PretrainedLM(PretrainedLM.Config(text=FAMILIES[family], attention=base(family)["attention"]))
    model, ids = part.model.eval(), torch.randint(3, VOCAB, (2, 9))
    assert part.width == WIDTH == PretrainedLM.width_of({"text": FAMILIES[family]})
    same(plain(model, ids), model(ids, use_cache=False).logits)
    embed = model.get_input_embeddings()
    scale = WIDTH**0.5 if family.startswith("gemma") else 1.0  # of Gemma's words; soft tokens have none
    same(embed(ids), embed.weight[ids] * scale)


# --- gated cross-attention -------------------------------------------------------------------------------------------

def gated(family: str = "llama", **options) -> GatedCrossLM:
    return GatedCrossLM(GatedCrossLM.Config(base=base(family), **{"heads": 2, "head_width": 8, **options})).eval()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_untrained_gated_cross_attention_is_the_language_model(family):
    lm, ids = gated(family), torch.randint(3, VOCAB, (2, 9))
    embeds = lm.model.get_input_embeddings()(ids)
    before = plain(lm.model, ids)
    media, upto = torch.randn(2, 3, 4, WIDTH), torch.tensor([[0, 0, 1, 1, 1, 2, 2, 3, 3]]).expand(2, -1)
    assert torch.equal(lm(embeds, media, upto, use_cache=False).logits, before)  # to the last bit
    opened(lm)
    after = lm(embeds, media, upto, use_cache=False).logits
    assert float((after - before).abs().max()) > 1e-3
    assert torch.equal(plain(lm.model, ids), before)  # without media at hand the language model is as it was
    other = lm(embeds, torch.cat([media[:, :1], torch.randn(2, 2, 4, WIDTH)], 1), upto, use_cache=False).logits
    same(other[:, :5], after[:, :5], 1e-6)  # text before the second medium knows nothing of it
    assert float((other[:, 5:] - after[:, 5:]).abs().max()) > 1e-3


@torch.no_grad()
def test_gated_blocks_are_open_flamingos():
    lm = opened(gated("llama", every=2, windows=1, media_width=24))
    state = lm.gated_cross_attn_layers.state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        "1.attn_gate": (1,), "1.ff_gate": (1,), "1.attn.norm.weight": (32,), "1.attn.norm.bias": (32,),
        "1.attn.to_q.weight": (16, 32), "1.attn.to_kv.weight": (32, 24), "1.attn.to_out.weight": (32, 16),
        "1.ff.0.weight": (32,), "1.ff.0.bias": (32,), "1.ff.1.weight": (128, 32), "1.ff.3.weight": (32, 128)}
    assert lm.width == 24 == GatedCrossLM.width_of({"base": base(), "media_width": 24})

    x, media, came = torch.randn(1, 7, WIDTH), torch.randn(1, 2, 4, 24), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    norm, gelu = nn.functional.layer_norm, nn.functional.gelu
    q = norm(x, (32,), state["1.attn.norm.weight"], state["1.attn.norm.bias"]) @ state["1.attn.to_q.weight"].mT
    k, v = (media.flatten(1, 2) @ state["1.attn.to_kv.weight"].mT).chunk(2, -1)
    q, k, v = (y.unflatten(-1, (2, 8)).transpose(1, 2) for y in (q, k, v))
    scores = (q * 8**-0.5) @ k.mT
    times = torch.arange(1, 3).repeat_interleave(4)  # text sees the medium that came last
    shares = scores.masked_fill(came[:, None] != times, -torch.inf).softmax(-1)
    shares = shares.masked_fill((came == 0)[:, None], 0.0)
    out = (shares @ v).transpose(1, 2).flatten(2) @ state["1.attn.to_out.weight"].mT
    y = x + out * state["1.attn_gate"].tanh()
    wide = gelu(norm(y, (32,), state["1.ff.0.weight"], state["1.ff.0.bias"]) @ state["1.ff.1.weight"].mT)
    y = y + wide @ state["1.ff.3.weight"].mT * state["1.ff_gate"].tanh()
    block = lm.gated_cross_attn_layers["1"]
    same(block(x, Seen(media, came[None], 1)), y)
    assert torch.equal(lm.model.base_model.layers[1].state_dict()["self_attn.q_proj.weight"],
                       lm.model.state_dict()["model.layers.1.self_attn.q_proj.weight"])  # the base's names are its own


# --- adapter prompts -------------------------------------------------------------------------------------------------

def prompted(family: str = "llama", **options) -> AdapterPromptLM:
    return AdapterPromptLM(AdapterPromptLM.Config(base=base(family), **{"prompts": 3, **options})).eval()


@pytest.mark.parametrize("family", FORKABLE)
@torch.no_grad()
def test_untrained_adapter_prompts_are_the_language_model(family):
    lm, ids = prompted(family), torch.randint(3, VOCAB, (2, 9))
    bare = PretrainedLM(PretrainedLM.Config(text=FAMILIES[family])).eval()
    bare.model.load_state_dict(lm.model.state_dict())
    before, embeds = plain(bare.model, ids), lm.model.get_input_embeddings()(ids)
    media, upto = torch.randn(2, 3, 3, WIDTH), torch.tensor([[0, 0, 1, 1, 1, 2, 2, 3, 3]]).expand(2, -1)
    assert torch.equal(plain(lm.model, ids), before)  # to the last bit
    assert torch.equal(lm(embeds, media, upto, use_cache=False).logits, before)
    opened(lm)
    after = lm(embeds, media, upto, use_cache=False).logits
    assert float((after - before).abs().max()) > 1e-3
    other = lm(embeds, torch.cat([media[:, :1], torch.randn(2, 2, 3, WIDTH)], 1), upto, use_cache=False).logits
    same(other[:, :5], after[:, :5], 1e-6)
    assert float((other[:, 5:] - after[:, 5:]).abs().max()) > 1e-3


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt"])
@pytest.mark.parametrize("count", [1, 3])
@torch.no_grad()
def test_prompts_have_a_softmax_of_their_own(family, count):
    lm = opened(prompted(family, prompts=count, layers=1))
    ids, media = torch.randint(3, VOCAB, (1, 6)), torch.randn(1, 2, 1, WIDTH)
    attention = attention_of(decoder_layers(lm.model)[1])
    heard = []
    projection = attention.out_proj if family == "opt" else attention.o_proj
    projection.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    queries, added = [], attention.attached
    attention.attached = lambda query, scaling: (queries.append((query, scaling)), torch.zeros_like(query))[1]
    plain(lm.model, ids)
    attention.attached = added
    lm(lm.model.get_input_embeddings()(ids), media, torch.tensor([[0, 1, 1, 1, 2, 2]]), use_cache=False)
    (query, scaling), wanted = queries[0], []
    for t, came in enumerate([0, 1, 1, 1, 2, 2]):  # windows: 1, so prompts are of the last medium
        prompts = lm.prompts[0] + (media[0, came - 1] if came else 0)
        k, v = (f(prompts).unflatten(-1, (-1, 8)).transpose(0, 1) for f in (attention.k_proj, attention.v_proj))
        k, v = (x.repeat_interleave(4 // len(x), 0) for x in (k, v))
        shares = ((query[0, :, t, None] * scaling) @ k.mT).softmax(-1)
        wanted.append(((shares @ v)[:, 0] * lm.gates[0].tanh()[:, None]).flatten())
        if count == 1:
            same(shares, torch.ones_like(shares))  # ImageBind-LLM's: the value alone, behind the gate
    same(heard[1] - heard[0], torch.stack(wanted)[None])


def test_parts_that_do_not_fit_say_so():
    with pytest.raises(ConfigError, match="MptForCausalLM does not take attention functions"):
        prompted("mpt")
    with pytest.raises(ConfigError, match="layers 3 are more than the 2"):
        prompted(layers=3)
    with pytest.raises(ConfigError, match="every 5 is more than the 2 layers"):
        gated(every=5)
    with pytest.raises(ValueError, match="names no language model"):
        GatedCrossLM.Config()
    lm = prompted()
    with pytest.raises(ConfigError, match="a window brings 2 tokens to 3 prompts"):
        lm(torch.randn(1, 4, WIDTH), torch.randn(1, 2, 2, WIDTH))


# --- learning --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [gated, prompted])
def test_only_what_is_attached_learns(make):
    lm = opened(make()).train()
    base_names = {f"model.{n}" for n, _ in lm.model.named_parameters()}
    media = torch.randn(1, 2, 3, WIDTH, requires_grad=True)  # from an adapter that learns, too
    logits = lm(torch.randn(1, 6, WIDTH), media, torch.tensor([[0, 1, 1, 2, 2, 2]]), use_cache=False).logits
    logits.square().mean().backward()
    learns = {n for n, p in lm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learns == {n for n, _ in lm.named_parameters()} - base_names
    assert media.grad.abs().sum(dim=(0, 2, 3)).min() > 0

    tuned = make(freeze=False)
    assert all(p.requires_grad for p in tuned.parameters())


# --- in a stream -----------------------------------------------------------------------------------------------------

ENTRIES = (3, 1, 2, 4)  # tokens of text that come with each medium, after two of the head


def streamed(lm, media: torch.Tensor, text: torch.Tensor, piece: int | None = None) -> Trunk:
    """A trunk that has read the head and ENTRIES, one after the other, or `piece` of them at once."""
    trunk, at = Trunk(lm.model, windows=lm.windows), 2
    rows = [Rows(text[:2])]
    for count, tokens in zip(ENTRIES, media):
        rows.append(Rows(text[at : at + count], media=((0, Medium(tokens)),)))
        at += count
    for first in range(0, len(rows), piece or 1):
        trunk.extend(Rows.cat(rows[first : first + (piece or 1)]))
    return trunk


@pytest.mark.parametrize("make", [gated, prompted])
@pytest.mark.parametrize("family", ["llama", "mistral", "opt"])
@torch.inference_mode()
def test_a_stream_reads_media_as_one_pass_does(make, family):
    lm = opened(make(family, windows=2))
    text, asked, media = torch.randn(12, WIDTH), torch.randn(3, WIDTH), torch.randn(4, 3, WIDTH)
    came = [0, 0, *(i + 1 for i, n in enumerate(ENTRIES) for _ in range(n)), 4, 4, 4]
    wanted = lm(torch.cat([text, asked])[None], media[None], torch.tensor([came]), use_cache=False).logits[0, -1]
    trunk = streamed(lm, media, text)
    forks = Forks(trunk, [asked, asked[:1]])
    same(forks.logits[0], wanted)
    same(Forks(streamed(lm, media, text, piece=5), [asked]).logits[0], wanted)  # all at once, as after a compaction

    ids = torch.tensor([5, 7])
    forks.step(ids)
    longer = torch.cat([text, asked, lm.model.get_input_embeddings()(ids[:1])])
    wanted = lm(longer[None], media[None], torch.tensor([[*came, 4]]), use_cache=False).logits[0, -1]
    same(forks.logits[0], wanted)

    early = Forks(trunk, [asked], length=6)  # as of two media ago
    upto = torch.tensor([[*came[:6], 2, 2, 2]])
    same(early.logits[0], lm(torch.cat([text[:6], asked])[None], media[None, :2], upto, use_cache=False).logits[0, -1])

    rows = [[3, 4, 5], [3, 4, 6, 8]]
    packed = Forks.packed(trunk, rows)
    apart = Forks(trunk, [lm.model.get_input_embeddings()(torch.tensor(row)) for row in rows])
    same(packed.logits, apart.logits)


@torch.inference_mode()
def test_media_are_swapped_without_touching_the_text():
    lm = opened(gated(windows=2))
    text, media = torch.randn(12, WIDTH), torch.randn(5, 3, WIDTH)
    trunk = streamed(lm, media[:4], text)
    keys = [trunk.layer(i, 12)[0].clone() for i in range(2)]
    before = Forks(trunk, [text[:2]]).logits
    kept = [m.nbytes for m in trunk.media(trunk.length)]
    trunk.extend(Rows(text[:1], media=((0, Medium(media[4])),)))
    assert all(torch.equal(trunk.layer(i, 12)[0], keys[i]) for i in range(2))
    assert float((Forks(trunk, [text[:2]]).logits - before).abs().max()) > 1e-3
    assert [len(kept), all(kept)] == [2, True]
    assert [m.nbytes > 0 for m in trunk._media] == [False, False, True, True, True]  # the oldest go with the next window
    trunk.extend(Rows(text[:1]))
    assert [m.nbytes > 0 for m in trunk._media] == [False, False, False, True, True]
    looked_up = Forks(trunk, [Rows(text[:2], media=((0, Medium(media[0])),))])  # a window that is brought back is seen, too
    assert float((looked_up.logits - Forks(trunk, [text[:2]]).logits).abs().max()) > 1e-3


# --- models whose past cannot be shared ------------------------------------------------------------------------------

def greedy(forks, count: int) -> list[int]:
    """Ids of the first fork."""
    found = []
    for _ in range(count):
        found.append(int(forks.logits[0].argmax()))
        forks.step(forks.logits.argmax(-1))
    return found


@torch.inference_mode()
def test_alibi_is_refused_in_a_shared_prefix_and_read_anew_for_each_question():
    lm = PlainLM(PlainLM.Config(text=FAMILIES["mpt"], attention="eager"))
    model = lm.model.eval()
    with pytest.raises(ConfigError, match="ALiBi"):
        Trunk(model)
    embed = model.get_input_embeddings()
    head, asked = torch.randint(3, VOCAB, (7,)), torch.randint(3, VOCAB, (4,))
    wanted = model.generate(torch.cat([head, asked])[None], max_new_tokens=5, min_new_tokens=5, do_sample=False)[0, 11:]
    trunk = lm.trunk(64)
    trunk.extend(embed(head[:5]))
    trunk.extend(embed(head[5:]))
    assert greedy(trunk.fork([embed(asked), embed(head)]), 5) == wanted.tolist()
    early = trunk.fork([embed(asked)], length=5).logits[0]
    same(early, model(torch.cat([head[:5], asked])[None]).logits[0, -1])
    rows = [asked.tolist(), asked[:2].tolist() + [5, 6, 7]]
    packed = trunk.packed(Tree.of(rows))
    same(packed.logits, trunk.fork([embed(torch.tensor(r)) for r in rows]).logits)
    packed.keep([1])
    assert packed.logits.shape == (1, VOCAB) and trunk.length == 7
    lm.capability.check(128, "a list")
    with pytest.raises(ConfigError, match="take 129 tokens"):
        lm.capability.check(129, "a list")


@torch.inference_mode()
def test_media_reach_alibi_too():
    lm = opened(GatedCrossLM(GatedCrossLM.Config(base={**base("mpt"), "use": "anymodal.language.plain:PlainLM"}, heads=2,
                                                 head_width=8, windows=2)))
    text, media = torch.randn(6, WIDTH), torch.randn(3, 4, WIDTH)
    trunk = lm.trunk(64)
    trunk.extend(Rows(text[:3], media=((1, Medium(media[0])), (2, Medium(media[1])))))
    trunk.extend(Rows(text[3:5], media=((0, Medium(media[2])),)))
    wanted = lm(text[None], media[None], torch.tensor([[0, 1, 2, 3, 3, 3]]), use_cache=False).logits[0, -1]
    forks = trunk.fork([text[5:]])
    same(forks.logits[0], wanted)
    token = forks.logits.argmax(-1)
    longer = torch.cat([text, lm.model.get_input_embeddings()(token)])
    wanted = lm(longer[None], media[None], torch.tensor([[0, 1, 2, 3, 3, 3, 3]]), use_cache=False).logits[0, -1]
    same(forks.step(token)[0], wanted)


T5 = {"model_type": "t5", "vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
      "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
      "tie_word_embeddings": False}


@torch.inference_mode()
def test_t5_decodes_what_its_encoder_has_read():
    lm = EncoderDecoderLM(EncoderDecoderLM.Config(text=T5))
    with torch.no_grad():
        for tensor in lm.model.parameters():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    model = lm.model.eval()
    assert lm.width == WIDTH == EncoderDecoderLM.width_of({"text": T5})
    soft, asked = torch.randn(6, WIDTH), model.get_input_embeddings()(torch.randint(3, VOCAB, (4,)))
    wanted = model.generate(inputs_embeds=torch.cat([soft, asked])[None], max_new_tokens=6, min_new_tokens=6,
                            do_sample=False, suppress_tokens=None)[0, 1:]
    trunk = lm.trunk(64)
    trunk.extend(soft[:4])
    trunk.extend(soft[4:])
    assert greedy(trunk.fork([asked, asked[:2]]), 6) == wanted.tolist()
    first = model(inputs_embeds=torch.cat([soft, asked])[None], decoder_input_ids=torch.tensor([[0]])).logits[0, -1]
    same(trunk.fork([asked]).logits[0], first)
    with pytest.raises(ConfigError, match="'t6' is known.*did you mean 't5'"):
        EncoderDecoderLM(EncoderDecoderLM.Config(text={**T5, "model_type": "t6"}))


# --- a session ------------------------------------------------------------------------------------------------------

LM = {"use": "anymodal.language.causal:CausalLM", "width": WIDTH, "layers": 2, "heads": 2, "mlp_width": 64}
ATTACHED = {
    "gated cross-attention": {"use": "anymodal.language.gated_cross:GatedCrossLM", "base": LM, "windows": 3, "heads": 2,
                              "head_width": 8},
    "adapter prompts": {"use": "anymodal.language.adapter_prompts:AdapterPromptLM", "base": LM, "windows": 2,
                        "prompts": 2},
    "read anew": {"use": "anymodal.language.plain:PlainLM", "attention": "eager", "text": {
        "model_type": "mpt", "vocab_size": 2048, "d_model": WIDTH, "n_layers": 2, "n_heads": 4, "max_seq_len": 1024,
        "initializer_range": 0.2}},
    "encoder and decoder": {"use": "anymodal.language.encoder_decoder:EncoderDecoderLM",
                            "text": {**T5, "vocab_size": 2048}},
}
STREAMS = (("video", 2), ("audio", 1))


def mind_of(language: dict) -> Mind:
    spec = parse_spec({**yaml.safe_load((configs_dir() / "tiny.yaml").read_text()), "language": language,
                       "prompt": {"order": ["video", "audio"], "max_question_tokens": 24, "max_answer_tokens": 6}})
    spec = spec.model_copy(update={"memory": MemorySpec(budget_tokens=160, turn_tokens=16, recalled_tokens=16,
                                                        compact_at=0.7, compact_to=0.35, keep_recent=0.1, slices=2)})
    lm = build_part(spec.language)
    with torch.no_grad():
        for tensor in lm.parameters():  # gates too
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    return Mind(spec, lm.eval(), make_layout(spec, configs_dir() / "tiny"))


def on_grid(values: np.ndarray) -> np.ndarray:
    """As a log gives them."""
    return (np.round(values * 16) / 16).astype(np.float32)


def window(index: int, rng: np.random.Generator) -> Percept:
    tokens = tuple(Tokens("s", m, index, m, float(index), index + 1.0, on_grid(rng.normal(size=(n, WIDTH))))
                   for m, n in STREAMS)
    return Percept("s", index, float(index), index + 1.0, tokens, frames=4)


def scores(mind: Mind, state) -> torch.Tensor:
    return mind.fork(state, [[4, 300, 301, 5]]).logits[0]


@pytest.mark.parametrize("name", ATTACHED)
def test_a_session_of_each_kind(name):
    mind, rng = mind_of(ATTACHED[name]), np.random.default_rng(0)
    windows = [window(k, rng) for k in range(70)]
    if name == "adapter prompts":  # of a window's streams each brings as many tokens as there are prompts, or one
        assert mind.lm.gather([torch.ones(2, 3), torch.zeros(1, 3)]).tolist() == [[0.5] * 3] * 2
    live, made = mind.open(), []
    for w in windows:
        if (c := mind.extend(live, w)) is not None:
            made.append(Compaction.from_row(c.to_row()))
    in_effect = [c for c in made if c.effective_from <= 69]
    rebuilt = mind.open(in_effect[-1], windows[in_effect[-1].after_window + 1 :])
    assert live.trunk.length == live.memory.tokens == rebuilt.trunk.length <= 160
    same(scores(mind, live), scores(mind, rebuilt), 1e-3)
    one, other = ([p for p in mind.answer(s, "what is it?")][-1] for s in (live, rebuilt))
    assert (one.text, one.windows_seen, one.frames_seen) == (other.text, 70, 280)

    at = max(68, int(live.exact_from_s))
    before = [p for p in mind.answer(live, "what is it?", at_s=float(at))][-1]  # as of then, from a state that went on
    early = mind.open(in_effect[-1], windows[in_effect[-1].after_window + 1 : at])
    assert before.text == [p for p in mind.answer(early, "what is it?")][-1].text and before.windows_seen == at
    seen = mind.open(None, [*windows[:4], replace(windows[4], tokens=tuple(
        replace(t, embeds=-t.embeds) for t in windows[4].tokens))])
    assert float((scores(mind, seen) - scores(mind, mind.open(None, windows[:5]))).abs().max()) > 1e-3
    judged, anew = (mind.judge(s, ["is it red?", "is it blue?"]) for s in (live, rebuilt))
    assert [j.yes for j in judged] == pytest.approx([j.yes for j in anew], abs=1e-3)
    turn = Turn(window=3, at_s=4.0, question="where?", text="here")
    again = [p for p in mind.answer(live, "what is it?", recalled=[windows[0]], turns=[turn])][-1]
    assert again.windows_seen == 70


def test_media_need_text_to_stand_beside():
    mind = mind_of(ATTACHED["gated cross-attention"])
    mind.layout.text_tokens = lambda entry: 0
    with pytest.raises(ConfigError, match="a window has no text"):
        Mind(mind.spec, mind.lm, mind.layout)


@pytest.mark.parametrize("name", ["gated cross-attention", "adapter prompts"])
def test_a_bundle_whose_media_stand_beside_the_text(name, tmp_path):
    path = random_bundle(tmp_path)
    raw = yaml.safe_load(path.read_text())
    raw["language"], raw["memory"] = ATTACHED[name], {"budget_tokens": 190, "slices": 1}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    lm = build_part(PartSpec(**raw["language"]))
    with torch.no_grad():
        for tensor in lm.parameters():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    state = {k: v.contiguous() for k, v in owned(lm).state_dict().items() if k not in TIED}
    file = tmp_path / "random" / "language.safetensors"
    save_file(state, file)
    clip = make_video(tmp_path / "clip.mp4", [gradient_frame(48, k) for k in range(12)], rate_hz=4)
    agent = load(path)
    asked = agent.ask(clip, "what is it?")
    with agent.open(clip, log=tmp_path / "s.db") as session:
        session.wait()
        live = session.ask("what is it?")
        early = session.ask("what is it?", at_s=1.0)
    assert live.text == asked.text and live.windows_seen == 3 and early.windows_seen == 1
    with agent.reopen(tmp_path / "s.db") as session:
        assert session.ask("what is it?").text == live.text

    gone = next(k for k in state if k.startswith(("gated", "prompts")))
    save_file({k: v for k, v in state.items() if k != gone}, file)
    with pytest.raises(WeightsError, match=gone.split(".")[0]):
        load(path)


# --- training --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["gated cross-attention", "adapter prompts"])
@torch.inference_mode()
def test_training_sees_what_answering_sees(name):
    """The loss of a packed question is that of the mind's own path: windows one by one, a fork, the answer."""
    mind, rng = mind_of(ATTACHED[name]), np.random.default_rng(0)
    lm, tokenizer, windows = mind.lm, mind.tokenizer, [window(k, rng) for k in range(5)]
    soft = {m: torch.from_numpy(np.stack([w.tokens[i].embeds for w in windows]))[None] for i, (m, _) in enumerate(STREAMS)}
    rows = [Question("color", "what colour is it?", "red"), Question("place", "where is it now?", "at the left")]
    prefix, seen = clip_prefix(lm, tokenizer, soft, [range(5)]), clip_seen(lm, tokenizer, soft, [range(5)])
    state = mind.open(None, windows)
    assert prefix.shape[1] == state.trunk.length
    for row in rows:
        packed = [pack(tokenizer, [row], 24, 1.0)]
        forks = mind.fork(state, [question_ids(tokenizer, row.question, 24)])
        said = answer_ids(tokenizer, row.answer, (), 1.0)
        out = torch.cat([forks.logits, *(forks.step(torch.tensor([token])) for token in said[:-1])])
        losses = nn.functional.cross_entropy(out, torch.tensor(said), reduction="none")
        weight = torch.tensor(packed[0].weight[-len(said):])
        wanted = float((losses * weight).sum() / weight.sum())
        assert float(packed_loss(lm, prefix, packed, seen)[0]) == pytest.approx(wanted, rel=1e-4)
        assert abs(float(packed_loss(lm, prefix, packed)[0]) - wanted) > 1e-3


@pytest.mark.parametrize("name", ["tiny-gated", "tiny-prompts"])
def test_the_examples_train(name, tmp_path):
    spec, _ = load_spec(configs_dir() / "examples" / f"{name}.yaml")
    (tmp_path / "weights").mkdir()
    shutil.copy(configs_dir() / "tiny" / "tokenizer.json", tmp_path / "weights")
    recipe = Recipe(spec, tmp_path)
    with pytest.raises(ConfigError, match="'symbols-read' is of tokens among the text"):
        recipe.stage(StagePlan(name="symbols-read", steps=1, lr=1e-3, muon_lr=1e-2))
    plan = [p for p in plans(spec) if p.name == "language"][0]
    plan = replace(plan, steps=2, warmup=0.0, options={"clips": 1, "questions": 2, "words": 1.0, "seconds": [1]})
    before = {k: v.clone() for k, v in recipe.parts()["language"].state_dict().items()}
    run_stage(recipe.stage(plan), plan, tmp_path, workers=0)
    after = recipe.parts()["language"].state_dict()
    gates = [k for k in after if k.endswith(("attn_gate", "gates"))]
    assert gates and all(not torch.equal(after[k], before[k]) for k in gates)
    recipe.save()
    kept = load_file(tmp_path / "weights" / "language.safetensors")
    assert {k for k in after if k not in TIED} == kept.keys()
