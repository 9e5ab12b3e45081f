"""Which windows are shown again because few of them say what a question names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anymodal.bundle import load_bundle
from anymodal.language.finder import Finder


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("tiny")


@pytest.fixture(scope="module")
def finder(bundle):
    return Finder(bundle.spec.search, bundle.mind.tokenizer, bundle.mind.model)


def saying(finder: Finder, *windows: tuple[str, ...]) -> list[np.ndarray]:
    """Of each window, what its tokens say: words with spaces between them."""
    return [np.array([[float(w in token.split()) for w in (*finder._words, "nothing")] for token in tokens])
            for tokens in windows]


STAR = (("red star", "nothing"), ("red star", "circle colder"), ("red star",), ("red star bounces", "star warmer"),
        ("red star", "low bell"))


@pytest.mark.parametrize(("question", "found"), [
    ("Is the star warmer or colder?", [3]), ("Is the red star warmer or colder?", [3]), ("did the circle get colder?", [1]),
    ("When did a bell ring?", [4]), ("when did the chime sound?", [4]), ("When did the red star bounce?", [3]),
    ("the star bouncing, when was that?", [3]), ("What colour is the star?", []), ("Where is the blue ring?", []),
    ("What is there?", []), ("", [])])
def test_few_windows_that_say_most_of_what_is_rare(finder, question, found):
    assert finder.few(question, saying(finder, *STAR), 2) == found


def test_what_more_windows_say_than_may_be_shown_is_not(finder):
    said = saying(finder, ("low bell",), ("nothing",), ("low bell",), ("low bell",), ("nothing",))
    assert finder.few("when was the bell?", said, 2) == [] and finder.few("when was the bell?", said, 3) == [0, 2, 3]
    assert finder.few("when was the bell?", said, 0) == [] == finder.few("when was the bell?", [], 2)
    assert finder.few("when was the bell?", said[:1], 2) == [], "the only window need not be found"


def test_sums_of_word_embeddings_say_their_words(bundle, finder):
    embed, tokenizer = bundle.mind.model.get_input_embeddings().weight, bundle.mind.tokenizer
    for words in (("red", "star"), ("star", "circle"), ("nothing",)):
        token = sum(embed[tokenizer.encode(w)].sum(0) for w in words)
        said = finder.said(torch.stack([token, token]))
        assert said.shape == (2, len(finder._words) + 1)
        assert said.sum(-1) == pytest.approx(1.0, abs=1e-3)
        assert {(*finder._words, "nothing")[i] for i in (said[0] > 0.12).nonzero()[0]} == set(words)
