"""Stage `language`: the language model and the adapters, on questions about whole clips.

Many questions share one clip's prefix: they are packed behind it, each blind to the others, with positions that start
where the prefix ends, exactly as a fork of the KV cache would see them. The loss is on answers, on their evidence, and on
the words that each soft token should say.
Shapes: B clips, K windows, S packed positions, L answer tokens, W width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.language.attach import AttachedLM, Seen, owned, seeing
from anymodal.language.finder import Finder
from anymodal.language.prompt import answer_ids, note_ids, question_ids, window_label
from anymodal.language.stamp import window_stamp
from anymodal.language.tokenizer import ANSWER, BOS, TextTokenizer, times_in
from anymodal.playground.offworld import off_world
from anymodal.playground.questions import OUTSIDE, Question, make_questions, unseen_questions
from anymodal.playground.rule_questions import eventful, rule_questions
from anymodal.playground.world import Scene, make_scene, rng_for
from anymodal.training.clips import ClipSignals, clip_signals, join
from anymodal.training.drills import drills
from anymodal.training.later import delayed, draw_times
from anymodal.training.packed import Packing, chunk_for, layout, packed_attention_of
from anymodal.training.said import said_loss
from anymodal.training.windows import ClipFeatures
from anymodal.training.words import window_words

ALL = ("video", "audio", "imu")
PICTURED = ("depth", "thermal")
STEP_WEIGHT, EVIDENCE_WEIGHT = 0.8, 0.5  # of a token of a step or of evidence, beside one of the answer's text
PRESENT = (ALL,) * 12 + (("video", "audio"), ("video", "imu"), ("video",), ("audio", "imu"), ("audio",), ("imu",), ())


def draw_present(dice: random.Random, fields: float, every: bool = False) -> tuple[str, ...]:
    """The modalities of a clip, in prompt order: all three or fewer, and for a share of `fields` clips depth and thermal,
    now and then only one of them.
    """
    present = ALL if every else dice.choice(PRESENT)
    if fields and dice.random() < fields:
        present += dice.choice((PICTURED, PICTURED, PICTURED, PICTURED[:1], PICTURED[1:]))
    return present


@dataclass(frozen=True, slots=True)
class DrawClips:
    """`clips` clips of one length in `seconds`, each with `questions` questions.

    `reuse` steps in a row show the same clips with other questions, so that their frames are encoded once. `drilled` and
    `rules`: so many drills and questions of standing rules beside them. A share of `later` steps shows its clips as parts
    of a long stream, up to hours after its beginning.
    """

    seed: int
    clips: int
    questions: int
    seconds: tuple[int, ...]
    reuse: int
    kinds: tuple[str, ...] | None
    noise: float
    drilled: int
    alone: bool | tuple[str, ...]
    rules: int
    image_px: int
    fields: float = 0.0
    fields_px: int = 0
    later: float = 0.0
    split: str = "train"
    outside: int = 1

    def __call__(self, step: int) -> dict:
        key = step // self.reuse
        length, scenes, signals, words = _clips(self, key)
        dice = random.Random(f"{self.seed}/{key}/{step}")
        later = draw_times(dice, length, len(scenes)) if self.later and dice.random() < self.later else None
        present = draw_present(dice, self.fields, every=not self.questions)
        asked = []
        for i, scene in enumerate(scenes):
            rows = questions_about(scene, dice, self.questions, present, self.kinds, self.noise, self.drilled, self.alone,
                                   self.fields > 0, self.outside)
            if present and self.rules:
                old = tuple(m for m in present if m in ALL)
                rows += rule_questions(scene, dice, count=self.rules, noise=self.noise, present=old) if old else []
            asked.append([delayed(row, later[i], dice) for row in rows] if later else rows)
        return {"signals": signals, "windows": length, "present": present, "asked": asked, "words": words, "key": key,
                "times": later or [list(range(length))] * len(scenes)}


@lru_cache(maxsize=1)
def _clips(draw: DrawClips, key: int) -> tuple[int, list[Scene], ClipSignals, list[dict]]:
    """The clips that `reuse` steps share: their length, scenes, signals, and the words of every window."""
    length = random.Random(f"{draw.seed}/{key}").choice(draw.seconds)
    busy = draw.rules and key % 3 == 0  # clips that end where something happens, cut from longer ones
    scenes, signals, words = [], [], []
    for i in range(max(1, round(draw.clips * min(2.0, 8 / length)))):
        index = key * 1000 + i
        scene = make_scene(draw.split, draw.seed, index, seconds=length + 4 if busy else length)
        if busy:
            scene = eventful(scene, random.Random(index), length)
        scenes.append(scene)
        signals.append(clip_signals(scene, draw.image_px, rng=rng_for(draw.split, draw.seed + 2_000_000, index),
                                    fields_px=draw.fields_px if draw.fields else 0))
        words += [window_words(scene, k) for k in range(length)]
    return length, scenes, join(signals), words


def questions_about(scene: Scene, dice: random.Random, count: int, present: tuple[str, ...],
                    kinds: tuple[str, ...] | None = None, noise: float = 1.0, drilled: int = 0,
                    alone: bool | Sequence[str] = False, fields: bool = False, outside: int = 1) -> list[Question]:
    """`count` questions, one of them for a description of one second; then drills, and some from `outside` the world.

    kinds: only these types, at first: the few that are answered by reading one token of one window.
    noise: how much the wording is varied by synonyms, casing and typos. drilled: so many drills more.
    alone: drills of one lookup each. Without a count, drills are all there is. fields: now and then ask what a depth or
    thermal camera that is not there would show.
    """
    drilled_rows = drills(scene, dice, drilled, present, alone)
    strange = [Question("off_world", off_world(dice, noise=noise), OUTSIDE) for _ in range(outside)]
    if not count:
        return drilled_rows or strange
    dense = make_questions(scene, dice, count=1, kinds=("describe_at",), present=present, noise=noise)
    rows = make_questions(scene, dice, count=count - len(dense), present=present, kinds=kinds, noise=noise)
    if fields and not kinds and dice.random() < 0.3:
        rows += unseen_questions(scene, dice, present=present, noise=noise)
    return [*rows, *dense, *drilled_rows, *strange]


class LanguageStage:
    """Trains the LM and all adapters, the audio and IMU encoders too; the frame encoder stays as it is.

    `frozen`: the LM alone, which takes two thirds of the time. `finder`: finds windows that a question is shown again.
    """

    name = "language"

    def __init__(self, perception, lm, tokenizer: TextTokenizer, *, seed: int = 3, clips: int = 8, questions: int = 13,
                 seconds: tuple[int, ...] = (8,), reuse: int = 2, words: float = 0.4,
                 kinds: tuple[str, ...] | None = None, noise: float = 1.0, drilled: int = 0,
                 alone: bool | Sequence[str] = False, rules: int = 0, frozen: bool = False, events: float = 1.0,
                 fields: float = 0.0, later: float = 0.0, outside: int = 1, finder: Finder | None = None) -> None:
        self.perception, self.lm, self.tokenizer = perception, lm, tokenizer
        self.options = (seed, clips, questions, tuple(seconds), reuse, tuple(kinds) if kinds else None, noise, drilled,
                        alone if isinstance(alone, bool) else tuple(alone), rules)
        self.frozen = ClipFeatures(perception)
        self.finder = finder
        self.fields, self.later, self.outside = fields, later, outside
        self.words, self.events = words, events  # weight of what each token should say, and in it of words of events
        self.ids = cache(tokenizer.encode)
        (perception if frozen else perception.encoders["video"]).requires_grad_(False)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.perception.named_parameters()
        yield from owned(self.lm).named_parameters(prefix="language")

    def draw(self) -> Callable[[int], dict]:
        encoders = self.perception.encoders
        return DrawClips(*self.options, encoders["video"].config.image_px, self.fields,
                         encoders["depth"].config.image_px if self.fields else 0, self.later, outside=self.outside)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        soft, times = soft_tokens(self.frozen, batch), batch["times"]
        prefix = clip_prefix(self.lm, self.tokenizer, soft, times)
        spec = self.perception.spec
        packed = pack_clips(self.tokenizer, soft, batch["asked"], times, spec.window_s, spec.memory.look_again, self.finder,
                            beside=isinstance(self.lm, AttachedLM))
        loss, parts = packed_loss(self.lm, prefix, packed, clip_seen(self.lm, self.tokenizer, soft, times))
        if not self.words:
            return loss, parts
        said = said_loss(self.lm, self.ids, soft, batch["words"], self.events)
        return loss + self.words * said, {**parts, "words": float(said.detach())}


class WordStage(LanguageStage):
    """Trains the adapters, the audio and IMU encoders, to say the words of each token; the language model stays as it is.

    Without the language model's own pass it takes a third of the time.
    """

    name = "words"

    def __init__(self, perception, lm, tokenizer: TextTokenizer, **options) -> None:
        super().__init__(perception, lm, tokenizer, questions=0, reuse=1, **options)
        lm.model.requires_grad_(False)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.perception.named_parameters()

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        soft = soft_tokens(self.frozen, batch)
        parts = {m: said_loss(self.lm, self.ids, {m: tokens}, batch["words"], self.events) for m, tokens in soft.items()}
        return sum(parts.values()), {f"words_{m}": float(loss.detach()) for m, loss in parts.items()}


def soft_tokens(frozen: ClipFeatures, batch: dict) -> dict[str, Tensor]:
    """Each present modality's tokens (B, K, N, W), in prompt order."""
    perception, clips, soft = frozen.perception, len(batch["asked"]), {}
    for modality in perception.spec.prompt.order:
        if modality in batch["present"]:
            features, mask, _ = frozen.features(modality, batch)
            adapter = perception.adapters[modality]
            tokens = adapter.project(adapter(features, mask))
            soft[modality] = tokens.view(clips, batch["windows"], *tokens.shape[1:])
    return soft


def clip_prefix(lm, tokenizer: TextTokenizer, soft: dict[str, Tensor], times: Sequence[Sequence[int]]) -> Tensor:
    """Input embeddings (B, P, W) of each clip: <bos>, then label and soft tokens of each of its windows; soft tokens are
    left out where they reach the language model beside its text.

    times: the seconds of each clip's windows, all of whose labels have as many tokens.
    """
    embed = lm.model.get_input_embeddings()
    rows = [embed(torch.full((len(times), 1), BOS, device=embed.weight.device))]
    for k in range(len(times[0]) if soft else 0):
        labels = [window_label(tokenizer, float(at[k])) for at in times]
        rows.append(embed(torch.tensor(labels, device=embed.weight.device)))
        if not isinstance(lm, AttachedLM):
            stamps = _stamps(embed.weight, times, k)
            rows += [tokens[:, k] + stamps for tokens in soft.values()]
    return torch.cat(rows, 1)


def _stamps(like: Tensor, times: Sequence[Sequence[int]], k: int) -> Tensor:
    """What the tokens of each clip's window `k` carry: (B, 1, W)."""
    return torch.stack([window_stamp(like, float(at[k])) for at in times])[:, None]


def clip_seen(lm, tokenizer: TextTokenizer, soft: dict[str, Tensor], times: Sequence[Sequence[int]]) -> Seen | None:
    """What the tokens of `clip_prefix` see, where soft tokens reach the language model beside its text."""
    if not isinstance(lm, AttachedLM):
        return None
    embed = lm.model.get_input_embeddings().weight
    labels = [len(window_label(tokenizer, float(t_s))) for t_s in (times[0] if soft else ())]
    upto = torch.tensor([[0] + [k + 1 for k, size in enumerate(labels) for _ in range(size)]], device=embed.device)
    media = [lm.gather([tokens[:, k] + _stamps(embed, times, k) for tokens in soft.values()]) for k in range(len(labels))]
    return Seen(torch.stack(media, 1) if media else (), upto, lm.windows)


@dataclass(slots=True)
class Packed:
    """Questions of one clip, end to end: token ids, which question each belongs to, place in it, and loss weights.

    What stands at place p of the prefix and is shown again before a question has the id -1 - p.
    """

    ids: list[int]
    owner: list[int]
    place: list[int]
    weight: list[float]  # of predicting the token at this position
    types: list[str]

    def slots(self, chunk: int) -> list[int]:
        """Where each token lies in a row of chunks."""
        lengths = [0] * len(self.types)
        for number in self.owner:
            lengths[number] += 1
        starts = layout(lengths, chunk)
        return [starts[number] + place for number, place in zip(self.owner, self.place, strict=True)]


def pack(tokenizer: TextTokenizer, rows: list[Question], longest: int, window_s: float,
         shown: Mapping[int, range] | None = None, look_again: int = 0,
         found: Callable[[str], Iterable[int]] = lambda _: ()) -> Packed:
    """shown: where each window stands in the prefix, by number; a question is shown `look_again` of those whose time it
    names once more, and those that are `found` for it; so is one that a step of its answer looks at, if it was not."""
    packed = Packed([], [], [], [], [])
    for number, row in enumerate(rows):
        named = {int(t_s / window_s + 1e-6) for t_s in times_in(row.question)[:look_again]} | set(found(row.question))
        again = {k: [-1 - place for place in places] for k, places in (shown or {}).items()}  # windows, by their places
        ids = [i for k in sorted(named) for i in again.get(k, ())] + question_ids(tokenizer, row.question, longest)
        weight = [0.0] * len(ids)
        said = answer_ids(tokenizer, row.answer, row.evidence, window_s)
        steps = [note_ids(tokenizer, step, window_s) for step in row.steps]
        share = min(1.0, 16 / (len(said) + sum(map(len, steps))))  # a long description weighs as a few short answers
        for step, note in zip(row.steps, steps, strict=True):
            ids, weight = ids + note, weight + [STEP_WEIGHT * share] * len(note)
            if isinstance(step, int) and look_again and step not in named and step in again:
                named.add(step)
                ids, weight = ids + again[step] + [ANSWER], weight + [0.0] * (len(again[step]) + 1)
        text = len(tokenizer.encode(row.answer))
        packed.ids += ids + said
        packed.owner += [number] * (len(ids) + len(said))
        packed.place += range(len(ids) + len(said))
        packed.weight += weight + [share * (1.0 if i <= text else EVIDENCE_WEIGHT) for i in range(len(said))]
        packed.types.append(row.type)
    return packed


def pack_clips(tokenizer: TextTokenizer, soft: dict[str, Tensor], asked: Sequence[list[Question]],
               times: Sequence[Sequence[int]], window_s: float, look_again: int, finder: Finder | None,
               beside: bool = False) -> list[Packed]:
    """The questions of each clip, packed with the windows they are shown once more: none where soft tokens reach the
    language model `beside` its text."""
    said = None  # of each clip, (N, V) of each window
    if finder and soft:
        layout = [(m, tokens.shape[2]) for m, tokens in soft.items()]
        said = [finder.clip(clip, layout, at) for clip, at in zip(torch.cat(list(soft.values()), 2), times, strict=True)]
    packed = []
    for i, (rows, at) in enumerate(zip(asked, times, strict=True)):
        def found(text: str, i: int = i, at: Sequence[int] = at) -> Iterable[int]:
            return () if said is None else [at[k] for k in finder.few(finder.spelt(text), said[i], look_again)]

        packed.append(pack(tokenizer, rows, 96, window_s, {} if beside else window_places(tokenizer, soft, at), look_again,
                           found))
    return packed


def window_places(tokenizer: TextTokenizer, soft: dict[str, Tensor], seconds: Sequence[int]) -> dict[int, range]:
    """Where the window of each second stands in the prefix of `clip_prefix`, its label first."""
    found, at, size = {}, 1, sum(tokens.shape[2] for tokens in soft.values())
    for t_s in seconds if soft else ():
        end = at + len(window_label(tokenizer, float(t_s))) + size
        found[t_s] = range(at, end)
        at = end
    return found


def packed_loss(lm, prefix: Tensor, packed: list[Packed],
                seen: Seen | None = None) -> tuple[Tensor, dict[str, float]]:
    """Weighted next-token loss over answers, and the share of wholly right answers by question type.

    seen: what the prefix sees; questions see the last of it.
    """
    device, (batch, before, _) = prefix.device, prefix.shape
    chunk = chunk_for(max(max(p.place) for p in packed) + 1)
    slots = [p.slots(chunk) for p in packed]
    longest = (max(map(max, slots)) // chunk + 1) * chunk

    def grid(name: str, fill) -> Tensor:
        laid = torch.tensor([fill]).repeat(batch, longest)
        for row, p, where in zip(laid, packed, slots, strict=True):
            row[where] = torch.tensor(getattr(p, name))
        return laid.to(device)

    ids, owner, place, weight = grid("ids", 0), grid("owner", -1), grid("place", 0), grid("weight", 0.0)
    again = prefix.gather(1, (-1 - ids).clamp(min=0)[..., None].expand(-1, -1, prefix.shape[-1]))
    asked = torch.where(ids[..., None] < 0, again, lm.model.get_input_embeddings()(ids.clamp(min=0)))
    embeds = torch.cat([prefix, asked], 1)
    positions = torch.cat([torch.arange(before, device=device).expand(batch, -1), before + place], 1)
    packing = Packing.of(before, owner, chunk, embeds.dtype)
    if seen is not None:
        upto = nn.functional.pad(seen.upto.expand(batch, -1), (0, longest), value=len(seen))
        seen = Seen(seen.media, upto, seen.windows)
    with packed_attention_of(lm.model), seeing(seen):
        hidden = lm.model.model(inputs_embeds=embeds, position_ids=positions, packing=packing).last_hidden_state
    target = weight > 0
    chosen = hidden[:, before - 1 : -1][target]
    logits = lm.model.lm_head(chosen).float()
    goal = ids[target]
    loss = (nn.functional.cross_entropy(logits, goal, reduction="none") * weight[target]).sum() / weight.sum()
    wrong = torch.zeros(batch, longest, dtype=torch.bool, device=device)
    wrong[target] = (logits.argmax(-1) != goal) & (weight[target] > 0)
    return loss, _accuracy(wrong, weight, owner, packed)


def _accuracy(wrong: Tensor, weight: Tensor, owner: Tensor, packed: list[Packed]) -> dict[str, float]:
    right: dict[str, list[float]] = {}
    wrong, owner = wrong.cpu().numpy(), owner.cpu().numpy()
    heavy = weight.cpu().numpy()
    for b, row in enumerate(packed):
        for number, kind in enumerate(row.types):
            mine = owner[b] == number
            share = heavy[b] / heavy[b][mine].max()
            for name, weighs in ((kind, 1.0), ("looks", STEP_WEIGHT), ("evidence", EVIDENCE_WEIGHT)):
                if (part := mine & np.isclose(share, weighs, atol=0.02)).any():
                    right.setdefault(name, []).append(float(not wrong[b][part].any()))
    return {kind: float(np.mean(values)) for kind, values in right.items()}
