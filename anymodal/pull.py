"""Downloads a checkpoint into the hub's cache: with progress, resumed where it was cut, each file verified. No torch."""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anymodal.config import shipped_bundles
from anymodal.errors import ConfigError, OutputError, WeightsError, nearest
from anymodal.models import INDEX, NOT_WEIGHTS, STANDARD, is_checkpoint, published_bundles
from anymodal.models import hub as client

TIMEOUT_S = 10.0  # of the hub's answers
TEXTS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")  # configs, tokenizers
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".msgpack", ".h5", ".onnx", ".gguf", ".ot")
Progress = Callable[[int, int, str], None]  # bytes done, of all, the file


def sources(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """A shipped bundle's name, or an id -> the ids to download, each with patterns of its weights; none: the usual ones.

    Raises ConfigError for a name that is neither.
    """
    known = published_bundles()
    by_id = {spec.checkpoint.id: spec for spec, _ in known.values()}
    spec = known[name][0] if name in known else by_id.get(name)
    if spec is not None:
        its = spec.checkpoint
        return [(its.id, its.files), *((other, ()) for other in dict.fromkeys(its.others.values()) if other != its.id)]
    if name in shipped_bundles():
        return []
    if not is_checkpoint(name) or Path(name).is_dir():
        raise ConfigError(f"nothing to pull is called {name!r}", fix=nearest(name, known) + "; or give an id of the hub")
    return [(name, ())]


def pull(repo: str, patterns: Sequence[str] = (), progress: Progress = lambda *_: None) -> Path:
    """Download what a bundle reads of a repository -> its folder. A file that is there and whole is not fetched again.

    Raises WeightsError where the hub cannot be reached, refuses, or sends something else than it lists; OutputError where
    the disk has no room.
    """
    hub = client()
    if hub.constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{repo} cannot be pulled: HF_HUB_OFFLINE is set",
                           fix="unset it, or copy the checkpoint's folder here and give it as --model")
    info = _asked(hub, repo, lambda: hub.HfApi().model_info(repo, files_metadata=True, timeout=TIMEOUT_S))
    files = chosen({f.rfilename: f for f in info.siblings or ()}, patterns)
    if not files:
        raise WeightsError(f"{repo} has none of the files that are read", fix="check the id")
    total, done = sum(f.size or 0 for f in files), 0
    _check_disk(hub, repo, total)
    for file in files:
        counted = _counter(hub, lambda count, name=file.rfilename, begin=done: progress(begin + count, total, name))
        path = _asked(hub, repo, lambda f=file, c=counted: hub.hf_hub_download(
            repo, f.rfilename, revision=info.sha, tqdm_class=c, etag_timeout=TIMEOUT_S))
        _verify(Path(path), file)
        done += file.size or 0
        progress(done, total, file.rfilename)
    root = Path(path)
    for _ in Path(files[-1].rfilename).parts:
        root = root.parent
    refs = root.parent.parent / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(info.sha)  # now that all is there
    return root


def chosen(files: dict[str, Any], patterns: Sequence[str] = ()) -> list[Any]:
    """Of a repository's files, those that are read, small ones first: configs, tokenizers, one format of the weights."""
    weights = {name for name in files if name.endswith((*WEIGHTS, INDEX))}
    texts = {name for name in files if name not in weights and any(fnmatch.fnmatch(name, p) for p in TEXTS)}
    if patterns:
        kept = {name for name in weights if any(fnmatch.fnmatch(name, p) for p in patterns)}
    else:
        kept = usual({name for name in weights if "/" not in name})
    return sorted((files[n] for n in texts | kept), key=lambda f: (f.size or 0, f.rfilename))


def usual(names: set[str]) -> set[str]:
    """Of files with weights, those that `Checkpoint` reads where no patterns are given, shards with their index."""
    pattern = next((p for p in STANDARD if fnmatch.filter(names, p)), None)
    if pattern is None:
        return set()
    found = set(fnmatch.filter(names, pattern)) - set(NOT_WEIGHTS)
    if pattern.endswith(INDEX):
        stem, suffix = pattern.removesuffix(INDEX).rsplit(".", 1)
        found |= set(fnmatch.filter(names, f"{stem}-*.{suffix}"))
    return found


def _asked(hub: Any, repo: str, call: Callable[[], Any]) -> Any:
    """The hub's answer, its refusals as ours."""
    errors = hub.errors
    try:
        return call()
    except errors.GatedRepoError as error:
        raise WeightsError(f"{repo} is given only to those who accepted its licence",
                           fix=f"accept it at https://huggingface.co/{repo}, then set HF_TOKEN") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise WeightsError(f"the hub has no {repo!r}, or it is private", fix="check the id, or set HF_TOKEN") from error
    except errors.OfflineModeIsEnabled as error:
        raise WeightsError(f"{repo} cannot be pulled: HF_HUB_OFFLINE is set", fix="unset it") from error
    except OSError as error:  # what the hub's client raises for the network is one, and so are a full disk's
        if getattr(error, "errno", None) == 28:
            raise OutputError(f"the disk is full while {repo} is pulled", fix="make room, or set HF_HOME") from error
        raise _unreachable(hub, repo, error) from error
    except Exception as error:  # its HTTP library's own
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "huggingface_hub")):
            raise
        raise _unreachable(hub, repo, error) from error


def _unreachable(hub: Any, repo: str, error: BaseException) -> WeightsError:
    said = " ".join(str(error).split())
    return WeightsError(f"the hub at {hub.constants.ENDPOINT} cannot be reached for {repo}: {said:.160}",
                        fix="connect and pull again, it goes on where it was cut; or copy the checkpoint's folder here and "
                            "give it as --model")


def _check_disk(hub: Any, repo: str, total: int) -> None:
    there = Path(hub.constants.HF_HUB_CACHE)
    while not there.exists():
        there = there.parent
    own = Path(hub.constants.HF_HUB_CACHE) / hub.file_download.repo_folder_name(repo_id=repo, repo_type="model")
    have = sum(f.stat().st_size for f in own.rglob("*") if f.is_file() and not f.is_symlink())
    free = shutil.disk_usage(there).free
    if total - have > free:
        raise OutputError(f"{repo} needs {(total - have) / 1e9:.1f} GB more at {there}, {free / 1e9:.1f} GB are free",
                          fix="make room, or set HF_HOME to a larger disk")


def _verify(path: Path, file: Any) -> None:
    """Size and hash must be those that the hub lists. A file that is not as listed is removed."""
    size = path.stat().st_size
    lfs = getattr(file, "lfs", None)
    wanted = getattr(lfs, "sha256", None) or getattr(file, "blob_id", None)
    if (file.size is None or size == file.size) and (wanted is None or _digest(path, len(wanted), size) == wanted):
        return
    for gone in {path.resolve(), path}:
        gone.unlink(missing_ok=True)
    raise WeightsError(f"{path.name} came with {size} bytes that are not those that the hub lists ({file.size} bytes)",
                       fix="pull again; the damaged file was removed")


def _digest(path: Path, length: int, size: int) -> str:
    """SHA-256 of large files; of small ones git's blob hash, as the hub lists it."""
    digest = hashlib.sha256() if length == 64 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _counter(hub: Any, told: Callable[[int], None]) -> type:
    """A silent bar of the hub's client that tells how many bytes of a file are there."""

    class Counter(hub.utils.tqdm):
        def __init__(self, *given: Any, **options: Any) -> None:
            self.count = options.get("initial") or 0
            super().__init__(*given, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.count += int(n or 0)
            told(self.count)

    return Counter
