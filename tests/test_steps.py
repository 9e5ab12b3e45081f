"""Answers that take more than one look: steps are not shown, and a window that one names is read once more."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anymodal.bundle import load_bundle
from anymodal.config import load_spec
from anymodal.language.prompt import AnswerReader, answer_ids, note_ids
from anymodal.language.tokenizer import ANSWER, EOS, NOTE, TextTokenizer
from anymodal.stages.items import Percept
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta, Evidence, Tokens


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(load_spec("tiny")[1].parent / "tiny" / "tokenizer.json")


def read(tokenizer, ids: list[int]) -> tuple[AnswerReader, list[str], list[float | None]]:
    reader = AnswerReader(tokenizer, 1.0)
    pieces, looks = [], []
    for token in ids:
        pieces.append(reader.push(token))
        looks.append(reader.look_s)
    return reader, pieces, looks


def test_a_reader_gives_the_text_alone_and_says_where_to_look(tokenizer):
    steps = [note_ids(tokenizer, step) for step in (7, "top left", (3, 65))]
    said = answer_ids(tokenizer, "no", (Evidence(7.0, 8.0, "video"),), 1.0)[:-1]
    reader, pieces, looks = read(tokenizer, [i for ids in (*steps, said) for i in ids])
    assert reader.text == "no" and "".join(pieces) == " no" and reader.evidence() == (Evidence(7.0, 8.0, "video"),)
    assert [t for t in looks if t is not None] == [7.0] and looks.index(7.0) == len(steps[0]) - 1
    assert tokenizer.decode(steps[2]).split() == ["3", "1:05"]


@pytest.mark.parametrize("ids", [[NOTE], [NOTE, ANSWER], [NOTE, NOTE, ANSWER], [NOTE, 300, 301]])
def test_a_step_that_is_empty_or_does_not_end_is_no_text(tokenizer, ids):
    reader, pieces, looks = read(tokenizer, ids)
    assert reader.text == "" and not any(pieces) and looks[-1] is None


@pytest.fixture(scope="module")
def mind(tmp_path_factory):
    path = random_bundle(tmp_path_factory.mktemp("steps"))
    path.write_text(path.read_text().replace("window_s: 1.0", "window_s: 1.0\nmemory: {look_again: 2}")
                    .replace("max_answer_tokens: 12", "max_answer_tokens: 40"))
    return load_bundle(path).mind


@pytest.fixture
def state(mind):
    rng = np.random.default_rng(5)
    windows = [Percept("s", k, float(k), k + 1.0, (Tokens("s", "video", k, "video", float(k), k + 1.0, rng.normal(
        size=(2, mind.lm.width)).astype(np.float32)),), frames=4) for k in range(9)]
    return mind.open(windows=windows)


@pytest.fixture
def script(mind, state, monkeypatch):
    """Makes the model say what is wanted; returns the tokens of each fork that was begun."""
    def told(*answers: list[int]) -> list[list[int]]:
        begun, left = [], [list(a) for a in answers]

        class Scripted:
            def __init__(self, rows, **_):
                for ids in left if begun else ():
                    del ids[:1]  # a fork before ended with it: the answer's last, or the one that made it look
                begun.append([len(r) for r in rows])
                self.rows = [left[i] for i in range(len(left)) if left[i]]
                self._tell()

            def _tell(self):
                self.logits = torch.full((len(self.rows), mind.tokenizer.vocab), -50.0)
                for row, ids in zip(self.logits, self.rows, strict=True):
                    row[ids[0]] = 50.0

            def step(self, tokens):
                for ids, token in zip(self.rows, tokens.tolist(), strict=True):
                    assert ids.pop(0) == token
                self._tell()

            def keep(self, rows):
                self.rows = [self.rows[row] for row in rows]

        monkeypatch.setattr(state.trunk, "fork", Scripted)
        return begun

    return told


def stepped(tokenizer) -> list[int]:
    steps = [i for step in (5, "left", 5, 40) for i in note_ids(tokenizer, step)]  # window 40 has never been
    return [*steps, *answer_ids(tokenizer, "no", (Evidence(5.0, 6.0, "video"),), 1.0)]


def test_an_answer_goes_on_with_the_window_that_it_looks_at(mind, state, script, tokenizer):
    begun, looked = script(stepped(tokenizer)), len(note_ids(tokenizer, 5))
    *deltas, answer = mind.answer(state, "is it at the left?")
    assert isinstance(answer, Answer) and answer.text == "no" and answer.evidence == (Evidence(5.0, 6.0, "video"),)
    assert [d.text for d in deltas if isinstance(d, Delta)] == [" no"]
    (first,), (second,) = begun
    assert second == first + looked + mind.size(state.memory.entries[5]) + 1


def test_several_answers_take_their_own_looks(mind, state, script, tokenizer):
    plain = answer_ids(tokenizer, "red", (), 1.0)
    begun = script(stepped(tokenizer), list(plain))
    heard: list[list[int]] = [[], []]
    one, two = mind.answers(state, ["is it at the left?", "what colour?"],
                            heard=lambda index, token, *_: heard[index].append(token))
    assert (one.text, two.text) == ("no", "red")
    assert heard == [stepped(tokenizer), plain] and heard[1][-1] == EOS
    assert [len(rows) for rows in begun] == [2, 1]

