"""What a bundle knows of depth and heat, at every second that can be asked about: nearest, hottest, warmer or colder.

    python -m benchmarks.cameras [--clips 80] [--seconds 8] [--bundle tiny] [--json FILE]

Held-out clips, rendered straight to tensors, in held-out wordings. `anymodal eval` asks all kinds of questions, and these
only a few times. `baseline` is the share of the commonest answer.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from anymodal.bundle import Bundle, load_bundle  # noqa: E402
from anymodal.playground.files import senses_of  # noqa: E402
from anymodal.playground.questions import FIELDS, Question, facts  # noqa: E402
from anymodal.playground.wordings import ask  # noqa: E402
from anymodal.playground.world import make_scene  # noqa: E402
from anymodal.training.asking import answer_batch, scene_windows, watch  # noqa: E402
from anymodal.training.scoring import is_right  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402

TARGET = 0.9  # of the questions of a kind


def asked(bundle: Bundle, seed: int, clip: int, seconds: int) -> list[tuple[Question, bool]]:
    """All questions about one clip's depth and heat, and whether each is answered right."""
    scene, dice = make_scene("test", seed, clip, seconds=seconds), random.Random(clip)
    found = facts(scene, dice, tuple(senses_of(bundle.spec)))
    questions = [Question(kind, ask(dice, fact.kind, fact.slots, held_out=True), fact.answer, fact.accept[:4])
                 for kind in sorted(FIELDS) for fact in found.get(kind, ())]
    state = watch(bundle.perception, bundle.mind, scene_windows(scene, bundle.spec))
    answers = answer_batch(bundle.mind, state, [q.question for q in questions])
    return [(q, is_right(q, a.text)) for q, a in zip(questions, answers, strict=True)]


def rows(found: dict[str, list[tuple[Question, bool]]]) -> list[Row]:
    made = []
    for kind, answered in sorted(found.items()):
        right = float(np.mean([ok for _, ok in answered]))
        commonest = Counter(q.answer for q, _ in answered).most_common(1)[0][1] / len(answered)
        made.append(Row(kind, 100 * right, 100 * commonest, right, TARGET, f"% right of {len(answered)}"))
    return made


def main(argv: list[str] | None = None) -> list[Row]:
    options = parser(__doc__.split("\n")[0])
    options.add_argument("--clips", type=int, default=80, help="how many clips")
    options.add_argument("--seconds", type=int, default=8, help="length of each")
    options.add_argument("--seed", type=int, default=3, help="of the clips, within the test split")
    options.add_argument("--bundle", default="tiny")
    chosen = options.parse_args(argv)
    torch.set_num_threads(1)
    bundle, found = load_bundle(chosen.bundle), defaultdict(list)
    for clip in range(chosen.clips):
        for question, right in asked(bundle, chosen.seed, clip, chosen.seconds):
            found[question.type].append((question, right))
    made = rows(found)
    report("depth and heat, every second", made, chosen.json)
    return made


if __name__ == "__main__":
    main()
