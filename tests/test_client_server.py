"""The client against the real server on loopback: files, a live session, and what a broken network does to it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from actors.gateway.answers import extras
from actors.gateway.hosts import LocalHost
from actors.gateway.settings import Settings
from actors.gateway.testing import Proxy, serving
from anymodal.agent import load
from anymodal.client import (
    Answer,
    AsyncClient,
    Client,
    ClientError,
    ConnectionBack,
    Delta,
    InvalidError,
    MediaDropped,
    NotFoundError,
    Options,
    SessionGoneError,
    WindowSeen,
)
from anymodal.client.asking import answer_of
from anymodal.protocol import ErrorEvent
from anymodal.testing import gradient_frame, make_imu_csv, make_video
from anymodal.testing_bundle import random_bundle

pytestmark = pytest.mark.timeout(300)
QUESTION = "what colour is it?"
SECONDS, FPS, AUDIO_HZ, IMU_HZ = 6, 4, 16000, 50
AXES = [f"{kind}_{axis}_{unit}" for kind, unit in (("accel", "m_s2"), ("gyro", "rad_s")) for axis in "xyz"]
OPTIONS = Options(connect_timeout_s=60.0, backoff_first_s=0.02, backoff_most_s=0.2, answer_timeout_s=60.0, reconnect_s=60.0)


@pytest.fixture(scope="module")
def bundle(folder):
    return random_bundle(folder, runtime={"perception": {"threads": 1}, "mind": {"threads": 1}})


@pytest.fixture(scope="module")
def clip(folder):
    path = make_video(folder / "clip.mkv", [gradient_frame(48, i) for i in range(SECONDS * FPS)], rate_hz=FPS, codec="ffv1",
                      pixel_format="bgr0", audio=tone() / np.float32(32768), audio_hz=AUDIO_HZ, audio_codec="pcm_s16le")
    make_imu_csv(folder / "clip.imu.csv", np.arange(SECONDS * IMU_HZ) / IMU_HZ, readings(), AXES)
    return path


def tone() -> np.ndarray:
    return (10_000 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * AUDIO_HZ) / AUDIO_HZ)).astype(np.int16)


def readings() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SECONDS * IMU_HZ, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def settings(folder):
    return Settings(port=0, state=folder / "state")


@pytest.fixture(scope="module")
def server(bundle, settings):
    with serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings) as running:
        yield running


@pytest.fixture(scope="module")
def expected(bundle, clip) -> Answer:
    """What the library itself answers about the clip."""
    return load(bundle, threads=1).ask(clip, QUESTION)


@pytest.fixture
def client(server):
    with Client(server.url, options=OPTIONS) as found:
        yield found


@pytest.fixture
def proxy(server):
    made = Proxy(server.port)
    yield made
    made.close()


async def show(session, first_s: int = 0, last_s: int = SECONDS) -> None:
    """The clip's frames, sound and readings, pushed as a program would that has them."""
    for second in range(first_s, last_s):
        for quarter in range(FPS):
            await session.push_frame(gradient_frame(48, second * FPS + quarter), second + quarter / FPS, encoding="rgb8")
        await session.push_audio(tone()[second * AUDIO_HZ : (second + 1) * AUDIO_HZ], second)
        await session.push_imu(readings()[second * IMU_HZ : (second + 1) * IMU_HZ], second)


def windows_of(events: list) -> list[tuple[int, tuple[str, ...], dict, str]]:
    return [(e.index, tuple(sorted(e.streams)), dict(e.dropped), e.gap) for e in events if isinstance(e, WindowSeen)]


WHOLE = [(index, ("audio", "imu", "video"), {}, "") for index in range(SECONDS)]


async def fetched(session) -> list:
    found = []
    while (event := await session.next_event(0.2)) is not None:
        found.append(event)
    return found


# -- as it should be ---------------------------------------------------------------------------------------------


def test_a_file_is_asked_about_as_by_the_library(client, clip, expected):
    assert client.models() == ["random"]
    *deltas, answer = client.ask(clip, QUESTION, sidecars={"imu": clip.with_name("clip.imu.csv")})
    assert all(isinstance(piece, Delta) for piece in deltas)
    assert answer.text == expected.text.strip() == "".join(piece.text for piece in deltas)
    assert answer.confidence == pytest.approx(expected.confidence, abs=1e-3)
    assert (answer.evidence, answer.frames_seen) == (expected.evidence, expected.frames_seen)
    early = client.ask(clip, QUESTION, at_s=2.0).answer()
    assert early.windows_seen == 2


def test_a_file_shown_live_is_answered_as_by_the_library(client, clip, expected):
    with client.live() as session:
        assert session.stream_file(clip, speed=None) == pytest.approx(SECONDS)
        answer = session.ask(QUESTION).answer()
        assert (answer.text.strip(), answer.evidence) == (expected.text.strip(), expected.evidence)
        assert answer.confidence == pytest.approx(expected.confidence, abs=1e-3)
        assert (answer.frames_seen, answer.frames_dropped, answer.windows_missing) == (expected.frames_seen, 0, 0)


def test_what_an_answer_of_the_past_was_read_from_comes_over_the_wire():
    given = Answer("what was at 0:03?", "red", 0.5, windows_seen=7, last_window=147, windows=(1, 2, 3, 4, 5, 146, 147))
    told = extras(given, 0.0, 1.0).model_dump(exclude_none=True)
    assert answer_of(given.question, given.text, told) == given
    assert "windows" not in extras(replace(given, windows=()), 0.0, 1.0).model_dump(exclude_none=True)


def test_arrays_pushed_are_answered_as_the_file(server, expected):
    async def work():
        async with AsyncClient(server.url, options=OPTIONS) as client, client.live() as session:
            await show(session)
            assert await session.flush() == SECONDS
            answer = await session.ask(QUESTION)
            return answer, await fetched(session), session.stats

    answer, events, stats = asyncio.run(work())
    assert answer.text.strip() == expected.text.strip()
    assert windows_of(events) == WHOLE
    assert (stats.dropped, stats.thinned, stats.events_lost, stats.reconnections) == ({}, {}, 0, 0)


def test_rules_on_the_real_server_and_a_command_that_its_model_lacks(client):
    with client.live() as session:
        session.push_frame(gradient_frame(48, 0), 0.0)
        rule = session.rules.add("tell me when a bell rings")
        session.rules.pause(rule.name)
        assert [(r.name, r.paused) for r in session.rules.list()] == [(rule.name, True)]
        session.rules.resume(rule.name)
        session.rules.remove(rule.name)
        assert session.rules.list() == ()
        with pytest.raises(ClientError, match="no rule"):
            session.rules.remove(rule.name)
        assert session.flush() == 1.0
        with pytest.raises(InvalidError, match="its bundle has no `search`"):
            session.search("a red circle")
        assert session.ask(QUESTION).answer().text


def test_what_the_real_server_refuses_has_its_own_error(server, client):
    with pytest.raises(NotFoundError, match="no model 'nothing'"), \
            Client(server.url, model="nothing", options=OPTIONS) as other, other.live():
        pass
    with pytest.raises(InvalidError, match="does not know"), client.live(streams={"nose": "smell"}):
        pass
    with client.live() as session:
        session.push("nose", "smell", [[1.0]], 0.0, rate_hz=10.0)
        fault = next(event for event in session if isinstance(event, ErrorEvent)).error
        assert "nose" in fault.message
        ticket = session.ticket
    with pytest.raises(SessionGoneError), client.live(ticket=ticket):
        pass


def test_questions_at_once_are_answered_one_after_the_other(client):
    with client.live() as session:
        session.push_frame(gradient_frame(48, 0), 0.0)
        askings = [session.ask(question) for question in (QUESTION, "what did you hear?", "how many objects are there?")]
        answers = [asking.answer() for asking in askings]
        assert [answer.question for answer in answers] == [QUESTION, "what did you hear?", "how many objects are there?"]


# -- as it is ----------------------------------------------------------------------------------------------------


def test_a_socket_that_is_cut_in_the_middle_of_everything_loses_nothing(server, expected):
    proxy = Proxy(server.port, after=(30_000, 3_000, 120_000, 700, 500_000, 60_000))

    async def work():
        async with AsyncClient(proxy.url, options=OPTIONS) as client, client.live() as session:
            await session.rules.add("tell me when a bell rings")
            await show(session)
            await session.flush()
            proxy.cut()
            asking = session.ask(QUESTION)
            await anext(asking)
            proxy.cut()  # in the middle of an answer
            answer = await asking
            return answer, await fetched(session), session.stats

    try:
        answer, events, stats = asyncio.run(work())
    finally:
        proxy.close()
    assert answer.text.strip() == expected.text.strip()
    assert windows_of(events) == WHOLE
    numbers = [event.anymodal.seq for event in events if hasattr(event, "anymodal")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert proxy.cuts >= 6 and stats.reconnections == sum(isinstance(e, ConnectionBack) for e in events) >= 6
    assert (stats.dropped, stats.events_lost) == ({}, 0)


def test_an_outage_is_bridged_by_the_buffer_and_what_it_cannot_hold_is_counted(server):
    options = Options(**{**{n: getattr(OPTIONS, n) for n in OPTIONS.__dataclass_fields__}, "buffer_bytes": 200_000})

    async def work(proxy):
        async with AsyncClient(proxy.url, options=options) as client, client.live(streams={"video": "video"}) as session:
            for number in range(8):
                await session.push_frame(gradient_frame(48, number), number / 4, encoding="rgb8")
            await session.flush()
            proxy.target = 1  # nobody is there
            proxy.cut()
            asking = session.ask(QUESTION)
            for number in range(8, 80):
                await session.push_frame(gradient_frame(48, number), number / 4, encoding="rgb8")
            proxy.target = server.port
            answer = await asking
            await session.flush()
            return answer, await fetched(session), session.stats

    proxy = Proxy(server.port)
    try:
        answer, events, stats = asyncio.run(work(proxy))
    finally:
        proxy.close()
    assert answer.question == QUESTION and stats.dropped["video"] > 20
    assert [e.counts for e in events if isinstance(e, MediaDropped)][-1] == stats.dropped
    assert [window[0] for window in windows_of(events)] == list(range(20))  # each once, those without frames too


def test_a_server_that_is_restarted_is_found_again_with_its_session(bundle, folder, expected):
    state = folder / "restarted"
    proxy = Proxy(1)

    def begin():
        settings = Settings(port=0, state=state)
        return serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings)

    try:
        with Client(proxy.url, options=OPTIONS) as client:
            with begin() as first:
                proxy.target = first.port
                session = client.live().__enter__()
                client._loop.run(show(session._inner, 0, 3))
                rule = session.rules.add("tell me when a bell rings")
                deadline_s = time.monotonic() + 30
                while session.seen_s < 2 and time.monotonic() < deadline_s:
                    time.sleep(0.02)
            client._loop.run(show(session._inner, 3, 5))  # nobody is there
            with begin() as second:
                proxy.target = second.port
                client._loop.run(show(session._inner, 5, 6))
                session.flush()
                assert session.ask(QUESTION).answer().text.strip() == expected.text.strip()
                assert [r.name for r in session.rules.list()] == [rule.name]
                events = client._loop.run(fetched(session._inner))
                stats = session.stats
                session.close()
    finally:
        proxy.close()
    assert windows_of(events) == WHOLE
    assert stats.reconnections == 1 and stats.events_lost == 0 and stats.dropped == {}
