"""Sessions in this process, by where their log is."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anymodal.session.log import LogInfo, Retention
from anymodal.session.session import Session
from anymodal.session.sqlite_log import SqliteLog

if TYPE_CHECKING:
    from anymodal.bundle import Bundle


def new_session(bundle: Bundle, path: str | Path | None, *, retention: Retention | None = None, **options: Any) -> Session:
    """A session with a new log. Without a path it is kept in a temporary file, which goes when the session is closed."""
    info = LogInfo(uuid.uuid4().hex, bundle.spec.name, bundle.identity, bundle.spec.window_s, bundle.spec.dtype)
    if path is not None:
        return _session(bundle, SqliteLog.create(path, info, retention=retention or Retention()), options)
    folder = tempfile.mkdtemp(prefix="anymodal-session-")
    log = SqliteLog.create(Path(folder) / "session.db", info, retention=retention or Retention())
    remove = weakref.finalize(log, shutil.rmtree, folder, ignore_errors=True)  # also where the session is never closed
    return _session(bundle, log, {**options, "on_close": remove})


def old_session(bundle: Bundle, path: str | Path, *, write: bool = True, retention: Retention | None = None,
                **options: Any) -> Session:
    """The session of a log that is there, for going on with it or only for asking."""
    if write:
        return _session(bundle, SqliteLog.open(path, identity=bundle.identity, retention=retention or Retention()), options)
    return _session(bundle, SqliteLog.read(path, identity=bundle.identity), options)


def _session(bundle: Bundle, log: SqliteLog, options: dict[str, Any]) -> Session:
    try:
        return Session(bundle, log, **options)
    except BaseException:
        log.close()
        raise
