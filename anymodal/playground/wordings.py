"""The language of the questions: many wordings a type, and the small ways in which people vary and mistype them.

    ask(random.Random(0), "color", {"obj": "red circle"}, noise=0)   ->  "Tell me the colour of the red circle."

Variation alters the question only. Answers stay in the world's own words, so every swap keeps the meaning.
"""

from __future__ import annotations

import random
import re
from string import Formatter

from anymodal.playground.held_out_templates import HELD_OUT_TEXT
from anymodal.playground.question_templates import TRAINING_TEXT


def split_block(block: str) -> tuple[str, ...]:
    """The wordings of one text block, separated by bars or ends of lines."""
    return tuple(part.strip() for line in block.splitlines() for part in line.split(" | ") if part.strip())


def fields(template: str) -> frozenset[str]:
    """The names of the fields a template uses."""
    return frozenset(name for _, name, _, _ in Formatter().parse(template) if name)


TEMPLATES: dict[str, tuple[str, ...]] = {kind: split_block(block) for kind, block in TRAINING_TEXT.items()}
HELD_OUT: dict[str, tuple[str, ...]] = {kind: split_block(block) for kind, block in HELD_OUT_TEXT.items()}
SLOTS: dict[str, frozenset[str]] = {
    kind: frozenset().union(*map(fields, texts + HELD_OUT[kind])) for kind, texts in TEMPLATES.items()
}
"""What ``ask`` needs for each type."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "colour": ("color",), "color": ("colour",), "colours": ("colors",), "colored": ("coloured",),
    "circle": ("disc", "disk", "round shape"), "circles": ("discs", "disks", "round shapes"),
    "ring": ("hoop", "donut"), "rings": ("hoops", "donuts"),
    "cross": ("plus", "plus sign"), "crosses": ("plus signs",),
    "square": ("box",), "squares": ("boxes",),
    "large": ("big",), "big": ("large",), "small": ("little", "tiny"),
    "purple": ("violet",),
    "object": ("thing", "item", "shape"), "objects": ("things", "items", "shapes"),
    "camera": ("device", "phone"), "device": ("camera", "phone"),
    "bell": ("chime",), "beep": ("tone", "bleep"),
    "clicks": ("ticking", "clicking"), "click train": ("run of clicks", "series of clicks"),
    "noise burst": ("hiss", "burst of noise"),
    "rising chirp": ("upward chirp", "chirp going up"), "falling chirp": ("downward chirp", "chirp going down"),
    "chirp up": ("rising chirp", "upward chirp"), "chirp down": ("falling chirp", "downward chirp"),
    "sound": ("noise",), "clip": ("video", "recording", "scene"), "picture": ("image", "frame", "scene"),
    "middle": ("centre", "center"),
    "disappear": ("vanish", "go away"), "disappeared": ("vanished", "went away"), "disappearing": ("vanishing",),
    "appear": ("show up",), "appeared": ("showed up",), "appearing": ("showing up",),
    "stop": ("come to rest", "halt"), "stopped": ("came to rest", "halted"), "stopping": ("coming to rest",),
    "collide": ("crash",), "collided": ("crashed",), "colliding": ("crashing",),
    "rotating": ("turning",), "rotated": ("turned",), "beginning": ("start",), "whether": ("if",),
    "second": ("sec",), "seconds": ("secs",), "tell me": ("say",), "visible": ("in sight",), "seen": ("spotted",),
    "now": ("right now", "at this point"),
}

# These are swapped only where they are nouns: "the bell ring" is no hoop, and "did it sound low" no noise.
_NOUNS_THAT_ARE_VERBS = {"ring", "rings", "cross", "crosses", "sound"}
_COLORS = "red orange yellow green blue purple violet pink white"
_BEFORE_A_NOUN = frozenset(
    f"a an the any that one many of all or count what which first last {_COLORS} small large big little tiny".split())
_BARRED = {("shape", "shape"), ("shape", "shapes")}

_CONTRACTIONS: dict[str, str] = {
    "what is": "what's", "where is": "where's", "when is": "when's", "how is": "how's", "who is": "who's",
    "there is": "there's", "that is": "that's", "it is": "it's", "did not": "didn't", "i would": "i'd",
    "is not": "isn't", "do you": "d'you", "want to": "wanna", "please": "pls", "you": "u", "are": "r",
}
_RARE_CONTRACTIONS = {"d'you", "wanna", "pls", "u", "r"}
_OPENERS = ("Hey, ", "Ok, ", "So, ", "Hi, ", "Well, ", "And ", "Please, ", "Quick question: ", "Um, ", "Hello. ",
            "One more: ", "Tell me, ", "Excuse me, ")
_CLOSERS = (" please", ", please", " thanks", " then", ", do you know", ", can you tell", " here")
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

_WORD = re.compile(r"[A-Za-z][A-Za-z']*")
_SWAPPABLE = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, SYNONYMS), key=len, reverse=True)) + r")\b", re.IGNORECASE)
_CONTRACTABLE = re.compile(
    r"\b(" + "|".join(sorted(_CONTRACTIONS, key=len, reverse=True)) + r")\b", re.IGNORECASE)


def _vocabulary() -> frozenset[str]:
    """Every word a question can hold, which a typo must therefore not produce."""
    texts = [text for block in (TEMPLATES, HELD_OUT) for texts in block.values() for text in texts]
    texts += [word for key, swaps in SYNONYMS.items() for word in (key, *swaps)]
    texts += [f"{_COLORS} circle square triangle star cross ring circles squares triangles stars crosses rings",
              "small large top bottom left right middle up down still appears disappears changes bounces collides",
              "beep chirp bell noise burst click clicks train low high rising falling shake shaking rotate rotating",
              "walk walking drop dropped stop stops stopped bounce bounced bouncing ring rang ringing edge",
              "tone hop flash loud soft",
              "one two three four five six seven eight nine ten zero none yes no not then than here there three"]
    return frozenset(word.lower() for text in texts for word in _WORD.findall(re.sub(r"\{\w*\}", " ", text)))


VOCABULARY: frozenset[str] = _vocabulary()


def ask(rng: random.Random, kind: str, slots: dict[str, str], *, held_out: bool = False, noise: float = 1.0) -> str:
    """One question of the given type.

    ``slots`` fills the fields listed in ``SLOTS[kind]``. ``held_out`` takes a wording that training never uses.
    ``noise`` scales the chance of every variation: 0 gives the plain filled template. Raises KeyError for an
    unknown type or a missing slot.
    """
    if kind not in TEMPLATES:
        raise KeyError(f"no question type {kind!r}: one of {', '.join(TEMPLATES)}")
    for name in sorted(SLOTS[kind]):
        if name not in slots:
            raise KeyError(f"question type {kind!r} needs slot {name!r}, and got {sorted(slots)}")
    text = rng.choice((HELD_OUT if held_out else TEMPLATES)[kind]).format_map(slots)
    return vary(rng, text, noise=noise, kind=kind)


def vary(rng: random.Random, text: str, *, noise: float = 1.0, kind: str = "") -> str:
    """The text as another person might type it: other words, contractions, punctuation, casing, typos."""
    if noise <= 0:
        return text
    text = swap_words(rng, text, kind=kind, chance=0.3 * noise)
    text = _contract(rng, text, 0.3 * noise)
    if rng.random() < 0.1 * noise:
        text = rng.choice(_OPENERS) + text[:1].lower() + text[1:]
    if text.endswith("?") and rng.random() < 0.04 * noise:
        text = text[:-1] + rng.choice(_CLOSERS) + "?"
    text = _punctuate(rng, text, noise)
    if rng.random() < 0.15 * noise:
        text = add_typo(rng, text)
        if rng.random() < 0.2 * noise:
            text = add_typo(rng, text)
    return _recase(rng, text, noise)


def swap_words(rng: random.Random, text: str, *, kind: str = "", chance: float = 1.0) -> str:
    """Each word that has synonyms is replaced by one of them with the given chance; "a"/"an" follows."""
    def swap(match: re.Match[str]) -> str:
        word = match.group().lower()
        before = ([""] + _WORD.findall(text[:match.start()].lower()))[-1]
        misread = word in _NOUNS_THAT_ARE_VERBS and before not in _BEFORE_A_NOUN
        if rng.random() >= chance or misread or (before, word) == ("right", "now"):
            return match.group()
        options = [new for new in SYNONYMS[word] if (kind, new) not in _BARRED]
        new = rng.choice(options)
        return new[0].upper() + new[1:] if match.group()[0].isupper() else new

    swapped = _SWAPPABLE.sub(swap, text)
    return swapped if swapped == text else fix_articles(swapped)


def fix_articles(text: str) -> str:
    """"a orange star" -> "an orange star", "an violet star" -> "a violet star"."""
    def fix(match: re.Match[str]) -> str:
        article = "an" if match.group(3).lower() in "aeio" else "a"
        return (article.capitalize() if match.group(1)[0].isupper() else article) + match.group(2) + match.group(3)

    return re.sub(r"\b(an?)(\s+)([a-z])(?=[a-z])", fix, text, flags=re.IGNORECASE)


def _contract(rng: random.Random, text: str, chance: float) -> str:
    def contract(match: re.Match[str]) -> str:
        short = _CONTRACTIONS[match.group().lower()]
        if rng.random() >= chance * (0.1 if short in _RARE_CONTRACTIONS else 1.0):
            return match.group()
        return short[0].upper() + short[1:] if match.group()[0].isupper() else short

    return _CONTRACTABLE.sub(contract, text)


def _punctuate(rng: random.Random, text: str, noise: float) -> str:
    draw = rng.random() / noise
    end = text[-1:] if text[-1:] in "?." else ""
    body = text[:-1] if end else text
    if draw < 0.2:
        return body
    if draw < 0.24:
        return body + rng.choice(("??", "???", " ?", "?!", "...", "!"))
    if draw < 0.27:
        return body + ("." if end == "?" else "?")
    if draw < 0.30:
        return text.replace(",", "").replace(":", "")
    if draw < 0.34 and " " in text:
        at = rng.choice([i for i, letter in enumerate(text) if letter == " "])
        return text[:at] + " " + text[at:]
    return rng.choice((" " + text, text + " ")) if draw < 0.36 else text


def _recase(rng: random.Random, text: str, noise: float) -> str:
    draw = rng.random() / noise
    if draw < 0.22:
        return text.lower()
    if draw < 0.25:
        return text.upper()
    if draw < 0.28:
        return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
    return text[:1].upper() + text[1:] if draw < 0.6 else text


def add_typo(rng: random.Random, text: str) -> str:
    """One slip of the fingers in one word of four letters or more; never one that makes another known word."""
    words = [match for match in _WORD.finditer(text) if len(match.group()) >= 4 and "'" not in match.group()]
    rng.shuffle(words)
    for match in words:
        wrong = _mistype(rng, match.group())
        if wrong.lower() not in VOCABULARY:
            return text[:match.start()] + wrong + text[match.end():]
    return text


def _mistype(rng: random.Random, word: str) -> str:
    """The word with two letters exchanged, one dropped, one doubled, or one from the next key."""
    at = rng.randrange(len(word) - 1)
    slip = rng.choice(("exchange", "drop", "double", "neighbour"))
    if slip == "exchange":
        return word[:at] + word[at + 1] + word[at] + word[at + 2:]
    if slip == "drop":
        return word[:at + 1] + word[at + 2:]
    if slip == "double":
        return word[:at] + word[at] + word[at:]
    row = next((row for row in _KEYBOARD if word[at].lower() in row), "")
    if not row:
        return word
    place = row.index(word[at].lower())
    near = [row[i] for i in (place - 1, place + 1) if 0 <= i < len(row)]
    return word[:at] + rng.choice(near) + word[at + 1:]
