"""Stage `symbols`: the language model alone, on windows whose tokens are sums of word embeddings.

What a perfect perception would say (`words.window_words`), without rendering or encoding anything. The LM learns to
read questions, to find the token that is asked about, to copy times and to compare moments here, cheaply.
Shapes: B clips, K windows, W width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anymodal.language.tokenizer import TextTokenizer
from anymodal.playground.world import make_scene
from anymodal.training.language import clip_prefix, draw_present, pack_clips, packed_loss, questions_about
from anymodal.training.later import delayed, draw_times
from anymodal.training.words import NOTHING, window_words

TOKENS = {"video": 12, "audio": 2, "imu": 2, "depth": 1, "thermal": 2}  # of the bundle's adapters;
# video: one for each place, and three more


@dataclass(frozen=True, slots=True)
class DrawSymbols:
    seed: int
    clips: int
    questions: int
    seconds: tuple[int, ...]
    kinds: tuple[str, ...] | None
    noise: float
    drilled: int
    alone: bool | tuple[str, ...]
    fields: float
    later: float

    def __call__(self, step: int) -> dict:
        dice = random.Random(f"symbols/{self.seed}/{step}")
        length, present = dice.choice(self.seconds), draw_present(dice, self.fields)
        clips = max(1, round(self.clips * min(2.0, 8 / length)))
        later = draw_times(dice, length, clips) if dice.random() < self.later else None
        asked, words = [], []
        for i in range(clips):
            scene = make_scene("train", self.seed, step * 1000 + i, seconds=length)
            words += [window_words(scene, k) for k in range(length)]
            rows = questions_about(scene, dice, self.questions, present, self.kinds, self.noise, self.drilled, self.alone,
                                   self.fields > 0)
            asked.append([delayed(row, later[i], dice) for row in rows] if later else rows)
        return {"words": words, "windows": length, "present": present, "asked": asked,
                "times": later or [list(range(length))] * clips}


@torch.no_grad()
def spread_words(weight: Tensor, tokenizer: TextTokenizer, words: Sequence[str]) -> None:
    """Give each token (of V, W) of these words a direction of its own, as long as that of a known word.

    What was never read or said in training is pushed by the softmax into nearly one and the same vector (cosines above
    .9), and then neither found nor told apart for hundreds of steps.
    """
    known = weight[tokenizer.encode("circle")].norm(dim=-1).mean()
    dice = torch.Generator().manual_seed(len(words))
    for token in dict.fromkeys(i for w in words for i in tokenizer.special(w) or tokenizer.encode(w)):
        drawn = torch.randn(weight.shape[1], generator=dice)
        weight[token] = (drawn / drawn.norm() * known.cpu()).to(weight)


class SymbolStage:
    """Trains the LM. `later`: as of `language.DrawClips`."""

    name = "symbols"

    def __init__(self, lm, tokenizer: TextTokenizer, *, seed: int = 6, clips: int = 8, questions: int = 13,
                 seconds: tuple[int, ...] = (2, 4, 8), kinds: tuple[str, ...] | None = None, noise: float = 1.0,
                 drilled: int = 0, alone: bool | Sequence[str] = False, fields: float = 0.0, later: float = 0.0,
                 look_again: int = 0) -> None:
        self.lm, self.tokenizer, self.look_again = lm, tokenizer, look_again
        self.options = (seed, clips, questions, tuple(seconds), tuple(kinds) if kinds else None, noise, drilled,
                        alone if isinstance(alone, bool) else tuple(alone), fields, later)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.lm.model.named_parameters(prefix="language")

    def draw(self) -> Callable[[int], dict]:
        return DrawSymbols(*self.options)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        clips, windows, times = len(batch["asked"]), batch["windows"], batch["times"]
        soft = {m: self._said(batch["words"], m).view(clips, windows, TOKENS[m], -1) for m in batch["present"]}
        prefix = clip_prefix(self.lm, self.tokenizer, soft, times)
        packed = pack_clips(self.tokenizer, soft, batch["asked"], times, 1.0, self.look_again, None)
        return packed_loss(self.lm, prefix, packed)

    def _said(self, words: list[dict], modality: str) -> Tensor:
        """Sums of the word embeddings of each token: (B * K, N, W)."""
        embed = self.lm.model.get_input_embeddings()
        spare = TOKENS[modality] - len(words[0][modality])
        fill = NOTHING if modality == "video" else None  # audio and imu say the same with every token
        rows = [row for window in words for row in (*window[modality], *[fill or window[modality][0]] * spare)]
        ids = [[i for w in row for i in self.tokenizer.encode(w)] for row in rows]
        table = torch.zeros(len(rows), max(map(len, ids)), dtype=torch.long)
        keep = torch.zeros(table.shape, dtype=torch.bool)
        for i, row in enumerate(ids):
            table[i, : len(row)] = torch.tensor(row)
            keep[i, : len(row)] = True
        keep &= torch.rand(keep.shape) > 0.02
        device = embed.weight.device
        summed = (embed(table.to(device)) * keep.to(device)[..., None]).sum(1)
        return summed.view(len(words), TOKENS[modality], -1)
