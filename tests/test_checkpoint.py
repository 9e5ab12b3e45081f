"""A checkpoint's tensors go where they belong or nothing runs; each part reads its own and no others."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from anymodal import checkpoint as reading
from anymodal.bundle import load_bundle
from anymodal.checkpoint import Checkpoint, unfilled
from anymodal.config import find_bundle, load_spec
from anymodal.errors import ConfigError, WeightsError
from anymodal.testing_checkpoints import make_llava


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return make_llava(tmp_path_factory.mktemp("checkpoints") / "llava")


@pytest.fixture
def spoiled(llava, tmp_path):
    """A copy to spoil, and a way to: spoil(change) changes the mapping of its tensors."""
    folder = tmp_path / "llava"
    shutil.copytree(llava, folder)

    def spoil(change):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return folder, spoil


class Small(nn.Module):
    """Two layers and a buffer that is computed, not read."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("table", torch.arange(3.0), persistent=False)


def small(folder, **change):
    """A folder with a Small's tensors behind `net.`, and others; the tensors."""
    torch.manual_seed(0)
    state = {f"net.{k}": v.clone() for k, v in Small().state_dict().items()} | {"other.weight": torch.ones(5)}
    state |= change
    state = {k: v for k, v in state.items() if v is not None}
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    return state


# --- each part reads its own -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("part", "prefixes"), [("mind", ("language_model.",)),
                                                ("perception", ("vision_tower.", "multi_modal_projector."))])
def test_each_part_reads_its_own_tensors_and_no_others(llava, monkeypatch, part, prefixes):
    read, real = [], reading.read_tensor
    monkeypatch.setattr(reading, "read_tensor", lambda entry: read.append(entry) or real(entry))
    bundle = load_bundle(llava)
    getattr(bundle, part)
    keys = {k for report in bundle.published.reports.values() for k in report.read}
    every = reading.read_header(llava / "model.safetensors")
    assert keys == {k for k in every if k.startswith(prefixes)} and 0 < len(keys) < len(every)
    assert {e.at for e in read} == {every[k].at for k in keys} and len(read) == len(keys)


def test_a_process_maps_no_weights_and_reads_no_more_than_its_parts_share(tmp_path):
    """Counted by the system, not by us: what the process read, and what is mapped into it."""
    folder = make_llava(tmp_path / "llava", vocab_size=20_000)  # 8 MB of language, little else
    code = (
        "import sys; from pathlib import Path\n"
        "from anymodal.bundle import load_bundle\n"
        "import anymodal.language.pretrained, anymodal.published, encoders.clip, anymodal.adapters.mlp\n"
        "read = lambda: int(Path('/proc/self/io').read_text().split('rchar: ')[1].split()[0])\n"
        "bundle = load_bundle(sys.argv[1]); bundle.published.main.config; bundle.layout\n"
        "for part in ('perception', 'mind'):\n"
        "    bundle.published.reports.clear(); before = read(); getattr(bundle, part); after = read()\n"
        "    mapped = 'model.safetensors' in Path('/proc/self/maps').read_text()\n"
        "    print(after - before, sum(r.nbytes for r in bundle.published.reports.values()), mapped)")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=600,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    for line, low, high in zip(done.stdout.splitlines(), (0.1e6, 7.5e6), (0.3e6, 8.5e6), strict=True):
        read, share, mapped = line.split()
        assert mapped == "False" and low < int(share) < high
        assert int(share) <= int(read) < int(share) + 2_000_000  # headers, and the odd module


def test_a_shard_without_own_tensors_is_never_opened(tmp_path):
    folder = make_llava(tmp_path / "llava", shards=4)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    last = sorted(set(index.values()))[-1]
    assert all(key.startswith(("vision_tower.", "multi_modal_projector.")) for key, name in index.items() if name == last)
    bundle = load_bundle(folder)
    assert bundle.mind is bundle.mind
    assert last not in bundle.published.reports["language model"].files
    assert folder / last not in bundle.published.main._headers


@pytest.mark.parametrize("layout", [{"shards": 3}, {"pickled": True}], ids=["sharded", "pickled"])
def test_shards_and_pickled_weights_are_the_same_weights(llava, tmp_path, layout):
    folder = make_llava(tmp_path / "llava", **layout)
    one, other = load_bundle(llava), load_bundle(folder)
    for part in ("perception", "mind"):
        modules = [b.perception if part == "perception" else b.mind.model for b in (one, other)]
        for (name, a), b in zip(modules[0].state_dict().items(), modules[1].state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_tensors_take_the_dtype_that_is_asked_for_and_keep_what_was_computed(tmp_path):
    state = small(tmp_path)
    with unfilled():
        module = Small()
    assert module.first.weight.is_meta and not module.table.is_meta
    report = Checkpoint(tmp_path).fill(module, {"net.": ""}, dtype=torch.bfloat16)
    assert torch.equal(module.first.weight, state["net.first.weight"].bfloat16()) and not module.first.weight.requires_grad
    assert torch.equal(module.table, torch.arange(3.0))
    assert report.nbytes == sum(v.numel() * 4 for k, v in state.items() if k.startswith("net."))


def test_a_tied_head_is_filled_by_its_embeddings(tmp_path):
    folder = make_llava(tmp_path / "llava", tie_word_embeddings=True)
    assert not any("lm_head" in k for k in reading.read_header(folder / "model.safetensors"))
    model = load_bundle(folder).mind.model
    assert model.lm_head.weight is model.get_input_embeddings().weight and not model.lm_head.weight.is_meta


def test_nested_training_files_and_prefixes_of_two_layouts(tmp_path):
    state = small(tmp_path / "one")
    torch.save({"model": {k.replace("net.", "module.old.") : v for k, v in state.items()}, "epoch": 3}, tmp_path / "a.pth")
    with unfilled():
        module = Small()
    Checkpoint(tmp_path).fill(module, {"net.": "", "module.old.": ""})
    assert torch.equal(module.second.bias, state["net.second.bias"])


# --- what does not fit -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "wanted"), [
    ({"net.second.bias": None}, "no tensor for the net's 'second.bias'"),
    ({"net.third.weight": torch.ones(2)}, "unknown tensor 'net.third.weight'"),
    ({"net.first.weight": torch.ones(4, 5)}, "tensor 'net.first.weight' is (4, 5), the net's 'first.weight' is (4, 3)"),
])
def test_a_tensor_that_does_not_fit_is_named(tmp_path, change, wanted):
    small(tmp_path, **change)
    with unfilled():
        module = Small()
    with pytest.raises(WeightsError, match="safetensors|tensors|checkpoint") as caught:
        Checkpoint(tmp_path).fill(module, {"net.": ""}, what="net")
    assert wanted in str(caught.value)
    assert module.first.weight.is_meta, "nothing is read where something does not fit"


def test_what_is_ignored_on_purpose_is_told(tmp_path):
    small(tmp_path, **{"net.third.weight": torch.ones(2)})
    with unfilled():
        module = Small()
    assert Checkpoint(tmp_path).fill(module, {"net.": ""}, ignore=["*.third.*"]).ignored == ("net.third.weight",)


@pytest.mark.parametrize(("part", "key", "wanted"), [
    ("mind", "language_model.model.layers.1.mlp.up_proj.weight",
     "no tensor for the language model's 'model.model.layers.1"),
    ("perception", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias", "no tensor for the video encoder's"),
    ("perception", "multi_modal_projector.linear_2.bias", "no tensor for the video adapter's 'linear_2.bias'"),
])
def test_a_missing_tensor_of_a_model_refuses_to_run(spoiled, part, key, wanted):
    folder = spoiled[1](lambda state: state.pop(key))
    with pytest.raises(WeightsError) as caught:
        getattr(load_bundle(folder), part)
    assert wanted in str(caught.value)


def test_a_misfit_says_what_the_tensors_look_like(spoiled):
    def other(state):
        for key in list(state):
            state["text_" + key] = state.pop(key)
        state |= {"language_model.model.norm.weight": torch.ones(48), "multi_modal_projector.linear_1.bias": torch.ones(48),
                  "vision_tower.vision_model.post_layernorm.bias": torch.ones(32)}
        for key in [k for k in state if k.startswith("text_")]:
            del state[key]

    with pytest.raises(WeightsError) as caught:
        assert load_bundle(spoiled[1](other)).mind
    assert "look like those of" in caught.value.fix and "more" in caught.value.message


def test_an_adapter_for_another_width_is_told(spoiled):
    folder, spoil = spoiled
    spoil(lambda state: state.update({"multi_modal_projector.linear_2.weight": torch.ones(40, 40),
                                      "multi_modal_projector.linear_2.bias": torch.ones(40),
                                      "multi_modal_projector.linear_1.weight": torch.ones(40, 32),
                                      "multi_modal_projector.linear_1.bias": torch.ones(40)}))
    with pytest.raises(WeightsError) as caught:
        _ = load_bundle(folder).perception
    assert "(40, 32), the video adapter's 'linear_1.weight' is (48, 32)" in str(caught.value)


@pytest.mark.parametrize(("keep", "wanted"), [(0.5, "is cut short"), (0.001, "cut short within its header")])
def test_a_truncated_file_is_told(spoiled, keep, wanted):
    path = spoiled[0] / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(WeightsError) as caught:
        assert load_bundle(spoiled[0]).mind
    assert wanted in str(caught.value) and "model.safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"<html>not found</html>",
                                     b"\x10\x00\x00\x00\x00\x00\x00\x00notjson{{{{{{{{{",
                                     b'\x17\x00\x00\x00\x00\x00\x00\x00{"a":{"dtype":"F32"}}  '])
def test_what_is_no_safetensors_is_told(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="model.safetensors"):
        assert Checkpoint(tmp_path).keys


def test_a_missing_shard_is_told_before_anything_is_read(tmp_path):
    folder = make_llava(tmp_path / "llava", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names 'model-00002-of-00003.safetensors', which is not there \(1 of 3"):
        assert load_bundle(folder).mind


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(spoiled, tmp_path, plain):
    folder, touched = spoiled[0], tmp_path / "touched"
    (folder / "model.safetensors").unlink()
    content = {"language_model.lm_head.weight": torch.ones(2), "more": Evil(touched)}
    if plain:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="would run code") as caught:
        assert load_bundle(folder).mind
    assert (plain or "system" in str(caught.value)) and not touched.exists()


def test_a_damaged_pickle_is_told(tmp_path):
    torch.save({"a": torch.ones(2000)}, tmp_path / "pytorch_model.bin")
    whole = (tmp_path / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(whole[:900])
    with pytest.raises(WeightsError, match="pytorch_model.bin"):
        assert Checkpoint(tmp_path).keys


def test_too_little_memory_is_told_with_what_is_needed(llava, monkeypatch):
    monkeypatch.setattr("anymodal.room.free_bytes", lambda device="cpu": 100_000)
    monkeypatch.setattr(reading, "read_tensor", lambda entry: pytest.fail("something was read"))
    with pytest.raises(WeightsError) as caught:
        assert load_bundle(llava).mind
    assert "of memory, 0.1 MB are free on cpu" in str(caught.value) and "bfloat16" in caught.value.fix


def test_no_weights_and_no_folder_are_told(tmp_path, llava):
    shutil.copy(llava / "config.json", tmp_path / "config.json")
    with pytest.raises(WeightsError, match="no weights in"):
        assert load_bundle(tmp_path).mind
    with pytest.raises(WeightsError, match="no config.json"):
        load_spec(tmp_path / "..")


# --- which bundle ----------------------------------------------------------------------------------------------------

def test_a_folder_is_run_by_the_bundle_of_its_architecture(llava):
    spec, path = load_spec(llava)
    assert (spec.name, path) == ("llava-1.5-7b", find_bundle("llava-1.5-7b"))
    assert spec.checkpoint.id == str(llava.resolve())


def test_an_unknown_architecture_names_the_near_ones(spoiled):
    path = spoiled[0] / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"architectures": ["LlavaForConditionalGenerations"], "model_type": "lava"}))
    with pytest.raises(ConfigError, match="no bundle runs the architecture 'LlavaForConditionalGenerations'") as caught:
        load_spec(spoiled[0])
    assert "did you mean 'LlavaForConditionalGeneration'" in caught.value.fix


def test_an_unknown_language_model_names_the_near_ones(spoiled, tmp_path):
    raw = yaml.safe_load(find_bundle("llava-1.5-7b").read_text())
    raw["checkpoint"] = {"id": str(spoiled[0])}
    raw["language"]["text"] = {"model_type": "lama"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match="no decoder-only language model of type 'lama'") as caught:
        assert load_bundle(tmp_path / "own.yaml").mind
    assert "'llama'" in caught.value.fix


@pytest.mark.parametrize(("name", "wanted", "fix"), [
    ("llava-hf/llava-1.5-7b-hf", "is not on this machine", "anymodal pull llava-hf/llava-1.5-7b-hf"),
    ("nobody/nothing-of-the-kind", "is not on this machine", "anymodal pull nobody/nothing-of-the-kind"),
    ("llava-1.5-7c", "unknown bundle", "did you mean 'llava-1.5-7b'"),
])
def test_a_model_that_is_not_here_says_how_to_get_it(name, wanted, fix):
    with pytest.raises(ConfigError, match=wanted) as caught:
        load_bundle(name)
    assert fix in caught.value.fix


def test_a_tokenizer_without_the_placeholder_is_told(spoiled):
    folder = spoiled[0]
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<image>"]
    path.write_text(json.dumps(content))
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace("<image>", "<pad>"))
    with pytest.raises(ConfigError, match="has no token '<image>', the placeholder of video"):
        assert load_bundle(folder).layout


def test_no_tokenizer_is_told(spoiled):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (spoiled[0] / name).unlink()
    with pytest.raises(WeightsError, match="no tokenizer can be read in"):
        assert load_bundle(spoiled[0]).layout


def test_identity_is_that_of_the_weights_not_of_their_folder(llava, spoiled):
    assert load_bundle(llava).identity == load_bundle(spoiled[0]).identity
    spoiled[1](lambda state: state["language_model.lm_head.weight"].add_(1))
    assert load_bundle(llava).identity != load_bundle(spoiled[0]).identity
