"""Thousands of broken messages at a running gateway, each to be answered by an error event or a close code.

    python -m actors.gateway.fuzz --url ws://127.0.0.1:8000 --count 10000

Messages are made by a seeded generator, out of valid ones that are bent. Some are fine all the same: of those it is only
asked that the session goes on. Meanwhile a witness, a client like any other, streams frames and asks; it must not notice.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import copy
import io
import json
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from PIL import Image
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.gateway import fuzz_files
from anymodal.protocol import client_events

A_CONNECTION = 50  # messages on one connection
AT_ONCE = 4  # connections
WAIT_S = 120.0  # for what has to come
BARRIER = {"type": "response.cancel", "response_id": "none", "event_id": "barrier"}  # answered by an error, in turn
NAMED = (1002, 1003, 1007, 1008, 1009, 1012, 1013)  # close codes that name a fault
JUNK: tuple[Any, ...] = (None, True, -1, 0, 2**63, 1e308, -0.5, "", "x", "\u0000", "🙂" * 50, [], [[]], {}, {"a": 1}, "NaN",
                         "A" * 5000, [None] * 200)


@dataclass(frozen=True)
class Message:
    """What is sent, what kind of fault it is meant to be, and whether it has to be answered by an error."""

    kind: str
    data: str | bytes
    must_fail: bool


@dataclass
class Report:
    """What came of it. `unanswered`: messages that had to fail and did not."""

    sent: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)
    closes: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    witnessed: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0

    def lines(self) -> list[str]:
        total = sum(self.sent.values())
        return [f"{total} messages in {self.seconds:.1f} s, {len(self.unanswered)} unanswered",
                "kinds: " + _counted(self.sent), "error events: " + _counted(self.errors),
                "close codes: " + _counted(self.closes), "refused at the door: " + _counted(self.refused),
                f"the witness got {self.witnessed} answers, the slowest in {self.slowest_s:.2f} s"]


def _counted(counter: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


# -- making them ------------------------------------------------------------------------------------------------------


def picture(size: tuple[int, int] = (48, 32), kind: str = "JPEG", value: int = 90) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, (value, 40, 200)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def samples(count: int, dtype: str = "<f4") -> str:
    return base64.b64encode(np.zeros(count, dtype).tobytes()).decode()


def valid() -> list[dict[str, Any]]:
    """One or more of each event, all fine."""
    text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what colour is it?"}]}
    image = {"type": "input_image", "image_url": f"data:image/jpeg;base64,{picture()}"}
    append = {"type": "anymodal.input.append"}
    return [
        {"type": "session.update", "session": {"type": "realtime", "instructions": "be short"}},
        {"type": "conversation.item.create", "item": text},
        {"type": "conversation.item.create", "item": {**text, "content": [image]}},
        {"type": "conversation.item.retrieve", "item_id": "item_x"},
        {"type": "conversation.item.delete", "item_id": "item_x"},
        {"type": "input_audio_buffer.append", "audio": samples(480, "<i2")},
        {"type": "input_audio_buffer.commit"}, {"type": "input_audio_buffer.clear"},
        {"type": "response.create", "response": {"anymodal": {"at_s": 0.5}, "metadata": {"a": "b"}}},
        {"type": "response.cancel", "response_id": "resp_x"},
        {**append, "stream": "video", "pts_s": 0.5, "encoding": "jpeg", "data": picture()},
        {**append, "stream": "video", "pts_s": 0.5, "encoding": "rgb8", "shape": [2, 2, 3],
         "data": base64.b64encode(bytes(12)).decode()},
        {**append, "stream": "audio", "pts_s": 0.5, "rate_hz": 16000, "encoding": "float32", "data": samples(160)},
        {**append, "stream": "imu", "pts_s": 0.5, "rate_hz": 50, "encoding": "float32", "shape": [5, 6],
         "data": samples(30)},
        {"type": "anymodal.input.flush"}, {"type": "anymodal.rule.add", "text": "tell me when a bell rings"},
        {"type": "anymodal.rule.pause", "name": "rule-1"}, {"type": "anymodal.rule.remove", "name": "rule-1"},
        {"type": "anymodal.search", "query": "red circle"},
    ]


def messages(count: int, seed: int) -> Iterator[Message]:
    """`count` messages, the same for the same seed."""
    rng = random.Random(seed)
    makers = (_bent, _bent, _without, _not_json, _garbage, _unknown, _media, _media, _media, _asked)
    for _ in range(count):
        yield rng.choice(makers)(rng)


def _message(kind: str, event: dict[str, Any], must_fail: bool | None = None) -> Message:
    data = json.dumps(event)
    if must_fail is None:
        try:
            client_events.validate_json(data)
            must_fail = False
        except ValidationError:
            must_fail = True
    return Message(kind, data, must_fail)


def _leaves(value: Any, path: tuple = ()) -> Iterator[tuple]:
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(each, (*path, key))
    yield path


def _bent(rng: random.Random) -> Message:
    """A value of another type somewhere."""
    event = copy.deepcopy(rng.choice(valid()))
    *path, last = rng.choice([path for path in _leaves(event) if path])
    place = event
    for key in path:
        place = place[key]
    place[last] = rng.choice(JUNK)
    return _message("wrong type", event)


def _without(rng: random.Random) -> Message:
    event = copy.deepcopy(rng.choice(valid()))
    event.pop(rng.choice(list(event)))
    return _message("missing key", event)


def _not_json(rng: random.Random) -> Message:
    text = json.dumps(rng.choice(valid()))
    made = rng.choice((text[: rng.randrange(len(text))], text + text, "[" * rng.randrange(1, 5000), text.replace('"', "'"),
                       '{"type": "\\ud800"}', "null", "[]", '"text"', '{"type": 1e999}', "", "\x00" * 9))
    return Message("malformed JSON", made, True)


def _garbage(rng: random.Random) -> Message:
    return Message("binary garbage", rng.randbytes(rng.randrange(0, 3000)), True)


def _unknown(rng: random.Random) -> Message:
    name = rng.choice(("response.creat", "session.delete", "", "anymodal.", "conversation.item.truncate", "x" * 500))
    return _message("unknown event", {"type": name, "event_id": "e1"}, True)


def _media(rng: random.Random) -> Message:
    """Frames and samples that are not what they say."""
    append = {"type": "anymodal.input.append", "stream": "video", "pts_s": 0.5, "encoding": "jpeg", "data": picture()}
    sound = {**append, "stream": "audio", "rate_hz": 16000, "encoding": "float32", "data": samples(160)}
    imu = {**append, "stream": "imu", "rate_hz": 50, "encoding": "float32", "data": samples(30)}
    whole = base64.b64decode(append["data"])
    cut = base64.b64encode(whole[: rng.randrange(1, len(whole) // 2)]).decode()
    nan = base64.b64encode(np.full(60, np.nan, "<f4").tobytes()).decode()
    kind, event = rng.choice((
        ("cut image", {**append, "data": cut}), ("random image", {**append, "data": _random(rng)}),
        ("wrong format", {**append, "encoding": "png"}), ("image bomb", {**append, "encoding": "png", "data": bomb()}),
        ("no base64", {**append, "data": "%%%" * 50}),
        ("wrong shape", {**append, "encoding": "rgb8", "shape": [9999, 9, 3]}),
        ("huge shape", {**append, "encoding": "rgb8", "shape": [2**40, 2**40, 3]}),
        ("unknown stream", {**append, "stream": rng.choice(("cam", "audio2", "../../etc/passwd"))}),
        ("wrong modality", {**append, "modality": "audio"}), ("wrong encoding", {**append, "encoding": "pcm16"}),
        ("clock ahead", {**append, "pts_s": rng.choice((1e4, 1e8))}), ("clock no number", {**append, "pts_s": "noon"}),
        ("negative clock", {**append, "pts_s": -rng.random() - 1e-3}),
        ("wrong rate", {**sound, "rate_hz": rng.choice((0, -16000, 1, 3.7, 1e6, 2e6, 16000.5))}),
        ("no rate", {**sound, "rate_hz": None}), ("odd length", {**sound, "data": base64.b64encode(bytes(7)).decode()}),
        ("no numbers", {**sound, "data": nan}), ("empty", {**sound, "data": ""}),
        ("wrong axes", {**imu, "data": samples(31)}), ("wrong axes", {**imu, "shape": [5, 7]}),
        ("no numbers", {**imu, "data": nan})))
    return _message(kind, event, True)


def _asked(rng: random.Random) -> Message:
    """Questions, rules and pictures that cannot be; and clocks that go back, which is no more than late."""
    item = {"type": "message", "role": "user"}
    fetched = {"type": "input_image", "image_url": rng.choice(("http://169.254.169.254/", "file:///etc/passwd", "data:,x"))}
    kind, event, fails = rng.choice((
        ("rule without text", {"type": "anymodal.rule.add", "text": rng.choice(("", " ", "word " * 399))}, True),
        ("no such rule", {"type": "anymodal.rule.remove", "name": "rule-99"}, True),
        ("image address", {"type": "conversation.item.create", "item": {**item, "content": [fetched]}}, True),
        ("sound asked for", {"type": "session.update", "session": {"output_modalities": ["audio"]}}, True),
        ("wrong sound format", {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {
            "format": rng.choice(({"type": "audio/pcm", "rate": 7}, {"type": "audio/ogg"}, "pcm"))}}}}, True),
        ("late streams", {"type": "session.update", "session": {"type": "realtime", "anymodal": {
            "streams": {"a": rng.choice(("video", "smell"))}}}}, False),
        ("clock back", {"type": "anymodal.input.append", "stream": "video", "pts_s": rng.random() * 3, "encoding": "jpeg",
                        "data": picture()}, False),
        ("nothing to cancel", {"type": "response.cancel", "response_id": "resp_none"}, True),
        ("question", {"type": "response.create", "response": {"input": [{**item, "content": [
            {"type": "input_text", "text": rng.choice(("what is it?", "\u202e", "?" * 1999, "w" * 9000))}]}]}}, False)))
    return _message(kind, event, fails)


def _random(rng: random.Random) -> str:
    return base64.b64encode(rng.randbytes(300)).decode()


def bomb() -> str:
    """A PNG of 60,000 x 60,000 pixels in a few bytes: its header alone."""
    whole = bytearray(base64.b64decode(picture((1, 1), "PNG")))
    whole[16:24] = (60_000).to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    return base64.b64encode(bytes(whole)).decode()


# -- sending them -----------------------------------------------------------------------------------------------------


async def fuzz(url: str, count: int, seed: int = 0, *, headers: dict[str, str] | None = None, model: str = "") -> Report:
    """Send `count` messages; the witness works until they are through. Raises OSError where nobody listens."""
    report, began_s = Report(), time.perf_counter()
    made = list(messages(count, seed))
    rest = [made[at : at + A_CONNECTION] for at in range(0, count, A_CONNECTION)]
    ended = asyncio.Event()
    witness = asyncio.create_task(_witness(url, headers, ended, report))

    async def work(number: int) -> None:
        rng = random.Random(seed + 1 + number)
        while rest:
            await _send_all(url, headers, rest.pop(), report)
            await _at_the_door(url, rng, report)

    try:
        await asyncio.gather(*(work(number) for number in range(AT_ONCE)))
    finally:
        ended.set()
        await asyncio.wait_for(witness, WAIT_S)
    report.seconds = time.perf_counter() - began_s
    return report


async def _send_all(url: str, headers: dict[str, str] | None, made: Sequence[Message], report: Report) -> None:
    """Send messages one after another, on a new connection after one was closed."""
    rest = list(made)
    while rest:
        async with connect(f"{url}/v1/realtime", additional_headers=headers, max_size=None) as socket:
            await _next(socket)
            while rest:
                message = rest.pop(0)
                report.sent[message.kind] += 1
                if not await _send_one(socket, message, report):
                    break
            else:
                await socket.send(json.dumps({"type": "anymodal.session.close"}))


async def _send_one(socket: ClientConnection, message: Message, report: Report) -> bool:
    """Send a message and wait until it has been worked on; False where the connection was closed over it."""
    failed = False
    try:
        await socket.send(message.data)
        await socket.send(json.dumps(BARRIER))
        while (event := await _next(socket)).get("error", {}).get("event_id") != BARRIER["event_id"]:
            if event["type"] == "error" or event["type"] == "response.done" and event["response"]["status"] == "failed":
                fault = event["error"] if event["type"] == "error" else event["response"]["status_details"]["error"]
                report.errors[fault["code"]] += 1
                failed = True
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd else 1006
        report.closes[code] += 1
        if code not in NAMED:
            report.unanswered.append(f"{message.kind}: closed with {code}: {message.data[:200]!r}")
        return False
    if message.must_fail and not failed:
        report.unanswered.append(f"{message.kind}: {message.data[:200]!r}")
    return True


async def _next(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))


async def _at_the_door(url: str, rng: random.Random, report: Report) -> None:
    """Connections that are to be refused, and one that breaks off in the middle of a frame."""
    query, headers = rng.choice(((urlencode({"model": "no-such-model"}), {}), ("", {"Origin": "https://evil.example"}),
                                 (urlencode({"anymodal_session": "sess_x", "anymodal_token": "y"}), {}),
                                 (urlencode({"anymodal_session": "../../etc", "anymodal_last": "-1"}), {})))
    try:
        async with connect(f"{url}/v1/realtime?{query}", additional_headers=headers) as socket:
            while True:
                await _next(socket)
    except ConnectionClosed as error:
        report.refused[f"close {error.rcvd.code if error.rcvd else 1006}"] += 1
    except InvalidStatus as error:
        report.refused[f"HTTP {error.response.status_code}"] += 1
    place = urlsplit(url)
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(rng.choice((rng.randbytes(200), b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n",
                             b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")))
    await writer.drain()
    writer.transport.abort()
    report.refused["broken handshake"] += 1


async def _witness(url: str, headers: dict[str, str] | None, ended: asyncio.Event, report: Report) -> None:
    """A client that does all right: every answer has to come, and every window once."""
    async with connect(f"{url}/v1/realtime", additional_headers=headers, max_size=None) as socket:
        await _next(socket)
        second, windows = 0, []
        while not ended.is_set() or not report.witnessed:
            for frame in range(4):
                await socket.send(json.dumps({"type": "anymodal.input.append", "stream": "video", "encoding": "jpeg",
                                              "pts_s": second + frame / 4, "data": picture(value=second % 250)}))
            asked_s = time.perf_counter()
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what colour is it?"}]}
            for event in ({"type": "anymodal.input.flush"}, {"type": "conversation.item.create", "item": item},
                          {"type": "response.create"}):
                await socket.send(json.dumps(event))
            while (event := await _next(socket))["type"] != "response.done":
                if event["type"] == "anymodal.window":
                    windows.append(event["index"])
                if event["type"] == "error":
                    raise RuntimeError(f"the witness was told {event['error']}")
            if event["response"]["status"] != "completed":
                raise RuntimeError(f"the witness got no answer: {event['response']}")
            report.slowest_s = max(report.slowest_s, time.perf_counter() - asked_s)
            report.witnessed, second = report.witnessed + 1, second + 1
            await asyncio.sleep(0.05)
        if windows != list(range(second)):
            raise RuntimeError(f"the witness saw the windows {windows}")


def main(argv: Sequence[str] | None = None) -> int:
    """Send broken messages, or broken files, to a gateway; the exit code is 1 where one was not answered."""
    parser = argparse.ArgumentParser(prog="python -m actors.gateway.fuzz", description=main.__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="of the gateway")
    parser.add_argument("--count", type=int, default=10_000, help="how many messages")
    parser.add_argument("--files", type=int, default=0, metavar="COUNT", help="so many files instead of messages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--api-key", default="", help="if the gateway wants one")
    options = parser.parse_args(argv)
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else None
    if options.files:
        url = options.url.replace("ws://", "http://", 1).replace("wss://", "https://", 1)
        found = asyncio.run(fuzz_files.fuzz(url, options.files, options.seed, headers=headers))
        print("\n".join([*found.lines(), *found.wrong[:20]]))
        return 1 if found.wrong else 0
    report = asyncio.run(fuzz(options.url, options.count, options.seed, headers=headers))
    print("\n".join([*report.lines(), *report.unanswered[:20]]))
    return 1 if report.unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
