"""The language of the playground's questions, inside its world and outside."""

import random
import re

import pytest

from anymodal.playground import offworld, wordings
from anymodal.playground.offworld import OFF_WORLD_TEST, off_world
from anymodal.playground.wordings import HELD_OUT, TEMPLATES, VOCABULARY, add_typo, ask, fields, swap_words

CONTRACT = {
    "color": "obj", "shape": "obj", "size": "obj", "count": "objs", "exists": "obj a_obj", "place_now": "obj",
    "place_first": "obj", "motion": "obj", "event_kind": "obj", "event_when": "past base ing", "color_before": "obj",
    "color_after": "obj", "order": "a_ing b_ing a_past b_past", "order_yn": "a_past b_past a_base b_base a_ing b_ing",
    "sound_what": "", "sound_first": "", "sound_last": "", "pitch": "sound", "sound_when": "sound past base ing",
    "sound_while_visible": "obj a_sound sound past ing", "sound_during": "obj", "device_motion": "",
    "device_when": "past base ing", "yn_color": "obj color", "yn_size": "obj size", "yn_place": "obj place",
    "yn_motion": "obj direction", "yn_sound": "a_sound", "yn_device": "doing", "yn_event": "base past ing", "caption": "",
    "describe_at": "t", "nearest": "when", "hottest": "when", "warmer": "obj after",
}
VALUES = {
    "obj": "large red circle", "objs": "orange rings", "a_obj": "an orange cross", "sound": "rising chirp",
    "a_sound": "a bell", "base": "the bell ring", "past": "the bell rang", "ing": "the bell ringing",
    "a_base": "the red ring bounce", "a_past": "the red ring bounced", "a_ing": "the red ring bouncing",
    "b_base": "the bell ring", "b_past": "the bell rang", "b_ing": "the bell ringing", "color": "purple",
    "size": "small", "place": "at the top left", "direction": "to the left", "doing": "being rotated", "t": "3.5",
    "when": " at 3 s", "after": " after the bell rang",
}


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", re.sub(r"\{\w*\}", " ", text.lower()))


def test_every_type_of_the_contract_is_worded():
    assert set(TEMPLATES) == set(HELD_OUT) == set(CONTRACT)


@pytest.mark.parametrize("kind", CONTRACT)
def test_wordings_of_a_type(kind):
    training, held_out = ({text.casefold() for text in block[kind]} for block in (TEMPLATES, HELD_OUT))
    assert len(training) == len(TEMPLATES[kind]) >= 20
    assert len(held_out) == len(HELD_OUT[kind]) >= 6
    assert not training & held_out
    for text in TEMPLATES[kind] + HELD_OUT[kind]:
        assert fields(text) <= set(CONTRACT[kind].split()), text
        assert not CONTRACT[kind] or fields(text), f"asks about nothing: {text}"


def test_held_out_wordings_use_words_that_training_knows():
    known = {word for texts in TEMPLATES.values() for text in texts for word in words(text)}
    assert not {word for texts in HELD_OUT.values() for text in texts for word in words(text)} - known - {"'s"}


@pytest.mark.parametrize("held_out", [False, True])
def test_without_noise_a_question_is_a_plain_filled_template(held_out):
    rng = random.Random(0)
    for kind in CONTRACT:
        plain = {text.format_map(VALUES) for text in (HELD_OUT if held_out else TEMPLATES)[kind]}
        assert {ask(rng, kind, VALUES, held_out=held_out, noise=0) for _ in range(20)} <= plain


def test_same_generator_same_question():
    def draw(seed):
        rng = random.Random(seed)
        return [ask(rng, kind, VALUES) for kind in CONTRACT] + [off_world(rng) for _ in range(50)]

    assert draw(5) == draw(5) != draw(6)


def test_noise_varies_the_question():
    rng = random.Random(0)
    assert len({ask(rng, "color", {"obj": "small red circle"}) for _ in range(1000)}) > 300


def test_missing_slot_and_unknown_type_are_named():
    with pytest.raises(KeyError, match="yn_color.*'color'"):
        ask(random.Random(0), "yn_color", {"obj": "circle"})
    with pytest.raises(KeyError, match="flavour"):
        ask(random.Random(0), "flavour", {})


def test_typo_changes_one_word_and_never_makes_a_known_one():
    rng = random.Random(1)
    changed = 0
    for _ in range(4000):
        kind = rng.choice(list(CONTRACT))
        text = ask(rng, kind, VALUES, noise=0)
        before, after = text.split(" "), add_typo(rng, text).split(" ")
        new = [(old, wrong) for old, wrong in zip(before, after, strict=True) if old != wrong]
        assert len(new) <= 1
        for old, wrong in new:
            changed += 1
            letters = re.sub(r"[^a-z]", "", wrong.lower())
            assert letters not in VOCABULARY, (old, wrong)
            assert not any(letter.isdigit() for letter in old)
    assert changed > 3000


def test_a_typo_cannot_turn_start_into_star():
    rng = random.Random(0)
    assert "star" not in {add_typo(rng, "start") for _ in range(500)}


def test_swaps_keep_verbs_and_agree_with_articles():
    rng = random.Random(0)
    swapped = {swap_words(rng, "Did the bell ring before the red ring moved, or was it an object?") for _ in range(300)}
    assert not any("bell hoop" in text or "chime hoop" in text or "chime donut" in text for text in swapped)
    assert any("red hoop" in text for text in swapped)
    assert any("a thing" in text for text in swapped) and any("an item" in text for text in swapped)
    assert not any("an thing" in text or "a item" in text for text in swapped)


def test_swaps_leave_the_shape_unsaid_in_shape_questions():
    rng = random.Random(0)
    assert "shape" not in " ".join(swap_words(rng, "red object", kind="shape") for _ in range(200))


def test_off_world_questions_are_many():
    rng = random.Random(0)
    assert len({off_world(rng) for _ in range(10_000)}) > 5000
    assert len(set(offworld.NEAR + offworld.FAR)) > 300
    assert len(offworld.nouns()) >= 200 and len(offworld.LEXICON["verb"]) >= 100


def test_every_off_world_template_can_be_filled():
    rng = random.Random(0)
    for template in offworld.NEAR + offworld.FAR:
        text = offworld.fill(rng, template)
        assert "{" not in text and text


def test_outside_nouns_are_not_words_of_the_world():
    world = {"circle", "square", "triangle", "star", "cross", "ring", "bell", "beep", "chirp", "clicks"}
    world |= {swap for key in wordings.SYNONYMS for swap in (key, *wordings.SYNONYMS[key])}
    assert not world & set(offworld.nouns())


def test_refusal_test_questions_are_not_in_training():
    assert len(OFF_WORLD_TEST) == 100
    assert len({text.casefold() for text in OFF_WORLD_TEST}) == 100
    rng = random.Random(7)
    drawn = {off_world(rng, noise=i % 2).casefold() for i in range(20_000)}
    drawn |= {text.strip(" ?.!") for text in drawn} - {""}
    assert not [text for text in OFF_WORLD_TEST if {text.casefold(), text.casefold().strip(" ?.!")} & drawn]
