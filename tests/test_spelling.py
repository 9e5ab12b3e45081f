"""Questions are spelt right before they are read, and what is no slip is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymodal.bundle import load_bundle
from anymodal.language.judging import Judgement
from anymodal.language.spelling import Spelling, inflected, stems
from anymodal.session.log import Turn
from anymodal.session.phrases import Phrases

WORDS = ("purple", "triangle", "happens", "middle", "notice", "ring", "star", "right", "sound", "around", "pound", "were",
         "where", "small", "seal", "move")


@pytest.fixture(scope="module")
def spelling():
    return Spelling(WORDS, ("right",), ("many",), {*WORDS, "night", "goat"}.__contains__)


@given(word=st.sampled_from(WORDS[:5]), at=st.integers(0, 7), letter=st.sampled_from("xqz"), slip=st.integers(0, 3))
def test_one_slip_in_a_long_word_is_mended(word, at, letter, slip):
    at %= len(word) - 1
    slipped = (word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[: at + 1] + word[at:],
               word[:at] + letter + word[at + 1 :], word[:at] + word[at + 1 :])[slip]
    spelling = Spelling(WORDS, ("right",), ("many",), {*WORDS}.__contains__)
    assert spelling(f"the {slipped}, now?") == f"the {word}, now?"


@pytest.mark.parametrize("word", [
    "night", "goat", "goats", "notices", "noticing",  # words of their own, and forms of words
    "ri", "sta",  # too short; a word
    "rignt", "qound",  # of `few`; as like "sound" as "pound"
    "wasn't", "starß", "zebra", "3", "é"])
def test_other_words_are_left_alone(spelling, word):
    assert spelling(word) == word
    assert spelling(f"{word} rihgt") == f"{word} right", "letters exchanged are mended in any word"


@pytest.mark.parametrize(("slipped", "meant"), [
    ("smal", "small"),  # not "seal", which names nothing
    ("wgere", "where"),  # not "were": g is beside h
    ("sound", "sound"), ("sround", "sound"), ("mov", "move")])
def test_of_several_words_one_that_names_something_is_meant_then_one_a_key_beside(slipped, meant):
    spelling = Spelling(WORDS, ("right",), ("many",), {*WORDS}.__contains__, names=lambda word: word != "seal")
    assert spelling(f"the {slipped}!") == f"the {meant}!"


def test_behind_how_short_words_are_mended_too(spelling):
    assert spelling("how mny and how maby") == "how many and how many" and spelling("mny, how big") == "mny, how big"


def test_stems_and_forms():
    assert {"bounce", "notice"} <= {*stems("bouncing"), *stems("noticed")} and "r" not in stems("ring")
    assert [*inflected("star")] == ["star", "stars"] and [*inflected("cross")] == ["cross", "crosses"]
    assert [*inflected("bounces")] == ["bounces", "bounce", "bounced", "bouncing"]


def test_the_language_model_and_the_tokens_are_asked_the_same_question_however_it_is_spelt():
    mind = load_bundle("tiny").mind
    slipped, right = "What hapens to the ornage triangel?", "What happens to the orange triangle?"
    first, second = (mind._ask(question, [], 512).rows.embeds for question in (slipped, right))
    assert first.equal(second)
    names = mind._ask.pointer._names
    assert names.of(mind.finder.spelt(slipped)) == names.of(right) and names.of(right).happens("event")


def test_rules_searches_and_earlier_turns_are_spelt_right_too():
    mind = load_bundle("tiny").mind
    judge = mind._judge
    assert mind.spelt("did anyhting stop, and the latset sound?") == "did anything stop, and the latest sound?"
    asked = []
    judge._told = lambda state, prompts, evidence: asked.extend(prompts) or [Judgement(0.0, ())] * len(prompts)
    judge(None, ["Now: the ornage triangel stops?"], evidence=False)
    assert asked == ["now: the orange triangle stops?"]
    phrases = Phrases(mind.spec.search, None, mind.spelt)
    assert phrases.named("the ornage triangel") == phrases.named("the orange triangle") != {}
    slipped, right = (Turn(0, 1.0, text, "a triangle", 0.9, (), "") for text in ("waht is ornage?", "what is orange?"))
    first, second = (mind._ask("and now?", [], 512, [turn]).rows.embeds for turn in (slipped, right))
    assert first.equal(second)
