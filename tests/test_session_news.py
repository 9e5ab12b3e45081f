"""What a session tells of the windows that enter its log, live and from the log, on a bundle of random weights."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from anymodal.agent import load
from anymodal.errors import SessionError
from anymodal.media.spec import stream_specs
from anymodal.session import news
from anymodal.testing import gradient_frame, synthetic_packets
from anymodal.types import Packet

STREAMS = {"cam": "video", "mic": "audio"}


@pytest.fixture(scope="module")
def agent(random_model):
    return load(random_model)


def push_seconds(session, agent, seconds: float) -> None:
    specs = {name: stream_specs(agent.spec.modalities)[modality] for name, modality in STREAMS.items()}
    for packet in synthetic_packets(specs, seconds):
        session.push(packet)


def test_each_window_is_told_once_with_its_streams(agent):
    with agent.open(streams=STREAMS) as session:
        push_seconds(session, agent, 3)
        session.flush()
        seen = session.seen()
        assert [(s.window, s.start_s, s.end_s, set(s.streams)) for s in seen] == [
            (k, k, k + 1, {"cam", "mic"}) for k in range(3)]
        assert session.seen(0) == seen[1:] and session.seen(2) == []


def test_a_reader_waits_for_the_next_window(agent):
    with agent.open(streams={"cam": "video"}) as session:
        found: list = []
        reader = threading.Thread(target=lambda: found.extend(session.seen(-1, wait_s=60.0)))
        reader.start()
        session.push(Packet("cam", "video", 0.0, gradient_frame(32, 0), 4))
        session.flush()
        reader.join(60.0)
        assert [s.window for s in found] == [0]


def test_a_reopened_session_tells_of_the_past_from_its_log(agent, tmp_path):
    with agent.open(log=tmp_path / "log", streams=STREAMS) as session:
        push_seconds(session, agent, 2)
        session.flush()
        told = session.seen()
    with agent.reopen(tmp_path / "log", streams=STREAMS) as again:
        assert [(s.window, s.streams, s.tokens) for s in again.seen()] == [(s.window, s.streams, s.tokens) for s in told]


def test_what_is_kept_is_bounded_and_the_rest_is_read(agent, monkeypatch):
    monkeypatch.setattr(news, "KEPT", 2)
    monkeypatch.setattr(news, "AT_ONCE", 4)
    with agent.open(streams={"mic": "audio"}) as session:
        for k in range(6):
            session.push(Packet("mic", "audio", float(k), np.zeros(16000, np.float32), 16000))
        session.flush()
        assert [(s.window, s.streams) for s in session.seen()] == [(k, ("mic",)) for k in range(4)]
        assert [s.window for s in session.seen(3)] == [4, 5]


def test_drops_and_gaps_are_told(agent):
    with agent.open(streams=STREAMS) as session:
        session.push(Packet("cam", "video", 0.0, gradient_frame(32, 0), 4))
        with pytest.raises(Exception, match="too late|float32|uint8"):
            session.push(Packet("mic", "audio", 0.0, np.zeros((4, 4), np.float32), 16000))
        session.push(Packet("cam", "video", 2.0, gradient_frame(32, 1), 4))
        session.flush()
        first, second, third = session.seen()
        assert first.dropped == {"mic": 1} and not first.gap
        assert second.streams == () and second.gap == "no signal"
        assert third.streams == ("cam",)


def test_what_a_gate_skipped_is_told_live_and_from_the_log(agent, tmp_path):
    with agent.open(log=tmp_path / "gated.db", streams={"cam": "video"}, gate=True) as session:
        for k in range(4 * 4):
            session.push(Packet("cam", "video", k / 4, gradient_frame(32, 8 * (k >= 12)), 4))
        session.flush()
        told = [s.repeats for s in session.seen()]
        assert told[1] == {"cam": 0} and told[0] == told[3] == {}
    with agent.reopen(tmp_path / "gated.db") as session:
        assert [s.repeats for s in session.seen()] == told


def test_a_closed_session_says_so(agent):
    session = agent.open(streams=STREAMS)
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.seen()
