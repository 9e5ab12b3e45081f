"""The words of a bundle: what can be searched for, and what of it tokens tell where an answer is given.

Read as a part of the bundle's YAML by `anymodal.config`, under the keys `search` and `point`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from anymodal.errors import ConfigError, nearest


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_STEM = 4  # letters by which forms of a word are known


class SearchSpec(_Strict):
    """What can be searched for: the phrases that the joint space was trained to tell apart, by modality.

    A phrase with {fields} stands for one with each of the `words` of that name. A modality whose tokens say different
    things has a list of phrases for each of them. `nothing`: phrases for when there is none of the others; they are not
    found. `tells`: kinds of `words` whose happening tokens tell without the language model, from which likelihood on;
    `plain`: words that add nothing to such a condition.
    """

    words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    phrases: dict[str, tuple[str, ...] | tuple[tuple[str, ...], ...]]
    nothing: tuple[str, ...] = ()
    synonyms: dict[str, str] = Field(default_factory=dict)
    tells: dict[str, PositiveFloat] = Field(default_factory=dict)
    plain: frozenset[str] = frozenset()
    scale: float = Field(10.0, gt=0)  # of the softmax over a modality's phrases,
    scales: dict[str, PositiveFloat] = Field(default_factory=dict)  # and of some in its place
    at_least: float = Field(0.5, gt=0, le=1)  # probability of a hit

    @model_validator(mode="after")
    def _named(self) -> SearchSpec:
        every = {p for modality in self.phrases for group in self.groups(modality) for p in group}
        for phrase in every:
            for name in re.findall(r"{(\w*)}", phrase):
                if name not in self.words:
                    raise ValueError(f"phrase {phrase!r} names {name!r}; {nearest(name, self.words)}")
        for kind in set(self.tells) - set(self.words):
            raise ValueError(f"tells: {kind!r} is not among the words; {nearest(kind, self.words)}")
        for phrase in set(self.nothing) - every:
            raise ValueError(f"nothing: {phrase!r} is not among the phrases; {nearest(phrase, every)}")
        return self

    def groups(self, modality: str) -> tuple[tuple[str, ...], ...]:
        """The phrases that are told apart from one another: one group for all tokens, or one for each."""
        given = self.phrases[modality]
        return given if given and isinstance(given[0], tuple) else (given,)

    def knows(self, text: str, point: PointSpec) -> bool:
        """Whether a text has a word, in some form, that tokens say or that asks for such words."""
        if any(re.search(rf"\b{re.escape(phrase)}", text.lower()) for phrase in self.synonyms if " " in phrase):
            return True
        values = (*chain.from_iterable(self.words.values()), *self.nothing, *point.says.values())
        words = {w for value in values for w in value.split()} | {w for w in self.synonyms if " " not in w}
        begins = {w[:_STEM] for w in (words - self.plain).union(*point.asks.values()) if len(w) > 2}
        begins |= {w[:_STEM] for w in ("objects", "things", "shapes")}
        begins |= {w[:_STEM] for phrases in map(self.groups, self.phrases) for group in phrases for phrase in group
                   for w in phrase.split("{")[0].split() if w not in self.plain and len(w) > 2}
        return any(w[:_STEM] in begins or w in begins for w in re.findall(r"[a-z]+", text.lower().removeprefix("now:")))


class PointSpec(_Strict):
    """Where what soft tokens say weighs in on an answer. Words are those of questions, unless they are said to be of tokens
    or of answers; a kind is one of `search.words`."""

    kinds: tuple[str, ...]  # whose words an answer takes from tokens
    says: dict[str, str] = Field(default_factory=dict)  # a word of tokens -> how an answer says it
    asks: dict[str, frozenset[str]] = Field(default_factory=dict)  # kind -> words that ask which of it there is
    before: frozenset[str] = frozenset()  # that ask of the time before what is named,
    after: frozenset[str] = frozenset()  # and after it,
    turns: frozenset[str] = frozenset()  # as these do behind the word for a change
    first: frozenset[str] = frozenset()  # that ask which of two things came first
    starts: frozenset[str] = frozenset()  # that ask of a thing as it was at first, or of the first of several,
    lasts: frozenset[str] = frozenset()  # and of the last
    counts: frozenset[str] = frozenset()  # that have things counted
    polar: tuple[str, ...] = ()  # beginnings of what asks for yes or no: "is there a"
    whether: tuple[str, ...] = ()  # and of what asks it of whatever these name: "does",
    anything: tuple[str, ...] = ()  # "anything", as in "does anything bounce?"
    unless: frozenset[str] = frozenset()  # where yes says more than that what is named was there at some time
    halves: dict[str, str] = Field(default_factory=dict)  # a word that names something only with this one behind it
    things: tuple[str, ...] = ()  # kinds by whose words a thing is listed
    begins: str = ""  # what tokens say, too, where a sound or a motion begins,
    becomes: str = ""  # where a thing's first word becomes another,
    comes: str = ""  # where it comes to be seen,
    leaves: dict[str, str] = Field(default_factory=dict)  # where it ceases to have a word of a kind,
    parts: str = ""  # of a thing in the place that it leaves in a window,
    enters: str = ""  # and in the one it comes to
    none: dict[str, str] = Field(default_factory=dict)  # kind -> the answer where a thing has no word of it
    unseen: str = ""  # the answer where it cannot be told,
    outside: str = ""  # and to a question of another world,
    inside: frozenset[str] = frozenset()  # which one about a thing is not with no more than these words, and others here

    @property
    def changing(self) -> str:
        """The kind of which a thing's word becomes another; none: ""."""
        return self.things[0] if self.becomes and self.things else ""


def check_words(search: SearchSpec | None, reader: Mapping[str, Any] | None, point: PointSpec | None, published: bool,
                where: str) -> None:
    """What is read off tokens needs words to look for, and who reads them: `reader`, its options. Raises ConfigError."""
    if reader is not None and (search is None or published):
        raise ConfigError(f"{where}: a word_reader reads the words of `search` off tokens trained to say them",
                          fix="add search, or leave word_reader out" if search is None else "leave word_reader out")
    if reader is None and (point is not None or search is not None and search.tells):
        name = "search.tells" if point is None else "point"
        raise ConfigError(f"{where}: `{name}` goes by what tokens say, and there is no word_reader",
                          fix="add a word_reader part, or leave it out")
    if point is None:
        return
    for kind in point.none:
        if kind not in point.kinds:
            raise ConfigError(f"{where}: point.none names {kind!r}, which is not among point.kinds",
                              fix=nearest(kind, point.kinds))
    for kind in (*point.kinds, *point.asks, *point.none, *point.leaves, *point.things):
        if kind not in search.words:
            raise ConfigError(f"{where}: point names {kind!r}, which is not among search.words",
                              fix=nearest(kind, search.words))
    read = reader.get("words", ())
    told = (point.begins, point.becomes, point.comes, point.parts, point.enters)
    said = (word for value in point.says for word in value.split())
    for word in (*said, *point.leaves.values(), *point.halves.values(), *filter(None, told)):
        if word not in read:
            raise ConfigError(f"{where}: point names {word!r}, which word_reader.words has not", fix=nearest(word, read))
