"""A bundle: the parts that a YAML names, built and filled with their weights.

    configs/tiny.yaml      the parts          configs/tiny/  tokenizer.json      calibration.json
                                                             perception.safetensors  joint_text.safetensors
                                                             language.safetensors    word_reader.safetensors

A published model's bundle has a `checkpoint` instead of such a folder: `anymodal.published` fills its parts from there.
Each process loads only the parts it hosts.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from anymodal.config import BundleSpec, build_part, load_spec
from anymodal.errors import ConfigError, WeightsError
from anymodal.language.attach import TIED, owned
from anymodal.language.layout import Layout, make_layout
from anymodal.language.mind import Calibration, Mind
from anymodal.language.tokenizer import TextTokenizer
from anymodal.language.word_reader import WordReader
from anymodal.models import weights_folder
from anymodal.perception import Perception
from anymodal.published import Published
from anymodal.stages.lanes import Lanes
from anymodal.stages.together import Together
from anymodal.threads import usable_cores

MEANING = ("window_s", "modalities", "language", "joint_text", "prompt", "dtype")  # keys that decide what tokens mean
WEIGHTS = (".json", ".safetensors", ".bin", ".pth", ".pt")
RECORDS = ("stages", "calibration", "word_reader")  # files beside the weights that do not
PIECES, PIECE = 64, 4096  # how much of a weights file its digest reads, in bytes


@dataclass(frozen=True)
class Bundle:
    """Parts are built and loaded on first use: `perception`, `mind`, `joint_text`."""

    spec: BundleSpec
    folder: Path
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @cached_property
    def published(self) -> Published | None:
        """What fills the parts of a published model."""
        return None if self.spec.checkpoint is None else Published(self.spec, self.folder, self.device, self.dtype)

    @cached_property
    def perception(self) -> Perception:
        if self.published is not None:
            return self.published.perception()
        options = self.spec.language.options
        width = options.get("width") or build_part(self.spec.language, self.spec.trust).width
        return self._fill("perception", Perception(self.spec, width))

    @cached_property
    def shared_perception(self) -> Together:
        """The same for the sessions of this process, whose windows share its batches."""
        return Together(self.perception, self.lanes)

    @cached_property
    def lanes(self) -> Lanes:
        """Where the sessions of this process compute: as many at once as there are cores for."""
        return Lanes(max(1, usable_cores() // torch.get_num_threads()))

    @cached_property
    def mind(self) -> Mind:
        if self.published is not None:
            return Mind(self.spec, self.published.language(), self.layout)
        lm = build_part(self.spec.language, self.spec.trust)
        self._fill("language", owned(lm), tied=TIED)
        return Mind(self.spec, lm, self.layout, read_calibration(self.folder), self._reader(lm.width))

    def _reader(self, width: int) -> WordReader | None:
        """Reads what tokens of that width say; None: nobody does."""
        if self.spec.word_reader is None:
            return None
        return self._fill("word_reader", build_part(self.spec.word_reader, self.spec.trust, token_width=width))

    @cached_property
    def identity(self) -> str:
        """Tells bundles apart whose tokens do not mean the same: a digest of the parts and their weights.

        Of a large file only pieces spread over it are read: other weights differ everywhere.
        """
        parts = self.spec.model_dump(mode="json", include=set(MEANING))
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        for path in sorted(self.folder.glob("*") if self.published is None else self.published.files()):
            if path.suffix not in WEIGHTS:
                continue
            if path.stem in RECORDS:
                continue
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as file:
                for at in range(0, size, max(PIECE, size // PIECES)):
                    file.seek(at)
                    digest.update(file.read(PIECE))
        return digest.hexdigest()[:16]

    @cached_property
    def joint_text(self):
        """Phrases -> unit vectors (K, E) in the joint space. Raises ConfigError for a bundle without a text tower."""
        from anymodal.training.text import TextSide

        if self.spec.joint_text is None:
            raise ConfigError(f"bundle {self.spec.name!r} has no joint_text, so nothing can be searched for",
                              fix="add a joint_text part to the YAML")
        tower = build_part(self.spec.joint_text, self.spec.trust)
        return torch.inference_mode()(TextSide(self._fill("joint_text", tower), self.tokenizer))

    @cached_property
    def layout(self) -> Layout:
        """How a prompt looks."""
        return make_layout(self.spec, self.folder)

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.layout.tokenizer

    def _fill(self, name: str, module: nn.Module, tied: tuple[str, ...] = ()) -> nn.Module:
        """Load weights into a part. Raises WeightsError naming the first tensor that does not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            raise WeightsError(f"bundle {self.spec.name!r} has no weights at {path}",
                               fix=f"anymodal train {self.spec.name}, or set `weights` to their folder")
        try:
            state = load_file(str(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: {error}", fix="the file is damaged: copy or train it again") from error
        wanted = module.state_dict()
        for key, tensor in wanted.items():
            if key in tied:
                continue
            if key not in state:
                raise WeightsError(f"{path}: no tensor {key!r} {tuple(tensor.shape)}",
                                   fix="use the weights that were trained with this YAML")
            if state[key].shape != tensor.shape:
                raise WeightsError(f"{path}: tensor {key!r} is {tuple(state[key].shape)}, the bundle's is "
                                   f"{tuple(tensor.shape)}", fix="use the weights that were trained with this YAML")
        extra = sorted(set(state) - set(wanted))
        if extra:
            raise WeightsError(f"{path}: unknown tensor {extra[0]!r}", fix="use the weights trained with this YAML")
        module.load_state_dict(state, strict=not tied)
        return module.to(self.device, self.dtype).eval().requires_grad_(False)


def load_bundle(name: str | Path, *, device: str = "cpu", dtype: str = "float32") -> Bundle:
    """A shipped bundle's name or a YAML's path -> its Bundle. Nothing heavy is loaded until a part is used.

    dtype: what the parts compute in. float32 is the default on CPU: it answers the same alone and in a batch.
    """
    spec, path = load_spec(name)
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ConfigError(f"unknown dtype {dtype!r}", fix="float32, bfloat16 or float16")
    return Bundle(spec, weights_folder(spec, path), device, kind)


def read_calibration(folder: Path) -> Calibration:
    """That of a weights' folder, as usual where there is none. Raises WeightsError for a file that is damaged."""
    path = folder / "calibration.json"
    if not path.exists():
        return Calibration()
    try:
        found = Calibration(**json.loads(path.read_text(encoding="utf-8")))
        if not all(map(math.isfinite, astuple(found))):
            raise ValueError("not finite")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}", fix="copy it again, or remove it and fit it anew "
                           "(anymodal.training.calibrate.fit_calibration)") from error
    return found
