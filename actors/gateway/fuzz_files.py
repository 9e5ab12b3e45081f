"""Thousands of broken files at a running gateway: each is taken, or refused by an error that names the fault.

    python -m actors.gateway.fuzz --files 10000 --url http://127.0.0.1:8000

Real files (mp4, mkv, wav, mp3, png, jpeg, csv) are bent by a seeded generator: bytes changed, cut, doubled, spliced, sizes
in headers made huge. Nine in ten are uploaded; of those that are taken some are asked about by their ids, and every tenth
file comes in a question as a data URL. Meanwhile a good clip is asked about over and over, and must be answered the same.
"""

from __future__ import annotations

import asyncio
import base64
import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from anymodal.testing import gradient_frame, make_audio, make_imu_csv, make_video

AT_ONCE = 4
TIMEOUT_S = 300.0  # of one request: what takes longer hangs
REFUSED = (400, 404, 413, 422, 429)
ASK_OF = 0.1  # files that come in a question; and of those that are stored, how many are asked about
QUESTION = "what colour is it?"
KINDS = ("video_url", "image_url", "audio_url", "input_audio", "file")


@dataclass(frozen=True)
class Broken:
    """A file as it is sent. `how`: it was bent; `asked`: in a question, as this kind of part, and not uploaded."""

    name: str
    how: str
    data: bytes
    asked: str = ""


@dataclass
class Report:
    """What came of it. `wrong`: answers that are no answers, and requests that hung or broke off."""

    sent: Counter = field(default_factory=Counter)
    outcomes: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    witnessed: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0

    def lines(self) -> list[str]:
        def counted(counter: Counter) -> str:
            return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"

        return [f"{sum(self.sent.values())} files in {self.seconds:.1f} s, {len(self.wrong)} without a proper answer",
                f"bent: {counted(self.sent)}", f"outcomes: {counted(self.outcomes)}",
                f"the slowest answer took {self.slowest_s:.2f} s; the witness got {self.witnessed}"]


# -- making them ------------------------------------------------------------------------------------------------------


def good(folder: Path) -> dict[str, bytes]:
    """Real files of a second or less, by name."""
    frames = [gradient_frame(32, i) for i in range(4)]
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000).astype(np.float32)
    times_s = np.arange(50) / 50
    axes = ("accel_x_m_s2", "accel_y_m_s2", "accel_z_m_s2", "gyro_x_rad_s", "gyro_y_rad_s", "gyro_z_rad_s")
    image = {"pixel_format": "rgb24", "container_format": "image2"}
    made = [make_video(folder / "a.mp4", frames, rate_hz=4, audio=tone, audio_hz=16000),
            make_video(folder / "a.mkv", frames, rate_hz=4, codec="ffv1"),
            make_video(folder / "a.avi", frames, rate_hz=4, codec="mjpeg", pixel_format="yuvj420p"),
            make_audio(folder / "a.wav", tone, 16000), make_audio(folder / "a.mp3", tone, 16000, "libmp3lame"),
            make_audio(folder / "a.flac", tone, 16000, "flac"),
            make_video(folder / "a.png", frames[:1], codec="png", **image),
            make_video(folder / "a.jpg", frames[:1], codec="mjpeg", pixel_format="yuvj420p", container_format="image2"),
            make_imu_csv(folder / "a.csv", times_s, np.zeros((50, 6)), axes)]
    return {path.name: path.read_bytes() for path in made}


def files(count: int, seed: int, whole: Mapping[str, bytes]) -> Iterator[Broken]:
    """`count` broken files, the same for the same seed and the same whole ones."""
    rng, names = random.Random(seed), sorted(whole)
    ways = (_bits, _bits, _cut, _doubled, _spliced, _huge, _zeroed, _noise)
    for _ in range(count):
        name, way = rng.choice(names), rng.choice(ways)
        data = way(rng, whole[name], whole[rng.choice(names)])
        yield Broken(name, way.__name__[1:], data, rng.choice(KINDS) if rng.random() < ASK_OF else "")


def _bits(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A few bytes changed, most of them near the start, where formats say what they are."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        at = rng.randrange(min(len(found), rng.choice((64, 512, 1 << 30))))
        found[at] = rng.choice((0, 0xFF, rng.randrange(256), found[at] ^ (1 << rng.randrange(8))))
    return bytes(found)


def _cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _doubled(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A stretch of it again."""
    at = rng.randrange(len(data))
    return data[:at] + data[rng.randrange(at + 1):]


def _spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)):]


def _huge(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A size or a count made huge."""
    found = bytearray(data + bytes(4))
    at = rng.randrange(min(len(data), 2048))
    found[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((2**32 - 1, 2**31, 2**31 - 1, 2**24, 65_535)))
    return bytes(found[: len(data)])


def _zeroed(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice((4, 64, 1024))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size:]


def _noise(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.choice((0, 4, 16, 64))] + rng.randbytes(rng.randrange(1, 4096))


# -- sending them -----------------------------------------------------------------------------------------------------


async def fuzz(url: str, count: int, seed: int = 0, *, headers: Mapping[str, str] | None = None, model: str = "") -> Report:
    """Send `count` files; the witness works until they are through. Raises httpx.HTTPError where nobody listens."""
    with tempfile.TemporaryDirectory(prefix="anymodal-fuzz-") as folder:
        whole = good(Path(folder))
    report, began_s = Report(), time.perf_counter()
    rest, ended = list(files(count, seed, whole))[::-1], asyncio.Event()
    async with httpx.AsyncClient(base_url=url, headers=dict(headers or {}), timeout=TIMEOUT_S) as http:
        model = model or (await http.get("/v1/models")).raise_for_status().json()["data"][0]["id"]
        sender = _Sender(http, model, report, random.Random(seed + 1))
        witness = asyncio.create_task(sender.witness(whole["a.mp4"], ended))

        async def work() -> None:
            while rest:
                await sender.send(rest.pop())

        try:
            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        finally:
            ended.set()
            await witness
    report.seconds = time.perf_counter() - began_s
    return report


class _Sender:
    def __init__(self, http: httpx.AsyncClient, model: str, report: Report, rng: random.Random) -> None:
        self._http, self._model, self._report, self._rng = http, model, report, rng

    async def send(self, file: Broken) -> None:
        self._report.sent[file.how] += 1
        if file.asked:
            data = base64.b64encode(file.data).decode()
            part = self._part(file.asked, f"data:video/mp4;base64,{data}", data)
            await self._note(file, "asked", await self._ask(file, part))
            return
        stored = await self._note(file, "upload", await self._post(
            file, "/v1/files", files={"file": (file.name, file.data)}, data={"purpose": "user_data"}))
        if stored is None:
            return
        if self._rng.random() < ASK_OF:
            kind = self._rng.choice(("video_url", "audio_url", "image_url", "file"))
            await self._note(file, "asked by id", await self._ask(file, self._part(kind, stored["id"], "", stored["id"])))
        await self._note(file, "delete", await self._request(file, "DELETE", f"/v1/files/{stored['id']}"))

    async def witness(self, clip: bytes, ended: asyncio.Event) -> None:
        """A client that does all right gets the same answer every time."""
        address, said = f"data:video/mp4;base64,{base64.b64encode(clip).decode()}", set()
        file = Broken("a.mp4", "whole", clip)
        while not ended.is_set() or not self._report.witnessed:
            response = await self._ask(file, self._part("video_url", address))
            if response is not None and response.status_code == 429:  # it waits for its turn like any other
                await asyncio.sleep(1.0)
                continue
            if response is None or response.status_code != 200:
                self._report.wrong.append(f"the witness got no answer: {response and response.text[:200]}")
                return
            said.add(response.json()["choices"][0]["message"]["content"])
            self._report.witnessed += 1
            await asyncio.sleep(0.5)
        if len(said) != 1:
            self._report.wrong.append(f"the witness got {len(said)} different answers")

    def _part(self, kind: str, address: str, data: str = "", file_id: str = "") -> dict:
        if kind == "input_audio":
            return {"type": kind, "input_audio": {"data": data, "format": "wav"}}
        if kind == "file":
            return {"type": kind, "file": {"file_id": file_id} if file_id else {"file_data": address, "filename": "a"}}
        return {"type": kind, kind: {"url": address}}

    async def _ask(self, file: Broken, part: dict) -> httpx.Response | None:
        content = [{"type": "text", "text": QUESTION}, part]
        return await self._post(file, "/v1/chat/completions", json={
            "model": self._model, "messages": [{"role": "user", "content": content}]})

    async def _post(self, file: Broken, path: str, **given) -> httpx.Response | None:
        return await self._request(file, "POST", path, **given)

    async def _request(self, file: Broken, method: str, path: str, **given) -> httpx.Response | None:
        """None for what hung or broke off, which is noted."""
        began_s = time.perf_counter()
        try:
            response = await self._http.request(method, path, **given)
        except httpx.HTTPError as error:
            self._report.wrong.append(f"{file.how} {file.name}: {path}: {type(error).__name__} {error}")
            return None
        self._report.slowest_s = max(self._report.slowest_s, time.perf_counter() - began_s)
        return response

    async def _note(self, file: Broken, what: str, response: httpx.Response | None) -> dict | None:
        """The body of what was taken; None for what was refused, whose error has to name the fault."""
        if response is None:
            self._report.outcomes[f"{what} broke off"] += 1
            return None
        try:
            body = response.json()
        except ValueError:
            body = {}
        fault = body.get("error") or {}
        self._report.outcomes[f"{what} {fault.get('code') or response.status_code}"] += 1
        if response.status_code == 200:
            return body
        if response.status_code not in REFUSED or not fault.get("message") or fault.get("type") == "server_error":
            self._report.wrong.append(f"{file.how} {file.name}: {what}: {response.status_code} {response.text[:200]}")
        return None
