"""A clip's truth as JSON: the scene and its questions with answers, readable by people, and back again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anymodal.errors import InputError
from anymodal.playground.questions import Question
from anymodal.playground.world import DeviceMotion, Event, Scene, Sound, Thing
from anymodal.types import Evidence

_FROM_THE_START_S = -1e-6
_TO_THE_END_S = 1e-3


@dataclass(frozen=True, slots=True)
class ClipTruth:
    """What NAME.json holds: the scene, its questions, and how the files beside it were made."""

    scene: Scene
    questions: tuple[Question, ...]
    made: dict[str, Any]


def load_truth(path: str | Path) -> ClipTruth:
    """Read a NAME.json. Raises InputError naming the file and what is wrong with it."""
    try:
        row = json.loads(Path(path).read_text(encoding="utf-8"))
        questions = tuple(question_from_json(q) for q in row["questions"])
        return ClipTruth(scene_from_json(row["scene"]), questions, row.get("made", {}))
    except FileNotFoundError as error:
        raise InputError(f"no truth file {path}", fix="anymodal playground --out FOLDER") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no truth file of the playground: {error!r:.120}",
                         fix="render the clips again: anymodal playground --out FOLDER") from error


def truth_to_json(truth: ClipTruth) -> str:
    row = {"scene": scene_to_json(truth.scene), "questions": [question_to_json(q) for q in truth.questions],
           "made": truth.made}
    return json.dumps(row, indent=1, ensure_ascii=False) + "\n"


def question_to_json(question: Question) -> dict[str, Any]:
    return {"type": question.type, "question": question.question, "answer": question.answer,
            "accept": list(question.accept),
            "evidence": [{"start_s": e.start_s, "end_s": e.end_s, "modality": e.modality} for e in question.evidence]}


def question_from_json(row: dict[str, Any]) -> Question:
    evidence = tuple(Evidence(e["start_s"], e["end_s"], e["modality"]) for e in row["evidence"])
    return Question(row["type"], row["question"], row["answer"], tuple(row["accept"]), evidence)


def scene_to_json(scene: Scene) -> dict[str, Any]:
    """Positions in frame units (x right, y down), radii in frame heights, times in seconds of media time."""
    return {
        "duration_s": scene.duration_s, "aspect": scene.aspect, "background": scene.background, "look": scene.look,
        **({"steady": True} if scene.steady else {}),
        "objects": [_thing_to_json(t, scene.duration_s) for t in scene.things],
        "sounds": [{"kind": s.kind, "pitch": s.pitch, "start_s": s.t0_s, "end_s": s.t1_s, "variant": s.variant}
                   for s in scene.sounds],
        "device_motions": [{"kind": m.kind, "start_s": m.t0_s, "end_s": m.t1_s} for m in scene.motions],
    }


def scene_from_json(row: dict[str, Any]) -> Scene:
    return Scene(
        row["duration_s"], row["aspect"], [_thing_from_json(t, row["duration_s"]) for t in row["objects"]],
        [Sound(s["kind"], s["pitch"], s["start_s"], s["end_s"], s["variant"]) for s in row["sounds"]],
        [DeviceMotion(m["kind"], m["start_s"], m["end_s"]) for m in row["device_motions"]],
        row["background"], row["look"], row.get("steady", False))


def _thing_to_json(thing: Thing, duration_s: float) -> dict[str, Any]:
    return {
        "color": thing.color, "shape": thing.shape, "size": thing.size, "direction": thing.direction,
        "appears_s": thing.appear_s if thing.appear_s >= 0 else None,
        "disappears_s": thing.vanish_s if thing.vanish_s <= duration_s else None,
        "changes_color": {"t_s": thing.recolor[0], "to": thing.recolor[1]} if thing.recolor else None,
        "events": [{"kind": e.kind, "t_s": e.t_s, "other": e.other} for e in thing.events],
        "path": [{"t_s": t, "x": x, "y": y} for t, x, y in zip(thing.times, thing.xs, thing.ys, strict=True)],
        "appearance": {"radius": thing.radius, "angle_rad": thing.angle, "spin_rad_s": thing.spin,
                       "style": thing.style, "tint": list(thing.tint)},
    }


def _thing_from_json(row: dict[str, Any], duration_s: float) -> Thing:
    look, change, path = row["appearance"], row["changes_color"], row["path"]
    appears, disappears = row["appears_s"], row["disappears_s"]
    return Thing(
        row["color"], row["shape"], row["size"], look["radius"],
        _FROM_THE_START_S if appears is None else appears,
        duration_s + _TO_THE_END_S if disappears is None else disappears,
        *([point[key] for point in path] for key in ("t_s", "x", "y")),
        (change["t_s"], change["to"]) if change else None, look["angle_rad"], look["spin_rad_s"], look["style"],
        tuple(look["tint"]), row["direction"], [Event(e["kind"], e["t_s"], e["other"]) for e in row["events"]])
