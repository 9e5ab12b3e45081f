"""What tokens answer whole, what nothing was seen of, and the windows that an answer relies on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anymodal.agent import load
from anymodal.language.relied import SpanWriter, relied, runs
from anymodal.language.telling import Teller
from anymodal.language.tokenizer import EOS, EVIDENCE
from anymodal.playground.files import clip_truth
from anymodal.session.local import new_session
from anymodal.stages.items import Percept
from anymodal.testing import tokens_saying
from anymodal.training.asking import scene_windows
from anymodal.types import Answer

CLIP = (("red star", "blue circle"), ("red star", "blue circle disappears"), ("red star stops", "noise"), ("red star", ""))


@pytest.fixture(scope="module")
def agent():
    return load("tiny")


@pytest.fixture(scope="module")
def mind(agent):
    return agent.bundle.mind


def said(mind, *windows) -> list[np.ndarray]:
    """All but surely."""
    return [np.clip(chances, 0.01, 0.99) for chances in tokens_saying(mind.finder.lexicon, *windows)]


@pytest.mark.parametrize(("question", "answer"), [
    ("What shapes are there?", "red star, blue circle"), ("list the objects", "red star, blue circle"),
    ("Which colours can you see?", "red, blue"), ("What is there?", "red star, blue circle"),
    ("What disappeared?", "blue circle"), ("Which object stopped?", "red star"), ("What bounced?", "nothing")])
def test_what_there_is_is_told_whole(mind, question, answer):
    told = Teller(mind._ask.pointer, mind.finder, mind.tokenizer)(question, said(mind, *CLIP))
    assert mind.tokenizer.decode(told.ids).strip() == answer and told.runs


@pytest.mark.parametrize("question", [
    "What shapes are there at 3 s?", "What red shapes are there?", "What shape is the red object?", "What can you see?",
    "Which object is the president?", "What disappeared before the star stopped?", "How many shapes are there?",
    "What did it bounce off?", "What colour did it change to?", "What size are the objects?", "Say if there are objects",
    "Which colour changed?"])
def test_other_questions_are_for_the_language_model(mind, question):
    assert Teller(mind._ask.pointer, mind.finder, mind.tokenizer)(question, said(mind, *CLIP)) is None


@pytest.mark.parametrize(("question", "answer", "windows"), [
    ("What colour is the star?", "red", [(0, 3)]), ("Where is the circle now?", "top", [(1, 1)]),
    ("Where was the star at first?", "top", [(0, 0)]), ("When did the circle disappear?", "at 1 s", [(1, 1)]),
    ("Did the star bounce?", "no", [(0, 3)]), ("How many stars are there?", "1", [(0, 3)]),
    ("Is there a green ring?", "no", [(0, 3)]), ("Where is the ring?", "I cannot tell", [])])
def test_an_answer_relies_on_the_windows_that_tell_it(mind, question, answer, windows):
    labels = [tuple(mind.tokenizer.encode(str(k))) for k in range(len(CLIP))]
    pointing = mind._ask.pointer.point(question, labels, said(mind, *CLIP))
    found = relied(pointing, mind.tokenizer.encode(answer.lower()))
    assert [run[:2] for run in found] == windows and {run[2] for run in found} <= {"video"}


def test_an_answer_about_a_moment_relies_on_the_window_that_was_looked_at(mind):
    labels = [tuple(mind.tokenizer.encode(str(k))) for k in range(len(CLIP))]
    pointing = mind._ask.pointer.point("Where was the red star at 2 s?", labels, said(mind, *CLIP))
    assert relied(pointing, mind.tokenizer.encode("top")) == []
    pointing.looked = 2
    assert relied(pointing, mind.tokenizer.encode("top")) == [(2, 2, "video")]


def test_which_of_two_words_is_told_only_where_one_of_them_is_seen(mind):
    labels = [tuple(mind.tokenizer.encode(str(k))) for k in range(len(CLIP))]
    scores = torch.full((mind.tokenizer.vocab,), -20.0)
    scores[mind.tokenizer.encode("no")[0]] = 0.0
    for question, first in (("Is the star green or red?", "red"), ("Do you see a green or a white star?", "no")):
        weighed = mind._ask.pointer.point(question, labels, said(mind, *CLIP)).weigh(torch.log_softmax(scores, -1))
        assert mind.tokenizer.decode([int(weighed.argmax())]).strip() == first


def test_marks_in_a_row():
    assert runs(np.array([True, True, False, True])) == [(0, 1), (3, 3)] and runs(np.array([False])) == []


def test_evidence_says_times_of_windows_alone(mind):
    labels = [tuple(mind.tokenizer.encode(t)) for t in ("59", "1:00", "1:01")]
    writer, beyond = SpanWriter(labels), mind.tokenizer.encode("9:99:99")
    scores = torch.full((mind.tokenizer.vocab,), -20.0)
    scores[beyond] = 0.0  # which is what it would say
    assert writer.weigh(scores) is scores
    written = [EVIDENCE["video"]]
    while written[-1] != EOS and len(written) < 20:
        writer.push(written[-1])
        written.append(int(writer.weigh(scores).argmax()))
        if written[-1] in EVIDENCE.values():
            written[-1] = EOS
    times = tuple(written[1:-1])
    assert any(times == first + last for k, first in enumerate(labels) for last in labels[k:])


def test_of_what_was_not_seen_or_heard_nothing_can_be_told(agent, mind):
    truth = clip_truth("val", 5, 3, seconds=4.0)
    windows = scene_windows(truth.scene, agent.spec)
    tokens = agent.perception.encode("clip", windows)
    heard = [Percept.of("clip", w, tuple(t for t in ts if t.modality == "audio"))
             for w, ts in zip(windows, tokens, strict=True)]
    nothing, sound = mind.open(), mind.open()
    mind.extend_all(sound, heard)

    def answer(state, question: str) -> Answer:
        return [p for p in mind.answer(state, question) if isinstance(p, Answer)][0]

    for state, question in ((nothing, "Is there a star?"), (nothing, "Did you hear a bell?"), (nothing, "what is seen?"),
                            (sound, "Is there a pink star?"), (sound, "Was the star there when it rang?")):
        assert answer(state, question).text.lower() in ("i cannot tell", "that is outside what i know"), question
        assert answer(state, question).evidence == ()
    assert answer(sound, "Which sound was first?").text != "i cannot tell"
    assert answer(sound, "what shapes are there?").text == "i cannot tell", "and not that there is nothing"
    hot = mind._ask.pointer.needs("is the star getting warmer?")
    assert {"thermal"} in hot and all("thermal" in senses for senses in hot), "a thermal camera alone tells it"


def test_times_and_evidence_are_right_after_more_than_a_minute(agent):
    """Windows of one scene over and over: a sound that only one of them has is found at its time."""
    truth = clip_truth("val", 5, 3, seconds=8.0)
    windows = scene_windows(truth.scene, agent.spec)
    tokens = agent.perception.encode("clip", windows)
    quiet = [k for k in range(8) if not any(s.t0_s < k + 1 and s.t1_s > k for s in truth.scene.sounds)]
    loud = int(truth.scene.sounds[0].t0_s)
    assert quiet
    with new_session(agent.bundle, None) as session:
        for number in range(90):
            k = loud if number == 80 else quiet[0]
            window = replace(windows[k], index=number, t0_s=float(number), t1_s=number + 1.0)
            mine = tuple(replace(t, session=session.id, window=number) for t in tokens[k])
            session.log.append_window(Percept.of(session.id, window, mine))
        answer = session.ask(f"When did you hear a {truth.scene.sounds[0].kind}?")
    (span,) = answer.evidence
    assert (answer.text, span.start_s, span.end_s, span.modality) == ("at 1:20", 80.0, 81.0, "audio")
