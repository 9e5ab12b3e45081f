"""The host of a session's mind, without Ray: who waits for whom at its one thread."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from actors import session_parts
from actors.runtime import Runtime
from actors.session_parts import SessionMindActor
from anymodal.stages.perceive import BATCH
from anymodal.types import Delta


class OneAtATime:
    """A mind that notes what it does. Each piece of an answer waits until it `may` be said."""

    def __init__(self, pieces: int) -> None:
        self.pieces, self.did, self.may = pieces, [], threading.Semaphore(0)

    def answer(self, state, question):
        for _ in range(self.pieces):
            assert self.may.acquire(timeout=30)
            self.did.append("piece")
            yield Delta("a")

    def extend_all(self, state, percepts):
        self.did.append(len(percepts))


def host(mind: OneAtATime) -> SessionMindActor:
    made = SessionMindActor("tiny", Runtime())
    made._mind, made._states = mind, {"session": SimpleNamespace()}
    return made


async def together(mind: OneAtATime, windows: int) -> None:
    """An answer begins, and then windows come."""
    actor = host(mind)
    await actor.begin("session", "answer", "what?", {})
    seeing = asyncio.ensure_future(actor.extend("session", list(range(windows))))
    for _ in range(mind.pieces):
        await asyncio.sleep(0.01)
        mind.may.release()
    async with asyncio.timeout(30):
        await seeing
        while await actor.next("answer"):
            pass


def test_windows_wait_for_an_answer_and_are_then_seen_together(monkeypatch):
    monkeypatch.setattr(session_parts, "ANSWERS_S", 30.0)
    mind = OneAtATime(pieces=5)
    asyncio.run(together(mind, windows=BATCH + 1))
    assert mind.did == ["piece"] * 5 + [BATCH, 1]


def test_windows_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(session_parts, "ANSWERS_S", 0.0)
    mind = OneAtATime(pieces=5)
    asyncio.run(together(mind, windows=3))
    assert mind.did.count("piece") == 5 and 1 in mind.did[:3], "one by one, between the pieces of the answer"
    assert sum(d for d in mind.did if d != "piece") == 3


def test_without_an_answer_no_window_waits():
    mind = OneAtATime(pieces=0)
    asyncio.run(host(mind).extend("session", list(range(2 * BATCH))))
    assert mind.did == [BATCH, BATCH]


def test_an_unknown_session_is_said_to_be_unknown():
    with pytest.raises(session_parts.RuntimeFault, match="does not know this session"):
        asyncio.run(host(OneAtATime(0)).extend("another", [1]))
