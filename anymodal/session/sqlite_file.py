"""A session's log as a file: its tables, how it is opened and checked, and SQLite's errors in words."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from anymodal.errors import LogError, LogFullError
from anymodal.session.values import seal

SCHEMA = 3  # of this module; a file says its own in user_version. Versions 1 and 2 have no seals, 1 no positions and extras
APPLICATION = 0x616D6C67  # "amlg" in the file's header tells a session's log from other databases
BUSY_S = 10.0  # how long to wait for another process's transaction
RESTORE = "the log is damaged: restore it from a copy"
SIDE_FILES = ("-wal", "-shm", "-journal")

TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE windows (number INTEGER PRIMARY KEY, t0_s REAL, t1_s REAL, frames INTEGER, dropped INTEGER, gap TEXT,
                      seal INTEGER);
CREATE INDEX windows_missing ON windows (number) WHERE gap != '';
CREATE TABLE vectors (number INTEGER PRIMARY KEY, joint BLOB, embeds BLOB, positions BLOB, extras BLOB);
CREATE TABLE tokens (window INTEGER, place INTEGER, stream TEXT, modality TEXT, t0_s REAL, t1_s REAL, familiarity REAL,
                     repeats INTEGER, vector INTEGER, seal INTEGER, PRIMARY KEY (window, place)) WITHOUT ROWID;
CREATE INDEX tokens_by_vector ON tokens (vector);
CREATE TABLE entries (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, key TEXT, window INTEGER, body BLOB);
CREATE UNIQUE INDEX entries_once ON entries (kind, key) WHERE key IS NOT NULL;
CREATE INDEX entries_by_window ON entries (kind, window);
"""
# What the seals of a window `w`, and of tokens `t` and their values `v`, are checksums of.
WINDOW_SEAL = ("seal(w.number, w.t0_s, w.t1_s, w.frames, w.dropped, w.gap, "
               "(SELECT COUNT(*) FROM tokens WHERE window = w.number))")
TOKENS_SEAL = ("seal(t.window, t.place, t.stream, t.modality, t.t0_s, t.t1_s, t.familiarity, t.repeats, t.vector, "
               "substr(v.joint, -4), substr(v.embeds, -4), substr(v.positions, -4), substr(v.extras, -4))")


def connect(path: Path, *, writes: bool = True) -> sqlite3.Connection:
    mode = "rw" if writes else "ro"
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_S, isolation_level=None,
                         check_same_thread=False)
    db.create_function("seal", -1, seal, deterministic=True)
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA secure_delete=ON")  # what retention drops is overwritten
    db.execute("PRAGMA journal_size_limit=16777216")
    return db


def upgrade(db: sqlite3.Connection) -> None:
    """Bring a log of an earlier version up to this one, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if version(db) < 2:
            db.execute("ALTER TABLE vectors ADD COLUMN positions BLOB")
            db.execute("ALTER TABLE vectors ADD COLUMN extras BLOB")
        if version(db) < SCHEMA:
            db.execute("ALTER TABLE windows ADD COLUMN seal INTEGER")
            db.execute("ALTER TABLE tokens ADD COLUMN seal INTEGER")
            seal_windows(db, 0)
            seal_about(db)
            db.execute(f"PRAGMA user_version={SCHEMA}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def seal_windows(db: sqlite3.Connection, first: int) -> None:
    """Seal windows from number `first` on, as they are stored."""
    db.execute(f"UPDATE windows AS w SET seal = {WINDOW_SEAL} WHERE number >= ?", (first,))
    db.execute(f"UPDATE tokens AS t SET seal = (SELECT {TOKENS_SEAL} FROM vectors v WHERE v.number = t.vector) "
               "WHERE window >= ?", (first,))


def seal_about(db: sqlite3.Connection) -> None:
    db.execute("INSERT OR REPLACE INTO about VALUES ('seal', ?)", (_about_seal(db),))


def _about_seal(db: sqlite3.Connection) -> int:
    """Of what never changes."""
    return seal(*db.execute("SELECT * FROM about WHERE name NOT IN ('generation', 'stopped_by', 'seal') ORDER BY name"))


def version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def stopper(db: sqlite3.Connection) -> str:
    """The command that ends a log's last writer and forgets the log; "" where forgetting it is enough."""
    found = db.execute("SELECT value FROM about WHERE name = 'stopped_by'").fetchone()
    return found[0] if found else ""


def in_use_by(path: Path) -> str:
    """The same of a log that some process has open at this moment."""
    with suppress(sqlite3.Error):  # of a damaged one nothing is known
        with closing(connect(path)) as db:
            command = stopper(db)
        return command if command and _is_open(path) else ""
    return ""


def _is_open(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0.0)) as db:
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            stopper(db)
        except sqlite3.OperationalError:
            return True
    return False


def delete(path: Path) -> list[Path]:
    """Delete a log and the files beside it; returns those that were there."""
    gone = [p for p in (Path(f"{path}{end}") for end in (*SIDE_FILES, "")) if p.exists()]
    with explained(path):
        for file in gone:
            file.unlink(missing_ok=True)
    return gone


def is_log(path: Path) -> bool:
    """Does a file's header say that it is a session's log?"""
    if not path.is_file():  # to open a pipe waits for a writer
        return False
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except (OSError, ValueError):
        return False
    return header[:16] == b"SQLite format 3\0" and header[68:72] == APPLICATION.to_bytes(4, "big")


def check_ours(path: Path) -> None:
    """Raise LogError unless the file is there and is a session's log."""
    if not path.is_file():
        raise LogError(f"no log at {path}", fix="check the path")
    if not is_log(path):
        raise LogError(f"{path} is not a session's log, or is damaged from its first bytes on", fix="check the path")


def check_whole(db: sqlite3.Connection, path: Path) -> None:
    """Raise LogError for another version, or for windows that are missing."""
    if not 1 <= (found := version(db)) <= SCHEMA:
        newer = found > SCHEMA
        raise LogError(f"{path} has version {found}, {'newer than' if newer else 'not'} {SCHEMA} that is known here",
                       fix="upgrade anymodal" if newer else RESTORE)
    columns = {row[0] for row in db.execute("SELECT name FROM pragma_table_info('vectors') UNION ALL "
                                            "SELECT name FROM pragma_table_info('tokens')")}
    about = db.execute("SELECT value FROM about WHERE name = 'seal'").fetchone()
    if found != 1 + ("positions" in columns) + ("seal" in columns) or (found > 2 and about != (_about_seal(db),)):
        raise LogError(f"{path}: what it says of itself was changed", fix=RESTORE)
    first, last, count = db.execute("SELECT MIN(number), MAX(number), COUNT(*) FROM windows").fetchone()
    if count and last - first + 1 != count:
        raise LogError(f"{path}: {last - first + 1 - count} windows between {first} and {last} are missing",
                       fix=RESTORE)
    for columns, table, index, where in (("kind, window, number", "entries", "entries_by_window", ""),
                                         ("number", "windows", "windows_missing", "WHERE gap != ''")):
        if not db.execute("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?", (index,)).fetchone():
            continue  # the first logs had fewer
        rows = f"SELECT {columns} FROM {table}"
        ways = f"{rows} NOT INDEXED {where}", f"{rows} INDEXED BY {index} {where}"  # by which they are found
        if any(db.execute(f"{a} EXCEPT {b} LIMIT 1").fetchone() for a, b in (ways, reversed(ways))):
            raise LogError(f"{path}: {table} are not found where they belong", fix=RESTORE)


@contextmanager
def undamaged(path: Path, where: str = "") -> Iterator[None]:
    """As `explained`, around what reads a log: what nothing written by a log would raise is told as damage."""
    with explained(path, where):
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
            raise LogError("it is damaged" if where else f"{path} is damaged", fix=RESTORE) from error
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
                raise
            raise LogError(f"it is damaged: {error}" if where else f"{path} is damaged: {error}", fix=RESTORE) from error


@contextmanager
def explained(path: Path, where: str = "") -> Iterator[None]:
    """SQLite's and the system's errors as LogErrors that name the log."""
    at = f"{path}: {where}" if where else str(path)
    try:
        yield
    except LogError as error:
        raise error if not where else LogError(f"{at}: {error.message}", fix=error.fix) from error
    except sqlite3.Error as error:
        full_code = getattr(error, "sqlite_errorcode", 0)
        code = full_code & 0xFF
        if code == sqlite3.SQLITE_FULL or full_code == sqlite3.SQLITE_IOERR_WRITE:
            raise LogFullError(f"{at} cannot grow: the disk, a quota or a limit on file sizes is reached",
                               fix="make room, then go on: nothing that was stored is lost") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise LogError(f"{at} is damaged: {error}", fix="restore it from a copy") from error
        if code == sqlite3.SQLITE_BUSY:
            raise LogError(f"{at} was locked by another process for {BUSY_S:g} s", fix="end the other process") from error
        raise LogError(f"{at}: {error}", fix="check the disk and the file's permissions") from error
    except OSError as error:
        raise LogError(f"{at}: {error.strerror}", fix="check the folder and its permissions") from error
