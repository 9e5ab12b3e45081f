"""What tokens tell of a rule's condition by themselves, and when the language model is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from anymodal.bundle import load_bundle
from anymodal.errors import ConfigError
from anymodal.language.witness import Witness
from anymodal.playground.world import Sound, make_scene
from anymodal.training.asking import scene_windows, watch
from anymodal.types import Evidence


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("tiny")


@pytest.fixture(scope="module")
def witness(bundle) -> Witness:
    return Witness.of(bundle.spec.search, bundle.mind.finder)


@pytest.mark.parametrize(("condition", "kind", "happens", "thing"), [
    ("Now: a bell rings?", "sound", "bell", ""), ("a low rising chirp is heard", "sound", "low rising chirp", ""),
    ("the red circle stops", "event", "stops", "red circle"), ("a disc comes to rest", "event", "stops", "circle"),
    ("any violet object vanishes", "event", "disappears", "purple"),
    ("the ring changes colour", "event", "changes", "ring"), ("blue rings disappear", "event", "disappears", "blue ring"),
    ("the small red circle bounces", "event", "bounces", "small red circle"),
    ("the star gets colder", "change", "colder", "star"),
    ("the bell rings", "sound", "bell", ""), ("I walk", "motion", "walking", ""),
    ("someone drops the phone", "motion", "dropped", "")])
def test_a_condition_is_read_where_all_its_words_are_known(witness, condition, kind, happens, thing):
    reading = witness.reading(condition)
    words = [" ".join(sorted(witness._finder.lexicon[i] for i in numbers)) for numbers in (reading.happens, reading.thing)]
    assert (reading.kind, *words) == (kind, " ".join(sorted(happens.split())), " ".join(sorted(thing.split())))


@pytest.mark.parametrize("condition", [
    "no bell rings", "the circle at the left stops", "the bell stops", "a bell or a beep", "the red circle is visible",
    "something rotates", "a person walks by", "the device moves",
    "there is a sound", "the red and the blue circle stop", "the red bell rings", 
    "the red star gets warmer", "it stops", "", "?"])
def test_what_says_more_or_less_is_put_to_the_language_model(witness, condition):
    assert witness.reading(condition) is None


def saying(witness: Witness, *tokens: str) -> np.ndarray:
    return np.array([[0.9 * (w in token.split()) for w in witness._finder.lexicon] for token in tokens])


@pytest.mark.parametrize(("condition", "tokens", "likely"), [
    ("the red circle stops", ("blue star", "red circle stops"), True),
    ("the red circle stops", ("red circle", "blue star stops"), False),
    ("the red circle stops", ("nothing", "red star stops"), False),
    ("a bell rings", ("nothing", "low bell"), True), ("a bell rings", ("low beep", "red circle"), False),
    ("the device is dropped", ("dropped",), True)])
def test_a_token_has_to_say_all_of_it(witness, condition, tokens, likely):
    reading, said = witness.reading(condition), saying(witness, *tokens)
    yes, token = witness.chance(reading, said)
    assert (yes >= 0.5) == likely and 0 <= yes <= 1
    assert not likely or token == len(tokens) - 1
    assert witness.chance(reading, np.zeros((0, 0))) == (0.0, 0)


def test_rules_that_tokens_tell_are_not_put_to_the_language_model(bundle, monkeypatch):
    bell = replace(make_scene("val", 1, 4, seconds=6), sounds=[Sound("bell", "low", 4.2, 5.4, 0.5)])
    mind, told = bundle.mind, []
    monkeypatch.setattr(mind._judge, "_tree", lambda prompts, tree=mind._judge._tree: told.append(prompts) or tree(prompts))
    windows = scene_windows(bell, bundle.spec)
    prompts = ["Now: a bell rings?", "Now: no bell rings?", "Now: a beep sounds?"]
    rings, _, beeps = mind.judge(watch(bundle.perception, mind, windows[:5]), prompts, evidence=True)
    assert rings.yes >= 0.5 and rings.evidence == (Evidence(4.0, 5.0, "audio"),) and beeps.yes < 0.3 and not beeps.evidence
    before, *_ = mind.judge(watch(bundle.perception, mind, windows[:4]), prompts)
    assert before.yes < 0.3 and told == [("now: no bell rings?",)] * 2
    assert mind.judge(mind.open(), prompts[:1])[0].yes >= 0, "nothing was seen yet"


def test_a_kind_that_tells_must_be_among_the_words_and_a_share(own_bundle, bundle):
    path, raw, _ = own_bundle
    raw["search"] = {"words": {"sound": ["bell"]}, "phrases": {"audio": ["{sound}"]}, "tells": {"sounds": 0.1}}
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match="sounds"):
        load_bundle(path)
    search = bundle.spec.search.model_copy(update={"tells": {"sound": 1.0}})
    with pytest.raises(ConfigError, match="search.tells.sound"):
        Witness.of(search, bundle.mind.finder)
    assert Witness.of(None, None) is None
