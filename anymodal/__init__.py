"""anymodal: ask a video, a sound and its sensors, and get answers with the times they rely on.

    import anymodal

    agent = anymodal.load("tiny")
    answer = agent.ask("clip.mp4", "what colour is the circle?")

Names are imported on first use: `import anymodal` alone needs neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load": "agent",
    "Agent": "agent",
    "Answer": "types",
    "Delta": "types",
    "Evidence": "types",
    "Packet": "types",
    "Signal": "types",
    "Tokens": "types",
    "Window": "types",
    "AnymodalError": "errors",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anymodal' has no attribute {name!r}")
    return getattr(importlib.import_module(f"anymodal.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
