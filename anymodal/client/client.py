"""`AsyncClient`: files asked over HTTP, live sessions over a WebSocket."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anymodal.client.asking import Asking
from anymodal.client.errors import ClosedError, NotFoundError, ProtocolError
from anymodal.client.http import Http
from anymodal.client.link import Link, Ticket
from anymodal.client.live import LiveSession
from anymodal.client.options import Options
from anymodal.client.transport import NetTransport, Transport
from anymodal.errors import InputError, QuestionError
from anymodal.types import Answer, Delta

DEFAULT_URL = "http://127.0.0.1:8000"  # where `anymodal serve` listens
PARTS = {"video": "video_url", "image": "image_url", "audio": "audio_url"}


class AsyncClient:
    """A server, by its address. A context manager; `close` it otherwise.

    url: without it $ANYMODAL_URL, or the server of this machine. api_key: without it $ANYMODAL_API_KEY. model: without
    it the server's first. options: every time and size (`anymodal.client.Options`). transport: for tests.
    """

    def __init__(self, url: str | None = None, *, api_key: str | None = None, model: str | None = None,
                 options: Options | None = None, transport: Transport | None = None) -> None:
        self.url = _checked(url or os.environ.get("ANYMODAL_URL") or DEFAULT_URL)
        self.model = model
        self.options = options or Options()
        self._transport = transport or NetTransport()
        key = api_key or os.environ.get("ANYMODAL_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http: Http | None = Http(self.url, self._headers, self.options, self._transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Live sessions are closed by themselves."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def models(self) -> list[str]:
        """The names of the models there are."""
        found = await self._open.get("/v1/models")
        try:
            return [row["id"] for row in found["data"]]
        except (LookupError, TypeError) as error:
            raise ProtocolError("the server did not list its models", fix="is it an anymodal server?") from error

    async def upload(self, path: str | Path) -> str:
        """The id of an uploaded file, to be asked about by it; the same file is sent once. Raises MediaError."""
        return (await self._open.upload(path))["id"]

    async def delete(self, file_id: str) -> None:
        """Delete an uploaded file."""
        self._open.forget(file_id)
        await self._open.delete(f"/v1/files/{file_id}")

    def ask(self, media: str | Path | None, question: str, *, at_s: float | None = None,
            sidecars: Mapping[str, str | Path] | None = None) -> Asking:
        """Ask about a file, an http(s) address, the id of an upload, or None for no media.

        at_s: as of this media time. sidecars: modality -> path of a sensor table. Iterate it for the text as it is made,
        or await the Answer; what goes wrong is raised then.
        """
        if not question.strip():
            raise QuestionError("the question is empty", fix="ask something")
        return Asking(self._answer(media, question, at_s, dict(sidecars or {})))

    def live(self, *, streams: Mapping[str, str] | None = None, instructions: str | None = None,
             ticket: Ticket | None = None) -> LiveSession:
        """A live session: `async with client.live() as session:`. streams: name -> modality of what will be pushed; without
        it one of each modality. ticket: go on with a session that was left with `close(keep=True)`, or lost."""
        query = {"model": self.model} if self.model else {}

        def link(on_event: Any, on_end: Any) -> Link:
            return Link(self._transport, "ws" + self.url.removeprefix("http") + "/v1/realtime", query, self._headers,
                        self.options, on_event, on_end, ticket)

        return LiveSession(link, self.options, streams, instructions)

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> Http:
        if self._http is None:
            raise ClosedError("the client is closed", fix="make another")
        return self._http

    async def _answer(self, media: str | Path | None, question: str, at_s: float | None,
                      sidecars: dict[str, str | Path]) -> AsyncIterator[Delta | Answer]:
        http, started = self._open, False
        try:
            body = await self._body(media, question, at_s, sidecars)
            async for piece in http.chat(body, question):
                started = True
                yield piece
        except NotFoundError as error:
            if started or error.code != "file_not_found" or not _is_path(media):
                raise
            http.forget_all()  # the server has let go of the upload
            async for piece in http.chat(await self._body(media, question, at_s, sidecars), question):
                yield piece

    async def _body(self, media: str | Path | None, question: str, at_s: float | None,
                    sidecars: dict[str, str | Path]) -> dict[str, Any]:
        if self.model is None:
            self.model = next(iter(await self.models()), None)
        content: list[dict[str, Any]] = []
        if media is not None:
            kind, address = await self._address(media)
            tables = {name: (await self._address(path))[1] for name, path in sidecars.items()}
            content.append({"type": kind, kind: {"url": address, **({"sidecars": tables} if tables else {})}})
        elif sidecars:
            raise InputError("sensor tables without media", fix="give the clip that they belong to")
        content.append({"type": "text", "text": question})
        extras = {} if at_s is None else {"anymodal": {"at_s": at_s}}
        return {"model": self.model or "", "messages": [{"role": "user", "content": content}], **extras}

    async def _address(self, media: str | Path) -> tuple[str, str]:
        """(type of a content part, address in it)"""
        if _is_path(media):
            row = await self._open.upload(media)
            found = (row.get("anymodal") or {}).get("media") or {}
            return PARTS.get(found.get("kind"), _guess(str(media))), row["id"]
        return _guess(urlsplit(media).path), media


def _is_path(media: str | Path | None) -> bool:
    if isinstance(media, str) and media.startswith("file-"):
        return Path(media).exists()
    return media is not None and not (isinstance(media, str) and media.startswith(("http://", "https://")))


def _guess(name: str) -> str:
    return PARTS.get((mimetypes.guess_type(name)[0] or "").partition("/")[0], "video_url")


def _checked(url: str) -> str:
    """http(s)://host:port, with whatever path stands before /v1. Raises InputError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        raise InputError(f"{url!r} is no server's address", fix=f"such as {DEFAULT_URL}")
    return url.rstrip("/").removesuffix("/v1")
