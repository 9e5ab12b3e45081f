"""The agent: the whole path in one process, on real files and a bundle of random weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import anymodal
from anymodal.agent import load
from anymodal.errors import ConfigError, MediaError, QuestionError, WeightsError
from anymodal.testing import gradient_frame, make_audio, make_imu_csv, make_video
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("agent")


@pytest.fixture(scope="module")
def agent(folder):
    return load(random_bundle(folder))


@pytest.fixture(scope="module")
def clip(folder):
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * 44100) / 44100)
    return make_video(folder / "clip.mp4", [gradient_frame(64, i) for i in range(75)], audio=sound.astype(np.float32))


def timeless(answer: Answer) -> Answer:
    return replace(answer, ttft_s=0.0)


def test_ask_one_and_ask_several(agent, clip):
    questions = ["what colour is it?", "what did you hear?"]
    both = agent.ask(clip, questions)
    assert [a.question for a in both] == questions
    assert both[0].text != both[1].text
    for question, answer in zip(questions, both):
        assert timeless(agent.ask(clip, question)) == timeless(answer)
        assert (answer.frames_seen, answer.windows_seen, answer.frames_dropped) == (12, 3, 0)
        assert 0 < answer.confidence < 1 and answer.ttft_s > 0


def test_stream_gives_the_text_as_it_comes(agent, clip):
    pieces = list(agent.stream(clip, ["what colour is it?", "and now?"]))
    numbers = [n for n, _ in pieces]
    assert numbers == sorted(numbers) and set(numbers) == {0, 1}
    for number in (0, 1):
        *deltas, answer = [p for n, p in pieces if n == number]
        assert len(deltas) > 1 and all(isinstance(d, Delta) for d in deltas)
        assert "".join(d.text for d in deltas).strip() == answer.text


def test_load_is_at_the_top_of_the_package(folder, clip):
    assert isinstance(anymodal.load(random_bundle(folder / "other", name="other")).ask(clip, "what?"), Answer)


def test_at_answers_from_what_had_ended(agent, clip):
    answer = agent.ask(clip, "what is it?", at_s=2.5)
    assert (answer.windows_seen, answer.frames_seen) == (2, 8)
    assert answer.text != agent.ask(clip, "what is it?").text
    assert agent.ask(clip, "what is it?", at_s=0).windows_seen == 0


@pytest.mark.parametrize("at_s", [-1.0, 1e9, float("nan"), float("inf")])
def test_at_outside_the_clip(agent, clip, at_s):
    with pytest.raises(QuestionError) as caught:
        agent.ask(clip, "what?", at_s=at_s)
    assert caught.value.fix and caught.value.exit_code == 2


def test_at_without_media(agent):
    with pytest.raises(QuestionError, match="no media"):
        agent.ask(None, "what?", at_s=1.0)


@pytest.mark.parametrize("question", ["", "  \n", "why? " * 1000, "half \ud800", ["what?", ""], []])
def test_bad_questions_are_refused_before_the_clip_is_read(agent, question):
    with pytest.raises(QuestionError) as caught:
        agent.stream("no such file.mp4", question)
    assert caught.value.fix and caught.value.exit_code == 2


@pytest.mark.parametrize("question", ["多少个红色的圆?", "<eos> <window> 3", "🙂", "a" * 60, "what\x00?"])
def test_any_text_is_accepted(agent, question):
    assert agent.ask(None, question).question == question


def test_control_tokens_cannot_be_typed(agent):
    tokenizer = agent.bundle.tokenizer
    assert min(tokenizer.encode("<eos> <window> <answer>")) > 15


def test_a_sound_an_image_a_folder_and_nothing(agent, folder):
    from PIL import Image

    wav = make_audio(folder / "a.wav", np.zeros(32000, np.float32), 16000)
    frames = folder / "frames"
    frames.mkdir()
    for i in range(50):
        Image.fromarray(gradient_frame(48, i)).save(frames / f"{i}.png")
    assert agent.ask(wav, "what?").frames_seen == 0 and agent.ask(wav, "what?").windows_seen == 2
    assert agent.ask(frames / "0.png", "what?").frames_seen >= 1
    assert agent.ask(frames, "what?").frames_seen == 8
    assert agent.ask(None, "what?").windows_seen == 0


def test_sidecars_given_and_found(agent, folder):
    clip = make_video(folder / "moved.mp4", [gradient_frame(64, i) for i in range(50)])
    plain = agent.ask(clip, "how did it move?")
    times_s = np.arange(0, 2, 0.02)
    axes = agent.spec.modalities["imu"].axes
    table = make_imu_csv(folder / "table.csv", times_s, np.sin(np.outer(times_s, np.arange(1, 7))), axes)
    given = agent.ask(clip, "how did it move?", sidecars={"imu": table})
    table.rename(folder / "moved.imu.csv")
    assert timeless(agent.ask(clip, "how did it move?")) == timeless(given)
    assert given.confidence != plain.confidence


def test_bad_media_leaves_no_session_behind(agent, folder):
    (folder / "empty.mp4").touch()
    for name in ("empty.mp4", "missing.mp4"):
        with pytest.raises(MediaError):
            agent.ask(folder / name, "what?")
    half_read = agent.stream(folder / "clip.mp4", "what?")
    next(half_read)
    half_read.close()
    assert agent.think.sessions == 0


def test_passes_may_interleave(agent, folder, clip):
    other = make_video(folder / "other.mp4", [gradient_frame(64, 9 * i) for i in range(50)])
    alone = [list(agent.stream(c, "what is it?")) for c in (clip, other)]
    one, two = agent.stream(clip, "what is it?"), agent.stream(other, "what is it?")
    mixed: list[list] = [[], []]
    for a, b in zip(one, two):
        mixed[0].append(a)
        mixed[1].append(b)
    mixed[0] += one
    mixed[1] += two
    for got, wanted in zip(mixed, alone):
        texts = [p.text for _, p in wanted]
        assert [p.text for _, p in got][: len(texts) - 1] == texts[:-1]


def test_long_clips_are_merged_to_fit_the_memory(folder):
    path = random_bundle(folder / "short", name="short")
    memory = "memory: {budget_tokens: 96, compact_at: 0.7, compact_to: 0.4, keep_recent: 0.15, slices: 1}"
    path.write_text(path.read_text().replace("window_s: 1.0", f"window_s: 1.0\n{memory}"))
    clip = make_video(folder / "long.mp4", [gradient_frame(32, i) for i in range(80)], rate_hz=4)
    agent = load(path)
    compactions, extend = [], agent.think.mind.extend
    agent.think.mind.extend = lambda *given: compactions.append(extend(*given))
    answer = agent.ask(clip, "what?")
    assert answer.windows_seen == 20 and answer.frames_seen == 80, "what was merged was seen"
    assert any(compactions)


def test_bad_bundles_and_devices(folder, tmp_path):
    with pytest.raises(ConfigError, match="unknown bundle 'tinny'"):
        load("tinny")
    with pytest.raises(ConfigError, match="unknown device"):
        load("tiny", device="abacus")
    path = random_bundle(tmp_path)
    with pytest.raises(ConfigError, match="unknown dtype"):
        load(path, dtype="float99")
    path.write_text(path.read_text().replace("width: 32", "width: 64"))
    with pytest.raises(WeightsError, match="tensor '"):
        load(path)
