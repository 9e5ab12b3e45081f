"""The client against the fake server that it ships: what is promised of it, without a network."""

from __future__ import annotations

import ast
import asyncio
import inspect
import pickle
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anymodal.client as package
from anymodal import protocol
from anymodal.client import (
    Answer,
    AnswerError,
    AsyncClient,
    CameraBack,
    CameraLost,
    Client,
    ClientError,
    ClosedError,
    ConnectionBack,
    ConnectionLost,
    Delta,
    DeniedError,
    Evidence,
    InvalidError,
    LiveSession,
    MediaDropped,
    Options,
    OtherEvent,
    OverloadedError,
    ProtocolError,
    RuleEvent,
    SessionGoneError,
    SyncLiveSession,
    UnreachableError,
    WaitedTooLongError,
    encode,
    errors,
)
from anymodal.client.events import read_event
from anymodal.client.options import Backoff
from anymodal.client.sync import SyncAsking, SyncRules
from anymodal.client.testing import FakeServer, FakeSession
from anymodal.errors import InputError, MediaError, PacketError, QuestionError
from anymodal.testing import gradient_frame, make_video

ROOT = Path(__file__).resolve().parent.parent
FAST = Options(backoff_first_s=0.001, backoff_most_s=0.004, answer_timeout_s=20.0, reconnect_s=20.0)


def run(work, timeout_s: float = 60.0):
    async def bounded():
        async with asyncio.timeout(timeout_s):
            return await work

    return asyncio.run(bounded())


@pytest.fixture
def server() -> FakeServer:
    fake = FakeServer()
    fake.answer("what did you hear?", "a bell rang twice", confidence=0.9, evidence=[(2.0, 3.0, "audio")])
    return fake


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not decoded here")
    return path


def fast(**changes: object) -> Options:
    return Options(**{**{name: getattr(FAST, name) for name in FAST.__dataclass_fields__}, **changes})


# -- files -------------------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_once_and_its_answer_streams(server, clip):
    with Client(transport=server, options=FAST) as client:
        pieces = list(client.ask(clip, "what did you hear?"))
        again = client.ask(clip, "what did you hear?").answer()
    assert [piece.text for piece in pieces[:-1]] == ["a ", "bell ", "rang ", "twice"]
    assert all(isinstance(piece, Delta) for piece in pieces[:-1]) and isinstance(pieces[-1], Answer)
    assert pieces[-1] == again
    assert (again.text, again.confidence, again.evidence) == ("a bell rang twice", 0.9, (Evidence(2.0, 3.0, "audio"),))
    assert server.uploads == {"file-" + "1".zfill(32): ("clip.mp4", b"not decoded here")}


def test_a_file_that_changed_or_that_the_server_lost_is_uploaded_again(server, clip):
    async def work():
        async with AsyncClient(transport=server, options=FAST) as client:
            first = await client.upload(clip)
            clip.write_bytes(b"another")
            assert await client.upload(clip) != first
            server.uploads.clear()
            assert (await client.ask(clip, "what did you hear?")).text == "a bell rang twice"
            assert [data for _, data in server.uploads.values()] == [b"another"]
            both = await asyncio.gather(client.upload(clip), client.upload(clip))
            assert len(set(both)) == 1 and len(server.uploads) == 1

    run(work())


def test_what_is_asked_is_what_the_server_gets(server, clip):
    table = clip.with_name("a.csv")
    table.write_text("time_s,x\n0,1\n")
    with Client(transport=server, options=FAST) as client:
        client.ask(clip, "what?", at_s=2.5, sidecars={"imu": table}).answer()
        client.ask("https://example.org/a%20cat.jpg?x=1", "what?").answer()
        client.ask(None, "what?").answer()
    first, second, third = (body["messages"][0]["content"] for body in server.asked)
    assert server.asked[0]["anymodal"] == {"at_s": 2.5} and server.asked[0]["model"] == "fake"
    assert first[0]["video_url"]["url"] in server.uploads and list(first[0]["video_url"]["sidecars"]) == ["imu"]
    assert second[0] == {"type": "image_url", "image_url": {"url": "https://example.org/a%20cat.jpg?x=1"}}
    assert third == [{"type": "text", "text": "what?"}]


def test_an_error_in_the_middle_of_an_answer_is_raised_and_an_answer_cut_short_too(server, monkeypatch):
    chunk = '{"choices": [{"index": 0, "delta": {"content": "a "}, "finish_reason": null}]}'
    error = '{"error": {"message": "no frame", "type": "invalid_request_error", "code": "invalid_media", "param": null}}'
    with Client(transport=server, options=FAST) as client:
        for tail, kind, says in ((error, InvalidError, "no frame"), ("[DONE]", AnswerError, "broke off"),
                                 ("{", ProtocolError, "no JSON"), ("7", ProtocolError, "no chunk")):
            text = f": working\n\ndata: {chunk}\n\ndata: {tail}\n\n"
            monkeypatch.setattr(server, "_chat", lambda body, text=text: httpx.Response(200, text=text))
            asking = client.ask(None, "what?")
            assert next(asking) == Delta("a ")
            with pytest.raises(kind, match=says):
                asking.answer()


def test_a_busy_or_absent_server_is_tried_again_and_then_told_of(server, clip):
    with Client(transport=server, options=FAST) as client:
        for status in (503, 429, 0):
            server.refuse(2, status)
            assert client.ask(clip, "what did you hear?").answer().confidence == 0.9
        for status, kind in ((429, OverloadedError), (0, UnreachableError)):
            server.refuse(FAST.retries + 1, status)
            with pytest.raises(kind):
                client.ask(None, "what?").answer()
        server.refuse(1, 429, retry_after_s=3600)
        with pytest.raises(OverloadedError) as caught:
            client.models()
    assert caught.value.retry_after_s == 3600 and caught.value.status == 429 and caught.value.code == "server_busy"


def test_what_is_wrong_is_said_before_anything_is_sent(server, tmp_path):
    with Client(transport=server, options=FAST) as client:
        with pytest.raises(MediaError, match="nothing-here.mp4 cannot be read: No such file"):
            client.ask(tmp_path / "nothing-here.mp4", "what?").answer()
        with pytest.raises(MediaError, match="is no file"):
            client.ask(tmp_path, "what?").answer()
        with pytest.raises(QuestionError, match="empty"):
            client.ask(None, "  ")
    for url in ("127.0.0.1:8000", "ftp://x", "http://", "http://x:99999"):
        with pytest.raises(InputError, match="is no server's address"):
            Client(url)
    with pytest.raises(InputError, match="buffer_bytes must be a number"):
        Options(buffer_bytes=-1)
    assert AsyncClient("http://127.0.0.1:8000/v1/").url == "http://127.0.0.1:8000"


def test_a_key_is_asked_for_and_given(clip, monkeypatch):
    server = FakeServer(api_key="a-long-enough-key")
    with Client(transport=server, options=FAST) as client:
        with pytest.raises(DeniedError, match="ANYMODAL_API_KEY"):
            client.models()
        with pytest.raises(DeniedError), client.live():
            pass
    monkeypatch.setenv("ANYMODAL_API_KEY", "a-long-enough-key")
    with Client(transport=server, options=FAST) as client, client.live() as session:
        assert client.models() == ["fake"] and session.connected


# -- live --------------------------------------------------------------------------------------------------------


def test_a_session_takes_frames_sound_and_readings_and_answers(server):
    server.hits = [{"start_s": 1.0, "end_s": 2.0, "modality": "audio", "stream": "audio", "score": 0.5, "text": "bell"}]

    async def work():
        async with AsyncClient(transport=server, options=FAST) as client, client.live() as session:
            for second in range(2):
                for quarter in range(4):
                    await session.push_frame(np.zeros((64, 64, 3), np.uint8), second + quarter / 4)
                await session.push_audio(np.zeros(16000), second)
                await session.push_imu(np.zeros((50, 6)), second)
            answer = await session.ask("what did you hear?")
            assert (answer.text, answer.evidence) == ("a bell rang twice", (Evidence(2.0, 3.0, "audio"),))
            texts = [piece.text async for piece in session.ask("what did you hear?")]
            assert texts == ["a ", "bell ", "rang ", "twice", "a bell rang twice"]
            assert [hit.text for hit in await session.search("bell")] == ["bell"]
            assert await session.flush() == 2.0 and session.seen_s == 2.0
            taken = server.sessions[session.ticket.id].taken
            return [(e["stream"], e["pts_s"]) for e in taken if e["type"] == "anymodal.input.append"]

    found = run(work())
    assert found[:6] == [("video", 0.0), ("video", 0.25), ("video", 0.5), ("video", 0.75), ("audio", 0.0), ("imu", 0.0)]
    assert len(found) == 12


def test_rules_are_added_listed_paused_and_removed(server):
    with Client(transport=server, options=FAST) as client, client.live() as session:
        rule = session.rules.add("tell me when a bell rings")
        other = session.rules.add("tell me when a bell rings")
        assert (rule.text, rule.paused) == ("tell me when a bell rings", False) and other.name != rule.name
        session.rules.pause(rule.name)
        assert [r.paused for r in session.rules.list()] == [True, False]
        session.rules.resume(rule.name)
        session.rules.remove(other.name)
        assert [(r.name, r.paused) for r in session.rules.list()] == [(rule.name, False)]
        with pytest.raises(InvalidError, match="no rule 'rule-9'"):
            session.rules.pause("rule-9")
        server.rule_event(rule.name, "a bell", 3.0)
        event = next(event for event in session if isinstance(event, RuleEvent))
        assert (event.rule, event.text, event.t_s) == (rule.name, "a bell", 3.0)
        assert session.next_event(timeout_s=0.01) is None


def test_a_question_waits_while_another_is_answered_that_is_not_ours(server, monkeypatch):
    respond, times = FakeSession._respond, []

    def busy_once(self, event):
        times.append(event["event_id"])
        if len(times) > 1:
            respond(self, event)
            return
        self._fault(event, "conversation_already_has_active_response", "resp_1 is not done yet")
        self.say({"type": "response.done", "response": {"id": "resp_1", "status": "cancelled"}})

    monkeypatch.setattr(FakeSession, "_respond", busy_once)
    with Client(transport=server, options=FAST) as client, client.live() as session:
        assert session.ask("what did you hear?").answer().confidence == 0.9
    assert len(times) == 2


def test_several_questions_at_once_get_their_own_answers(server):
    for number in range(8):
        server.answer(f"question {number}", f"answer {number}")

    async def work():
        async with AsyncClient(transport=server, options=FAST) as client, client.live() as session:
            return await asyncio.gather(*(session.ask(f"question {number}").answer() for number in range(8)))

    assert [answer.text for answer in run(work())] == [f"answer {number}" for number in range(8)]


def test_what_the_server_refuses_of_a_stream_comes_as_an_event(server):
    with Client(transport=server, options=FAST) as client, client.live(streams={"front": "video"}) as session:
        session.push("front", "video", np.zeros((8, 8, 3), np.uint8), 0.0)
        with pytest.raises(PacketError, match="stream 'front' is video, not audio"):
            session.push("front", "audio", np.zeros(8), 0.0)
        session.push_imu(np.zeros((5, 6)), 0.0)
        fault = next(event for event in session if isinstance(event, protocol.ErrorEvent)).error
        assert (fault.code, fault.message) == ("unknown_stream", "no stream 'imu'")


def test_frames_are_thinned_and_scaled_to_what_the_server_wants(server):
    with Client(transport=server, options=FAST) as client, client.live() as session:
        for number in range(31):
            session.push_frame(np.zeros((240, 320, 3), np.uint8), number / 30, encoding="rgb8")
        taken = [e for e in server.sessions[session.ticket.id].taken if e["type"] == "anymodal.input.append"]
        assert [e["shape"] for e in taken] == [[96, 128, 3]] * len(taken)
        assert len(taken) == 8 and session.stats.thinned == {"video": 23}  # twice the 4 Hz that are wanted, at most
        session.push_frame(np.zeros((8, 8, 3), np.uint8), 0.0)  # a clock that jumped back is the server's to judge
        assert session.stats.thinned == {"video": 23}


def test_without_times_sound_is_gapless_and_frames_are_now(server):
    with Client(transport=server, options=FAST) as client, client.live() as session:
        before = session.now_s()
        session.push_frame(np.zeros((8, 8, 3), np.uint8))
        for _ in range(3):
            session.push_audio(np.zeros(1600, np.int16))
        session.flush()
        taken = [e for e in server.sessions[session.ticket.id].taken if e["type"] == "anymodal.input.append"]
        sound = [e["pts_s"] for e in taken if e["stream"] == "audio"]
        assert sound == pytest.approx([sound[0], sound[0] + 0.1, sound[0] + 0.2])
        assert before <= taken[0]["pts_s"] <= session.now_s()


# -- losses ------------------------------------------------------------------------------------------------------

COUNTS = st.one_of(st.none(), st.integers(0, 12))
STEPS = st.sampled_from(["imu", "imu", "imu", "frame", "ask", "say", "cut", "crash", "breathe"])


@settings(max_examples=150)
@given(first=st.tuples(COUNTS, st.one_of(st.none(), st.integers(1, 12))),
       later=st.lists(st.tuples(COUNTS, COUNTS), max_size=6),
       steps=st.lists(STEPS, max_size=40), ack_every=st.integers(1, 7), room=st.sampled_from([7_000, 20_000, 10**6]))
def test_whatever_breaks_each_numbered_event_arrives_once_and_in_order_and_drops_are_counted(
        first, later, steps, ack_every, room):
    server = FakeServer(cuts=[first, *later], ack_every=ack_every)
    server.answer("q", "one two three")

    async def work():
        pushed, answers, number = {"imu": 0, "video": 0}, [], 0
        async with AsyncClient(transport=server, options=fast(buffer_bytes=room)) as client, client.live() as session:
            fake = server.sessions[session.ticket.id]
            for step in steps:
                if step == "imu":
                    await session.push_imu(np.zeros((100, 6)), pushed["imu"] * 2.0)
                    pushed["imu"] += 1
                elif step == "frame":
                    await session.push_frame(np.zeros((8, 8, 3), np.uint8), pushed["video"] * 0.5)
                    pushed["video"] += 1
                elif step == "ask":
                    answers.append(session.ask("q"))
                elif step == "say":
                    number += 1
                    server.rule_event("r", str(number), number)
                elif step == "breathe":
                    await asyncio.sleep(0.002)
                else:
                    getattr(server, step)()
            texts = [(await asking).text for asking in answers]
            await session.flush()
            dropped = session.stats.dropped
            events = []
            while session._desk.events:
                events.append(await session.next_event())
            return fake, pushed, dropped, texts, events, session.stats

    fake, pushed, dropped, texts, events, stats = run(work())
    numbers = [event.anymodal.seq for event in events if hasattr(event, "anymodal")]
    assert numbers == [event["anymodal"]["seq"] for event in fake.said] == list(range(1, len(numbers) + 1))
    assert stats.events_lost == 0 and stats.reconnections == sum(isinstance(e, ConnectionBack) for e in events)
    taken = [event["anymodal"]["seq"] for event in fake.taken]
    assert taken == sorted(set(taken))
    arrived = {name: sum(e.get("stream") == name for e in fake.taken) for name in pushed}
    assert {name: arrived[name] + dropped.get(name, 0) for name in pushed} == pushed
    assert texts == ["one two three"] * steps.count("ask")
    asked = [e["event_id"] for e in fake.taken if e["type"] == "response.create"]
    assert len(asked) == len(set(asked)) == steps.count("ask")
    drops = [event.counts for event in events if isinstance(event, MediaDropped)]
    assert (drops[-1] if drops else {}) == dropped


def test_while_the_server_is_away_the_oldest_media_go_and_no_question(server):
    async def work():
        async with AsyncClient(transport=server, options=fast(buffer_bytes=60_000)) as client, client.live() as session:
            fake = server.sessions[session.ticket.id]
            server.refuse(10_000, 0)
            server.cut()
            lost = await anext(e async for e in session if isinstance(e, ConnectionLost))
            asking = session.ask("what did you hear?")
            for number in range(100):
                await session.push_imu(np.zeros((50, 6)), number)
            assert session.stats.dropped["imu"] > 50 and not session.connected and lost.reason
            server._refusals.clear()
            assert (await asking).text == "a bell rang twice"
            await session.flush()
            return [e["pts_s"] for e in fake.taken if e["type"] == "anymodal.input.append"], session.stats.dropped

    arrived, dropped = run(work())
    assert arrived == list(range(100))[-len(arrived):] and len(arrived) + dropped["imu"] == 100


def test_events_that_are_kept_no_longer_are_counted_as_lost(server):
    async def work():
        async with AsyncClient(transport=server, options=FAST) as client, client.live() as session:
            fake = server.sessions[session.ticket.id]
            server.refuse(3, 503)
            server.cut()
            for number in range(5):
                server.rule_event("r", str(number), number)
            fake.forget_said()
            server.rule_event("r", "kept", 9.0)
            event = await anext(e async for e in session if isinstance(e, RuleEvent))
            return event.text, session.stats.events_lost

    assert run(work()) == ("kept", 5)


def test_an_event_that_comes_again_is_not_told_again(server):
    with Client(transport=server, options=FAST) as client, client.live() as session:
        fake = server.sessions[session.ticket.id]
        server.rule_event("r", "once", 1.0)
        fake.call(fake._connection.give, fake.said[-1])
        server.rule_event("r", "twice", 2.0)
        found = [event.text for event in (session.next_event(1.0) for _ in range(3)) if isinstance(event, RuleEvent)]
        assert found == ["once", "twice"]


def test_events_that_nobody_fetches_are_bounded_and_counted(server):
    with Client(transport=server, options=fast(most_events=10)) as client, client.live() as session:
        for number in range(50):
            server.rule_event("r", str(number), number)
        assert session.ask("what did you hear?").answer().confidence == 0.9  # answers do not wait for that
        assert session.stats.events_dropped >= 40
        assert session.next_event(1.0) is not None


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 4000])
def test_a_close_that_another_try_cannot_mend_ends_the_session(server, code):
    with Client(transport=server, options=FAST) as client, client.live() as session:
        fake = server.sessions[session.ticket.id]
        fake.call(fake.cut, code)
        with pytest.raises(InvalidError, match=f"closed the connection \\({code}\\)"):
            for _ in session:
                pass
        with pytest.raises(InvalidError):
            session.push_imu(np.zeros((1, 6)), 0.0)
    assert server.connections == 1


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013])
def test_a_close_that_another_try_may_mend_is_mended(server, code):
    with Client(transport=server, options=FAST) as client, client.live() as session:
        fake = server.sessions[session.ticket.id]
        fake.call(fake.cut, code)
        assert session.ask("what did you hear?").answer().confidence == 0.9
        assert session.stats.reconnections == 1


def test_a_session_that_is_gone_says_so_to_all_who_wait(server, monkeypatch):
    monkeypatch.setattr(FakeSession, "_respond", lambda self, event: None)

    async def work():
        async with AsyncClient(transport=server, options=FAST) as client, client.live() as session:
            asking = asyncio.ensure_future(session.ask("what?").answer())
            await session.flush()
            fake = server.sessions.pop(session.ticket.id)
            fake.cut()
            with pytest.raises(SessionGoneError, match="the session is gone"):
                await asking
            with pytest.raises(SessionGoneError):
                async for _ in session:
                    pass
            with pytest.raises(SessionGoneError):
                await session.rules.list()

    run(work())


def test_a_server_that_stays_away_is_given_up(server):
    with Client(transport=server, options=fast(reconnect_s=0.2)) as client, client.live() as session:
        server.refuse(10_000, 0)
        server.cut()
        with pytest.raises(UnreachableError, match="not had again in 0.2 s"):
            for _ in session:
                pass


def test_a_connection_that_breaks_over_and_over_without_getting_on_is_given_up():
    server = FakeServer(cuts=[(None, 1), *[(0, 1)] * 100_000])

    async def work():
        async with AsyncClient(transport=server, options=fast(reconnect_s=0.3)) as client, client.live() as session:
            with pytest.raises(UnreachableError):
                await session.ask("what?")

    run(work())


def test_a_server_that_falls_silent_is_not_waited_for_longer_than_said(server, monkeypatch):
    monkeypatch.setattr(FakeSession, "_respond", lambda self, event: None)
    monkeypatch.setattr(FakeSession, "_flush", lambda self, event: None)
    with Client(transport=server, options=fast(answer_timeout_s=0.05)) as client, client.live() as session:
        with pytest.raises(WaitedTooLongError, match="no answer to 'what\\?' for 0.05 s"):
            session.ask("what?").answer()
        with pytest.raises(WaitedTooLongError, match="no word on anymodal.input.flush"):
            session.flush()


def test_an_answer_can_be_given_up(server, monkeypatch):
    said: list[dict] = []
    monkeypatch.setattr(FakeSession, "_respond", lambda self, event: self.say({"type": "response.created", "response": {
        "id": "resp", "status": "in_progress", "metadata": event["response"]["metadata"]}}) or said.append(event))

    async def work():
        async with AsyncClient(transport=server, options=FAST) as client, client.live() as session:
            asking = session.ask("what?")
            await asking.cancel()  # before the server has begun
            fake = server.sessions[session.ticket.id]
            for _ in range(2):  # what was sent before has arrived
                await session.rules.list()
            assert [e["type"] for e in fake.taken if e["type"].startswith("response")][1:] == ["response.cancel"]
            fake.say({"type": "response.done", "response": {"id": "resp", "status": "cancelled"}})
            with pytest.raises(AnswerError, match="cancelled"):
                await asking
            other = client.ask(None, "what did you hear?")
            await anext(other)
            await other.cancel()
            with pytest.raises(AnswerError, match="cancelled"):
                await other

    run(work())


def test_another_process_goes_on_with_a_session(server):
    with Client(transport=server, options=FAST) as client:
        with client.live(streams={"front": "video"}) as session:
            session.push("front", "video", np.zeros((8, 8, 3), np.uint8), 3.0)
            session.flush()
            ticket = pickle.loads(pickle.dumps(session.ticket))
            session.close(keep=True)
        server.rule_event("r", "meanwhile", 1.0)
        with client.live(ticket=ticket) as session:
            assert next(event for event in session if isinstance(event, RuleEvent)).text == "meanwhile"
            session.push("front", "video", np.zeros((8, 8, 3), np.uint8))
            session.flush()
            fake = server.sessions[ticket.id]
            assert fake.taken[-2]["pts_s"] >= 3.0
        assert server.sessions == {}  # closed without `keep`, it is over
        with pytest.raises(SessionGoneError), client.live(ticket=ticket):
            pass


# -- arrays ------------------------------------------------------------------------------------------------------


def test_frames_go_as_jpeg_and_without_pillow_as_rgb(monkeypatch):
    frame = np.random.default_rng(0).integers(0, 255, (50, 100, 3), np.uint8)
    assert encode.frame_of(frame)["encoding"] == "jpeg"
    assert encode.frame_of(frame, encoding="png")["encoding"] == "png"
    monkeypatch.setattr(encode, "_pillow", lambda: None)
    made = encode.frame_of(frame, shorter_px=25)
    assert (made["encoding"], made["shape"]) == ("rgb8", (25, 50, 3))
    assert encode.frame_of(frame, shorter_px=30)["shape"] == (50, 100, 3)  # never below what is wanted
    with pytest.raises(PacketError, match="jpeg needs pillow"):
        encode.frame_of(frame, encoding="jpeg")


@pytest.mark.parametrize(("make", "says"), [
    (lambda: encode.frame_of(np.zeros((4, 4, 3))), "uint8 \\(H, W, 3\\), found float64"),
    (lambda: encode.frame_of(np.zeros((4, 4, 4), np.uint8)), "found uint8 \\(4, 4, 4\\)"),
    (lambda: encode.frame_of(np.zeros((0, 4, 3), np.uint8)), "found uint8 \\(0, 4, 3\\)"),
    (lambda: encode.frame_of([[1], [1, 2]]), "is no array"),
    (lambda: encode.sound_of(np.zeros((2, 2, 2))), "sound must be int16 or float"),
    (lambda: encode.sound_of(np.zeros(4, np.int32)), "found int32"),
    (lambda: encode.readings_of([["a"]], "imu"), "imu must be numbers"),
    (lambda: encode.readings_of([[np.nan]], "imu"), "no finite numbers"),
    (lambda: encode.readings_of(np.zeros((0, 6)), "imu"), "found float64 \\(0, 6\\)"),
])
def test_arrays_of_no_use_are_refused_with_what_they_are(make, says):
    with pytest.raises(PacketError, match=says):
        make()


def test_sound_and_readings_keep_their_values():
    assert encode.sound_of([0.0, 1.0, -0.1, 7.0, np.nan, np.inf]).tolist() == [0, 1, np.float32(-0.1), 1, 0, 1]
    assert encode.sound_of([[0.5, -0.5], [1.0, 0.0]]).tolist() == [0, 0.5]
    assert encode.sound_of(np.array([[3, 5], [-4, 0]], np.int16)).tolist() == [4, -2]
    assert encode.readings_of([1, 2, 3], "imu").shape == (1, 3)
    made = encode.frame_of(np.ones((2, 3)), "depth")
    assert (made["encoding"], made["shape"]) == ("float32", (2, 3))
    pieces = list(encode.pieces_of(np.zeros(400_000, np.int16), 1.0, 16000.0))
    assert [piece["shape"] for _, piece in pieces] == [(131072,), (131072,), (131072,), (6784,)]
    assert pieces[1][0] == 1.0 + 131072 / 16000


def test_a_message_over_the_limit_is_refused_here(server):
    with Client(transport=server, options=fast(message_bytes=1000)) as client, client.live() as session:
        with pytest.raises(PacketError, match="over the limit of 1000"):
            session.push_frame(np.zeros((90, 90, 3), np.uint8), 0.0, encoding="rgb8")
        with pytest.raises(PacketError, match="pts_s must be seconds"):
            session.push_frame(np.zeros((8, 8, 3), np.uint8), -1.0)
        with pytest.raises(PacketError, match="thermometer needs a rate"):
            session.push("t", "thermometer", [1.0], 0.0)


# -- files and cameras into a session ----------------------------------------------------------------------------


def test_a_file_is_shown_as_it_would_be_read(server, tmp_path):
    from anymodal.playground.files import render_clips

    (path,) = render_clips(tmp_path, split="demo", seed=1, count=1, seconds=2)
    with Client(transport=server, options=FAST) as client, client.live() as session:
        assert session.stream_file(path, speed=None) == pytest.approx(2.0, abs=0.1)
        assert session.stream_file(path, speed=20.0) == pytest.approx(5.0, abs=0.1)  # its sound is a little over 2 s
        taken = [e for e in server.sessions[session.ticket.id].taken if e["type"] == "anymodal.input.append"]
        with pytest.raises(MediaError, match="no file"):
            session.stream_file(tmp_path / "none.mp4")
    assert [e["pts_s"] for e in taken if e["stream"] == "video"] == [
        start_s + number / 4 for start_s in (0, 3) for number in range(8)]
    assert {e["encoding"] for e in taken if e["stream"] == "video"} == {"rgb8"}  # small frames lose nothing
    rows = {name: sum(e["shape"][0] for e in taken if e["stream"] == name) for name in ("audio", "imu")}
    assert rows["imu"] == 200 and rows["audio"] == pytest.approx(64000, abs=3200)


def test_a_camera_is_shown_until_its_time_is_over(server):
    with Client(transport=server, options=FAST) as client, client.live() as session:
        session.stream_camera("testsrc=size=320x240:rate=30", format="lavfi", duration_s=0.4)
        session.flush()
        taken = [e for e in server.sessions[session.ticket.id].taken if e["type"] == "anymodal.input.append"]
        assert len(taken) >= 2 and {e["encoding"] for e in taken} == {"jpeg"}
        with pytest.raises(MediaError, match="the camera /dev/no-camera"):
            session.stream_camera("/dev/no-camera", format="v4l2")


class Unplugged:
    """A camera on TCP: MPEG-TS that breaks off with a reset, and is there again at the third call."""

    def __init__(self, path, shown):
        self._data, self.shown, self.calls = path.read_bytes(), shown, 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                caller, _ = self._door.accept()
                self.calls += 1
                threading.Thread(target=self._send, args=(caller, self.calls), daemon=True).start()

    def _send(self, caller, call):
        with suppress(OSError):
            if call != 2:
                caller.sendall(self._data)
            if call < 3:
                while call == 1 and not self.shown():  # somebody has seen it
                    time.sleep(0.01)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()

    def close(self):
        self._door.close()


def test_a_camera_that_is_pulled_out_is_opened_again(server, tmp_path):
    ts = make_video(tmp_path / "a.ts", [gradient_frame(96, i) for i in range(50)], rate_hz=25, codec="mpeg2video",
                    container_format="mpegts")
    camera = Unplugged(ts, lambda: any(session.taken for session in server.sessions.values()))
    quick = {"probesize": "20000", "analyzeduration": "100000"}
    try:
        with Client(transport=server, options=FAST) as client, client.live() as session:
            session.stream_camera(camera.address, format="mpegts", settings=quick)  # the third ends as a file does
            events = []
            while not isinstance(event := session.next_event(60.0), CameraBack):
                assert event is not None, "nobody told that the camera is back"
                events.append(event)
            assert event.stream == "video" and event.down_s > 0 and camera.calls == 3
            lost = [e for e in events if isinstance(e, CameraLost)]
            assert len(lost) == 1 and camera.address in lost[0].reason
    finally:
        camera.close()


# -- the rest ----------------------------------------------------------------------------------------------------


def names_of(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_the_plain_client_has_the_names_of_the_asynchronous_one(server):
    from anymodal.client.asking import Asking
    from anymodal.client.rules import Rules

    with Client(transport=server) as client:
        assert {name for name in dir(AsyncClient(transport=server)) if not name.startswith("_")} <= set(dir(client))
    for mine, theirs in ((SyncLiveSession, LiveSession), (SyncRules, Rules), (SyncAsking, Asking)):
        assert names_of(mine) >= names_of(theirs)
        for name in names_of(theirs):
            assert inspect.getdoc(getattr(mine, name)) == inspect.getdoc(getattr(theirs, name)), name


def test_a_plain_client_serves_several_threads_and_ends(server):
    before = threading.active_count()
    client = Client(transport=server, options=FAST)
    with client.live() as session:
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(session.ask("what did you hear?").answer()))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert [answer.confidence for answer in answers] == [0.9] * 8
    client.close()
    client.close()
    with pytest.raises(ClosedError):
        client.models()
    assert threading.active_count() == before


def test_a_session_that_is_left_says_so(server):
    with Client(transport=server, options=FAST) as client:
        with client.live() as session:
            pass
        assert [event for event in session if isinstance(event, ConnectionLost)] == []
        for use in (lambda: session.ask("what?"), lambda: session.push_imu(np.zeros((1, 6)), 0.0), session.rules.list):
            with pytest.raises(ClosedError):
                use()
        session.close()


def test_events_of_a_newer_server_are_handed_on_and_junk_is_none():
    event = read_event('{"type": "anymodal.new", "anymodal": {"seq": 7}, "more": 1}')
    assert isinstance(event, OtherEvent) and (event.type, event.seq, event.data["more"]) == ("anymodal.new", 7, 1)
    for junk in ("", "[]", "nonsense", '{"type": "x"}', '{"type": 1, "anymodal": {"seq": 1}}', '{"anymodal": {"seq": 1}}'):
        with pytest.raises(ProtocolError):
            read_event(junk)


def test_waits_double_up_to_their_limit_and_differ():
    waits = [Backoff(0.2, 10.0, random.Random(seed)) for seed in range(50)]
    times = np.array([[backoff.next_s() for _ in range(10)] for backoff in waits])
    whole = np.minimum(10.0, 0.2 * 2.0 ** np.arange(10))
    assert (times <= whole).all() and (times >= whole / 2).all() and len(set(times[:, 0])) == 50


def test_the_tree_of_errors_is_the_one_that_is_drawn():
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, ClientError)}
    drawn = {line.split("|-- ")[-1].split("`-- ")[-1].split()[0] for line in errors.__doc__.splitlines() if "-- " in line}
    assert drawn | {"ClientError"} == kinds and kinds <= set(package.__all__)
    error = OverloadedError("busy", status=429, code="x", retry_after_s=2.0, fix="wait")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.retry_after_s, again.code) == (str(error), 2.0, "x")


def test_the_client_pulls_in_nothing_heavy(tmp_path):
    code = ("import sys, anymodal.client, anymodal.client.testing, anymodal.protocol\n"
            "print([m for m in ('torch', 'ray', 'av', 'PIL', 'encoders', 'actors', 'transformers') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_what_the_client_needs_is_in_the_light_install():
    light = {"anymodal", "httpx", "numpy", "pydantic", "websockets", "PIL"}  # PIL where it is there
    found = set()
    for path in (ROOT / "anymodal" / "client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = ([a.name for a in node.names] if isinstance(node, ast.Import)
                     else [node.module] if isinstance(node, ast.ImportFrom) else [])
            found |= {name.split(".")[0] for name in names}
    assert found - set(sys.stdlib_module_names) <= light
