"""The mind: a session's windows in, answers out. It keeps the keys and values of what the memory holds, and forks them.

    state = mind.open()                            or rebuilt from a log: mind.open(compaction, windows)
    compaction = mind.extend(state, percept)       a window is seen; what to log, if the memory was compacted
    for piece in mind.answer(state, question): ...
    mind.judge(state, ["is a bell ringing?", ...])

Asking never changes the state. Between compactions windows are only appended to the cache (the trunk); a compacted
list is prefilled beside it, a slice with every window or with those that come together, and takes its place at a window
that the memory names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.config import BundleSpec
from anymodal.errors import ConfigError, QuestionError
from anymodal.language.asker import Asker
from anymodal.language.attach import AttachedLM, Medium
from anymodal.language.capability import Capability
from anymodal.language.finder import Finder
from anymodal.language.forks import CHUNK, Forks, Trunk
from anymodal.language.judging import Judge, Judgement, Near
from anymodal.language.layout import Layout, Piece, Reader
from anymodal.language.plain import PlainTrunk
from anymodal.language.rows import Places, Rows, lay
from anymodal.language.tokenizer import TextTokenizer, clock
from anymodal.language.word_reader import WordReader
from anymodal.memory import Compaction, Memory, Part, Span, widened
from anymodal.session.log import Turn
from anymodal.stages.items import Percept
from anymodal.types import Answer, Delta


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling of an answer's log-probability: p = sigmoid(scale * logprob + offset). `outside`: what is added to the
    log-odds that a question is of another world."""

    scale: float = 1.0
    offset: float = 3.0
    outside: float = 0.0

    def __call__(self, logprob: float) -> float:
        return 1 / (1 + math.exp(-(self.scale * logprob + self.offset)))


@dataclass(slots=True)
class MindState:
    """What the mind knows of one session. `made`: compactions that rebuilding brought about; log those not logged."""

    memory: Memory
    trunk: Trunk
    beside: Trunk | None = None  # the list that will follow, prefilled as far as it is due
    spare: Trunk | None = None  # that of the list before, whose room the next one takes: memory stays as it is for hours
    made: list[Compaction] = field(default_factory=list)
    near: Near | None = None  # of the newest window that rules were put to

    @property
    def exact_from_s(self) -> float:
        """The earliest `at_s` that this state answers: before it, open another one from the log."""
        return self.memory.in_effect_s


def familiar(parts: Sequence[tuple[float, int]]) -> float:
    """The mean familiarity of the third of the windows that look least familiar, of (sum, windows) each: between strange
    sounds it is silent, and silence always looks the same."""
    left = most = math.ceil(sum(n for _, n in parts) / 3)
    total = 0.0
    for mean, windows in sorted((f / n, n) for f, n in parts):
        total += mean * min(left, windows)
        left -= min(left, windows)
    return total / most


class Mind:
    """Answers questions over the windows of a session. Raises ConfigError where the language model cannot hold one."""

    def __init__(self, spec: BundleSpec, lm: nn.Module, layout: Layout, calibration: Calibration | None = None,
                 reader: WordReader | None = None) -> None:
        """calibration: of its confidence; None: that is the geometric mean of its tokens' probabilities."""
        self.spec, self.lm, self.layout, self.calibration = spec, lm, layout, calibration
        self.model = lm.model
        self._embed = self.model.get_input_embeddings()
        self.capability = getattr(lm, "capability", None) or Capability.of(self.model)
        self.beside = isinstance(lm, AttachedLM)  # soft tokens reach the language model beside its text
        memory, prompt = spec.memory, spec.prompt
        self.finder = None if reader is None or self.beside else Finder(spec.search, layout.tokenizer, reader, spec.point)
        self.spelt: Callable[[str], str] = str if self.finder is None else self.finder.spelt
        self._ask, self._judge = Asker(self), Judge(self)
        self.capability.check(
            memory.budget_tokens + memory.turn_tokens + memory.recalled_tokens + prompt.max_question_tokens
            + len(layout.question("")) + prompt.max_answer_tokens,
            "the memory, earlier turns, recalled windows, a question and its answer")
        if self.beside and not layout.text_tokens(Span(0, 0, 0.0, 1.0, tuple(
                Part(m, m, np.zeros((1, 1), np.float32), 1, 1.0) for m in spec.prompt.order))):
            raise ConfigError("a window has no text, and its media stand beside the text: nothing tells where it is",
                              fix="give the windows a time, or text around their tokens, in prompt.template")

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.layout.tokenizer

    @property
    def device(self) -> torch.device:
        return self._embed.weight.device

    # --- watching ----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def open(self, compaction: Compaction | None = None, windows: Iterable[Percept] = ()) -> MindState:
        """A session that has seen nothing, or one rebuilt from its log.

        compaction: the newest in effect at the time wanted; windows: those after its `after_window` (all, without one)
        up to that time. Raises ValueError when they end before the compaction is in effect.
        """
        memory = Memory(self.spec.memory, self.layout.text_tokens, self.spec.prompt.order, len(self.layout.head),
                        self.beside)
        if compaction is not None:
            memory.restore(compaction)
        made = [c for percept in windows if (c := memory.append(percept)) is not None]
        if compaction is not None and memory.last_window < compaction.effective_from:
            raise ValueError(f"the compaction is in effect from window {compaction.effective_from} on, the windows end "
                             f"at {memory.last_window}")
        trunk = self.trunk()
        trunk.extend(self.laid_out(memory.entries))
        state = MindState(memory, trunk, made=made)
        self._prepare(state)
        return state

    def extend(self, state: MindState, percept: Percept) -> Compaction | None:
        """See the next window. A compaction that is returned is to be logged before the next one.

        Raises ConfigError for a window that the memory has no room for; the state is as it was.
        """
        return next(iter(self.extend_all(state, [percept])), None)

    @torch.inference_mode()
    def extend_all(self, state: MindState, percepts: Sequence[Percept]) -> list[Compaction]:
        """See windows, prefilled together up to where another list comes into effect; gives the compactions."""
        memory, made = state.memory, []
        try:
            for percept in percepts:
                in_use = memory.entries
                compaction = memory.append(percept)
                if memory.entries is not in_use:  # another list came into effect: what is left of it is prefilled now
                    state.spare, state.trunk, state.beside = state.trunk, state.beside, None
                if state.beside is None or percept is percepts[-1]:
                    self._prepare(state)
                made += [] if compaction is None else [compaction]
        finally:
            if state.trunk.length < memory.tokens:
                state.trunk.extend(self.laid_out(memory.entries, state.trunk.length))
        if self.finder is not None:
            self.finder.spans([e for e in memory.entries if e.whole and e.parts])  # for the questions to come
        return made

    def _prepare(self, state: MindState) -> None:
        """Prefill of the list that will follow what is due by now."""
        memory, pending = state.memory, state.memory.pending
        if pending is None:
            return
        if state.beside is None:
            spare, state.spare = state.spare, None
            state.beside = spare if spare is not None and spare.clear() else self.trunk()
        due = memory.upcoming_tokens * (memory.last_window - pending.window) // self.spec.memory.slices
        if due > (done := state.beside.length):
            state.beside.extend(self.laid_out(memory.upcoming, done)[: due - done])

    def trunk(self, room: int = 0) -> Trunk | PlainTrunk:
        room, make = room or self.spec.memory.budget_tokens, getattr(self.lm, "trunk", None)
        return Trunk(self.model, room) if make is None else make(room)

    def size(self, entry: Span) -> int:
        """Tokens that an entry has in the trunk."""
        return self.layout.text_tokens(entry) + (0 if self.beside else entry.soft_tokens)

    # --- asking ------------------------------------------------------------------------------------------------------

    def check(self, question: str) -> None:
        """Raise QuestionError for a question that cannot be asked."""
        self.layout.check(question)

    @torch.inference_mode()
    def answer(self, state: MindState, question: str, *, at_s: float | None = None, turns: Sequence[Turn] = (),
               recalled: Sequence[Percept] = (), past: Sequence[Percept] = (), beside: Sequence[Percept] = (),
               cancelled: Callable[[], bool] = lambda: False) -> Iterator[Delta | Answer]:
        """Stream an answer's text as Deltas, then the whole Answer; once `cancelled()` holds, nothing more.

        at_s: as of then, from the windows that had ended. turns: earlier ones, oldest first; the latest that fit
        `memory.turn_tokens` are read. recalled: windows to look at again, most wanted first; as many as fit
        `memory.recalled_tokens`. past: windows to answer from instead of the memory, in order of time, of what
        a question names at most `memory.past_windows`, without earlier turns; the text then comes in one Delta, behind
        empty ones. beside: windows near those, with which they are read. Raises QuestionError, also for an `at_s` before
        `state.exact_from_s`.
        """
        began = time.perf_counter()
        self.check(question)
        seen, length = self._seen(state.memory, at_s)
        trunk = state.trunk  # another one may take its place while the answer is read
        asks, then = question, self._ask.past(question, past, seen, beside) if past else None
        if then is not None:
            asks, seen, trunk = then.asked(question), then.entries, self.trunk(CHUNK)
            trunk.extend(self.laid_out(seen))
            length = trunk.length
        asked = self._ask(asks, seen, trunk.free(length), [] if then else self._ask.turns(turns), recalled,
                          then.said if then else ())
        forks = trunk.fork([asked.rows], length=length, room=self.spec.prompt.max_answer_tokens)
        reader = self.layout.reader()
        logprob, count, ttft_s = 0.0, 0, 0.0
        for _ in range(self.spec.prompt.max_answer_tokens):
            if cancelled():
                return
            scores = asked.weigh(torch.log_softmax(forks.logits[0].float(), -1))
            token = int(scores.argmax())
            if reader.in_text:
                logprob, count = logprob + float(scores[token]), count + 1
            if token in self.layout.stops:
                break
            text = reader.push(token)
            if then is not None:
                yield Delta("")  # its times are known at its end
            elif text:
                ttft_s = ttft_s or time.perf_counter() - began
                yield Delta(text)
            if reader.done:
                break
            asked.say(token)
            if self._ask.looks(asked, reader):
                forks = trunk.fork([asked.rows], length=length, room=self.spec.prompt.max_answer_tokens)
            else:
                forks.step(torch.tensor([token], device=self.device))
        text = reader.text
        evidence = asked.relied or widened(reader.evidence(), seen, self.spec.window_s, recalled)
        rest = reader.finish()
        if then is not None:
            rest = text = then.text(text)
            evidence = tuple(then.evidence(evidence))
        if rest:
            ttft_s = ttft_s or time.perf_counter() - began
            yield Delta(rest)
        yield Answer(
            question=question, text=text, confidence=self._confidence(logprob, count, seen), evidence=evidence,
            frames_seen=sum(e.frames for e in seen), frames_dropped=sum(e.dropped for e in seen),
            windows_seen=sum(e.windows for e in seen), ttft_s=ttft_s or time.perf_counter() - began,
            windows=tuple(round(t_s / self.spec.window_s) for t_s in then.begins_s) if then else ())

    def judge(self, state: MindState, prompts: Sequence[str], *, evidence: bool = False) -> list[Judgement]:
        """How likely yes answers each question about now, all of them in one pass over what rules see. `evidence`: read it,
        too, where yes is likely. Raises QuestionError.
        """
        return self._judge(state, prompts, evidence)

    def fork(self, state: MindState, suffixes: Sequence[Sequence[int]], *, room: int | None = None) -> Forks:
        """One continuation of the session for each list of ids. `room`: tokens that will follow, about."""
        room = self.spec.prompt.max_answer_tokens if room is None else room
        free, twins = state.trunk.free(), self.layout.twins
        return state.trunk.fork([self.laid([ids], Places(free, twins)) for ids in suffixes], room=room)

    @torch.inference_mode()
    def answers(self, state: MindState, questions: Sequence[str], *, barred: Sequence[int] = (),
                heard: Callable[[int, int, float, bool], None] = lambda *_: None) -> list[Reader]:
        """What `answer` says to each question, decoded together. `barred`: tokens that no answer begins with; `heard`: as
        of `greedy`."""
        asked = [self._ask(q, state.memory.entries, state.trunk.free()) for q in questions]
        readers: list[Reader] = [self.layout.reader() for _ in questions]
        due, looking = list(range(len(questions))), []

        def told(row: int, token: int, logprob: float, in_text: bool) -> None:
            asked[due[row]].say(token)
            heard(due[row], token, logprob, in_text)

        def weigh(row: int, scores: Tensor) -> Tensor:
            return asked[due[row]].weigh(scores)

        def looks(row: int) -> bool:
            if stops := self._ask.looks(asked[due[row]], readers[due[row]]):
                looking.append(due[row])
            return stops

        while due:
            forks = state.trunk.fork([asked[i].rows for i in due], room=self.spec.prompt.max_answer_tokens)
            if barred and len(due) == len(questions):  # none has begun
                forks.logits[:, list(barred)] = -torch.inf
            self.greedy(forks, heard=told, readers=[readers[i] for i in due], stop=looks, weigh=weigh)
            due, looking = sorted(looking), []
        for reader, one in zip(readers, asked, strict=True):
            if one.relied:
                reader.relied = one.relied
        return readers

    @torch.inference_mode()
    def strangeness(self, state: MindState, questions: Sequence[str]) -> list[float]:
        """By how much each question's likeliest answer is that it is of another world: log-odds against the likeliest
        other one. The bundle's `point` says what that answer is."""
        asked = [self._ask(q, state.memory.entries, state.trunk.free()) for q in questions]
        logits = state.trunk.fork([a.rows for a in asked], room=1).logits
        scores = torch.stack([a.weigh(row) for a, row in zip(asked, torch.log_softmax(logits.float(), -1), strict=True)])
        mine = scores[:, self._ask.outside].clone()
        scores[:, self._ask.outside] = -torch.inf
        return (mine - scores.amax(-1)).tolist()

    def greedy(self, forks: Forks, *, begin: Sequence[int] = (), readers: Sequence[Reader] = (),
               heard: Callable[[int, int, float, bool], None] = lambda *_: None,
               stop: Callable[[int], bool] = lambda _: False,
               weigh: Callable[[int, Tensor], Tensor] | None = None) -> list[Reader]:
        """Decode each fork to its end, all together. `begin`: first tokens, if they are given. `readers`: of what was
        decoded before, if anything was. `heard`: called with (fork, token, log-probability, whether it belongs to the
        text) of each token; `stop`: whether a fork is not to go on here; `weigh`: called with (fork, log-probabilities)
        before one is taken, for others in their place.
        """
        readers = list(readers) or [self.layout.reader() for _ in range(len(forks.logits))]
        running = list(range(len(readers)))
        for step in range(self.spec.prompt.max_answer_tokens):
            scores = torch.log_softmax(forks.logits.float(), -1)
            if weigh is not None:
                scores = torch.stack([weigh(index, row) for index, row in zip(running, scores, strict=True)])
            tokens = torch.tensor(begin, device=self.device) if step == 0 and begin else scores.argmax(-1)
            values = scores.gather(1, tokens[:, None])[:, 0].tolist()
            alive = []
            for row, (index, token) in enumerate(zip(running, tokens.tolist(), strict=True)):
                heard(index, token, values[row], readers[index].in_text)
                if token not in self.layout.stops:
                    readers[index].push(token)
                    if not readers[index].done and not stop(index):
                        alive.append(row)
            if not alive:
                break
            if len(alive) < len(running):
                forks.keep(alive)
                running, tokens = [running[row] for row in alive], tokens[alive]
            forks.step(tokens)
        return readers

    def _seen(self, memory: Memory, at_s: float | None) -> tuple[list[Span], int]:
        """The entries that had ended by then, and the length of the trunk up to there."""
        if at_s is None:
            return list(memory.entries), memory.tokens  # which goes on growing
        if at_s < memory.in_effect_s - 1e-6:
            raise QuestionError(f"windows before {clock(memory.in_effect_s)} were merged since {clock(max(0, at_s))}",
                                fix="ask a state rebuilt from the log as of that time")
        if not memory.entries or memory.entries[-1].t1_s <= at_s + 1e-6:
            return list(memory.entries), memory.tokens
        seen = [e for e in memory.entries if e.t1_s <= at_s + 1e-6]
        part = memory.entries[len(seen)]
        if part.whole and (windows := int((at_s + 1e-6 - part.t0_s) / (part.t1_s - part.t0_s) * part.windows)) > 0:
            seen.append(part.until(windows))
        return seen, memory.system_tokens + sum(map(memory.size, seen))

    def _confidence(self, logprob: float, count: int, seen: Sequence[Span]) -> float:
        """Calibrated probability that the answer is right, times how familiar the least familiar sense looks.

        logprob: of the text, of `count` tokens.
        """
        by_modality: dict[str, list[tuple[float, int]]] = {}
        for part in (p for entry in seen for p in entry.parts):
            by_modality.setdefault(part.modality, []).append((part.familiarity, part.windows))
        sure = math.exp(logprob / max(1, count)) if self.calibration is None else self.calibration(logprob)
        return sure * min(map(familiar, by_modality.values()), default=1.0)

    # --- embeddings --------------------------------------------------------------------------------------------------

    def laid_out(self, entries: Sequence[Span], start: int = 0) -> Rows:
        """What goes into the model for a list, from token `start` on."""
        places, at = Places(twins=self.layout.twins), len(self.layout.head)
        found = [self.laid([self.layout.head], places)]
        for entry in entries:
            at += self.size(entry)
            if at > start:
                found.append(self.entry(entry, places))
            elif self.capability.rows > 1:  # where it ends depends on all before
                lay(self.layout.entry(entry), places)
        rows = Rows.cat(found)
        return rows[len(rows) - (at - start) :]

    def entry(self, entry: Span, places: Places) -> Rows:
        return self.laid(self.layout.entry(entry), places, self.layout.stamp(self._embed.weight, entry.t0_s))

    def laid(self, pieces: Sequence[Piece], places: Places, stamp: Tensor | None = None) -> Rows:
        """Ids of text and soft tokens, one behind the other. `stamp`: what is added to the soft ones."""
        media: tuple[tuple[int, Medium], ...] = ()
        if self.beside:
            if parts := [self._soft(p, stamp).embeds for p in pieces if isinstance(p, Part)]:
                media = ((0, Medium(self.lm.gather(parts))),)
            pieces = [p for p in pieces if not isinstance(p, Part)]
        found = [self._soft(p, stamp) if isinstance(p, Part) else Rows(self._embeds(p)) for p in pieces]
        rows = replace(Rows.cat(found) if found else Rows(self._embeds(())), media=media)
        if self.capability.rows == 1:
            return rows
        return replace(rows, positions=torch.from_numpy(lay(pieces, places)).to(self.device))

    def _soft(self, part: Part, stamp: Tensor | None) -> Rows:
        like = self._embed.weight
        embeds = torch.from_numpy(part.embeds).to(like.device, like.dtype)
        extras = None if part.extras is None else torch.from_numpy(part.extras).to(like.device, like.dtype)
        if stamp is None or stamp.shape[-1] != embeds.shape[-1]:  # media of their own width have no room for it
            return Rows(embeds, None, extras)
        return Rows(embeds + stamp, None, extras)

    def _embeds(self, ids: Sequence[int]) -> Tensor:
        return self._embed(torch.tensor(ids, dtype=torch.long, device=self.device))
