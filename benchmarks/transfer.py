"""How far the default model carries: the same scenes, drawn and sounded by a renderer that is not the playground's.

    python -m benchmarks.transfer [--clips N] [--seed S] [--split test] [--keep FOLDER] [--json FILE]

What happens in a clip, the questions and the truth are the playground's; pictures, sounds and readings are not: polygons by
Pillow in colours of other palettes, with outlines and shadows, on other backgrounds; sounds by other synthesis (additive
bells, square beeps, exponential sweeps, filtered noise); a device that starts to move smoothly. No training ever saw any of
it. Rows: right answers of each type of question, there and on the playground's own clips, in %.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anymodal.agent import Agent, load  # noqa: E402
from anymodal.playground.files import clip_truth, render_clip  # noqa: E402
from anymodal.playground.questions import DESCRIPTIONS  # noqa: E402
from anymodal.playground.render import IMU_AXES  # noqa: E402
from anymodal.playground.world import SPLITS, DeviceMotion, Scene, Sound, Thing  # noqa: E402
from anymodal.testing import make_imu_csv, make_video  # noqa: E402
from anymodal.training.scoring import is_right, type_of  # noqa: E402
from anymodal.types import Answer  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402

HEIGHT_PX, FINER = 360, 2  # pictures are drawn larger, and made smaller
RATE_HZ, SOUND_HZ, IMU_HZ = 25, 48000, 100
PALETTES = (  # of the web, and of flat design
    {"red": "#dc143c", "orange": "#ff8c00", "yellow": "#ffd700", "green": "#228b22", "blue": "#1e50dc", "purple": "#800080",
     "pink": "#ff8fc0", "white": "#fafafa"},
    {"red": "#e53935", "orange": "#fb8c00", "yellow": "#fdd835", "green": "#43a047", "blue": "#1e66d0", "purple": "#8e24aa",
     "pink": "#f48fb1", "white": "#ffffff"})
GROUNDS = ("#101418", "#2b2f36", "#6b7075", "#3b2f28", "#22384a", "#8a8378")
BELL = ((0.56, 1.0, 1.0), (0.92, 0.67, 0.9), (1.19, 1.0, 0.65), (1.71, 1.8, 0.55), (2.0, 2.67, 0.33), (2.74, 1.67, 0.35),
        (3.0, 1.46, 0.25), (3.76, 1.33, 0.2), (4.07, 1.33, 0.15))  # of its tone, loudness, how long: Risset 1969


# --- pictures --------------------------------------------------------------------------------------------------------

def pictures(scene: Scene, dice: np.random.Generator) -> list[np.ndarray]:
    """All frames, (H, W, 3) uint8 each."""
    width = 2 * round(HEIGHT_PX * scene.aspect / 2)
    palette, ground = PALETTES[dice.integers(2)], _ground(dice, width * FINER, HEIGHT_PX * FINER)
    outlined, shadowed = dice.random() < 0.4, dice.random() < 0.4
    return [np.asarray(_picture(scene, t_s, ground, palette, outlined, shadowed).resize((width, HEIGHT_PX), Image.BOX))
            for t_s in np.arange(round(scene.duration_s * RATE_HZ)) / RATE_HZ]


def _ground(dice: np.random.Generator, width: int, height: int) -> Image.Image:
    """Plain, fading to the bottom, tiled, or clouds."""
    one, two = (Image.new("RGB", (width, height), GROUNDS[i]) for i in dice.choice(len(GROUNDS), 2, replace=False))
    kind = dice.integers(4)
    if kind == 0:
        return one
    if kind == 1:
        return Image.composite(one, two, Image.linear_gradient("L").resize((width, height)))
    if kind == 2:
        tiles = np.indices((int(dice.integers(4, 9)),) * 2).sum(0) % 2
        mask = Image.fromarray((tiles * 60).astype(np.uint8)).resize((width, height), Image.NEAREST)
    else:
        spots = Image.fromarray(dice.integers(0, 110, (7, 9), dtype=np.uint8))
        mask = spots.resize((width, height), Image.BICUBIC).filter(ImageFilter.GaussianBlur(9))
    return Image.composite(two, one, mask)


def _picture(scene: Scene, t_s: float, ground: Image.Image, palette: dict[str, str], outlined: bool,
             shadowed: bool) -> Image.Image:
    picture = ground.copy()
    draw = ImageDraw.Draw(picture)
    width, height = ground.size
    for thing in scene.things:
        if not thing.visible(np.array([t_s]))[0]:
            continue
        (x,), (y,) = thing.at(np.array([t_s]))
        place = np.array([x * width, y * height])
        if shadowed:
            _shape(draw, thing, place + 0.05 * thing.radius * height, t_s, height, "#0a0a0a", None)
        _shape(draw, thing, place, t_s, height, palette[thing.color_at(t_s)], "#000000" if outlined else None)
    return picture


def _shape(draw: ImageDraw.ImageDraw, thing: Thing, place: np.ndarray, t_s: float, height: int, color: str,
           line: str | None) -> None:
    radius, width = thing.radius * height, 5 if line else 0
    if thing.shape == "circle":
        draw.ellipse([*(place - radius), *(place + radius)], fill=color, outline=line, width=width)
        return
    if thing.shape == "ring":
        if line:
            draw.ellipse([*(place - radius - 4), *(place + radius + 4)], outline=line, width=int(radius * 0.4) + 8)
        draw.ellipse([*(place - radius), *(place + radius)], outline=color, width=int(radius * 0.4))
        return
    angle = thing.angle + thing.spin * t_s
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    draw.polygon([tuple(place + radius * np.array(p) @ turn) for p in _corners(thing.shape)], fill=color, outline=line,
                 width=width)


def _corners(shape: str) -> list[tuple[float, float]]:
    """Of a shape of radius 1 that stands upright."""
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0.0, -1.05), (0.92, 0.6), (-0.92, 0.6)]
    if shape == "star":
        turns = np.arange(10) * np.pi / 5
        return [(r * np.sin(a), -r * np.cos(a)) for a, r in zip(turns, [1.08, 0.45] * 5, strict=True)]
    a, b = 0.32, 1.0  # a cross
    return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]


# --- sounds ----------------------------------------------------------------------------------------------------------

def sound(scene: Scene, dice: np.random.Generator) -> np.ndarray:
    """float32 (N,) at SOUND_HZ: a hum of pink noise, and the scene's sounds."""
    count = round(scene.duration_s * SOUND_HZ)
    heard = 10 ** dice.uniform(-3.3, -2.6) * _filtered(dice.standard_normal(count), lambda hz: 1 / np.sqrt(hz + 20))
    for each in scene.sounds:
        start = round(each.t0_s * SOUND_HZ)
        wave = _wave(each, dice)[: count - start]
        heard[start : start + len(wave)] += wave * 10 ** dice.uniform(-0.8, -0.3)
    return np.clip(heard, -1, 1).astype(np.float32)


def _wave(made: Sound, dice: np.random.Generator) -> np.ndarray:
    """Loudest at 1."""
    t = np.arange(round((made.t1_s - made.t0_s) * SOUND_HZ)) / SOUND_HZ
    low = made.pitch == "low"
    tone_hz = dice.uniform(250, 400) if low else dice.uniform(1250, 1900)
    if made.kind == "beep":
        wave = np.sin(2 * np.pi * tone_hz * t)
        wave = np.tanh(4 * wave) if dice.random() < 0.4 else wave
    elif made.kind.endswith("chirp"):
        ends_hz = tone_hz * np.array([0.8, 2.0] if made.kind == "rising chirp" else [2.0, 0.8])
        wave = np.sin(2 * np.pi * np.cumsum(np.geomspace(*ends_hz, len(t))) / SOUND_HZ)
    elif made.kind == "bell":
        wave = sum(loud * np.sin(2 * np.pi * tone_hz * part * t) * np.exp(-t * 4 / long) for part, loud, long in BELL)
    elif made.kind == "noise burst":
        pass_hz = (lambda hz: hz < 600) if low else (lambda hz: hz > 2500)
        wave = _filtered(dice.standard_normal(len(t)), pass_hz)
    else:  # clicks
        wave = np.zeros(len(t))
        one = np.exp(-np.arange(500) / 70) * np.sin(2 * np.pi * (650 if low else 3300) * np.arange(500) / SOUND_HZ)
        for at in range(0, len(t) - 500, round(SOUND_HZ / dice.uniform(9, 14))):
            wave[at : at + 500] += one
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.008)
    return wave * fade / np.abs(wave).max()


def _filtered(wave: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    found = np.fft.irfft(np.fft.rfft(wave) * gain(np.fft.rfftfreq(len(wave), 1 / SOUND_HZ)), len(wave))
    return found / np.abs(found).max()


# --- a device --------------------------------------------------------------------------------------------------------

def readings(scene: Scene, dice: np.random.Generator) -> np.ndarray:
    """(N, 6) at IMU_HZ, columns IMU_AXES: a device held about upright."""
    t = np.arange(round(scene.duration_s * IMU_HZ)) / IMU_HZ
    up = np.array([0.0, 1.0, 0.0]) + dice.normal(0, 0.35, 3)
    rows = np.zeros((len(t), 6))
    rows[:, :3] = 9.81 * up / np.linalg.norm(up)
    for motion in scene.motions:
        span = (t >= motion.t0_s) & (t < motion.t1_s)
        rows[span] = _moved(motion, t[span] - motion.t0_s, rows[span], dice)
        if motion.kind == "rotating":
            rows[t >= motion.t1_s, :3] = rows[span][-1, :3]
    return rows + dice.normal(0, [0.05] * 3 + [0.01] * 3, rows.shape) + dice.normal(0, [0.03] * 3 + [0.005] * 3)


def _moved(motion: DeviceMotion, t: np.ndarray, rows: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    rows, up = rows.copy(), rows[0, :3] / np.linalg.norm(rows[0, :3])
    axis = np.eye(3)[dice.integers(3)] + dice.normal(0, 0.2, 3)
    swell = np.minimum(1, np.minimum(t, t[::-1]) / 0.15)[:, None]
    if motion.kind == "shaking":
        phase = 2 * np.pi * np.cumsum(dice.uniform(4, 6.5) + 0.5 * np.sin(5 * t)) / IMU_HZ
        rows[:, :3] += swell * dice.uniform(5, 9) * (np.sin(phase) + 0.25 * np.sin(2 * phase))[:, None] * axis
        rows[:, 3:] += swell * dice.uniform(0.6, 1.6) * np.cos(phase)[:, None] * axis[::-1]
    elif motion.kind == "rotating":
        axis, speed = axis / np.linalg.norm(axis), swell[:, 0] * dice.uniform(1, 2.2) * dice.choice([-1, 1])
        angle = -np.cumsum(speed)[:, None] / IMU_HZ
        g = rows[0, :3]
        rows[:, :3] = g * np.cos(angle) + np.cross(axis, g) * np.sin(angle) + axis * (axis @ g) * (1 - np.cos(angle))
        rows[:, 3:] += speed[:, None] * axis
    elif motion.kind == "walking":
        phase = 2 * np.pi * dice.uniform(1.7, 2.1) * t
        rows[:, :3] += (swell[:, 0] * dice.uniform(1.8, 2.8) * (np.sin(phase) + 0.5 * np.exp(3 * (np.cos(phase) - 1)))
                        )[:, None] * up
        rows[:, 3:] += swell * 0.25 * np.sin(phase / 2)[:, None] * axis
    else:  # dropped
        falls = t < 0.7 * t[-1]
        rows[falls, :3] *= 0.02
        rows[falls, 3:] += dice.uniform(0.5, 1.5) * axis
        hit = t[~falls] - t[~falls][0]
        rows[~falls, :3] += (dice.uniform(30, 55) * np.exp(-22 * hit) * np.cos(90 * hit))[:, None] * up
    return rows


# --- both sets of clips ----------------------------------------------------------------------------------------------

def drawn_here(folder: Path, scene: Scene, index: int, seed: int) -> Path:
    """A clip by this renderer, as mp4 with an IMU sidecar."""
    dice = np.random.default_rng([seed, index])
    media = make_video(folder / f"clip-{index:05d}.mp4", pictures(scene, dice), rate_hz=RATE_HZ, options={"crf": "21"},
                       audio=sound(scene, dice), audio_hz=SOUND_HZ)
    rows = readings(scene, dice)
    make_imu_csv(media.with_suffix(".imu.csv"), np.arange(len(rows)) / IMU_HZ, rows, IMU_AXES)
    return media


def right_answers(agent: Agent, media: Path, questions: list) -> list[bool]:
    answers = [a for _, a in agent.stream(media, [q.question for q in questions]) if isinstance(a, Answer)]
    return [is_right(q, a.text) for q, a in zip(questions, answers, strict=True)]


def main(argv: list[str] | None = None) -> list[Row]:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--clips", type=int, default=60, help="how many clips of each renderer")
    options.add_argument("--seed", type=int, default=3, help="of the clips, within their split")
    options.add_argument("--split", choices=sorted(SPLITS), default="test")
    options.add_argument("--keep", metavar="FOLDER", type=Path, help="keep the clips of the other renderer")
    options.add_argument("--bundle", default="tiny")
    chosen = options.parse_args(argv)
    agent, found = load(chosen.bundle), {}
    with tempfile.TemporaryDirectory() as folder:
        here, own = chosen.keep or Path(folder) / "here", Path(folder) / "own"
        here.mkdir(parents=True, exist_ok=True)
        own.mkdir()
        for index in range(chosen.clips):
            truth = clip_truth(chosen.split, chosen.seed, index, seconds=8.0)
            questions = [q for q in truth.questions if q.type not in DESCRIPTIONS]
            there = right_answers(agent, drawn_here(here, truth.scene, index, chosen.seed), questions)
            home = right_answers(agent, render_clip(own, split=chosen.split, seed=chosen.seed, index=index, seconds=8.0),
                                 questions)
            for question, one, two in zip(questions, there, home, strict=True):
                found.setdefault(type_of(question.type, len(truth.scene.things)), []).append((one, two))
            print(f"\r{index + 1} of {chosen.clips} clips", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    shares = {kind: 100 * np.mean(pairs, axis=0) for kind, pairs in sorted(found.items())}
    shares["transfer_overall"] = np.mean([*shares.values()], axis=0)
    made = [Row(kind, one, two, one / max(two, 1e-9), unit=f"% of {len(found[kind])}" if kind in found else "%")
            for kind, (one, two) in shares.items()]
    report("the same scenes by another renderer (ours) and by the playground's own (baseline)", made, chosen.json)
    return made


if __name__ == "__main__":
    main()
