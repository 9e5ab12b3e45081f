"""Media in: files to packets on the media clock, packets to windows.

    open_media(path, specs) --Packet--> Windower --Window-->     read_windows(path, bundle) does both

| module | what |
|---|---|
| spec | what is wanted of a stream, what a file holds |
| container | opening: bad input becomes one clear error, URLs are fetched, nothing hangs |
| video, audio, sidecar, pictures | one stream each: decode, align, resample onto the grid |
| levels | 16-bit pictures: what becomes a level, how levels are scaled |
| source | several streams of one file merged in media time |
| windows | packets to aligned windows, with a watermark and drop counts |
| clip | a file's windows, for the agent |
| apart | windows as bytes, from a process that decodes for another |
| sparse | a few frames at given times, by PyAV or decord |

Names are imported on first use, so that `import anymodal.media` loads neither av nor decord.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "StreamSpec": "spec",
    "StreamInfo": "spec",
    "MediaInfo": "spec",
    "stream_specs": "spec",
    "probe": "info",
    "open_media": "source",
    "MediaSource": "source",
    "Windower": "windows",
    "Totals": "windows",
    "read_windows": "clip",
    "WindowReader": "clip",
    "sparse_frames": "sparse",
    "read_sidecar": "sidecar",
    "find_sidecars": "sidecar",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
