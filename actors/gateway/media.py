"""A content part of a request -> a local file: data URLs, http and https addresses, uploaded files.

Whatever it is, it is sniffed. No path that a client names is opened: an address is one of these three, or refused.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from actors.gateway import files, sniff
from actors.gateway.auth import Client
from actors.gateway.context import Gateway
from actors.gateway.faults import Fault, as_answer
from actors.gateway.fetching import fetch
from anymodal.errors import MediaError, SidecarError

DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]+)*)(;base64)?,", re.ASCII)
SIDECAR_BYTES = 64 * 2**20
PICTURES = {b"PK\x03\x04": ".npz", b"\x1a\x45\xdf\xa3": ".mkv"}  # of further senses, by how they begin
SUFFIXES = {sniff.IMAGE: ".image", sniff.VIDEO: ".video", sniff.AUDIO: ".audio"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A part as a client sent it. `kind`: image, video, audio, or "" for whatever it is; `param`: where it stood."""

    kind: str
    address: str
    param: str
    sidecars: dict[str, str] = field(default_factory=dict)  # modality -> address of a sensor's table or pictures


@dataclass(frozen=True, slots=True)
class Shown:
    """Media that is here. `param`: where it stood in the request."""

    path: Path
    kind: str
    sidecars: dict[str, str] = field(default_factory=dict)
    param: str = ""

    def fault(self, error: MediaError | SidecarError) -> Fault:
        """What was found out about it while it was read, in words that tell nothing of where it lies here."""
        names = {str(self.path): "the file", self.path.name: "the file"}
        names |= {path: f"the table of {modality}" for modality, path in self.sidecars.items()}
        message, fix = error.message, error.fix
        for name, told in names.items():
            message, fix = message.replace(name, told), fix.replace(name, told)
        return as_answer(type(error)(message, fix=fix), param=self.param)


@contextmanager
def scratch(gateway: Gateway) -> Iterator[Path]:
    """A folder for what one request brings along."""
    gateway.settings.scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(dir=gateway.settings.scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def bring(gateway: Gateway, client: Client, wanted: Wanted, path: Path) -> Shown:
    """Save it at a new path, whose suffix then says what it is. Raises Fault for what cannot be had, is none of what it
    should be, or is too large."""
    await _save(gateway, client, wanted.address, path, wanted.param)
    with gateway.metrics.stage("sniff"):
        try:
            found = await gateway.asks.run(sniff.sniff, path, gateway.settings, gateway.lookers)
        except MediaError as error:
            raise as_answer(error, param=wanted.param) from error
    if wanted.kind and not (found.kind == wanted.kind or (wanted.kind == sniff.AUDIO and found.sounds)
                            or (wanted.kind == sniff.VIDEO and found.kind == sniff.IMAGE)):
        raise Fault(400, "wrong_media", f"{found.container} is {found.kind}, not {wanted.kind}", param=wanted.param,
                    fix=f"send it as {'input_audio' if found.kind == sniff.AUDIO else found.kind + '_url'}")
    named = path.with_suffix(SUFFIXES[found.kind])
    os.rename(path, named)  # noqa: ASYNC251
    tables = {}
    for modality, address in wanted.sidecars.items():
        where = f"{wanted.param}.sidecars.{modality}"
        if modality not in gateway.host.spec.modalities:
            raise Fault(400, "invalid_value", f"this model has no {modality!r:.40}", param=where,
                        fix=f"one of {', '.join(gateway.host.spec.modalities)}")
        table = path.with_name(f"{path.name}-{modality}")
        await _save(gateway, client, address, table, where)
        name = _named_pictures if gateway.host.spec.modalities[modality].is_picture else _named_table
        tables[modality] = str(await gateway.asks.run(name, table, where, gateway))
    return Shown(named, found.kind, tables, wanted.param)


async def _save(gateway: Gateway, client: Client, address: str, path: Path, param: str) -> None:
    if address.startswith("data:"):
        await gateway.asks.run(_save_data_url, address, path, param)
    elif address.startswith(("http://", "https://")):
        with gateway.metrics.stage("fetch"):
            await fetch(address, path, gateway.settings, param=param)
    elif address.startswith("file-"):
        stored = await gateway.asks.run(files.find, gateway.settings, client, address)
        if stored is None:
            raise Fault(404, "file_not_found", f"no file {address!r:.60}", param=param, fix="upload it to /v1/files")
        await gateway.asks.run(_linked, stored, path)
    else:
        raise Fault(400, "invalid_url", f"{address!r:.60} is no data URL, no http or https address and no id of a file",
                    param=param, fix="upload the file to /v1/files and give its id")


def _save_data_url(url: str, path: Path, param: str) -> None:
    head = DATA_URL.match(url)
    if not head or not head[3]:
        raise Fault(400, "invalid_data_url", "the data URL is not of the form data:TYPE;base64,DATA", param=param)
    save_base64(url[head.end():], path, param)


def save_base64(text: str, path: Path, param: str) -> None:
    """Raises Fault for what is no base64, or nothing."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Fault(400, "invalid_base64", f"the data is no base64: {error}", param=param) from None
    if not data:
        raise Fault(400, "invalid_base64", "there is no data", param=param)
    path.write_bytes(data)


def _linked(stored: Path, path: Path) -> None:
    try:
        os.link(stored, path)
    except OSError:  # another disk
        shutil.copyfile(stored, path)


def _named_pictures(path: Path, param: str, gateway: Gateway) -> Path:
    """Pictures of a further sense with the suffix of what they are: an array, or a video, which is looked at first."""
    with path.open("rb") as file:
        start = file.read(8)
    suffix = next((suffix for magic, suffix in PICTURES.items() if start.startswith(magic)), None)
    if suffix is None:
        raise Fault(400, "invalid_sidecar", f"pictures come as {' or '.join(PICTURES.values())}", param=param,
                    fix="np.savez(path, frames=frames, time_s=times)")
    if suffix == ".mkv":
        try:
            sniff.sniff(path, gateway.settings, gateway.lookers)
        except MediaError as error:
            raise as_answer(error, param=param) from error
    return path.rename(path.with_suffix(suffix))


def _named_table(path: Path, param: str, gateway: Gateway) -> Path:
    """A sensor table with the suffix of what it is: JSON lines or CSV."""
    if path.stat().st_size > SIDECAR_BYTES:
        raise Fault(400, "invalid_sidecar", f"a sensor table has at most {SIDECAR_BYTES} bytes", param=param)
    with path.open("rb") as file:
        start = file.read(4096)
    if b"\0" in start:
        raise Fault(400, "invalid_sidecar", "a sensor table is text: CSV or JSON lines", param=param)
    return path.rename(path.with_suffix(".jsonl" if start.lstrip().startswith(b"{") else ".csv"))
