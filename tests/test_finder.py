"""Which windows are shown again because few of them say what a question names."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from anymodal.bundle import load_bundle
from anymodal.language.finder import KEPT, Finder, around
from anymodal.memory import Span
from anymodal.playground.world import make_scene
from anymodal.stages.items import Percept
from anymodal.testing import tokens_saying
from anymodal.training.asking import scene_windows
from anymodal.types import Tokens


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("tiny")


@pytest.fixture(scope="module")
def finder(bundle):
    return bundle.mind.finder


STAR = (("red star", "nothing"), ("red star", "circle colder"), ("red star",), ("red star bounces", "star warmer"),
        ("red star", "low bell"))


@pytest.mark.parametrize(("question", "found"), [
    ("Is the star warmer or colder?", [3]), ("Is the red star warmer or colder?", [3]), ("did the circle get colder?", [1]),
    ("When did a bell ring?", [4]), ("when did the chime sound?", [4]), ("When did the red star bounce?", [3]),
    ("the star bouncing, when was that?", [3]), ("What colour is the star?", []), ("Where is the blue ring?", []),
    ("What is there?", []), ("", [])])
def test_few_windows_that_say_most_of_what_is_rare(finder, question, found):
    assert finder.few(question, tokens_saying(finder.lexicon, *STAR), 2) == found


def test_what_more_windows_say_than_may_be_shown_is_not(finder):
    said = tokens_saying(finder.lexicon, ("low bell",), ("nothing",), ("low bell",), ("low bell",), ("nothing",))
    assert finder.few("when was the bell?", said, 2) == [] and finder.few("when was the bell?", said, 3) == [0, 2, 3]
    assert finder.few("when was the bell?", said, 0) == [] == finder.few("when was the bell?", [], 2)
    assert finder.few("when was the bell?", said[:1], 2) == [], "the only window need not be found"


def test_misspelt_words_are_known_but_for_those_that_are_words_of_their_own(finder):
    for word, meant in (("satr", "star"), ("trianlge", "triangle"), ("riing", "ring"), ("waremr", "warmer"),
                        ("purplle", "purple"), ("bonces", "bounces"), ("ywllow", "yellow")):
        assert finder.known(word) is None
        assert finder.spelt(word) == meant
    words = "clock loops flight water shall start rang xyzzy the gone stay half keep test bright across stone share".split()
    assert not [word for word in words if finder.spelt(word) != word]


@pytest.fixture(scope="module")
def percepts(bundle):
    scene = make_scene("val", 5, 3, seconds=4)
    windows = scene_windows(scene, bundle.spec)
    return scene, [Percept.of("s", w, t) for w, t in zip(windows, bundle.perception.encode("s", windows), strict=True)]


def test_what_windows_say_is_read_off_their_tokens(finder, percepts):
    scene, seen = percepts
    said = finder.read([p.tokens for p in seen])
    for percept, tokens in zip(seen, said, strict=True):
        assert tokens.shape == (sum(len(t.embeds) for t in percept.tokens), len(finder.lexicon))
        assert ((tokens >= 0) & (tokens <= 1)).all()
    wholly = [t for t in scene.things if t.appear_s < 0 and t.vanish_s > 4 and not t.recolor]
    assert wholly
    for thing in wholly:
        name = [finder.number(thing.color), finder.number(thing.shape)]
        assert max(tokens[:, name].min(1).max() for tokens in said) > 0.5, f"{thing.color} {thing.shape}"


def test_a_window_is_read_alike_alone_in_a_batch_and_again(finder, percepts):
    _, seen = percepts
    together = finder.read([p.tokens for p in seen])
    finder._kept.clear()
    alone = [finder.read([p.tokens])[0] for p in seen]
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(together, alone, strict=True))
    assert all(a is b for a, b in zip(alone, finder.read([p.tokens for p in seen]), strict=True)), "kept"
    few = [p.tokens[:2] for p in seen[:2]] + [seen[2].tokens, ()]
    assert [len(s) for s in finder.read(few)] == [sum(len(t.embeds) for t in tokens) for tokens in few]


def test_which_windows_each_is_read_with():
    assert around([(0, 0), (1, 3), (4, 4), (6, 6), (7, 7)], 2) == [
        [-1, -1, 0, 1, 2], [-1, 0, 1, 2, -1], [0, 1, 2, -1, -1], [-1, -1, 3, 4, -1], [-1, 3, 4, -1, -1]]
    assert around([(5, 5)], 1) == [[-1, 0, -1]] and around([(1, 1), (2, 2)], 0) == [[0], [1]] and around([], 2) == []


def test_a_window_is_read_with_those_that_it_goes_on_from_and_that_go_on_from_it(bundle, percepts):
    torch.manual_seed(0)
    reader = copy.deepcopy(bundle.mind.finder._reader).float()
    torch.nn.init.normal_(reader.beside.weight)
    finder = Finder(bundle.spec.search, bundle.tokenizer, reader)
    windows = [p.tokens for p in percepts[1]]
    near, split = (finder.read(windows, [(k, k) for k in numbers]) for numbers in ((0, 1, 2, 3), (0, 1, 3, 4)))
    alone = finder.read(windows)
    assert not any(np.allclose(a, b, atol=1e-3) for a, b in zip(near, alone, strict=True))
    assert np.allclose(split[0], finder.read(windows[:2], [(7, 7), (8, 8)])[0], atol=1e-5)
    assert np.allclose(near[3], finder.read(windows[1:], [(1, 1), (2, 2), (3, 3)])[2], atol=1e-5), "two on either side"
    assert not np.allclose(near[3], finder.read(windows[2:], [(2, 2), (3, 3)])[1], atol=1e-3)
    with_gap = [windows[0], (), *windows[2:]]
    told = finder.read(with_gap, [(k, k) for k in range(4)])
    assert len(told[1]) == 0 and all(np.isfinite(t).all() for t in told)


def test_a_sense_that_the_reader_does_not_know_says_nothing(finder, percepts):
    tokens = percepts[1][0].tokens
    strange = Tokens("night", "night", 0, "night", 0.0, 1.0, np.ones((3, 256), np.float32))
    (alone,), (both,), (only,) = (finder.read([t]) for t in (tokens, (tokens[0], strange, *tokens[1:]), (strange,)))
    first = len(tokens[0].embeds)
    assert np.allclose(np.delete(both, range(first, first + 3), 0), alone, atol=1e-6)
    assert not both[first : first + 3].any() and only.shape == (3, len(finder.lexicon)) and not only.any()


def test_clips_in_training_are_read_as_windows_are(finder, percepts):
    tokens = [torch.from_numpy(np.concatenate([t.embeds for t in p.tokens])) for p in percepts[1]]
    layout = [(t.modality, len(t.embeds)) for t in percepts[1][0].tokens]
    windows = finder.read([p.tokens for p in percepts[1]], [(k, k) for k in range(len(tokens))])
    assert np.allclose(finder.clip(torch.stack(tokens), layout, range(len(tokens))), windows, atol=1e-5)
    more = torch.cat([torch.stack(tokens), torch.ones(len(tokens), 3, tokens[0].shape[1])], 1)
    read = np.stack(finder.clip(more, [*layout, ("night", 3)], range(len(tokens))))
    assert np.allclose(read[:, :-3], windows, atol=1e-5) and not read[:, -3:].any()


def test_windows_of_the_past_are_read_with_those_that_were_beside_them(bundle, finder):
    """Not with those that stand beside them on the clock of the answer."""
    windows = scene_windows(make_scene("val", 5, 4, seconds=12), bundle.spec)
    percepts = [Percept.of("s", w, t) for w, t in zip(windows, bundle.perception.encode("s", windows), strict=True)]
    spans = [Span.of(p) for p in percepts]
    live = finder.spans(spans)
    past = bundle.mind._ask.past("where was it?", [percepts[2], percepts[5]], spans[8:],
                                 [percepts[k] for k in (0, 1, 3, 4, 6, 7)])
    assert past.begins_s == [2.0, 5.0, 10.0, 11.0]
    for said, k in zip(past.said, (2, 5, 10, 11), strict=True):
        assert np.allclose(said, live[k], atol=1e-5)
    apart = finder.spans(past.entries)
    assert not np.allclose(apart[1], live[5], atol=1e-2), "a reader that looks around tells the difference"


def test_no_more_windows_are_kept_than_a_memory_holds(finder):
    dice = np.random.default_rng(0)
    for _ in range(3):
        finder.read([(Tokens("s", "imu", 0, "imu", 0.0, 1.0, dice.normal(size=(2, 256)).astype(np.float32)),)
                     for _ in range(KEPT)])
        assert len(finder._kept) <= KEPT


def test_threads_read_at_a_time(finder):
    dice = np.random.default_rng(1)
    windows = [[(Tokens("s", "imu", 0, "imu", 0.0, 1.0, dice.normal(size=(2, 256)).astype(np.float32)),)
                for _ in range(KEPT // 3)] for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda k: [len(s) for s in finder.read(windows[k % 4])], range(24)):
            assert rows == [2] * (KEPT // 3)
