"""Adapters that read the question, such as InstructBLIP's Q-Former: features are kept, and pooled once it is asked.

    window ----encoder----> features, kept under a name ---\\
    question --------------------------------------------- pool --> tokens, in the question's own fork

Perception keeps the features of the newest windows; only their names go on, in `Tokens.features`. A window of such a sense
has no tokens in the memory: a question sees `show` of the last `keep` windows, and nothing before them. Names are not
logged: after a restart questions wait for new windows.
Shapes: T steps, P features a step, D feature width, N tokens, W LM width.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from anymodal.config import AskedSpec, BundleSpec
from anymodal.errors import ConfigError, QuestionError
from anymodal.language.tokenizer import clock

if TYPE_CHECKING:
    from torch import Tensor, nn

    from anymodal.language.tokenizer import PublishedTokenizer
    from anymodal.stages.items import Percept

STREAMS = 16  # of which perception keeps the windows; those of others are let go, longest kept first


class Kept:
    """Features by name, the newest `most` of them. For several threads."""

    def __init__(self, most: int) -> None:
        self._most, self._found = most, OrderedDict[str, tuple[str, "Tensor", "Tensor"]]()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def put(self, sense: str, features: Tensor, valid: Tensor) -> str:
        """Keep a window's features (T, P, D) and which of its steps are real (T,); returns their name."""
        name = uuid.uuid4().hex
        with self._lock:
            self._found[name] = sense, features.clone(), valid.clone()  # not the batch that they are part of
            while len(self._found) > self._most:
                self._found.popitem(last=False)
        return name

    def get(self, name: str) -> tuple[str, Tensor, Tensor] | None:
        """None: they are not kept any more."""
        with self._lock:
            return self._found.get(name)


@dataclass
class Instructions:
    """The question as the adapters read it: the bundle's text around it, in their own tokenizer."""

    spec: AskedSpec
    tokenizer: PublishedTokenizer
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.kept = Kept(self.spec.keep * STREAMS)

    def ids(self, question: str, most: int) -> Tensor:
        """(1, L), at most so many."""
        import torch

        text = self.spec.text.replace("{question}", self.tokenizer.plain(question))
        return torch.tensor([self.tokenizer.model(text).input_ids[:most]])


def pool(instructions: Instructions, adapters: nn.ModuleDict, question: str, percepts: Sequence[Percept]) -> list[Percept]:
    """The windows whose features are still kept, with tokens for this question; all of one sense in one batch."""
    import torch

    from anymodal.adapters.attention import spread

    found: dict[str, list[tuple[str, Tensor, Tensor]]] = {}
    for tokens in (t for p in percepts for t in p.tokens if t.features):
        if (kept := instructions.kept.get(tokens.features)) is not None:
            found.setdefault(kept[0], []).append((tokens.features, *kept[1:]))
    made = {}
    for sense, rows in found.items():
        adapter = adapters[sense]
        features, valid = torch.stack([f for _, f, _ in rows]), torch.stack([v for _, _, v in rows])
        ids = instructions.ids(question, adapter.config.max_text).to(features.device)
        embeds = adapter.project(adapter(features, valid, ids))
        real = spread(valid, embeds.shape[1]) if adapter.per_step else torch.ones(embeds.shape[:2], dtype=torch.bool)
        made |= {name: e[r].float().cpu().numpy() for (name, _, _), e, r in zip(rows, embeds, real, strict=True)}
    whole = [p for p in percepts if all(t.features in made for t in p.tokens if t.features)]
    return [replace(p, tokens=tuple(replace(t, embeds=made[t.features]) if t.features else t for t in p.tokens))
            for p in whole]


class Pools(Protocol):
    """Perception, here or in another process."""

    spec: BundleSpec

    def pool(self, question: str, percepts: Sequence[Percept]) -> list[Percept]: ...


class Recent:
    """The windows of a session whose features a question may ask for."""

    def __init__(self, spec: BundleSpec) -> None:
        self.spec = spec
        self._percepts: deque[Percept] = deque(maxlen=spec.asked.keep if spec.asked else 0)

    def note(self, percepts: Sequence[Percept]) -> None:
        """See windows, in order."""
        self._percepts.extend(p for p in percepts if any(t.features for t in p.tokens))

    def choose(self, last: int | None = None) -> list[Percept]:
        """Up to window `last`: the newest, or as many spread evenly over those that are kept. Newest first."""
        asked = self.spec.asked
        found = [p for p in tuple(self._percepts) if last is None or p.index <= last] if asked else []
        if not asked or len(found) <= asked.show:
            return found[::-1]
        if not asked.spread:
            return found[: -asked.show - 1 : -1]
        return [found[int((i + 0.5) * len(found) / asked.show)] for i in reversed(range(asked.show))]


def pooled(perception: Pools, question: str, chosen: Sequence[Percept], *, seen: bool) -> list[Percept]:
    """The chosen windows for a question, to be looked at in its fork. seen: have there been windows?

    Raises QuestionError where there were, and none are kept; ConfigError where their tokens do not fit
    `memory.recalled_tokens`.
    """
    spec = perception.spec
    if spec.asked is None or not seen:
        return []
    found = perception.pool(question, chosen) if chosen else []
    if not found:
        upto = f" up to {clock(chosen[0].t1_s)}" if chosen else ""
        raise QuestionError(f"{spec.name} pools pictures by the question, and of the windows{upto} that this one may see "
                            "none are kept any more", fix=f"ask about the last {spec.asked.keep * spec.window_s:g} s of "
                            "what is being watched, or feed it again")
    tokens = sum(len(t.embeds) for p in found for t in p.tokens)
    if tokens > spec.memory.recalled_tokens:
        raise ConfigError(f"asked.show {spec.asked.show} windows have {tokens} tokens, memory.recalled_tokens is "
                          f"{spec.memory.recalled_tokens}", fix=f"set memory.recalled_tokens to {tokens}")
    return found
