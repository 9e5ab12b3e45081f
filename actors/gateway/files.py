"""/v1/files: uploads, to be named in questions. A client sees its own, for `file_age_s`.

Each is kept under a name made here, beside a row that says whose it is; the client's name for it is only told back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from actors.gateway import sniff
from actors.gateway.auth import Client
from actors.gateway.context import Gateway
from actors.gateway.faults import Fault, as_answer
from actors.gateway.settings import Settings
from anymodal.errors import MediaError, OutputError

FILE_ID = re.compile(r"file-[0-9a-f]{32}")
PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
LONGEST_NAME = 255
TIDY_EVERY_S = 600.0
TABLES = ("text/csv", "application/jsonl", "application/x-ndjson", "application/json")

log = logging.getLogger("anymodal")
router = APIRouter(prefix="/v1/files", tags=["files"])
Id = Annotated[str, InPath(max_length=100)]


@dataclass(frozen=True, slots=True)
class Stored:
    """A file's row. `owner`: a digest of the client's name."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int
    media: dict[str, Any] | None = None  # what was sniffed; None for a sensor's table or array

    def to_json(self) -> dict[str, Any]:
        row = {key: value for key, value in asdict(self).items() if key not in ("owner", "media")}
        return {**row, "object": "file", "status": "processed", "anymodal": {"media": self.media}}


def owner_of(client: Client) -> str:
    return hashlib.sha256(client.id.encode()).hexdigest()[:16]


def find(settings: Settings, client: Client, file_id: str) -> Path | None:
    """The file of this id, if it is the client's."""
    stored = _row(settings, file_id)
    return _blob(settings, file_id) if stored and stored.owner == owner_of(client) else None


def rows(settings: Settings, owner: str | None = None) -> list[Stored]:
    """All files, or those of one owner; newest first."""
    found = (_row(settings, path.stem) for path in settings.uploads.glob("file-*.json"))
    return sorted((row for row in found if row and owner in (None, row.owner)), key=lambda r: (-r.created_at, r.id))


def _row(settings: Settings, file_id: str) -> Stored | None:
    if not FILE_ID.fullmatch(file_id):
        return None
    with suppress(OSError, ValueError, TypeError):
        return Stored(**json.loads((settings.uploads / f"{file_id}.json").read_text(encoding="utf-8")))
    return None


def _blob(settings: Settings, file_id: str) -> Path:
    return settings.uploads / f"{file_id}.bin"


def _remove(settings: Settings, file_id: str) -> None:
    for path in (settings.uploads / f"{file_id}.json", _blob(settings, file_id)):
        path.unlink(missing_ok=True)


def _keep(gateway: Gateway, client: Client, upload: UploadFile, purpose: str) -> Stored:
    """Copy an upload to where it stays. Raises Fault over a limit, MediaError for what is neither media nor of a sensor."""
    settings, owner = gateway.settings, owner_of(client)
    mine = rows(settings, owner)
    size = upload.size or 0
    if not size:
        raise Fault(400, "empty_file", "the file is empty", param="file")
    if size > settings.file_bytes:
        raise Fault(413, "file_too_large", f"the file has {size} bytes, at most {settings.file_bytes} are taken",
                    param="file")
    if len(mine) >= settings.most_files or sum(row.bytes for row in mine) + size > settings.files_bytes:
        raise Fault(400, "storage_full", f"{len(mine)} files are stored, at most {settings.most_files} with together "
                    f"{settings.files_bytes} bytes are", param="file", fix="delete some")
    settings.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
    file_id, now_s = f"file-{secrets.token_hex(16)}", int(time.time())
    blob = _blob(settings, file_id)
    try:
        with blob.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        media = None if _is_table(blob) or _is_array(blob) else asdict(sniff.sniff(blob, settings, gateway.lookers))
        name = re.sub(r"[^\w. ()+-]", "_", Path(upload.filename or "upload").name)[:LONGEST_NAME] or "upload"
        row = Stored(file_id, owner, name, purpose, size, now_s, now_s + int(settings.file_age_s), media)
        half = settings.uploads / f"{file_id}.half"
        half.write_text(json.dumps(asdict(row)), encoding="utf-8")
        os.replace(half, settings.uploads / f"{file_id}.json")
        return row
    except OSError as error:
        _remove(settings, file_id)
        raise OutputError(f"the file cannot be stored: {error.strerror}", fix="tell who runs the server") from error
    except BaseException:
        _remove(settings, file_id)
        raise


def _is_table(path: Path) -> bool:
    """A sensor table: text whose first line has a time column, as CSV or JSON."""
    with path.open("rb") as file:
        line = file.readline(65536)
    try:
        return b"\0" not in line and "time" in line.decode().lower() and ("," in line.decode())
    except UnicodeDecodeError:
        return False


def _is_array(path: Path) -> bool:
    """Pictures of a further sense: an .npz with `frames`. What is in it is read when it is used."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "frames.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


async def tidy(gateway: Gateway) -> None:
    """Delete what is too old, and what a killed server left behind, until cancelled."""
    settings = gateway.settings
    await gateway.asks.run(shutil.rmtree, settings.scratch, True)
    while True:
        try:
            await gateway.asks.run(_tidy, settings)
        except OSError as error:
            log.warning("old uploads could not be deleted: %s", error)
        await asyncio.sleep(TIDY_EVERY_S)


def _tidy(settings: Settings) -> None:
    for row in rows(settings):
        if row.expires_at <= time.time():
            _remove(settings, row.id)
    for path in settings.uploads.glob("file-*"):
        if path.suffix != ".json" and not path.with_suffix(".json").exists() \
                and time.time() - path.stat().st_mtime > settings.answer_timeout_s:
            path.unlink(missing_ok=True)


# -- routes --------------------------------------------------------------------------------------------------------

FORM = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
    "type": "object", "required": ["file", "purpose"], "properties": {
        "file": {"type": "string", "format": "binary"}, "purpose": {"type": "string", "enum": list(PURPOSES)}}}}}}}


@router.post("", openapi_extra=FORM)
async def upload(request: Request) -> dict[str, Any]:
    """Upload a video, an image, a sound, or a sensor's table or pictures."""
    gateway: Gateway = request.app.state.gateway
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise Fault(415, "wrong_content_type", f"an upload is multipart/form-data, not {kind!r:.60}")
    try:
        async with request.form(max_files=1, max_fields=8, max_part_size=4096) as form:
            return (await _uploaded(gateway, request.state.client, form)).to_json()
    except (MultiPartException, HTTPException) as error:  # the form is of the client's making
        raise Fault(400, "invalid_form", str(getattr(error, "detail", "") or getattr(error, "message", ""))) from error


async def _uploaded(gateway: Gateway, client: Client, form: FormData) -> Stored:
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise Fault(400, "missing_value", "there is no file in the form", param="file")
    if purpose not in PURPOSES:
        raise Fault(400, "invalid_value", f"no purpose {str(purpose)[:60]!r}", param="purpose",
                    fix=f"one of {', '.join(PURPOSES)}")
    try:
        async with gateway.answering.enter(client.id):
            return await gateway.asks.run(_keep, gateway, client, file, purpose)
    except MediaError as error:
        raise as_answer(error, param="file") from error


@router.get("")
async def listed(request: Request, purpose: Annotated[str | None, Query(max_length=100)] = None,
                 limit: Annotated[int, Query(ge=1, le=10000)] = 10000, order: Literal["asc", "desc"] = "desc",
                 after: Annotated[str | None, Query(max_length=100)] = None) -> dict[str, Any]:
    """The client's files, newest first."""
    gateway: Gateway = request.app.state.gateway
    found = await gateway.asks.run(rows, gateway.settings, owner_of(request.state.client))
    found = [row for row in found if purpose in (None, row.purpose)]
    if order == "asc":
        found.reverse()
    ids = [row.id for row in found]
    if after is not None:
        found = found[ids.index(after) + 1:] if after in ids else []
    page = [row.to_json() for row in found[:limit]]
    return {"object": "list", "data": page, "has_more": len(found) > limit, "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None}


@router.get("/{file_id}")
async def told(request: Request, file_id: Id) -> dict[str, Any]:
    """What is known of a file."""
    return (await _mine(request, file_id)).to_json()


@router.get("/{file_id}/content", response_class=FileResponse)
async def content(request: Request, file_id: Id) -> FileResponse:
    """The file as it was uploaded."""
    row = await _mine(request, file_id)
    return FileResponse(_blob(request.app.state.gateway.settings, row.id), media_type="application/octet-stream",
                        filename=row.filename)


@router.delete("/{file_id}")
async def deleted(request: Request, file_id: Id) -> dict[str, Any]:
    """Delete a file. Answers that are being made from it go on."""
    row = await _mine(request, file_id)
    gateway: Gateway = request.app.state.gateway
    await gateway.asks.run(_remove, gateway.settings, row.id)
    return {"id": row.id, "object": "file", "deleted": True}


async def _mine(request: Request, file_id: str) -> Stored:
    gateway: Gateway = request.app.state.gateway
    row = await gateway.asks.run(_row, gateway.settings, file_id)
    if row is None or row.owner != owner_of(request.state.client):
        raise Fault(404, "file_not_found", f"no file {file_id!r:.60}", param="file_id")
    return row
