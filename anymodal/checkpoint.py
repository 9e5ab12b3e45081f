"""A checkpoint in its published layout -> the tensors of one part of it, and no others.

    checkpoint = Checkpoint(folder)
    checkpoint.config                                   config.json, with the defaults of its architecture filled in
    report = checkpoint.fill(module, {"vision_tower.": ""}, device="cuda")

Weights are `*.safetensors` or `*.bin`/`*.pth`, alone or in shards with their index. Of safetensors the header says where
each tensor lies, and only the bytes that are wanted are read; nothing is mapped. Pickled weights are read without running
what they hold (`weights_only`), mapped where torch can.
"""

from __future__ import annotations

import fnmatch
import json
import pickle
import re
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anymodal.errors import WeightsError
from anymodal.language.quantized import fill_weight
from anymodal.models import CONFIG, INDEX, STANDARD, lacking, read_json, value_at, weight_files
from anymodal.room import check_room

# Layout of safetensors: an 8-byte length, a JSON header, the tensors. https://github.com/huggingface/safetensors
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
          "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
          "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
NESTED = ("state_dict", "model", "module")  # where a training's file keeps its tensors


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file. `at`: its bytes there, of safetensors."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    at: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(slots=True)
class Report:
    """What was read: bytes in the files, by key there; and what was left alone on purpose."""

    read: dict[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(self.read.values())

    def __add__(self, other: Report) -> Report:
        return Report(self.read | other.read, (*self.ignored, *other.ignored), (*self.files, *other.files))


class Checkpoint:
    """A folder in published layout. Raises WeightsError where it cannot be read or does not fit."""

    def __init__(self, folder: Path, files: Sequence[str] = ()) -> None:
        self.folder, self._patterns = Path(folder), tuple(files)
        self._headers: dict[Path, dict[str, Entry]] = {}
        self._pickled: dict[Path, dict[str, Tensor]] = {}

    # --- what it says of itself --------------------------------------------------------------------------------------

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json. What a known architecture leaves out there has its defaults; {} where there is no such file."""
        if not (self.folder / CONFIG).is_file():
            return {}
        raw = read_json(self.folder / CONFIG)
        from transformers import AutoConfig
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        if raw.get("model_type") not in CONFIG_MAPPING:
            return raw
        try:
            return AutoConfig.from_pretrained(str(self.folder), local_files_only=True).to_dict()
        except Exception as error:  # whatever a config class makes of wrong values
            raise WeightsError(f"{self.folder / CONFIG}: {error}", fix="copy the checkpoint's config.json again") from error

    def json(self, name: str) -> dict[str, Any]:
        """Another of its files."""
        return self.config if name == CONFIG else read_json(self.folder / name)

    def value(self, where: str) -> Any:
        """`text_config.hidden_size` of config.json, or `file.json`, or `file.json#key.key`; None where there is none."""
        name, _, path = where.partition("#") if where.partition("#")[0].endswith(".json") else (CONFIG, "", where)
        if name != CONFIG and not (self.folder / name).is_file():
            return None
        return value_at(self.json(name), path)

    # --- its tensors -------------------------------------------------------------------------------------------------

    @cached_property
    def _files(self) -> dict[str, Path] | list[Path]:
        """Key -> file, as an index says; or all files with weights."""
        found = weight_files(self.folder, self._patterns)
        if not found:
            raise WeightsError(f"no weights in {self.folder}: none of {', '.join(self._patterns or STANDARD)}",
                               fix="copy the checkpoint's weights there, or download them again")
        if not found[0].name.endswith(INDEX):
            return found
        missing, places = lacking(self.folder, self._patterns), read_json(found[0])["weight_map"]
        if missing:
            raise WeightsError(f"{found[0]} names {missing[0]!r}, which is not there ({len(missing)} of "
                               f"{len(set(places.values()))} files are missing)", fix="download the checkpoint again")
        return {key: self.folder / name for key, name in places.items()}

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """All tensors' names."""
        if isinstance(self._files, dict):
            return tuple(self._files)
        return tuple(key for path in self._files for key in self._header(path))

    def entry(self, key: str) -> Entry:
        """Its shape, dtype and place. Raises KeyError."""
        if isinstance(self._files, dict):
            path = self._files[key]
            if key not in (header := self._header(path)):
                raise WeightsError(f"{path} has no tensor {key!r}, which the index says it has",
                                   fix="download the checkpoint again")
            return header[key]
        return next(h[key] for h in map(self._header, self._files) if key in h)

    def _header(self, path: Path) -> dict[str, Entry]:
        if path not in self._headers:
            if path.suffix == ".safetensors":
                self._headers[path] = read_header(path)
            else:
                self._headers[path] = {k: Entry(tuple(t.shape), t.dtype, path) for k, t in self._unpickled(path).items()}
        return self._headers[path]

    def _unpickled(self, path: Path) -> dict[str, Tensor]:
        if path not in self._pickled:
            self._pickled[path] = read_pickled(path)
        return self._pickled[path]

    def read(self, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """(key, tensor) of these, file by file, as they are stored."""
        entries = sorted(((self.entry(k), k) for k in keys), key=lambda e: (str(e[0].file), e[0].at or (0, 0), e[1]))
        for entry, key in entries:
            yield key, self._unpickled(entry.file)[key] if entry.at is None else read_tensor(entry)

    def close(self) -> None:
        """Let go of pickled weights."""
        self._pickled.clear()

    # --- into a module -----------------------------------------------------------------------------------------------

    def fill(self, module: nn.Module, tensors: Mapping[str, str], *, ignore: Sequence[str] = (),
             renames: Sequence[tuple[str, str]] = (), device: str = "cpu", dtype: torch.dtype | None = None,
             what: str = "part", partly: bool = False,
             change: Sequence[Callable[[str, Tensor], Tensor]] = ()) -> Report:
        """Fill a module that `unfilled()` made. tensors: prefix in the files -> prefix in the module, longest first.

        renames: (pattern, replacement) of the module's side, in turn. ignore: patterns of keys that the module has no use
        for. dtype: of floating tensors. partly: others fill the rest. change: what is done to each
        tensor, given its name in the module, on its way there. Raises WeightsError naming what is missing, not
        known or of another shape, and for too little memory, before anything is read.
        """
        chosen, ignored = self._choose(tensors, ignore, renames)
        if hasattr(module, "tie_weights"):
            module.tie_weights()  # of tied ones, files have one
        wanted = module.state_dict()
        wrong = [f"tensor {key!r} is {self.entry(key).shape}, the {what}'s {name!r} is {tuple(wanted[name].shape)}"
                 for name, key in chosen.items() if name in wanted and self.entry(key).shape != tuple(wanted[name].shape)]
        extra = sorted(key for name, key in chosen.items() if name not in wanted)
        missing = [] if partly else _missing(module, set(chosen))
        if wrong or extra or missing:
            raise self._misfit(what, wrong, extra, missing, tensors)
        entries = {name: self.entry(key) for name, key in chosen.items()}
        need = sum(e.count * _kept(e.dtype, dtype).itemsize for e in entries.values())
        check_room(need, device, f"the {what} from {self.folder}")
        names = {key: name for name, key in chosen.items()}
        for key, tensor in self.read(names):
            for changed in change:
                tensor = changed(names[key], tensor)
            _assign(module, names[key], tensor.to(_kept(tensor.dtype, dtype)), device)
        self.close()
        if hasattr(module, "tie_weights"):
            module.tie_weights()
        return Report({k: e.count * e.dtype.itemsize for k, e in zip(chosen.values(), entries.values(), strict=True)},
                      ignored, tuple(sorted({e.file.name for e in entries.values()})))

    def _choose(self, tensors: Mapping[str, str], ignore: Sequence[str],
                renames: Sequence[tuple[str, str]]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Name in the module -> key in the files; and the keys that are ignored."""
        chosen: dict[str, str] = {}
        ignored = []
        prefixes = sorted(tensors, key=len, reverse=True)
        for key in self.keys:
            prefix = next((p for p in prefixes if key.startswith(p)), None)
            if prefix is None:
                continue
            if any(fnmatch.fnmatchcase(key, pattern) for pattern in ignore):
                ignored.append(key)
                continue
            name = tensors[prefix] + key[len(prefix) :]
            for pattern, replacement in renames:
                name = re.sub(pattern, replacement, name)
            if name in chosen:
                raise WeightsError(f"{self.folder}: tensors {chosen[name]!r} and {key!r} are both for {name!r}",
                                   fix="mend the part's `tensors`, or ignore one of them")
            chosen[name] = key
        return chosen, tuple(ignored)

    def _misfit(self, what: str, wrong: list[str], extra: list[str], missing: list[str],
                tensors: Mapping[str, str]) -> WeightsError:
        said = [*wrong[:2], *(f"no tensor for the {what}'s {name!r}" for name in missing[:2]),
                *(f"unknown tensor {key!r}" for key in extra[:2])]
        more = len(wrong) + len(missing) + len(extra) - len(said)
        text = "; ".join(said) + (f"; and {more} more" if more else "")
        like = looks_like(self.keys)
        return WeightsError(f"{self.folder}: {text}", fix=f"its tensors look like those of {like}" if like else
                            f"use a checkpoint whose config.json is its own, with tensors {', '.join(tensors)}...")


# --- files -----------------------------------------------------------------------------------------------------------

def read_header(path: Path) -> dict[str, Entry]:
    """A safetensors file's tensors. Raises WeightsError for one that is damaged or cut short."""
    size, damaged = path.stat().st_size, "download the checkpoint again, or copy the file whole"
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, 100_000_000):
            raise WeightsError(f"{path} is no safetensors file, or cut short within its header ({size} bytes)", fix=damaged)
        try:
            header = json.loads(file.read(length))
            entries = {key: Entry(tuple(e["shape"]), DTYPES[e["dtype"]], path,
                                  (8 + length + e["data_offsets"][0], 8 + length + e["data_offsets"][1]))
                       for key, e in header.items() if key != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise WeightsError(f"{path}: its header cannot be read: {said}", fix=damaged) from error
    for key, entry in entries.items():
        if entry.at[1] - entry.at[0] != entry.count * entry.dtype.itemsize:
            raise WeightsError(f"{path}: tensor {key!r} {entry.shape} has {entry.at[1] - entry.at[0]} bytes", fix=damaged)
    end = max((e.at[1] for e in entries.values()), default=8 + length)
    if end > size:
        cut = next(k for k, e in entries.items() if e.at[1] > size)
        raise WeightsError(f"{path} is cut short: it has {size} of {end} bytes, tensor {cut!r} is not whole", fix=damaged)
    return entries


def read_tensor(entry: Entry) -> Tensor:
    """The bytes of one tensor, into memory of its own."""
    buffer = torch.empty(entry.shape, dtype=entry.dtype)
    if entry.count:
        with entry.file.open("rb", buffering=0) as file:
            file.seek(entry.at[0])
            room = memoryview(buffer.reshape(-1).view(torch.uint8).numpy())
            while len(room):
                got = file.readinto(room)
                if not got:
                    raise WeightsError(f"{entry.file} ended while it was read", fix="copy the file whole")
                room = room[got:]
    return buffer


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.bin`/`.pth`. Raises WeightsError for one that is damaged, or would run code."""
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            found = torch.load(path, map_location="cpu", weights_only=True)  # as torch saved before 1.6
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        named = f" ({unsafe[1]})" if unsafe else ""
        raise WeightsError(f"{path} holds more than tensors{named}: loading it would run code", fix="use the checkpoint's "
                           "safetensors, or convert it where you trust it") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: {str(error).splitlines()[0] if str(error) else 'empty'}",
                           fix="the file is damaged: download the checkpoint again") from error
    for name in NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name", fix="give the file of a model's weights")
    return tensors


# --- modules ---------------------------------------------------------------------------------------------------------

_making = threading.Lock()


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules made within it have parameters without memory, to be filled from a checkpoint; buffers are as ever."""
    here = threading.get_ident()

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta" and threading.get_ident() == here:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=False)
        real(self, name, param)

    with _making:
        real = nn.Module.register_parameter
        nn.Module.register_parameter = register
        try:
            with _without_draws():
                yield
        finally:
            nn.Module.register_parameter = real


@contextmanager
def _without_draws() -> Iterator[None]:
    """Fresh weights are not drawn: they would be dropped at once."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        yield


def _missing(module: nn.Module, given: set[str]) -> list[str]:
    """Names of the module's tensors that nothing fills; of tied ones, one is enough."""
    tied: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        tied.setdefault(id(tensor), []).append(name)
    return sorted(names[0] for names in tied.values() if not set(names) & given)


def _assign(module: nn.Module, name: str, tensor: Tensor, device: str) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf == "weight" and fill_weight(owner, tensor, device):
        return
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(tensor.to(device), requires_grad=False)
    else:
        owner._buffers[leaf] = tensor.to(device)


def _kept(stored: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return wanted if wanted is not None and stored.is_floating_point else stored


def looks_like(keys: Iterable[str]) -> str:
    """The shipped bundle whose prefixes fit these tensors best; "" where none does."""
    from anymodal.models import published_bundles

    keys, best = list(keys), ("", 0.0)
    for name, (spec, _) in published_bundles().items():
        parts = [part for m in spec.modalities.values() for part in (m.encoder, m.adapter) if part] + [spec.language]
        prefixes = [p for part in parts if part.checkpoint is None for p in part.tensors if p]
        used = {p for k in keys for p in prefixes if k.startswith(p)}
        share = sum(any(k.startswith(p) for p in prefixes) for k in keys) / max(1, len(keys))
        score = share * len(used) / max(1, len(prefixes))
        best = max(best, (name, score), key=lambda b: b[1])
    return best[0] if best[1] > 0.25 else ""
