"""Kill parts of running sessions at random moments, and compare what they saw and answer with a run that nothing hit.

    anymodal chaos --kills 20 --seed 1 --json chaos.json

Each kill has a session of its own, on a clip of the playground, and a second session beside it that must not notice.
The victim is the source, perception, the mind or the supervisor, by SIGKILL: while windows come in, while an answer is
on its way, or within the moments in which a window is written. Windows go from part to part in trips, so that a clip is
several of them long, and kills while they come in are spread over the time that one takes. `write` is within two
milliseconds of a window's being stored, anywhere in a trip.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.session_parts import TRIP
from actors.sessions import RemoteSession, Sessions
from anymodal.errors import AnymodalError, RuntimeFault
from anymodal.session.sqlite_log import SqliteLog, forget
from anymodal.stages.items import Percept
from anymodal.types import Answer

ROLES = ("source", "perception", "mind", "supervisor")
MOMENTS = ("ingest", "answer", "write")
QUESTIONS = ("what colour is the circle?", "what did you hear?", "how many objects are there?",
             "what happened at the end?", "how did the camera move?")
PROGRESS_TIMEOUT_S = 600.0
SECONDS = 64.0  # of a clip: four trips of windows of a second


@dataclass
class Unkilled:
    """What a clip's windows and answers are when nothing is killed."""

    clip: Path
    windows: list[Percept]
    probes: list[tuple[str, float]]
    answers: list[Answer]


@dataclass
class Toll:
    """What the kills came to. `details`: a row per kill."""

    kills: int = 0
    windows_lost: int = 0
    windows_doubled: int = 0
    windows_differing: int = 0
    answers_compared: int = 0
    answers_differing: int = 0
    in_flight_finished: int = 0
    in_flight_failed: int = 0
    recovery_s: list[float] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        row = {key: value for key, value in vars(self).items() if key not in ("recovery_s", "details")}
        for name, share in (("recovery_p50_s", 50), ("recovery_p95_s", 95)):
            row[name] = round(float(np.percentile(self.recovery_s, share)), 2) if self.recovery_s else None
        return {**row, "by_kill": self.details}

    @property
    def harmless(self) -> bool:
        return not (self.windows_lost or self.windows_doubled or self.windows_differing or self.answers_differing)


def unkilled(agent: Any, clip: Path) -> Unkilled:
    """Watch a clip in this process, and ask each question as of another time."""
    with agent.open(clip) as session:
        session.wait()
        windows = list(session.log.windows())
        probes = [(text, (i + 1) * session.end_s / len(QUESTIONS)) for i, text in enumerate(QUESTIONS)]
        return Unkilled(clip, windows, probes, [session.ask(text, at_s=at_s) for text, at_s in probes])


def run(sessions: Sessions, model: str, kills: int, seed: int, *, seconds: float = SECONDS,
        say: Callable[[str], None] = lambda text: None) -> Toll:
    """Kill so many times. Raises AnymodalError where something does not come back."""
    from anymodal.agent import load
    from anymodal.playground.files import render_clips

    rng, toll = random.Random(seed), Toll()
    with tempfile.TemporaryDirectory(prefix="anymodal-chaos-") as place:
        clips = render_clips(Path(place) / "clips", split="demo", seed=seed, count=2, seconds=seconds)
        agent = load(model, threads=1)
        hit, beside = (unkilled(agent, clip) for clip in clips)
        del agent
        name = f"beside-{uuid.uuid4().hex[:8]}"
        bystander = sessions.open(name, beside.clip)
        until_seen(bystander, 1)
        began_s = time.monotonic()
        trip_s = TRIP / bystander.wait() * (time.monotonic() - began_s)
        for number in range(kills):
            row = one_kill(sessions, f"{name}-{number}", hit, trip_s, rng, toll)
            compare(bystander, beside, toll)
            toll.kills += 1
            toll.details.append({**row, "recovery_s": round(toll.recovery_s[-1], 2)})
            say(f"{number + 1}/{kills}: {row['victim']} killed during {row['moment']}, back after "
                f"{toll.recovery_s[-1]:.1f} s")
        finish(sessions, name, beside, toll)
    return toll


def one_kill(sessions: Sessions, name: str, truth: Unkilled, trip_s: float, rng: random.Random,
             toll: Toll) -> dict[str, Any]:
    """`trip_s`: how long a trip of windows takes, about."""
    victim, moment = rng.choice(ROLES), rng.choice(MOMENTS)
    pid = sessions.ready()[victim]
    session = sessions.open(name, truth.clip)
    log = log_of(sessions, name)
    until_stored(log, rng.randrange(1, max(2, len(truth.windows) - 2 * TRIP)))
    asking, outcome = None, []
    if moment == "answer":
        question, at_s = truth.probes[0][0], truth.windows[0].t1_s
        asking = threading.Thread(target=_ask, args=(session, question, at_s, outcome), daemon=True)
        asking.start()
    time.sleep(rng.uniform(0, {"ingest": trip_s, "answer": 0.05, "write": 0.002}[moment]))
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    with SqliteLog.read(log) as stored:
        after = stored.last_window() + 1
    session.ask(truth.probes[0][0], at_s=truth.windows[0].t1_s)
    until_seen(session, min(after + 1, len(truth.windows)))
    sessions.ready()
    toll.recovery_s.append(time.monotonic() - began_s)
    session.wait()
    if asking is not None:
        asking.join(PROGRESS_TIMEOUT_S)
        toll.in_flight_finished += bool(outcome and isinstance(outcome[0], Answer))
        toll.in_flight_failed += not (outcome and isinstance(outcome[0], Answer))
        if outcome and not isinstance(outcome[0], AnymodalError | Answer):
            raise outcome[0]
    compare(session, truth, toll)
    finish(sessions, name, truth, toll)
    return {"victim": victim, "moment": moment, "after_window": after}


def compare(session: RemoteSession, truth: Unkilled, toll: Toll) -> None:
    """Ask all probes again."""
    for (question, at_s), wanted in zip(truth.probes, truth.answers):
        found = session.ask(question, at_s=at_s)
        toll.answers_compared += 1
        toll.answers_differing += _plain(found) != _plain(wanted)
        toll.windows_doubled += max(0, found.windows_seen - wanted.windows_seen)


def finish(sessions: Sessions, name: str, truth: Unkilled, toll: Toll) -> None:
    """End a session, look through its log, and delete it."""
    log = log_of(sessions, name)
    sessions.call("close", name)
    check_log(log, truth, toll)
    forget(log)


def log_of(sessions: Sessions, name: str) -> Path:
    return next(Path(row["log"]) for row in sessions.list() if row["session"] == name)


def check_log(path: Path, truth: Unkilled, toll: Toll) -> None:
    """Every window is there, once, with the values of the run that nothing hit."""
    with SqliteLog.read(path) as log:
        found = list(log.windows())
    numbers = [percept.index for percept in found]
    toll.windows_lost += len({p.index for p in truth.windows} - set(numbers))
    toll.windows_doubled += len(numbers) - len(set(numbers)) + len(set(numbers) - {p.index for p in truth.windows})
    toll.windows_differing += sum(not _alike(a, b) for a, b in zip(found, truth.windows))


def until_seen(session: RemoteSession, windows: int) -> None:
    deadline_s = time.monotonic() + PROGRESS_TIMEOUT_S
    while session.windows < windows:
        if time.monotonic() > deadline_s:
            raise RuntimeFault(f"session {session.name!r} does not go on", fix="see the cluster's logs")
        time.sleep(0.02)


def until_stored(log: Path, windows: int) -> None:
    """To the millisecond: a trip's windows are stored one right after the other."""
    deadline_s = time.monotonic() + PROGRESS_TIMEOUT_S
    with SqliteLog.read(log) as stored:
        while stored.last_window() + 1 < windows:
            if time.monotonic() > deadline_s:
                raise RuntimeFault(f"{log} does not grow", fix="see the cluster's logs")
            time.sleep(0.001)


def _ask(session: RemoteSession, question: str, at_s: float, outcome: list) -> None:
    try:
        outcome.append(session.ask(question, at_s=at_s))
    except Exception as error:
        outcome.append(error)


def _plain(answer: Answer) -> Answer:
    """Without what times and rounding decide."""
    return replace(answer, ttft_s=0.0, stale_s=0.0, confidence=round(answer.confidence, 3))


def _alike(a: Percept, b: Percept) -> bool:
    return (a.index, a.t0_s, a.t1_s, a.frames, a.gap) == (b.index, b.t0_s, b.t1_s, b.frames, b.gap) and len(
        a.tokens) == len(b.tokens) and all(np.array_equal(x.embeds, y.embeds) for x, y in zip(a.tokens, b.tokens))


def main(argv: Sequence[str] | None = None) -> int:
    """Kill parts of running sessions at random, and compare them with a run that nothing hit; 0 if nothing differs."""
    parser = argparse.ArgumentParser(prog="anymodal chaos", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8, help="how many (8)")
    parser.add_argument("--seed", type=int, default=0, help="which victims and moments (0)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"length of the clips ({SECONDS:g})")
    parser.add_argument("--model", default="tiny", help="a shipped bundle's name, or the path of a YAML")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    options = parser.parse_args(argv)
    if options.kills < 1 or options.seconds < 6:
        parser.error("--kills is at least 1, --seconds at least 6")
    try:
        with tempfile.TemporaryDirectory(prefix="anymodal-chaos-") as logs, Sessions(options.model, folder=logs) as own:
            toll = run(own, options.model, options.kills, options.seed, seconds=options.seconds,
                       say=lambda text: print(text, file=sys.stderr, flush=True))
            own.end()
    except AnymodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    report = toll.to_json()
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "by_kill"}))
    return 0 if toll.harmless else 1
