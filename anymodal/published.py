"""The parts of a published model, built by its own config.json and filled with its own tensors: docs/models.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anymodal.asked import Instructions
from anymodal.checkpoint import Checkpoint, Report, unfilled
from anymodal.config import LANGUAGE, BundleSpec, LoadSpec, PartSpec, SourceSpec, build_part
from anymodal.errors import ConfigError, WeightsError
from anymodal.language.merged import Merged
from anymodal.language.quantized import check_quantize, quantize_layers
from anymodal.language.tokenizer import PublishedTokenizer
from anymodal.models import locate, other_folder
from anymodal.perception import Perception

FROM, ELSE = "from", "else"


class Published:
    """Parts of a bundle with a `checkpoint`, whose folder is `folder`. `reports`: what each part read of it.

    Raises WeightsError for a checkpoint that does not fit, ConfigError for a bundle that cannot be built.
    """

    def __init__(self, spec: BundleSpec, folder: Path, device: str, dtype: torch.dtype) -> None:
        self.spec, self.folder, self.device, self.dtype = spec, folder, device, dtype
        self.reports: dict[str, Report] = {}
        self._checkpoints: dict[tuple[Path, tuple[str, ...]], Checkpoint] = {}

    @cached_property
    def main(self) -> Checkpoint:
        return self._open(self.folder, self.spec.checkpoint.files)

    def perception(self) -> Perception:
        """Encoders and adapters. The language model's tensors are not read, only its width."""
        senses = {name: m.model_copy(update={"encoder": self.resolved(m.encoder),
                                             "adapter": m.adapter and self.resolved(m.adapter)})
                  for name, m in self.spec.modalities.items()}
        with unfilled():
            made = Perception(self.spec.model_copy(update={"modalities": senses}), self._lm_width())
        for name in senses:
            self._fill(made.encoders[name], senses[name].encoder, f"{name} encoder", name)
            if name in made.adapters:
                self._fill(made.adapters[name], senses[name].adapter, f"{name} adapter", name)
        if self.spec.asked is not None:
            made.instructions = Instructions(self.spec.asked, PublishedTokenizer(self.folder / self.spec.asked.tokenizer))
        return made.eval()

    def language(self) -> nn.Module:
        """The language model. The encoders' tensors are not read."""
        part = self.resolved(self.spec.language)
        load, device, dtype = self._load(LANGUAGE)
        with unfilled():
            made = build_part(part, self.spec.trust)
        if load.quantize is not None:
            quantize_layers(made.model, load.quantize, dtype, check_quantize(load.quantize, device))
        names = list(made.state_dict())
        adapters = [Merged(locate(folder, self.folder), names, part.tensors) for folder in load.lora]
        self._fill(made, part, "language model", LANGUAGE, adapters)
        return made.to(device).eval()

    def _load(self, name: str) -> tuple[LoadSpec, str, torch.dtype]:
        """How a modality's part or the language model is loaded; its device and dtype."""
        from anymodal.agent import check_device

        load = self.spec.load.get(name, LoadSpec())
        check_device(load.device or self.device)
        dtype = self.dtype if load.dtype is None else getattr(torch, load.dtype)
        return load, load.device or self.device, dtype

    def files(self) -> list[Path]:
        """What the identity of these weights is read from."""
        parts = [p for m in self.spec.modalities.values() for p in (m.encoder, m.adapter) if p] + [self.spec.language]
        folders = {self._folder(source) for p in parts for source in (p, *p.also)}
        return sorted(f for folder in folders for f in folder.iterdir() if f.is_file())

    def resolved(self, part: PartSpec) -> PartSpec:
        """The part with every {from: ...} replaced by what the checkpoint says."""
        checkpoint = self.checkpoint(part)
        options = {k: resolve_value(v, checkpoint, f"{part.use} {k}") for k, v in part.options.items()}
        own = {k: getattr(part, k) for k in PartSpec.model_fields}
        return PartSpec(**own, **options)

    def checkpoint(self, part: SourceSpec) -> Checkpoint:
        """Where a part's config and tensors are."""
        if part.checkpoint is None and not part.files:
            return self.main
        return self._open(self._folder(part), part.files or (() if part.checkpoint else self.spec.checkpoint.files))

    def _folder(self, part: SourceSpec) -> Path:
        return self.folder if part.checkpoint is None else other_folder(self.spec, part.checkpoint, self.folder)

    def _open(self, folder: Path, files: tuple[str, ...]) -> Checkpoint:
        key = (folder, tuple(files))
        return self._checkpoints.setdefault(key, Checkpoint(folder, files))

    def _lm_width(self) -> int:
        """Of the language model, as its config says it: it is not built here."""
        from anymodal.config import resolve

        part = self.resolved(self.spec.language)
        return resolve(part.use, self.spec.trust).width_of(part.options)

    def _fill(self, module: nn.Module, part: PartSpec, what: str, load: str, change: Sequence[Merged] = ()) -> None:
        _, device, dtype = self._load(load)
        for owner in module.modules():  # parameters have no memory yet
            for name, buffer in owner._buffers.items():
                owner._buffers[name] = None if buffer is None else buffer.to(device)
        wanted = module.state_dict()
        if not wanted:
            return
        if not part.tensors:
            raise ConfigError(f"the {what} of bundle {self.spec.name!r} has {len(wanted)} tensors and no `tensors`",
                              fix="say which prefix of the checkpoint is the part's: docs/models.md")
        self.reports[what] = Report()
        for source in (part, *part.also):
            self.reports[what] += self.checkpoint(source).fill(
                module, source.tensors, ignore=source.ignore, renames=getattr(module, "renames", ()), device=device,
                dtype=dtype, what=what, partly=bool(part.also), change=change)
        left = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
        if left:
            raise WeightsError(f"{self.folder}: nothing was read for the {what}'s {left[0]!r}",
                               fix="mend the part's `tensors`")


def resolve_value(value: Any, checkpoint: Checkpoint, where: str) -> Any:
    """{from: key, ...} -> what the checkpoint's config.json has there, through the other keys if it is one of them.

    `from` may be a list, of which the first that is there counts, and name another file: `preprocessor_config.json`,
    `processor_config.json#image_processor`. `else` is taken where there is none. Raises ConfigError where that lacks.
    """
    if isinstance(value, Mapping) and FROM in value:
        places = [value[FROM]] if isinstance(value[FROM], str) else list(value[FROM])
        found = next((v for p in places if (v := checkpoint.value(p)) is not None), value.get(ELSE))
        if found is None and ELSE not in value:
            raise ConfigError(f"{where}: {checkpoint.folder} has no {' or '.join(places)}",
                              fix="copy the checkpoint's files whole, or give the key a value in the YAML")
        named = {k: v for k, v in value.items() if k not in (FROM, ELSE)}
        if not named or isinstance(found, Mapping | list):
            return found
        if found not in named:
            raise ConfigError(f"{where}: {found!r} of {places[0]} is none of {', '.join(map(str, named))}",
                              fix="use a bundle made for this checkpoint")
        return named[found]
    if isinstance(value, Mapping):
        return {k: resolve_value(v, checkpoint, where) for k, v in value.items()}
    return [resolve_value(v, checkpoint, where) for v in value] if isinstance(value, list) else value
