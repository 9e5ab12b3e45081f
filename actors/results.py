"""A job's output folder: answers as they come, each on disk before the next; it tells a restarted job what is done.

    answers.jsonl     a record per question, in the order they were finished; where one failed and was tried again, the
                      later line counts
    answers.parquet   the same in the manifest's order, written at the end
    summary.json      counts, rates and times of the last run
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from actors.manifest import Row
from anymodal.errors import AnymodalError, OutputError, need
from anymodal.types import Answer

ANSWERS, PARQUET, SUMMARY = "answers.jsonl", "answers.parquet", "summary.json"
Key = tuple[str, int]  # a row's id and its question's index


class Results:
    """The records of an output folder, held by one job at a time. Raises OutputError where it cannot be written.

    `records` by key: what earlier runs and this one recorded.
    """

    def __init__(self, folder: str | Path, model: str, *, retry_failed: bool = False) -> None:
        self.folder, self.model, self._retry_failed = Path(folder), model, retry_failed
        self.records: dict[Key, dict[str, Any]] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / ANSWERS).open("a+b")
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the kernel, however the job ends
        except OSError as error:
            self._file.close()
            raise OutputError(f"another job is writing {self.folder}", fix="wait for it, or give another --output"
                              ) from error
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def missing(self, row: Row) -> list[int]:
        """Indices of a row's questions without a record. Raises OutputError if its records are of another job."""
        for index in range(len(row.questions)):
            record = self._done(row, index)
            if record is None:
                continue
            for key, value in _record(row, index, self.model).items():
                if key != "row" and record[key] != value:
                    raise OutputError(f"{self.folder / ANSWERS} has row {row.id!r} with {key} {record[key]!r}, "
                                      f"this job has {value!r}", fix="give another --output")
        return [index for index in range(max(1, len(row.questions))) if self._done(row, index) is None]

    def _done(self, row: Row, index: int) -> dict[str, Any] | None:
        """The record of a question. That of a broken row does not count once the row is mended, nor does that of a
        failure which is to be tried again."""
        record = self.records.get((row.id, index))
        if record is None or record["error"] is None or row.error is not None:
            return record
        return None if self._retry_failed or record["error"]["kind"] == "ManifestError" else record

    def add(self, records: list[dict[str, Any]]) -> None:
        """Append records; when it returns they are on disk, and each is whole."""
        if not records:
            return
        lines = "".join(json.dumps(record, ensure_ascii=True) + "\n" for record in records)
        try:
            self._file.write(lines.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self.records |= {_key(record): record for record in records}

    def finish(self, rows: list[Row], summary: dict[str, Any]) -> None:
        """Write the Parquet table of the manifest's rows, and the summary."""
        try:
            self._replace(PARQUET, lambda path: write_parquet(path, self.in_order(rows)))
            text = json.dumps(summary, indent=2) + "\n"
            self._replace(SUMMARY, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def in_order(self, rows: list[Row]) -> list[dict[str, Any]]:
        """The records of these rows."""
        keys = ((row.id, index) for row in rows for index in range(max(1, len(row.questions))))
        return [self.records[key] for key in keys if key in self.records]

    def close(self) -> None:
        self._file.close()

    def _read(self) -> None:
        """Load what is recorded; a last line that was cut short by a kill is cut off."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                self.records[_key(record)] = record
            except (ValueError, KeyError, TypeError) as error:
                raise OutputError(f"{self.folder / ANSWERS}: line {number} is no record of a job",
                                  fix="remove the line, or give another --output") from error
            whole += len(line)
        self._file.truncate(whole)

    def _replace(self, name: str, write: Any) -> None:
        half = self.folder / f".{name}.half"
        write(half)
        os.replace(half, self.folder / name)


def answered(row: Row, index: int, answer: Answer, model: str, warnings: list[str]) -> dict[str, Any]:
    """The record of an answer."""
    found = answer.to_json()
    text = found.pop("answer")
    return _record(row, index, model) | found | {"answer": text, "warnings": warnings, "error": None}


def failed(row: Row, index: int, error: AnymodalError, model: str) -> dict[str, Any]:
    """The record of an error."""
    told = {"kind": type(error).__name__, "message": error.message, "fix": error.fix}
    return _record(row, index, model) | {
        "answer": None, "confidence": None, "evidence": [], "frames_seen": 0, "frames_dropped": 0, "windows_seen": 0,
        "time_to_first_token_s": None, "warnings": [], "error": told}


def _record(row: Row, index: int, model: str) -> dict[str, Any]:
    question = row.questions[index] if index < len(row.questions) else None
    return {"id": row.id, "row": row.number, "question_index": index, "media": row.media, "at_s": row.at_s,
            "question": question, "model": model}


def _key(record: dict[str, Any]) -> Key:
    return record["id"], record["question_index"]


def write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    """Records as one table."""
    arrow, parquet = need("pyarrow", extra="run"), need("pyarrow.parquet", extra="run")
    text, real, whole = arrow.string(), arrow.float64(), arrow.int64()
    span = arrow.struct([("start_s", real), ("end_s", real), ("modality", text)])
    schema = arrow.schema([
        ("id", text), ("row", whole), ("question_index", whole), ("media", text), ("at_s", real), ("question", text),
        ("model", text), ("answer", text), ("confidence", real), ("evidence", arrow.list_(span)),
        ("frames_seen", whole), ("frames_dropped", whole), ("windows_seen", whole), ("time_to_first_token_s", real),
        ("warnings", arrow.list_(text)),
        ("error", arrow.struct([("kind", text), ("message", text), ("fix", text)]))])
    tidy = [record | {"question": _text(record["question"]), "media": _text(record["media"])} for record in records]
    parquet.write_table(arrow.Table.from_pylist(tidy, schema=schema), path)


def _text(value: Any) -> str | None:
    """What a broken row has in place of a text, as text that Parquet takes."""
    if value is None:
        return None
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace").decode("utf-8")


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder} cannot be written: {error.strerror or error}",
                       fix="free space there, or give another --output")
