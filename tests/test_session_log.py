"""The log of a session: each window once and in order, nothing lost that was stored, clear errors for all that is bad."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anymodal.errors import ConfigError, FencedError, LogError, LogFullError
from anymodal.session.log import Feed, LogInfo, Retention, RuleEvent, Turn
from anymodal.session.sqlite_log import SqliteLog, forget
from anymodal.session.values import as_stored, pack_array, pack_row, rounded, to_bfloat16, unpack_array, unpack_row
from anymodal.stages.items import Percept
from anymodal.types import Evidence, Tokens

INFO = LogInfo("s", "tiny", "abc123", 1.0, "bfloat16")
WIDTH = 8


def percept(index: int, *, gap: str = "", rows: int = 3, repeats: dict[str, int] | None = None, seed: int = 0) -> Percept:
    rng = np.random.default_rng([seed, index])
    tokens = () if gap else tuple(
        Tokens("s", name, index, name, float(index), index + 1.0, rng.standard_normal((n, WIDTH)).astype(np.float32),
               rng.standard_normal(4).astype(np.float32), 0.5) for name, n in (("video", rows), ("audio", 1)))
    return as_stored(Percept("s", index, float(index), index + 1.0, tokens, 4, 1, repeats or {}, gap), "bfloat16")


def same(a: Percept, b: Percept) -> bool:
    def plain(p: Percept) -> tuple:
        return (replace(p, tokens=()), [(replace(t, embeds=None, joint=None), t.embeds.tolist(), t.joint.tolist())
                                        for t in p.tokens])
    return plain(a) == plain(b)


@pytest.fixture
def log(tmp_path):
    with SqliteLog.create(tmp_path / "s.db", INFO) as log:
        yield log


@dataclass(frozen=True)
class Compaction:
    kind: ClassVar[str] = "compaction"
    after_window: int
    effective_from: int
    embeds: Any = None

    @property
    def key(self) -> str:
        return str(self.after_window)

    def to_row(self) -> dict[str, Any]:
        return {"after_window": self.after_window, "effective_from": self.effective_from, "embeds": self.embeds}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Compaction:
        return cls(**row)


# -- values -------------------------------------------------------------------------------------------------------

floats = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
                    elements=st.floats(width=32, allow_nan=False))


@given(floats, st.sampled_from(["bfloat16", "float16", "float32"]))
def test_what_is_stored_comes_back_as_it_was_rounded(values, dtype):
    with np.errstate(over="ignore"):
        once = rounded(values, dtype)
        back = unpack_array(pack_array(values, dtype))
        assert back.dtype == np.float32 and back.shape == values.shape
        assert np.array_equal(back, once) and np.array_equal(rounded(once, dtype), once)


@given(floats)
def test_bfloat16_is_rounded_as_torch_does(values):
    torch = pytest.importorskip("torch")
    assert np.array_equal(to_bfloat16(values), torch.from_numpy(values).bfloat16().view(torch.uint16).numpy())


@given(st.dictionaries(st.text(max_size=3).filter(lambda k: k != "__array__"),
                       st.none() | st.integers() | st.text(max_size=5) | st.lists(st.booleans()) | floats, max_size=4))
def test_rows_come_back(row):
    back = unpack_row(pack_row(row))
    assert back.keys() == row.keys()
    for key, value in row.items():
        assert np.array_equal(back[key], value) if isinstance(value, np.ndarray) else back[key] == value


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at, flip):
    data = bytearray(pack_row({"a": np.arange(5.0), "b": "text"}))
    data[at % len(data)] ^= flip
    with pytest.raises(LogError, match="checksum"):
        unpack_row(bytes(data))


# -- windows ------------------------------------------------------------------------------------------------------

@settings(max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=25))
def test_each_window_enters_once_and_in_order(tmp_path_factory, numbers):
    entered: list[int] = []
    with SqliteLog.create(tmp_path_factory.mktemp("log") / "s.db", INFO) as log:
        for number in numbers:
            if number <= len(entered):
                assert log.append_window(percept(number, seed=len(entered))) == (number == len(entered))
                entered += [number] if number == len(entered) else []
            else:
                with pytest.raises(LogError, match=f"window {number} cannot enter before window {len(entered)}"):
                    log.append_window(percept(number))
        assert log.last_window() == len(entered) - 1
        found = list(log.windows())
        assert all(same(p, percept(i, seed=i)) for i, p in enumerate(found)) and len(found) == len(entered)


def test_windows_come_back_from_the_file(tmp_path):
    given = [percept(0), percept(1, gap="source restarted"), percept(2, rows=0), percept(3)]
    with SqliteLog.create(tmp_path / "s.db", INFO) as log:
        assert [log.append_window(p) for p in given] == [True] * 4
    with SqliteLog.read(tmp_path / "s.db", identity="abc123") as log:
        assert all(map(same, log.windows(), given)) and log.last_window() == 3
        assert [p.index for p in log.windows(1, 2)] == [1, 2]
        assert log.info == INFO
        with pytest.raises(LogError, match="opened for reading"):
            log.append_window(percept(4))


def test_a_window_that_repeats_another_has_its_tokens(log):
    log.append_window(percept(0))
    unchanged = replace(percept(1), repeats={"video": 0})
    log.append_window(unchanged)
    log.append_window(replace(percept(2), repeats={"video": 1}))
    first, second, third = log.windows()
    assert second.repeats == {"video": 0}
    for later in (second, third):
        assert np.array_equal(later.tokens[0].embeds, first.tokens[0].embeds)
        assert (later.tokens[0].window, later.tokens[0].t0_s) == (later.index, later.t0_s)
        assert not np.array_equal(later.tokens[1].embeds, first.tokens[1].embeds)
    assert np.array_equal(log.joint("video").vectors[2], first.tokens[0].joint)
    with pytest.raises(LogError, match="no tokens of 'video' in window 9 to repeat"):
        log.append_window(replace(percept(3), repeats={"video": 9}))
    assert log.last_window() == 2


def test_joint_vectors_for_search(log):
    for i in range(3):
        log.append_window(percept(i, gap="dark" if i == 1 else ""))
    joint = log.joint("audio")
    assert joint.windows.tolist() == [0, 2] and joint.streams == ("audio", "audio")
    assert np.array_equal(joint.vectors[1], percept(2).tokens[1].joint)
    assert (log.gaps(0), log.gaps(2)) == (0, 1)
    assert log.joint("audio", first=1, last=1) is None and log.joint("smell") is None


@pytest.mark.parametrize(("wrong", "message"), [
    (replace(percept(0), session="other"), "does not belong to session 's'"),
    (replace(percept(0), t1_s=float("nan")), "covers 0 to nan s"),
    (replace(percept(0), t0_s=5.0, t1_s=6.0), "where 0 s was expected"),
    (replace(percept(0), tokens=(replace(percept(0).tokens[0], embeds=np.full((2, 3), np.nan)),)), "no finite"),
    (replace(percept(0), tokens=(replace(percept(0).tokens[0], embeds=np.zeros(3)),)), "no finite"),
])
def test_what_is_no_window_is_refused_and_nothing_is_stored(log, wrong, message):
    with pytest.raises(LogError, match=message) as caught:
        log.append_window(wrong)
    assert caught.value.fix and log.last_window() == -1


# -- entries ------------------------------------------------------------------------------------------------------

def test_entries_come_back_in_order(log):
    turns = [Turn(w, float(w), f"what {w}?", "é", 0.5, (Evidence(0.0, 1.0, "video"),), "d") for w in (-1, 0, 2)]
    for w in range(3):
        log.append_window(percept(w))
    numbers = [log.append(t) for t in turns]
    log.append(Feed(-1, "clip.mp4", sidecars={"imu": "a.csv"}))
    assert numbers == sorted(set(numbers))
    assert list(log.entries(Turn)) == turns
    assert list(log.entries(Turn, before_s=1.0)) == turns[:2] and list(log.entries(Turn, before_s=0.5)) == turns[:1]
    assert next(log.entries(Feed)).sidecars == {"imu": "a.csv"}


def test_a_replayed_event_is_recognised(log):
    event = RuleEvent(4, "bell", 4.0, confidence=0.9)
    assert log.append(event) == log.append(replace(event, confidence=0.8))
    log.append(replace(event, began=False))
    assert [e.confidence for e in log.entries(RuleEvent)] == [0.9, 0.9]


def test_the_compaction_in_effect(log):
    for w in range(8):
        log.append_window(percept(w))
    assert log.compaction_before(Compaction) is None
    for after, since in ((2, 4), (5, 7), (6, 8)):
        log.append(Compaction(after, since, np.arange(3.0)))
    log.append(Compaction(5, 7, np.zeros(1)))  # a replay
    assert log.compaction_before(Compaction).after_window == 5  # the last one does not hold yet
    assert log.compaction_before(Compaction, 7.9).after_window == 2
    assert log.compaction_before(Compaction, 4.9) is None
    assert log.compaction_before(Compaction, 8.0).embeds.tolist() == [0, 1, 2]


def test_threads_share_a_log(log):
    def talk(name: int) -> None:
        for i in range(20):
            log.append(Turn(-1, 0.0, f"{name}", f"{i}"))
            list(log.windows())

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for i in range(20):
        log.append_window(percept(i))
    for thread in threads:
        thread.join(300)
    assert log.last_window() == 19
    for n in range(4):
        assert [t.text for t in log.entries(Turn) if t.question == f"{n}"] == [f"{i}" for i in range(20)]


# -- one writer ---------------------------------------------------------------------------------------------------

def test_a_predecessor_cannot_write(tmp_path):
    old = SqliteLog.create(tmp_path / "s.db", INFO)
    old.append_window(percept(0))
    new = SqliteLog.open(tmp_path / "s.db")
    assert new.generation == old.generation + 1
    new.append_window(percept(1))
    for write in (lambda: old.append_window(percept(1)), lambda: old.append(Turn(0, 1.0, "q", "a"))):
        with pytest.raises(FencedError, match=f"its generation is {new.generation}, this writer's {old.generation}"):
            write()
    assert old.last_window() == 1  # it may still read
    assert not list(new.entries(Turn))
    old.close()
    new.append_window(percept(2))
    new.close()
    with pytest.raises(LogError, match="was closed"):
        new.last_window()


def test_a_reader_does_not_fence(log):
    with SqliteLog.read(log.path) as reader:
        log.append_window(percept(0))
        assert reader.last_window() == 0


# -- what is lost when -------------------------------------------------------------------------------------------

WRITER = """
import sys, resource
sys.path.insert(0, {tests!r})
from test_session_log import *
limit = {limit}
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
log = SqliteLog.open({path!r})
for i in range(log.last_window() + 1, 100000):
    try:
        log.append_window(percept(i, rows=200))
    except LogFullError as error:
        print(error, flush=True)
        print(log.last_window(), flush=True)  # reading goes on
        break
    print(i, flush=True)
"""


def writer(path: Path, limit: int = 0) -> subprocess.Popen:
    code = WRITER.format(tests=str(Path(__file__).parent), path=str(path), limit=limit)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def check_prefix(path: Path, least: int, most: int) -> int:
    with SqliteLog.read(path) as log:
        found = list(log.windows())
    assert all(same(p, percept(i, rows=200)) for i, p in enumerate(found))
    assert least <= len(found) <= most
    return len(found)


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "s.db"
    SqliteLog.create(path, INFO).close()
    told = -1
    for kill_at in (12, 30):
        with writer(path) as child:
            for line in child.stdout:
                told = int(line)
                if told >= kill_at:
                    child.send_signal(signal.SIGKILL)
                    told = max([told, *map(int, child.stdout.read().split())])
                    break
        told = check_prefix(path, told + 1, told + 2) - 1  # the last one may have been stored and not yet told
    assert forget(path)


def test_a_limit_on_file_sizes_is_a_clear_error_and_nothing_is_lost(tmp_path):
    path = tmp_path / "s.db"
    SqliteLog.create(path, INFO).close()
    with writer(path, limit=400_000) as child:
        lines = child.stdout.read().splitlines()
    assert "cannot grow" in lines[-2] and "nothing that was stored is lost" in lines[-2]
    told = int(lines[-3])
    assert told > 5 and lines[-1] == str(told)
    check_prefix(path, told + 1, told + 1)
    with SqliteLog.open(path) as log:  # there is room again
        assert log.append_window(percept(told + 1, rows=200))
    check_prefix(path, told + 2, told + 2)


def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(log):
    for i in range(4):
        log.append_window(percept(i))
    pages = log._db.execute("PRAGMA page_count").fetchone()[0]
    log._db.execute(f"PRAGMA max_page_count={pages + 2}")  # SQLite then fails as it does on a full disk
    with pytest.raises(LogFullError, match="cannot grow"):
        for i in range(4, 100):
            log.append_window(percept(i, rows=200))
    last = log.last_window()
    assert 3 <= last < 20 and len(list(log.windows())) == last + 1
    log._db.execute("PRAGMA max_page_count=1000000")
    assert log.append_window(percept(last + 1))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory) -> Path:
    """A log whose writer died with windows 3 to 9 in the write-ahead file only."""
    folder = tmp_path_factory.mktemp("crashed")
    with SqliteLog.create(folder / "live.db", INFO) as log:
        for i in range(10):
            if i == 3:
                log._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            log.append_window(percept(i))
        for end in ("", "-wal"):
            shutil.copy(folder / f"live.db{end}", folder / f"s.db{end}")
    return folder / "s.db"


@settings(max_examples=25)
@given(st.floats(0, 1), st.sampled_from(["cut", "garbled"]))
def test_a_torn_write_loses_only_what_was_torn(tmp_path_factory, crashed, part, how):
    path = tmp_path_factory.mktemp("torn") / "s.db"
    shutil.copy(crashed, path)
    wal = Path(f"{crashed}-wal").read_bytes()
    at = int(part * (len(wal) - 1))
    torn = wal[:at] if how == "cut" else wal[:at] + os.urandom(len(wal) - at)
    Path(f"{path}-wal").write_bytes(torn)
    with SqliteLog.open(path) as log:
        found = list(log.windows())
        assert 3 <= len(found) < 10 and all(same(p, percept(i)) for i, p in enumerate(found))
        assert log.append_window(percept(len(found)))


# -- bad logs -----------------------------------------------------------------------------------------------------

@pytest.fixture
def path(tmp_path):
    with SqliteLog.create(tmp_path / "s.db", INFO) as log:
        for i in range(40):
            log.append_window(percept(i, rows=20))
    return tmp_path / "s.db"


def refused(path: Path, message: str, **options: Any) -> None:
    before = path.read_bytes() if path.exists() else None
    for way in (SqliteLog.open, SqliteLog.read):
        with pytest.raises(LogError, match=message) as caught:
            list(way(path, **options).windows())
        assert caught.value.fix and caught.value.exit_code == 9
    assert before is None or path.read_bytes() == before or "checksum" in message


def test_another_bundles_log_is_refused(path):
    refused(path, "written with another bundle: 'tiny', abc123, not xyz", identity="xyz")


def test_a_newer_versions_log_is_refused(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    refused(path, "version 99, newer than 3")


def test_a_log_with_a_hole_is_refused(path):
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM windows WHERE number = 5")
    db.close()
    refused(path, "1 windows between 0 and 39 are missing")


def test_what_is_no_log_is_refused(tmp_path):
    refused(tmp_path / "none.db", "no log at")
    for name, content in (("empty.db", b""), ("text.db", b"hello" * 100)):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "not a session's log")
        with pytest.raises(LogError, match="not a session's log"):
            forget(tmp_path / name)
    db = sqlite3.connect(tmp_path / "other.db")
    db.execute("CREATE TABLE t (x)")
    db.close()
    refused(tmp_path / "other.db", "not a session's log")


def test_a_cut_file_is_refused(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    refused(path, "damaged")


def test_a_changed_value_is_refused_where_it_is_read(path):
    data = bytearray(path.read_bytes())
    at = data.find(pack_array(percept(7, rows=20).tokens[0].embeds, "bfloat16")[:60])
    data[at + 30] ^= 1
    path.write_bytes(bytes(data))
    refused(path, "window 7, 'video': stored bytes do not match their checksum")
    with SqliteLog.read(path) as log:
        assert len(list(log.windows(8))) == 32  # the others can still be read


@pytest.mark.parametrize(("change", "message"), [
    ("DELETE FROM about WHERE name = 'dtype'", "what it says of itself was changed"),
    ("UPDATE about SET value = 2.0 WHERE name = 'window_s'", "what it says of itself was changed"),
    ("PRAGMA user_version = 1", "what it says of itself was changed"),
    ("UPDATE vectors SET embeds = NULL WHERE number = 5", "window 2: stored values do not match"),
    ("UPDATE tokens SET stream = 'radio' WHERE window = 7", "window 7: stored values do not match"),
    ("UPDATE windows SET dropped = 9 WHERE number = 7", "window 7: stored values do not match"),
    ("UPDATE windows SET t1_s = NULL, seal = NULL WHERE number = 7", "window 7: stored values do not match"),
    ("DELETE FROM tokens WHERE window = 7 AND place = 1", "window 7: stored values do not match"),
])
def test_a_changed_row_is_refused(path, change, message):
    with sqlite3.connect(path) as db:
        db.execute(change)
    db.close()
    with pytest.raises(LogError, match=message) as caught, SqliteLog.read(path) as log:
        list(log.windows())
    assert "restore it from a copy" in caught.value.fix


def everything(path: Path) -> str:
    with SqliteLog.read(path) as log:
        windows = [(replace(p, tokens=()), [(replace(t, embeds=None, joint=None), t.embeds.tolist(), t.joint.tolist())
                                            for t in p.tokens]) for p in log.windows()]
        joints = [log.joint(name) for name in ("video", "audio")]
        entries = [list(log.entries(kind)) for kind in (Turn, RuleEvent, Feed)]
        return repr((log.info, log.last_window(), windows, entries, log.compaction_before(Compaction).key,
                     [(j.windows.tolist(), j.streams, j.vectors.tolist()) for j in joints]))


def test_no_changed_byte_is_read_as_if_nothing_were(tmp_path):
    path, changed = tmp_path / "s.db", tmp_path / "changed.db"
    with SqliteLog.create(path, INFO) as log:
        for i in range(8):
            log.append_window(replace(percept(i, gap="dark" if i == 5 else ""), repeats={"video": 0} if i == 3 else {}))
            log.append(Turn(i, i + 1.0, f"q{i}", "a"))
            log.append(RuleEvent(i, "bell", float(i)))
        log.append(Feed(-1, "clip.mp4"))
        log.append(Compaction(5, 7, np.arange(3.0)))
    data, wanted, refused = path.read_bytes(), everything(path), 0
    rng = np.random.default_rng(0)
    for at in rng.choice([i for i, byte in enumerate(data) if byte], 600):
        changed.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.integers(8)]) + data[at + 1:])
        try:
            assert everything(changed) == wanted, at
        except LogError:
            refused += 1
    assert refused > 300


def test_create_spoils_no_file(path):
    before = path.read_bytes()
    with pytest.raises(LogError, match="is there already"):
        SqliteLog.create(path, INFO)
    assert path.read_bytes() == before
    with pytest.raises(LogError, match="cannot store 'int8'"):
        SqliteLog.create(path.with_name("x.db"), replace(INFO, dtype="int8"))
    with pytest.raises(LogError, match="No such file"):
        SqliteLog.create(path.parent / "below" / "x.db", INFO)


def test_a_log_that_could_not_be_made_is_not_left_behind(tmp_path):
    code = ("import resource, sys\nfrom test_session_log import *\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\nSqliteLog.create(sys.argv[1], INFO)")
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s.db")], cwd=Path(__file__).parent,
                         capture_output=True, text=True)
    assert "LogFullError" in ran.stderr and list(tmp_path.iterdir()) == []


# -- retention and forgetting -------------------------------------------------------------------------------------

def test_nothing_is_dropped_by_default(log):
    for i in range(64):
        log.append_window(percept(i))
    log.append(Compaction(50, 51))
    log.append_window(percept(64))
    assert log.first_window() == 0


def test_retention_by_age(tmp_path):
    with SqliteLog.create(tmp_path / "s.db", INFO, retention=Retention(age_s=20)) as log:
        for i in range(120):
            repeats = {"video": 0} if 0 < i < 95 or i == 110 else {}
            log.append_window(replace(percept(i), repeats=repeats))
            log.append(Turn(i, i + 1.0, "q", str(i)))
            log.append(RuleEvent(i, "bell", float(i)))
            if i % 10 == 9 and i < 100:
                log.append(Compaction(i, i + 2))
        assert log.first_window() == 93  # 20 s before window 112, the last at which it looked
        assert [p.index for p in log.windows(93)] == list(range(93, 120))
        assert np.array_equal(next(log.windows(110)).tokens[0].embeds, percept(0).tokens[0].embeds)
        with pytest.raises(LogError, match="windows before 93 .* were dropped"):
            next(log.windows(92))
        assert [t.window for t in log.entries(Turn)] == list(range(93, 120))
        assert len(list(log.entries(RuleEvent))) == 120
        assert log.compaction_before(Compaction).after_window == 99
        assert not log.append_window(percept(3))  # still known as a replay


def test_retention_keeps_what_the_memory_is_rebuilt_from(tmp_path):
    with SqliteLog.create(tmp_path / "s.db", INFO, retention=Retention(age_s=5, size_bytes=1)) as log:
        for i in range(64):
            log.append_window(percept(i))
        assert log.first_window() == 0
        log.append(Compaction(40, 42))
        for i in range(64, 81):
            log.append_window(percept(i))
        assert log.first_window() == 41


def test_retention_by_size(tmp_path):
    most = 400_000
    with SqliteLog.create(tmp_path / "s.db", INFO, retention=Retention(size_bytes=most)) as log:
        for i in range(300):
            log.append_window(percept(i, rows=200))
            if i % 8 == 7:
                log.append(Compaction(i, i + 1))
        first = log.first_window()
        assert 150 < first < 290 and [p.index for p in log.windows(first)] == list(range(first, 300))
    assert (tmp_path / "s.db").stat().st_size < most * 1.3
    for value in (0, float("nan"), "1 GB"):
        with pytest.raises(ConfigError, match="age_s must be positive"):
            Retention(age_s=value)


def test_what_is_dropped_is_overwritten(tmp_path):
    secret = pack_array(percept(0).tokens[0].embeds, "bfloat16")[:60]
    with SqliteLog.create(tmp_path / "s.db", INFO, retention=Retention(age_s=5)) as log:
        for i in range(33):
            log.append_window(percept(i))
            log.append(Compaction(i, i))
        assert log.first_window() > 0
    assert secret not in (tmp_path / "s.db").read_bytes()


def test_forget_leaves_no_trace_and_fences_the_writer(tmp_path):
    log = SqliteLog.create(tmp_path / "s.db", INFO)
    log.append_window(percept(0))
    assert {p.name for p in tmp_path.iterdir()} == {"s.db", "s.db-wal", "s.db-shm"}
    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0
    assert tmp_path / "s.db" in forget(tmp_path / "s.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LogError):
        log.append_window(percept(1))
    log.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LogError, match="no log at"):
        forget(tmp_path / "s.db")


def test_forget_deletes_a_damaged_log_when_forced(path):
    path.write_bytes(b"\0" * 5000)
    with pytest.raises(LogError, match="not a session's log"):
        forget(path)
    assert forget(path, force=True) == [path] and not path.exists()
