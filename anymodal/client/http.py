"""The server's HTTP side: uploads once, answers as server-sent events."""

from __future__ import annotations

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from anymodal.client.asking import answer_of
from anymodal.client.errors import (
    AnswerError,
    ClientError,
    OverloadedError,
    ProtocolError,
    UnreachableError,
    WaitedTooLongError,
    refusal,
    refusal_of_chunk,
)
from anymodal.client.options import Backoff, Options
from anymodal.client.transport import Transport, is_loopback, unreachable
from anymodal.errors import MediaError
from anymodal.types import Answer, Delta

LONGEST_RETRY_S = 60.0  # a server that wants to be left alone for longer is told of at once


class Http:
    """For one event loop. `url` without a slash at its end."""

    def __init__(self, url: str, headers: Mapping[str, str], options: Options, transport: Transport) -> None:
        self._url, self._options = url, options
        timeout = httpx.Timeout(options.request_timeout_s, connect=options.connect_timeout_s)
        self._client = httpx.AsyncClient(headers=dict(headers), timeout=timeout, transport=transport.http(url),
                                         trust_env=not is_loopback(url))
        self._uploads: dict[tuple[Any, ...], asyncio.Task[dict[str, Any]]] = {}

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> Any:
        async with self._sent("GET", path) as response:
            return _json(response)

    async def delete(self, path: str) -> None:
        async with self._sent("DELETE", path):
            pass

    async def upload(self, path: str | Path) -> dict[str, Any]:
        """The row of an uploaded file. The same file is sent once, as long as it does not change. Raises MediaError."""
        path = Path(path)
        try:
            found = path.stat()
            if not path.is_file():
                raise MediaError(f"{path} is no file", fix="give a media file, or the address of one")
        except OSError as error:
            raise MediaError(f"{path} cannot be read: {error.strerror}", fix="check the path") from error
        key = (path.resolve(), found.st_size, found.st_mtime_ns)
        if key not in self._uploads or (self._uploads[key].done() and not _worked(self._uploads[key])):
            self._uploads[key] = asyncio.create_task(self._upload(path))
        return await asyncio.shield(self._uploads[key])  # who else waits for it still gets it

    def forget(self, file_id: str) -> None:
        """It is to be sent again when it is needed."""
        self._uploads = {key: task for key, task in self._uploads.items()
                         if not _worked(task) or task.result()["id"] != file_id}

    def forget_all(self) -> None:
        self._uploads.clear()

    async def _upload(self, path: Path) -> dict[str, Any]:
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError as error:
            raise MediaError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from error
        with file:
            async with self._sent("POST", "/v1/files", data={"purpose": "user_data"},
                                  files={"file": (path.name, file, kind)}, rewind=file) as response:
                row = _json(response)
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise ProtocolError("the server did not say under which id the file is", fix="is it an anymodal server?")
        return row

    async def chat(self, body: Mapping[str, Any], question: str) -> AsyncIterator[Delta | Answer]:
        """The pieces of an answer, and at last the Answer."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        timeout = httpx.Timeout(self._options.answer_timeout_s, connect=self._options.connect_timeout_s)
        text, extras, finish = "", None, None
        async with self._sent("POST", "/v1/chat/completions", json=body, timeout=timeout, stream=True) as response:
            async for chunk in _chunks(response):
                extras = {**(extras or {}), **chunk["anymodal"]} if isinstance(chunk.get("anymodal"), dict) else extras
                for choice in chunk.get("choices") or ():
                    finish = choice.get("finish_reason") or finish
                    piece = (choice.get("delta") or {}).get("content")
                    if piece:
                        text += piece
                        yield Delta(piece)
        if finish is None:
            raise AnswerError("the answer broke off", text=text, fix="ask again")
        yield answer_of(question, text, extras)

    @asynccontextmanager
    async def _sent(self, method: str, path: str, *, stream: bool = False, rewind: Any = None,
                    **content: Any) -> AsyncIterator[httpx.Response]:
        """A response that is no error. A busy server, or none, is tried again. Raises ClientError."""
        backoff = Backoff(self._options.backoff_first_s, self._options.backoff_most_s)
        for attempt in range(self._options.retries + 1):
            try:
                response = await self._send(method, path, content)
                break
            except (OverloadedError, UnreachableError) as error:
                wait_s = max(backoff.next_s(), getattr(error, "retry_after_s", None) or 0.0)
                if attempt == self._options.retries or wait_s > LONGEST_RETRY_S:
                    raise
                await asyncio.sleep(wait_s)
                if rewind is not None:
                    rewind.seek(0)
        try:
            if not stream:
                await _read(response)
            yield response
        except httpx.HTTPError as error:
            raise self._told(error) from error
        finally:
            await response.aclose()

    async def _send(self, method: str, path: str, content: Mapping[str, Any]) -> httpx.Response:
        try:
            request = self._client.build_request(method, self._url + path, **content)
            response = await self._client.send(request, stream=True)
            if response.is_success:
                return response
            try:
                await _read(response)
                raise refusal(response.status_code, response.content, response.headers)
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> ClientError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return WaitedTooLongError(f"{self._url} said nothing in time ({type(error).__name__})",
                                      fix="raise answer_timeout_s or request_timeout_s if the server is slow")
        return unreachable(self._url, error)


async def _read(response: httpx.Response) -> bytes:
    return await response.aread()


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise ProtocolError(f"{response.request.url.path} did not answer JSON", fix="is it an anymodal server?") from error


async def _chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The data of server-sent events, until [DONE]. Raises RefusedError for an error among them."""
    async for line in response.aiter_lines():
        field, _, data = line.partition(":")
        if field != "data":
            continue
        if data.strip() == "[DONE]":
            return
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise ProtocolError(f"the server sent no JSON: {data[:200]!r}", fix="is it an anymodal server?") from error
        if not isinstance(chunk, dict):
            raise ProtocolError(f"the server sent no chunk: {data[:200]!r}", fix="is it an anymodal server?")
        if chunk.get("error"):
            raise refusal_of_chunk(data)
        yield chunk


def _worked(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
