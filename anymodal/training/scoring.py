"""Scores of answers: exact match, attribute F1, overlap of evidence, calibration, and how sure each figure is.

Everything here is arithmetic on texts and spans; nothing needs a model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anymodal.playground.questions import CANNOT_TELL, DESCRIPTIONS, KINDS, OUTSIDE, Question
from anymodal.playground.world import (
    COLORS,
    DEVICE_MOTIONS,
    PITCHES,
    PLACES,
    SHAPES,
    SIZES,
    SOUNDS,
    VISUAL_EVENTS,
)
from anymodal.types import Evidence

Z_95 = 1.959964
SPLIT_BY_OBJECTS = ("color", "shape", "size")  # reported apart for clips of one object and of several
TYPES: tuple[str, ...] = tuple(name for kind in KINDS if kind not in DESCRIPTIONS for name in (
    (f"{kind}.one", f"{kind}.many") if kind in SPLIT_BY_OBJECTS else (kind,)))
"""What `overall` averages over: every exact-match type, always the same list."""

EVENT_TYPES = frozenset({
    "event_kind", "event_when", "color_before", "color_after", "order", "order_yn", "sound_what", "sound_first",
    "sound_last", "sound_when", "sound_while_visible", "sound_during", "device_motion", "device_when"})
"""Questions about something that happens at a time: their evidence can be wrong."""

_ATTRIBUTES = sorted((*COLORS, *SHAPES, *SIZES, *PLACES, *VISUAL_EVENTS, *PITCHES, *SOUNDS, *DEVICE_MOTIONS, "still",
                      "silence"), key=len, reverse=True)
_ATTRIBUTE = re.compile(r"\b(" + "|".join(map(re.escape, _ATTRIBUTES)) + r")\b")
_PARTS = re.compile(r"[,;.]|\band\b")


def normal(text: str) -> str:
    """Case folded, punctuation to spaces, single spaces."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())


def is_right(question: Question, text: str) -> bool:
    """Does the text match the answer or one of its other wordings, but for case and punctuation?"""
    return normal(text) in {normal(t) for t in (question.answer, *question.accept)}


def is_refusal(text: str) -> bool:
    """Does the model say that it cannot tell, or that this is outside what it knows?"""
    return normal(text) in (normal(CANNOT_TELL), normal(OUTSIDE))


def type_of(kind: str, objects: int) -> str:
    """The type a question counts under: colour, shape and size by how many objects its clip shows."""
    return f"{kind}.{'one' if objects == 1 else 'many'}" if kind in SPLIT_BY_OBJECTS else kind


# --- descriptions ------------------------------------------------------------------------------------------------

def attributes(text: str) -> list[frozenset[str]]:
    """The attribute words of each part of a description: what one object, sound or motion is said to be."""
    found = (frozenset(_ATTRIBUTE.findall(part)) for part in _PARTS.split(text.casefold()))
    return [part for part in found if part]


def attribute_f1(said: str, truth: str) -> float:
    """F1 of attribute words, each bound to its object: parts are paired so that they share the most."""
    ours, theirs = attributes(said), attributes(truth)
    if not ours or not theirs:
        return float(ours == theirs)
    left, shared = list(theirs), 0
    pairs = sorted(((len(a & b), i) for i, a in enumerate(ours) for b in theirs), reverse=True)
    paired: set[int] = set()
    for _, i in pairs:
        if i in paired or not left:
            continue
        best = max(left, key=lambda b: (len(ours[i] & b), -len(b)))
        shared += len(ours[i] & best)
        left.remove(best)
        paired.add(i)
    precision, recall = shared / sum(map(len, ours)), shared / sum(map(len, theirs))
    return 2 * precision * recall / (precision + recall) if shared else 0.0


# --- evidence ----------------------------------------------------------------------------------------------------

def evidence_iou(said: Sequence[Evidence], truth: Sequence[Evidence], window_s: float) -> float:
    """Intersection over union of the spans' media time, the truth's snapped outwards to windows.

    All spans count, of whatever modality: several spans are the union of their time.
    """
    snapped = [(math.floor(e.start_s / window_s + 1e-6) * window_s, math.ceil(e.end_s / window_s - 1e-6) * window_s)
               for e in truth]
    ours = [(e.start_s, e.end_s) for e in said]
    union = _length([*ours, *snapped])
    return (_length(ours) + _length(snapped) - union) / union if union else 1.0


def _length(spans: Sequence[tuple[float, float]]) -> float:
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


# --- how sure ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Share:
    """A share of `n` with its 95 % interval."""

    n: int
    value: float
    low: float
    high: float


def wilson(right: int, n: int) -> Share:
    """A share and its 95 % interval after Wilson 1927, sound for small n and for shares near 0 and 1."""
    if n == 0:
        return Share(0, math.nan, 0.0, 1.0)
    p, z2 = right / n, Z_95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Share(n, p, max(0.0, middle - half), min(1.0, middle + half))


def macro(right_CT: np.ndarray, asked_CT: np.ndarray, draws: int = 2000, seed: int = 0) -> Share:
    """The mean over types of their shares, with a 95 % interval from resampling whole clips.

    right_CT, asked_CT: questions right and asked, by clip and type. A type that was never asked is left out.
    """
    asked = asked_CT.sum(0)
    if not asked.any():
        return Share(0, math.nan, 0.0, 1.0)
    right_CT, asked_CT = right_CT[:, asked > 0], asked_CT[:, asked > 0]
    clips = len(asked_CT)
    counts = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), draws)
    drawn_asked = counts @ asked_CT
    shares = np.where(drawn_asked > 0, counts @ right_CT / np.maximum(drawn_asked, 1), np.nan)
    low, high = np.nanpercentile(np.nanmean(shares, axis=1), [2.5, 97.5])
    value = float((right_CT.sum(0) / asked_CT.sum(0)).mean())
    return Share(int(asked.sum()), value, float(low), float(high))


def reliability(confidence: Sequence[float], right: Sequence[bool], bins: int = 10) -> tuple[float, list[dict]]:
    """Expected calibration error, and per bin of confidence: n, mean confidence, share right (Guo et al. 2017)."""
    confidence_N, right_N = np.asarray(confidence, float), np.asarray(right, float)
    place = np.minimum((confidence_N * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for k in range(bins):
        here = place == k
        n = int(here.sum())
        if n:
            mean, share = float(confidence_N[here].mean()), float(right_N[here].mean())
            error += n / len(place) * abs(mean - share)
            rows.append({"low": k / bins, "high": (k + 1) / bins, "n": n, "confidence": mean, "right": share})
    return error, rows
