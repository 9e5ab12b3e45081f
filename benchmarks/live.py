"""What a live client waits for: windows, first tokens and a broken connection, against a real server on loopback.

    python -m benchmarks.live [--clients 1 4 16] [--seconds 20] [--minutes 10 --speed 10] [--actors | --address auto]
                              [--model tiny] [--only windows] [--json FILE]

A server process is started; clients of `anymodal.client` show it a playground clip with sound and readings, again and
again, as a camera and a microphone would: what was captured by now is pushed, at its own speed.

`live_capture_to_window`: from when a frame was due to be captured until the client is told that its window is in the
log. The baseline is the wait until its window is full, which nothing can save. `live_ttft`: from the question to the
first piece of the answer, while all clients stream; the baseline is that of the fewest clients. `live_stale`: media
that had come and the answer did not know of yet, against a window's length. `live_cpu_load`: CPU seconds of the server,
for so many seconds of stream. `live_drops`: packets and frames that were not used, and how many were sent.
`live_ttft_vs_resend`: one client that has shown the whole clip, against one that sends it with each question, in turns
with nothing else going on. `reconnect_s`: from the cut of the connection until the session goes on; the baseline is
opening a new one. `live_memory_...`: the resident memory of the server's processes, the most of the last minute, after
`--minutes` of media of one client who asks every minute, at up to `--speed` times the clip's own; the baseline is
minute 5, or half way where that is less. All clients are in one process, whose own delays count.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.gateway.testing import Proxy  # noqa: E402
from anymodal.client import AsyncClient, ConnectionBack, Options, WindowSeen  # noqa: E402
from anymodal.client.live import LiveSession  # noqa: E402
from anymodal.config import load_spec  # noqa: E402
from anymodal.media import open_media  # noqa: E402
from anymodal.media.spec import stream_specs  # noqa: E402
from anymodal.playground.files import render_clips  # noqa: E402
from anymodal.types import Answer, Packet  # noqa: E402
from benchmarks.live_server import Server, served  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402

QUESTIONS = ("what colour is the circle?", "what did you hear?", "what can you see?")
ASK_EVERY_S = 2.0
LEAD_WINDOWS = 4  # media that run faster than time wait for the server to be no further behind
WAIT_S = 120.0
OPTIONS = Options(connect_timeout_s=WAIT_S, answer_timeout_s=WAIT_S, request_timeout_s=WAIT_S)


# --- what is shown --------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Clip:
    """A playground clip as a file, and as the packets that a client pushes, by when they have been captured."""

    path: Path
    seconds: float
    window_s: float
    packets: tuple[tuple[float, Packet], ...]

    def again_and_again(self) -> Iterator[tuple[float, float, Packet]]:
        """(captured_s, pts_s, packet) without end, on one media clock."""
        turn = 0
        while True:
            for captured_s, packet in self.packets:
                yield turn * self.seconds + captured_s, turn * self.seconds + packet.pts_s, packet
            turn += 1


def make_clip(model: str, seconds: float, folder: Path) -> Clip:
    spec, _ = load_spec(model)
    path = render_clips(folder / "clips", split="demo", seed=3, count=1, seconds=seconds)[0]
    with open_media(path, stream_specs(spec.modalities)) as source:
        packets = [p for p in source if p.pts_s < seconds]
    timed = [(p.pts_s if p.modality == "video" else p.pts_s + len(p.data) / p.rate_hz, p) for p in packets]
    return Clip(path, seconds, spec.window_s, tuple(sorted(timed, key=lambda pair: pair[0])))


async def push(session: LiveSession, packet: Packet, pts_s: float) -> None:
    await session.push(packet.stream, packet.modality, packet.data, pts_s,
                       rate_hz=None if packet.modality == "video" else packet.rate_hz)


async def first_token_s(session: LiveSession, question: str) -> tuple[float, Answer]:
    """From the question to the first piece of its answer, and the whole of it."""
    began_s = time.perf_counter()
    asking = session.ask(question)
    await anext(asking)
    took_s = time.perf_counter() - began_s
    return took_s, await asking


# --- one client of many ----------------------------------------------------------------------------------------------

@dataclass
class Seen:
    """What clients saw, in seconds, one of each frame or question; and counts of packets."""

    waits_s: list[float] = field(default_factory=list)
    fills_s: list[float] = field(default_factory=list)
    firsts_s: list[float] = field(default_factory=list)
    stale_s: list[float] = field(default_factory=list)
    pushed: int = 0
    dropped: int = 0  # told by the server, or for want of room at the client
    unseen: int = 0  # frames of whose window nothing was heard


class Viewer:
    """A client that shows the clip at its own speed and asks every now and then."""

    def __init__(self, session: LiveSession, clip: Clip, seen: Seen) -> None:
        self.session, self.clip, self.seen = session, clip, seen
        self.due_s: dict[float, float] = {}  # of frames that are in no window yet: pts_s -> time of capture

    async def run(self, seconds: float, offset_s: float) -> None:
        await asyncio.sleep(offset_s)
        listening = asyncio.create_task(self.listen())
        try:
            await asyncio.gather(self.show(seconds), self.ask(seconds))
            await self.session.flush()
            await asyncio.wait_for(self.told(), WAIT_S)
        finally:
            listening.cancel()
        self.seen.unseen += len(self.due_s)
        self.seen.dropped += sum(self.session.stats.dropped.values())

    async def show(self, seconds: float) -> None:
        began_s = time.perf_counter()
        for captured_s, pts_s, packet in self.clip.again_and_again():
            if captured_s > seconds:
                return
            await asyncio.sleep(max(0.0, began_s + captured_s - time.perf_counter()))
            if packet.modality == "video" and pts_s < seconds:
                self.due_s[pts_s] = began_s + captured_s
            if pts_s < seconds:
                await push(self.session, packet, pts_s)
                self.seen.pushed += 1

    async def ask(self, seconds: float) -> None:
        began_s, turn = time.perf_counter(), 0
        while (due_s := self.clip.window_s * 1.25 + turn * ASK_EVERY_S) < max(seconds, 2 * self.clip.window_s):
            await asyncio.sleep(max(0.0, began_s + due_s - time.perf_counter()))
            took_s, answer = await first_token_s(self.session, QUESTIONS[turn % len(QUESTIONS)])
            self.seen.firsts_s.append(took_s)
            self.seen.stale_s.append(answer.stale_s)
            turn += 1

    async def listen(self) -> None:
        async for event in self.session:
            if isinstance(event, WindowSeen):
                now_s = time.perf_counter()
                for pts_s in [p for p in self.due_s if event.start_s - 1e-6 <= p < event.end_s - 1e-6]:
                    waited_s = now_s - self.due_s.pop(pts_s)
                    if not event.gap:  # else it was given up, which `dropped` counts
                        self.seen.waits_s.append(waited_s)
                        self.seen.fills_s.append(event.end_s - pts_s)
                self.seen.dropped += sum(event.dropped.values())

    async def told(self) -> None:
        """The events of the flushed windows are behind us."""
        for _ in range(20):
            if not self.due_s:
                return
            await asyncio.sleep(0.05)


# --- what is measured ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Run:
    server: Server
    clip: Clip
    clients: tuple[int, ...]
    seconds: float
    minutes: float
    speed: float
    turns: int
    local: bool  # all the server's processes are its own

    def client(self, url: str = "") -> AsyncClient:
        return AsyncClient(url or self.server.url, options=OPTIONS)


async def windows(run: Run) -> list[Row]:
    """Windows and first tokens while so many clients stream."""
    rows, fewest = [], None
    for count in run.clients:
        began_s = run.server.cpu_s()
        seen = await crowd(run, count)
        cpu_s = run.server.cpu_s() - began_s
        fewest = fewest or seen
        case = f"{count} client{'s' if count > 1 else ''}"
        for share in (50, 95):
            wait_s, fill_s, first_s, base_s, stale_s = (float(np.percentile(values, share)) for values in (
                seen.waits_s, seen.fills_s, seen.firsts_s, fewest.firsts_s, seen.stale_s))
            rows += [Row(f"live_capture_to_window_p{share}", wait_s, fill_s, wait_s / fill_s, None, "s", case, True),
                     Row(f"live_ttft_p{share}", first_s, base_s, first_s / base_s, None, "s", case, True),
                     Row(f"live_stale_p{share}", stale_s, run.clip.window_s, stale_s / run.clip.window_s, None, "s", case,
                         True)]
        lost = seen.dropped + seen.unseen
        if run.local:  # above 1 the clients bring more than one core sees
            rows.append(Row("live_cpu_load", cpu_s, run.seconds, cpu_s / run.seconds, None, "s", case, True))
        rows.append(Row("live_drops", lost, seen.pushed, lost / seen.pushed, None, "packets", case, True))
        print(f"{case}: {len(seen.waits_s)} frames, {len(seen.firsts_s)} questions, "
              f"{lost} of {seen.pushed} packets dropped", flush=True)
    return rows


async def crowd(run: Run, count: int) -> Seen:
    seen = Seen()
    async with run.client() as client:
        sessions = [client.live() for _ in range(count)]
        try:
            for session in sessions:
                await session.__aenter__()
            apart_s = ASK_EVERY_S / count  # nobody's windows and questions come at once with another's
            await asyncio.gather(*(Viewer(session, run.clip, seen).run(run.seconds, i * apart_s)
                                   for i, session in enumerate(sessions)))
        finally:
            await asyncio.gather(*(session.close() for session in sessions), return_exceptions=True)
    return seen


async def resend(run: Run) -> list[Row]:
    """First tokens of a live session, and of a clip that comes with each question."""
    address = "data:video/mp4;base64," + base64.b64encode(run.clip.path.read_bytes()).decode()
    ours, theirs = [], []
    async with run.client() as client, client.live() as session, httpx.AsyncClient(timeout=WAIT_S) as http:
        model = (await client.models())[0]
        await session.stream_file(run.clip.path, speed=None)
        for turn in range(run.turns + 1):
            question = QUESTIONS[turn % len(QUESTIONS)]
            ours.append((await first_token_s(session, question))[0])
            theirs.append(await resent_first_token_s(http, run.server.url, model, question, address))
    ours_s, theirs_s = float(np.median(ours[1:])), float(np.median(theirs[1:]))  # first calls are slow
    return [Row("live_ttft_vs_resend", ours_s, theirs_s, ours_s / theirs_s, 0.2, "s", at_most=True)]


async def resent_first_token_s(http: httpx.AsyncClient, url: str, model: str, question: str, address: str) -> float:
    content = [{"type": "text", "text": question}, {"type": "video_url", "video_url": {"url": address}}]
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": content}]})
    began_s, took_s = time.perf_counter(), None
    async with http.stream("POST", f"{url}/v1/chat/completions", content=body,
                           headers={"Content-Type": "application/json"}) as response:
        if response.status_code != 200:
            raise RuntimeError(f"the server answered {response.status_code}: {(await response.aread())[:500]!r}")
        async for line in response.aiter_lines():
            chunk = json.loads(line[6:]) if line.startswith("data: {") else {}
            if took_s is None and any(choice["delta"].get("content") for choice in chunk.get("choices", ())):
                took_s = time.perf_counter() - began_s
    return took_s if took_s is not None else time.perf_counter() - began_s


async def reconnect(run: Run) -> list[Row]:
    """From the cut of the connection until the session goes on."""
    proxy = Proxy(urlsplit(run.server.url).port)
    downs, opens = [], []
    try:
        async with run.client(proxy.url) as client:
            for _ in range(run.turns):
                began_s = time.perf_counter()
                async with client.live():
                    opens.append(time.perf_counter() - began_s)
            async with client.live() as session:
                for turn in range(run.turns):
                    await session.push(**_frame(run.clip, turn))
                    began_s = time.perf_counter()
                    proxy.cut()
                    await asyncio.wait_for(_event(session, ConnectionBack), WAIT_S)
                    downs.append(time.perf_counter() - began_s)
                    await session.flush()
    finally:
        proxy.close()
    down_s, open_s = float(np.median(downs)), float(np.median(opens))
    return [Row("reconnect_s", down_s, open_s, down_s / open_s, None, "s", at_most=True)]


def _frame(clip: Clip, number: int) -> dict:
    frames = [packet for _, packet in clip.packets if packet.modality == "video"]
    packet = frames[number % len(frames)]
    return {"stream": packet.stream, "modality": "video", "data": packet.data, "pts_s": float(number)}


async def _event(session: LiveSession, kind: type) -> object:
    async for event in session:
        if isinstance(event, kind):
            return event
    raise RuntimeError("the session ended")


async def memory(run: Run) -> list[Row]:
    """The server's memory after long, against minute 5."""
    if run.minutes <= 0 or not run.local:
        return []
    early_min = min(5.0, run.minutes / 2)
    samples: list[tuple[float, int]] = []
    began_s, asked_s = time.perf_counter(), 0.0
    async with run.client() as client, client.live() as session:
        for captured_s, pts_s, packet in run.clip.again_and_again():
            if captured_s > run.minutes * 60:
                break
            await asyncio.sleep(max(0.0, began_s + captured_s / run.speed - time.perf_counter()))
            await caught_up(session, pts_s - LEAD_WINDOWS * run.clip.window_s)
            await push(session, packet, pts_s)
            if not samples or captured_s > samples[-1][0] + run.clip.window_s:
                samples.append((captured_s, run.server.resident_bytes()))
            if captured_s > asked_s + 60:
                asked_s = captured_s
                await session.ask(QUESTIONS[int(asked_s // 60) % len(QUESTIONS)])
        await session.flush()
    took_s = time.perf_counter() - began_s
    print(f"memory: {run.minutes:g} minutes of media in {took_s:.0f} s", flush=True)

    def most_mib(minute: float) -> float:
        return max(size for at_s, size in samples if min(minute - 1, minute * 0.8) * 60 <= at_s <= minute * 60) / 2**20

    late, early = most_mib(run.minutes), most_mib(early_min)
    name = f"live_memory_{'h1' if run.minutes == 60 else f'min{run.minutes:g}'}_vs_min{early_min:g}"
    return [Row(name, late, early, late / early, 1.05, "MiB", at_most=True)]


async def caught_up(session: LiveSession, until_s: float) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while session.seen_s < until_s:
        session.check()
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the server has not seen {until_s:g} s of media after {WAIT_S:g} s")
        await asyncio.sleep(0.01)


MEASURES: dict[str, Callable[[Run], Awaitable[list[Row]]]] = {
    "windows": windows, "resend": resend, "reconnect": reconnect, "memory": memory}


def main(argv: Sequence[str] | None = None) -> list[Row]:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--model", default="tiny", help="a shipped bundle's name, or the path of a YAML")
    made.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="how many at once, in turn")
    made.add_argument("--seconds", type=float, default=20.0, help="of the clip, and of showing it (default: %(default)g)")
    made.add_argument("--minutes", type=float, default=10.0, help="of media, for memory; 0: none (default: %(default)g)")
    made.add_argument("--speed", type=float, default=10.0, help="of those minutes, at most (default: %(default)g)")
    made.add_argument("--turns", type=int, default=9, help="of re-sending and of reconnecting (default: %(default)d)")
    made.add_argument("--only", nargs="+", choices=list(MEASURES), help="all, unless given")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--actors", action="store_true", help="over actors, on a Ray of its own")
    where.add_argument("--address", help="over actors, on a Ray that runs; their memory is not seen")
    options = made.parse_args(argv)
    if min(options.clients) < 1 or options.seconds < 2 or options.speed <= 0 or options.turns < 1 or options.minutes < 0:
        made.error("--clients and --turns are at least 1, --seconds 2, --minutes 0, --speed above 0")
    place = ["--address", options.address] if options.address else [] if options.actors else ["--in-process"]
    with tempfile.TemporaryDirectory(prefix="anymodal-bench-") as name:
        folder = Path(name)
        clip = make_clip(options.model, options.seconds, folder)
        with served(options.model, place, folder) as server:
            run = Run(server, clip, tuple(sorted(options.clients)), options.seconds, options.minutes, options.speed,
                      options.turns, local=not options.address)
            rows = [row for name in options.only or MEASURES for row in asyncio.run(MEASURES[name](run))]
    report("live: ratios are ours / baseline", rows, options.json)
    return rows


if __name__ == "__main__":
    main()
