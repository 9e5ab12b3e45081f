"""`anymodal serve` in a process of its own, for benchmarks, and how much memory it takes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_S, STOP_S = 180.0, 60.0
LIMITS = {"most_sessions": 64, "most_sessions_per_client": 64, "most_sockets": 128, "requests_per_min": 1e6}


@dataclass(frozen=True)
class Server:
    """`pid` of the process that listens; the actors of a Ray that runs elsewhere are not below it."""

    url: str
    pid: int

    def resident_bytes(self) -> int:
        """Of the process and all below it (Linux)."""
        return sum(_resident_bytes(pid) for pid in _family(self.pid))

    def cpu_s(self) -> float:
        """CPU time of the process and all below it, those that have ended included (Linux)."""
        return sum(_cpu_s(pid) for pid in _family(self.pid))


@contextmanager
def served(model: str, where: Sequence[str], folder: Path) -> Iterator[Server]:
    """`anymodal serve` in a process of its own."""
    limits = [part for name, value in LIMITS.items() for part in ("--limit", f"{name}={value:g}")]
    command = [sys.executable, "-m", "anymodal", "serve", "--port", "0", "--model", model,
               "--state", str(folder / "state"), *where, *limits]
    out = folder / "server.log"
    with out.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                   cwd=Path(__file__).resolve().parent.parent)
    try:
        deadline_s = time.monotonic() + START_S
        while not (found := re.search(r" at (http://\S+:\d+)", out.read_text(encoding="utf-8"))):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the server did not start:\n{out.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.05)
        yield Server(found[1], process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # it has just ended
        return 0
