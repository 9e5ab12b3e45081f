"""The whole recipe of a bundle: build or resume its parts, run its stages in order, write its weights.

A run's folder (`runs/NAME/`) holds checkpoints, metrics and `weights/`, in the layout of a bundle's own weights and with
`stages.json`, the stages that are done. A new run takes up the bundle's committed weights and goes on with the stages
that they have not been through; a fresh one starts from nothing. The committed weights are never written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from anymodal.config import BundleSpec, build_part, load_spec
from anymodal.errors import ConfigError, nearest
from anymodal.language.attach import TIED, AttachedLM, owned
from anymodal.language.finder import Finder
from anymodal.language.stamp import spread_numbers
from anymodal.language.tokenizer import TextTokenizer, train_tokenizer
from anymodal.perception import Perception
from anymodal.threads import keep_freed_memory
from anymodal.training.loop import StagePlan, run_stage
from anymodal.training.optim import compute_dtype
from anymodal.training.symbols import spread_words
from anymodal.training.text import TextSide, corpus

_FILES = ("tokenizer.json", "perception.safetensors", "joint_text.safetensors", "language.safetensors",
          "word_reader.safetensors", "stages.json")


class Recipe:
    """The parts of a bundle under training, and its stages."""

    def __init__(self, spec: BundleSpec, run: Path, *, start: Path | None = None, device: str = "cpu") -> None:
        self.spec, self.run, self.device = spec, run, torch.device(device)
        self.weights = weights = run / "weights"
        if not weights.is_dir():
            weights.mkdir(parents=True)
            for name in _FILES if start else ():
                if (start / name).is_file():
                    shutil.copy(start / name, weights / name)
        if not (weights / "tokenizer.json").is_file():
            train_tokenizer(corpus(), spec.language.options.get("vocab", 2048)).save(str(weights / "tokenizer.json"))
        self.tokenizer = TextTokenizer(weights / "tokenizer.json")
        torch.manual_seed(0)
        self.lm = build_part(spec.language, spec.trust)
        if not (weights / "language.safetensors").is_file():
            spread_numbers(self.lm.model.get_input_embeddings().weight, self.tokenizer)
        self.perception = Perception(spec, self.lm.width)
        self.text = TextSide(build_part(spec.joint_text, spec.trust), self.tokenizer)
        words = spec.word_reader
        self.reader = None if words is None else build_part(words, spec.trust, token_width=self.lm.width)
        self._reader_trained = False
        for part in filter(None, (self.lm, self.perception, self.text, self.reader)):
            part.to(self.device, compute_dtype(self.device))
            _keep_buffers_float(part)
        for module in self.perception.modules():
            if hasattr(module, "set_attn_implementation"):
                module.set_attn_implementation("eager")  # its backward over short sequences is twice as fast on CPU

    def parts(self) -> dict[str, nn.Module]:
        parts = {"perception": self.perception, "joint_text": self.text.tower, "language": owned(self.lm)}
        return parts if self.reader is None else {**parts, "word_reader": self.reader}

    @property
    def trained_reader(self) -> bool:
        """Only then there are weights of it, and it is asked what tokens say."""
        return self._reader_trained or (self.weights / "word_reader.safetensors").is_file()

    @property
    def finder(self) -> Finder | None:
        """What finds the windows that a question is shown again; None before the word reader was trained."""
        shows = self.trained_reader and self.spec.memory.look_again and not isinstance(self.lm, AttachedLM)
        return Finder(self.spec.search, self.tokenizer, self.reader.eval(), self.spec.point) if shows else None

    def load(self) -> None:
        """Take up the weights of the run, where there are any."""
        from safetensors.torch import load_file

        for name, module in self.parts().items():
            path = self.weights / f"{name}.safetensors"
            if path.is_file():
                module.load_state_dict(load_file(str(path)), strict=False)

    def save(self) -> None:
        """Write every part's weights in bf16."""
        from safetensors.torch import save_file

        for name, module in self.parts().items():
            if name == "word_reader" and not self.trained_reader:
                continue
            state = {k: v.detach().to("cpu", torch.bfloat16).contiguous().clone() for k, v in module.state_dict().items()
                     if not (name == "language" and k in TIED)}
            save_file(state, str(self.weights / f"{name}.safetensors"), metadata={"format": "pt"})

    def stage(self, plan: StagePlan):
        kind = plan.name.split("-")[0]
        options = dict(plan.options or {})
        for part in self.parts().values():  # what a stage before left as it was may be learned now
            part.requires_grad_(True)
        if (first := options.pop("numbers", None)) is not None:  # which were not met yet
            spread_numbers(self.lm.model.get_input_embeddings().weight, self.tokenizer, first)
        if words := options.pop("spread", ()):  # likewise
            spread_words(self.lm.model.get_input_embeddings().weight, self.tokenizer, words)
        if kind == "frames":
            from anymodal.training.frames import FrameStage

            return FrameStage(self.perception.encoders["video"], self.text, **options)
        if kind == "windows":
            from anymodal.training.windows import WindowStage

            return WindowStage(self.perception, self.text, self.lm, self.tokenizer, **options)
        if kind == "symbols":
            if isinstance(self.lm, AttachedLM):
                raise ConfigError(f"training: stage {plan.name!r} is of tokens among the text, and here they stand "
                                  "beside it", fix="leave the stage out")
            from anymodal.training.symbols import SymbolStage

            return SymbolStage(self.lm, self.tokenizer, look_again=self.spec.memory.look_again, **options)
        if kind == "fields":
            from anymodal.training.fields import FieldStage

            return FieldStage(self.perception, self.lm, self.tokenizer, self.text, **options)
        if kind == "sounds":
            from anymodal.training.sounds import SoundStage

            return SoundStage(self.perception, **options)
        if kind == "words":
            from anymodal.training.language import WordStage

            return WordStage(self.perception, self.lm, self.tokenizer, **options)
        if kind == "language":
            from anymodal.training.language import LanguageStage

            return LanguageStage(self.perception, self.lm, self.tokenizer, finder=self.finder, **options)
        if kind == "reader":
            from anymodal.training.reading import ReaderStage

            if self.reader is None:
                raise ConfigError(f"training: stage {plan.name!r} trains a word reader, and the bundle has none",
                                  fix="add a word_reader part, or leave the stage out")
            return ReaderStage(self.perception, self.lm, self.reader, self.tokenizer, **options)
        known = ("frames", "windows", "fields", "sounds", "words", "symbols", "language", "reader")
        raise ConfigError(f"training: unknown stage {plan.name!r}", fix=nearest(kind, known))

    def train(self, *, only: tuple[str, ...] = (), workers: int = 1, report: Callable[[dict], None] | None = None) -> None:
        """Run the stages in order, skipping those already done; weights are written after each."""
        state = self.weights / "stages.json"
        done = json.loads(state.read_text()) if state.is_file() else []
        for plan in plans(self.spec):
            if (only and plan.name not in only) or plan.name in done:
                continue
            self.load()
            stage = self.stage(plan)
            before = {name: p.detach().float().clone() for name, p in stage.trainable()} if plan.average else {}
            run_stage(stage, plan, self.run, workers=workers, report=report)
            with torch.no_grad():
                for name, parameter in stage.trainable() if before else ():
                    parameter.copy_(torch.lerp(parameter.float(), before[name], plan.average))
            self._reader_trained = self._reader_trained or plan.name.split("-")[0] == "reader"
            self.save()
            done.append(plan.name)
            state.write_text(json.dumps(done))


def plans(spec: BundleSpec) -> list[StagePlan]:
    """The `training.stages` of a bundle."""
    try:
        return [StagePlan(**row) for row in spec.training.get("stages", [])]
    except TypeError as error:
        keys = ", ".join(StagePlan.__dataclass_fields__)
        raise ConfigError(f"training.stages: {error}", fix=f"keys: {keys}") from error


def open_recipe(bundle: str, run: Path | None = None, device: str = "cpu", fresh: bool = False) -> Recipe:
    """The recipe of a bundle. `fresh`: start from nothing instead of the bundle's committed weights."""
    keep_freed_memory()
    spec, path = load_spec(bundle)
    start = None if fresh else path.parent / (spec.weights or spec.name)
    recipe = Recipe(spec, run or Path("runs") / spec.name, start=start, device=device)
    recipe.load()
    return recipe


def _keep_buffers_float(module: nn.Module) -> None:
    for buffer in module.buffers():
        if buffer.dtype == torch.bfloat16:
            buffer.data = buffer.data.float()
