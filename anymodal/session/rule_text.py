"""What a standing rule's text asks for, and the question that the mind is asked about it at every window.

    "Tell me when a bell rings."  ->  condition "a bell rings"  ->  "Now: a bell rings?"

The question is short because a stream may have a hundred rules, and begins alike for all of them.
"""

from __future__ import annotations

import re

from anymodal.errors import InputError

MAX_RULE_CHARS = 300
_ASKS = re.compile(
    r"^(?:(?:hey|hi|ok|okay|so|and|please|now|from now on|can you|could you|would you|will you|"
    r"i want you to|i'd like you to)[\s,]+)*"
    r"(?:tell|let|alert|notify|warn|ping|inform|remind|message|call|say|shout|speak|report|watch|look|listen|wait|note)\b"
    r"[\w\s',]*?\b(?:when(?:ever)?|if|once|as soon as|every time|each time|the moment|that)\s+", re.IGNORECASE)
_WHEN = re.compile(r"^(?:when(?:ever)?|if|once|as soon as|every time|each time|the moment)(?:\s+|$)", re.IGNORECASE)
_NOTHING = re.compile(r"(?:(?:please|tell|let|alert|notify|warn|ping|inform|remind|me|us|know|it|that|happens)\b\s*)+",
                      re.IGNORECASE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\s+")
_THEN = re.compile(r"[\s,]+(?:(?:then\s+)?(?:please\s+)?(?:tell|alert|notify|warn|ping|inform)\s+me|let\s+me\s+know|please|"
                   r"thanks|thank you)$", re.IGNORECASE)


def condition_of(rule: str) -> str:
    """What the rule waits for. Raises InputError for a rule that is no text, says nothing, or is far too long."""
    if not isinstance(rule, str):
        raise InputError(f"a rule is text, found {type(rule).__name__} {rule!r:.80}", fix=_EXAMPLE)
    if len(rule) > MAX_RULE_CHARS:
        raise InputError(f"the rule has {len(rule)} characters, at most {MAX_RULE_CHARS} are read", fix="shorten it")
    text = _bare(rule)
    before = None
    while before != text:
        before = text
        text = _bare(_THEN.sub("", text))
    text = _bare(_WHEN.sub("", _ASKS.sub("", text + " ").strip()))
    if not re.search(r"\w", text) or _NOTHING.fullmatch(text):
        raise InputError(f"the rule says nothing to wait for: {rule!r:.80}", fix=_EXAMPLE)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def now_question(rule: str) -> str:
    """The question whose answer is yes in each window in which the rule's condition holds. Raises InputError."""
    return f"Now: {condition_of(rule)}?"


def same_rule(one: str, other: str) -> bool:
    """Whether two rules wait for the same words; "a bell" is "the bell"."""
    return _plain(one) == _plain(other)


def _plain(rule: str) -> str:
    return _ARTICLES.sub("", condition_of(rule).casefold())


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(" .,;:!?\"")


_EXAMPLE = 'for example "tell me when a bell rings"'
