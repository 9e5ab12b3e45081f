"""How a published model's parts are loaded is the YAML's `load`: device, dtype, bits, and adapters merged into it."""

import importlib.util
import json
import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from anymodal.bundle import load_bundle
from anymodal.checkpoint import Checkpoint, unfilled
from anymodal.config import find_bundle
from anymodal.errors import ConfigError, MissingExtraError, WeightsError
from anymodal.language.lora import LoraLinear, LoraLM
from anymodal.language.quantized import BITS, quantize_layers
from anymodal.testing_checkpoints import make_llava

LAYER = "model.layers.0.self_attn.q_proj"
HAS_BITS = importlib.util.find_spec("bitsandbytes") is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_llava(tmp_path_factory.mktemp("checkpoints") / "llava")


@pytest.fixture
def loaded(folder, tmp_path):
    """loaded(language={"dtype": ...}) -> the bundle with that `load`."""

    def call(**load):
        raw = yaml.safe_load(find_bundle("llava-1.5-7b").read_text())
        raw["checkpoint"] = {"id": str(folder)}
        raw["load"] = load
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
        return load_bundle(tmp_path / "own.yaml")

    return call


@pytest.fixture
def adapter(tmp_path):
    """adapter(tensors, **config) -> the folder of an adapter in peft's layout."""

    def call(tensors, **config):
        made = tmp_path / f"adapter{len(list(tmp_path.iterdir()))}"
        made.mkdir()
        save_file({k: v.contiguous() for k, v in tensors.items()}, made / "adapter_model.safetensors")
        (made / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 6, **config}))
        return str(made)

    return call


def pair(path=LAYER, rank=4, out=48, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    return {f"base_model.model.{path}.lora_A.weight": torch.randn(rank, 48, generator=drawn),
            f"base_model.model.{path}.lora_B.weight": torch.randn(out, rank, generator=drawn)}


def change(tensors):
    a, b = (next(v for k, v in tensors.items() if f"lora_{which}" in k) for which in "AB")
    return b @ a


def test_each_part_has_its_own_dtype(loaded):
    bundle = loaded(language={"dtype": "bfloat16"}, video={"dtype": "float32"})
    assert {p.dtype for p in bundle.mind.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in bundle.perception.parameters()} == {torch.float32}


@pytest.mark.parametrize(("load", "wanted"), [
    ({"langage": {}}, "did you mean 'language'"), ({"video": {"quantize": "4bit"}}, "are for the language model"),
    ({"language": {"quantize": "3bit"}}, "load.language.quantize"),
    ({"language": {"devise": "cpu"}}, "did you mean 'device'"),
])
def test_a_load_that_says_nothing_is_refused(loaded, load, wanted):
    with pytest.raises(ConfigError, match=wanted):
        loaded(**load)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_device_that_is_not_there_is_told(loaded):
    bundle = loaded(language={"device": "cuda:3"})
    with pytest.raises(ConfigError, match="'cuda:3' is not there"):
        bundle.mind  # noqa: B018
    assert bundle.perception.encoders["video"].width == 32, "the other part does not need it"


# --- bits ------------------------------------------------------------------------------------------------------------

def test_fewer_bits_need_the_extra_and_a_gpu(loaded):
    bundle = loaded(language={"quantize": "4bit"})
    error, said = (ConfigError, "needs a CUDA GPU") if HAS_BITS else (MissingExtraError, r"anymodal\[quant\]")
    with pytest.raises(error, match=said):
        bundle.mind  # noqa: B018


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(128, 64), nn.Linear(64, 8)

    def get_output_embeddings(self):
        return self.head


@pytest.mark.skipif(not HAS_BITS, reason="needs bitsandbytes")
@pytest.mark.parametrize("kind", BITS)
def test_layers_are_quantized_as_they_are_read(tmp_path, kind):
    import bitsandbytes

    torch.manual_seed(0)
    whole, x = Net(), torch.randn(5, 128)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    with unfilled():
        made = Net()
    assert quantize_layers(made, kind, torch.float32, bitsandbytes) == 1
    Checkpoint(tmp_path).fill(made, {"": ""}, dtype=torch.float32)
    assert made.first.weight.dtype in (torch.uint8, torch.int8) and made.head.weight.dtype == torch.float32
    with torch.no_grad():
        ours, theirs = made.first(x), whole.first(x)
    assert (ours - theirs).norm() / theirs.norm() < (0.15 if kind == "4bit" else 0.02)


class Int8Params(nn.Parameter):
    """As bitsandbytes' of that name, kept as the floats that 8 bits can say: it needs no GPU and no bitsandbytes."""

    def __new__(cls, data, requires_grad=False, has_fp16_weights=False):
        step = data.abs().amax(1, keepdim=True) / 127 if not data.is_meta else 1
        return super().__new__(cls, (data / step).round() * step, requires_grad)


class Linear8bitLt(nn.Linear):
    def __init__(self, *sizes, has_fp16_weights, **given):
        super().__init__(*sizes, **given)
        self.weight = Int8Params(self.weight.data)


def standing_in():
    """What of bitsandbytes is used for 8 bits."""
    return SimpleNamespace(nn=SimpleNamespace(Linear8bitLt=Linear8bitLt))


def real_bits():
    return pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("bits", [standing_in, real_bits])
def test_adapters_beside_a_layer_in_fewer_bits_stay_and_stay_as_they_are(tmp_path, bits):
    """Only the layer's own weight is rounded."""
    def net():
        made = Net()
        made.first = LoraLinear(made.first, rank=4, alpha=8.0)
        return made

    torch.manual_seed(0)
    whole, x = net(), torch.randn(5, 128)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    with unfilled():
        made = net()
    assert quantize_layers(made, "8bit", torch.float32, bits()) == 1
    assert set(made.state_dict()) >= set(whole.state_dict())
    Checkpoint(tmp_path).fill(made, {"": ""}, dtype=torch.float32)
    assert type(made.first.weight).__name__ == "Int8Params"
    for name in ("lora_A", "lora_B"):
        assert type(getattr(made.first, name)) is nn.Linear
        assert torch.equal(getattr(made.first, name).weight, getattr(whole.first, name).weight)
    with torch.no_grad():
        ours, theirs = made.first(x), whole.first(x)
        alone = nn.functional.linear(x, whole.first.weight, whole.first.bias)
    assert (ours - theirs).norm() / theirs.norm() < 0.02 < (alone - theirs).norm() / theirs.norm()


def test_a_published_language_model_with_adapters_is_quantized_whole(tmp_path):
    text = Checkpoint(make_llava(tmp_path / "llava")).config["text_config"]
    with unfilled():
        lm = LoraLM(LoraLM.Config(text=text, rank=2, alpha=4.0, targets=("q_proj", "v_proj")))
    layers = [m for m in lm.model.modules() if isinstance(m, nn.Linear) and m is not lm.model.get_output_embeddings()]
    adapters = [m for m in lm.model.modules() if isinstance(m, LoraLinear)]
    assert len(adapters) == 2 * text["num_hidden_layers"]
    assert quantize_layers(lm.model, "8bit", torch.float32, standing_in()) == len(layers) - 2 * len(adapters)
    assert sum(isinstance(m, Linear8bitLt) for m in lm.model.modules()) == len(layers) - 2 * len(adapters)
    assert sum("lora" in name for name in lm.state_dict()) == 2 * len(adapters)


# --- adapters --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("config", "scale"), [
    ({}, 6 / 4), ({"use_rslora": True}, 6 / math.sqrt(4)), ({"alpha_pattern": {"q_proj": 2}}, 2 / 4),
    ({"alpha_pattern": {"k_proj": 2}}, 6 / 4),
])
@pytest.mark.parametrize("path", [LAYER, f"language_model.{LAYER}"], ids=["alone", "whole"])
def test_an_adapter_is_merged_into_its_layers_and_no_others(loaded, adapter, folder, config, scale, path):
    tensors = pair(path)
    plain, merged = load_bundle(folder).mind.model, loaded(language={"lora": [adapter(tensors, **config)]}).mind.model
    for name, weight in merged.state_dict().items():
        wanted = plain.state_dict()[name]
        if name == f"{LAYER}.weight":
            wanted = wanted + change(tensors) * scale
        torch.testing.assert_close(weight, wanted, atol=1e-5, rtol=1e-5)


def test_adapters_are_merged_one_after_another_and_bring_whole_layers(loaded, adapter, folder):
    norm = torch.full((48,), 2.0)
    one, two = pair(seed=1), pair(seed=2)
    folders = [adapter(one), adapter(two | {"base_model.model.model.norm.weight": norm})]
    plain, merged = load_bundle(folder).mind.model, loaded(language={"lora": folders}).mind.model
    wanted = plain.state_dict()[f"{LAYER}.weight"] + 1.5 * (change(one) + change(two))
    torch.testing.assert_close(merged.state_dict()[f"{LAYER}.weight"], wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(merged.model.norm.weight, norm)


@pytest.mark.parametrize(("tensors", "config", "wanted"), [
    (pair("model.layers.9.self_attn.q_proj"), {}, "a layer 'model.layers.9.self_attn.q_proj', which the language model"),
    (pair(out=40), {}, r"is \(40, 48\), \(48, 48\) is wanted"),
    (pair(), {"use_dora": True}, "DoRA cannot be merged"), (pair(), {"peft_type": "IA3"}, "IA3 with bias 'none'"),
    (pair(), {"bias": "all"}, "with bias 'all'"),
    (dict(list(pair().items())[:1]), {}, "has lora_A alone"),
    ({"base_model.model.x.magnitude": torch.ones(3)}, {}, "unknown tensor"),
])
def test_an_adapter_that_does_not_fit_is_told(loaded, adapter, tensors, config, wanted):
    bundle = loaded(language={"lora": [adapter(tensors, **config)]})
    with pytest.raises(WeightsError, match=wanted):
        bundle.mind  # noqa: B018


def test_an_adapter_that_is_not_there_is_told(loaded):
    with pytest.raises(WeightsError, match="is not on this machine"):
        loaded(language={"lora": ["nobody/adapter"]}).mind  # noqa: B018
