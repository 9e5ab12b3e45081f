"""Sessions in one process: fed and asked at once, cancelled, closed, killed and reopened, on a bundle of random weights."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from anymodal.agent import load
from anymodal.errors import ConfigError, FencedError, LogError, MediaError, PacketError, QuestionError, SessionError
from anymodal.media.spec import stream_specs
from anymodal.session.feeder import MOST_WAITING, Feeder
from anymodal.session.log import Retention, Turn
from anymodal.session.sqlite_log import SqliteLog, forget
from anymodal.testing import FakeClock, gradient_frame, make_video, slowed, synthetic_packets
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta, Packet

SECONDS = 12
QUESTION = "what colour is it?"
LONG_S = 300.0  # a wait that only a broken test comes to the end of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("session")


@pytest.fixture(scope="module")
def bundle(folder):
    """With a memory so small that half a minute is compacted."""
    path = random_bundle(folder)
    raw = yaml.safe_load(path.read_text())
    raw["memory"] = {"budget_tokens": 190, "slices": 1}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def agent(bundle):
    return load(bundle)


def video(path: Path, seconds: float, first: int = 0) -> Path:
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * 44100)) / 44100)
    frames = [gradient_frame(32, first + i) for i in range(int(seconds * 8))]
    return make_video(path, frames, rate_hz=8, audio=sound.astype(np.float32),
                      options={"preset": "ultrafast", "threads": "1"})


@pytest.fixture(scope="module")
def clip(folder):
    return video(folder / "clip.mp4", SECONDS)


@pytest.fixture(scope="module")
def long_clip(folder):
    return video(folder / "long.mp4", 40, first=7)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "s.db"


def timeless(answer: Answer) -> Answer:
    """What must be the same again: a rebuilt state differs from the live one in the last bits only."""
    return replace(answer, ttft_s=0.0, stale_s=0.0, confidence=pytest.approx(answer.confidence, abs=1e-4))


def packets(agent, seconds: float, seed: int = 0) -> list[Packet]:
    return list(synthetic_packets(stream_specs(agent.spec.modalities), seconds, seed))


def contents(path: Path) -> list:
    with SqliteLog.read(path) as log:
        return [(p.index, p.t0_s, p.frames, p.dropped, p.gap,
                 [(t.stream, t.t0_s, t.embeds.tolist(), t.joint.tolist()) for t in p.tokens]) for p in log.windows()]


# -- feeding and asking -------------------------------------------------------------------------------------------

def test_a_session_answers_as_a_pass_over_the_clip_does(agent, clip):
    with agent.open(clip) as session:
        session.wait()
        answer = session.ask(QUESTION)
        asked = agent.ask(clip, QUESTION)
        assert timeless(replace(answer, last_window=None)) == timeless(asked)
        assert (answer.windows_seen, answer.last_window, answer.windows_missing) == (SECONDS, SECONDS - 1, 0)
        early = session.ask(QUESTION, at_s=5.5)
        assert early.text == agent.ask(clip, QUESTION, at_s=5.5).text != answer.text
        assert (early.windows_seen, early.last_window) == (5, 4)
        assert early.to_json()["last_window"] == 4 and "last_window" not in asked.to_json()


def test_it_answers_while_it_watches_and_as_of_then_ever_after(agent, long_clip, log):
    """Whatever was answered under way is answered again as of that time, at once, later, and by a rebuilt session."""
    under_way: list[Answer] = []
    errors: list[Exception] = []

    def keep_asking(session) -> None:
        try:
            while session.windows < 40:
                under_way.append(session.ask(QUESTION))
        except Exception as error:
            errors.append(error)

    with agent.open(long_clip, log=log) as session:
        askers = [threading.Thread(target=keep_asking, args=(session,)) for _ in range(3)]
        for asker in askers:
            asker.start()
        session.wait()
        for asker in askers:
            asker.join(LONG_S)
        assert not errors and session.windows == 40
        seen = {a.last_window: a for a in under_way}
        assert len(seen) > 3 and len({a.text for a in seen.values()}) > 1
        live = {w: session.ask(QUESTION, at_s=w + 1.0) for w in (-1, *range(0, 40, 3))}
        asked = list(session.log.entries(Turn))
        assert len(asked) == len(under_way) + len(live) and {t.at_s for t in asked} >= {40.0, 1.0}
    with agent.reopen(log) as again:
        for window, answer in {**seen, **live}.items():
            assert timeless(again.ask(QUESTION, at_s=window + 1.0)) == timeless(answer), window
        assert again._state_at(None).exact_from_s > 0  # the memory was compacted


def test_several_questions_stream_at_once(agent, clip):
    with agent.open(clip) as session:
        session.wait()
        alone = [session.ask(q).text for q in ("what?", "where?", "who?")]
        streams = [session.stream(q) for q in ("what?", "where?", "who?")]
        texts = ["", "", ""]
        running = set(range(3))
        while running:  # a piece of each in turn
            for i in sorted(running):
                piece = next(streams[i])
                if isinstance(piece, Answer):
                    assert texts[i].strip() == piece.text == alone[i] and piece.ttft_s > 0
                    assert next(streams[i], None) is None
                    running.discard(i)
                else:
                    texts[i] += piece.text


def test_media_one_after_the_other(agent, clip, folder, monkeypatch):
    short = video(folder / "short.mp4", 3, first=50)
    with agent.open() as session:
        go, taken = threading.Event(), session._take
        monkeypatch.setattr(session, "_take", lambda batch: go.wait(LONG_S) and taken(batch))
        session.feed(clip)
        for feed in (lambda: session.feed(short), lambda: session.push(packets(agent, 1)[0])):
            with pytest.raises(SessionError, match="is being fed from .*clip.mp4"):
                feed()
        go.set()
        session.wait()
        session.feed(short)
        session.wait()
        windows = list(session.log.windows(SECONDS - 1))
        assert [(p.index, p.t0_s) for p in windows] == [(11, 11.0), (12, 12.0), (13, 13.0), (14, 14.0)]
        assert [t.t0_s for t in windows[1].tokens] == [12.0, 12.0]
        for again in (clip, short, None):  # all of it has been seen
            session.feed(again)
            session.wait()
        assert session.windows == SECONDS + 3
    with agent.open(short) as alone:
        alone.wait()
        for a, b in zip(alone.log.windows(), windows[1:]):
            assert all(np.array_equal(x.embeds, y.embeds) for x, y in zip(a.tokens, b.tokens, strict=True))


def test_media_that_cannot_be_read(agent, folder, clip, log):
    with agent.open(log=log) as session:
        with pytest.raises(MediaError):
            session.feed(folder / "none.mp4")
        with pytest.raises(SessionError, match="names nothing to go on with"):
            session.feed()
        session.feed(clip)
        session.wait()
        assert session.windows == SECONDS
    with pytest.raises(MediaError):
        agent.open(folder / "none.mp4")


# -- times --------------------------------------------------------------------------------------------------------

def test_a_time_that_has_not_come(agent, clip):
    with agent.open() as session:
        with pytest.raises(QuestionError, match="as of 1 s: the session has seen 0 s so far"):
            session.ask(QUESTION, at_s=1.0)
        with pytest.raises(QuestionError, match="has seen 0 s"):
            session.ask(QUESTION, at_s=1.0, wait_s=0.05)
        session.feed(clip)
        waited = session.ask(QUESTION, at_s=9.3, wait_s=LONG_S)
        assert waited.last_window == 8
        with pytest.raises(QuestionError, match=r"has seen 12 s so far \(give a time from 0 to 12, or feed more\)"):
            session.ask(QUESTION, at_s=13.0, wait_s=10 * LONG_S)  # at once: nothing comes
        assert session.ask(QUESTION, at_s=12.9).last_window == 11


@pytest.mark.parametrize("at_s", [-1.0, float("nan"), float("inf"), "3"])
def test_a_time_that_is_none(agent, at_s):
    with agent.open() as session:
        with pytest.raises(QuestionError, match="begins at 0"):
            session.ask(QUESTION, at_s=at_s)
        with pytest.raises(QuestionError, match="cannot wait for None s"):
            session.ask(QUESTION, wait_s=None)


def test_a_search_for_nothing(agent):
    with agent.open() as session, pytest.raises(QuestionError, match="cannot search for None"):
        session.search(None)


@pytest.mark.parametrize("question", ["", "   ", 3, "why? " * 1000])
def test_a_question_that_is_none(agent, question):
    with agent.open() as session, pytest.raises(QuestionError):
        session.stream(question)


# -- dialogue -----------------------------------------------------------------------------------------------------

def test_a_dialogue_reads_its_own_earlier_turns(agent, clip, log):
    with agent.open(clip, log=log) as session:
        session.wait()
        plain = session.ask(QUESTION).text
        assert session.ask(QUESTION, dialogue="a").text == plain  # its first question
        second = session.ask(QUESTION, dialogue="a").text
        assert second != plain == session.ask(QUESTION, dialogue="b").text == session.ask(QUESTION).text
        third = session.ask("and then?", dialogue="a")
        assert session.ask(QUESTION, dialogue="a", at_s=3.0).text == session.ask(QUESTION, at_s=3.0).text
    with agent.reopen(log) as again:
        kept = [t for t in again.log.entries(Turn) if t.dialogue == "a"]
        assert [t.text for t in kept[:3]] == [plain, second, third.text]
        before = len(list(again.log.entries(Turn)))
        again.ask(QUESTION, dialogue="a")
        assert len(list(again.log.entries(Turn))) == before + 1


# -- cancelling and closing ---------------------------------------------------------------------------------------

def test_a_cancelled_answer_simply_ends(agent, clip, log):
    with agent.open(clip, log=log) as session:
        session.wait()
        asking = session.stream(QUESTION)
        assert isinstance(next(asking), Delta)
        asking.cancel()
        assert list(asking) == [] and asking.cancelled
        never = session.stream(QUESTION)
        never.cancel()
        assert list(never) == []
        assert list(session.log.entries(Turn)) == []
        assert session.ask(QUESTION).text


def test_cancelling_one_that_waits(agent):
    with agent.open() as session:
        asking = session.stream(QUESTION, at_s=5.0, wait_s=10 * LONG_S)
        timer = threading.Timer(0.2, asking.cancel)
        timer.start()
        assert list(asking) == []


def test_closing_ends_what_is_running(agent, long_clip, log):
    session = agent.open(long_clip, log=log)
    asking = session.stream(QUESTION)
    next(asking)
    waiting: list[Exception] = []

    def wait() -> None:
        try:
            session.ask(QUESTION, at_s=1000.0, wait_s=10 * LONG_S)
        except Exception as error:
            waiting.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    session.close()
    session.close()
    waiter.join(LONG_S)
    assert isinstance(waiting[0], (SessionError, QuestionError, LogError))
    with pytest.raises(SessionError, match="closed"):
        list(asking)
    for use in (lambda: session.ask("what?"), lambda: session.feed(long_clip), session.flush,
                lambda: session.push(Packet("video", "video", 0.0, gradient_frame(32, 0), 4))):
        with pytest.raises(SessionError, match="closed"):
            use()
    with agent.reopen(log) as again:  # and the rest can still be seen
        assert again.windows < 41
        again.feed()
        again.wait()
        assert again.windows == 40


def test_a_session_without_a_log_leaves_nothing(agent, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with agent.open(clip) as session:
        session.wait()
        assert list(tmp_path.rglob("*.db"))
    assert list(tmp_path.iterdir()) == []


# -- reopening ----------------------------------------------------------------------------------------------------

CHILD = """
import sys
from anymodal.agent import load
session = load(sys.argv[1]).open(sys.argv[2], log=sys.argv[3])
while True:
    print(session.windows, flush=True)
    session.ask("what?")
"""


@pytest.mark.timeout(300)  # another process loads torch
def test_a_killed_process_loses_and_doubles_nothing(agent, bundle, long_clip, log, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(bundle), str(long_clip), str(log)],
                             stdout=subprocess.PIPE, text=True)
    with child:
        for line in child.stdout:
            if int(line) >= 5:
                child.send_signal(signal.SIGKILL)
                break
    with agent.reopen(log) as session:
        assert session.windows >= 5
        session.feed()
        session.wait()
        answers = [session.ask(QUESTION, at_s=t) for t in range(0, 41, 5)]
    with agent.open(long_clip, log=tmp_path / "whole.db") as unkilled:
        unkilled.wait()
        assert [timeless(unkilled.ask(QUESTION, at_s=t)) for t in range(0, 41, 5)] == list(map(timeless, answers))
    killed, whole = contents(log), contents(tmp_path / "whole.db")
    assert [row[:5] for row in killed] == [row[:5] for row in whole]  # each window once
    for row, other in zip(killed, whole):
        for (*about, embeds, joint), (*told, other_embeds, other_joint) in zip(row[5], other[5], strict=True):
            assert about == told
            np.testing.assert_array_equal(embeds, other_embeds)
            np.testing.assert_array_equal(joint, other_joint)


@pytest.mark.parametrize("windows", [0, 1, 4, 11, 12])
def test_a_feed_goes_on_where_the_log_ends(agent, clip, log, windows, monkeypatch):
    with agent.open(log=log) as session:
        taken = session._take

        def stop_early(batch) -> None:
            for item in batch:
                if session.windows == windows:
                    raise OSError("the wire was cut")
                taken([item])

        monkeypatch.setattr(session, "_take", stop_early)
        if windows == 12:  # all is seen, and the end not yet noted
            monkeypatch.setattr(session, "_take", taken)
            monkeypatch.setattr(Feeder, "_run", lambda self: [self._take(b) for b in self._batches])
        session.feed(clip)
        if windows < 12:
            with pytest.raises(OSError, match="cut"):
                session.wait()
        session.wait()
        assert session.windows == windows
        assert session.ask(QUESTION).last_window == windows - 1
    monkeypatch.undo()
    with agent.reopen(log) as session:
        session.feed()
        session.wait()
        assert session.windows == SECONDS
    with agent.open(clip, log=log.with_name("whole.db")) as whole:
        whole.wait()
    assert contents(log) == contents(log.with_name("whole.db"))


def test_a_feed_goes_on_behind_what_was_pushed_meanwhile(agent, clip, log):
    with agent.open(clip) as whole:
        whole.wait()
        alone = list(whole.log.windows())
    given, pushed = packets(agent, 3), []
    with agent.open(log=log) as session:
        taken, append = session._take, session.log.append
        for most in (5, 11):  # the second time within what was left
            session._take = lambda batch, most=most: [taken([item]) for item in batch if item[0].index < most]
            session.log.append = lambda entry: 0 if getattr(entry, "done", False) else append(entry)
            session.feed(clip)
            session.wait()
            session._take, session.log.append = taken, append
            for packet in given:
                session.push(replace(packet, pts_s=packet.pts_s + most))
            session.flush()
            pushed += range(most, session.windows)
    assert len(pushed) >= 6
    with agent.reopen(log) as session:
        for again in (None, clip):  # the second time all of it has been seen
            session.feed(again)
            session.wait()
        found = list(session.log.windows())
    assert [p.index for p in found] == list(range(SECONDS + len(pushed)))
    for a, b in zip([p for p in found if p.index not in pushed], alone, strict=True):
        assert all(np.array_equal(x.embeds, y.embeds) for x, y in zip(a.tokens, b.tokens, strict=True)), b.index


def test_another_writer_takes_the_session_over(agent, clip, log):
    with agent.open(log=log) as old, agent.reopen(log) as new:
        new.feed(clip)
        new.wait()
        with pytest.raises(FencedError, match="taken over"):
            old.ask(QUESTION)  # its turn cannot be kept
        old.push(Packet("video", "video", 12.0, gradient_frame(32, 0), 4))
        with pytest.raises(FencedError):
            old.flush()
        assert new.ask(QUESTION).windows_seen == SECONDS


@pytest.mark.parametrize("options", [{"streams": {"x": "smell"}}, {"stale_s": -1.0}])
def test_a_reopening_that_is_refused_takes_the_session_from_nobody(agent, clip, log, options):
    with agent.open(log=log) as writer:
        with pytest.raises((SessionError, ConfigError)):
            agent.reopen(log, **options)
        writer.feed(clip)
        writer.wait()
        assert writer.ask(QUESTION).windows_seen == SECONDS


def test_a_reader_follows_the_writer(agent, clip, log):
    with agent.open(log=log) as writer, agent.reopen(log, write=False) as reader:
        assert reader.ask(QUESTION).windows_seen == 0
        writer.feed(clip)
        writer.wait()
        assert timeless(reader.ask(QUESTION)) == timeless(writer.ask(QUESTION))
        assert len(list(writer.log.entries(Turn))) == 1
        with pytest.raises(SessionError, match="for reading only"):
            reader.feed(clip)


def test_a_reader_that_fell_behind_what_was_dropped(agent, long_clip, log):
    with agent.open(log=log, retention=Retention(age_s=5)) as writer, agent.reopen(log, write=False) as reader:
        assert reader.ask(QUESTION).windows_seen == 0
        writer.feed(long_clip)
        writer.wait()
        assert writer.log.first_window() > 0
        assert timeless(reader.ask(QUESTION)) == timeless(writer.ask(QUESTION))


def test_windows_that_were_merged_are_brought_back_and_no_others(agent, clip, long_clip):
    with agent.open(long_clip) as session:
        session.wait()
        memory = session._state_at(None).memory
        merged = {k for e in memory.entries if e.windows > 1 for k in range(e.first, e.last + 1)}
        assert merged
        for k in range(40):
            found = [p.index for p in session._recall.lost(f"what was there at {k} s?", memory, 9, last=39)]
            assert set(found) == {k - 1, k, k + 1} & merged
        assert session.ask(f"what was there at {min(merged)} s?").windows_seen == 40
    with agent.open(clip) as short:
        short.wait()
        assert short._recall.lost("what was there at 2 s?", short._state_at(None).memory, 9, last=11) == []


def test_logs_that_do_not_fit(agent, log, folder, tmp_path):
    agent.open(log=log).close()
    with pytest.raises(LogError, match="is there already"):
        agent.open(log=log)
    other = load(random_bundle(tmp_path, seed=1))
    with pytest.raises(LogError, match="written with another bundle"):
        other.reopen(log)
    with pytest.raises(LogError, match="no log at"):
        agent.reopen(tmp_path / "none.db")


@pytest.mark.parametrize(("media", "options"), [("none.mp4", {}), (None, {"streams": {"x": "smell"}}),
                                                (None, {"stale_s": -1.0})])
def test_an_opening_that_fails_leaves_no_log(agent, clip, log, media, options):
    with pytest.raises((MediaError, SessionError, ConfigError)):
        agent.open(media, log=log, **options)
    assert list(log.parent.iterdir()) == []
    agent.open(clip, log=log).close()
    with pytest.raises(LogError, match="is there already"):
        agent.open(media, log=log, **options)
    assert log.exists(), "another call had made it"


def test_the_identity_of_a_bundle(agent, bundle, tmp_path):
    same = load(bundle).bundle
    assert same.identity == agent.bundle.identity
    raw = yaml.safe_load(bundle.read_text())
    for key, value, differs in (("memory", {**raw["memory"], "budget_tokens": 210}, False), ("dtype", "bfloat16", True)):
        path = bundle.with_name("changed.yaml")
        path.write_text(yaml.safe_dump({**raw, key: value}))
        assert (load(path).bundle.identity != same.identity) == differs


def test_a_log_of_a_larger_memory_is_refused(agent, bundle, long_clip, log):
    raw, path, budget = yaml.safe_load(bundle.read_text()), bundle.with_name("budget.yaml"), 230
    assert agent.spec.memory.budget_tokens < budget

    def other(budget_tokens: int):
        path.write_text(yaml.safe_dump({**raw, "memory": {**raw["memory"], "budget_tokens": budget_tokens}}))
        return load(path)

    with other(budget).open(long_clip, log=log) as session:
        session.wait()
        assert any(e.windows > 1 for e in session._state_at(None).memory.entries)
    with pytest.raises(ConfigError, match=f"the log's memory has {budget}"):
        agent.reopen(log)
    for most in (budget, budget + 60):
        with other(most).reopen(log) as session:
            assert session.ask(QUESTION).windows_seen == session.windows == 40


def test_forgetting_a_session_that_is_open(agent, clip, log):
    with agent.open(clip, log=log) as session:
        session.wait()
        forget(log)
        for use in (lambda: session.ask(QUESTION), session.events):
            with pytest.raises(LogError, match="is gone: it was forgotten"):
                use()
    assert list(log.parent.iterdir()) == []


def test_retention_keeps_answers_possible(agent, long_clip, log):
    with agent.open(long_clip, log=log, retention=Retention(age_s=5)) as session:
        session.wait()
        first = session.log.first_window()
        answer = session.ask(QUESTION)
    with agent.reopen(log) as session:
        assert timeless(session.ask(QUESTION)) == timeless(answer)
        if first:
            with pytest.raises(LogError, match="dropped"):
                session.ask(QUESTION, at_s=1.0)


# -- pushed packets -----------------------------------------------------------------------------------------------

def test_packets_are_as_good_as_a_file(agent, log):
    with agent.open(log=log) as session:
        given = packets(agent, 4)
        for packet in given:
            session.push(packet)
        session.flush()
        assert session.windows == 4
        answer = session.ask(QUESTION)
        assert answer.frames_seen == 16 and answer.frames_dropped == 0
    with agent.open(log=log.with_name("np.db")) as of_numpy:
        for packet in given:
            of_numpy.push(replace(packet, pts_s=np.float32(packet.pts_s), rate_hz=np.int64(packet.rate_hz)))
        of_numpy.flush()
    assert contents(log) == contents(log.with_name("np.db"))
    with agent.open(log=log.with_name("b.db")) as shuffled:  # within the allowed lateness
        for packet in sorted(given, key=lambda p: p.pts_s + 0.7 * (p.stream == "audio")):
            shuffled.push(packet)
        shuffled.flush()
    assert contents(log) == contents(log.with_name("b.db"))


BAD = {
    "is at nan s": lambda p: replace(p, pts_s=float("nan")),
    "is at -5 s": lambda p: replace(p, pts_s=-5.0),
    "is at None, which is no time": lambda p: replace(p, pts_s=None),
    "is at '1', which is no time": lambda p: replace(p, pts_s="1"),
    "is at inf s": lambda p: replace(p, pts_s=10**400),
    "has None Hz, its stream 50 Hz": lambda p: Packet("imu", "imu", p.pts_s, np.zeros((10, 6), np.float32), None),
    "has 16000 Hz, its stream 50 Hz": lambda p: Packet("imu", "imu", p.pts_s, np.zeros((10, 6), np.float32), "16000"),
    r"is no packet .* \(push anymodal.Packet": lambda p: "packet",
    "is no packet of a stream": lambda p: replace(p, stream=["video"]),
    "more than 3600 s after": lambda p: replace(p, pts_s=1e6),
    "is of an unknown stream": lambda p: replace(p, stream="lidar"),
    "is audio, its stream is video": lambda p: replace(p, modality="audio"),
    r"is uint8 \(5, 5, 3\), its stream uint8 \(32, 32, 3\)": lambda p: replace(p, data=np.zeros((5, 5, 3), np.uint8)),
    "is float32": lambda p: replace(p, data=p.data.astype(np.float32)),
    "holds no data": lambda p: replace(p, data=np.zeros((0, 32, 3), np.uint8)),
    "has 8000 Hz, its stream 16000 Hz": lambda p: Packet("audio", "audio", p.pts_s, np.zeros(10, np.float32), 8000),
    r"is float32 \(10, 2\), its stream float32 \(T,\)":
        lambda p: Packet("audio", "audio", p.pts_s, np.zeros((10, 2), np.float32), 16000),
    "holds values that are no numbers":
        lambda p: Packet("audio", "audio", p.pts_s, np.full(10, np.inf, np.float32), 16000),
    r"is float32 \(10, 3\), its stream float32 \(T, 6\)":
        lambda p: Packet("imu", "imu", p.pts_s, np.zeros((10, 3), np.float32), 50),
}


def test_bad_packets_are_told_and_do_no_harm(agent, log):
    with agent.open(log=log) as session:
        given = packets(agent, 4)
        late = given.pop(next(i for i, p in enumerate(given) if p.stream == "audio" and p.pts_s == 0.4))
        for packet in given:
            session.push(packet)
            if packet.stream == "video" and packet.pts_s == 3.0:
                with pytest.raises(PacketError, match="at 0.4 s is too late"):
                    session.push(late)
                for message, spoil in BAD.items():
                    with pytest.raises(PacketError, match=message) as caught:
                        session.push(spoil(packet))
                    assert caught.value.fix and "fix" not in caught.value.message
        session.flush()
        assert session.ask(QUESTION).frames_dropped > 0
    with agent.open(log=log.with_name("clean.db")) as clean:
        for packet in given:
            clean.push(packet)
        clean.flush()
    spoilt, whole = contents(log), contents(log.with_name("clean.db"))
    assert [row[5] for row in spoilt] == [row[5] for row in whole] and len(spoilt) == 4


def test_streams_of_the_users_own_naming(agent):
    with agent.open(streams={"left": "video", "right": "video"}) as session:
        for i in range(9):
            for name in ("left", "right"):
                session.push(Packet(name, "video", i / 4, gradient_frame(32, i + 50 * (name == "right")), 4))
        session.flush()
        assert [t.stream for t in next(session.log.windows()).tokens] == ["left", "right"]
        assert session.ask(QUESTION).frames_seen == 18
    with pytest.raises(SessionError, match="'depth', which 'random' does not know"):
        agent.open(streams={"depth": "depth"})


def test_a_source_that_was_away_leaves_gaps(agent, log):
    with agent.open(log=log, live=True) as session:
        for packet in packets(agent, 2):
            session.push(packet)
        session.flush()
    with agent.reopen(log, live=True) as session:
        for packet in packets(agent, 2):
            session.push(replace(packet, pts_s=packet.pts_s + 5))
        with pytest.raises(PacketError, match="too late"):
            session.push(packet)
        session.flush()
        assert [bool(p.gap) for p in session.log.windows()] == [False] * 2 + [True] * 3 + [False] * 2
        answer = session.ask(QUESTION)
        assert (answer.windows_seen, answer.windows_missing, answer.last_window) == (7, 3, 6)


def test_a_long_absence_is_no_overload(agent):
    with agent.open(live=True, streams={"video": "video"}) as session:
        for i in (*range(5), *range(4 * 60, 4 * 60 + 5)):
            session.push(Packet("video", "video", i / 4, gradient_frame(32, i), 4))
        session.flush()
        assert {p.gap for p in session.log.windows()} == {"", "no signal"}


def test_what_is_pushed_has_no_end_to_wait_for(agent):
    with agent.open() as session:
        session.push(packets(agent, 1)[0])
        began_s = time.monotonic()
        with pytest.raises(SessionError, match=r"no end to wait for \(flush\(\)"):
            session.wait()
        assert time.monotonic() - began_s < LONG_S
        session.flush()
        session.wait()


def test_nothing_is_pushed_behind_a_flush(agent, monkeypatch):
    with agent.open(streams={"video": "video"}) as session:
        go, taken = threading.Event(), session._take
        monkeypatch.setattr(session, "_take", lambda batch: go.wait(LONG_S) and taken(batch))
        for i in range(5):
            session.push(Packet("video", "video", i / 4, gradient_frame(32, i), 4))
        flusher = threading.Thread(target=session.flush)
        flusher.start()
        late = Packet("video", "video", 1.25, gradient_frame(32, 5), 4)
        while session._pushes.going_on:
            time.sleep(0.01)
        with pytest.raises(SessionError, match="is being fed from pushed packets"):
            session.push(late)
        go.set()
        flusher.join(LONG_S)
        assert session.windows == 2


def test_a_silent_live_stream_is_not_waited_for(agent):
    clock = FakeClock()
    with agent.open(live=True, idle_timeout_s=5.0) as session:
        session._pushes.clock = clock
        for packet in packets(agent, 3):
            if packet.stream == "video" and packet.pts_s < 1.6:
                session.push(packet)
        assert session.windows == 0  # audio and imu may still come
        clock.advance(6)
        stale = session.ask(QUESTION, at_s=2.0, wait_s=LONG_S)
        assert stale.last_window == 1
        assert not session.log.gaps(1)


class Held:
    """Lets one batch after another wait for the test's word."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def wait(self):
        self.begun.set()
        assert self.go.wait(LONG_S)


def test_a_busy_live_session_sheds_the_oldest(agent):
    held = Held()
    with slowed(agent, held.wait).open(live=True, streams={"video": "video"}) as session:
        session._pushes.clock = FakeClock()  # nothing gets stale
        for i in range(4 * 40 + 1):
            session.push(Packet("video", "video", i / 4, gradient_frame(32, i), 4))
            assert i != 4 or held.begun.wait(LONG_S)  # the first window is being seen
        busy = session.ask(QUESTION)
        assert busy.last_window == -1 and busy.stale_s == 40.25
        held.go.set()
        session.flush()
        gaps = [p.index for p in session.log.windows() if p.gap]
        assert gaps == list(range(1, gaps[-1] + 1)) and session.windows in (40, 41)
        assert MOST_WAITING <= session.windows - 1 - len(gaps) <= MOST_WAITING + 1
        assert all("shed" in p.gap and p.dropped == 4 for p in session.log.windows(gaps[0], gaps[-1]))
        answer = session.ask(QUESTION)
        assert answer.windows_missing == len(gaps) and answer.frames_dropped == 4 * len(gaps)


def test_frames_that_are_shed_are_counted_whatever_their_stream_is_called(agent):
    """A window that is shed has no signals to tell a video by."""
    held = Held()
    with slowed(agent, held.wait).open(live=True, streams={"cam": "video", "mic": "audio"}) as session:
        session._pushes.clock = FakeClock()  # nothing gets stale
        for i in range(4 * 40 + 1):
            session.push(Packet("cam", "video", i / 4, gradient_frame(32, i), 4))
            session.push(Packet("mic", "audio", i / 4, np.zeros(4000, np.float32), 16000))
            assert i != 4 or held.begun.wait(LONG_S)
        held.go.set()
        session.flush()
        shed = [p for p in session.log.windows() if p.gap]
        answer = session.ask(QUESTION)
        assert shed and all(p.dropped == 4 for p in shed)
        assert (answer.windows_missing, answer.frames_dropped) == (len(shed), 4 * len(shed))


def test_a_live_session_gives_up_what_has_waited_too_long(agent):
    """Windows that waited for longer than stale_s, while more came: the newest is seen, and all are counted."""
    held, clock = Held(), FakeClock()
    with slowed(agent, held.wait).open(live=True, streams={"video": "video"}, stale_s=3.0) as session:
        session._pushes.clock = clock
        for i in range(4 * 9 + 1):
            session.push(Packet("video", "video", i / 4, gradient_frame(32, i), 4))
            assert i != 4 or held.begun.wait(LONG_S)
            clock.advance(0.25)
        held.go.set()
        answer = session.ask(QUESTION, at_s=9.0, wait_s=LONG_S)
        assert [p.index for p in session.log.windows() if p.gap] == [1, 2, 3, 4, 5, 6, 7]
        assert (answer.frames_dropped, answer.windows_missing, answer.frames_seen) == (28, 7, 8)


def test_what_comes_late_all_at_once_is_not_stale(agent):
    """A client that was away sends what it has kept: it is behind, and none of it has waited here."""
    held = Held()
    with slowed(agent, held.wait).open(live=True, streams={"video": "video"}, stale_s=0.5) as session:
        clock = session._pushes.clock = FakeClock()
        for i in range(4 * 12 + 1):
            session.push(Packet("video", "video", i / 4, gradient_frame(32, i), 4))
        clock.advance(0.4)
        held.go.set()
        session.flush()
        assert not session.log.gaps(12) and session.windows >= 12


@pytest.mark.parametrize("stale_s", [0.0, -1.0, float("nan")])
def test_a_budget_that_is_none(agent, stale_s):
    with pytest.raises(ConfigError, match="stale_s"):
        agent.open(live=True, stale_s=stale_s)


def test_a_gap_says_why_nothing_came(agent, log):
    """The reasons of those sources that were away then; they are in the log."""
    with agent.open(log=log, live=True, streams={"video": "video"}) as session:
        session.missing("front", "connection refused", 1.0)
        session.missing("front", "connection refused", 1.0, 3.0)  # it came back
        session.missing("yard", "it ended", 2.5)
        for i in (*range(5), *range(5 * 4, 5 * 4 + 5)):
            session.push(Packet("video", "video", i / 4, gradient_frame(32, i), 4))
        session.flush()
        assert [p.gap for p in session.log.windows(2, 4)] == [
            "front: connection refused; yard: it ended", "yard: it ended", "yard: it ended"]
    with SqliteLog.read(log) as stored:
        assert next(stored.windows(2)).gap.startswith("front: connection refused")


def test_a_disk_that_fills_up_loses_nothing(agent, log):
    with agent.open(log=log) as session:
        db = session.log._db
        for packet in (given := packets(agent, 30)):
            if packet.pts_s < 5:
                session.push(packet)
        session.ask(QUESTION, at_s=3.0, wait_s=LONG_S)
        db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0] + 1}")
        with pytest.raises(LogError, match="cannot grow"):
            for packet in given:
                if packet.pts_s >= 5:
                    session.push(packet)
            session.flush()
        seen = session.windows
        assert 3 <= seen < 30 and session.ask(QUESTION).windows_seen == seen  # the answer is given, if not kept
        db.execute("PRAGMA max_page_count=1000000")
        for packet in given:
            if packet.pts_s >= 29:
                session.push(packet)
        session.flush()
        assert session.windows == 30 and session.ask(QUESTION).windows_missing == 29 - seen


def test_a_script_that_dies_with_a_session_open_ends_with_its_own_error(tmp_path, random_model):
    script = tmp_path / "dies.py"
    script.write_text(f"""
import numpy as np, anymodal
from anymodal.types import Packet
agent = anymodal.load({str(random_model)!r})
session = agent.open(live=True, streams={{"cam": "video"}}, log={str(tmp_path / "left.db")!r})
for i in range(200):
    session.push(Packet("cam", "video", i / 4, np.full((32, 32, 3), i, np.uint8), 4))
raise RuntimeError("of its own")
""")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1 and ran.stderr.strip().endswith("RuntimeError: of its own")
    with load(random_model).reopen(tmp_path / "left.db") as again:
        assert again.windows >= 0
