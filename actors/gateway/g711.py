"""G.711 sound of telephones, a byte a sample at 8000 Hz. Source: ITU-T G.711 (11/88), tables 1 and 2."""

from __future__ import annotations

import numpy as np

RATE_HZ = 8000


def _mu_law() -> np.ndarray:
    code = ~np.arange(256) & 0xFF
    size = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -size, size)


def _a_law() -> np.ndarray:
    code = np.arange(256) ^ 0x55
    segment, step = (code >> 4) & 7, (code & 0x0F) << 4
    size = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, size, -size)


TABLES = {"pcmu": (_mu_law() / 32768).astype(np.float32), "pcma": (_a_law() / 32768).astype(np.float32)}


def decoded(data: bytes, law: str) -> np.ndarray:
    """float32 (T,) in [-1, 1]. `law`: pcmu or pcma."""
    return TABLES[law][np.frombuffer(data, np.uint8)]
