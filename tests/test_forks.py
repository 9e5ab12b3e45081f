"""Forks of one prefix compute what plain attention over prefix and suffix computes, and hold no copy of the prefix."""

import pytest
import torch
import transformers as tf

from anymodal.errors import ConfigError
from anymodal.language.capability import Capability
from anymodal.language.forks import NAME, Forks, Trunk, _forked

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "initializer_range": 0.2}
WIDE = {**SMALL, "intermediate_size": 64, "max_position_embeddings": 256}
GROUPED = {**WIDE, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**WIDE)),
    "llama, grouped heads": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED)),
    "mistral, sliding": lambda: tf.MistralForCausalLM(tf.MistralConfig(**GROUPED, sliding_window=16)),
    "mistral, sliding within a suffix": lambda: tf.MistralForCausalLM(tf.MistralConfig(**GROUPED, sliding_window=5)),
    "gemma 2, sliding and capped": lambda: tf.Gemma2ForCausalLM(
        tf.Gemma2Config(**GROUPED, sliding_window=16, attn_logit_softcapping=5.0)),
    "gemma 3, two rotations": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**GROUPED, sliding_window=16)),
    "qwen 3, normed heads": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**GROUPED)),
    "gpt 2, learned positions": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(
        vocab_size=99, n_embd=32, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=1,
        initializer_range=0.2)),
}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def plain(model, embeds) -> torch.Tensor:
    """Logits (V,) after the embeddings (L, W), without any of this package."""
    with torch.inference_mode():
        return model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_forks_equal_plain_attention(family):
    model = FAMILIES[family]().eval()
    embed, width = model.get_input_embeddings(), 32
    prefix, suffixes = torch.randn(60, width), [torch.randn(n, width) for n in (3, 11, 7, 1)]
    trunk = Trunk(model, capacity=16)
    for piece in prefix.split(7):
        trunk.extend(piece)
    forks = Forks(trunk, suffixes, room=1)
    heard = [s for s in suffixes]
    model.set_attn_implementation("eager")
    for _ in range(8):
        for row, embeds in enumerate(heard):
            wanted = plain(model, torch.cat([prefix, embeds]))
            assert torch.allclose(forks.logits[row], wanted, atol=1e-5), family
        tokens = forks.logits.argmax(-1)
        heard = [torch.cat([h, embed(t)[None]]) for h, t in zip(heard, tokens)]
        forks.step(tokens)


ROWS = [[7, 3, 9, 9, 20, 21, 5], [7, 3, 9, 9, 20, 8, 20, 21, 22, 5], [7, 3, 40, 5], [7, 3, 9, 9, 20, 21, 5], [7, 3, 9],
        [50], [60, 61, 62, 63, 9, 20, 21, 5]]  # with beginnings shared, a row twice, one within another, one apart


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_forks_equal_plain_attention(family):
    model = FAMILIES[family]().eval()
    embed, prefix = model.get_input_embeddings(), torch.randn(40, 32)
    trunk = Trunk(model, capacity=16)
    trunk.extend(prefix)
    packed, kept = Forks.packed(trunk, ROWS), Forks.packed(trunk, ROWS, room=1)
    assert len(packed._tree.ids) == 23 < sum(map(len, ROWS)) == 40
    kept.keep([2, 0, 5])
    model.set_attn_implementation("eager")
    heard = [torch.cat([prefix, embed(torch.tensor(row))]) for row in ROWS]
    for step in range(3):
        for row, embeds in enumerate(heard):
            assert torch.allclose(packed.logits[row], plain(model, embeds), atol=1e-5), (family, row, step)
        assert torch.allclose(kept.logits, packed.logits[[2, 0, 5]], atol=1e-5)
        tokens = packed.logits.argmax(-1)
        heard = [torch.cat([h, embed(t)[None]]) for h, t in zip(heard, tokens)]
        packed.step(tokens)
        kept.step(tokens[[2, 0, 5]])


@pytest.mark.parametrize("seen", [0, 20])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[5:6]])
def test_packed_forks_of_a_short_prefix_and_of_one_row(seen, rows):
    model, prefix = FAMILIES["llama"]().eval(), torch.randn(seen, 32)
    trunk, embed = Trunk(model, capacity=16), model.get_input_embeddings()
    if seen:
        trunk.extend(prefix)
    for row, logits in zip(rows, Forks.packed(trunk, rows).logits, strict=True):
        assert torch.allclose(logits, plain(model, torch.cat([prefix, embed(torch.tensor(row))])), atol=1e-5)


def test_a_fork_sees_the_prefix_as_it_was_and_may_go_on_alone():
    model = FAMILIES["llama"]().eval()
    prefix, more, suffixes = torch.randn(20, 32), torch.randn(9, 32), [torch.randn(n, 32) for n in (4, 2, 6)]
    trunk = Trunk(model, capacity=8)
    trunk.extend(prefix)
    forks, earlier = Forks(trunk, suffixes), Forks(trunk, suffixes[:1], length=13)
    trunk.extend(more)  # grows beyond its capacity: moved while it is forked
    forks.keep([2, 0])
    tokens = torch.tensor([5, 7])
    logits = forks.step(tokens)
    for row, (suffix, token) in enumerate([(suffixes[2], 5), (suffixes[0], 7)]):
        wanted = plain(model, torch.cat([prefix, suffix, model.get_input_embeddings()(torch.tensor([token]))]))
        assert torch.allclose(logits[row], wanted, atol=1e-5)
    assert torch.allclose(earlier.logits[0], plain(model, torch.cat([prefix[:13], suffixes[0]])), atol=1e-5)
    assert torch.allclose(Forks(trunk, suffixes[1:2]).logits[0],
                          plain(model, torch.cat([prefix, more, suffixes[1]])), atol=1e-5)


def test_forks_hold_their_tails_alone_and_the_model_is_as_it_was():
    model = FAMILIES["llama, grouped heads"]().eval()
    before = model.config._attn_implementation
    trunk = Trunk(model, capacity=600)
    trunk.extend(torch.randn(600, 32))
    forks = Forks(trunk, [torch.randn(4, 32)] * 32, room=8)
    assert forks.nbytes == 32 * trunk.nbytes * 12 / 600
    assert model.config._attn_implementation == before
    assert torch.isfinite(plain(model, torch.randn(5, 32))).all()


def test_passes_that_overlap_leave_the_model_as_it_was():
    """As those of two sessions in two threads do."""
    model = FAMILIES["llama"]().eval()
    before = model.config._attn_implementation
    one, other = _forked(model), _forked(model)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert model.config._attn_implementation == NAME  # the other one still computes
    other.__exit__(None, None, None)
    assert model.config._attn_implementation == before


def test_a_trunk_gives_its_room_to_the_next_prefix_once_nobody_reads_it():
    model = FAMILIES["llama"]().eval()
    trunk, prefix, suffix = Trunk(model, capacity=64), torch.randn(20, 32), torch.randn(3, 32)
    trunk.extend(torch.randn(30, 32))
    forks = Forks(trunk, [suffix])
    assert not trunk.clear() and trunk.length == 30
    del forks
    room = trunk._store.keys[0].data_ptr()
    assert trunk.clear() and trunk.length == 0
    trunk.extend(prefix)
    assert trunk._store.keys[0].data_ptr() == room
    assert torch.allclose(Forks(trunk, [suffix]).logits[0], plain(model, torch.cat([prefix, suffix])), atol=1e-5)


@pytest.mark.parametrize("family", ["llama, grouped heads", "gemma 2, sliding and capped"])
def test_half_precision_stays_near_single(family):
    model = FAMILIES[family]().eval()
    prefix, suffix = torch.randn(40, 32), torch.randn(5, 32)
    exact = Trunk(model)
    exact.extend(prefix)
    wanted = Forks(exact, [suffix]).logits
    half = Trunk(model.bfloat16())
    half.extend(prefix.bfloat16())
    assert torch.nn.functional.cosine_similarity(Forks(half, [suffix.bfloat16()]).logits.float(), wanted) > 0.99


# --- what a language model can do --------------------------------------------------------------------------------------

def test_capabilities_are_read_from_the_model():
    llama = Capability.of(FAMILIES["llama"]())
    assert llama.unbounded and llama.positions == "rotary" and llama.trained_positions == 256
    gemma = Capability.of(FAMILIES["gemma 2, sliding and capped"]())
    assert (gemma.sliding, gemma.softcap) == (16, 5.0) and gemma.unbounded
    gpt = Capability.of(FAMILIES["gpt 2, learned positions"]())
    assert (gpt.positions, gpt.most_positions, gpt.unbounded) == ("learned", 256, False)
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    stretched = Capability.of(tf.LlamaForCausalLM(tf.LlamaConfig(**WIDE, rope_parameters=dynamic)))
    assert stretched.positions == "rotary" and stretched.most_positions == 256
    unslid = Capability.of(tf.Qwen2ForCausalLM(tf.Qwen2Config(**WIDE, sliding_window=9, use_sliding_window=False)))
    assert unslid.sliding is None
    for capable in (llama, gpt):
        capable.check(256, "all")
        with pytest.raises(ConfigError, match="all take 257 tokens, .* positions for 256") as caught:
            capable.check(257, "all")
        assert "memory.budget_tokens" in caught.value.fix


@pytest.mark.parametrize(("make", "wanted"), [
    (lambda: tf.BloomForCausalLM(tf.BloomConfig(vocab_size=99, hidden_size=32, n_layer=1, n_head=4)), "Bloom"),
    (lambda: tf.MptForCausalLM(tf.MptConfig(d_model=32, n_heads=4, n_layers=1, vocab_size=99)), "ALiBi"),
    (lambda: tf.MambaForCausalLM(tf.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=1)), "linear"),
    (lambda: tf.GptOssForCausalLM(tf.GptOssConfig(
        **{**GROUPED, "num_hidden_layers": 1}, num_local_experts=2, num_experts_per_tok=1)), "sinks"),
    (lambda: tf.T5ForConditionalGeneration(tf.T5Config(
        vocab_size=99, d_model=32, num_layers=1, d_ff=32, num_heads=4)), "encoder-decoder"),
], ids=["bloom", "mpt", "mamba", "gpt-oss", "t5"])
def test_models_that_cannot_are_refused(make, wanted):
    with pytest.raises(ConfigError, match=wanted) as caught:
        Trunk(make())
    assert "Llama" in caught.value.fix
