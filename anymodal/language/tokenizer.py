"""A byte-level BPE tokenizer: any UTF-8 text in, no unknown token, case folded.

Clock numbers (0 to 59, and 00 to 09) are single tokens, so that a time in an answer is a copy of a window's label.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from anymodal.errors import WeightsError

PAD, EOS, BOS, WINDOW, QUESTION, ANSWER = range(6)
SPECIAL = ("<pad>", "<eos>", "<bos>", "<window>", "<question>", "<answer>")
EVIDENCE = {"video": 6, "audio": 7, "imu": 8, "depth": 9, "thermal": 10}  # "<video> 3 5": relies on windows 3 to 5
_ALL = (*SPECIAL, *(f"<{m}>" for m in EVIDENCE), *(f"<spare{i}>" for i in range(5)))
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
        self.model = Tokenizer.from_file(str(path))
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
