"""A supervisor and its sessions, on parts that die at chosen moments: without Ray, so that every moment can be chosen."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.session_parts import ROLES, TRIP
from actors.supervisor import Supervisor
from actors.testing import LocalParts
from anymodal.agent import load
from anymodal.errors import AnymodalError, FencedError, LogError, MediaError, PacketError, RuntimeFault, SessionError
from anymodal.language.judging import Judgement
from anymodal.language.mind import Mind
from anymodal.media import open_media
from anymodal.media.spec import stream_specs
from anymodal.session.log import Retention, Turn
from anymodal.session.sqlite_log import SqliteLog, forget
from anymodal.stages.perceive import BATCH, LIVE_BATCH
from anymodal.testing import gradient_frame, make_video
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta, Packet

pytestmark = pytest.mark.timeout(900)
QUESTION, WINDOWS = "what colour is it?", 2 * TRIP + 2


@pytest.fixture(scope="module")
def bundle(folder):
    return str(random_bundle(folder, runtime={"mind": {"threads": 1}, "perception": {"threads": 1}}))


@pytest.fixture(scope="module")
def clip(folder):
    return str(make_video(folder / "clip.mp4", [gradient_frame(48, i) for i in range(4 * WINDOWS)], rate_hz=4))


@pytest.fixture(scope="module")
def alone(bundle, clip):
    """The windows and answers of one process: (windows, {as of when: answer})."""
    with load(bundle, threads=1).open(clip) as session:
        session.wait()
        answers = {at_s: plain(session.ask(QUESTION, at_s=at_s)) for at_s in (3.0, float(WINDOWS))}
        return list(session.log.windows()), answers


@pytest.fixture
def supervising(tmp_path):
    """supervising(bundle) -> a supervisor of the same folder, whose sessions and hosts end with the test."""
    made = []

    def make(bundle: str) -> Supervisor:
        made.append(Supervisor(bundle, str(tmp_path / "logs"), LocalParts))
        return made[-1]

    yield make
    for each in made:
        for row in each.list():
            each.close(row["session"])
        each._parts.close()


@pytest.fixture
def supervisor(supervising, bundle):
    return supervising(bundle)


def plain(answer: Answer) -> Answer:
    return replace(answer, ttft_s=0.0, stale_s=0.0, confidence=pytest.approx(answer.confidence, abs=1e-4))


def ask(supervisor: Supervisor, name: str, at_s: float | None = None) -> Answer:
    supervisor.begin("asking", name, QUESTION, at_s, None, 0.0)
    while not isinstance(piece := supervisor.next("asking"), Answer):
        assert piece is not None
    assert supervisor.next("asking") is None
    return plain(piece)


def wait(supervisor: Supervisor, name: str) -> int:
    deadline_s = time.monotonic() + 600
    while (seen := supervisor.watched(name))[1]:
        assert time.monotonic() < deadline_s
    return seen[0]


def check(supervisor: Supervisor, name: str, alone: tuple) -> None:
    """The session's log and answers are those of one process."""
    windows, answers = alone
    assert wait(supervisor, name) == WINDOWS
    log = supervisor.list()[[row["session"] for row in supervisor.list()].index(name)]["log"]
    with SqliteLog.read(log) as found:
        for a, b in zip(found.windows(), windows, strict=True):
            assert (a.index, a.frames, a.gap) == (b.index, b.frames, b.gap)
            assert all(np.array_equal(x.embeds, y.embeds) for x, y in zip(a.tokens, b.tokens, strict=True))
    for at_s, wanted in answers.items():
        assert ask(supervisor, name, at_s) == wanted


def test_nothing_dies(supervisor, clip, alone):
    supervisor.open("a", clip, {}, {})
    check(supervisor, "a", alone)
    supervisor.open("a", clip, {}, {})
    assert wait(supervisor, "a") == WINDOWS, "it is done already"
    assert supervisor._parts.calls["mind", "open"] == 1


@pytest.mark.parametrize(("role", "method"), [
    ("source", "open"), ("source", "next"), ("perception", "encode"), ("mind", "open"), ("mind", "extend"),
    ("mind", "begin"), ("mind", "next")])
def test_a_part_dies_as_it_is_called(supervisor, clip, alone, role, method):
    parts, left = supervisor._parts, [0, 2]  # how many calls of it go well before each death

    def before(*called: str) -> None:
        if called == (role, method) and left:
            left[0] -= 1
            if left[0] < 0:
                left.pop(0)
                parts.kill(role)

    parts.before = before
    supervisor.open("a", clip, {}, {})
    check(supervisor, "a", alone)
    check(supervisor, "a", alone)
    assert len(left) < 2, "it never died"


def test_no_part_waits_for_another(supervisor, clip):
    parts, sent = supervisor._parts, []

    def before(*called: str) -> None:
        if called in (("mind", "open"), ("mind", "extend")):  # a trip is stored
            deadline_s = time.monotonic() + 60
            while not sent and parts.calls["perception", "encode"] < 2 and time.monotonic() < deadline_s:
                time.sleep(0.005)
            sent.append(parts.calls["perception", "encode"])

    parts.before = before
    supervisor.open("a", clip, {}, {})
    assert wait(supervisor, "a") == WINDOWS
    assert sent[0] >= 2, "the next trip is sent while one is stored"
    assert len(sent) == parts.calls["perception", "encode"] == -(-WINDOWS // TRIP), "a call for each trip"


def test_live_windows_share_smaller_batches(supervisor, clip):
    supervisor.open("live", None, {}, {"live": True})
    with open_media(clip, stream_specs(supervisor._parts.spec.modalities)) as source:
        supervisor.push("live", list(source))
    supervisor.flush("live")
    assert supervisor.windows("live") == WINDOWS
    assert set(supervisor._parts._hosts["perception"]._inboxes) == {LIVE_BATCH}
    supervisor.open("file", clip, {}, {})
    wait(supervisor, "file")
    assert set(supervisor._parts._hosts["perception"]._inboxes) == {LIVE_BATCH, BATCH}


def test_an_answer_goes_on_while_nobody_fetches_it(supervisor, clip):
    supervisor.open("a", clip, {}, {})
    wait(supervisor, "a")
    wanted = ask(supervisor, "a")
    supervisor.begin("slow", "a", QUESTION, None, None, 0.0)
    pieces = [supervisor.next("slow")]
    answers, deadline_s = supervisor._parts._hosts["mind"]._answers, time.monotonic() + 60
    while not all(saying.done for saying in list(answers.values())) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    calls = supervisor._parts.calls["mind", "next"]
    while (piece := supervisor.next("slow")) is not None:
        pieces.append(piece)
    assert supervisor._parts.calls["mind", "next"] - calls <= 2, "all the rest came at once"
    assert plain(pieces[-1]) == wanted and "".join(p.text for p in pieces if isinstance(p, Delta)).strip() == wanted.text


def test_an_answer_that_nobody_fetches_is_let_go(supervisor, clip, monkeypatch):
    supervisor.open("a", clip, {}, {})
    wait(supervisor, "a")
    supervisor.begin("left", "a", QUESTION, None, None, 0.0)
    assert supervisor.next("left") is not None
    monkeypatch.setattr("actors.supervisor.ABANDONED_S", 0.0)
    assert ask(supervisor, "a").windows_seen == WINDOWS
    with pytest.raises(RuntimeFault, match="does not know this answer"):
        supervisor.next("left")


def test_what_has_not_changed_is_not_encoded_again_whoever_dies(supervisor, bundle, folder):
    still = str(make_video(folder / "still.mp4", [gradient_frame(48, 1)] * (4 * WINDOWS), rate_hz=4, options={"qp": "0"}))
    with load(bundle, threads=1).open(still, gate=True) as session:
        session.wait()
        alone = list(session.log.windows()), {4.0: plain(session.ask(QUESTION, at_s=4.0))}
    assert sum(bool(p.repeats) for p in alone[0]) >= WINDOWS - 3
    supervisor.open("plain", still, {}, {})
    assert wait(supervisor, "plain") == WINDOWS
    trips = -(-WINDOWS // TRIP)
    assert supervisor._parts.calls["perception", "encode"] == trips
    parts, left = supervisor._parts, [("perception", "encode_alone", 0), ("mind", "extend", 0), ("source", "next", 1)]

    def before(*called: str) -> None:
        for number, (role, method, well) in enumerate(left):
            if called == (role, method):
                left[number] = role, method, well - 1
                if not well:
                    parts.kill(role)

    parts.before = before
    supervisor.open("gated", still, {}, {"gate": True})
    check(supervisor, "gated", alone)
    assert all(well < 0 for _, _, well in left), "some part never died"
    assert supervisor._parts.calls["perception", "encode"] == trips, "nothing went there before the gate"
    assert [dict(p.repeats) for p in supervisor._sessions["gated"].log.windows()] == [dict(p.repeats) for p in alone[0]]


def test_a_question_says_how_far_behind_it_was_answered(supervisor, clip):
    supervisor.open("a", clip, {}, {})
    wait(supervisor, "a")
    supervisor._sessions["a"]._arrived_s = WINDOWS + 2.5  # more has come in
    assert supervisor.begin("asking", "a", QUESTION, None, None, 0.0) == WINDOWS
    while not isinstance(piece := supervisor.next("asking"), Answer):
        pass
    assert piece.stale_s == 2.5 and piece.last_window == WINDOWS - 1


def test_rules_are_judged_whoever_dies(supervisor, clip, monkeypatch):
    def judge(mind, state, prompts, *, evidence=False):
        return [Judgement(0.9 if state.memory.last_window in (2, 3, 6) else 0.1) for _ in prompts]

    monkeypatch.setattr(Mind, "judge", judge)
    supervisor.open("a", None, {}, {})
    rule = supervisor.rule("a", "add", "tell me when a red circle appears")
    parts, left = supervisor._parts, [2]

    def before(*called: str) -> None:
        if called == ("mind", "judge"):
            left[0] -= 1
            if left[0] == 0:
                parts.kill("mind")

    parts.before = before
    supervisor.open("a", clip, {}, {})
    assert wait(supervisor, "a") == WINDOWS and left[0] < 0
    assert [r.name for r in supervisor.rule("a", "list")] == [rule.name]
    parts.before = lambda *_: None
    supervisor.open("unkilled", None, {}, {})
    supervisor.rule("unkilled", "add", "tell me when a red circle appears")
    supervisor.open("unkilled", clip, {}, {})
    wait(supervisor, "unkilled")
    assert [(e.rule, e.t_s) for e in supervisor.events("a", None)] == [(rule.name, 2.0), (rule.name, 6.0)]
    assert supervisor.events("a", None) == supervisor.events("unkilled", None), "each event once, and none lost"
    with pytest.raises(SessionError, match="no action"):
        supervisor.rule("a", "close")


def test_parts_die_at_any_time_and_another_session_goes_on(supervisor, clip, alone):
    supervisor.open("a", clip, {}, {})
    supervisor.open("b", clip, {}, {})
    ended = threading.Event()

    def kill() -> None:
        rng = np.random.default_rng(7)
        for _ in range(6):
            time.sleep(float(rng.uniform(0.01, 0.3)))
            supervisor._parts.kill(str(rng.choice(ROLES)))
        ended.set()

    threading.Thread(target=kill, daemon=True).start()
    assert ended.wait(600)
    check(supervisor, "a", alone)
    check(supervisor, "b", alone)


def test_another_supervisor_takes_over(supervisor, supervising, bundle, clip, alone):
    supervisor.open("a", clip, {}, {})
    while supervisor.watched("a")[0] < 3:
        pass
    folder = Path(supervisor.list()[0]["log"]).parent
    check(supervising(bundle), "a", alone)
    log = supervisor._sessions["a"].log
    with pytest.raises(FencedError):
        log.append_window(replace(alone[0][-1], session=log.info.session))
    assert json.loads(next(folder.glob("open-*.json")).read_text()) == {"a": {}}


def test_media_that_is_gone_when_a_supervisor_takes_over(supervisor, supervising, bundle, clip, alone, tmp_path):
    moved = Path(shutil.copy(clip, tmp_path / "moved.mp4"))

    def before(*called: str) -> None:
        if called == ("mind", "extend"):
            while (feeder := supervisor._sessions["a"]._feeder) is None:
                time.sleep(0.001)
            feeder.stop()  # after the windows in its hands

    supervisor._parts.before = before
    supervisor.open("a", str(moved), {}, {})
    assert 2 <= wait(supervisor, "a") < WINDOWS
    moved.unlink()
    successor = supervising(bundle)
    with pytest.raises(MediaError):
        wait(successor, "a")
    (row,) = successor.list()
    assert "moved.mp4" in row["error"] and row["windows"] >= 2
    assert ask(successor, "a").windows_seen == row["windows"]  # what was seen can be asked about
    shutil.copy(clip, moved)
    successor.open("a", str(moved), {}, {})
    check(successor, "a", alone)


def test_a_log_of_another_bundle_is_refused(supervisor, supervising, clip, tmp_path):
    supervisor.open("a", clip, {}, {})
    wait(supervisor, "a")
    supervisor.close("a")
    other = random_bundle(tmp_path, name="other", seed=1)
    with pytest.raises(LogError, match="another bundle"):
        supervising(str(other)).open("a", clip, {}, {})


def test_an_answer_that_did_not_arrive_is_kept_once(supervisor, supervising, bundle, clip):
    def answer(of: Supervisor, key: str) -> Answer:
        of.begin("asking", "a", QUESTION, float(WINDOWS), "d", 0.0, key)
        while not isinstance(piece := of.next("asking"), Answer):
            pass
        return piece

    supervisor.open("a", clip, {}, {})
    wait(supervisor, "a")
    first = answer(supervisor, "one")
    successor = supervising(bundle)  # the first died with the answer in its hands, and who asked asks again
    assert plain(answer(successor, "one")) == plain(first), "it is not an earlier turn of itself"
    answer(successor, "two")
    turns = list(successor._sessions["a"].log.entries(Turn))
    assert [t.asking for t in turns] == ["one", "two"] and turns[0].text == first.text


# -- forgetting -------------------------------------------------------------------------------------------------------


def test_a_log_that_a_supervisor_has_open_is_forgotten_by_it_alone(supervisor, clip):
    supervisor.open("a", clip, {}, {})
    wait(supervisor, "a")
    log = Path(supervisor.list()[0]["log"])
    with pytest.raises(LogError, match="would go on without it") as caught:
        forget(log)
    assert caught.value.fix == "anymodal stop a --forget"
    assert ask(supervisor, "a").windows_seen == WINDOWS, "it was not harmed"
    supervisor.forget("a")
    assert supervisor.list() == [] and [p.name for p in log.parent.iterdir()] == [supervisor._register.name]
    assert json.loads(supervisor._register.read_text()) == {}
    supervisor.open("b", clip, {}, {})
    supervisor.close("b")
    assert forget(supervisor._path("b")), "nobody has it open any more"


def test_a_log_of_a_supervisor_that_was_killed_is_forgotten(supervisor, supervising, bundle, clip, tmp_path):
    supervisor.open("a", clip, {}, {})
    wait(supervisor, "a")
    left = tmp_path / "left.session"
    for end in ("", "-wal"):
        shutil.copy(f"{supervisor._path('a')}{end}", f"{left}{end}")
    assert left in forget(left)
    forget(supervisor._path("a"), force=True)
    assert "is gone" in supervisor.list()[0]["error"]
    assert supervising(bundle).list() == [], "what was forgotten is not missed"


def test_what_a_log_may_drop_outlives_the_supervisor(supervisor, supervising, bundle):
    supervisor.open("a", None, {}, {"retention": {"age_s": 5.0, "size_bytes": None}})
    supervisor.open("b", None, {}, {})
    for each in (supervisor, supervising(bundle)):
        assert each._sessions["a"].log._retention == Retention(age_s=5.0)
        assert each._sessions["b"].log._retention == Retention()


def test_an_opening_that_fails_leaves_nothing_behind(supervisor, clip):
    for media, options in (("none.mp4", {}), (None, {"streams": {"x": "smell"}}), (None, {"stale_s": -1.0})):
        with pytest.raises(AnymodalError):
            supervisor.open("a", media, {}, options)
        assert supervisor.names() == []
    supervisor.open("a", None, {}, {})
    supervisor.rule("a", "add", "tell me when a bell rings")
    with pytest.raises(MediaError):
        supervisor.open("a", "none.mp4", {}, {})
    assert len(supervisor.rule("a", "list")) == 1, "it was there before"


def test_a_bad_packet_among_others_is_told_and_the_rest_is_kept(supervisor):
    supervisor.open("a", None, {}, {"streams": {"video": "video"}})
    size = supervisor._parts.spec.modalities["video"].size_px
    good = [Packet("video", "video", i / 4, gradient_frame(size, i), 4) for i in range(8)]
    bad = [replace(good[3], pts_s=None), "packet"]
    assert [type(e) for e in supervisor.push("a", [*good[:3], *bad, *good[3:]])] == [PacketError] * 2
    with pytest.raises(SessionError, match="no end to wait for"):
        supervisor.watched("a")
    supervisor.flush("a")
    assert wait(supervisor, "a") == 2 and ask(supervisor, "a").frames_seen == 8
    assert sum(p.dropped for p in supervisor._sessions["a"].log.windows()) == 1
    supervisor.close("a")
    with pytest.raises(SessionError, match="no session 'a'"):
        supervisor.push("a", good)
