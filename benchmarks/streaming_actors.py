"""Sessions over actors: how near ingest comes to its bound, and what many streams do to the latency of answers.

    python -m benchmarks.streaming_actors [--model tiny] [--seconds 240] [--answers 40] [--streams 1 16] [--json FILE]

`ingest_vs_bound`: windows a second from file to mind, one thread per stage, against what the machine allows: the slowest
stage alone, or all cores over the CPU seconds of a window; both in turns, since a machine's speed drifts, and the median of
their ratios is told. `answer_p95_16_vs_1`: the 95th percentile of an answer's
latency while 16 streams come in, over that with one; each stream comes at 1/40 of the rate that saturates ingest.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.sessions import RemoteSession, Sessions  # noqa: E402
from anymodal.agent import Agent, load  # noqa: E402
from anymodal.config import load_spec  # noqa: E402
from anymodal.media import open_media, read_windows  # noqa: E402
from anymodal.media.spec import stream_specs  # noqa: E402
from anymodal.playground.files import render_clips  # noqa: E402
from anymodal.stages.perceive import BATCH, Perceive  # noqa: E402
from anymodal.threads import usable_cores  # noqa: E402
from anymodal.types import Packet  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402

QUESTION = "what colour is the circle?"
SETTLED = 5  # windows of each stream, before answers are measured: opening sixteen sessions is work of its own
TURNS = 3  # of ingest and its bound
SHARE = 40  # a stream comes at this part of the rate that saturates ingest


def one_thread(model: str, folder: Path) -> Path:
    """A copy of a bundle's YAML with one thread per stage."""
    spec, path = load_spec(model)
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["weights"] = str((path.parent / (spec.weights or spec.name)).resolve())
    raw["runtime"] = {**raw.get("runtime", {}), "perception": {"threads": 1}, "mind": {"threads": 1}}
    made = folder / f"{spec.name}.yaml"
    made.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return made


def allowed_hz(agent: Agent, clip: Path) -> float:
    """Windows a second that the machine allows: each stage alone in this process, and the CPU seconds of all together."""
    perceive, mind = Perceive(agent.perception, batch=BATCH), agent.bundle.mind

    def decode() -> list:
        with read_windows(clip, agent.spec) as reader:
            return list(reader)

    def encode() -> list:
        return [p for at in range(0, len(windows), BATCH) for p in perceive.encode(
            [("", w) for w in windows[at : at + BATCH]])]

    def think() -> None:
        state = mind.open()
        for at in range(0, len(percepts), BATCH):
            mind.extend_all(state, percepts[at : at + BATCH])

    def timed(stage: Callable[[], Any]) -> tuple[Any, float, float]:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = stage()
        return found, time.perf_counter() - wall_s, time.process_time() - cpu_s

    windows, *source = timed(decode)
    percepts, *encoding = timed(encode)
    _, *thinking = timed(think)
    per = [(wall_s / len(windows), cpu_s / len(windows)) for wall_s, cpu_s in (source, encoding, thinking)]
    return min(1 / max(wall_s for wall_s, _ in per), usable_cores() / sum(cpu_s for _, cpu_s in per))


def ingest_hz(sessions: Sessions, clip: Path, name: str) -> float:
    """Windows a second from the first one seen to the last."""
    session = sessions.open(name, clip)
    while (first := session.windows) < 1:
        time.sleep(0.005)
    began_s = time.perf_counter()
    last = session.wait()
    rate_hz = (last - first) / (time.perf_counter() - began_s)
    sessions.call("close", name)
    return rate_hz


def packets_by_window(clip: Path, spec: Any) -> list[list[Packet]]:
    with open_media(clip, stream_specs(spec.modalities)) as source:
        packets = list(source)
    count = int(max(p.pts_s for p in packets) / spec.window_s) + 1
    return [[p for p in packets if i * spec.window_s <= p.pts_s < (i + 1) * spec.window_s] for i in range(count)]


def feed(session: RemoteSession, windows: list[list[Packet]], window_s: float, every_s: float, offset_s: float,
         ended: threading.Event) -> None:
    """Push a window's packets every so often, the clip again and again on one clock."""
    turn = 0
    due_s = time.monotonic() + offset_s
    while not ended.wait(max(0.0, due_s - time.monotonic())):
        later_s = (turn // len(windows)) * len(windows) * window_s
        session.push([replace(p, pts_s=p.pts_s + later_s) for p in windows[turn % len(windows)]])
        turn, due_s = turn + 1, due_s + every_s


def answer_p95_s(sessions: Sessions, windows: list[list[Packet]], streams: int, every_s: float, answers: int) -> float:
    """Latencies of answers, to and fro over the streams, while they come in."""
    opened = [sessions.open(f"stream-{streams}-{i}", live=True) for i in range(streams)]
    ended = threading.Event()
    window_s = sessions.spec.window_s
    threads = [threading.Thread(target=feed, daemon=True,
                                args=(s, windows, window_s, every_s, i * every_s / streams, ended))
               for i, s in enumerate(opened)]
    for thread in threads:
        thread.start()
    try:
        for session in opened:
            while session.windows < SETTLED:
                time.sleep(0.02)
        took_s = []
        for i in range(answers):
            began_s = time.perf_counter()
            opened[i % streams].ask(QUESTION)
            took_s.append(time.perf_counter() - began_s)
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
        for session in opened:
            sessions.call("close", session.name)
    return float(np.percentile(took_s, 95))


def measure(model: str, seconds: float, answers: int, streams: Sequence[int]) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="anymodal-bench-") as place:
        folder = Path(place)
        clip = render_clips(folder / "clips", split="demo", seed=3, count=1, seconds=seconds)[0]
        bundle = one_thread(model, folder)
        agent = load(bundle, threads=1)
        with Sessions(bundle, folder=folder / "logs") as sessions:
            turns = [(ingest_hz(sessions, clip, f"ingest-{i}"), allowed_hz(agent, clip)) for i in range(1 + TURNS)]
            ours_hz, bound_hz = sorted(turns[1:], key=lambda turn: turn[0] / turn[1])[TURNS // 2]  # the first warms up
            windows = packets_by_window(clip, sessions.spec)
            found = {n: answer_p95_s(sessions, windows, n, SHARE / ours_hz, answers) for n in streams}
            sessions.end()
    return rows(agent.spec.name, ours_hz, bound_hz, found)


def rows(case: str, ours_hz: float, bound_hz: float, p95_s: Mapping[int, float]) -> list[Row]:
    """case: the bundle's name. p95_s: of answers, by how many streams come in."""
    one_s = p95_s[min(p95_s)]
    return [Row("ingest_vs_bound", ours_hz, bound_hz, ours_hz / bound_hz, 0.85, "windows/s", case),
            *(Row(f"answer_p95_{n}_vs_1", took_s, one_s, took_s / one_s, 1.5 if n == 16 else None, "s", case, at_most=True)
              for n, took_s in p95_s.items() if n != min(p95_s))]


def main(argv: Sequence[str] | None = None) -> list[Row]:
    made = parser(__doc__)
    made.add_argument("--model", default="tiny")
    made.add_argument("--seconds", type=float, default=240.0,
                      help="length of the clip (240: filling and draining the stages should weigh little)")
    made.add_argument("--answers", type=int, default=40, help="per number of streams (40)")
    made.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    options = made.parse_args(argv)
    found = measure(options.model, options.seconds, options.answers, options.streams)
    report("sessions over actors", found, options.json)
    return found


if __name__ == "__main__":
    main()
