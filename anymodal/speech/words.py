"""Questions as they are spoken and as they are typed: numbers of seconds are words in the one, digits in the other."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNITS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
          "seventeen eighteen nineteen").split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * (i + 2) for i, word in enumerate(_TENS)}
_NUMBER = rf"(?:(?:{'|'.join(_TENS)})(?: (?:{'|'.join(_UNITS[1:10])}))?|{'|'.join(_UNITS[10:] + _UNITS[:10])})"
_COUNTED = re.compile(rf"\b({_NUMBER}) (seconds?)\b|\b(second) ({_NUMBER})\b")
_SAY = (("secs", "seconds"), ("sec", "second"), ("u", "you"), ("r", "are"), ("pls", "please"), ("wanna", "want to"),
        ("colour", "color"), ("coloured", "colored"), ("centre", "center"), ("disc", "disk"), ("summarise", "summarize"))


def number_words(value: int) -> str:
    """0 to 99 in words: 27 -> "twenty seven"."""
    if value < 20:
        return _UNITS[value]
    return _TENS[value // 10 - 2] + (f" {_UNITS[value % 10]}" if value % 10 else "")


def spoken(text: str) -> str:
    """A typed question as it is said: lower case, no punctuation, numbers in words. "At 5 s?" -> "at five seconds"."""
    text = re.sub(r"(\d+) ?s\b", r"\1 seconds", text.casefold().replace("\u2019", "'"))
    text = re.sub(r"\d+", lambda m: number_words(int(m[0])) if int(m[0]) < 100 else m[0], text)
    words = re.sub(r"[^\w']", " ", text).split()
    return " ".join(dict(_SAY).get(word.strip("'"), word.strip("'")) for word in words)


def written(text: str) -> str:
    """What was said as it is typed: "at five seconds" -> "at 5 seconds". "one" alone is no number."""
    def digits(match: re.Match) -> str:
        words, seconds, second, after = match.groups()
        value = str(sum(_VALUES[word] for word in (words or after).split()))
        return f"{value} {seconds}" if words else f"{second} {value}"

    return _COUNTED.sub(digits, " ".join(text.split()))


def word_errors(said: str, truth: str) -> tuple[int, int]:
    """(words inserted, deleted or replaced at the least, words of the truth), both as spoken."""
    ours, theirs = spoken(said).split(), spoken(truth).split()
    return edits(ours, theirs), len(theirs)


def edits(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(theirs) + 1))
    for i, a in enumerate(ours, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(theirs, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
