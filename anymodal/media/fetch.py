"""A path or an address -> a local file. http(s) needs nothing more; other schemes (s3://, gs://, ...) need fsspec."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from anymodal.errors import MediaError, need

CONNECT_TIMEOUT_S = 15.0  # also for each read
TOTAL_TIMEOUT_S = 600.0
LARGEST_DOWNLOAD = 8 * 2**30  # bytes
_CHUNK = 1 << 20


def is_url(path: str | Path) -> bool:
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.\-]+://", str(path)))


@contextmanager
def local_file(path: str | Path) -> Iterator[Path]:
    """Yield a local path; what had to be fetched lies in a temporary folder until the block ends.

    Raises MediaError where an address cannot be fetched within its timeouts.
    """
    if not is_url(path):
        yield Path(path).expanduser()
        return
    parts = urlsplit(str(path))
    if parts.scheme == "file":
        yield Path(unquote(parts.path))
        return
    folder = Path(tempfile.mkdtemp(prefix="anymodal-"))
    try:
        target = folder / (PurePosixPath(unquote(parts.path)).name or "media")
        _fetch(str(path), target)
        yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(url: str, target: Path) -> None:
    shown = url.split("?")[0]
    try:
        with _open(url) as source, target.open("wb") as file:
            _copy(source, file, shown)
    except MediaError:
        raise
    except Exception as error:  # fsspec's backends raise whatever their client library does
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise MediaError(f"{shown} cannot be fetched: {reason}", fix="check the address and the network") from error


def _open(url: str) -> IO[bytes]:
    if url.startswith(("http://", "https://")):
        import urllib.request

        request = urllib.request.Request(url, headers={"User-Agent": "anymodal"})
        return urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S)
    return need("fsspec", extra="run").open(url, "rb").open()


def _copy(source: IO[bytes], file: IO[bytes], shown: str) -> None:
    deadline_s = time.monotonic() + TOTAL_TIMEOUT_S
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > LARGEST_DOWNLOAD:
            raise MediaError(f"{shown} is larger than {LARGEST_DOWNLOAD >> 30} GiB", fix="download it and give a path")
        if time.monotonic() > deadline_s:
            raise MediaError(f"{shown} took over {TOTAL_TIMEOUT_S:.0f} s", fix="download it and give a path")
        file.write(chunk)
    declared = getattr(source, "length", 0)  # http.client: bytes still missing at the end
    if declared:
        raise MediaError(f"{shown} broke off after {size} bytes", fix="try again, or download it and give a path")
