"""How many threads a process computes with, and what it does with memory between two computations."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # glibc's malloc.h


def usable_cores() -> int:
    """Cores that this process may use: its affinity, less where a container's quota is lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return cores


def keep_freed_memory(most_bytes: int | None = None) -> None:
    """Tell glibc to keep what is freed for the next use, instead of handing each large block back: page faults cost a
    computation that goes on and on more than a tenth. most_bytes: no more than that, and no blocks of over 32 MiB."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    if most_bytes is None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    else:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the most that it can be set to
        mallopt(_TRIM_THRESHOLD, most_bytes)


def limit_threads(count: int) -> None:
    """Let torch and OpenMP use `count` threads in this process. Best called before torch is imported.

    Idle threads sleep rather than spin: spinning makes a process many times slower wherever cores are shared.
    """
    os.environ["OMP_NUM_THREADS"] = str(count)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
