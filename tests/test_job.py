"""The job: manifests and records by themselves, then a real `ray job submit` that is killed and continues."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import pytest

import actors.pipeline
from actors import job
from actors.cluster import Cluster, private_folder, processes_of, psutil
from actors.head import RAY, Head
from actors.manifest import read_manifest
from actors.results import Results
from anymodal.agent import load
from anymodal.config import configs_dir
from anymodal.errors import InputError, MediaError, OutputError, RuntimeFault
from anymodal.language.prompt import check_question
from anymodal.language.tokenizer import TextTokenizer
from anymodal.testing import gradient_frame, make_video
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta, Evidence

pytestmark = pytest.mark.timeout(900)  # a busy machine starts Ray slowly
ROOT = Path(job.__file__).parent.parent


# -- the manifest ---------------------------------------------------------------------------------------------


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_rows_as_they_are_written(tmp_path):
    rows = read_manifest(write(
        tmp_path / "m.jsonl", {"id": "a", "media": "clips/a.mp4", "question": "what?"}, "",
        {"id": 7, "media": "/b.mp4", "questions": ["what?", "when?"], "at": 3}, {"media": None, "question": "who?"},
        {"id": "d", "media": "https://host/d.mp4", "question": "?", "sidecars": {"imu": "d.csv"}}))
    assert [row.error for row in rows] == [None] * 4
    assert [row.id for row in rows] == ["a", "7", "4", "d"]
    assert [row.path for row in rows] == [str(tmp_path / "clips/a.mp4"), "/b.mp4", None, "https://host/d.mp4"]
    assert rows[1].questions == ("what?", "when?") and rows[1].at_s == 3.0 and rows[0].at_s is None
    assert rows[3].sidecars == {"imu": str(tmp_path / "d.csv")}


@pytest.mark.parametrize(("line", "message"), [
    ("{", "line 1: no JSON"),
    ("[1]", "a row is an object, found list"),
    ('{"question": "what?"}', "no 'media'"),
    ('{"media": 3, "question": "what?"}', "media is 3"),
    ('{"media": "a.mp4"}', "no 'question'"),
    ('{"media": "a.mp4", "question": "what?", "questions": ["a"]}', "are both there"),
    ('{"media": "a.mp4", "questions": []}', r"questions is \[\]"),
    ('{"media": "a.mp4", "questions": "what?"}', "questions is 'what"),
    ('{"media": "a.mp4", "qestion": "what?"}', "unknown key 'qestion'"),
    ('{"media": "a.mp4", "question": "what?", "at": "3"}', "at is '3'"),
    ('{"media": "a.mp4", "question": "what?", "at": NaN}', "at is nan"),
    ('{"media": "a.mp4", "question": "what?", "at": true}', "at is True"),
    ('{"id": [], "media": "a.mp4", "question": "what?"}', r"id is \[\]"),
    ('{"media": "a.mp4", "question": "what?", "sidecars": ["x"]}', "sidecars is"),
])
def test_a_broken_row_says_how_to_mend_it(tmp_path, line, message):
    good = {"id": "good", "media": "a.mp4", "question": "what?"}
    broken, kept = read_manifest(write(tmp_path / "m.jsonl", line, good))
    assert kept.error is None
    with pytest.raises(type(broken.error), match=message):
        raise broken.error
    assert broken.error.fix and broken.error.exit_code == 4


def test_bytes_that_are_no_text_and_ids_used_twice(tmp_path):
    path = tmp_path / "m.jsonl"
    row = b'{"id": "a", "media": "a.mp4", "question": "what?"}'
    path.write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\xff\xfe\n" + row)
    first, unreadable, twice = read_manifest(path)
    assert first.error is None and "no JSON" in unreadable.error.message
    assert "'a' was used on line 1" in twice.error.message and twice.id != "a"


def test_a_broken_row_keeps_what_is_its_own_and_takes_nothing_else(tmp_path):
    good = {"media": "a.mp4", "question": "what?"}
    rows = read_manifest(write(
        tmp_path / "m.jsonl", {"id": "d", "media": "clips/d.mp4"}, "{", good, {"id": "f", "media": 3}, {"id": 2, **good},
        {"id": "3", **good}, {"id": "f", **good}, {"id": "2", **good}, {"id": "2 (line 8)", **good}))
    assert [(row.id, row.error is None) for row in rows] == [
        ("d", False), ("2 (line 2)", False), ("3 (line 3)", True), ("f (line 4)", False), ("2", True),
        ("3", True), ("f", True), ("2 (line 8) (line 8)", False), ("2 (line 8)", True)]
    assert (rows[0].media, rows[3].media) == ("clips/d.mp4", None)
    assert "was used on line 5" in rows[7].error.message


@pytest.mark.parametrize("content", [None, b"", b"\n\n"])
def test_no_manifest(tmp_path, content):
    path = tmp_path / "m.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert caught.value.fix and caught.value.exit_code == 2


# -- the job, on a pipeline that is played --------------------------------------------------------------------


class Played:
    """A pipeline whose answers and faults are told beforehand: `faults[path]` is a list of errors to raise."""

    def __init__(self) -> None:
        self.faults: dict[str, list[Exception]] = {}
        self.asked: Counter[str] = Counter()
        self.runtime = SimpleNamespace(clips=2)
        self.comes_back = True
        self.after = None  # called with the row's name when it is asked
        self.tokenizer = TextTokenizer(configs_dir() / "tiny" / "tokenizer.json")

    def __call__(self, *_args, **_options) -> Played:
        return self

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_ready(self) -> None:
        if not self.comes_back:
            raise RuntimeFault("the mind does not come back", fix="see the logs")

    def check(self, question) -> None:
        check_question(question, self.tokenizer, 96)

    def stream(self, media, questions, *, at_s=None, sidecars=None, warnings=None):
        name = Path(media).name if media else "-"
        self.asked[name] += 1
        if self.after is not None:
            self.after(name)
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        warnings.append("a little damaged")
        for number, question in enumerate(questions):
            yield number, Delta(name)
            yield number, Answer(question, name, 0.75, (Evidence(1.0, 2.0, "video"),), 8, 0, 2, 0.25)


@pytest.fixture
def played(monkeypatch):
    pipeline = Played()
    monkeypatch.setattr(actors.pipeline, "Pipeline", pipeline)
    return pipeline


@pytest.fixture
def manifest(tmp_path):
    return write(tmp_path / "m.jsonl", *({"id": n, "media": f"{n}.mp4", "questions": [f"{n}?", "more?"]}
                                         for n in "abcdef"))


def run(manifest: Path, out: Path, *more: str) -> int:
    return job.main(["--input", str(manifest), "--output", str(out), *more])


def read(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def keys(records: list[dict]) -> list[tuple]:
    return sorted((record["id"], record["question_index"]) for record in records)


ALL = [(name, index) for name in "abcdef" for index in (0, 1)]


def test_every_question_becomes_a_record(played, manifest, tmp_path, capsys):
    assert run(manifest, tmp_path / "out") == 0
    records = read(tmp_path / "out")
    assert keys(records) == ALL
    record = next(r for r in records if (r["id"], r["question_index"]) == ("b", 1))
    assert record == {
        "id": "b", "row": 2, "question_index": 1, "media": "b.mp4", "at_s": None, "question": "more?", "model": "tiny",
        "confidence": 0.75, "evidence": [{"start_s": 1.0, "end_s": 2.0, "modality": "video"}], "frames_seen": 8,
        "frames_dropped": 0, "windows_seen": 2, "time_to_first_token_s": 0.25, "answer": "b.mp4",
        "warnings": ["a little damaged"], "error": None}
    table = pyarrow.parquet.read_table(tmp_path / "out" / "answers.parquet").to_pylist()
    assert [(row["id"], row["question_index"]) for row in table] == ALL
    assert {key: table[3][key] for key in record} == record
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rows"], summary["rows_failed"], summary["questions"], summary["answered"]) == (6, 0, 12, 12)
    said = capsys.readouterr()
    assert "12, 12 answered" in said.out and "6/6 rows" in said.err


def test_bad_rows_are_recorded_and_the_job_goes_on(played, tmp_path, capsys):
    manifest = write(
        tmp_path / "m.jsonl", {"id": "a", "media": "a.mp4", "question": "what?"}, "nonsense",
        {"id": "b", "media": "b.mp4", "questions": ["", "what?", 7, "x" * 3000, "\ud800", "why, " * 97]},
        {"id": "c", "media": "c.mp4", "question": "what?"}, {"id": "c", "media": "c.mp4", "question": "what?"})
    played.faults["c.mp4"] = [MediaError("c.mp4 is empty", fix="copy it again")]
    assert run(manifest, tmp_path / "out") == 4
    errors = {key: record["error"] and record["error"]["kind"] for record in read(tmp_path / "out")
              for key in [(record["id"], record["question_index"])]}
    assert errors == {
        ("a", 0): None, ("2", 0): "ManifestError", ("b", 0): "QuestionError", ("b", 1): None,
        ("b", 2): "QuestionError", ("b", 3): "QuestionError", ("b", 4): "QuestionError",
        ("b", 5): "QuestionError", ("c", 0): "MediaError",
        ("c (line 5)", 0): "ManifestError"}
    record = next(r for r in read(tmp_path / "out") if (r["id"], r["question_index"]) == ("b", 5))
    assert "tokens, at most 96 are read" in record["error"]["message"]
    record = next(r for r in read(tmp_path / "out") if r["id"] == "c")
    assert record["error"] == {"kind": "MediaError", "message": "c.mp4 is empty", "fix": "copy it again"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows_failed"] == 4 and summary["errors"]["ManifestError"] == 2
    assert len(pyarrow.parquet.read_table(tmp_path / "out" / "answers.parquet")) == 10
    assert run(manifest, tmp_path / "out") == 4, "a restarted job tells of the same failures"
    assert len(read(tmp_path / "out")) == 10


def test_a_mended_row_is_asked(played, tmp_path):
    out = tmp_path / "out"
    assert run(write(tmp_path / "m.jsonl", '{"id": "a"'), out) == 4
    assert run(write(tmp_path / "m.jsonl", {"media": "a.mp4", "question": "what?"}), out) == 0
    more = tmp_path / "more"
    assert run(write(tmp_path / "m.jsonl", {"id": "b", "media": "b.mp4", "at": "3"}), more) == 4
    assert [(record["id"], record["media"]) for record in read(more)] == [("b", "b.mp4")]
    assert run(write(tmp_path / "m.jsonl", {"id": "b", "media": "c.mp4", "question": "what?", "at": 3}), more) == 0


def test_a_failed_row_is_asked_again_when_told_to(played, manifest, tmp_path):
    out = tmp_path / "out"
    played.faults["b.mp4"] = [MediaError("b.mp4 is empty", fix="copy it again")]
    assert run(manifest, out) == 4
    assert run(manifest, out) == 4 and played.asked["b.mp4"] == 1, "a failure counts as done"
    assert run(manifest, out, "--retry-failed") == 0
    assert played.asked == Counter({f"{name}.mp4": 1 for name in "acdef"} | {"b.mp4": 2})
    table = pyarrow.parquet.read_table(out / "answers.parquet").to_pylist()
    assert [(row["id"], row["question_index"]) for row in table] == ALL and not any(row["error"] for row in table)
    assert run(manifest, out, "--retry-failed") == 0 and len(read(out)) == 14, "nothing failed is left to ask"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_job_continues(played, manifest, tmp_path, number, capsys):
    played.after = lambda name: (os.kill(os.getpid(), number), time.sleep(0.2)) if name == "d.mp4" else None
    out = tmp_path / "out"
    before = signal.getsignal(number)
    assert run(manifest, out, "--concurrency", "1") == 128 + number
    assert signal.getsignal(number) == before
    assert "the same command continues" in capsys.readouterr().err
    first = read(out)
    assert 2 <= len(first) < 12
    played.after, done = None, {record["media"] for record in first}
    asked = played.asked.copy()
    assert run(manifest, out) == 0
    records = read(out)
    assert keys(records) == ALL and records[: len(first)] == first
    assert all(played.asked[name] == asked[name] for name in done), "what was recorded is not asked again"
    assert run(manifest, out) == 0 and played.asked["f.mp4"] == 1, "a finished job asks nothing"


def test_a_line_cut_short_is_cut_off(played, manifest, tmp_path):
    out = tmp_path / "out"
    assert run(manifest, out) == 0
    lines = (out / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (out / "answers.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:25])
    asked = sum(played.asked.values())
    assert run(manifest, out) == 0
    assert keys(read(out)) == ALL
    assert sum(played.asked.values()) - asked == 4


def test_half_a_row_is_completed(played, manifest, tmp_path):
    out = tmp_path / "out"
    assert run(manifest, out) == 0
    kept = [line for line in (out / "answers.jsonl").read_text().splitlines(keepends=True)
            if json.loads(line)["question_index"] == 0]
    (out / "answers.jsonl").write_text("".join(kept))
    assert run(manifest, out) == 0
    assert keys(read(out)) == ALL


def test_a_fault_is_tried_again_twice(played, manifest, tmp_path):
    fault = RuntimeFault("the source died", fix="ask again")
    played.faults = {"b.mp4": [fault], "c.mp4": [fault] * 2, "d.mp4": [fault] * 3}
    assert run(manifest, tmp_path / "out") == 4
    assert [played.asked[f"{name}.mp4"] for name in "abcd"] == [1, 2, 3, 3]
    records = read(tmp_path / "out")
    assert keys(records) == ALL
    assert {r["id"] for r in records if r["error"]} == {"d"}
    assert next(r for r in records if r["error"])["error"]["message"] == "the source died"


def test_actors_that_do_not_come_back_end_the_job(played, manifest, tmp_path, capsys):
    played.faults, played.comes_back = {"b.mp4": [RuntimeFault("the mind died")]}, False
    assert run(manifest, tmp_path / "out") == 8
    assert "does not come back (see the logs)" in capsys.readouterr().err
    assert keys(read(tmp_path / "out")) == [key for key in ALL if key[0] != "b"]
    played.comes_back = True
    assert run(manifest, tmp_path / "out") == 0


# -- the output folder ----------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written(played, manifest, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(manifest, tmp_path / "file") == 7
    assert run(manifest, tmp_path / "file" / "below") == 7
    assert capsys.readouterr().err.count("--output") == 2
    assert not played.asked


def test_a_full_disk_ends_the_job_and_loses_nothing(played, manifest, tmp_path, monkeypatch, capsys):
    calls = []

    def fsync(number: int) -> None:
        calls.append(number)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("actors.results.os.fsync", fsync)
    assert run(manifest, tmp_path / "out") == 7
    assert "No space left" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(actors.pipeline, "Pipeline", played)
    assert run(manifest, tmp_path / "out") == 0
    assert keys(read(tmp_path / "out")) == ALL


def test_one_job_at_a_time(played, manifest, tmp_path, capsys):
    other = Results(tmp_path / "out", "tiny")
    assert run(manifest, tmp_path / "out") == 7
    assert "another job is writing" in capsys.readouterr().err
    other.close()
    assert run(manifest, tmp_path / "out") == 0


@pytest.mark.parametrize("change", [{"media": "other.mp4"}, {"questions": ["other?", "more?"]}, {"at": 2.0}])
def test_records_of_another_job_are_not_taken_for_ours(played, manifest, tmp_path, change):
    assert run(manifest, tmp_path / "out") == 0
    row = {"id": "a", "media": "a.mp4", "questions": ["a?", "more?"]} | change
    assert run(write(manifest, row), tmp_path / "out") == 7
    assert run(write(manifest, {"id": "z", "media": "a.mp4", "question": "a?"}), tmp_path / "out") == 0
    assert run(manifest, tmp_path / "out", "--model", "other") == 7


def test_a_line_that_is_no_record(played, manifest, tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "answers.jsonl", {"something": "else"})
    with pytest.raises(OutputError, match="line 1 is no record"):
        Results(tmp_path / "out", "tiny")


def test_wrong_arguments(manifest, tmp_path, capsys):
    for arguments in ([], ["--input", "x"], ["--input", "x", "--output", "y", "--concurrency", "0"]):
        with pytest.raises(SystemExit) as caught:
            job.main(arguments)
        assert caught.value.code == 2
    assert job.main(["--input", str(tmp_path / "none.jsonl"), "--output", str(tmp_path / "out")]) == 2
    assert run(manifest, tmp_path / "out", "--model", "tinny") == 5
    assert "did you mean 'tiny'?" in capsys.readouterr().err


# -- a real cluster, with a token -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    subprocess.run([*RAY, "get-auth-token", "--generate"], env={**os.environ, "HOME": str(home)}, check=True,
                   capture_output=True, timeout=600)
    with Head(home / ".ray" / "auth_token") as running:
        running.wait_ready()
        yield running
    assert not processes_of(running.folder) and not running.folder.exists()


def job_process(out: Path) -> psutil.Process | None:
    """The job itself, not the shell or the supervisor that started it."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "actors.job" in words and any(str(out) in word for word in words) and "submit" not in words:
            return process
    return None


def test_a_submitted_job_is_killed_and_continues(head, tmp_path):
    bundle = random_bundle(tmp_path)
    for number in range(4):
        make_video(tmp_path / f"{number}.mp4", [gradient_frame(48, i + 5 * number) for i in range(48)], rate_hz=4)
    rows = [{"id": str(i), "media": f"{i % 4}.mp4", "question": f"what is {i}?"} for i in range(40)]
    rows.append({"id": "bad", "media": "none.mp4", "question": "what?"})
    manifest, out = write(tmp_path / "m.jsonl", *rows), tmp_path / "out"
    command = [sys.executable, "-m", "actors.job", "--input", str(manifest), "--output", str(out), "--model",
               str(bundle), "--concurrency", "2"]

    first = head.submit(command)
    deadline_s = time.monotonic() + 400
    while not (out / "answers.jsonl").is_file() or len(read(out)) < 3:
        assert time.monotonic() < deadline_s and first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    job_process(out).kill()
    assert first.wait(600) != 0
    kept = (out / "answers.jsonl").read_bytes()
    assert 3 <= kept.count(b"\n") < 41 and not (out / "summary.json").exists()

    second = head.submit(command)
    said, _ = second.communicate(timeout=400)
    assert "rows were done before" in said and "40 answered" in said, said
    assert second.returncode == 1 and "exit code 4" in said, "one row cannot be answered"
    records = read(out)
    assert sorted(r["id"] for r in records) == sorted(r["id"] for r in rows)
    assert (out / "answers.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert [r["error"]["kind"] for r in records if r["error"]] == ["MediaError"]
    assert len(pyarrow.parquet.read_table(out / "answers.parquet")) == 41

    agent = load(bundle, threads=1)
    for record in records[:2] + records[-2:]:
        if not record["error"]:
            alone = agent.ask(tmp_path / record["media"], record["question"]).to_json()
            assert {key: record[key] for key in ("answer", "confidence", "evidence")} == {
                key: alone[key] for key in ("answer", "confidence", "evidence")}


def test_without_the_token_no_job_is_taken(head, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    for env in ({"RAY_AUTH_TOKEN_PATH": str(wrong)}, {"RAY_AUTH_MODE": "disabled"}):
        asked = subprocess.run([*RAY, "job", "list", f"--address={head.address}"], env={**head.env, **env},
                               capture_output=True, text=True, timeout=600)
        assert asked.returncode != 0


def test_a_ray_started_beside_it_leaves_it_alone(head):
    before = {process.pid for process in processes_of(head.folder)}
    beside = Cluster()
    try:
        assert beside._folder != head.folder
    finally:
        beside.close()
    assert before <= {process.pid for process in processes_of(head.folder)}
    head.wait_ready()


def test_a_folder_is_removed_once_its_process_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    make = "from actors.cluster import private_folder; print(private_folder())"
    left = Path(subprocess.run([sys.executable, "-c", make], cwd=ROOT, capture_output=True, text=True, timeout=300,
                               check=True).stdout.strip())
    assert left.is_dir()
    (foreign := Path(tempfile.mkdtemp(prefix="am-", dir="/tmp"))).joinpath("owner").write_text("not of ours")
    ours = [private_folder(), private_folder()]
    try:
        assert not left.exists(), "its process is dead"
        assert foreign.is_dir() and all(folder.is_dir() for folder in ours)
    finally:
        for folder in (foreign, *ours):
            shutil.rmtree(folder)


def test_a_head_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr("actors.head.START_TIMEOUT_S", 0.0)
    broken = Head()
    (logs := broken.folder / "ray" / "session_latest" / "logs").mkdir(parents=True)
    (logs / "dashboard.log").write_text("the dashboard found no port")
    with pytest.raises(RuntimeFault, match="found no port"):
        broken.wait_ready()
    assert not broken.folder.exists()


# -- the demo -------------------------------------------------------------------------------------------------


def processes_naming(folder: str) -> list[str]:
    """Command lines of running processes that name a folder, as all of a Ray's own do."""
    running = psutil.process_iter(["cmdline"])
    return [line for p in running if folder in (line := " ".join(p.info["cmdline"] or []))]


def test_the_demo_from_end_to_end(tmp_path):
    folder = tempfile.mkdtemp(prefix="t-", dir="/tmp")  # short: Ray's sockets live below it, and their paths are limited
    command = [sys.executable, "-m", "demos.video_qa", "--model", str(random_bundle(tmp_path)), "--clips", "1",
               "--questions", "2", "--seconds", "2", "--out", str(tmp_path / "out")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600,
                           env={**os.environ, "COLUMNS": "200", "TMPDIR": folder})
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for word in ("clip", "question", "evidence", "first text", "of 2 right"):
        assert word in shown.stdout
    assert len(read(tmp_path / "out" / "answers")) == 2
    assert not processes_naming(folder) and job_process(tmp_path) is None
    shutil.rmtree(folder, ignore_errors=True)
