"""How a session is laid out before the language model: what stands around the soft tokens, and how answers are read.

    head | entry | entry | ... | [turn | turn ...] | question        -> answer

`Layout` is the default bundle's, with tokens of its own: `anymodal.language.prompt`. `TemplateLayout` is a published
model's, from the texts in its YAML. The mind asks its layout; nothing else knows how a prompt looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from anymodal.config import BundleSpec
from anymodal.errors import ConfigError
from anymodal.language.prompt import (
    AnswerReader,
    PlainReader,
    answer_ids,
    check_question,
    question_ids,
    window_label,
)
from anymodal.language.stamp import window_stamp
from anymodal.language.tokenizer import ANSWER, BOS, EOS, PublishedTokenizer, TextTokenizer, clock
from anymodal.models import other_folder
from anymodal.stages.items import IMAGE

if TYPE_CHECKING:
    from anymodal.memory import Part, Span
    from anymodal.session.log import Turn

Shown = tuple[str, tuple[tuple[int, int, int], ...]]  # a modality, and of a picture its crops
Piece = "Sequence[int] | Part"  # ids of text, or a stream's soft tokens


class Reader(Protocol):
    """Reads generated ids one at a time. `done`: the answer ended within the text. `in_text`: no evidence was begun.
    `look_s`: the start of a window that is to be looked at before it goes on."""

    done: bool
    look_s: float | None

    def push(self, token: int) -> str: ...
    def finish(self) -> str: ...


class Layout:
    """As the default bundle was trained: `<bos> | <window> 3 [video] [audio] | ... | <question> text <answer>`."""

    head: tuple[int, ...] = (BOS,)
    stops: frozenset[int] = frozenset({EOS})
    tail: tuple[int, ...] = ()  # between the windows and turns
    twins: frozenset[tuple[int, int]] = frozenset()  # pairs of ids that share one position
    spans = True  # answers end with the evidence they rely on
    looked: tuple[int, ...] = (ANSWER,)  # behind a window that an answer looks at, which then goes on

    def __init__(self, spec: BundleSpec, tokenizer: TextTokenizer) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self.yes, self.no = ((tokenizer.encode(word)[0],) for word in ("yes", "no"))

    def entry(self, entry: Span) -> list[Piece]:
        """An entry of the memory, a window or several merged: ids and soft tokens in order."""
        return [window_label(self.tokenizer, entry.t0_s), *entry.parts]

    def text_tokens(self, entry: Span) -> int:
        """How many tokens of text it has, beside its soft tokens."""
        return len(window_label(self.tokenizer, entry.t0_s))

    def stamp(self, like: Tensor, t0_s: float) -> Tensor | None:
        """What is added to the soft tokens of an entry that begins then, (W,); None: nothing."""
        return window_stamp(like, t0_s)

    def question(self, question: str, turns: Sequence[Turn] = ()) -> list[int]:
        """Up to where the answer begins, with earlier turns before it. A question that was not checked is cut to what is
        read of it."""
        told = [i for turn in turns for i in self.turn(turn)]
        return [*told, *question_ids(self.tokenizer, question, self.spec.prompt.max_question_tokens)]

    def condition(self, question: str) -> list[int]:
        """A standing rule's question, to be answered yes or no."""
        return self.question(question)

    def turn(self, turn: Turn) -> list[int]:
        """An earlier question with its answer."""
        return [*self.question(turn.question), *answer_ids(self.tokenizer, turn.text, turn.evidence, self.spec.window_s)]

    def reader(self) -> Reader:
        return AnswerReader(self.tokenizer, self.spec.window_s)

    def check(self, question: str) -> None:
        """Raise QuestionError for a question that cannot be asked."""
        check_question(question, self.tokenizer, self.spec.prompt.max_question_tokens)


class TemplateLayout(Layout):
    """A published model's prompt: `prompt.template`.

    With placeholders, every piece is cut into tokens behind the placeholder that comes before it in the published
    prompt, so the ids are those of the published processor; that this holds is checked when the layout is made. Without,
    as the published code does it, each piece by itself.
    """

    spans = False

    def __init__(self, spec: BundleSpec, tokenizer: PublishedTokenizer) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self.template = spec.prompt.template
        rates = [m.rate_hz for m in spec.modalities.values() if m.is_picture]
        self._middle_s = (spec.window_s - 1 / rates[0]) / 2 if rates else spec.window_s / 2
        self._markers = {m: self._marker(m, text) for m, text in self.template.placeholders.items()}
        self.head = tuple(self._head())
        self.twins = frozenset(self._twin(text) for text in self.template.twins)
        ids, texts = tokenizer.stops(self.template.stops)
        self.stops, self._stop_texts = frozenset(ids), texts
        self.yes, self.no = self._answers("Yes", "yes"), self._answers("No", "no")
        common = set(self.yes) & set(self.no)
        self.yes, self.no = (tuple(i for i in found if i not in common) for found in (self.yes, self.no))
        self._check_joins()

    # --- pieces ------------------------------------------------------------------------------------------------------

    def entry(self, entry: Span) -> list[Piece]:
        texts = self._entry_texts(entry.t0_s, self._shown(entry))
        pieces: list[Piece] = [texts[0]]
        for part, text in zip((own for p in entry.parts for own in self._cut(p)), texts[1:], strict=True):
            pieces += [part, text]
        return [p for p in pieces if not isinstance(p, tuple) or p]

    def text_tokens(self, entry: Span) -> int:
        return sum(map(len, self._entry_texts(entry.t0_s, self._shown(entry))))

    def _shown(self, entry: Span) -> tuple[Shown, ...]:
        return tuple((p.modality, self._crops(p)) for p in entry.parts)

    def _crops(self, part: Part) -> tuple[tuple[int, int, int], ...]:
        """(tokens, row, column) of each crop of a picture, and row 0 of the whole; none where it has no crops."""
        if self.template.crops is None or part.positions is None or not part.positions[:, 1].any():
            return ()
        runs = groupby(map(tuple, part.positions[:, 1:].tolist()))
        return tuple((len(list(run)), *place) for place, run in runs)

    def _cut(self, part: Part) -> list[Part]:
        """A picture's crops each for itself."""
        ends = list(accumulate(count for count, _, _ in self._crops(part)))
        return [replace(part, embeds=part.embeds[a:b], positions=None) for a, b in zip([0, *ends], ends)] or [part]

    def stamp(self, like: Tensor, t0_s: float) -> None:
        return None

    def question(self, question: str, turns: Sequence[Turn] = ()) -> list[int]:
        told = "".join(map(self._told, turns))
        asked = told and self.template.again or self.template.question
        text = self.template.tail + told + asked.replace("{question}", self.tokenizer.plain(question))
        return [*range(-1, -1 - self.template.tail_words, -1), *self._asked(text)]

    def condition(self, question: str) -> list[int]:
        return self.question(self.template.rule.replace("{question}", question))

    def turn(self, turn: Turn) -> list[int]:
        text = self._told(turn)
        return list(self._behind(text)) if text else []

    def _told(self, turn: Turn) -> str:
        plain = self.tokenizer.plain
        return self.template.turn.replace("{question}", plain(turn.question)).replace("{answer}", plain(turn.text))

    def reader(self) -> Reader:
        return PlainReader(self.tokenizer.decode, self._stop_texts)

    # --- cutting into tokens -----------------------------------------------------------------------------------------

    def _marker(self, modality: str, text: str) -> int:
        found = self.tokenizer.token(text)
        if found is None:
            raise ConfigError(f"the tokenizer in {self.tokenizer.folder} has no token {text!r}, the placeholder of "
                              f"{modality}", fix="use the tokenizer that was published with this checkpoint, or mend "
                                                 "prompt.template.placeholders")
        return found

    def _twin(self, text: str) -> tuple[int, int]:
        ids = self.tokenizer.encode_template(text, begins=False)
        if len(ids) != 2:
            raise ConfigError(f"prompt.template.twins: {text!r} is {len(ids)} tokens, not a pair", fix="name two tokens")
        return ids[0], ids[1]

    def _head(self) -> list[int]:
        begins = self._begins == "head"
        ids = self.tokenizer.encode_template(self.template.head, begins=begins)
        marker = next(iter(self.template.placeholders.values()), None)
        if marker is None:
            return ids
        whole = self.tokenizer.encode_template(self.template.head + marker, begins=begins)
        return whole[: whole.index(next(iter(self._markers.values())))]

    @property
    def _begins(self) -> str:
        """Where the tokenizer's own beginning comes: "head", "question", or nowhere."""
        return self.template.begins if self.template.special_tokens else ""

    def _asked(self, text: str) -> list[int]:
        """Ids of a question; one that the tokenizer begins is cut as a text of its own, put behind the pictures."""
        if self._begins == "question":
            return self.tokenizer.encode_template(text, begins=True)
        return list(self._behind(text))

    @lru_cache(maxsize=4096)  # noqa: B019  (a layout lives as long as its mind)
    def _behind(self, text: str) -> tuple[int, ...]:
        """Ids of a piece of text that follows soft tokens."""
        marker = next(iter(self.template.placeholders.values()), None)
        if marker is None:
            return tuple(self.tokenizer.encode_template(text, begins=False)) if text else ()
        ids = self.tokenizer.encode_template(marker + text, begins=False)
        return tuple(ids[ids.index(next(iter(self._markers.values()))) + 1 :])

    @lru_cache(maxsize=4096)  # noqa: B019  (a layout lives as long as its mind)
    def _entry_texts(self, t0_s: float, shown: tuple[Shown, ...]) -> tuple[tuple[int, ...], ...]:
        """Ids before the first soft tokens, between each two, and behind the last."""
        if not shown:
            return ((),)
        return tuple(self._behind(text) for text in self._window_text(t0_s, shown, lambda _: "\0").split("\0"))

    def _window_text(self, t0_s: float, shown: Sequence[Shown], mark: Callable[[str], str]) -> str:
        time = ""
        if self.template.time and {m for m, _ in shown} != {IMAGE}:
            time = self.template.time.format(clock=clock(t0_s), seconds=t0_s, middle=t0_s + self._middle_s,
                                             minute=int(t0_s // 60), second=int(t0_s % 60))
        return time + "".join(self._around(m, crops).replace("{tokens}", mark(m)) for m, crops in shown)

    def _around(self, modality: str, crops: Sequence[tuple[int, int, int]]) -> str:
        """The text around a modality's {tokens}, or around those of each of a picture's crops."""
        if not crops:
            return self.template.window.get(modality, "{tokens}")
        texts, spec = [], self.template.crops
        for (_, row, column), (_, after, _) in zip(crops, [*crops[1:], (0, -1, 0)]):
            text = spec.each.replace("{row}", str(row)).replace("{column}", str(column)) if row else spec.whole
            texts.append(text + (spec.row_end if row and after != row else ""))
        return "".join(texts)

    def _answers(self, *words: str) -> tuple[int, ...]:
        """Tokens that an answer of one of these words may begin with."""
        found = [self.tokenizer.encode(form) for word in words for form in (word, " " + word)]
        found += [list(self._behind(word)) for word in words]
        return tuple(dict.fromkeys(ids[0] for ids in found if ids))

    def _check_joins(self) -> None:
        """The pieces' tokens must be those of the whole prompt, as the published processor cuts it."""
        order = [m for m in self.spec.prompt.order if m in self._markers]
        if not order:
            return
        shown = tuple((m, ()) for m in order)
        texts = [self._window_text(t0_s, shown, lambda m: self.template.placeholders[m])
                 for t0_s in (0.0, self.spec.window_s)]
        asked = (self.template.tail + self.template.question).replace("{question}", "What is this?")
        apart = self._begins == "question"
        whole = self.tokenizer.encode_template(self.template.head + "".join(texts) + ("" if apart else asked),
                                               begins=self._begins == "head")
        whole += self._asked(asked) if apart else []
        pieces = list(self.head)
        for t0_s in (0.0, self.spec.window_s):
            ids = self._entry_texts(t0_s, shown)
            pieces += ids[0]
            for modality, text in zip(order, ids[1:], strict=True):
                pieces += [self._markers[modality], *text]
        pieces += self._asked(asked)
        if pieces != whole:
            at = next((i for i, (a, b) in enumerate(zip(pieces, whole)) if a != b), min(len(pieces), len(whole)))
            raise ConfigError(f"prompt.template: its pieces have other tokens than the whole prompt, from token {at} on",
                              fix="let each piece begin or end with a special token, or leave out text between windows")


def make_layout(spec: BundleSpec, folder: Path) -> Layout:
    """A bundle's layout with its tokenizer. folder: of the weights, or of the checkpoint. Raises ConfigError."""
    if spec.prompt.template is None:
        return Layout(spec, TextTokenizer(folder / "tokenizer.json"))
    place = spec.checkpoint.tokenizer if spec.checkpoint else ""
    other = spec.checkpoint is not None and place in spec.checkpoint.others
    return TemplateLayout(spec, PublishedTokenizer(other_folder(spec, place, folder) if other else folder / place))
