"""A server without sockets, for your own tests: put it where the transport is.

    server = FakeServer()
    server.answer("what did you hear?", "a bell", confidence=0.9, evidence=[(2.0, 3.0, "audio")])
    with Client(transport=server) as client:
        assert client.ask("clip.mp4", "what did you hear?").answer().text == "a bell"

It keeps the protocol's promises: numbers, tokens, what is sent again after a loss. Script it with `answer`, `hits`,
`rule_event`, `say`; disturb it with `cut`, `cuts`, `refuse`, `crash`; look at `uploads` and `sessions[...].taken`. Its
methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx

from anymodal import protocol
from anymodal.client.errors import UnreachableError
from anymodal.client.options import Options
from anymodal.client.transport import DroppedError
from anymodal.types import Evidence

T = TypeVar("T")
WANTS = {"video": {"rate_hz": 4.0, "size_px": 96}, "audio": {"rate_hz": 16000.0},
         "imu": {"rate_hz": 50.0, "axes": ["accel_x_m_s2", "accel_y_m_s2", "accel_z_m_s2", "gyro_x_rad_s", "gyro_y_rad_s",
                                  "gyro_z_rad_s"]}}
CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Scripted:
    """What is answered to a question."""

    text: str
    confidence: float
    evidence: tuple[Evidence, ...]

    @property
    def pieces(self) -> list[str]:
        """Word by word."""
        words = self.text.split(" ")
        return [word + " " for word in words[:-1]] + words[-1:]

    def extras(self, last_window: int = 0) -> dict[str, Any]:
        spans = [{"start_s": e.start_s, "end_s": e.end_s, "modality": e.modality} for e in self.evidence]
        return {"confidence": self.confidence, "evidence": spans, "at_s": 0.0, "last_window": last_window,
                "windows_missing": 0, "stale_s": 0.0, "frames_seen": 0, "frames_dropped": 0, "time_to_first_token_s": 0.0}


class FakeServer:
    """A `Transport`. `sessions`: by id. `uploads`: id -> (name, bytes). `asked`: bodies of chat completions.

    api_key: what clients must give. window_s: of media time; windows are told as media comes. ack_every: how many events
    of a client are safe at once. cuts: of each connection in turn, after how many events of the client and of the server
    it breaks; None is never.
    """

    def __init__(self, *, api_key: str | None = None, model: str = "fake", window_s: float = 1.0, ack_every: int = 1,
                 cuts: Iterable[tuple[int | None, int | None]] = ()) -> None:
        self.api_key, self.model, self.window_s, self.ack_every = api_key, model, window_s, ack_every
        self.cuts = deque(cuts)
        self.hits: list[dict[str, Any]] = []
        self.sessions: dict[str, FakeSession] = {}
        self.uploads: dict[str, tuple[str, bytes]] = {}
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self._answers: dict[str, Scripted] = {}
        self._refusals: deque[tuple[int, float]] = deque()

    # -- scripting -----------------------------------------------------------------------------------------------

    def answer(self, question: str, text: str, *, confidence: float = 1.0,
               evidence: Iterable[tuple[float, float, str]] = ()) -> None:
        """What to answer to a question; to others "I cannot tell" is."""
        self._answers[question] = Scripted(text, confidence, tuple(Evidence(*span) for span in evidence))

    def scripted(self, question: str) -> Scripted:
        return self._answers.get(question, Scripted("I cannot tell", 0.0, ()))

    def refuse(self, times: int = 1, status: int = 503, retry_after_s: float = 0.0) -> None:
        """The next requests and connections. Status 0: there is no server."""
        self._refusals.extend([(status, retry_after_s)] * times)

    def say(self, event: Mapping[str, Any]) -> None:
        """An event, such as {"type": "anymodal.rule.event", ...}, to every session; ids and numbers are put in."""
        for session in self.sessions.values():
            session.call(session.say, event)

    def rule_event(self, rule: str, text: str, t_s: float, *, confidence: float = 1.0) -> None:
        self.say({"type": "anymodal.rule.event", "rule": rule, "text": text, "t_s": t_s, "confidence": confidence,
                  "evidence": []})

    def cut(self) -> None:
        """Every connection breaks, with what is under way in it."""
        for session in self.sessions.values():
            session.call(session.cut)

    def crash(self) -> None:
        """As the death of a server's process: connections break, and what was not safe is forgotten."""
        for session in self.sessions.values():
            session.call(session.crash)

    # -- as a transport ------------------------------------------------------------------------------------------

    def http(self, url: str) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self._http)

    async def connect(self, url: str, headers: Mapping[str, str], options: Options) -> FakeConnection:
        await asyncio.sleep(0)
        self.connections += 1
        if self._refusals:
            status, _ = self._refusals.popleft()
            if not status:
                raise UnreachableError(f"no connection to {url}")
            return _refusing("rate_limit_error" if status == 429 else "server_error", "server_busy", "too busy", 1013)
        if self.api_key and headers.get("Authorization") != f"Bearer {self.api_key}":
            return _refusing("authentication_error", "invalid_api_key", "the API key is not known", 1008)
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        name = query.get("anymodal_session")
        if name is None:
            session = FakeSession(self, f"session-{len(self.sessions) + 1}")
            self.sessions[session.id] = session
        elif name not in self.sessions or self.sessions[name].token != query.get("anymodal_token"):
            return _refusing("invalid_request_error", "session_gone", "there is no such session", 1008)
        else:
            session = self.sessions[name]
        connection = FakeConnection(session, *(self.cuts.popleft() if self.cuts else (None, None)))
        session.join(connection, None if name is None else int(query["anymodal_last"]))
        return connection

    async def _http(self, request: httpx.Request) -> httpx.Response:
        if self._refusals:
            status, retry_after_s = self._refusals.popleft()
            if not status:
                raise httpx.ConnectError("nobody there", request=request)
            return httpx.Response(status, text=_error("server_busy", "too busy"),
                                  headers={"retry-after": str(retry_after_s)})
        if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return httpx.Response(401, text=_error("invalid_api_key", "the API key is not known"))
        body = await request.aread()
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"object": "list", "data": [{"id": self.model, "object": "model"}]})
        if request.url.path == "/v1/files" and request.method == "POST":
            return httpx.Response(200, json={"id": self._uploaded(body), "object": "file"})
        if request.url.path.startswith("/v1/files/") and request.method == "DELETE":
            gone = self.uploads.pop(request.url.path.rpartition("/")[2], None)
            return httpx.Response(200, json={"deleted": True}) if gone else _not_found("file_not_found")
        if request.url.path == "/v1/chat/completions":
            return self._chat(json.loads(body))
        return _not_found("not_found")

    def _uploaded(self, body: bytes) -> str:
        name = body.partition(b'filename="')[2].partition(b'"')[0].decode("utf-8", "replace")
        file_id = f"file-{len(self.uploads) + 1:032x}"
        self.uploads[file_id] = (name, body.partition(b'filename="')[2].partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0])
        return file_id

    def _chat(self, body: dict[str, Any]) -> httpx.Response:
        self.asked.append(body)
        parts = body["messages"][-1]["content"]
        for part in parts:
            address = part.get(part["type"], {}).get("url", "") if part["type"] != "text" else ""
            if address.startswith("file-") and address not in self.uploads:
                return _not_found("file_not_found")
        said = self.scripted(next(part["text"] for part in parts if part["type"] == "text"))
        chunks = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in said.pieces]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "anymodal": said.extras()})
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


class FakeSession:
    """What one live session has come to. `taken`: the client's events, each once."""

    def __init__(self, server: FakeServer, name: str) -> None:
        self.server, self.id, self.token = server, name, f"token-of-{name}"
        self.taken: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.safe = 0  # of the client's numbers
        self.streams = {name: name for name in WANTS}
        self.rules: dict[str, dict[str, Any]] = {}
        self.windows = 0
        self._rules_made = 0
        self._forgotten = 0  # of `said`: no longer kept
        self._seen_s = 0.0
        self._connection: FakeConnection | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def client_seq(self) -> int:
        return self.taken[-1]["anymodal"]["seq"] if self.taken else 0

    def call(self, function: Callable[..., T], *args: Any) -> T | None:
        """On the session's loop, from whatever thread."""
        try:
            if asyncio.get_running_loop() is self._loop:
                return function(*args)
        except RuntimeError:
            pass
        done: list[T] = []
        ready = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (done.append(function(*args)), ready.set()))
        ready.wait(CALL_TIMEOUT_S)
        return done[0] if done else None

    def say(self, event: Mapping[str, Any]) -> None:
        number = len(self.said) + 1
        self.said.append({"event_id": f"event-{number}", **event, "anymodal": {"seq": number}})
        if self._connection:
            self._connection.give(self.said[-1])

    def forget_said(self) -> None:
        """What was said so far is kept no longer for a client that comes back."""
        self._forgotten = len(self.said)

    def cut(self, code: int = 1006) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.die(code)

    def crash(self) -> None:
        self.cut()
        self.taken = [event for event in self.taken if event["anymodal"]["seq"] <= self.safe]

    def join(self, connection: FakeConnection, last: int | None) -> None:
        self.cut()
        self._connection = connection
        if last is None:
            self.say({"type": "session.created", "session": self._config()})
            return
        kept = max(last, self._forgotten)
        connection.give({"type": "anymodal.resumed", "event_id": "resumed", "anymodal": {"seq": last},
                         "session": self._config(), "client_seq": self.client_seq, "lost": kept - last})
        for event in self.said[kept:]:
            connection.give(event)

    def take(self, text: str) -> None:
        event = json.loads(text)
        protocol.client_events.validate_python(event)  # the protocol is kept on both sides
        seq = event["anymodal"]["seq"]
        if seq <= self.client_seq:
            return
        self.taken.append(event)
        if len(self.taken) % self.server.ack_every == 0 and self._connection:
            self.safe = seq
            self._connection.give({"type": "anymodal.ack", "event_id": "ack", "anymodal": {"seq": len(self.said)},
                                   "client_seq": seq})
        answer = {"session.update": self._update, "anymodal.input.append": self._append,
                  "anymodal.input.flush": self._flush, "response.create": self._respond, "anymodal.search": self._search,
                  "anymodal.session.close": self._close}.get(event["type"])
        if answer:
            answer(event)
        elif event["type"].startswith("anymodal.rule."):
            self._rule(event)

    def _config(self) -> dict[str, Any]:
        return {"type": "realtime", "id": self.id, "model": self.server.model, "anymodal": {
            "id": self.id, "token": self.token, "streams": self.streams, "wants": WANTS, "end_s": self._seen_s,
            "window_s": self.server.window_s, "resumable_s": 120.0}}

    def _update(self, event: dict[str, Any]) -> None:
        self.streams = (event["session"].get("anymodal") or {}).get("streams") or self.streams
        self.say({"type": "session.updated", "session": self._config()})

    def _append(self, event: dict[str, Any]) -> None:
        if event["stream"] not in self.streams:
            self._fault(event, "unknown_stream", f"no stream {event['stream']!r}")
            return
        length_s = event["shape"][0] / event["rate_hz"] if event.get("rate_hz") else 0.0
        self._seen_s = max(self._seen_s, event["pts_s"] + length_s)
        while (self.windows + 1) * self.server.window_s <= self._seen_s:
            self._window()

    def _flush(self, event: dict[str, Any]) -> None:
        while self.windows * self.server.window_s < self._seen_s:
            self._window()
        self.say({"type": "anymodal.input.flushed", "end_s": self._seen_s})

    def _window(self) -> None:
        start_s = self.windows * self.server.window_s
        self.windows += 1
        self.say({"type": "anymodal.window", "index": self.windows - 1, "start_s": start_s,
                  "end_s": start_s + self.server.window_s, "streams": list(self.streams)})

    def _respond(self, event: dict[str, Any]) -> None:
        config = event.get("response") or {}
        said = self.server.scripted(config["input"][-1]["content"][-1]["text"])
        response = {"id": f"resp-{len(self.taken)}", "metadata": config.get("metadata"), "status": "in_progress"}
        where = {"response_id": response["id"], "item_id": f"item-{len(self.taken)}"}
        self.say({"type": "response.created", "response": response})
        for piece in said.pieces:
            self.say({"type": "response.output_text.delta", **where, "delta": piece})
        self.say({"type": "response.output_text.done", **where, "text": said.text})
        self.say({"type": "response.done", "response": {**response, "status": "completed",
                                                        "anymodal": said.extras(self.windows - 1)}})

    def _search(self, event: dict[str, Any]) -> None:
        self.say({"type": "anymodal.search.results", "query": event["query"], "hits": self.server.hits})

    def _rule(self, event: dict[str, Any]) -> None:
        what, name = event["type"].rpartition(".")[2], event.get("name")
        if what in ("pause", "resume", "remove") and name not in self.rules:
            self._fault(event, "invalid_session", f"no rule {name!r}")
            return
        if what == "add":
            self._rules_made += 1
            self.rules[f"rule-{self._rules_made}"] = {"name": f"rule-{self._rules_made}", "text": event["text"]}
        elif what == "remove":
            del self.rules[name]
        elif what != "list":
            self.rules[name]["paused"] = what == "pause"
        self.say({"type": "anymodal.rules", "rules": [dict(rule) for rule in self.rules.values()]})

    def _fault(self, event: dict[str, Any], code: str, message: str) -> None:
        self.say({"type": "error", "error": {"type": "invalid_request_error", "code": code, "message": message,
                                             "event_id": event.get("event_id")}})

    def _close(self, event: dict[str, Any]) -> None:
        self.server.sessions.pop(self.id, None)
        self.cut(1000)


class FakeConnection:
    """`takes`, `gives`: after so many events of the client and of the server it breaks; the next is lost."""

    def __init__(self, session: FakeSession | None, takes: int | None = None, gives: int | None = None) -> None:
        self._session, self._takes, self._gives = session, takes, gives
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._dead = False
        self._close: DroppedError | None = None

    def give(self, event: dict[str, Any]) -> None:
        self._queue.put_nowait(event)

    def die(self, code: int, reason: str = "cut", *, at_once: bool = True) -> None:
        """With what is under way in it, or behind that."""
        self._close = DroppedError(code, reason)
        self._dead = at_once
        self._queue.put_nowait(None)

    async def send(self, text: str) -> None:
        await asyncio.sleep(0)
        self._check()
        if self._takes == 0:  # it looks as if it had gone
            self._session.cut()
            return
        self._takes = self._takes and self._takes - 1
        self._session.take(text)

    async def receive(self) -> str:
        event = await self._queue.get()
        self._dead = self._dead or event is None
        self._check()
        if self._gives == 0:
            self._session.cut()
            self._check()
        self._gives = self._gives and self._gives - 1
        return json.dumps(event)

    async def close(self) -> None:
        if self._close is None and self._session:
            self._session.cut(1000)

    def _check(self) -> None:
        if self._dead:
            raise self._close


def _refusing(kind: str, code: str, message: str, close: int) -> FakeConnection:
    """A connection that says why not, and closes."""
    connection = FakeConnection(None)
    connection.give({"type": "error", "event_id": "refusal", "anymodal": {"seq": 0},
                     "error": {"type": kind, "code": code, "message": message}})
    connection.die(close, f"{code}: {message}", at_once=False)
    return connection


def _error(code: str, message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code, "param": None}})


def _not_found(code: str) -> httpx.Response:
    return httpx.Response(404, text=_error(code, "there is none"))
