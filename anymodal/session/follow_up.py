"""What a follow-up means by itself: "and its size?" after "where was the red star?" is "what is the size of the red star?".

A small language model that was trained on single questions does not read earlier ones; whole questions it reads. What
names things are the words of the bundle's `search`. A question that follows up in another way is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from anymodal.config_words import SearchSpec
from anymodal.language.tokenizer import clock
from anymodal.session.log import Turn

THING, HEARD = ("size", "color", "shape"), ("pitch", "sound")  # kinds of words that name one thing together
_NOUNS = ("object", "thing", "shape", "item", "one")
_SO = r"(?:(?:and|so|ok|then|but|now) )*"
_THAT = r"(?:that|this|it)"
_NEXT = re.compile(rf"{_SO}(?:what )?(?:(?:happen(?:s|ed)?|c(?:a|o)mes?|was (?:there|it)|is there|did you see) )?"
                   rf"(?:(?:right |just )?after(?: {_THAT}|wards)|next|then)")
_BEFORE = re.compile(rf"{_SO}(?:what )?(?:(?:happen(?:s|ed)?|came|was (?:there|it)|did you see) )?"
                     rf"(?:right |just )?before {_THAT}")
_OF_IT = re.compile(rf"{_SO}(?:what (?:is|was|about) |how about )?its (\w+)")
_OTHER = re.compile(rf"{_SO}(?:what about |how about )?(?:the|a|an) (.+)")
_IT = re.compile(r"\b(?:it|(?:that|this) (?:one|object|thing|shape|item))\b")
_ITS = re.compile(r"\bits\b")


class FollowUps:
    """Of one bundle's words; None: questions are left as they are."""

    def __init__(self, search: SearchSpec | None) -> None:
        self._runs = [_run(search, kinds, nouns) for kinds, nouns in ((THING, _NOUNS), (HEARD, ()))] if search else []
        self._wholly = _run(search, (THING[-1], HEARD[-1]), ()) if search else None

    def meant(self, question: str, turns: Sequence[Turn], window_s: float) -> str:
        """A question by itself, of what was asked and answered before it, oldest first."""
        text = " ".join(question.lower().split()).rstrip("?!. ")
        if not turns or not self._runs:
            return question
        before = self.meant(turns[-1].question, turns[:-1], window_s).lower()
        spans = turns[-1].evidence
        if spans and _NEXT.fullmatch(text):
            return f"what was happening at {_at(max(e.end_s for e in spans))}?"
        if spans and _BEFORE.fullmatch(text):
            return f"what was happening at {_at(max(0.0, min(e.start_s for e in spans) - window_s))}?"
        if (other := _OTHER.fullmatch(text)) and (said := self._instead(before, other[1])):
            return said
        if self._names(text) or not (name := self._name(before, turns[-1].text.lower())):
            return question
        if found := _OF_IT.fullmatch(text):
            return f"what is the {found[1]} of the {name}?"
        said = _ITS.sub(f"the {name}'s", _IT.sub(f"the {name}", text))
        return question if said == text else f"{said}?"

    def _names(self, text: str) -> bool:
        """Whether a question names what it is about: "is it large?" does not."""
        return any(self._whole(found[0]) for run in self._runs for found in run.finditer(text))

    def _whole(self, name: str) -> bool:
        return name.endswith(_NOUNS) or self._wholly.search(name) is not None

    def _name(self, question: str, answer: str) -> str:
        """The thing that was spoken of last, or the sound."""
        if not self._runs[0].search(f"{question} {answer}"):
            return found[0] if (found := self._runs[1].search(question) or self._runs[1].search(answer)) else ""
        asked, said = (found[0] if (found := self._runs[0].search(text)) else "" for text in (question, answer))
        if not said or not asked:
            return asked or said
        noun = next((n for n in _NOUNS if asked.endswith(n)), "")
        return f"{asked.removesuffix(noun)}{said}" if noun and " " not in said else said if " " in said else asked

    def _instead(self, before: str, other: str) -> str:
        """The question before, of another thing; "": it spoke of none such."""
        for run in self._runs:
            if run.fullmatch(other) and (found := run.search(before)):
                noun = found[0].rsplit(" ", 1)[-1]
                named = re.sub(r"\bone$", noun, other)
                return f"{before[: found.start()]}{named}{before[found.end() :]}"
        return ""


def _run(search: SearchSpec, kinds: Iterable[str], nouns: Iterable[str]) -> re.Pattern[str]:
    """Words of these kinds one behind another, with a noun at their end or not."""
    values = {value for kind in kinds for value in search.words.get(kind, ())}
    words = values | {name for name, value in search.synonyms.items() if value in values}
    each = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    noun = f"(?: (?:{'|'.join(nouns)}))?" if nouns else ""
    return re.compile(rf"\b(?:{each})(?: (?:{each}))*{noun}\b")


def _at(t_s: float) -> str:
    return f"{clock(t_s)} s" if t_s < 60 else clock(t_s)
