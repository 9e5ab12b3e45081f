"""A bundle's YAML, read strictly: an unknown key is an error that names the nearest known one.

Parts are named by import path (`use: "encoders.clip:ClipVision"`); every other key of a part goes to its
constructor's `Config` dataclass, which checks itself. Import paths come only from the operator's own files.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from anymodal.config_words import PointSpec, SearchSpec, check_words
from anymodal.errors import ConfigError, nearest
from anymodal.shadow import check_not_shadowed

ALLOWED_ROOTS = ("anymodal", "encoders")  # plus whatever packages the operator's own YAML lists in `trust`


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSpec(_Strict):
    """A share of a checkpoint: `tensors`, prefix there -> prefix in the part; `ignore`, patterns of keys within these
    prefixes that are none of its own; `checkpoint` and `files`, where they are not in the bundle's checkpoint."""

    tensors: dict[str, str] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    checkpoint: str | None = None
    files: tuple[str, ...] = ()


class PartSpec(SourceSpec):
    """`use` and the part's own keys.

    Of a published model: the share of the checkpoint that is the part's, and `also`, where the rest of it is when it was
    published in several. A key whose value is {from: ...} is read from the first of them: docs/models.md.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str
    also: tuple[SourceSpec, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class LevelSpec(_Strict):
    """What a level of gray16 says: value = level * scale + offset, in `unit`. Floats are turned into levels by it."""

    unit: str
    scale: float = Field(allow_inf_nan=False)
    offset: float = Field(0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _says_something(self) -> LevelSpec:
        if not self.scale:
            raise ValueError("with scale 0 all levels say the same")
        return self


class ModalitySpec(_Strict):
    rate_hz: float = Field(gt=0)
    encoder: PartSpec
    adapter: PartSpec | None  # null: the encoder makes tokens itself
    closing: bool = True  # pictures: the frame on show at a window's end is one step more
    pixels: Literal["rgb8", "gray16"] | None = None  # pictures: colour, or one 16-bit measurement; "video" is rgb8
    level: LevelSpec | None = None  # gray16: what its levels say, where floats are to be read too
    size_px: int | None = None  # pictures: frames are scaled to size_px x size_px at decode
    axes: tuple[str, ...] = ()  # sensors: the columns of a sidecar, in order
    usual: bool = True  # false: a session has none of it unless its streams are declared

    @property
    def is_picture(self) -> bool:
        """Whether its signals are frames, (T, H, W, C)."""
        return self.pixels is not None

    @model_validator(mode="after")
    def _one_kind(self) -> ModalitySpec:
        if self.pixels and self.axes:
            raise ValueError("pixels are of pictures and axes of sensors: a modality has one or the other")
        if self.level and self.pixels != "gray16":
            raise ValueError("level says what levels of gray16 mean; set pixels to gray16, or leave it out")
        return self


class CropsSpec(_Strict):
    """Around the {tokens} of each crop of a picture, by {row} and {column} from 1; behind a row; around the whole."""

    each: str
    row_end: str = ""
    whole: str

    @model_validator(mode="after")
    def _filled_in(self) -> CropsSpec:
        for key in ("each", "whole"):
            if getattr(self, key).count("{tokens}") != 1:
                raise ValueError(f"{key} must have {{tokens}} once, found {getattr(self, key)!r}")
        return self


class TemplateSpec(_Strict):
    """The text around a published model's soft tokens: `anymodal.language.layout`.

    head comes first; time, with {clock}, {seconds} or {middle} (of its frames), before each window, but not before a
    picture; tail closes the windows, before turns and the question, and begins with so many of the language part's
    learned `words`; crops are the texts of a picture that comes in some; window has for each modality the text around
    its {tokens}. question ends where the answer begins. turn is an earlier question with its {answer}, and again what
    takes the place of `question` behind turns. rule is how a standing rule's {question} is asked.
    placeholders: the token that stands for a modality's soft tokens in the published prompt. Text is then cut into
    tokens as there; without one each piece of text is cut by itself.
    stops: tokens or texts that end an answer, beside the model's own.
    """

    head: str = ""
    time: str = ""
    window: dict[str, str] = Field(default_factory=dict)
    crops: CropsSpec | None = None
    tail: str = ""
    tail_words: int = Field(0, ge=0)
    twins: tuple[str, ...] = ()  # pairs of tokens of which the second has the first one's position (M-RoPE)
    question: str
    turn: str = ""
    again: str = ""
    rule: str = "{question}"
    placeholders: dict[str, str] = Field(default_factory=dict)
    stops: tuple[str, ...] = ()
    special_tokens: bool = True  # the tokenizer's own, such as <s>, before the head
    begins: Literal["head", "question"] = "head"  # where these come: BLIP-2's line has them behind the pictures

    @model_validator(mode="after")
    def _filled_in(self) -> TemplateSpec:
        wanted = {"question": ("question",), "rule": ("question",),
                  **({"turn": ("question", "answer")} if self.turn else {}),
                  **({"again": ("question",)} if self.again else {})}
        for key, fields in wanted.items():
            for name in fields:
                if getattr(self, key).count(f"{{{name}}}") != 1:
                    raise ValueError(f"prompt.template.{key} must have {{{name}}} once, found {getattr(self, key)!r}")
        for modality, text in self.window.items():
            if text.count("{tokens}") != 1:
                raise ValueError(f"prompt.template.window.{modality} must have {{tokens}} once, found {text!r}")
        return self


class PromptSpec(_Strict):
    """How a window's tokens are laid out before the LM: time text, then each modality's soft tokens.

    Without a `template` it is as the default bundle was trained: `anymodal.language.prompt`.
    """

    order: tuple[str, ...]
    template: TemplateSpec | None = None
    max_question_tokens: int = 96
    max_answer_tokens: int = 48


LABEL_TOKENS = 10  # at most, of what announces a window: "<window> 12:34:56.5"


class MemorySpec(_Strict):
    """What the mind keeps of a stream, in tokens. The list of entries never exceeds `budget_tokens`."""

    budget_tokens: int = Field(2048, gt=0)
    compact_at: float = Field(0.85, gt=0, lt=1)  # a list fuller than this share of the budget is compacted,
    compact_to: float = Field(0.5, gt=0, lt=1)  # to this share,
    keep_recent: float = Field(0.25, ge=0, lt=1)  # with the newest windows left whole, this share of the budget
    slices: int = Field(6, ge=1)  # windows over which the compacted list is prefilled beside the one in use
    turn_tokens: int = Field(256, ge=0)  # of earlier questions and answers, in a question's own fork
    recalled_tokens: int = Field(512, ge=0)  # of windows brought back for a question, in its own fork
    past_windows: int = Field(0, ge=0, le=24)  # a question sees so many of what left the list alone; 0: beside it
    look_again: int = Field(0, ge=0)  # windows still in the list that a question names, by time or content, shown again
    rule_windows: int = Field(0, ge=0)  # standing rules see more of the last ones, at most twice as many; 0: the whole list

    @property
    def window_tokens(self) -> int:
        """The most that one window may have: while a compaction is prepared, each of its windows must still fit."""
        return int((1 - self.compact_at) * self.budget_tokens / (self.slices + 1))

    @model_validator(mode="after")
    def _fits(self) -> MemorySpec:
        after = self.compact_to * self.budget_tokens + self.slices * self.window_tokens
        if after >= self.compact_at * self.budget_tokens:
            raise ValueError(f"a list compacted to {self.compact_to} is full again {self.slices} windows later; raise "
                             "compact_at, or lower compact_to or slices")
        if self.keep_recent >= min(self.compact_to, self.compact_at - self.compact_to):
            raise ValueError(f"keep_recent {self.keep_recent} leaves nothing to merge: it must be less than compact_to "
                             "and than compact_at - compact_to")
        return self


class AskedSpec(_Strict):
    """For adapters that read the question: features of the last `keep` windows of a stream are kept, and a question sees
    `show` of these, the newest or (`spread`) evenly over them: `anymodal.asked`.

    tokenizer: the adapters' own, a folder within the checkpoint. text: the question as they read it.
    """

    tokenizer: str
    text: str = "{question}"
    keep: int = Field(16, ge=1)
    show: int = Field(8, ge=1)
    spread: bool = False

    @model_validator(mode="after")
    def _asks(self) -> AskedSpec:
        if self.show > self.keep:
            raise ValueError(f"show {self.show} windows of keep {self.keep}")
        if self.text.count("{question}") != 1:
            raise ValueError(f"text must have {{question}} once, found {self.text!r}")
        return self


class GateSpec(_Strict):
    """What counts as unchanged, for sessions that skip it: `anymodal.stages.gate`."""

    grid: int = Field(16, gt=0)  # a picture is compared as grid x grid cells,
    video_levels: float = Field(10.0, gt=0)  # whose mean may differ by so much, of 255, beside a change of all the light
    gray_share: float = Field(0.04, gt=0, lt=1)  # and of 16-bit levels by this share of the picture's own range,
    audio_db: float = Field(6.0, gt=0)  # what the level of a band may differ by,
    audio_floor_db: float = -60.0  # where it is louder than this, of full scale
    sensor_sigmas: float = Field(4.0, gt=0)  # what the mean of a sensor may differ by, of its own noise,
    sensor_ratio: float = Field(3.0, gt=1)  # and the factor by which its noise may
    refresh: int = Field(32, gt=0)  # windows with a number that this divides are always encoded


class SpeechSpec(_Strict):
    """What hears spoken questions: `asr`, a part that writes them down, and how utterances are cut for it."""

    asr: PartSpec
    threshold: float = Field(0.5, gt=0, lt=1)  # probability of speech at which an utterance begins
    silence_s: float = Field(0.6, gt=0, le=10)  # after which it has ended
    padding_s: float = Field(0.3, ge=0, le=5)  # of sound kept before it
    longest_s: float = Field(25.0, gt=0, le=30)  # an utterance is cut there

    @model_validator(mode="after")
    def _ends(self) -> SpeechSpec:
        if self.longest_s <= self.silence_s + self.padding_s:
            raise ValueError(f"longest_s {self.longest_s:g} leaves no room for speech beside silence_s and padding_s")
        return self


class CheckpointSpec(_Strict):
    """Where a published model's weights are, and what is to be known about them.

    id: of the hub, or a folder. architectures: those of a config.json (or its model_type) that this bundle runs; where
    several bundles do, the one whose `matches` (a dotted path there -> its value) holds.
    """

    id: str
    architectures: tuple[str, ...] = ()
    matches: dict[str, Any] = Field(default_factory=dict)
    files: tuple[str, ...] = ()  # of weights, as patterns; none: as transformers names them
    tokenizer: str = ""  # folder of the tokenizer within the checkpoint
    licence: str = "unknown"
    non_commercial: bool = False
    size_gb: float = Field(0.0, ge=0)
    needs: tuple[str, ...] = ()  # in words, such as a further checkpoint
    others: dict[str, str] = Field(default_factory=dict)  # further checkpoints by a name that parts give: name -> id


class LoadSpec(_Strict):
    """How a published model's part is loaded; None is as the process was told.

    device: such as cuda:1. quantize: linear layers of the language model in so many bits. lora: adapters in peft's layout,
    folders or ids, merged into the language model one after another.
    """

    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantize: Literal["8bit", "4bit"] | None = None
    lora: tuple[str, ...] = ()


LANGUAGE = "language"


class BundleSpec(_Strict):
    name: str
    load: dict[str, LoadSpec] = Field(default_factory=dict)  # by modality, and of the language model: a device map
    checkpoint: CheckpointSpec | None = None  # of a published model; then `weights` is not used
    window_s: float = Field(1.0, gt=0)
    gate: GateSpec = Field(default_factory=GateSpec)
    memory: MemorySpec = Field(default_factory=MemorySpec)
    asked: AskedSpec | None = None
    modalities: dict[str, ModalitySpec]
    language: PartSpec
    joint_text: PartSpec | None = None
    search: SearchSpec | None = None
    word_reader: PartSpec | None = None
    point: PointSpec | None = None
    speech: SpeechSpec | None = None
    prompt: PromptSpec
    weights: str | None = None  # folder, relative to the YAML
    dtype: str = "bfloat16"
    trust: tuple[str, ...] = ()
    training: dict[str, Any] = Field(default_factory=dict)
    runtime: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _loads_what_is_there(self) -> BundleSpec:
        for name, spec in self.load.items():
            if name not in (*self.modalities, LANGUAGE):
                raise ValueError(f"load names {name!r}; {nearest(name, (*self.modalities, LANGUAGE))}")
            if name != LANGUAGE and (spec.quantize or spec.lora):
                raise ValueError(f"load.{name}: quantize and lora are for the language model")
        if self.load and self.checkpoint is None:
            raise ValueError("load is for published models, which have a checkpoint")
        return self

    @field_validator("modalities", mode="after")
    @classmethod
    def _video_is_rgb8(cls, modalities: dict[str, ModalitySpec]) -> dict[str, ModalitySpec]:
        video = modalities.get("video")
        if video is None or video.pixels or video.axes:
            return modalities
        return {**modalities, "video": video.model_copy(update={"pixels": "rgb8"})}


def configs_dir() -> Path:
    """The folder of shipped bundles: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / "tiny.yaml").is_file():
            return folder
    raise ConfigError(f"no shipped configs beside {here}", fix="reinstall anymodal")


def shipped_bundles() -> dict[str, Path]:
    """Their YAMLs by name."""
    return {p.stem: p for p in sorted(configs_dir().glob("*.yaml"))}


def find_bundle(name: str | Path) -> Path:
    """A shipped bundle's name, or a path to a YAML -> the YAML's path."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"no bundle file {path}", fix="give a path to a YAML that exists")
    shipped = shipped_bundles()
    if str(name) in shipped:
        return shipped[str(name)]
    raise ConfigError(f"unknown bundle {str(name)!r}", fix=nearest(str(name), shipped))


def load_spec(name: str | Path) -> tuple[BundleSpec, Path]:
    """A shipped bundle's name, a YAML, or a published checkpoint (folder or hub id) -> the spec and its YAML's path.

    A checkpoint is run by the shipped bundle of its architecture. Raises ConfigError.
    """
    from anymodal.models import is_checkpoint, recognised

    return recognised(name) if is_checkpoint(name) else read_spec(find_bundle(name))


def read_spec(path: Path) -> tuple[BundleSpec, Path]:
    """Read and check a bundle's YAML. Raises ConfigError."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}", fix="mend the YAML") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", fix="check the file's permissions") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a bundle is a mapping, found {type(raw).__name__}", fix="see configs/tiny.yaml")
    return parse_spec(raw, where=str(path)), path


def parse_spec(raw: dict[str, Any], where: str = "bundle") -> BundleSpec:
    """Check a mapping as a bundle. Raises ConfigError naming the first wrong key and the nearest known one."""
    try:
        spec = BundleSpec.model_validate(raw)
    except ValidationError as error:
        # A misspelt required key is both missing and unknown: the unknown one tells what happened.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            model = _model_at(first["loc"][:-1])
            hint = nearest(str(first["loc"][-1]), model.model_fields)
            raise ConfigError(f"{where}: unknown key {key!r}", fix=hint) from error
        value = first.get("input")
        shown = "" if first["type"] == "missing" else f", found {value!r:.80}"
        raise ConfigError(f"{where}: {key}: {first['msg']}{shown}", fix=f"set {key}") from error
    unknown = [m for m in spec.prompt.order if m not in spec.modalities]
    if unknown:
        raise ConfigError(
            f"{where}: prompt.order names {unknown[0]!r}", fix=nearest(unknown[0], spec.modalities)
        )
    if spec.search is not None and spec.joint_text is None:
        raise ConfigError(f"{where}: `search` lists phrases, and there is no joint_text to compare them with",
                          fix="add a joint_text part, or leave search out")
    check_words(spec.search, spec.word_reader and spec.word_reader.options, spec.point, spec.checkpoint is not None, where)
    _check_window_fits(spec, where)
    return spec


def _check_window_fits(spec: BundleSpec, where: str) -> None:
    """A window with every modality must fit the memory, as far as adapters say how many tokens they make."""
    queries = [m.adapter.options.get("queries", 0) for m in spec.modalities.values() if m.adapter is not None]
    window = LABEL_TOKENS + sum(q for q in queries if isinstance(q, int))
    memory = spec.memory
    if window > memory.window_tokens:
        raise ConfigError(f"{where}: memory.budget_tokens {memory.budget_tokens} is too few: a window has up to {window} "
                          f"tokens, there is room for {memory.window_tokens}",
                          fix=f"set memory.budget_tokens to {memory.budget_tokens * window // memory.window_tokens + 99}"
                          if memory.window_tokens else "raise memory.budget_tokens")


def _model_at(loc: tuple) -> type[BaseModel]:
    model: type[BaseModel] = BundleSpec
    steps = {"modalities": ModalitySpec, "level": LevelSpec, "prompt": PromptSpec, "memory": MemorySpec, "gate": GateSpec,
             "search": SearchSpec, "speech": SpeechSpec, "asr": PartSpec, "asked": AskedSpec, "template": TemplateSpec,
             "crops": CropsSpec, "checkpoint": CheckpointSpec, "load": LoadSpec, "encoder": PartSpec,
             "adapter": PartSpec, "language": PartSpec, "joint_text": PartSpec,
             "word_reader": PartSpec, "point": PointSpec}
    for part in loc[:1] if loc[:1] == ("load",) else loc:  # the names in `load` are those of parts
        model = steps.get(str(part), model)
    return model


def resolve(use: str, trust: tuple[str, ...] = ()) -> type:
    """'package.module:Class' -> the class. Only our packages and those in `trust` may be named."""
    module_name, _, attribute = use.partition(":")
    root = module_name.split(".")[0]
    if root not in (*ALLOWED_ROOTS, *trust):
        raise ConfigError(f"part {use!r} is outside {ALLOWED_ROOTS}", fix=f"add {root!r} to the bundle's `trust`")
    if root == "encoders":
        check_not_shadowed("encoders")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != root:
            raise  # a dependency is missing: not a spelling mistake
        raise ConfigError(f"part {use!r}: no module {module_name!r}", fix="check the import path") from error
    if not hasattr(module, attribute):
        known = [n for n in vars(module) if isinstance(vars(module)[n], type)]
        raise ConfigError(f"part {use!r}: no {attribute!r} in {module_name}", fix=nearest(attribute, known))
    return getattr(module, attribute)


def build_part(spec: PartSpec, trust: tuple[str, ...] = (), **given: Any) -> Any:
    """Construct a part: `Class(Class.Config(**options), **given)`. A misspelt option names the nearest."""
    cls = resolve(spec.use, trust)
    fields = getattr(cls.Config, "__dataclass_fields__", {})
    for key in spec.options:
        if key not in fields:
            raise ConfigError(f"{spec.use}: unknown key {key!r}", fix=nearest(key, fields))
        _check_kind(spec.use, key, spec.options[key], fields[key].default)
    try:
        config = cls.Config(**spec.options)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{spec.use}: {error}", fix="check the part's keys") from error
    return cls(config, **given)


def _check_kind(use: str, key: str, value: Any, default: Any) -> None:
    """A part's number or text must be of its default's kind; YAML reads 1e-3 as text."""
    kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(type(default))
    if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise ConfigError(f"{use}: {key} is {value!r:.80}, not {kinds[-1].__name__}", fix=f"set {key}, e.g. to {default}")
