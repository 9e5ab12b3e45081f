"""Published models: which shipped bundle runs a checkpoint, and where its files are. No torch.

    --model llava-1.5-7b                        a shipped bundle: its checkpoint is in the hub's cache
    --model ./llava-1.5-7b-hf                   a folder in the published layout
    --model llava-hf/llava-1.5-7b-hf            a hub id
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from anymodal.config import BundleSpec, read_spec, shipped_bundles
from anymodal.errors import ConfigError, WeightsError, nearest, need

CONFIG = "config.json"
INDEX = ".index.json"
STANDARD = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin",
            "*.safetensors", "*.bin", "*.pth", "*.pt")  # the first that is there
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt")
OWN_LICENCE = "Apache-2.0"
_ID = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name


def is_checkpoint(name: str | Path) -> bool:
    """Whether a `--model` names a checkpoint: a folder, or an id of the hub; else it is a bundle."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or str(name) in shipped_bundles():
        return False
    return path.is_dir() or bool(_ID.fullmatch(str(name)))


def recognised(name: str | Path) -> tuple[BundleSpec, Path]:
    """A checkpoint -> the shipped bundle of its architecture, reading from that checkpoint, and its YAML's path.

    Raises ConfigError for an architecture that no bundle runs, naming the near ones.
    """
    known = published_bundles()
    for spec, path in known.values():
        if spec.checkpoint.id == str(name):
            return spec, path
    folder = locate(str(name))
    config = read_json(folder / CONFIG)
    said = [*(config.get("architectures") or ()), *filter(None, [config.get("model_type")])]
    found = [(len(s.checkpoint.matches), s, p) for s, p in known.values()
             if set(said) & set(s.checkpoint.architectures)
             and all(value_at(config, k) == v for k, v in s.checkpoint.matches.items())]
    if not found:
        names = sorted({a for s, _ in known.values() for a in s.checkpoint.architectures})
        shown = " or ".join(map(repr, said)) or "nothing"
        raise ConfigError(f"{folder / CONFIG}: no bundle runs the architecture {shown}",
                          fix=nearest(said[0] if said else "", names) + "; or write a YAML of your own: docs/models.md")
    _, spec, path = max(found, key=lambda f: f[0])
    here = spec.checkpoint.model_copy(update={"id": str(folder)})
    return spec.model_copy(update={"checkpoint": here}), path


@lru_cache(maxsize=1)
def published_bundles() -> dict[str, tuple[BundleSpec, Path]]:
    """Shipped bundles that have a checkpoint, by name."""
    found = {name: read_spec(path) for name, path in shipped_bundles().items()}
    return {name: pair for name, pair in found.items() if pair[0].checkpoint is not None}


def weights_folder(spec: BundleSpec, path: Path) -> Path:
    """Where a bundle's weights and tokenizer are: beside its YAML `path`, or its checkpoint. Raises WeightsError."""
    if spec.checkpoint is None:
        return path.parent / (spec.weights or spec.name)
    return locate(spec.checkpoint.id, path.parent)


def other_folder(spec: BundleSpec, name: str, folder: Path) -> Path:
    """A further checkpoint of a bundle, by its name in `others` or its id: within the checkpoint's own `folder`, if there
    is one of that name. Raises WeightsError."""
    within = folder / name
    return within if within.is_dir() else locate(spec.checkpoint.others.get(name, name), folder)


def locate(name: str, beside: Path | None = None) -> Path:
    """A folder, also as seen from the YAML's own folder `beside`, or an id in the hub's cache -> the folder.

    Raises WeightsError for one that is not on this machine.
    """
    for path in filter(None, (Path(name).expanduser(), beside and beside / name)):
        if path.is_dir():
            return path.resolve()
    if _ID.fullmatch(name):
        folder = cached(name)
        if folder is not None:
            return folder
        raise WeightsError(f"checkpoint {name!r} is not on this machine", fix=f"anymodal pull {name}")
    raise WeightsError(f"no checkpoint at {name}", fix="give a folder that holds a config.json, or an id such as "
                                                       "llava-hf/llava-1.5-7b-hf")


def hub() -> Any:
    """The hub's client. Raises MissingExtraError."""
    found = need("huggingface_hub", extra="run")
    for name in ("constants", "errors", "file_download", "utils"):  # it loads them only when they are named
        importlib.import_module(f"huggingface_hub.{name}")
    return found


def cached(repo: str) -> Path | None:
    """The folder of an id in the hub's cache, whole or not, if it is there. The network is not asked."""
    client = hub()
    root = Path(client.constants.HF_HUB_CACHE) / client.file_download.repo_folder_name(repo_id=repo, repo_type="model")
    main = root / "refs" / "main"  # https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    found = [root / "snapshots" / main.read_text().strip()] if main.is_file() else sorted((root / "snapshots").glob("*"))
    return next((f for f in reversed(found) if f.is_dir()), None)


def weight_files(folder: Path, patterns: Sequence[str] = ()) -> list[Path]:
    """The files that weights are read from: those of `patterns`, or as transformers names them; an index alone stands for
    its shards. [] where there are none."""
    for pattern in [patterns] if patterns else [[p] for p in STANDARD]:
        found = {p for every in pattern for p in folder.glob(every) if p.name not in NOT_WEIGHTS}
        if found:
            return sorted(found)
    return []


def lacking(folder: Path, patterns: Sequence[str] = ()) -> list[str]:
    """What of its weights is not in a checkpoint's folder: names of shards, or "weights"."""
    found = weight_files(folder, patterns)
    if not found or not found[0].name.endswith(INDEX):
        return [] if found else ["weights"]
    places = read_json(found[0]).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{found[0]}: no weight_map", fix="the index is damaged: copy it again")
    return sorted({name for name in places.values() if not (folder / name).is_file()})


@dataclass(frozen=True, slots=True)
class Shipped:
    """A bundle of ours, as `anymodal models` shows it. `here`: yes, no, or what is lacking."""

    name: str
    modalities: tuple[str, ...]
    size_gb: float
    licence: str
    non_commercial: bool
    needs: tuple[str, ...]
    checkpoint: str
    here: str


def shipped() -> list[Shipped]:
    """All of them, the default one first."""
    found = [_shipped(*read_spec(path)) for path in shipped_bundles().values()]
    return sorted(found, key=lambda s: (bool(s.checkpoint), s.name))


def _shipped(spec: BundleSpec, path: Path) -> Shipped:
    if spec.checkpoint is None:
        folder = weights_folder(spec, path)
        files = list(folder.glob("*.safetensors"))
        size_gb = sum(f.stat().st_size for f in files) / 1e9
        return Shipped(spec.name, tuple(spec.modalities), size_gb, OWN_LICENCE, False, (), "", "yes" if files else "no")
    its = spec.checkpoint
    states = []
    for repo, patterns in {its.id: its.files, **dict.fromkeys(its.others.values(), ())}.items():
        folder = Path(repo) if Path(repo).is_dir() else cached(repo)
        if folder is None:
            states.append("no")
        else:
            gone = lacking(folder, patterns)
            states.append(f"in part: no {gone[0]}" if gone else "yes")
    here = "yes" if set(states) == {"yes"} else next((s for s in states if s.startswith("in")), "no")
    if here == "no" and "yes" in states:
        here = f"in part: {states.count('yes')} of {len(states)} checkpoints"
    return Shipped(spec.name, tuple(spec.modalities), its.size_gb, its.licence, its.non_commercial, its.needs, its.id, here)


def read_json(path: Path) -> dict[str, Any]:
    """A checkpoint's own JSON. Raises WeightsError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"no {path.name} in {path.parent}", fix="give the folder of a published checkpoint") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise WeightsError(f"{path}: {error}", fix="the file is damaged: copy it again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: a mapping is expected, found {type(found).__name__}", fix="copy it again")
    return found


def value_at(tree: Mapping[str, Any], path: str) -> Any:
    """`text_config.hidden_size` in nested mappings; None where there is no such key."""
    found: Any = tree
    for key in filter(None, path.split(".")):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found
