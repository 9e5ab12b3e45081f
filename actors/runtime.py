"""A bundle's `runtime:` key: what each actor may use, how far stages may run ahead, how long anything waits.

    runtime:
      perception: {cpus: 2, gpus: 0.5, threads: 2}
      mind: {gpus: 0.5}
      clips: 8

The defaults fit a machine with one core.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anymodal.config import BundleSpec
from anymodal.errors import ConfigError, nearest
from anymodal.stages.perceive import BATCH
from anymodal.threads import usable_cores

MOST_THREADS = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceRuntime(_Strict):
    cpus: float = Field(0.2, gt=0)
    gpus: float = Field(0.0, ge=0)
    threads: int = Field(1, ge=1)


class ModelRuntime(_Strict):
    """`threads`: None takes half of the node's cores, from one to four. With a share of a GPU it computes there."""

    cpus: float = Field(0.4, gt=0)
    gpus: float = Field(0.0, ge=0)
    threads: int | None = Field(None, ge=1)
    dtype: str = "float32"

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def thread_count(self) -> int:
        """To be asked on the actor's own node."""
        return self.threads or max(1, min(MOST_THREADS, usable_cores() // 2))


class PerceptionRuntime(ModelRuntime):
    """`batch`: windows encoded together, of any clips. `batch_wait_s`: how long a window waits for company."""

    batch: int = Field(BATCH, ge=1)
    batch_wait_s: float = Field(0.005, ge=0)


class Runtime(_Strict):
    """`clips`: sessions at once. `credits`: windows of one clip between the source and the mind.

    `stall_timeout_s`: the longest wait of one actor for another. `media_timeout_s`: the longest wait for a clip's next
    window, fetching it included. `placement_timeout_s`: how long a busy cluster may take to make room.
    """

    source: SourceRuntime = SourceRuntime()
    perception: PerceptionRuntime = PerceptionRuntime()
    mind: ModelRuntime = ModelRuntime()
    clips: int = Field(4, ge=1)
    credits: int = Field(8, ge=1)
    start_timeout_s: float = Field(240.0, gt=0)
    stall_timeout_s: float = Field(120.0, gt=0)
    media_timeout_s: float = Field(900.0, gt=0)
    placement_timeout_s: float = Field(10.0, gt=0)


def read_runtime(spec: BundleSpec, **changes: Any) -> Runtime:
    """The bundle's `runtime`, with top-level `changes` that are not None. Raises ConfigError naming the key."""
    raw = {**spec.runtime, **{key: value for key, value in changes.items() if value is not None}}
    try:
        return Runtime.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("runtime", *(str(part) for part in first["loc"])))
        if first["type"] == "extra_forbidden":
            known = _model_at(first["loc"][:-1]).model_fields
            raise ConfigError(f"unknown key {key!r}", fix=nearest(str(first["loc"][-1]), known)) from error
        raise ConfigError(f"{key}: {first['msg']}, found {first['input']!r:.80}", fix=f"set {key}") from error


def _model_at(loc: tuple) -> type[BaseModel]:
    parts = {"source": SourceRuntime, "perception": PerceptionRuntime, "mind": ModelRuntime}
    return parts.get(str(loc[0]), Runtime) if loc else Runtime
