"""What a follow-up means by itself: "and its size?" after "where was the red star?" is "what is the size of the red star?".

A small language model that was trained on single questions does not read earlier ones; whole questions it reads. What
names things are the words of the bundle's `search`. A question that follows up in another way is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from anymodal.config_words import PointSpec, SearchSpec
from anymodal.language.tokenizer import clock
from anymodal.session.log import Turn

_NOUNS = ("object", "thing", "shape", "item", "one")
THING, HEARD = (("size", "color", "shape"), _NOUNS), (("pitch", "sound"), ())  # kinds of words that name one
_USUAL = frozenset("""is was does did do it its the a an still there now me tell of about and so ok then but you say what
    which where when who how that this one ones in on at to for has have had or not also with""".split())
_SO = r"(?:(?:and|so|ok|then|but|now) )*"
_THAT = r"(?:that|this|it)"
_NEXT = re.compile(rf"{_SO}(?:what )?(?:(?:happen(?:s|ed)?|c(?:a|o)mes?|was (?:there|it)|is there|did you see) )?"
                   rf"(?:(?:right |just )?after(?: {_THAT}|wards)|next|then)")
_BEFORE = re.compile(rf"{_SO}(?:what )?(?:(?:happen(?:s|ed)?|came|was (?:there|it)|did you see) )?"
                     rf"(?:right |just )?before {_THAT}")
_OF_IT = re.compile(rf"{_SO}(?:what (?:is|was|about) |how about )?its (\w+)")
_OTHER = re.compile(rf"{_SO}(?:what about |how about )?(?:the|a|an) (.+)")
_IT = re.compile(r"\b(?:it|(?:that|this) (?:one|object|thing|shape|item))\b")
_KIND = re.compile(r"\b(?:what|which) (?:shape|object|thing|item)\b")
_REFERS = re.compile(r"^ *(?:and|so|then|but)\b|\b(?:its?|that|this|those|these|they|them|then|else|again)\b")
_ITS, _WORD = re.compile(r"\bits\b"), re.compile(r"[a-z]+")


class FollowUps:
    """Of one bundle's words; without any, questions are left as they are."""

    def __init__(self, search: SearchSpec | None, point: PointSpec | None = None) -> None:
        self._things, self._sounds = (_run(search, *kinds) for kinds in (THING, HEARD)) if search else (None, None)
        known = [search.plain, *search.words.values(), {w for w in search.synonyms if " " not in w}] if search else []
        known += [point.inside, *point.asks.values(), point.before, point.after, point.starts, point.lasts] if point else []
        self._known = {w for words in known for name in words for w in name.split()} | _USUAL

    def meant(self, question: str, turns: Sequence[Turn], window_s: float, now_s: float) -> str:
        """A question by itself, asked at `now_s`, of what was asked and answered before it, oldest first."""
        text = " ".join(question.lower().split()).rstrip("?!. ")
        if not turns or self._things is None:
            return question
        before = self.meant(turns[-1].question, turns[:-1], window_s, turns[-1].at_s).lower()
        if spans := turns[-1].evidence:
            first_s, last_s = min(e.start_s for e in spans), max(e.end_s for e in spans)
            if _NEXT.fullmatch(text) and last_s < now_s:
                return f"what was happening at {_at(last_s)}?"
            if _BEFORE.fullmatch(text) and first_s > 0:
                return f"what was happening at {_at(max(0.0, first_s - window_s))}?"
        if (other := _OTHER.fullmatch(text)) and (said := self._instead(before, other[1])):
            return said
        name = self._name(before, turns[-1].text.lower())
        if not name or _longest(self._things, text) or _longest(self._sounds, text):
            return question
        if found := _OF_IT.fullmatch(text):
            return f"what is the {found[1]} of the {name}?"
        said = _ITS.sub(f"the {name}'s", _IT.sub(f"the {name}", text))
        return question if said == text or not self._known.issuperset(_WORD.findall(text)) else f"{said}?"

    def whole(self, question: str) -> bool:
        """Whether a question needs none of the earlier ones, by its words."""
        text = question.lower()
        if self._things is None:
            return False
        named = _longest(self._things, text) or _longest(self._sounds, text)
        return named is not None or not _REFERS.search(text) and len(_WORD.findall(text)) > 2

    def _name(self, question: str, answer: str) -> str:
        """The thing that was spoken of last, or the sound."""
        asked, said = (found[0] if (found := _longest(self._things, text)) else "" for text in (question, answer))
        if not (asked or said):
            return found[0] if (found := _longest(self._sounds, question) or _longest(self._sounds, answer)) else ""
        noun = next((n for n in _NOUNS if asked.endswith(n)), "")
        if not said or not asked or " " in said:
            return said or asked
        return f"{asked.removesuffix(noun)}{said}" if noun else asked

    def _instead(self, before: str, other: str) -> str:
        """The question before, of another thing; "": it spoke of none such."""
        for run in (self._things, self._sounds):
            if run.fullmatch(other) and (found := _longest(run, before)):
                named = re.sub(r"\bone$", found[0].rsplit(" ", 1)[-1], other)
                return f"{before[: found.start()]}{named}{before[found.end() :]}"
        return ""


def _longest(run: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The name in a text that says most: not "shape" of "what shape is the red object"."""
    bare = _KIND.sub(lambda found: "-" * len(found[0]), text)
    return max(run.finditer(bare), key=lambda found: len(found[0]), default=None)


def _run(search: SearchSpec, kinds: Sequence[str], nouns: Sequence[str]) -> re.Pattern[str]:
    """A noun, which is a word of the last of these kinds or one of these, behind words of the others or none."""
    def of(*names: str) -> str:
        values = {value for kind in names for value in search.words.get(kind, ())}
        words = values | {name for name, value in search.synonyms.items() if value in values}
        return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))

    return re.compile(rf"\b(?:(?:{of(*kinds[:-1])}) )*(?:{'|'.join([of(kinds[-1]), *nouns])})\b")


def _at(t_s: float) -> str:
    return f"{clock(t_s)} s" if t_s < 60 else clock(t_s)
