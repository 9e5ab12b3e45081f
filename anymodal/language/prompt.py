"""How a session is laid out before the language model, and how its answer is read back.

    <bos> | <window> 3 [video x12] [audio x2] [imu x2] | <window> 4 ... | <question> text <answer> text <video> 3 5 <eos>

The label after <window> is the window's start on the media clock; evidence repeats the labels of the first and last
window it relies on, so finding evidence is copying. Used alike for training and for answering.

What takes more than one look is answered in steps, which nobody is shown: each names a window to look at, which then
follows it once more, or says what was found.

    <answer> <note> 5 <answer> <window> 5 [video] [audio] ... <answer> <note> small <answer> no <video> 0 7 <eos>
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from anymodal.errors import QuestionError
from anymodal.language.tokenizer import ANSWER, EOS, EVIDENCE, NOTE, QUESTION, WINDOW, TextTokenizer, clock, parse_clock
from anymodal.types import Evidence

MAX_QUESTION_CHARS = 2000
_MODALITY_OF = {number: name for name, number in EVIDENCE.items()}


@lru_cache(maxsize=4096)  # of a list, all are asked for at each of its compaction's slices
def window_label(tokenizer: TextTokenizer, t0_s: float) -> tuple[int, ...]:
    """Ids that open a window: <window> and its start time."""
    return (WINDOW, *tokenizer.encode(clock(t0_s)))


def question_ids(tokenizer: TextTokenizer, question: str, most: int) -> list[int]:
    """Ids of a question up to and with <answer>; one that was not checked is cut to `most` tokens."""
    return [QUESTION, *tokenizer.encode(question)[:most], ANSWER]


def answer_ids(tokenizer: TextTokenizer, text: str, evidence: Sequence[Evidence], window_s: float) -> list[int]:
    """What the model is trained to write: the text, the spans, <eos>."""
    ids = tokenizer.encode(text)
    for span in evidence:
        last = max(span.start_s, span.end_s - window_s)
        ids += [EVIDENCE[span.modality], *tokenizer.encode(clock(span.start_s)), *tokenizer.encode(clock(last))]
    return [*ids, EOS]


def note_ids(tokenizer: TextTokenizer, step: float | str | Sequence[float], window_s: float = 1.0) -> list[int]:
    """A step on the way to an answer: the number of a window to look at, what is found there, or the numbers of several."""
    numbers = () if isinstance(step, str) else step if isinstance(step, Sequence) else (step,)
    text = step if isinstance(step, str) else " ".join(clock(n * window_s) for n in numbers)
    return [NOTE, *tokenizer.encode(text), ANSWER]


@dataclass(slots=True)
class AnswerReader:
    """Reads generated ids one at a time into text and evidence. Malformed spans are left out.

    `look_s`: the start of a window that the ids so far end with the wish to look at; None: they do not. `relied`: the
    evidence, where it is known without any ids.
    """

    tokenizer: TextTokenizer
    window_s: float
    text_ids: list[int] = field(default_factory=list, init=False)
    look_s: float | None = field(default=None, init=False)
    relied: tuple[Evidence, ...] = field(default=(), init=False)
    _note: list[int] | None = field(default=None, init=False)  # a step that has begun
    _spans: list[tuple[str, list[int]]] = field(default_factory=list, init=False)
    _given: int = field(default=0, init=False)
    done: bool = field(default=False, init=False)  # it ends with <eos>, not within the text

    def push(self, token: int) -> str:
        """Take a token; returns the text it adds, if any."""
        self.look_s = None
        if token == NOTE and not self._spans:
            self._note = []
            return ""
        if self._note is not None:
            if token == ANSWER:
                self.look_s, self._note = parse_clock(self.tokenizer.decode(self._note)), None
            else:
                self._note.append(token)
            return ""
        if token in _MODALITY_OF:
            self._spans.append((_MODALITY_OF[token], []))
            return ""
        if self._spans:
            self._spans[-1][1].append(token)
            return ""
        self.text_ids.append(token)
        return "" if self.tokenizer.decode(self.text_ids).endswith("\ufffd") else self.finish()

    def finish(self) -> str:
        """The text that was not given yet: a character may be several tokens, and the last one may be cut short."""
        text = self.tokenizer.decode(self.text_ids)
        piece, self._given = text[self._given :], len(text)
        return piece

    @property
    def in_text(self) -> bool:
        """No evidence was begun: steps count, too."""
        return not self._spans

    @property
    def text(self) -> str:
        return self.tokenizer.decode(self.text_ids).strip()

    def evidence(self) -> tuple[Evidence, ...]:
        found = list(self.relied)
        for modality, ids in self._spans:
            times = [parse_clock(t) for t in self.tokenizer.decode(ids).split()]
            if len(times) == 2 and None not in times and times[0] <= times[1]:
                found.append(Evidence(times[0], times[1] + self.window_s, modality))
        return tuple(dict.fromkeys(found))


@dataclass(slots=True)
class PlainReader:
    """Reads the ids of a model that writes text alone, up to the first of `stops`."""

    decode: Callable[[list[int]], str]
    stops: Sequence[str] = ()
    text_ids: list[int] = field(default_factory=list, init=False)
    done: bool = field(default=False, init=False)
    in_text: bool = field(default=True, init=False)
    look_s: None = field(default=None, init=False)
    _given: int = field(default=0, init=False)

    def push(self, token: int) -> str:
        """Take a token; returns the text it adds, if any. What may begin a stop is held back."""
        self.text_ids.append(token)
        text = self._whole()
        if self.done:
            return self._give(text)
        held = max((n for s in self.stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
        return "" if text.endswith("\ufffd") else self._give(text[: len(text) - held])

    def finish(self) -> str:
        """The text that was not given yet."""
        return self._give(self._whole())

    def _whole(self) -> str:
        text = self.decode(self.text_ids).lstrip()
        ends = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        self.done = self.done or bool(ends)
        return text[: min(ends)] if ends else text

    def _give(self, text: str) -> str:
        piece, self._given = text[self._given :], max(self._given, len(text))
        return piece

    @property
    def text(self) -> str:
        return self._whole().strip()

    def evidence(self) -> tuple[Evidence, ...]:
        """None: what the model relied on is not said, and everything that it saw would be said of any answer."""
        return ()


def check_question(question: str, tokenizer: TextTokenizer, most: int) -> None:
    """Refuse a question that is empty, no text, or of more than `most` tokens."""
    if not isinstance(question, str):
        raise QuestionError(f"a question is text, found {type(question).__name__} {question!r:.80}",
                            fix='for example "what colour is the circle?"')
    if not question.strip():
        raise QuestionError("the question is empty", fix='ask something, for example "what colour is the circle?"')
    if len(question) > MAX_QUESTION_CHARS:
        raise QuestionError(f"the question has {len(question)} characters, at most {MAX_QUESTION_CHARS} are read",
                            fix="shorten it")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise QuestionError(f"the question is no valid text: {error.reason} at character {error.start}",
                            fix="write it in UTF-8") from error
    if (count := len(tokenizer.encode(question))) > most:
        raise QuestionError(f"the question has {count} tokens, at most {most} are read", fix="shorten it")


def check_questions(questions: Sequence[str], tokenizer: TextTokenizer, most: int) -> list[str]:
    """Check each; refuses an empty list."""
    if not questions:
        raise QuestionError("no question was given", fix='ask something, for example "what colour is the circle?"')
    for question in questions:
        check_question(question, tokenizer, most)
    return list(questions)
