"""What a live session has sent, numbered, for a client that comes back; and the journal that brings it back after the end
of this process.

The journal is a file beside the session's log, a JSON text a line: `E` an event, `C` a checkpoint, what else the session
needs to go on. A line is written before its event is sent, without waiting for the disk: what a client has seen is there
after the process was killed, and all but the last moments after a loss of power. A line that was cut off is left out.
Whoever writes it is alone; it is for the event loop, and every call is short.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from anymodal.protocol import Numbered

KEPT_BYTES = 8 * 2**20  # of events, beside how many
SPARE_BYTES = 2**20  # the journal is written anew when it is larger than what is kept by this

log = logging.getLogger("anymodal")


class Outbox:
    """The newest `kept` events as JSON texts. `last`: the number of the newest one ever, 0 before the first."""

    def __init__(self, path: Path, kept: int, told: Callable[[], None] = lambda: None) -> None:
        self.path, self._kept, self._told = path, kept, told
        self.last = 0
        self.checkpoint: dict[str, Any] = {}
        self._events: deque[str] = deque()
        self._bytes = self._written = 0
        self._file: int | None = None

    @property
    def first(self) -> int:
        """The oldest number kept; `last` + 1 where none is."""
        return self.last - len(self._events) + 1

    # -- events -------------------------------------------------------------------------------------------------

    def put(self, kind: type, **fields: Any) -> int:
        """Make the next event, note and send it; its number."""
        self.last += 1
        text = as_text(kind, self.last, **fields)
        self._keep(text)
        self._write(f"E {text}\n")
        self._told()
        return self.last

    def after(self, number: int) -> str | None:
        """The event behind a number; None where there is none yet. Raises LookupError where it is kept no longer."""
        if number >= self.last:
            return None
        if number + 1 < self.first:
            raise LookupError(number)
        return self._events[number + 1 - self.first]

    def events(self) -> Iterator[dict[str, Any]]:
        """What is kept, oldest first."""
        return (json.loads(text) for text in self._events)

    def skip_to(self, number: int) -> None:
        """Go on behind a number that a client has seen, though the journal does not know of it."""
        if number > self.last:
            self.last = number
            self._clear()

    def _clear(self) -> None:
        self._events.clear()
        self._bytes = 0

    def _keep(self, text: str) -> None:
        self._events.append(text)
        self._bytes += len(text)
        while len(self._events) > self._kept or (self._bytes > KEPT_BYTES and len(self._events) > 1):
            self._bytes -= len(self._events.popleft())

    # -- the journal --------------------------------------------------------------------------------------------

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Note what the session goes on with after the end of this process."""
        if checkpoint != self.checkpoint:
            self.checkpoint = checkpoint
            self._write(f"C {json.dumps(checkpoint)}\n")

    def load(self) -> bool:
        """Read the journal, if there is one with a checkpoint."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        except OSError:
            return False
        for line in lines:
            kind, text = line[:2], line[2:]
            try:
                value = json.loads(text)
                if kind == "C ":
                    self.checkpoint = value
                elif kind == "E ":
                    number = value["anymodal"]["seq"]
                    if number != self.last + 1:
                        self._clear()
                    self.last = number
                    self._keep(text)
            except (ValueError, KeyError, TypeError, RecursionError):  # broken off, or written over by a failing disk
                self._clear()
        return bool(self.checkpoint)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def forget(self) -> None:
        self.close()
        for path in (self.path, self._half):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        """A session whose journal cannot be written goes on; it would not outlive this process."""
        data = line.encode()
        try:
            if self._file is None or self._written > self._bytes + SPARE_BYTES:
                self._begin()
                return
            written = os.write(self._file, data)
            self._written += written
            if written < len(data):  # the disk is full: begun anew when there is room
                self.close()
        except OSError as error:
            log.warning("%s cannot be written: %s", self.path, error)

    def _begin(self) -> None:
        """The journal anew, with what is kept: beside the old one until it is whole."""
        self.close()
        text = "".join([f"C {json.dumps(self.checkpoint)}\n" if self.checkpoint else "",
                        *(f"E {event}\n" for event in self._events)]).encode()
        file = os.open(self._half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            written = 0
            while written < len(text):
                written += os.write(file, text[written:])
            os.replace(self._half, self.path)
        except BaseException:
            os.close(file)
            raise
        self._file, self._written = file, len(text)

    @property
    def _half(self) -> Path:
        return self.path.with_suffix(".half")


def as_text(kind: type, number: int, **fields: Any) -> str:
    """An event of the server as it is sent. What of it is None is left out."""
    event = kind(event_id=f"event_{number}", anymodal=Numbered(seq=number), **fields)
    return event.model_dump_json(exclude_none=True)
