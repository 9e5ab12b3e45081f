"""A bundle's YAML is read strictly: each mistake is one error that names the place and the nearest right word."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anymodal.config import build_part, configs_dir, find_bundle, load_spec, parse_spec, resolve
from anymodal.errors import AnymodalError, ConfigError, nearest

RAW = yaml.safe_load((configs_dir() / "tiny.yaml").read_text())


def changed(path: str, value, *, drop: str = "") -> dict:
    """A copy of tiny.yaml's mapping with `path` (dots) set, and `drop` removed."""
    raw = copy.deepcopy(RAW)
    *folders, last = path.split(".")
    at = raw
    for name in folders:
        at = at[name]
    at[last] = value
    if drop:
        del at[drop]
    return raw


def test_the_shipped_bundle_is_found_by_name_and_by_path():
    by_name, path = load_spec("tiny")
    by_path, same = load_spec(str(path))
    assert by_name == by_path and path == same
    assert by_name.name == "tiny" and set(by_name.prompt.order) == set(by_name.modalities)


@pytest.mark.parametrize(("path", "wanted"), [
    ("windw_s", "did you mean 'window_s'?"),
    ("modalties", "did you mean 'modalities'?"),
    ("modalities.video.rate", "did you mean 'rate_hz'?"),
    ("modalities.audio.enocder", "did you mean 'encoder'?"),
    ("prompt.oder", "did you mean 'order'?"),
    ("zzz", "known: asked, checkpoint, dtype, gate"),
])
def test_an_unknown_key_names_the_nearest(path, wanted):
    with pytest.raises(ConfigError) as caught:
        parse_spec(changed(path, 1), where="my.yaml")
    assert f"my.yaml: unknown key {path!r}" in str(caught.value)
    assert wanted in caught.value.fix


def test_a_misspelt_required_key_is_called_misspelt_not_missing():
    with pytest.raises(ConfigError, match="unknown key 'langauge'.*did you mean 'language'"):
        parse_spec(changed("langauge", RAW["language"], drop="language"))


@pytest.mark.parametrize(("path", "value", "wanted"), [
    ("window_s", 0, r"window_s: .*greater than 0.*found 0"),
    ("window_s", "soon", r"window_s: .*number.*'soon'"),
    ("modalities.video.rate_hz", -4, r"modalities\.video\.rate_hz: .*-4"),
    ("prompt.order", ["video", "sonar"], r"prompt\.order names 'sonar'"),
])
def test_a_wrong_value_is_named_with_its_key(path, value, wanted):
    with pytest.raises(ConfigError, match=wanted):
        parse_spec(changed(path, value))


def test_a_missing_key_is_named():
    raw = copy.deepcopy(RAW)
    del raw["modalities"]["imu"]["adapter"]
    with pytest.raises(ConfigError, match=r"modalities\.imu\.adapter: Field required"):
        parse_spec(raw)


def test_what_can_be_searched_for_needs_a_text_tower():
    with pytest.raises(ConfigError, match="no joint_text") as caught:
        parse_spec(changed("window_s", 1.0, drop="joint_text"))
    assert "leave search out" in caught.value.fix


@pytest.mark.parametrize(("name", "wanted"), [
    ("tinny", "unknown bundle 'tinny'.*did you mean 'tiny'"),
    ("nowhere/x.yaml", "no bundle file nowhere/x.yaml"),
])
def test_an_unknown_bundle_names_the_nearest(name, wanted):
    with pytest.raises(ConfigError, match=wanted):
        find_bundle(name)


@pytest.mark.parametrize(("content", "wanted"), [
    (b"name: [unclosed", "not valid YAML"),
    (b"- a\n- list\n", "a bundle is a mapping, found list"),
    (b"", "a bundle is a mapping, found NoneType"),
    (b"\xff\xfe\x00name", "not valid YAML"),
])
def test_a_file_that_is_no_bundle_says_so(tmp_path, content, wanted):
    path = tmp_path / "b.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=wanted):
        load_spec(path)


@pytest.mark.parametrize(("use", "wanted"), [
    ("os:system", "outside .*add 'os' to the bundle's `trust`"),
    ("subprocess:Popen", "outside"),
    ("encoders.clipp:ClipVision", "no module 'encoders.clipp'"),
    ("encoders.clip:ClipVison", "no 'ClipVison' in encoders.clip.*did you mean 'ClipVision'"),
])
def test_a_part_comes_from_known_packages_only(use, wanted):
    with pytest.raises(ConfigError, match=wanted):
        resolve(use)


@pytest.mark.parametrize(("key", "value", "wanted"), [
    ("layer", 4, "unknown key 'layer'.*did you mean 'layers'"),
    ("width", 100, "width 100 is not a multiple of heads 6"),
    ("width", "wide", "width is 'wide', not int"),
    ("layers", True, "layers is True, not int"),
    ("heads", 0, "encoders.clip:ClipVision"),
])
def test_a_part_checks_its_own_keys(key, value, wanted):
    spec = parse_spec(changed(f"modalities.video.encoder.{key}", value))
    with pytest.raises(ConfigError, match=wanted):
        build_part(spec.modalities["video"].encoder)


def test_a_folder_named_in_trust_may_supply_parts(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Sonar:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="add 'mine'"):
        resolve("mine:Sonar")
    assert resolve("mine:Sonar", ("mine",)).__name__ == "Sonar"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=8))
def test_any_value_at_any_key_is_read_or_refused_in_one_line(value):
    for key in RAW:
        try:
            parse_spec(changed(key, value))
        except AnymodalError as error:
            assert isinstance(error, ConfigError) and error.fix


def test_nearest_lists_what_is_known_where_nothing_is_near():
    assert nearest("qqq", ["b", "a"]) == "known: a, b"
