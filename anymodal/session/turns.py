"""Taking turns at the mind."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock whose waiters come in the order in which they asked, so that answers and windows all get on.

    With a plain lock a thread that lets go and asks again at once is usually the next.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._held = False

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:  # interrupted: hand on a turn that has come meanwhile
            with self._guard:
                came = turn.is_set()
                if not came:
                    self._waiting.remove(turn)
            if came:
                self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False
