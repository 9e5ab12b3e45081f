"""Every error a user can meet, in one tree.

    AnymodalError
    |-- InputError            what was given cannot be used          (exit 2)
    |   |-- MediaError        a file, stream or codec                (exit 3)
    |   |-- SidecarError      a sensor's table or pictures           (exit 3)
    |   |-- QuestionError     empty, too long, or at a wrong time    (exit 2)
    |   |-- SessionError      a session used wrongly, or closed      (exit 2)
    |   |-- PacketError       a pushed packet that is no use         (exit 3)
    |   `-- ManifestError     a row of a job's manifest              (exit 4)
    |-- ConfigError           a YAML key, value or bundle name       (exit 5)
    |   `-- WeightsError      weights that do not fit the bundle     (exit 5)
    |-- MissingExtraError     an optional part is not installed      (exit 6)
    |-- OutputError           a result cannot be written             (exit 7)
    |-- LogError              a session's log cannot be used         (exit 9)
    |   |-- FencedError       another writer has taken the log over
    |   `-- LogFullError      its disk or its quota is full
    `-- RuntimeFault          a running part failed or is too busy   (exit 8)
        |-- BusyError         an admission limit was reached
        |-- DefectError       a part met a case that it was not written for
        `-- PlacementError    the cluster lacks a resource

Each message says what is wrong, with which value, and `fix` the command or key that mends it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class AnymodalError(Exception):
    """Base of all errors raised on purpose. `fix` is one line that says how to mend it."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} ({self.fix})" if self.fix else self.message

    def __reduce__(self):  # errors cross process boundaries with their fix
        return _rebuild, (type(self), self.message, self.fix)


def _rebuild(kind: type[AnymodalError], message: str, fix: str) -> AnymodalError:
    return kind(message, fix=fix)


class InputError(AnymodalError):
    exit_code = 2


class MediaError(InputError):
    exit_code = 3


class SidecarError(InputError):
    exit_code = 3


class QuestionError(InputError):
    exit_code = 2


class SessionError(InputError):
    exit_code = 2


class PacketError(InputError):
    exit_code = 3


class ManifestError(InputError):
    exit_code = 4


class ConfigError(AnymodalError):
    exit_code = 5


class WeightsError(ConfigError):
    exit_code = 5


class MissingExtraError(AnymodalError):
    exit_code = 6


class OutputError(AnymodalError):
    exit_code = 7


class LogError(AnymodalError):
    exit_code = 9


class FencedError(LogError):
    pass


class LogFullError(LogError):
    pass


class RuntimeFault(AnymodalError):
    """`passing`: whether the same call may succeed a moment later, as after the death of a part that is restarted."""

    exit_code = 8
    passing = True


class BusyError(RuntimeFault):
    passing = False  # whoever called decides whether to wait


class DefectError(RuntimeFault):
    passing = False


class PlacementError(RuntimeFault):
    passing = False


def need(module: str, *, extra: str):
    """Import and return `module`, or raise MissingExtraError naming the extra that brings it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module!r} cannot be imported: {error}", fix=f"pip install 'anymodal[{extra}]'"
        ) from error


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file can be written there: for the start of the work whose result it is to hold."""
    was_there = path.exists()
    if was_there and not (path.is_file() or path.is_dir()):
        return  # a pipe or a device, which would take notice
    try:
        path.open("ab").close()
        if not was_there:
            path.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix="give another file") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'queries'?", or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
