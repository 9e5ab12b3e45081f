"""How likely the answer is yes: what standing rules ask about now, all of them in one pass.

What the newest window's tokens tell by themselves (`witness`) is not put to the language model.

With `memory.rule_windows` they see the last windows alone, as a stream that has just begun: of hours of memory a small
language model tells worse what is now, and every rule pays for all of it. That stream begins anew after every so many
windows, with as many before it, so that most windows are only appended. Without, rules fork the memory's keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from anymodal.language.forks import CHUNK, Trunk
from anymodal.language.tree import Tree
from anymodal.language.witness import Witness
from anymodal.memory import Span, since, widened
from anymodal.types import Evidence

if TYPE_CHECKING:
    from anymodal.language.mind import Mind, MindState

MOST_TREES = 16  # of packed prompts that are kept
SURE = 0.5  # a judgement from here on comes with its evidence


@dataclass(frozen=True, slots=True)
class Judgement:
    """`yes`: probability that the answer is yes rather than no. Evidence only where it was asked for and is likely."""

    yes: float
    evidence: tuple[Evidence, ...] = ()


@dataclass(slots=True)
class Near:
    """What rules see of a session at a window. `begin_s`: when its clock begins on the session's."""

    window: int
    trunk: Trunk
    entries: list[Span]
    begin_s: float


class Judge:
    """Puts conditions to one mind, or to the witness where that knows."""

    def __init__(self, mind: Mind) -> None:
        self._mind, self._trees, self._witness = mind, {}, Witness.of(mind.spec.search, mind.finder)
        self._condition, self._spelt = lru_cache(maxsize=4096)(self._read), lru_cache(maxsize=4096)(mind.spelt)

    @torch.inference_mode()
    def __call__(self, state: MindState, prompts: Sequence[str], evidence: bool) -> list[Judgement]:
        if not prompts:
            return []
        prompts = [self._spelt(prompt) for prompt in prompts]
        told = self._told(state, prompts, evidence)
        asked = iter(self._ask(state, [p for p, known in zip(prompts, told, strict=True) if known is None], evidence))
        return [next(asked) if known is None else known for known in told]

    def _told(self, state: MindState, prompts: Sequence[str], evidence: bool) -> list[Judgement | None]:
        """What the newest window's tokens tell by themselves; None: the language model has to be asked."""
        witness, memory, window_s = self._witness, state.memory, self._mind.spec.window_s
        if witness is None or not memory.entries:
            return [None] * len(prompts)
        readings, newest = [witness.reading(prompt) for prompt in prompts], memory.entries[-1]
        parts = [p for p in newest.parts for _ in p.embeds]
        said = np.zeros((0, 0))
        if parts and any(readings):
            latest = [e for e in memory.entries[-1 - self._mind.finder.reach :] if e.whole and e.parts]
            said = self._mind.finder.spans(latest)[-1] if latest and latest[-1] is newest else said
        found: list[Judgement | None] = []
        for reading in readings:
            if reading is None:
                found.append(None)
                continue
            yes, token = witness.chance(reading, said)
            spans = ()
            if evidence and yes >= SURE:
                spans = (Evidence(newest.t1_s - window_s, newest.t1_s, parts[token].modality),)
            found.append(Judgement(yes, spans))
        return found

    def _ask(self, state: MindState, prompts: Sequence[str], evidence: bool) -> list[Judgement]:
        if not prompts:
            return []
        near, mind = self._near(state), self._mind
        forks = near.trunk.packed(self._tree(tuple(prompts)))
        yes, no = (forks.logits[:, list(ids)].float().logsumexp(-1) for ids in (mind.layout.yes, mind.layout.no))
        chances = torch.sigmoid(yes - no).tolist()
        found: dict[int, tuple[Evidence, ...]] = {}
        likely = [i for i, p in enumerate(chances) if p >= SURE]
        if evidence and likely and mind.layout.spans:
            forks.keep(likely)
            readers = mind.greedy(forks, begin=[mind.layout.yes[0]] * len(likely))
            found = {i: tuple(replace(e, start_s=e.start_s + near.begin_s, end_s=e.end_s + near.begin_s)
                              for e in widened(r.evidence(), near.entries, mind.spec.window_s))
                     for i, r in zip(likely, readers, strict=True)}
        return [Judgement(p, found.get(i, ())) for i, p in enumerate(chances)]

    def _near(self, state: MindState) -> Near:
        memory, most, mind, near = state.memory, self._mind.spec.memory.rule_windows, self._mind, state.near
        last = memory.last_window
        if not most:
            return Near(last, state.trunk, memory.entries, 0.0)
        if near is None or near.window != last:
            entries, begin_s = since(memory.entries, (last // most - 1) * most, mind.spec.window_s)
            goes_on = near is not None and near.begin_s == begin_s and near.window < last
            trunk = near.trunk if goes_on or near is not None and near.trunk.clear() else mind.trunk(CHUNK)
            trunk.extend(mind.laid_out(entries, trunk.length))
            state.near = Near(last, trunk, entries, begin_s)
        return state.near

    def _tree(self, prompts: tuple[str, ...]) -> Tree:
        """The prompts' ids, packed. Standing rules ask the same ones at every window."""
        if (tree := self._trees.pop(prompts, None)) is None:
            tree = Tree.of([self._condition(p) for p in prompts], self._mind.device, self._mind.layout.twins)
        self._trees[prompts] = tree
        while len(self._trees) > MOST_TREES:
            self._trees.pop(next(iter(self._trees)), None)
        return tree

    def _read(self, prompt: str) -> list[int]:
        self._mind.check(prompt)
        return self._mind.layout.condition(prompt)
