"""How much memory there is, asked before a large model is read."""

from __future__ import annotations

from pathlib import Path

from anymodal.errors import WeightsError

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: str = "cpu") -> int | None:
    """What could be taken now: of the GPU, or of this machine within its container's limit; None where it is not told."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0]
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # "max" where there is none
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used = int((_CGROUP / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return free
    return min(free, max(0, limit - used))


def check_room(need_bytes: int, device: str, what: str) -> None:
    """Raise WeightsError unless so much fits."""
    free = free_bytes(device)
    if free is not None and need_bytes > free:
        raise WeightsError(f"{what} needs {_gb(need_bytes)} of memory, {_gb(free)} are free on {device}",
                           fix="use dtype bfloat16, quantize it in the YAML's `load`, or choose a machine with more memory")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
