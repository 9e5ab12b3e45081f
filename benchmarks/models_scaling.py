"""The case `scaling` of `benchmarks/models.py`: what scaling frames already in decode does to answers.

`size_px: 96` lets the decoder scale (bilinear, within FFmpeg's conversion to RGB). Held-out clips of the playground, of
320x240 pixels and more, are pushed to two sessions of `tiny`, the same sound and motion to both: frames scaled in decode,
and frames decoded at full resolution and resized by Pillow, bicubic.

scaling_answers_equal  share of questions with the same answer in both, to the letter.
scaling_accuracy       share that is right: ours scaled in decode, baseline at full resolution.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import Row

CLIPS, SECONDS = 8, 8.0


def scaling(quick: bool, repeats: int) -> list[Row]:
    """Rows over all questions but captions, whose wording is free. `repeats` changes nothing: answers are no times."""
    from anymodal.agent import load
    from anymodal.playground.files import render_clips
    from anymodal.playground.questions import DESCRIPTIONS
    from anymodal.playground.truth import load_truth
    from anymodal.training.scoring import is_right

    agent, same, right = load("tiny"), [], []
    with tempfile.TemporaryDirectory() as folder:
        clips = render_clips(folder, seed=3, count=1 if quick else CLIPS, seconds=2.0 if quick else SECONDS)
        for clip in clips:
            questions = [q for q in load_truth(clip.with_suffix(".json")).questions if q.type not in DESCRIPTIONS]
            questions = questions[:3] if quick else questions
            texts = [q.question for q in questions]
            ours, theirs = (answers(agent, clip, texts, in_decode=which) for which in (True, False))
            same += [a == b for a, b in zip(ours, theirs, strict=True)]
            right += [(is_right(q, a), is_right(q, b)) for q, a, b in zip(questions, ours, theirs, strict=True)]
    share, (scaled, whole) = float(np.mean(same)), (float(x) for x in np.mean(right, 0))
    case = f"tiny, {len(same)} questions"
    return [Row("scaling_answers_equal", share, 1.0, share, None, "share", case),
            Row("scaling_accuracy", scaled, whole, scaled / whole if whole else 0.0, None, "share", case)]


def answers(agent: Any, clip: Path, questions: Sequence[str], *, in_decode: bool) -> list[str]:
    """What a session says that was pushed the clip's packets."""
    with agent.open() as session:
        for packet in packets(agent.spec, clip, in_decode=in_decode):
            session.push(packet)
        session.flush()
        return [session.ask(question).text for question in questions]


def packets(spec: Any, clip: Path, *, in_decode: bool) -> Iterator[Any]:
    """A clip's packets on a bundle's grids, frames of its size_px."""
    from anymodal.media.source import open_media
    from anymodal.media.spec import stream_specs

    specs = stream_specs(spec.modalities)
    sizes = {name: s.size_px for name, s in specs.items() if s.is_picture}
    if not in_decode:
        specs = {name: replace(s, size_px=None) if s.is_picture else s for name, s in specs.items()}
    with open_media(clip, specs) as source:
        for packet in source:
            px = sizes.get(packet.stream)
            if px is not None and packet.data.shape[:2] != (px, px):
                frame = Image.fromarray(packet.data).resize((px, px), Image.Resampling.BICUBIC)
                packet = replace(packet, data=np.asarray(frame))
            yield packet
