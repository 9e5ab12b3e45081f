"""Sessions in this process, by where their log is."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from anymodal.session.log import LogInfo, Retention
from anymodal.session.session import Session
from anymodal.session.sqlite_log import SqliteLog, forget

if TYPE_CHECKING:
    from anymodal.bundle import Bundle

S = TypeVar("S", bound=Session)


def new_session(bundle: Bundle, path: str | Path | None, *, kind: type[S] = Session, retention: Retention | None = None,
                stopped_by: str = "", **options: Any) -> S:
    """A session with a new log. Without a path it is kept in a temporary file, which goes when the session is closed."""
    info = LogInfo(uuid.uuid4().hex, bundle.spec.name, bundle.identity, bundle.spec.window_s, bundle.spec.dtype)
    if path is not None:
        log = SqliteLog.create(path, info, retention=retention or Retention(), stopped_by=stopped_by)
        try:
            return _session(kind, bundle, log, options)
        except BaseException:
            forget(path)
            raise
    folder = tempfile.mkdtemp(prefix="anymodal-session-")
    log = SqliteLog.create(Path(folder) / "session.db", info, retention=retention or Retention())
    remove = weakref.finalize(log, shutil.rmtree, folder, ignore_errors=True)  # also where the session is never closed
    return _session(kind, bundle, log, {**options, "on_close": remove})


def old_session(bundle: Bundle, path: str | Path, *, kind: type[S] = Session, write: bool = True, check: bool = True,
                retention: Retention | None = None, stopped_by: str = "", **options: Any) -> S:
    """The session of a log that is there, for going on with it or only for asking. `check`: that it is of this bundle."""
    identity = bundle.identity if check else None
    reading = _session(kind, bundle, SqliteLog.read(path, identity=identity), options)
    if not write:
        return reading
    reading.close()  # what is refused has taken the log from nobody
    log = SqliteLog.open(path, identity=identity, retention=retention or Retention(), stopped_by=stopped_by)
    return _session(kind, bundle, log, options)


def _session(kind: type[S], bundle: Bundle, log: SqliteLog, options: dict[str, Any]) -> S:
    try:
        return kind(bundle, log, **options)
    except BaseException:
        log.close()
        raise
