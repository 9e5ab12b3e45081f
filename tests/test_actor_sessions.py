"""Sessions over real Ray actors: what one process answers, whoever dies; detached, listed, and ended without a trace."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import ray

from actors import chaos, session_commands
from actors.cluster import psutil
from actors.session_parts import TRIP
from actors.sessions import LOST, Sessions
from actors.supervisor import resumed
from anymodal.errors import DefectError, MediaError, QuestionError, RuntimeFault, SessionError
from anymodal.session.feeder import SHED
from anymodal.session.log import Retention
from anymodal.session.sqlite_log import SqliteLog
from anymodal.testing import gradient_frame, gradient_levels, make_video
from anymodal.types import Answer, Delta, Packet

pytestmark = pytest.mark.timeout(900)  # a busy machine starts Ray slowly
QUESTION = "what colour is it?"


@pytest.fixture(scope="module")
def clip(folder):
    np.savez(folder / "clip.thermal.npz", frames=warmth(4 * 8)[..., 0], rate_hz=4.0)
    return str(make_video(folder / "clip.mp4", [gradient_frame(48, i) for i in range(4 * 8)], rate_hz=4))


def warmth(count: int) -> np.ndarray:
    return np.stack([gradient_levels(24, i) for i in range(count)])


@pytest.fixture(scope="module")
def sessions(bundle, folder):
    with Sessions(bundle, folder=folder / "logs") as running:
        yield running


def test_a_call_that_cannot_work_is_not_made_again_and_again(sessions):
    began_s = time.monotonic()
    with pytest.raises(DefectError, match="the supervisor failed: TypeError"):
        sessions.call("open", 3, None, {}, {})
    assert time.monotonic() - began_s < sessions.runtime.start_timeout_s / 3


def timeless(answer: Answer) -> Answer:
    """What must be the same again: a rebuilt state differs from the live one in the last bits only."""
    return replace(answer, ttft_s=0.0, stale_s=0.0, confidence=pytest.approx(answer.confidence, abs=1e-4))


def test_the_same_answers_as_in_one_process(sessions, agent, clip):
    here, there = agent.open(clip), sessions.open("same", clip)
    try:
        here.wait()
        assert there.wait() == here.windows == 8
        for at_s in (2.0, 8.0):
            assert timeless(there.ask(QUESTION, at_s=at_s)) == timeless(here.ask(QUESTION, at_s=at_s))
        for question in ("what is it?", "and after that?"):
            assert timeless(there.ask(question, dialogue="a")) == timeless(here.ask(question, dialogue="a"))
        pieces = list(there.stream(QUESTION))
        assert "".join(p.text for p in pieces[:-1]).strip() == pieces[-1].text and isinstance(pieces[-1], Answer)
    finally:
        here.close()


def test_16_bit_pictures_are_pushed_as_in_one_process(sessions, agent):
    streams = {"inside": "thermal", "outside": "thermal"}
    packets = [Packet(name, "thermal", i / 4, levels, 4.0) for i, levels in enumerate(warmth(12)) for name in streams]
    here, there = agent.open(streams=streams), sessions.open("pushed", streams=streams, retention=Retention(60.0))
    try:
        for packet in packets:
            here.push(packet)
        assert there.push(packets) == []
        (fault,) = there.push([Packet("inside", "thermal", 3.0, np.zeros((24, 24, 1), np.uint8), 4.0)])
        assert "its stream uint16 (24, 24, 1)" in str(fault)
        here.flush()
        there.flush()
        assert timeless(there.ask(QUESTION)) == timeless(here.ask(QUESTION))
    finally:
        here.close()


def test_errors_are_clear_and_harm_nothing(sessions, clip, folder):
    there = sessions.open("same", clip)
    with pytest.raises(QuestionError, match="has seen 8 s"):
        there.ask(QUESTION, at_s=99.0)
    with pytest.raises(QuestionError, match="empty"):
        there.ask(" ")
    with pytest.raises(SessionError, match="no session 'other'"):
        sessions.session("other").ask(QUESTION)
    with pytest.raises(MediaError):
        sessions.open("none", folder / "none.mp4").wait()
    sessions.call("close", "none")
    with pytest.raises(SessionError, match="no name"):
        sessions.open("../out", clip)
    assert there.ask(QUESTION).windows_seen == 8


@pytest.mark.parametrize("role", chaos.ROLES)
def test_any_part_may_die_while_it_is_asked_and_fed(sessions, agent, clip, role):
    with agent.open(clip) as here:
        here.wait()
        wanted = timeless(here.ask(QUESTION, at_s=2.0))
    there = sessions.open(f"dies-{role}", clip)
    chaos.until_seen(there, 2)
    outcome: list = []
    asking = threading.Thread(target=lambda: outcome.append(there.ask(QUESTION, at_s=2.0)))
    os.kill(sessions.ready()[role], signal.SIGKILL)
    asking.start()
    asking.join(900)
    assert timeless(outcome[0]) == wanted
    assert there.wait() == 8
    assert timeless(there.ask(QUESTION, at_s=2.0)) == wanted


def test_chaos_finds_nothing_lost_or_different(sessions, bundle):
    toll = chaos.run(sessions, str(bundle), 3, seed=3, seconds=3 * TRIP)
    report = toll.to_json()
    assert report["kills"] == 3 and report["answers_compared"] >= 5 * 2 * 3
    assert toll.harmless, report
    stored = [row["after_window"] for row in report["by_kill"]]
    assert min(stored) > 0 and sum(n < 3 * TRIP for n in stored) >= 2, "while windows came in"
    assert 0 < report["recovery_p50_s"] <= report["recovery_p95_s"]


def frames(sessions, count: int) -> list[Packet]:
    size = sessions.spec.modalities["video"].size_px
    return [Packet("video", "video", i / 4, gradient_frame(size, i), 4.0) for i in range(count)]


@pytest.mark.parametrize("role", ["perception", "mind", "supervisor"])
def test_any_part_may_die_while_packets_are_pushed(sessions, agent, role):
    """Each window is there as it was seen, or is a gap; the same frames are in no other one."""
    given, streams = frames(sessions, 4 * 30), {"video": "video"}
    with agent.open(streams=streams) as here:
        for packet in given:
            here.push(packet)
        here.flush()
        wanted = list(here.log.windows())
    there, pid = sessions.open(f"pushed-{role}", live=True, streams=streams, stale_s=999), sessions.ready()[role]
    first, failed = random.Random(role).randrange(20, 60), 0
    last = first + 16  # four seconds at once: some of them are not stored yet when it dies
    for piece in (*([p] for p in given[:first]), given[first:last], *([p] for p in given[last:])):
        try:
            assert there.push(piece) == []
        except RuntimeFault:
            failed += 1
            sessions.ready()
        if len(piece) > 1:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    there.flush()
    log = chaos.log_of(sessions, there.name)
    sessions.call("close", there.name)
    with SqliteLog.read(log) as stored:
        found = list(stored.windows())
    assert [p.index for p in found] == list(range(len(wanted))), "none is missing, and none twice"
    seen = [(p, w) for p, w in zip(found, wanted, strict=True) if not p.gap]
    assert len(seen) > 10 and failed <= (role == "supervisor")
    assert all(bool(p.gap) != bool(p.tokens) for p in found)
    assert {p.gap for p in found} - {"", SHED} == ({f"supervisor: {LOST}"} if role == "supervisor" else set())
    whole = [(p, w) for p, w in seen if p.frames == w.frames]
    assert len(seen) - len(whole) <= 1, "the one that was under way"
    assert all(np.allclose(p.tokens[0].embeds, w.tokens[0].embeds, atol=1e-3) for p, w in whole)
    assert sum(p.frames + p.dropped for p in found) <= len(given)


def test_what_a_live_source_missed_is_a_gap(sessions):
    fit = frames(sessions, 60)
    live = sessions.open("live", live=True)
    assert live.push(fit[:16]) == []
    chaos.until_seen(live, 2)
    os.kill(sessions.ready()["supervisor"], signal.SIGKILL)
    sessions.ready()
    live.push(fit[40:])
    live.flush()
    answer = live.ask(QUESTION)
    assert live.windows == 15 and answer.windows_missing >= 4


def test_a_session_outlives_its_driver_and_is_listed_and_stopped(sessions, bundle, clip, folder, capsys):
    address = ray.get_runtime_context().gcs_address
    code = ("import sys, time; from actors.sessions import Sessions; "
            "Sessions(sys.argv[1], sys.argv[2]).open('left', sys.argv[3]); print('open', flush=True); time.sleep(999)")
    driver = subprocess.Popen([sys.executable, "-c", code, str(bundle), address, clip], stdout=subprocess.PIPE, text=True)
    assert driver.stdout.readline() == "open\n"
    driver.kill()
    driver.wait(300)
    assert sessions.session("left").wait() == 8
    assert session_commands.ps(["--address", address, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"same", "live", "left"} <= {row["session"] for row in rows}
    assert session_commands.stop(["--address", address, "nobody"]) == 2
    assert session_commands.stop(["--address", address, "same", "--forget"]) == 0
    assert "same" not in {row["session"] for row in sessions.list()} and not (folder / "logs" / "same.session").exists()
    sessions.session("live").forget()
    assert "live" not in sessions.call("names")
    pids = sessions.ready()
    assert session_commands.stop(["--address", address, "--all"]) == 0
    deadline_s = time.monotonic() + 120  # a killed process takes a moment to be gone
    while (alive := [p for p in pids.values() if psutil.pid_exists(p)]) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert not alive, "no part is left behind"
    assert session_commands.ps(["--address", address]) == 0 and "no sessions" in capsys.readouterr().out


# -- an answer that is begun again ------------------------------------------------------------------------------------


def told(*attempts):
    """Attempts at an answer, each a list of texts and errors."""
    left = list(attempts)

    def attempt():
        for item in left.pop(0):
            if isinstance(item, Exception):
                raise item
            yield Delta(item) if isinstance(item, str) else item

    return attempt


def test_text_that_was_given_is_not_given_twice():
    end, died = Answer("q", "one two three", 0.5), RuntimeFault("died")
    pieces = list(resumed(told(["one", " two", died], [died], ["one t", "wo th", "ree", end]), lambda: None, 60.0))
    assert [p.text for p in pieces] == ["one", " two", " th", "ree", "one two three"]


def test_another_text_the_second_time_is_an_error():
    with pytest.raises(RuntimeFault, match="differently"):
        list(resumed(told(["one two", RuntimeFault("died")], ["else"]), lambda: None, 60.0))


def test_a_mistake_of_the_program_is_told_at_once():
    left = told([DefectError("KeyError: 'k'")], ["one"])
    with pytest.raises(DefectError):
        list(resumed(left, lambda: None, 60.0))
    assert [p.text for p in left()] == ["one"], "it was not tried again"


def test_patience_ends():
    began_s = time.monotonic()
    with pytest.raises(RuntimeFault, match="died"):
        list(resumed(told(*([RuntimeFault("died")] for _ in range(100))), lambda: None, 0.3))
    assert time.monotonic() - began_s < 60
