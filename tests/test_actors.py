"""The main path over real Ray actors: the same answers as in one process, bounded, and clear when a part dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from actors.cluster import free_ports, processes_of, psutil
from actors.faults import as_fault
from actors.pipeline import Pipeline, connect
from actors.placement import check_fits, check_total
from actors.runtime import read_runtime
from anymodal.agent import load
from anymodal.bundle import load_spec
from anymodal.errors import (
    BusyError,
    ConfigError,
    DefectError,
    MediaError,
    PlacementError,
    QuestionError,
    RuntimeFault,
    WeightsError,
)
from anymodal.testing import gradient_frame, make_video
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta

CREDITS = 3
pytestmark = pytest.mark.timeout(900)  # a busy machine starts Ray slowly
QUESTIONS = ["what colour is it?", "what did you hear?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("actors")


@pytest.fixture(scope="module")
def bundle(folder):
    return random_bundle(folder, runtime={
        "credits": CREDITS, "clips": 3, "start_timeout_s": 900, "stall_timeout_s": 300,
        "perception": {"batch_wait_s": 0.05, "threads": 1}, "mind": {"threads": 1}})


@pytest.fixture(scope="module")
def agent(bundle):
    return load(bundle, threads=1)


@pytest.fixture(scope="module")
def pipeline(bundle):
    with Pipeline(bundle) as running:
        yield running


@pytest.fixture(scope="module")
def clips(folder):
    def make(number: int) -> str:
        sound = 0.3 * np.sin(2 * np.pi * (300 + 400 * number) * np.arange(5 * 44100) / 44100)
        frames = [gradient_frame(64, i + 7 * number) for i in range(5 * 10)]
        return str(make_video(folder / f"{number}.mp4", frames, rate_hz=10, audio=sound.astype(np.float32)))

    return [make(number) for number in range(3)]


@pytest.fixture(scope="module")
def long_clip(folder):
    return str(make_video(folder / "long.mp4", [gradient_frame(32, i) for i in range(4 * 30)], rate_hz=4))


def timeless(answers: list[Answer]) -> list[Answer]:
    return [replace(answer, ttft_s=0.0) for answer in answers]


def until(is_true, seconds: float = 240.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.05)


# -- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_s", [None, 2.5])
def test_same_answers_as_in_one_process(pipeline, agent, clips, at_s):
    for clip in clips:
        answers = pipeline.ask(clip, QUESTIONS, at_s=at_s)
        assert timeless(answers) == timeless(agent.ask(clip, QUESTIONS, at_s=at_s))
        assert all(0 < answer.ttft_s < 600 for answer in answers)
    assert answers[0].windows_seen == (5 if at_s is None else 2)


def test_the_same_without_media_and_for_one_question(pipeline, agent):
    assert timeless([pipeline.ask(None, "what are you?")]) == timeless([agent.ask(None, "what are you?")])


def test_text_is_streamed(pipeline, clips):
    pieces = list(pipeline.stream(clips[0], QUESTIONS))
    for number in (0, 1):
        *deltas, answer = [piece for n, piece in pieces if n == number]
        assert len(deltas) > 1 and all(isinstance(delta, Delta) for delta in deltas)
        assert "".join(delta.text for delta in deltas).strip() == answer.text


def test_clips_side_by_side_share_batches_and_answer_the_same(pipeline, agent, clips):
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda clip: pipeline.ask(clip, QUESTIONS), clips))
    assert [timeless(answers) for answers in together] == [timeless(agent.ask(clip, QUESTIONS)) for clip in clips]
    assert max(pipeline.load("perception")["perception"]["batches"]) > 1


def test_damage_is_told(pipeline, folder):
    whole = make_video(folder / "whole.mp4", [gradient_frame(64, i) for i in range(100)],
                       container_options={"movflags": "faststart"})
    cut = folder / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    warnings: list[str] = []
    assert len(list(pipeline.stream(cut, ["what?"], warnings=warnings))) > 0
    assert "cut.mp4" in warnings[0]


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("media", "question", "at_s", "kind"), [
    ("missing.mp4", "what?", None, MediaError),
    ("0.mp4", "what?", 99.0, QuestionError),
    ("0.mp4", "what?", -1.0, QuestionError),
    ("0.mp4", " ", None, QuestionError),
    ("0.mp4", "why? " * 97, None, QuestionError),
    (None, "what?", 1.0, QuestionError),
])
def test_errors_are_those_of_one_process(pipeline, agent, clips, folder, media, question, at_s, kind):
    path = media and folder / media
    with pytest.raises(kind) as alone:
        agent.ask(path, question, at_s=at_s)
    with pytest.raises(kind) as caught:
        pipeline.ask(path, question, at_s=at_s)
    assert type(caught.value) is type(alone.value)
    assert (caught.value.message, caught.value.fix) == (alone.value.message, alone.value.fix)
    until(lambda: pipeline.load("mind")["mind"]["sessions"] == 0)


def test_too_many_sessions_are_refused_at_once(pipeline):
    for name in ("x", "y", "z"):
        pipeline._call("mind", "open", name)
    with pytest.raises(BusyError, match="3 sessions"):
        pipeline.ask(None, "what?")
    for name in ("x", "y", "z"):
        pipeline._call("mind", "close", name)
    assert pipeline.ask(None, "what?").text


# -- back-pressure and death ----------------------------------------------------------------------------------


def asking(pipeline: Pipeline, clip: str) -> tuple[threading.Thread, list]:
    """Ask in a thread; what comes of it is appended to the list."""
    outcome: list = []

    def ask() -> None:
        try:
            outcome.append(pipeline.ask(clip, QUESTIONS))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, outcome


def test_a_slow_mind_stops_the_decoding(pipeline, agent, long_clip):
    mind = pipeline.load("mind")["mind"]["pid"]
    source = partial(pipeline.load, "source", "perception")
    assert source()["source"]["in_flight"] == 0
    thread, outcome = asking(pipeline, long_clip)
    until(lambda: source()["source"]["in_flight"] > 0)
    os.kill(mind, signal.SIGSTOP)
    try:
        until(lambda: source()["source"]["in_flight"] == CREDITS)
        time.sleep(0.5)  # 30 windows would long be decoded
        held = source()
        assert held["source"]["in_flight"] == CREDITS
        assert held["perception"]["waiting"] <= CREDITS
        assert not outcome
    finally:
        os.kill(mind, signal.SIGCONT)
    thread.join(240)
    assert timeless(outcome[0]) == timeless(agent.ask(long_clip, QUESTIONS))
    assert source()["source"]["most_in_flight"] <= CREDITS * 3  # at most three clips were ever at once


@pytest.mark.parametrize("role", ["source", "perception", "mind"])
def test_a_dead_actor_is_a_clear_error_and_comes_back(pipeline, agent, long_clip, role):
    before = pipeline.load()
    mind = before["mind"]["pid"]
    thread, outcome = asking(pipeline, long_clip)
    until(lambda: pipeline.load("source")["source"]["in_flight"] > 0)
    os.kill(mind, signal.SIGSTOP)  # so that the question is surely in flight
    try:
        os.kill(before[role]["pid"], signal.SIGKILL)
        thread.join(240)
        assert not thread.is_alive()
    finally:
        if role != "mind":
            os.kill(mind, signal.SIGCONT)
    assert isinstance(outcome[0], RuntimeFault) and outcome[0].fix
    pipeline.wait_ready()
    assert pipeline.load(role)[role]["pid"] != before[role]["pid"]
    assert timeless(pipeline.ask(long_clip, QUESTIONS)) == timeless(agent.ask(long_clip, QUESTIONS))


# -- placement and start --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runtime", "words"), [
    ({"perception": {"gpus": 0.5}}, ["perception", "0.5 GPU"]),
    ({"mind": {"cpus": 4096}}, ["mind", "4096 CPU"]),
])
def test_what_no_node_has_is_named_at_once(pipeline, tmp_path, runtime, words):
    began_s = time.monotonic()
    with pytest.raises(PlacementError) as caught:
        Pipeline(random_bundle(tmp_path, runtime=runtime))
    assert time.monotonic() - began_s < 120
    assert all(word in caught.value.message for word in words) and "runtime" in caught.value.fix


def test_a_busy_cluster_is_named(pipeline, tmp_path):
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    free = ray.available_resources()["CPU"]
    taken = placement_group([{"CPU": free}])
    assert taken.wait(300)
    try:
        with pytest.raises(PlacementError, match="busy: 1 CPU are needed, 0 CPU came free"):
            Pipeline(random_bundle(tmp_path, runtime={"placement_timeout_s": 1}))
    finally:
        remove_placement_group(taken)


def test_placement_sums():
    with pytest.raises(PlacementError, match="no node has more than 1"):
        check_fits("mind", {"CPU": 2}, [{"CPU": 1}, {"CPU": 1}])
    check_fits("mind", {"CPU": 1, "GPU": 0.5}, [{"CPU": 1}, {"CPU": 1, "GPU": 1}])
    check_total({"a": {"CPU": 0.2}, "b": {"CPU": 0.4}, "c": {"CPU": 0.4}}, {"CPU": 1})
    with pytest.raises(PlacementError, match="a, b need 1.5 CPU together, the cluster has 1"):
        check_total({"a": {"CPU": 0.75}, "b": {"CPU": 0.75}}, {"CPU": 1})


def test_wrong_weights_are_told_from_inside_the_actor(pipeline, tmp_path):
    path = random_bundle(tmp_path)
    (tmp_path / "random" / "language.safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights at"):
        Pipeline(path)


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "a:b:c"])
def test_an_address_where_nothing_answers(address):
    began_s = time.monotonic()
    with pytest.raises(RuntimeFault, match="nothing answers|no address") as caught:
        connect(address.format(port=free_ports(1)[0]), "tiny")
    assert time.monotonic() - began_s < 60 and caught.value.fix


def test_a_job_servers_address_is_told_apart():
    with pytest.raises(RuntimeFault, match="takes jobs, not actors"):
        connect("http://127.0.0.1:8265")


@pytest.mark.parametrize(("runtime", "message"), [
    ({"credit": 3}, "unknown key 'runtime.credit' .did you mean 'credits'"),
    ({"mind": {"cpu": 1}}, "unknown key 'runtime.mind.cpu' .did you mean 'cpus'"),
    ({"clips": 0}, "runtime.clips: .*found 0"),
    ({"perception": {"batch": "many"}}, "runtime.perception.batch: .*found 'many'"),
])
def test_a_wrong_runtime_key_is_named(tmp_path, runtime, message):
    spec, _ = load_spec(random_bundle(tmp_path, runtime=runtime))
    with pytest.raises(ConfigError, match=message):
        read_runtime(spec)


def test_faults_keep_what_is_known():
    assert isinstance(as_fault(TimeoutError(), "mind"), RuntimeFault)
    assert "ValueError: no" in as_fault(ValueError("no"), "mind").message and as_fault(ValueError("no"), "mind").passing
    assert isinstance(as_fault(AttributeError("no such"), "mind"), DefectError)
    assert not as_fault(KeyError("k"), "mind").passing, "a program's mistake is not a part that comes back"
    error = MediaError("a", fix="b")
    assert as_fault(error, "source") is error


def test_nothing_stays_behind(pipeline):
    """Runs last: it ends the Ray of the tests above."""
    home = pipeline._cluster._folder
    started = processes_of(home)
    assert len(started) >= 5
    pipeline.close()
    _, alive = psutil.wait_procs(started, timeout=120)
    assert not alive and not home.exists()
    with pytest.raises(RuntimeFault, match="closed"):
        pipeline.ask(None, "what?")
