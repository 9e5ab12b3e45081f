"""Questions are spelt right before they are read, and what is no slip is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymodal.bundle import load_bundle
from anymodal.language.spelling import Spelling, inflected, stems

WORDS = ("purple", "triangle", "happens", "middle", "notice", "ring", "star", "right", "sound", "around")


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
    "rin", "sta",  # too short
    "rignt", "sround",  # of `few`; as like "sound" as "around"
    "wasn't", "starß", "zebra", "3", "é"])
def test_other_words_are_left_alone(spelling, word):
    assert spelling(word) == word
    assert spelling(f"{word} rihgt") == f"{word} right", "letters exchanged are mended in any word"


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
