"""A byte-level BPE tokenizer: any UTF-8 text in, no unknown token, case folded.

Clock numbers (0 to 59, and 00 to 09) are single tokens, so that a time in an answer is a copy of a window's label.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

from anymodal.errors import WeightsError

PAD, EOS, BOS, WINDOW, QUESTION, ANSWER = range(6)
SPECIAL = ("<pad>", "<eos>", "<bos>", "<window>", "<question>", "<answer>")
EVIDENCE = {"video": 6, "audio": 7, "imu": 8, "depth": 9, "thermal": 10}  # "<video> 3 5": relies on windows 3 to 5
NOTE = 11  # begins a step on the way to an answer, which ends with <answer>
ENDS = frozenset({EOS, *EVIDENCE.values()})  # of an answer's text
_ALL = (*SPECIAL, *(f"<{m}>" for m in EVIDENCE), "<note>", *(f"<spare{i}>" for i in range(1, 5)))
_CLOCK = re.compile(r"\b(?:(\d{1,6}):)?(\d{1,6}):(\d\d(?:\.\d+)?)\b")
_SECONDS = re.compile(r"\b(\d{1,9}(?:\.\d+)?)\s*(s|secs?|seconds?|min|mins|minutes?|h|hours?)\b", re.IGNORECASE)
_MOMENT = re.compile(rf"\b(?:at|around|about)\s+(?P<time>{_CLOCK.pattern}|{_SECONDS.pattern})(?!\s+ago)", re.IGNORECASE)
_SIZES = {"s": 1.0, "m": 60.0, "h": 3600.0}
NUMBERS = (*(str(n) for n in range(60)), *(f"0{n}" for n in range(10)))


def train_tokenizer(corpus: Iterable[str], vocab: int = 2048):
    """Fit a byte-level BPE of `vocab` tokens on `corpus`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\d{1,2}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=list(_ALL), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    numbers = [n for n in NUMBERS for _ in range(500)]
    tokenizer.train_from_iterator([*corpus, *numbers], trainer)
    return tokenizer


class TextTokenizer:
    """Loads `tokenizer.json`; encodes text without special tokens, decodes ids skipping them."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        if not path.is_file():
            raise WeightsError(f"no tokenizer at {path}", fix="reinstall, or train the bundle from its first stage")
        try:
            self.model = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing more special
            raise WeightsError(f"{path} is damaged: {' '.join(str(error).split()):.200}",
                               fix="copy it whole, reinstall, or train the bundle from its first stage") from error
        self.model.encode_special_tokens = True  # "<eos>" typed by a user is text
        self.vocab = self.model.get_vocab_size()
        for name, number in ((n, i) for i, n in enumerate(_ALL)):
            if self.model.token_to_id(name) != number:
                raise WeightsError(f"{path}: token {name!r} is {self.model.token_to_id(name)}, expected {number}",
                                   fix="use the tokenizer that was trained with this bundle")

    def encode(self, text: str) -> list[int]:
        return self.model.encode(" " + " ".join(text.split()), add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self.model.decode([i for i in ids if i >= len(_ALL)])

    def special(self, name: str) -> list[int]:
        """The id of a special token such as "<note>"; none for any other text."""
        return [_ALL.index(name)] if name in _ALL else []


class PublishedTokenizer:
    """A published model's own, from its folder, through transformers. A user's text never becomes a special token."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.folder = folder
        try:
            self.model = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # transformers raises what its many formats raise
            said = " ".join(str(error).split())
            raise WeightsError(f"no tokenizer can be read in {folder}: {said:.200}", fix="copy tokenizer.json and "
                               "tokenizer_config.json of the checkpoint there") from error
        self._special = sorted((t.content for t in self.model.added_tokens_decoder.values() if t.content), key=len,
                               reverse=True)

    def plain(self, text: str) -> str:
        """A user's text in which nothing reads as a special token: a space is put into what would."""
        for token in self._special:
            if len(token) > 1 and token.strip():
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def encode(self, text: str) -> list[int]:
        """Ids of a user's text."""
        return self.model.encode(self.plain(text), add_special_tokens=False)

    def encode_template(self, text: str, *, begins: bool) -> list[int]:
        """Ids of an operator's text, in which special tokens are meant. begins: with what the tokenizer puts first."""
        if not begins:
            return self.model.encode(text, add_special_tokens=False)
        bare, ids = self.model.encode("", add_special_tokens=True), self.model.encode(text, add_special_tokens=True)
        ends = bare[-1:] if bare and bare[-1] == self.model.eos_token_id != self.model.bos_token_id else []
        return ids[:-1] if ends and ids[-1:] == ends else ids

    def decode(self, ids: list[int]) -> str:
        return self.model.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def token(self, text: str) -> int | None:
        """The id of a text that is one token of its own; None where it is not."""
        ids = self.model.encode(text, add_special_tokens=False)
        found = self.model.convert_tokens_to_ids(text)
        known = isinstance(found, int) and found != self.model.unk_token_id and ids.count(found) == 1
        return found if known and text in self.model.get_vocab() else None

    def stops(self, extra: Iterable[str]) -> tuple[set[int], tuple[str, ...]]:
        """What ends an answer: ids, the checkpoint's generation_config.json included, and texts."""
        ids, texts = {self.model.eos_token_id} - {None}, []
        path = self.folder / "generation_config.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            ids |= set(found if isinstance(found, list) else [found]) - {None}
        for text in extra:
            number = self.token(text) if text in self._special else None
            ids |= set() if number is None else {number}
            texts += [text] if number is None else []
        return ids, tuple(texts)


def clock(seconds: float) -> str:
    """A media time as windows are labelled: 7, 2:05, 1:02:05. Whole seconds; 0.5 s windows read 7.5."""
    whole = int(seconds)
    rest = seconds - whole
    hours, minutes, secs = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}" if minutes else str(secs)
    return text if rest < 1e-6 else f"{text}.{round(rest * 10)}"


def parse_clock(text: str) -> float | None:
    """The inverse of `clock`, or None when the text is no time."""
    try:
        parts = [float(p) for p in text.strip().split(":")]
    except ValueError:
        return None
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + part
    return seconds if parts and all(0 <= p for p in parts) else None


def times_in(question: str) -> list[float]:
    """Media times, in seconds, that a question names: "at 12:34", "at 75 s"."""
    found = [int(h or 0) * 3600.0 + int(m) * 60 + float(s) for h, m, s in _CLOCK.findall(question)]
    found += [float(n) * _SIZES[unit[0].lower()] for n, unit in _SECONDS.findall(question)]
    return [t for t in dict.fromkeys(found) if math.isfinite(t)]


def moment_in(question: str) -> tuple[float, slice] | None:
    """The one moment that a question is about, in seconds, and where it stands: "what was at 12:34?". None for several
    times, and for others, as in "5 minutes ago" and "within 20 s"."""
    found = _MOMENT.search(question)
    if found is None or len(times := times_in(question)) != 1:
        return None
    return times[0], slice(*found.span("time"))
