"""A file's windows as bytes, for a process that decodes on behalf of another.

    request --write_windows--> message, message, ... --read_message--> heads, with Windows

A message is a JSON head of {"open"}, {"window"}, {"end"}, {"error"} or {"failed"}, and a window's arrays as they lie in
memory: whoever reads what comes from a process that has read a stranger's file unpickles nothing.
"""

from __future__ import annotations

import errno
import json
import math
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

from anymodal.errors import AnymodalError
from anymodal.media.clip import WindowReader, read_windows
from anymodal.media.levels import Level
from anymodal.media.spec import StreamSpec, stream_specs
from anymodal.types import Signal, Window

KINDS = ("|u1", "<u2", "<f4")  # of arrays: see anymodal.types
NO_MEMORY = os.strerror(errno.ENOMEM)  # as FFmpeg says it too


def new_request(path: str | Path, bundle: Any, sidecars: Mapping[str, str | Path] | None = None,
                first_window: int = 0) -> dict[str, Any]:
    """What `read_windows` is given, as JSON takes it."""
    specs = {name: asdict(spec) for name, spec in stream_specs(bundle.modalities).items()}
    return {"path": str(path), "window_s": bundle.window_s, "modalities": specs, "first_window": first_window,
            "sidecars": {name: str(where) for name, where in (sidecars or {}).items()}}


def write_windows(request: dict[str, Any], file: IO[bytes]) -> None:
    """Write all windows, or what is wrong. Raises MemoryError, also where FFmpeg had none: it is no damage of the file's
    that frames are missing then."""
    try:
        _write_all(request, file)
    except AnymodalError as error:
        if NO_MEMORY in error.message:
            raise MemoryError from error
        _write(file, {"error": [type(error).__name__, error.message, error.fix]})
    except (MemoryError, BrokenPipeError):
        raise
    except Exception:
        _write(file, {"failed": traceback.format_exc()})


def read_message(take: Callable[[int], np.ndarray]) -> dict[str, Any]:
    """The next head; its "window", if it has one, is a Window. `take`: exactly N bytes of what was written, uint8 (N,).

    Raises ValueError, KeyError, TypeError or AttributeError for what is no message.
    """
    head = json.loads(take(int.from_bytes(take(4).tobytes(), "little")).tobytes())
    if (row := head.get("window")) is not None:
        signals = {}
        for name, signal, described in row.pop("signals"):
            data, closing = (None if each is None else _array(take, *each) for each in described)
            signals[name] = Signal(data=data, closing=closing, **signal)
        head["window"] = Window(signals=signals, **row)
    return head


def _array(take: Callable[[int], np.ndarray], kind: str, shape: list[int]) -> np.ndarray:
    if kind not in KINDS:
        raise ValueError(f"no kind of array {kind!r}")
    return take(math.prod(shape) * np.dtype(kind).itemsize).view(kind).reshape(shape)


def _write_all(request: dict[str, Any], file: IO[bytes]) -> None:
    specs = {name: _spec(row) for name, row in request["modalities"].items()}
    bundle = SimpleNamespace(window_s=request["window_s"], modalities=specs)
    with read_windows(request["path"], bundle, sidecars=request["sidecars"],
                      first_window=request["first_window"]) as reader:
        told = _warnings(reader)
        _write(file, {"open": True, "warnings": told})
        for window in reader:
            signals = [[name, {"modality": s.modality, "rate_hz": s.rate_hz, "t0_s": s.t0_s, "still": s.still},
                        [_described(s.data), _described(s.closing)]] for name, s in window.signals.items()]
            head = {"window": {"index": window.index, "t0_s": window.t0_s, "t1_s": window.t1_s, "signals": signals,
                               "dropped": dict(window.dropped)}}
            if (warnings := _warnings(reader)) != told:
                head["warnings"] = told = warnings
            _write(file, head, *(a for s in window.signals.values() for a in (s.data, s.closing) if a is not None))
        _write(file, {"end": True, "warnings": _warnings(reader)})


def _warnings(reader: WindowReader) -> list[str]:
    if any(NO_MEMORY in warning for warning in reader.warnings):
        raise MemoryError
    return reader.warnings


def _spec(row: dict[str, Any]) -> StreamSpec:
    level = row["level"] and Level(**row["level"])
    return StreamSpec(**row | {"axes": tuple(row["axes"]), "level": level})


def _described(array: np.ndarray | None) -> tuple[str, tuple[int, ...]] | None:
    return None if array is None else (array.dtype.str, array.shape)


def _write(file: IO[bytes], head: dict[str, Any], *arrays: np.ndarray) -> None:
    text = json.dumps(head).encode()
    for piece in (len(text).to_bytes(4, "little"), text, *(array.tobytes() for array in arrays)):
        file.write(piece)
    file.flush()
