"""A client for `anymodal serve`. Light: needs neither torch, ray nor a decoder.

    from anymodal.client import Client

    with Client() as client:
        print(client.ask("clip.mp4", "what did you hear?").answer().text)

| module | what |
|---|---|
| client, sync | `AsyncClient`, and `Client`, which is the same in a thread of its own |
| live | a live session: push, ask, rules, search, events |
| link, outbox | its connection, which comes back by itself, and what has to be sent again |
| desk, asking, rules | who waits for what |
| encode, feeds | arrays, files and cameras as the protocol carries them |
| http | uploads, and answers about files |
| transport, testing | the seam, and a server to put there in your own tests |
| errors, events, options | the tree of errors, what `async for event` yields, every time and size |
"""

from __future__ import annotations

from anymodal.client.asking import Asking
from anymodal.client.client import AsyncClient
from anymodal.client.errors import (
    AnswerError,
    ClientError,
    ClosedError,
    DeniedError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    ProtocolError,
    RefusedError,
    ServerFaultError,
    SessionGoneError,
    UnreachableError,
    WaitedTooLongError,
)
from anymodal.client.events import (
    CameraBack,
    CameraLost,
    ConnectionBack,
    ConnectionLost,
    Event,
    MediaDropped,
    OtherEvent,
)
from anymodal.client.link import Ticket
from anymodal.client.live import LiveSession, Stats
from anymodal.client.options import Options
from anymodal.client.sync import Client, SyncAsking, SyncLiveSession
from anymodal.protocol import Hit, Rule, RuleEvent, WindowSeen
from anymodal.types import Answer, Delta, Evidence

__all__ = [
    "Answer", "AnswerError", "Asking", "AsyncClient", "CameraBack", "CameraLost", "Client", "ClientError",
    "ClosedError", "ConnectionBack", "ConnectionLost", "Delta", "DeniedError", "Event", "Evidence", "Hit",
    "InvalidError", "LiveSession", "MediaDropped", "NotFoundError", "Options", "OtherEvent", "OverloadedError",
    "ProtocolError", "RefusedError", "Rule", "RuleEvent", "ServerFaultError", "SessionGoneError", "Stats", "SyncAsking",
    "SyncLiveSession", "Ticket", "UnreachableError", "WaitedTooLongError", "WindowSeen",
]
