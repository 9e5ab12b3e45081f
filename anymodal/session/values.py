"""Windows, arrays and rows as they are stored: checked, rounded, and as bytes.

An array: one byte each for dtype and number of dimensions, uint32 dimensions, the values, little-endian; bfloat16 as
its upper 16 bits. A row: its JSON, with arrays taken out, then the arrays. Either ends in a CRC-32 of what is before.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np

from anymodal.errors import LogError
from anymodal.session.log import LogInfo
from anymodal.stages.items import Percept
from anymodal.types import Tokens

BFLOAT16 = "bfloat16"
_CODES = {BFLOAT16: 0, "float16": 1, "float32": 2, "float64": 3, "int32": 4, "int64": 5, "uint8": 6, "bool": 7}
_NAMES = {code: name for name, code in _CODES.items()}
STORED = (BFLOAT16, "float16", "float32")


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 -> the nearest bfloat16's bits, uint16, ties to even; not-a-number stays so."""
    bits = np.asarray(values, np.float32, order="C").view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16's bits, uint16 -> float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values as they come back after being stored in `dtype`. Rounding twice changes nothing."""
    if dtype == BFLOAT16:
        return from_bfloat16(to_bfloat16(values))
    return values.astype(dtype).astype(np.float32)


def as_stored(percept: Percept, dtype: str) -> Percept:
    """A Percept with the values that a log of this dtype gives back: the ones for the mind to read."""
    return replace(percept, tokens=tuple(
        replace(t, embeds=rounded(t.embeds, dtype), joint=None if t.joint is None else rounded(t.joint, dtype),
                extras=None if t.extras is None else rounded(t.extras, dtype), familiarity=float(t.familiarity))
        for t in percept.tokens))


def check_percept(percept: Percept, info: LogInfo) -> None:
    """Raise LogError for what is no window of a log."""
    where = f"window {percept.index} of session {percept.session!r}"
    if percept.session != info.session:
        raise LogError(f"{where} does not belong to session {info.session!r}", fix="append it to its own log")
    t0_s = percept.index * info.window_s
    if not (isfinite(percept.t1_s) and percept.t0_s < percept.t1_s and abs(percept.t0_s - t0_s) < info.window_s / 2):
        raise LogError(f"{where} covers {percept.t0_s:g} to {percept.t1_s:g} s, where {t0_s:g} s was expected",
                       fix="number windows on the session's media clock")
    for tokens in percept.tokens:
        if tokens.embeds.ndim != 2 or not np.isfinite(tokens.embeds).all():
            raise LogError(f"{where}: tokens of {tokens.stream!r}, {tokens.embeds.shape}, are no finite (N, D) values",
                           fix="check the encoder of that modality")
        count, width = tokens.embeds.shape
        if tokens.positions is not None and (tokens.positions.shape != (count, 3) or tokens.positions.dtype != np.int32):
            raise LogError(f"{where}: positions of {tokens.stream!r} are {tokens.positions.dtype} "
                           f"{tokens.positions.shape}, not int32 {(count, 3)}", fix="check the encoder of that modality")
        if tokens.extras is not None and (tokens.extras.shape[1:] != (count, width)
                                          or not np.isfinite(tokens.extras).all()):
            raise LogError(f"{where}: extras of {tokens.stream!r}, {tokens.extras.shape}, are no finite "
                           f"(L, {count}, {width}) values", fix="check the encoder of that modality")


def with_takes(tokens: Tokens) -> np.ndarray:
    """Positions as they are stored: the first row says what the window takes."""
    return np.concatenate([np.array([tokens.takes], np.int32), tokens.positions])


def pack_array(values: np.ndarray, dtype: str | None = None) -> bytes:
    """`dtype`: what to store it in; None keeps its own."""
    name = dtype or values.dtype.name
    if name not in _CODES:
        raise ValueError(f"no way to store an array of {name}; known: {', '.join(_CODES)}")
    shape = struct.pack(f"<BB{values.ndim}I", _CODES[name], values.ndim, *values.shape)
    plain = to_bfloat16(values) if name == BFLOAT16 else np.asarray(values, np.dtype(name).newbyteorder("<"))
    return _sealed(shape + plain.tobytes())


def unpack_array(data: bytes) -> np.ndarray:
    """Raises LogError for bytes that were changed. bfloat16 and float16 come back as float32."""
    array, rest = _read_array(_unsealed(data))
    if rest:
        raise LogError("a stored array has more bytes than its shape", fix="the log is damaged")
    return array


def _read_array(data: bytes) -> tuple[np.ndarray, bytes]:
    code, dims = struct.unpack_from("<BB", data)
    shape = struct.unpack_from(f"<{dims}I", data, 2)
    name = _NAMES[code]
    dtype = np.dtype("uint16" if name == BFLOAT16 else name).newbyteorder("<")
    start = 2 + 4 * dims
    stop = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array = np.frombuffer(data[start:stop], dtype).reshape(shape)
    if name == BFLOAT16:
        array = from_bfloat16(array)
    return array.astype("float32" if name in STORED else name), data[stop:]  # a copy: writable, in native order


def pack_row(row: dict[str, Any]) -> bytes:
    """JSON's values and numpy arrays, nested in dicts and lists as they like."""
    arrays: list[np.ndarray] = []

    def out(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {"__array__": len(arrays) - 1}
        if isinstance(value, np.generic):
            return value.item()
        return dict(value)

    text = json.dumps(row, default=out, ensure_ascii=False).encode()
    parts = [pack_array(a) for a in arrays]
    sizes = struct.pack(f"<II{len(parts)}I", len(text), len(parts), *(len(p) for p in parts))
    return _sealed(sizes + text + b"".join(parts))


def unpack_row(data: bytes) -> dict[str, Any]:
    """Raises LogError for bytes that were changed."""
    data = _unsealed(data)
    length, count = struct.unpack_from("<II", data)
    sizes = struct.unpack_from(f"<{count}I", data, 8)
    at = 8 + 4 * count
    text, at = data[at : at + length], at + length
    arrays = []
    for size in sizes:
        arrays.append(unpack_array(data[at : at + size]))
        at += size
    return json.loads(text, object_hook=lambda d: arrays[d["__array__"]] if d.keys() == {"__array__"} else d)


def seal(*values: Any) -> int:
    """A checksum of plain values, as SQLite gives them back."""
    return zlib.crc32(repr(values).encode())


def _sealed(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def _unsealed(data: bytes) -> bytes:
    if len(data) < 4 or struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
        raise LogError("stored bytes do not match their checksum", fix="the log is damaged: restore it from a copy")
    return data[:-4]
