"""`WS /v1/realtime` on a real server: the unmodified `openai` SDK, sockets that are killed, gateways that are killed, and
clients that send what they should not. On random weights: answers are gibberish, which differs with what was seen.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from actors.gateway.fuzz import fuzz, messages
from actors.gateway.g711 import decoded
from actors.gateway.hosts import ActorHost, LocalHost
from actors.gateway.inbox import Inbox, Waiting
from actors.gateway.inputs import Piece
from actors.gateway.keys import Key
from actors.gateway.live import Live
from actors.gateway.settings import Settings
from actors.gateway.testing import serving
from anymodal import protocol as p
from anymodal.testing import FakeClock, gradient_frame, slowed
from anymodal.types import Packet

pytestmark = [pytest.mark.timeout(300),  # and the SDK calls websockets in a way that is to end
              pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning:openai")]
QUESTION = "what colour is it?"
WAIT_S = 60.0  # for what has to come; a working server takes a moment
KEYS = {"good": "good-key-good-key-good", "old": "old-key-old-key-old-key"}


class Ears:
    """Hears loud as speech; an utterance ends with silence."""

    name = "fake ears"

    def __init__(self):
        self.at, self.loud = 0, []

    def listener(self, rate_hz, **options):
        return Ears()

    def push(self, samples):
        self.at += len(samples)
        if np.abs(samples).mean() > 0.1:
            self.loud.append(samples)
            return [SimpleNamespace(t_s=(self.at - len(samples)) / 16000)] if len(self.loud) == 1 else []
        said, self.loud = self.loud, []
        return [SimpleNamespace(t_s=self.at / 16000, samples=np.concatenate(said))] if said else []

    def transcribe(self, samples, rate_hz):
        assert rate_hz == 16000 and len(samples)
        return QUESTION


def settings(folder: Path, **more) -> Settings:
    """A machine that is busy with other tests must not make streams idle."""
    return Settings(port=0, state=folder, **{"idle_timeout_s": 30.0, "requests_per_min": 1e6, **more})


@pytest.fixture(scope="module")
def server(bundle, folder):
    with serving(LocalHost(bundle, folder=folder / "sessions", threads=1), settings(folder)) as found:
        yield found


@contextmanager
def own_server(bundle, folder, **more):
    with serving(LocalHost(bundle, folder=folder / "sessions", threads=1), settings(folder, **more)) as found:
        yield found


def opened(url: str, **options):
    """A socket, to be closed by hand."""
    return ExitStack().enter_context(connect(url, max_size=None, close_timeout=1, **options))


class Client:
    """A plain client that numbers its events and notes what it gets."""

    def __init__(self, server, query: str = "", *, numbered: bool = True, url: str = "", sensors: bool = False, **options):
        self.url, self.seq, self.numbered, self.got = url or server.ws_url, 0, numbered, []
        self.sensors = sensors
        self.ws = opened(f"{self.url}/v1/realtime?{query}", **options)

    def send(self, kind: str, **fields) -> int:
        self.seq += 1
        event = {"type": kind, **fields} | ({"anymodal": {"seq": self.seq}} if self.numbered else {})
        self.ws.send(json.dumps(event))
        return self.seq

    def next(self) -> dict:
        self.got.append(json.loads(self.ws.recv(WAIT_S)))
        return self.got[-1]

    def until(self, kind: str, **fields) -> dict:
        while True:
            event = self.next()
            assert kind == "error" or event["type"] != "error", event
            if event["type"] == kind and fields.items() <= event.items():
                return event

    def of(self, kind: str) -> list[dict]:
        return [event for event in self.got if event["type"] == kind]

    def frame(self, second: float, number: int | None = None) -> int:
        number = round(second * 4) if number is None else number
        return self.send("anymodal.input.append", stream="video", pts_s=second, encoding="png", data=png(number))

    def sound(self, second: float, seconds: float = 0.25) -> int:
        return self.send("anymodal.input.append", stream="audio", pts_s=second, rate_hz=16000, encoding="float32",
                         data=packed(tone(second, seconds)))

    def second(self, k: int) -> None:
        for quarter in range(4):
            self.frame(k + quarter / 4)
            self.sound(k + quarter / 4)

    def ask(self, question: str = QUESTION, **extras) -> dict:
        self.send("conversation.item.create", item=said(question))
        self.send("response.create", **({"response": {"anymodal": extras}} if extras else {}))
        return self.until("response.done")["response"]

    def cut(self, relay) -> None:
        relay.cut()
        with pytest.raises(ConnectionClosed):
            while True:
                self.next()

    @property
    def last(self) -> int:
        return self.got[-1]["anymodal"]["seq"]

    def back(self, server=None, url: str = "") -> Client:
        """The same session on a new socket."""
        made = object.__new__(Client)
        mine = self.session["anymodal"]
        made.__dict__.update(self.__dict__, url=url or (server.ws_url if server else self.url), got=[])
        made.ws = opened(f"{made.url}/v1/realtime?anymodal_session={mine['id']}&anymodal_token={mine['token']}"
                         f"&anymodal_last={self.last}")
        made.before = self
        return made

    @property
    def session(self) -> dict:
        return self.of("session.created")[0]["session"] if self.of("session.created") else self.before.session

    def begin(self) -> Client:
        """Declares what it sends, so that windows wait for nothing else."""
        self.until("session.created")
        if not self.sensors:
            streams = {"video": "video", "audio": "audio"}
            self.ws.send(json.dumps({"type": "session.update", "session": {"anymodal": {"streams": streams}}}))
            self.until("session.updated")
        return self

    def __enter__(self):
        return self.begin()

    def __exit__(self, *_):
        try:
            self.send("anymodal.session.close")
            until_s = time.monotonic() + WAIT_S
            while time.monotonic() < until_s:
                self.ws.recv(5)
            self.ws.close()
        except (ConnectionClosed, TimeoutError):
            self.ws.close()


class Relay:
    """A way to the server that can be cut: both sides get a reset."""

    def __init__(self, port: int):
        self._to, self._pairs, self._door = port, [], socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._run(self._accept)

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for sock in (s for pair in pairs for s in pair):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RD)  # its reader leaves it
            sock.close()

    def _accept(self) -> None:
        while True:
            here, _ = self._door.accept()
            there = socket.create_connection(("127.0.0.1", self._to))
            self._pairs.append((here, there))
            for one, other in ((here, there), (there, here)):
                self._run(self._pass, one, other)

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)

    def _run(self, work, *given) -> None:
        def quietly() -> None:
            with suppress(OSError):
                work(*given)

        threading.Thread(target=quietly, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._door.close()
        self.cut()


@pytest.fixture
def relay(server):
    with Relay(server.port) as found:
        yield found


def png(number: int, size: int = 32, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(gradient_frame(size, number)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def tone(start_s: float, seconds: float, hz: int = 16000) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * (np.arange(round(seconds * hz)) / hz + start_s))).astype(np.float32)


def packed(samples: np.ndarray) -> str:
    return base64.b64encode(samples.tobytes()).decode()


def pcm(samples: np.ndarray) -> str:
    return packed((samples * 32767).astype("<i2"))


def said(question: str) -> dict:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": question}]}


def closed_with(client: Client) -> tuple[int, list[str]]:
    """The close code, and the codes of the errors before it."""
    try:
        while True:
            client.next()
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else 1006, [e["error"]["code"] for e in client.of("error")]


def answer_in_process(agent, seconds: int):
    """What a session of this process answers about the same frames and sound."""
    with agent.open(streams={"video": "video", "audio": "audio", "imu": "imu"}) as session:
        for k in range(seconds * 4):
            session.push(Packet("video", "video", k / 4, gradient_frame(32, k), 4))
            session.push(Packet("audio", "audio", k / 4, tone(k / 4, 0.25), 16000))
        session.flush()
        return session.ask(QUESTION)


# -- the SDK ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sdk(relay):
    with openai.OpenAI(api_key="any-key-will-do-here", base_url=f"http://127.0.0.1:{relay.port}/v1") as client:
        yield client


def test_the_sdk_shows_frames_and_sound_and_asks(server, sdk):
    kinds, text = [], ""
    with sdk.realtime.connect(model=server.gateway.host.name) as conn:
        assert conn.recv().type == "session.created"
        conn.session.update(session={"type": "realtime", "output_modalities": ["text"],
                                     "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}})
        for k in range(8):
            conn.input_audio_buffer.append(audio=pcm(tone(k / 4, 0.25, 24000)))
            image = {"type": "input_image", "image_url": f"data:image/png;base64,{png(k)}"}
            conn.conversation.item.create(item={"type": "message", "role": "user", "content": [image]})
        conn.conversation.item.create(item=said(QUESTION))
        conn.response.create()
        for event in conn:
            kinds.append(event.type)
            assert event.type != "error", event
            text += event.delta if event.type == "response.output_text.delta" else ""
            if event.type == "response.done":
                done = event.response
            if event.type == "rate_limits.updated":  # behind the answer
                break
        conn.send({"type": "anymodal.session.close"})
    assert done.status == "completed" and done.output[0].content[0].text.strip() == text.strip() != ""
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens > 0
    assert done.anymodal["frames_seen"] >= 8 and done.anymodal["last_window"] >= 1
    assert {"confidence", "evidence", "stale_s", "time_to_first_token_s"} <= set(done.anymodal)
    assert [k for k in kinds if k.startswith("response.")][0] == "response.created"
    assert {"session.updated", "conversation.item.added", "conversation.item.done", "rate_limits.updated"} <= set(kinds)
    assert [(r.name, r.limit) for r in event.rate_limits] == [("requests", 1_000_000)]


def test_the_sdk_retrieves_and_deletes_items_and_speaks_g711(server, sdk):
    """What OpenAI's conversations have, through its own client: items by their ids, and sound as telephones send it."""
    law = bytes([0xFF, 0x80, 0x00, 0x7F] * 2000)  # a second
    passed: list = []

    def heard(kind: str):
        """The next event of a kind; what comes before it is in `passed`: windows are told whenever they are seen."""
        for event in conn:
            if event.type == kind:
                return event
            passed.append(event)
        raise AssertionError(f"the socket was closed before {kind}")

    with sdk.realtime.connect(model=server.gateway.host.name) as conn:
        conn.session.update(session={"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}})
        conn.conversation.item.create(item={**said(QUESTION), "id": "mine"})
        conn.input_audio_buffer.append(audio=base64.b64encode(law).decode())
        conn.conversation.item.retrieve(item_id="mine")
        found = heard("conversation.item.retrieved")
        assert found.item.content[0].text == QUESTION
        conn.conversation.item.delete(item_id="mine")
        assert heard("conversation.item.deleted").item_id == "mine"
        conn.response.create()
        assert heard("error").error.code == "no_question"
        conn.conversation.item.retrieve(item_id="mine")
        assert heard("error").error.code == "item_not_found"
        conn.send({"type": "anymodal.input.flush"})
        window = next((e for e in passed if e.type == "anymodal.window"), None) or heard("anymodal.window")
        assert (window.index, window.end_s, window.streams) == (0, 1.0, ["audio"])
        conn.conversation.item.create(item=said(QUESTION))
        conn.response.create()
        done = heard("response.done").response
        conn.conversation.item.retrieve(item_id=done.output[0].id)
        kept = heard("conversation.item.retrieved").item
        assert kept.content[0].text == done.output[0].content[0].text and kept.role == "assistant"
        conn.session.update(session={"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcma"}}}})
        wanted = {"type": "audio/pcma"}
        passed.clear()
        assert heard("session.updated").session.audio.input.format.model_dump(exclude_none=True) == wanted
        conn.send({"type": "anymodal.session.close"})


@pytest.mark.parametrize(("law", "codec"), [("pcmu", "pcm_mulaw"), ("pcma", "pcm_alaw")])
def test_g711_is_decoded_as_by_ffmpeg(law, codec):
    import av

    data = bytes(range(256))
    context = av.CodecContext.create(codec, "r")
    context.sample_rate, context.layout = 8000, "mono"
    (frame,) = context.decode(av.Packet(data))
    assert np.array_equal(decoded(data, law), frame.to_ndarray()[0].astype(np.float32) / 32768)


def test_instructions_that_a_model_does_not_read_are_warned_of(server):
    with Client(server) as client:
        client.send("session.update", event_id="mine", session={"instructions": "be short"})
        assert client.until("session.updated")["session"]["instructions"] == "be short"
        warned = client.until("anymodal.warning")
        assert warned["code"] == "instructions_not_read" and warned["client_event_id"] == "mine"
        assert "random" in warned["message"] and warned["param"] == "session.instructions"
        client.second(0)
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
        plain = client.ask()
        client.send("session.update", session={"instructions": ""})
        client.until("session.updated")
        assert client.ask()["output"][0]["content"] == plain["output"][0]["content"]  # they were not read
        client.send("response.create", response={"instructions": "say where", "input": [said(QUESTION)]})
        assert client.until("anymodal.warning")["param"] == "response.instructions"
        assert client.until("response.done")["response"]["status"] == "completed"


def test_instructions_are_read_before_the_question_by_a_model_made_for_them(server, monkeypatch):
    """The shipped model stands in for one with a text template: what it is asked is what is tested here."""
    monkeypatch.setattr(Live, "reads_instructions", True)
    with Client(server) as client:
        client.second(0)
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
        plain = client.ask()["usage"]["input_tokens"]
        client.send("session.update", session={"instructions": "be short"})
        client.until("session.updated")
        told = client.ask()["usage"]["input_tokens"]
        client.send("response.create", response={"instructions": "", "input": [said(QUESTION)]})
        assert client.until("response.done")["response"]["usage"]["input_tokens"] == plain < told
        assert not client.of("anymodal.warning")


def test_the_sdks_own_reconnect_goes_on_with_the_session(server, sdk, relay):
    """Its hook adds the token and the last number; nothing is lost, nothing comes twice."""
    seen, session, asked = [], {}, []

    def on_reconnecting(event):
        asked.append(event.close_code)
        return {"extra_query": {"anymodal_session": session["id"], "anymodal_token": session["token"],
                                "anymodal_last": str(seen[-1]["anymodal"]["seq"])}}

    with sdk.realtime.connect(model=server.gateway.host.name, on_reconnecting=on_reconnecting, initial_delay=0.05) as conn:
        first = json.loads(conn.recv_bytes())
        session.update(first["session"]["anymodal"])
        seen.append(first)
        for k in range(8):
            conn.send({"type": "anymodal.input.append", "stream": "video", "pts_s": k / 4, "encoding": "png",
                       "data": png(k)})
        conn.send({"type": "anymodal.input.flush"})
        conn.conversation.item.create(item=said(QUESTION))
        conn.response.create()
        for event in conn:
            seen.append({"type": event.type, **event.model_dump()})
            if event.type == "response.output_text.delta" and not asked:
                relay.cut()
            if {"response.done", "anymodal.resumed"} <= {e["type"] for e in seen}:  # all may have come before the cut
                break
        conn.send({"type": "anymodal.session.close"})
    numbers = [e["anymodal"]["seq"] for e in seen if e["type"] != "anymodal.resumed"]
    assert asked == [1006] and [e["type"] for e in seen].count("anymodal.resumed") == 1
    assert numbers == list(range(1, numbers[-1] + 1))
    text = "".join(e["delta"] for e in seen if e["type"] == "response.output_text.delta")
    done = next(e for e in seen if e["type"] == "response.done")
    assert done["response"]["output"][0]["content"][0]["text"].strip() == text.strip()
    assert [e["index"] for e in seen if e["type"] == "anymodal.window"] == [0, 1]


# -- what is seen -------------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_a_session_in_process(server, agent):
    wanted = answer_in_process(agent, 3)
    with Client(server) as client:
        for k in range(3):
            client.second(k)
        client.send("anymodal.input.flush")
        assert client.until("anymodal.input.flushed")["end_s"] == 3.0
        done = client.ask()
    windows = client.of("anymodal.window")
    assert [(w["index"], set(w["streams"]), w["dropped"]) for w in windows] == [
        (k, {"video", "audio"}, {}) for k in range(3)]
    assert done["output"][0]["content"][0]["text"] == wanted.text
    assert done["anymodal"]["confidence"] == pytest.approx(wanted.confidence, abs=1e-6)
    assert done["anymodal"]["at_s"] == 3.0 and done["anymodal"]["frames_seen"] == wanted.frames_seen


def test_a_question_waits_for_its_time_and_dialogues_go_on(server):
    with Client(server) as client:
        client.second(0)
        client.send("response.create", response={"input": [said(QUESTION)], "metadata": {"n": "1"},
                                                 "anymodal": {"at_s": 2.0, "wait_s": WAIT_S, "dialogue": "a"}})
        client.until("response.created")
        client.second(1)
        client.frame(2.0)
        client.sound(2.0)
        done = client.until("response.done")["response"]
        assert done["status"] == "completed" and done["anymodal"]["last_window"] == 1 and done["metadata"] == {"n": "1"}
        late = client.ask(at_s=50.0)
        assert late["status"] == "failed" and late["status_details"]["error"]["code"] == "invalid_question"


def test_streams_are_declared_and_sensors_come_at_any_rate(server):
    with Client(server, sensors=True) as client:
        client.send("session.update", session={"anymodal": {"streams": {"left": "video", "phone": "imu"}}})
        assert client.until("session.updated")["session"]["anymodal"]["streams"] == {"left": "video", "phone": "imu"}
        for k in range(130):  # 65 Hz, one by one
            client.send("anymodal.input.append", stream="phone", modality="imu", pts_s=k / 65, rate_hz=65,
                        encoding="float32", shape=[1, 6], data=packed(np.full((1, 6), k, np.float32)))
            if k % 16 == 0:
                client.send("anymodal.input.append", stream="left", pts_s=k / 65, encoding="jpeg",
                            data=png(k, 80, "JPEG"))
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
    assert {s for w in client.of("anymodal.window") for s in w["streams"]} == {"left", "phone"}
    assert not client.of("error")


def test_rules_are_told_listed_and_changed(server):
    with Client(server) as client:
        client.send("anymodal.rule.add", text="tell me when a bell rings")
        rule = client.until("anymodal.rules")["rules"][0]
        assert rule == {"name": "rule-1", "text": "tell me when a bell rings", "paused": False, "active": False}
        for kind, wanted in (("pause", [True]), ("resume", [False]), ("remove", [])):
            client.send(f"anymodal.rule.{kind}", name="rule-1")
            assert [r["paused"] for r in client.until("anymodal.rules")["rules"]] == wanted
        client.send("anymodal.rule.list")
        assert client.until("anymodal.rules")["rules"] == []
        for text in ("tell me when a bell rings", "tell me when it is red", "tell me when the device moves"):
            client.send("anymodal.rule.add", text=text)
        for k in range(4):
            client.second(k)
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
        client.send("anymodal.rule.list")
        active = {r["name"] for r in client.until("anymodal.rules")["rules"] if r["active"]}
    events = client.of("anymodal.rule.event")
    assert len({(e["rule"], e["t_s"]) for e in events}) == len(events)
    assert active <= {e["rule"] for e in events} and all(e["text"].startswith("tell me") for e in events)


def test_the_past_is_searched_and_windows_say_what_they_show(folder):
    with own_server("tiny", folder / "tiny") as server, Client(server, "model=tiny") as client:
        frame = np.full((96, 96, 3), 40, np.uint8)
        y, x = np.mgrid[:96, :96]
        frame[(y - 48) ** 2 + (x - 48) ** 2 < 400] = (255, 0, 0)
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        for k in range(9):
            client.send("anymodal.input.append", stream="video", pts_s=k / 4, encoding="png", data=data)
        client.send("anymodal.search", query="red circle")
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
        client.send("anymodal.search", query="red circle")
        hits = client.until("anymodal.search.results")["hits"]
        assert client.until("anymodal.search.results") if not hits else True
        hits = client.of("anymodal.search.results")[-1]["hits"]
        assert hits and hits[0]["modality"] == "video" and hits[0]["start_s"] == 0.0
        assert "red circle" in {s["text"] for w in client.of("anymodal.window") for s in w["says"]}
        assert client.ask("what colour is the circle?")["output"][0]["content"][0]["text"]


# -- breaking off and coming back ---------------------------------------------------------------------------------


def test_a_killed_socket_loses_and_doubles_nothing(server, agent, relay):
    """Frames that were lost on the way are sent again, as are some that were not."""
    wanted = answer_in_process(agent, 4)
    with Client(server, url=f"ws://127.0.0.1:{relay.port}") as client:
        client.second(0)
        client.second(1)
        client.until("anymodal.window", index=0)
        client.cut(relay)
        time.sleep(0.3)
        back = client.back()
        resumed = back.next()
        assert resumed["type"] == "anymodal.resumed" and resumed["lost"] == 0 and resumed["client_seq"] == 16
        assert resumed["anymodal"]["seq"] == client.last
        back.seq = 8  # everything of the second second once more
        for k in (1, 2, 3):
            back.second(k)
        back.send("anymodal.input.flush")
        back.until("anymodal.input.flushed")
        done = back.ask()
        events = [e for e in client.got + back.got if e["type"] not in ("anymodal.ack", "anymodal.resumed")]
        assert [e["anymodal"]["seq"] for e in events] == list(range(1, len(events) + 1))
        windows = [e for e in events if e["type"] == "anymodal.window"]
        assert [w["index"] for w in windows] == [0, 1, 2, 3] and all(not w["dropped"] for w in windows)
        assert done["output"][0]["content"][0]["text"] == wanted.text
        client.ws, client.got = back.ws, back.got + client.got


def test_an_answer_goes_on_without_a_socket(server, relay):
    with Client(server, url=f"ws://127.0.0.1:{relay.port}") as client:
        client.second(0)
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
        client.send("conversation.item.create", item=said(QUESTION))
        client.send("response.create")
        client.until("response.created")
        client.cut(relay)
        back = client.back()
        back.until("anymodal.resumed")
        done = next((e for e in client.got if e["type"] == "response.done"), None)  # it may have come before the cut
        assert (done or back.until("response.done"))["response"]["status"] == "completed"
        numbers = [e["anymodal"]["seq"] for e in back.got[1:] if e["type"] != "anymodal.ack"]
        assert numbers == list(range(client.last + 1, client.last + 1 + len(numbers)))
        client.ws = back.ws


def test_a_number_is_taken_once_and_acknowledged(server):
    with Client(server) as client:
        for _ in range(3):
            client.seq = 4
            client.send("anymodal.rule.add", text="tell me when a bell rings")
        client.send("anymodal.rule.list")
        assert len(client.until("anymodal.rules")["rules"]) == 1
        assert len(client.until("anymodal.rules")["rules"]) == 1
        while client.next().get("client_seq") != 6:
            pass
        assert not client.of("error")


def test_a_newer_connection_takes_the_session_over(server):
    with Client(server) as client:
        back = client.back()
        assert back.next()["type"] == "anymodal.resumed"
        assert closed_with(client)[0] == 1008
        back.send("anymodal.rule.list")
        assert back.until("anymodal.rules")
        client.ws = back.ws


def test_a_session_that_nobody_comes_back_to_ends(bundle, tmp_path):
    with own_server(bundle, tmp_path, resumable_s=0.5) as server:
        client = Client(server).begin()
        client.second(0)
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
        assert list((tmp_path / "sessions").iterdir())
        client.ws.close()
        deadline_s = time.monotonic() + WAIT_S
        while list((tmp_path / "sessions").iterdir()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert list((tmp_path / "sessions").iterdir()) == [] and server.gateway.sessions.taken == 0
        assert closed_with(client.back()) == (1008, ["session_gone"])


def test_a_drained_gateway_keeps_sessions(bundle, tmp_path):
    with own_server(bundle, tmp_path) as server:
        client = Client(server).begin()
        client.second(0)
        client.sound(1.0)
        client.send("anymodal.rule.add", text="tell me when a bell rings")
        client.until("anymodal.rules")
        client.send("conversation.item.create", item=said(QUESTION))
        client.until("conversation.item.done")
        server.drain()
        assert closed_with(client) == (1012, [])
    with own_server(bundle, tmp_path) as server:
        back = client.back(server)
        safe = back.until("anymodal.resumed")["client_seq"]
        back.seq = safe
        assert safe < 10
        for n in range(safe + 1, 10):  # as the client that has kept them would
            (back.sound if n % 2 == 0 else back.frame)((n - 1) // 2 / 4)
        back.seq = 10
        back.send("conversation.item.create", item=said(QUESTION))  # was done, and is not done again
        back.send("response.create")
        done = back.until("response.done")["response"]
        assert done["status"] == "completed" and back.of("conversation.item.done")[0]["item"]["role"] != "user"
        back.send("anymodal.rule.list")
        assert len(back.until("anymodal.rules")["rules"]) == 1
        events = [e for e in client.got + back.got if e["type"] not in ("anymodal.ack", "anymodal.resumed")]
        assert [e["anymodal"]["seq"] for e in events] == list(range(1, len(events) + 1))
        back.__exit__()


GATEWAY = """
import sys
from pathlib import Path
from actors.gateway.hosts import ActorHost, LocalHost
from actors.gateway.settings import Settings
from actors.gateway.testing import serving
folder = Path(sys.argv[2])
with serving(LocalHost(sys.argv[1], folder=folder / "sessions", threads=1),
             Settings(port=0, state=folder, idle_timeout_s=30.0)) as server:
    print(server.ws_url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def gateway_process(bundle, folder):
    process = subprocess.Popen([sys.executable, "-c", GATEWAY, str(bundle), str(folder)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdin.close()
        process.stdout.close()


def test_a_killed_gateway_keeps_what_was_acknowledged_and_does_nothing_twice(bundle, tmp_path, agent):
    wanted = answer_in_process(agent, 4)
    with gateway_process(bundle, tmp_path) as (process, url):
        client = Client(None, url=url).begin()
        client.send("anymodal.rule.add", text="tell me when a bell rings")
        sent = {}
        for k in range(3):
            first = client.seq + 1
            client.second(k)
            sent.update({n: k for n in range(first, client.seq + 1)})
        client.until("anymodal.window", index=0)
        while client.next()["type"] != "anymodal.ack" or client.got[-1]["client_seq"] < 5:
            pass
        os.kill(process.pid, signal.SIGKILL)
        assert closed_with(client)[0] == 1006
        acked = client.of("anymodal.ack")[-1]["client_seq"]
    with gateway_process(bundle, tmp_path) as (_, url):
        back = client.back(url=url)
        resumed = back.until("anymodal.resumed")
        assert acked <= resumed["client_seq"] < client.seq and resumed["lost"] == 0
        back.seq = resumed["client_seq"]
        while back.seq < 25:  # what was not acknowledged
            n = back.seq - 1
            (back.frame if n % 2 == 0 else back.sound)(n // 2 / 4)
        back.second(3)
        back.send("anymodal.input.flush")
        back.until("anymodal.input.flushed")
        done = back.ask()
        back.send("anymodal.rule.list")
        assert len(back.until("anymodal.rules")["rules"]) == 1
        events = [e for e in client.got + back.got if e["type"] not in ("anymodal.ack", "anymodal.resumed")]
        assert [e["anymodal"]["seq"] for e in events] == list(range(1, len(events) + 1))
        windows = [e for e in events if e["type"] == "anymodal.window"]
        assert [w["index"] for w in windows] == [0, 1, 2, 3] and all(not w["dropped"] for w in windows)
        assert done["output"][0]["content"][0]["text"] == wanted.text
        back.ws.close()


# -- answers that end early, and speech ---------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch):
    """Answers whose pieces take a while."""
    from anymodal.session.asking import Asking

    following = Asking.__next__

    def late(self):
        time.sleep(0.15)
        return following(self)

    monkeypatch.setattr(Asking, "__next__", late)


def test_an_answer_is_cancelled_and_two_at_once_are_refused(server, slow):
    with Client(server) as client:
        client.second(0)
        client.send("conversation.item.create", item=said(QUESTION))
        client.send("response.create")
        client.until("response.output_text.delta")
        client.send("response.create", event_id="second")
        error = client.until("error")["error"]
        assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "second")
        client.send("response.cancel")
        done = client.until("response.done")["response"]
        assert done["status"] == "cancelled" and done["status_details"]["reason"] == "client_cancelled"
        client.send("response.cancel")
        assert client.until("error")["error"]["code"] == "response_cancel_not_active"
        assert client.ask()["status"] == "completed"


def test_speech_is_a_question_and_ends_an_answer(bundle, tmp_path, slow):
    loud, quiet = pcm(tone(0, 0.25, 24000)), pcm(np.zeros(6000, np.float32))
    with own_server(bundle, tmp_path) as server:
        server.gateway.speech = Ears()
        client = Client(server).begin()
        assert client.session["anymodal"]["speech"] == "fake ears"
        for audio in (quiet, loud, loud, quiet):
            client.send("input_audio_buffer.append", audio=audio)
        started = client.until("input_audio_buffer.speech_started")
        assert 200 <= started["audio_start_ms"] <= 300
        assert client.until("input_audio_buffer.speech_stopped")["item_id"] == started["item_id"]
        told = client.until("conversation.item.input_audio_transcription.completed")
        assert (told["transcript"], told["item_id"]) == (QUESTION, started["item_id"])
        client.until("response.output_text.delta")
        client.send("input_audio_buffer.append", audio=loud)
        done = client.until("response.done")["response"]
        assert done["status"] == "cancelled" and done["status_details"]["reason"] == "turn_detected"
        client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        client.send("input_audio_buffer.clear")
        client.until("input_audio_buffer.cleared")
        client.send("input_audio_buffer.commit")
        assert client.until("error")["error"]["code"] == "input_audio_buffer_commit_empty"
        client.send("input_audio_buffer.append", audio=loud)
        client.send("input_audio_buffer.commit")
        client.send("response.create")
        client.until("input_audio_buffer.committed")
        assert client.until("response.done")["response"]["status"] == "completed"


def test_without_ears_a_spoken_question_is_refused_in_words(server):
    with Client(server) as client:
        client.send("input_audio_buffer.append", audio=pcm(tone(0, 0.25, 24000)))
        client.send("input_audio_buffer.commit")
        assert client.until("conversation.item.input_audio_transcription.failed")["error"]["code"] == "no_speech"


# -- what should not be sent --------------------------------------------------------------------------------------

APPEND = {"type": "anymodal.input.append", "stream": "video", "pts_s": 0.0, "encoding": "jpeg", "data": "AAAA"}
SOUND = {**APPEND, "stream": "audio", "rate_hz": 16000, "encoding": "float32",
         "data": base64.b64encode(bytes(64)).decode()}
ITEM = {"type": "conversation.item.create", "event_id": "e"}
BAD = {
    "an unknown modality": ({"type": "session.update", "session": {"anymodal": {"streams": {"nose": "smell"}}}},
                            "unknown_modality"),
    "not JSON": ("{", "invalid_json"), "binary": (b"\x00\xff\x13", "invalid_json"), "a list": ("[]", "invalid_event"),
    "no type": ("{}", "missing_type"), "a misspelt type": ('{"type": "response.creat"}', "unknown_event"),
    "a wrong value": ('{"type": "anymodal.search", "query": 7}', "invalid_value"),
    "a missing key": ('{"type": "anymodal.search"}', "invalid_value"),
    "an unknown stream": ({**APPEND, "stream": "cam"}, "unknown_stream"),
    "a wrong modality": ({**APPEND, "modality": "audio"}, "wrong_modality"),
    "no image": (APPEND, "invalid_image"), "no base64": ({**APPEND, "data": "%"}, "invalid_base64"),
    "a clock before 0": ({**APPEND, "pts_s": -1}, "invalid_value"),
    "a clock far ahead": ({**APPEND, "pts_s": 4000}, "clock_ahead"),
    "a wrong rate": ({**SOUND, "rate_hz": 3}, "invalid_rate"), "no rate": ({**SOUND, "rate_hz": None}, "invalid_rate"),
    "hours at once": ({**SOUND, "rate_hz": 0.001, "data": packed(tone(0, 1))}, "piece_too_long"),
    "half a sample": ({**SOUND, "data": "AAAA"}, "invalid_length"),
    "no numbers": ({**SOUND, "data": packed(np.full(4, np.nan, np.float32))}, "invalid_samples"),
    "wrong axes": ({**SOUND, "stream": "imu", "shape": [1, 3], "data": packed(np.zeros(6, np.float32))}, "invalid_shape"),
    "spoken answers": ({"type": "session.update", "session": {"output_modalities": ["audio"]}}, "modality_not_supported"),
    "an address": ({**ITEM, "item": {"type": "message", "role": "user", "content": [
        {"type": "input_image", "image_url": "http://127.0.0.1/"}]}}, "invalid_image_url"),
    "no question": ({"type": "response.create"}, "no_question"),
    "nothing to cancel": ({"type": "response.cancel"}, "response_cancel_not_active"),
    "an empty rule": ({"type": "anymodal.rule.add", "text": ""}, "invalid_value"),
    "no such rule": ({"type": "anymodal.rule.remove", "name": "rule-7"}, "invalid_value"),
    "no search here": ({"type": "anymodal.search", "query": "bell"}, "not_supported"),
    "no such item": ({"type": "conversation.item.delete", "item_id": "item_none"}, "item_not_found"),
    "a telephone at another rate": ({"type": "session.update", "session": {"audio": {"input": {
        "format": {"type": "audio/pcmu", "rate": 16000}}}}}, "invalid_format"),
}


def test_each_bad_message_is_told_what_is_wrong_and_the_session_goes_on(server):
    with Client(server, numbered=False, sensors=True) as client:
        for name, (message, code) in BAD.items():
            event = {**message, "event_id": name} if isinstance(message, dict) else message
            client.ws.send(json.dumps(event) if isinstance(event, dict) else event)
            error = client.until("error")["error"]
            assert error["code"] == code, (name, error)
            assert error["message"] and error["type"] == "invalid_request_error"
            if isinstance(message, dict):
                assert error["event_id"] == name
        client.second(0)
        assert client.ask()["status"] == "completed"


def test_a_clock_that_jumps_back_is_late_and_counted(server):
    with Client(server, numbered=False) as client:
        for k in range(3):
            client.second(k)
        client.until("anymodal.window", index=0)
        client.frame(0.1)
        assert client.until("error")["error"]["code"] == "clock_back"
        client.sound(0.5)
        assert client.until("error")["error"]["code"] == "clock_back"
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
    assert sum(w["dropped"].get("video", 0) for w in client.of("anymodal.window")) == 1


def test_garbage_without_end_is_not_listened_to(server, monkeypatch):
    from actors.gateway import realtime

    monkeypatch.setattr(realtime, "MOST_FAULTS", 5)
    client = Client(server)
    with suppress(ConnectionClosed):  # the server may have had enough before the last
        for _ in range(7):
            client.ws.send("?")
    code, errors = closed_with(client)
    assert code == 1008 and errors[-1] == "too_many_faults" and errors[:6] == ["invalid_json"] * 6


@pytest.mark.parametrize("query, code, fault", [
    ("model=gpt-9", 1008, "model_not_found"), ("anymodal_session=sess_0&anymodal_token=x", 1008, "session_gone"),
    ("anymodal_session=../x", 1008, "session_gone"), ("anymodal_session=a&anymodal_last=x", 1008, "invalid_value"),
])
def test_the_door_says_what_is_wrong(server, query, code, fault):
    assert closed_with(Client(server, query)) == (code, [fault])


def test_another_clients_token_does_not_help(server):
    with Client(server) as client:
        mine = client.session["anymodal"]
        guess = f"anymodal_session={mine['id']}&anymodal_token=guess"
        assert closed_with(Client(server, guess)) == (1008, ["session_gone"])


def test_pages_of_other_sites_are_refused(server):
    with pytest.raises(InvalidStatus) as refused:
        Client(server, additional_headers={"Origin": "https://evil.example"})
    assert refused.value.response.status_code == 403
    Client(server, additional_headers={"Origin": server.url}).ws.close()


def test_a_message_over_the_limit_is_refused_by_its_close_code(bundle, tmp_path):
    with own_server(bundle, tmp_path, message_bytes=20_000) as server:
        client = Client(server)
        client.until("session.created")
        client.ws.send(json.dumps({**APPEND, "data": "A" * 30_000}))
        assert closed_with(client)[0] == 1009


def test_keys_sessions_and_rates_are_limited(bundle, tmp_path):
    keys = (Key.of(KEYS["good"], name="good"), Key.of(KEYS["old"], name="old", ends_s=1.0))
    with own_server(bundle, tmp_path, api_keys=keys, most_sessions=1) as server:
        for header, fault in (({}, "missing_api_key"), ({"Authorization": f"Bearer {KEYS['old']}"}, "expired_api_key"),
                              ({"Authorization": "Bearer nothing-of-the-kind"}, "invalid_api_key")):
            assert closed_with(Client(server, additional_headers=header)) == (1008, [fault])
        allowed = {"subprotocols": ["realtime", f"openai-insecure-api-key.{KEYS['good']}"]}
        with Client(server, **allowed) as client:
            assert client.ws.subprotocol == "realtime"
            assert closed_with(Client(server, **allowed)) == (1013, ["too_many_sessions"])
    with own_server(bundle, tmp_path, requests_per_min=1.0) as server:
        client = Client(server)
        client.until("session.created")
        assert closed_with(Client(server)) == (1013, ["rate_limit_exceeded"])
        client.send("response.create", response={"input": [said(QUESTION)]})
        assert client.until("error")["error"]["code"] == "rate_limit_exceeded"


def test_a_key_that_expires_ends_its_connection(bundle, tmp_path, monkeypatch):
    from actors.gateway import realtime

    monkeypatch.setattr(realtime, "CHECK_EVERY_S", 0.1)
    ends = datetime.now(UTC) + timedelta(seconds=3)
    with own_server(bundle, tmp_path, api_keys=(Key.of(KEYS["good"], ends_s=ends.timestamp()),)) as server:
        client = Client(server, additional_headers={"Authorization": f"Bearer {KEYS['good']}"})
        assert closed_with(client) == (1008, ["expired_api_key"])


# -- one bad client harms no other --------------------------------------------------------------------------------


def test_who_never_reads_is_cut_off_and_others_do_not_notice(bundle, tmp_path):
    with own_server(bundle, tmp_path, read_timeout_s=1.0, queue=64) as server, Client(server) as other:
        deaf = socket.create_connection(("127.0.0.1", server.port))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(f"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: "
                     "Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        message = b"?" * 100
        frame = bytes([0x81, 0x80 | len(message)]) + b"\0\0\0\0" + message
        deadline_s = time.monotonic() + WAIT_S
        deaf.settimeout(5)
        with pytest.raises(OSError):
            while time.monotonic() < deadline_s:
                deaf.sendall(frame * 20)
        other.second(0)
        assert other.ask()["status"] == "completed"
        while server.gateway.sockets.taken > 1 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert server.gateway.sockets.taken == 1
        deaf.close()


def test_a_server_that_cannot_keep_up_stays_near_to_now_and_counts_what_it_gives_up(agent, tmp_path):
    """Two clients bring ten seconds in two; a window takes longer to be seen than it lasts. All media are accounted for."""
    host = LocalHost(slowed(agent, lambda: time.sleep(1.0)), folder=tmp_path / "sessions")
    with serving(host, settings(tmp_path, stale_s=0.5)) as server, Client(server) as one, Client(server) as two:
        for k in range(40):
            for client in (one, two):
                client.frame(k / 4)
            time.sleep(0.05)  # media time at five times its speed
        answers = []
        for client in (one, two):
            client.send("anymodal.input.flush")
            client.until("anymodal.input.flushed")
            answers.append(client.ask()["anymodal"])
            windows = client.of("anymodal.window")
            assert [w["index"] for w in windows] == list(range(10))
            given_up = [w["index"] for w in windows if w["gap"].startswith("shed")]
            lost = sum(w["dropped"].get("video", 0) for w in windows)
            assert given_up and lost == 4 * len(given_up)
            assert any(w["index"] > given_up[0] and not w["gap"] for w in windows)  # newer ones were seen instead
            assert answers[-1]["frames_dropped"] == lost and answers[-1]["windows_missing"] == len(given_up)
            assert answers[-1]["stale_s"] == 0.0
        text = httpx.get(f"{server.url}/metrics").text
        stale = float(text.split('anymodal_dropped_total{reason="stale"} ')[1].split()[0])
        assert stale == sum(answer["frames_dropped"] for answer in answers)


def test_media_that_wait_too_long_to_be_decoded_are_given_up():
    clock = FakeClock()
    inbox = Inbox(stale_s=2.0, clock=clock)

    def put(second: float) -> None:
        event = p.client_events.validate_python({**APPEND, "pts_s": second})
        inbox.put(Waiting(event, (Piece("video", second, second + 0.25, "jpeg", ""),), 10))

    async def take() -> list[float]:
        return [piece.pts_s for waiting in await inbox.next() for piece in waiting.pieces]

    for quarter in range(16):
        put(quarter / 4)
        clock.advance(0.25)
    assert asyncio.run(take())[0] == 1.75 and inbox.stale == 7 == inbox.shed["video"]
    for quarter in range(16, 40):  # what was kept while the client was away comes all at once
        put(quarter / 4)
    assert len(asyncio.run(take())) == 24 and inbox.stale == 7


def test_a_live_session_leaves_spans_from_packet_to_answer(agent, tmp_path, monkeypatch):
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    with serving(LocalHost(agent, folder=tmp_path / "sessions"), settings(tmp_path, trace=True)) as server:
        spans = InMemorySpanExporter()
        server.gateway.tracing.add_span_processor(SimpleSpanProcessor(spans))
        with Client(server) as client:
            for k in range(2):
                client.second(k)
            client.send("anymodal.input.flush")
            client.until("anymodal.input.flushed")
            client.ask()
    found = spans.get_finished_spans()
    windows = [s for s in found if s.name == "window"]
    (answer,) = [s for s in found if s.name == "answer"]
    assert [s.attributes["anymodal.window"] for s in windows] == [0, 1]
    assert all("taken" in [e.name for e in s.events] and s.attributes["anymodal.streams"] for s in windows)
    assert [link.context.span_id for link in answer.links] == [s.context.span_id for s in windows]
    assert answer.attributes["anymodal.status"] == "completed" and answer.attributes["anymodal.last_window"] == 1
    assert "first_token" in [e.name for e in answer.events] and windows[0].start_time < answer.start_time
    assert {s.name for s in found} >= {"take"}


def test_a_gap_while_the_client_was_away_says_so(server):
    """Of a client that does not number its events, and so sends nothing again."""
    with Client(server, numbered=False) as client:
        client.second(0)
        client.frame(1.0)
        client.until("anymodal.window", index=0)
        client.ws.close()
        back = client.back()
        back.until("anymodal.resumed")
        for k in (3, 4):
            back.second(k)
        back.send("anymodal.input.flush")
        back.until("anymodal.input.flushed")
        client.ws, client.got = back.ws, back.got
    gaps = {w["index"]: w["gap"] for w in back.of("anymodal.window")}
    assert gaps[2] in ("no signal", "the client: it was not connected") and gaps[3] == ""


def test_who_floods_is_slowed_down_and_counted_and_others_do_not_notice(bundle, tmp_path, monkeypatch):
    from actors.gateway import inbox

    monkeypatch.setattr(inbox, "MOST_MEDIA", 16)
    with own_server(bundle, tmp_path, messages_per_s=2000.0) as server, Client(server) as other, Client(server) as loud:
        big = png(1, 512)
        for k in range(600):
            loud.send("anymodal.input.append", stream="video", pts_s=k / 50, encoding="png", data=big)
        asked_s = time.monotonic()
        other.second(0)
        assert other.ask()["status"] == "completed" and time.monotonic() - asked_s < WAIT_S / 2
        loud.send("anymodal.input.flush")
        loud.until("anymodal.input.flushed")
        dropped = sum(w["dropped"].get("video", 0) for w in loud.of("anymodal.window"))
        text = httpx.get(f"{server.url}/metrics").text
    shed = float(text.split('anymodal_dropped_total{reason="shed"} ')[1].split()[0])
    assert shed > 0 and dropped >= shed


def test_a_half_open_socket_is_found_and_its_session_waits(bundle, tmp_path):
    """Its client does not answer pings, as after a cable was pulled."""
    with own_server(bundle, tmp_path, ping_s=0.3) as server:
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.sendall(f"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: "
                     "Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        deadline_s = time.monotonic() + WAIT_S
        while not server.gateway.sockets.taken and time.monotonic() < deadline_s:
            time.sleep(0.02)
        while server.gateway.sockets.taken and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert server.gateway.sockets.taken == 0 and server.gateway.sessions.taken == 1
        gone.close()


def test_fuzzed_messages_are_each_answered_and_the_server_is_healthy(server):
    before = server.gateway.sessions.taken
    report = asyncio.run(fuzz(server.ws_url, 400, seed=3))
    assert report.unanswered == [] and sum(report.sent.values()) == 400
    assert len(report.errors) > 15 and set(report.refused) == {"close 1008", "HTTP 403", "broken handshake"}
    assert report.witnessed >= 1 and report.slowest_s < WAIT_S
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    assert server.gateway.sockets.taken == 0 and server.gateway.sessions.taken <= before + 1  # the witness may come back


def test_the_fuzzer_is_seeded():
    assert list(messages(50, 1)) == list(messages(50, 1)) != list(messages(50, 2))


# -- over actors ---------------------------------------------------------------------------------------------------


def test_the_same_over_actors_whose_mind_is_killed(bundle, tmp_path, agent):
    wanted = answer_in_process(agent, 3)
    own = settings(tmp_path)
    with serving(ActorHost(bundle, folder=own.sessions), own) as server, Client(server) as client:
        client.send("anymodal.rule.add", text="tell me when a bell rings")
        assert client.until("anymodal.rules")["rules"][0]["name"] == "rule-1"
        for k in range(2):
            client.second(k)
        client.until("anymodal.window", index=0)
        assert client.ask(at_s=1.0)["status"] == "completed"
        mind = server.gateway.host.ready()["mind"]
        os.kill(mind, signal.SIGKILL)
        client.second(2)
        client.send("anymodal.input.flush")
        client.until("anymodal.input.flushed")
        done = client.ask()
        assert done["output"][0]["content"][0]["text"].strip() == wanted.text.strip()
        assert server.gateway.host.ready()["mind"] != mind
        assert [(w["index"], w["dropped"], w["gap"]) for w in client.of("anymodal.window")] == [
            (k, {}, "") for k in range(3)]
        client.send("anymodal.rule.list")
        assert [r["name"] for r in client.until("anymodal.rules")["rules"]] == ["rule-1"]
