"""What is typed while `anymodal live` runs: a line at a time, read on a thread of its own that ends when it is told to."""

from __future__ import annotations

import codecs
import os
import queue
import select
import sys
import threading
from collections.abc import Iterator

POLL_S = 0.1
END, ERASE, ERASE_LINE, ERASE_WORD, ESCAPE = "\x04", "\x7f\b", "\x15", "\x17", "\x1b"
LONGEST = 2000  # characters of a line


class Typed:
    """Lines typed at a terminal, key by key so that a live view can show them (`text`), or read from a pipe. A context
    manager: the terminal is as before at its end. `ended`: the other side typed its end (Ctrl-D)."""

    def __init__(self, *, keys: bool) -> None:
        self.text, self.ended = "", False
        self._fd = _stdin()
        self._keys = keys and self._fd is not None and os.isatty(self._fd)
        self._lines: queue.Queue[str] = queue.Queue()
        self._past: list[str] = []
        self._at = 0  # in `_past`, for the arrow keys
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="typed", daemon=True)
        self._saved = None

    def lines(self) -> Iterator[str]:
        """What was entered and not given yet."""
        while True:
            try:
                yield self._lines.get_nowait()
            except queue.Empty:
                return

    def __enter__(self) -> Typed:
        if self._keys:
            import termios
            import tty

            self._saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        if self._fd is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._fd is not None:
            self._thread.join()
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while not self._stop.is_set():
            try:
                if not select.select([self._fd], [], [], POLL_S)[0]:
                    continue
                data = os.read(self._fd, 4096)
            except (OSError, ValueError):
                return
            self._take(decoder.decode(data, final=not data))
            if not data:
                self._enter()
                return

    def _take(self, text: str) -> None:
        if self._keys and text.startswith(ESCAPE):
            self._recall({"\x1b[A": -1, "\x1bOA": -1, "\x1b[B": 1, "\x1bOB": 1}.get(text, 0))
            return
        for key in text:
            if key in "\r\n":
                self._enter()
            elif not self._keys:
                self.text += key
            else:
                self._edit(key)

    def _edit(self, key: str) -> None:
        if key in ERASE:
            self.text = self.text[:-1]
        elif key == ERASE_LINE:
            self.text = ""
        elif key == ERASE_WORD:
            self.text = self.text.rstrip().rpartition(" ")[0]
        elif key == END:
            self.ended = self.ended or not self.text
        elif key.isprintable() and len(self.text) < LONGEST:
            self.text += key

    def _enter(self) -> None:
        line, self.text = self.text.strip(), ""
        if line:
            self._past.append(line)
            self._at = len(self._past)
            self._lines.put(line)

    def _recall(self, step: int) -> None:
        if step and self._past:
            self._at = min(max(0, self._at + step), len(self._past))
            self.text = [*self._past, ""][self._at]


def _stdin() -> int | None:
    """The descriptor of what can be waited for; None where there is none."""
    try:
        fd = sys.__stdin__.fileno()
        select.select([fd], [], [], 0)
    except (OSError, ValueError, AttributeError):  # closed; or no pipe and no socket, on Windows
        return None
    return fd
