"""The mind: a session's tokens in, answers out. It keeps a KV cache of what was seen and forks it per question.

The cache only ever grows by whole windows; asking never changes it. `at_s` answers from the windows that had ended
by then. When more than `context_windows` have been seen, the cache is made anew from the most recent half of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from anymodal.config import BundleSpec
from anymodal.language.prompt import AnswerReader, check_question, question_ids, window_label
from anymodal.language.tokenizer import BOS, EOS, TextTokenizer
from anymodal.types import Answer, Delta, Tokens


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling of an answer's mean log-probability: p = sigmoid(scale * logprob + offset)."""

    scale: float = 1.0
    offset: float = 3.0

    def __call__(self, logprob: float) -> float:
        return 1 / (1 + math.exp(-(self.scale * logprob + self.offset)))


@dataclass(slots=True)
class _Seen:
    """One window in the cache: its tokens, and the cache's length after it."""

    tokens: list[Tokens]
    frames: int
    dropped: int
    t1_s: float
    length: int


@dataclass(slots=True)
class MindState:
    """What the mind knows of one session."""

    cache: DynamicCache
    windows: list[_Seen] = field(default_factory=list)
    forgotten: int = 0  # windows that left the context


class Mind:
    """Answers questions over the tokens of a session."""

    def __init__(self, spec: BundleSpec, lm: nn.Module, tokenizer: TextTokenizer, calibration: Calibration) -> None:
        self.spec, self.lm, self.tokenizer, self.calibration = spec, lm, tokenizer, calibration
        self.model = lm.model
        self._embed = self.model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        return self._embed.weight.device

    def start(self) -> MindState:
        """A session that has seen nothing."""
        state = MindState(DynamicCache())
        self._prefill(state.cache, self._embeds([BOS]))
        return state

    @torch.inference_mode()
    def extend(self, state: MindState, tokens: Sequence[Tokens], *, t0_s: float, t1_s: float, frames: int = 0,
               dropped: int = 0) -> None:
        """Append one window's tokens (already in prompt order) to the session."""
        if len(state.windows) >= self.spec.context_windows:
            self._forget(state)
        self._prefill(state.cache, self._window(tokens, t0_s))
        state.windows.append(_Seen(list(tokens), frames, dropped, t1_s, state.cache.get_seq_length()))

    @torch.inference_mode()
    def answer(self, state: MindState, question: str, *, at_s: float | None = None) -> Iterator[Delta | Answer]:
        """Stream an answer's text as Deltas, then the whole Answer."""
        began = time.perf_counter()
        check_question(question)
        seen = [w for w in state.windows if at_s is None or w.t1_s <= at_s + 1e-6]
        cache = self._fork(state.cache, seen[-1].length if seen else 1)
        ids = question_ids(self.tokenizer, question, self.spec.prompt.max_question_tokens)
        logits = self._prefill(cache, self._embeds(ids))
        reader = AnswerReader(self.tokenizer, self.spec.window_s)
        logprob, ttft_s = 0.0, 0.0
        for _ in range(self.spec.prompt.max_answer_tokens):
            scores = torch.log_softmax(logits.float(), -1)
            token = int(scores.argmax())
            if reader.in_text:
                logprob += float(scores[token])
            if token == EOS:
                break
            text = reader.push(token)
            if text:
                ttft_s = ttft_s or time.perf_counter() - began
                yield Delta(text)
            logits = self._prefill(cache, self._embeds([token]))
        if rest := reader.finish():
            yield Delta(rest)
        yield Answer(
            question=question, text=reader.text, confidence=self._confidence(logprob, seen),
            evidence=reader.evidence(), frames_seen=sum(w.frames for w in seen),
            frames_dropped=sum(w.dropped for w in seen), windows_seen=len(seen),
            ttft_s=ttft_s or time.perf_counter() - began)

    def _confidence(self, logprob: float, seen: list[_Seen]) -> float:
        """Calibrated probability that the answer is right, times how familiar the least familiar sense looks."""
        by_modality: dict[str, list[float]] = {}
        for window in seen:
            for tokens in window.tokens:
                by_modality.setdefault(tokens.modality, []).append(tokens.familiarity)
        familiar = min((sum(v) / len(v) for v in by_modality.values()), default=1.0)
        return self.calibration(logprob) * familiar

    def _window(self, tokens: Sequence[Tokens], t0_s: float) -> Tensor:
        rows = [self._embeds(window_label(self.tokenizer, t0_s))[0]]
        rows += [torch.from_numpy(t.embeds).to(self.device, self._embed.weight.dtype) for t in tokens]
        return torch.cat(rows)[None]

    def _embeds(self, ids: list[int]) -> Tensor:
        return self._embed(torch.tensor([ids], device=self.device))

    @torch.inference_mode()
    def _prefill(self, cache: DynamicCache, embeds: Tensor) -> Tensor:
        out = self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1]

    def _fork(self, cache: DynamicCache, length: int) -> DynamicCache:
        """A copy of the first `length` positions, free to grow."""
        fork = DynamicCache()
        for index, layer in enumerate(cache.layers):
            fork.update(layer.keys[:, :, :length], layer.values[:, :, :length], index)
        return fork

    def _forget(self, state: MindState) -> None:
        keep = state.windows[len(state.windows) // 2 :]
        state.forgotten += len(state.windows) - len(keep)
        state.cache, state.windows = self.start().cache, []
        for window in keep:
            t0_s = window.tokens[0].t0_s if window.tokens else window.t1_s - self.spec.window_s
            self._prefill(state.cache, self._window(window.tokens, t0_s))
            window.length = state.cache.get_seq_length()
            state.windows.append(window)
