"""Rules, search and the gate in a session that is fed."""

from __future__ import annotations

import numpy as np
import pytest

from anymodal.agent import Agent
from anymodal.bundle import load_bundle
from anymodal.errors import AnymodalError, InputError, LogFullError, QuestionError, SessionError
from anymodal.language.judging import Judgement
from anymodal.session.sqlite_log import SqliteLog
from anymodal.testing import make_video
from anymodal.testing_bundle import random_bundle
from anymodal.types import Packet


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return Agent(load_bundle(random_bundle(tmp_path_factory.mktemp("bundle"))))


def push(session, first: int, count: int, *, same: bool = False) -> None:
    rng = np.random.default_rng(0)
    for i in range(4 * first, 4 * (first + count)):
        frame = np.full((32, 32, 3), 90, np.uint8) if same else rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        session.push(Packet("cam", "video", i / 4, frame, 4))
    session.flush()


def test_rules_are_judged_while_a_session_watches_and_go_on_when_it_is_opened_again(agent, tmp_path, monkeypatch):
    seen = []

    def judge(state, prompts, *, evidence=False):
        window = state.memory.last_window
        seen.append((window, tuple(prompts)))
        return [Judgement(0.9 if window in (2, 3, 6) else 0.1) for _ in prompts]

    monkeypatch.setattr(agent.bundle.mind, "judge", judge)
    path = tmp_path / "s.db"
    with agent.open(log=path, streams={"cam": "video"}) as session:
        rule = session.rules.add("Tell me when the red circle stops")
        with pytest.raises(InputError):
            session.rules.add("tell me when the red circle stops.")
        with pytest.raises(AnymodalError):
            session.rules.add(" ")
        push(session, 0, 4)
        assert [(e.rule, e.t_s) for e in session.events()] == [(rule.name, 2.0)]
    with agent.reopen(path, streams={"cam": "video"}) as session:
        assert session.rules.list()[0].happening
        push(session, 4, 4)
        assert [e.t_s for e in session.events()] == [2.0, 6.0]
        assert [e.t_s for e in session.events(before_s=5.0)] == [2.0]
    for use in (session.events, session.rules.list, lambda: session.rules.add("tell me when a bell rings"),
                lambda: session.rules.pause(rule.name), lambda: session.rules.remove(rule.name)):
        with pytest.raises(SessionError, match="the session is closed"):
            use()
    assert {w for w, prompts in seen if prompts == ("Now: the red circle stops?",)} >= set(range(8))


def test_a_window_whose_judging_failed_is_judged_with_the_next_input(agent, tmp_path, monkeypatch):
    def judge(state, prompts, *, evidence=False):
        if failing:
            raise LogFullError("no room", fix="make some")
        return [Judgement(0.9 if state.memory.last_window == 1 else 0.1) for _ in prompts]

    monkeypatch.setattr(agent.bundle.mind, "judge", judge)
    with agent.open(log=tmp_path / "s.db", streams={"cam": "video"}) as session:
        rule, failing = session.rules.add("tell me when it starts"), False
        push(session, 0, 1)
        failing = True
        with pytest.raises(LogFullError):
            push(session, 1, 1)
        failing = False
        push(session, session.windows, 2)
        assert [(e.rule, e.t_s) for e in session.events()] == [(rule.name, 1.0)]


def break_off(session, windows: int) -> None:
    """Let it see no more than so many, and not note a feed's end."""
    taken, append = session._take, session.log.append
    session._take = lambda batch: [taken([item]) for item in batch if item[0].index < windows]
    session.log.append = lambda entry: 0 if getattr(entry, "done", False) else append(entry)


def test_a_gated_feed_goes_on_as_if_it_had_not_stopped(agent, tmp_path):
    still = np.random.default_rng(3).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    clips = [make_video(tmp_path / f"{n}.mp4", [still] * 4 * n, rate_hz=4, options={"qp": "0"}) for n in (3, 20)]
    logs = []
    for cut in (None, 1, 5, 16, 18):
        path = tmp_path / f"{cut}.db"
        with agent.open(log=path, gate=True) as session:
            session.feed(clips[0])  # the second clip shows the same, and does not repeat the first
            session.wait()
            if cut is not None:
                break_off(session, 3 + cut)
            session.feed(clips[1])
            session.wait()
        if cut is not None:
            with agent.reopen(path, gate=True) as session:
                assert session.windows == 3 + cut
                session.feed()
                session.wait()
        with SqliteLog.read(path) as log:
            logs.append([(dict(p.repeats), [t.embeds.tolist() for t in p.tokens]) for p in log.windows()])
    assert len(logs[0]) == 23 and sum(bool(repeats) for repeats, _ in logs[0]) > 15
    assert all(log == logs[0] for log in logs[1:])


def test_a_gated_session_encodes_less_and_answers(agent, tmp_path):
    with agent.open(log=tmp_path / "s.db", streams={"cam": "video"}, gate=True) as session:
        push(session, 0, 6, same=True)
        assert [dict(p.repeats) for p in session.log.windows()] == [{}, *[{"cam": 0}] * 5]
        assert session.ask("what is there?").windows_seen == 6
        assert session.ask("what is there?", at_s=4.0).windows_seen == 4
        memory = session._state.memory
        assert [(e.first, e.last) for e in memory.entries] == [(0, 5)], "all of it is one entry,"
        for t_s, wanted in ((0, []), (3, [3]), (9, [])):  # and a time within it is looked at again
            found = session._recall.lost(f"what is there at {t_s} s?", memory, 8, last=5)
            assert [p.index for p in found] == wanted, t_s
    with agent.reopen(tmp_path / "s.db", write=False) as session:
        assert session.ask("what is there?").windows_seen == 6 and len(session._state.memory.entries) == 1


def test_search_says_what_cannot_be_searched_for(agent, tmp_path):
    with agent.open(log=tmp_path / "s.db", streams={"cam": "video"}) as session:
        push(session, 0, 2)
        with pytest.raises((QuestionError, AnymodalError), match="search"):
            session.search("a dog")


def test_a_rule_of_what_the_bundle_was_never_taught_is_refused():
    spec = load_bundle("tiny").spec
    for known in ("a bell rings", "the red star bounced", "something moves", "no sound is heard", "the phone is dropped",
                  "an object shows up", "something hits something", "there are three objects", "a shape comes into view"):
        assert spec.search.knows(f"Now: {known}?", spec.point), known
    for unknown in ("a person comes in", "a car parks", "it gets dark"):
        assert not spec.search.knows(f"Now: {unknown}?", spec.point), unknown
    with Agent(load_bundle("tiny")).open() as session:
        with pytest.raises(InputError, match="tiny knows no word of what this rule waits for.*a bell rings"):
            session.rules.add("tell me when a person comes in")
        assert session.rules.add("tell me when a bel rings").text and len(session.rules.list()) == 1
