"""What was found, as one JSON-able mapping, and that as tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from anymodal.config import BundleSpec
from anymodal.playground.questions import DESCRIPTIONS, YES_NO
from anymodal.training.scoring import (
    EVENT_TYPES,
    TYPES,
    Share,
    attribute_f1,
    evidence_iou,
    is_refusal,
    macro,
    reliability,
    wilson,
)

if TYPE_CHECKING:
    from anymodal.training.evaluate import Findings, Row

CONTROLS = {
    "text_only": "text: no sensors, and refusing is barred", "majority": "prior: the type's commonest training answer",
    "other_clip": "other: another clip's sensors", "shuffled": "mixed: frames in shuffled order",
    "tensors": "direct: rendered without a file"}
NARROWEST = 100
MISTAKES = 8  # the commonest of each type are kept in the JSON
PRIORS = ("text_only", "majority")  # what can be known without looking
MARGIN, MARGIN_YES_NO = 0.25, 0.20  # by which every type should beat the priors
TARGETS = {
    "color.one": 0.97, "shape.one": 0.97, "size.one": 0.97, "sound_what": 0.97, "pitch": 0.97, "device_motion": 0.97,
    "color.many": 0.90, "shape.many": 0.90, "size.many": 0.90, "count": 0.92, "exists": 0.92, "place_now": 0.88,
    "place_first": 0.88, "motion": 0.85, "event_kind": 0.90, "color_before": 0.90, "color_after": 0.90,
    "event_when": 0.80, "sound_when": 0.80, "device_when": 0.80, "order": 0.75, "sound_while_visible": 0.75}
TARGET_OVERALL, TARGET_IOU, TARGET_PAIRS, MOST_OTHER_CLIP = 0.88, 0.75, 0.85, 0.30
TARGET_REFUSED, MOST_WRONGLY_REFUSED, MOST_FILE_LOSS = 0.90, 0.02, 0.02


def build_report(findings: Findings, spec: BundleSpec, about: dict[str, Any]) -> dict[str, Any]:
    """Everything measured; shares in [0, 1], times in seconds, None where nothing was asked."""
    exact = [r for r in findings.rows if r.question.type not in DESCRIPTIONS]
    return _plain({
        **about,
        "overall": {**_share(_macro(exact)), **_control_macros(exact)},
        "types": {kind: _type(kind, [r for r in exact if r.kind == kind]) for kind in TYPES},
        "captions": _captions(findings.rows),
        "evidence": _evidence(exact, spec.window_s),
        "calibration": _calibration(exact),
        "off_world": _off_world(findings, exact),
        "compositional": _compositional(findings.compositional),
        "speed": {"first_token_s": _middle(findings.first_token_s), "clip_s": _middle(findings.clip_s)},
    })


def _type(kind: str, rows: Sequence[Row]) -> dict[str, Any]:
    found = {**_share(wilson(sum(r.right for r in rows), len(rows))), "target": TARGETS.get(kind)}
    for control in CONTROLS:
        found[control] = _mean([r.controls[control] for r in rows if control in r.controls])
    priors = [found[p] for p in PRIORS if found[p] is not None]
    found["margin"] = found["right"] - max(priors) if rows and priors else None
    found["margin_wanted"] = MARGIN_YES_NO if kind in YES_NO else MARGIN
    wrong = Counter((r.question.answer, r.answer.text) for r in rows if not r.right)
    found["mistakes"] = [{"truth": truth, "said": said, "n": n} for (truth, said), n in wrong.most_common(MISTAKES)]
    return found


def _macro(rows: Sequence[Row], control: str | None = None) -> Share:
    """Macro-average over the types, of the answers or of a control's."""
    rows = [r for r in rows if r.kind in TYPES and (control is None or control in r.controls)]
    clips = {clip: i for i, clip in enumerate(sorted({r.clip for r in rows}))}
    right, asked = np.zeros((2, max(1, len(clips)), len(TYPES)))
    for row in rows:
        place = clips[row.clip], TYPES.index(row.kind)
        asked[place] += 1
        right[place] += row.right if control is None else row.controls[control]
    return macro(right, asked)


def _control_macros(rows: Sequence[Row]) -> dict[str, Any]:
    """Each control's macro-average, and the answers' own on the very same questions."""
    found: dict[str, Any] = {control: _macro(rows, control).value for control in CONTROLS}
    found["on_control_clips"] = _macro([r for r in rows if "shuffled" in r.controls]).value
    found["mp4_minus_tensors"] = found["on_control_clips"] - found["tensors"]
    return found


def _captions(rows: Sequence[Row]) -> dict[str, Any]:
    scores = {kind: [attribute_f1(r.answer.text, r.question.answer) for r in rows if r.question.type == kind]
              for kind in sorted(DESCRIPTIONS)}
    return {kind: {"n": len(values), "f1": _mean(values)} for kind, values in scores.items()}


def _evidence(rows: Sequence[Row], window_s: float) -> dict[str, Any]:
    ours = [(r.answer.evidence, r.question.evidence) for r in rows if r.question.type in EVENT_TYPES
            and r.question.evidence]
    overlaps = [evidence_iou(said, truth, window_s) for said, truth in ours]
    by_type = {kind: _mean([evidence_iou(r.answer.evidence, r.question.evidence, window_s) >= 0.5 for r in rows
                            if r.question.type == kind and r.question.evidence]) for kind in sorted(EVENT_TYPES)}
    return {**_share(wilson(sum(v >= 0.5 for v in overlaps), len(overlaps))), "mean_iou": _mean(overlaps),
            "by_type": by_type}


def _calibration(rows: Sequence[Row]) -> dict[str, Any]:
    if not rows:
        return {"n": 0, "ece": None, "bins": []}
    ece, bins = reliability([r.answer.confidence for r in rows], [r.right for r in rows])
    return {"n": len(rows), "ece": ece, "bins": bins}


def _off_world(findings: Findings, exact: Sequence[Row]) -> dict[str, Any]:
    answerable = [r for r in exact if r.question.type != "unanswerable"]
    refused = wilson(sum(is_refusal(a.text) for a in findings.off_world), len(findings.off_world))
    wrongly = wilson(sum(is_refusal(r.answer.text) for r in answerable), len(answerable))
    return {"refused": _share(refused), "wrongly_refused": _share(wrongly)}


def _compositional(rows: Sequence[Row]) -> dict[str, Any] | None:
    if not rows:
        return None
    kinds = sorted({r.question.type for r in rows})
    by_type = {kind: _share(wilson(sum(r.right for r in rows if r.question.type == kind),
                                   sum(r.question.type == kind for r in rows))) for kind in kinds}
    return {**_share(wilson(sum(r.right for r in rows), len(rows))), "by_type": by_type}


def _share(share: Share) -> dict[str, Any]:
    row = asdict(share)
    row["right"] = row.pop("value")
    return row


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _middle(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p95": None}
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def _plain(value: Any) -> Any:
    """JSON has no NaN: what was not measured is null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


# --- tables ------------------------------------------------------------------------------------------------------

def show_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the report: a table by type, then one line for each of the other measures."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)  # a log has no edge
    shown = [c for c in CONTROLS if report["overall"][c] is not None]
    title = (f"{report['bundle']}: exact match on {report['clips']} held-out clips "
             f"({report['path']}, {report['split']} seed {report['seed']})")
    caption = f"on the first {report['control_clips']} clips: {'; '.join(CONTROLS[c] for c in shown)}"
    table = Table(title=title, caption=caption if shown else None, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("type", "n", "right", "95 %", "goal", *(CONTROLS[c].split(":")[0] for c in shown)):
        table.add_column(name, justify="left" if name == "type" else "right", no_wrap=True)
    rows = {**report["types"], "overall": {**report["overall"], "target": TARGET_OVERALL}}
    for kind, row in rows.items():
        if kind == "overall":
            table.add_section()
        if row["n"]:
            table.add_row(kind, str(row["n"]), _met(row["right"], row["target"]), _interval(row),
                          _percent(row["target"]), *(_percent(row[c]) for c in shown))
    console.print(table)
    for name, text in _lines(report):
        console.print(f"[bold]{name}[/bold]  {text}")


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    captions, evidence, off = report["captions"], report["evidence"], report["off_world"]
    speed, pairs, overall = report["speed"], report["compositional"], report["overall"]
    lines = [
        ("captions", ", ".join(f"{k} F1 {_percent(v['f1'])} (n {v['n']})" for k, v in captions.items())),
        ("evidence", f"IoU >= .5 with the truth on {_met(evidence['right'], TARGET_IOU)} of {evidence['n']} event "
                     f"questions, target {_percent(TARGET_IOU)}"),
        ("confidence", f"expected calibration error {_percent(report['calibration']['ece'])}"),
        ("off-world", f"{_met(off['refused']['right'], TARGET_REFUSED)} of {off['refused']['n']} declined, target "
                      f"{_percent(TARGET_REFUSED)}; {_percent(off['wrongly_refused']['right'])} of "
                      f"{off['wrongly_refused']['n']} answerable questions wrongly declined, at most "
                      f"{_percent(MOST_WRONGLY_REFUSED)}"),
    ]
    if pairs:
        lines.append(("new pairs", f"{_met(pairs['right'], TARGET_PAIRS)} right of {pairs['n']} questions on colours "
                                   f"and shapes never seen together, target {_percent(TARGET_PAIRS)}"))
    if overall["other_clip"] is not None:
        lines.append(("grounding", f"another clip's sensors {_percent(overall['other_clip'])}, at most "
                                   f"{_percent(MOST_OTHER_CLIP)}; below the wanted margin over the priors: "
                                   f"{', '.join(_below_margin(report)) or 'no type'}"))
    if overall["mp4_minus_tensors"] is not None:
        lines.append(("files", f"{100 * overall['mp4_minus_tensors']:+.1f} points against rendering to tensors, "
                               f"at most {100 * MOST_FILE_LOSS:.0f} apart"))
    first, clip = speed["first_token_s"], speed["clip_s"]
    lines.append(("speed", f"first token after {_seconds(first['median'])} (95 %: {_seconds(first['p95'])}), "
                           f"a clip with its questions {_seconds(clip['median'])}"))
    return lines


def _below_margin(report: dict[str, Any]) -> list[str]:
    return [kind for kind, row in report["types"].items()
            if row["margin"] is not None and row["margin"] < row["margin_wanted"]]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def _interval(row: dict[str, Any]) -> str:
    return f"{100 * row['low']:.0f}-{100 * row['high']:.0f}"


def _met(value: float | None, target: float | None) -> str:
    """In red where a target is missed."""
    text = _percent(value)
    return f"[red]{text}[/red]" if value is not None and target is not None and value < target else text
