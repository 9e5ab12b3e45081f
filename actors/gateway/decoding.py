"""Clips decoded in processes of their own: a file that makes FFmpeg crash, hang or take all memory ends such a process, and
the server goes on.

    Looker --fork, limits--> decode --pipe--> ApartReader --Window--> session
    (sniff.py)               (some windows ahead, then it waits)

What crosses the pipe, and that nothing of it is unpickled: see `anymodal.media.apart`.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import anymodal.errors
from actors.gateway.settings import MIB, Settings
from anymodal.errors import AnymodalError, MediaError, SessionError
from anymodal.media.apart import new_request, read_message, write_windows
from anymodal.types import Window

if TYPE_CHECKING:
    from actors.gateway.sniff import Looker, Lookers

AHEAD = MIB  # bytes of windows that wait in the pipe, where the system lets it be so large
PATIENCE = 3  # times `sniff_timeout_s`, without a window


class Decoders:
    """Reads clips by the processes of `lookers`, within the limits of `settings`."""

    def __init__(self, lookers: Lookers, settings: Settings) -> None:
        self._lookers = lookers
        self._silence_s, self._memory = PATIENCE * settings.sniff_timeout_s, settings.decoder_bytes

    def begin(self, path: str | Path, bundle: Any, *, sidecars: Mapping[str, str | Path] | None = None,
              first_window: int = 0) -> ApartReader:
        """As `anymodal.media.read_windows`; what is wrong with the file is told by the reader's `open`. Raises RuntimeFault
        where no process can be had."""
        return ApartReader(self._lookers, new_request(path, bundle, sidecars, first_window), self._silence_s, self._memory)


class ApartReader:
    """An iterator of Windows and a context manager, as WindowReader; `warnings` as read so far, `pid` of what decodes. Call
    `open` first. One thread reads; `stop` and `close` are for any.

    Raises what WindowReader does; MediaError where the process crashes, gives nothing for `silence_s` or takes more than
    `memory` bytes; and SessionError once it is stopped.
    """

    def __init__(self, lookers: Lookers, request: dict[str, Any], silence_s: float, memory: int) -> None:
        self.warnings: list[str] = []
        self._lookers, self._name, self._silence_s, self._memory = lookers, request["path"], silence_s, memory
        self._stopped = self._closed = False
        self._turn, self._hold = threading.RLock(), threading.Lock()  # while it reads; while the looker is spoken to
        self._pipe, its = os.pipe()
        try:
            with suppress(AttributeError, OSError):
                fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, AHEAD)
            self._looker: Looker | None
            self._looker, self.pid = lookers.take(lambda looker: looker.decode(request, memory, its))
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(its)

    def open(self) -> ApartReader:
        """Wait until the file is open. Raises MediaError and SidecarError."""
        with self._turn:
            self._next("open")
            return self

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        with self._turn:
            if self._closed and not self._stopped:
                raise StopIteration
            head = self._next("window", "end")
            if "end" in head:
                self._end()
                raise StopIteration
            return head["window"]

    def stop(self) -> None:
        """End it at once, also while another thread waits for a window."""
        self._stopped = True
        self._kill()

    def close(self) -> None:
        """End it, and wait until its process is gone."""
        self._kill()
        with self._turn:
            self._end()

    def __enter__(self) -> ApartReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self, *wanted: str) -> dict[str, Any]:
        """The next message. Where it is none of those wanted, the process is ended, and what is wrong is raised."""
        until_s = time.monotonic() + self._silence_s
        try:
            if self._stopped:
                raise EOFError
            head = read_message(lambda count: self._bytes(count, until_s))
        except TimeoutError:
            self._end()
            raise self._fault(f"its decoder gave nothing for {self._silence_s:g} s") from None
        except (EOFError, ValueError, KeyError, TypeError, AttributeError):  # the last four: no message of ours
            died = self._end()
            if self._stopped:
                raise SessionError("the media are not read on: the question was taken back", fix="ask again") from None
            raise self._crash(died) from None
        except BaseException:
            self._end()
            raise
        self.warnings = head.get("warnings", self.warnings)
        if any(kind in head for kind in wanted):
            return head
        died = self._end()
        if "failed" in head:
            raise RuntimeError(f"the decoder failed: {head['failed']}")
        if "error" not in head:
            raise self._crash(died)
        name, message, fix = head["error"]
        kind = vars(anymodal.errors).get(name)
        raise (kind if isinstance(kind, type) and issubclass(kind, AnymodalError) else MediaError)(message, fix=fix)

    def _bytes(self, count: int, until_s: float) -> np.ndarray:
        """uint8 (count,). Raises EOFError where they do not come, TimeoutError where they do not come in time."""
        if not 0 <= count <= self._memory:
            raise ValueError(f"{count} bytes")
        data, ready = np.empty(count, np.uint8), select.poll()  # memory is taken as they come, whatever was announced
        ready.register(self._pipe, select.POLLIN)
        left = memoryview(data)
        while left:
            if not ready.poll(max(0.0, until_s - time.monotonic()) * 1000):
                raise TimeoutError
            if not (got := os.readv(self._pipe, [left])):
                raise EOFError
            left = left[got:]
        return data

    def _kill(self) -> None:
        with self._hold:
            if self._looker is not None:
                self._looker.stop()

    def _end(self) -> int:
        """Kill it if it runs, and wait until it is gone. The signal that it died of, or 0."""
        if self._closed:
            return 0
        self._closed = True
        os.close(self._pipe)
        with self._hold:
            looker, self._looker = self._looker, None
        try:
            looker.stop()
            died = looker.ended()
        except (OSError, ValueError):  # the looker was killed, and its fork with it
            looker.close()
            return signal.SIGKILL
        self._lookers.give_back(looker)
        return died

    def _crash(self, died: int) -> MediaError:
        if not died:
            return self._fault(f"its decoder takes over {self._memory // MIB} MiB of memory")
        name = signal.Signals(died).name if died in iter(signal.Signals) else f"signal {died}"
        return self._fault(f"the decoder crashed ({name})")

    def _fault(self, why: str) -> MediaError:
        return MediaError(f"{self._name} cannot be decoded: {why}", fix="convert it, e.g. to mp4")


# -- in the process of its own -------------------------------------------------------------------------------------


def decode(request: dict[str, Any], memory: int, out: int) -> None:
    """Write windows to a pipe, in a fork that does nothing else. Out of memory, it ends without a word."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(out, "wb", closefd=False) as file:  # its end is that of the process, so that the reader can be sure
        write_windows(request, file)
