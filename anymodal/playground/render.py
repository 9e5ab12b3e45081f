"""Scene -> frames and IMU rows, in numpy; its sound is in `sound`.

Everything that is only appearance comes from `scene.look`, so the same scene renders the same way at any size:
straight to the encoder's small frames for training, or large for an mp4.
Shapes: T frames, H height, W width, N readings.
"""

from __future__ import annotations

import colorsys

import numpy as np

from anymodal.playground.world import Scene, Thing

# name: hue (degrees), saturation, value; jittered per object within the name's range
_HSV = {"red": (0, 0.9, 0.87), "orange": (28, 0.95, 0.97), "yellow": (55, 0.85, 0.95), "green": (125, 0.75, 0.65),
        "blue": (220, 0.85, 0.85), "purple": (277, 0.7, 0.65), "pink": (330, 0.42, 0.98), "white": (0, 0.0, 0.97)}
_HUE_JITTER = {"red": 6, "orange": 5, "yellow": 5, "green": 18, "blue": 14, "purple": 10, "pink": 10, "white": 0}

STEADY = 0.01  # how fast the light of a steady scene changes, beside that of others


def rgb_of(name: str, tint: tuple[float, float, float] = (0.0, 0.5, 0.5)) -> np.ndarray:
    """A named colour with one object's tint, float32 (3,) in [0, 1]."""
    hue, saturation, value = _HSV[name]
    hue = (hue + tint[0] * _HUE_JITTER[name]) % 360 / 360
    saturation = saturation * (0.82 + 0.18 * tint[1])
    value = value * (0.84 + 0.16 * tint[2]) if name != "white" else value
    return np.array(colorsys.hsv_to_rgb(hue, min(saturation, 1.0), min(value, 1.0)), np.float32)


def render_frames(scene: Scene, times_s: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture at each time, uint8 (T, H, W, 3) RGB."""
    rng = np.random.default_rng(scene.look)
    light_s = times_s * (STEADY if scene.steady else 1.0)
    base_HWC, drift_T3 = _background(scene, rng, light_s, width, height)
    gain_T = 1.0 + rng.uniform(0, 0.12) * np.sin(light_s * rng.uniform(0.2, 2.0) + rng.uniform(0, 6.3))
    gain_T *= rng.uniform(0.8, 1.1)
    wobble = rng.uniform(0, 0.006) if rng.random() < 0.5 else 0.0
    wobble *= not scene.steady
    shake_T2 = wobble * np.sin(times_s[:, None] * rng.uniform(5, 14, 2) + rng.uniform(0, 6.3, 2))
    grain = rng.uniform(0.0, 0.03)
    blur = rng.uniform(0.0, 0.25) if rng.random() < 0.5 else 0.0
    shade = rng.uniform(-1, 1, 2)
    frames = np.empty((len(times_s), height, width, 3), np.float32)
    frames[:] = base_HWC
    frames += drift_T3[:, None, None, :]
    for thing in scene.things:
        _draw(frames, scene, thing, times_s, shake_T2, shade)
    frames *= gain_T[:, None, None, None].astype(np.float32)
    if blur > 0.05:
        for axis in (1, 2):
            middle = frames * (1 - 2 * blur)
            middle += blur * (np.roll(frames, 1, axis) + np.roll(frames, -1, axis))
            frames = middle
    if grain > 0.004:
        noise = rng.standard_normal((height + 16, width + 16, 1), dtype=np.float32) * np.float32(grain)
        for i, (dy, dx) in enumerate(rng.integers(0, 16, (len(times_s), 2))):
            frames[i] += noise[dy : dy + height, dx : dx + width]
    np.clip(frames, 0.0, 1.0, out=frames)
    frames *= 255.0
    frames += 0.5
    return frames.astype(np.uint8)


def _background(scene: Scene, rng, times_s, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    avoid = [rgb_of(c, t.tint) for t in scene.things for c in {t.color, t.recolor[1] if t.recolor else t.color}]
    one, two = _backdrop(rng, avoid), _backdrop(rng, avoid)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    if scene.background == "plain":
        mix = np.zeros((height, width), np.float32)
        two = one
    elif scene.background == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        mix = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)
    elif scene.background == "texture":
        fx, fy = rng.uniform(-12, 12, 2)
        wave = np.sin(2 * np.pi * (fx * x + fy * y))
        if rng.random() < 0.5:
            gx, gy = rng.uniform(-12, 12, 2)
            wave = wave * np.sin(2 * np.pi * (gx * x + gy * y))
        mix = 0.5 + 0.5 * (np.sign(wave) if rng.random() < 0.3 else wave)
        two = one + (two - one) * 0.45
    else:
        cells = int(rng.integers(6, 24))
        coarse = rng.random((cells + 1, cells + 1)).astype(np.float32)
        mix = _stretch(coarse, x * cells, y * cells)
        two = one + (two - one) * 0.6
    base = one + (two - one) * mix[..., None]
    steps = rng.uniform(-0.06, 0.06, 3)
    drift_T3 = np.sin(times_s[:, None] * rng.uniform(0.2, 1.0) + rng.uniform(0, 6.3)) * steps
    return base.astype(np.float32), drift_T3.astype(np.float32)


def _stretch(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear look-up of `grid` at (x, y)."""
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - x0, y - y0
    x1, y1 = np.minimum(x0 + 1, grid.shape[1] - 1), np.minimum(y0 + 1, grid.shape[0] - 1)
    return (grid[y0, x0] * (1 - fx) + grid[y0, x1] * fx) * (1 - fy) + (grid[y1, x0] * (1 - fx) + grid[y1, x1] * fx) * fy


def _backdrop(rng, avoid: list[np.ndarray]) -> np.ndarray:
    """A muted colour that keeps its distance from every object's colour."""
    best, best_distance = None, -1.0
    for _ in range(12):
        color = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.4), rng.uniform(0.05, 0.95)), np.float32)
        distance = min((float(np.abs(color - a).max()) for a in avoid), default=1.0)
        if distance > best_distance:
            best, best_distance = color, distance
        if best_distance > 0.38:
            break
    return best


def _draw(frames, scene: Scene, thing: Thing, times_s, shake_T2, shade) -> None:
    """Paint one object, anti-aliased by its signed distance, into the frames where it is visible."""
    height, width = frames.shape[1:3]
    xs, ys = thing.at(times_s)
    seen = thing.visible(times_s)
    reach_x, reach_y = thing.radius * 1.3 / scene.aspect, thing.radius * 1.3
    pixel = 0.5 * (scene.aspect / width + 1 / height)  # a pixel's size in frame heights
    first = rgb_of(thing.color, thing.tint)
    second = rgb_of(thing.recolor[1], thing.tint) if thing.recolor else first
    for i in np.flatnonzero(seen):
        cx, cy = xs[i] + shake_T2[i, 0], ys[i] + shake_T2[i, 1]
        x0, x1 = max(int((cx - reach_x) * width), 0), min(int((cx + reach_x) * width) + 2, width)
        y0, y1 = max(int((cy - reach_y) * height), 0), min(int((cy + reach_y) * height) + 2, height)
        if x0 >= x1 or y0 >= y1:
            continue
        px = ((np.arange(x0, x1, dtype=np.float32) + 0.5) / width - cx) * scene.aspect / thing.radius
        py = ((np.arange(y0, y1, dtype=np.float32) + 0.5) / height - cy) / thing.radius
        angle = thing.angle + thing.spin * times_s[i]
        u = px[None, :] * np.cos(angle) + py[:, None] * np.sin(angle)
        v = -px[None, :] * np.sin(angle) + py[:, None] * np.cos(angle)
        distance = signed_distance(thing.shape, u.astype(np.float32), v.astype(np.float32))
        cover = np.clip(0.5 - distance * (thing.radius / pixel), 0.0, 1.0)[..., None]
        color = second if thing.recolor and times_s[i] >= thing.recolor[0] else first
        paint = _paint(thing.style, color, u, v, distance, shade)
        patch = frames[i, y0:y1, x0:x1]
        patch += cover * (paint - patch)


def _paint(style: str, color: np.ndarray, u, v, distance, shade) -> np.ndarray:
    if style == "shaded":
        return color * np.clip(0.95 + 0.14 * (u * shade[0] + v * shade[1]), 0.7, 1.1)[..., None]
    if style == "outlined":
        return color * np.where(distance > -0.13, 0.5, 1.0)[..., None]
    if style == "striped":
        return color * (0.93 + 0.09 * np.sign(np.sin(9 * u)))[..., None]
    return color


def signed_distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance (negative inside) to a shape of unit radius. u right, v down.

    Distance functions after the closed forms of the geometry; only the sign and the slope near the edge matter.
    """
    if shape == "circle":
        return np.hypot(u, v) - 0.95
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.72) - 0.25
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.84
    if shape == "triangle":
        return np.maximum(np.abs(u) * 0.8660254 - (v + 0.08) * 0.5, v + 0.08) - 0.56
    if shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return np.minimum(np.maximum(a - 1.0, b - 0.32), np.maximum(a - 0.32, b - 1.0))
    # star: fold the plane into one tenth of a five-pointed star, then the distance to its edge line
    r = np.hypot(u, v)
    sector = np.arctan2(u, -v)
    sector = np.abs((sector + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    px, py = r * np.cos(sector), r * np.sin(sector)
    tip, inner = (1.08, 0.0), (0.5 * np.cos(np.pi / 5), 0.5 * np.sin(np.pi / 5))
    ex, ey = inner[0] - tip[0], inner[1] - tip[1]
    return ((px - tip[0]) * -ey + (py - tip[1]) * ex) / np.hypot(ex, ey) * -1.0


# --- inertial sensor ---------------------------------------------------------------------------------------------

IMU_AXES = ("accel_x_m_s2", "accel_y_m_s2", "accel_z_m_s2", "gyro_x_rad_s", "gyro_y_rad_s", "gyro_z_rad_s")


def render_imu(scene: Scene, rate_hz: float = 50.0) -> np.ndarray:
    """What the device's accelerometer (with gravity) and gyroscope read, float32 (N, 6), columns IMU_AXES."""
    rng = np.random.default_rng(scene.look + 2)
    t = np.arange(int(round(scene.duration_s * rate_hz))) / rate_hz
    gravity = rng.standard_normal(3)
    gravity *= 9.81 / np.linalg.norm(gravity)
    rows = np.concatenate([np.tile(gravity, (len(t), 1)), np.zeros((len(t), 3))], axis=1)
    for motion in scene.motions:
        span = (t >= motion.t0_s) & (t < motion.t1_s)
        local = t[span] - motion.t0_s
        if len(local):
            rows[span] = _moved(motion.kind, local, rows[span], rng)
            if motion.kind == "rotating":  # the new attitude stays
                after = t >= motion.t1_s
                rows[after, :3] = rows[span][-1, :3]
    rows[:, :3] += rng.standard_normal((len(t), 3)) * rng.uniform(0.02, 0.12)
    rows[:, 3:] += rng.standard_normal((len(t), 3)) * rng.uniform(0.005, 0.03)
    return rows.astype(np.float32)


def _moved(kind: str, t: np.ndarray, rows: np.ndarray, rng) -> np.ndarray:
    rows = rows.copy()
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    if kind == "shaking":
        rate = rng.uniform(3.5, 7.0)
        rows[:, :3] += rng.uniform(4, 10) * np.sin(2 * np.pi * rate * t)[:, None] * axis
        rows[:, 3:] += rng.uniform(0.5, 2.0) * np.sin(2 * np.pi * rate * t + rng.uniform(0, 6))[:, None] * axis[::-1]
    elif kind == "rotating":
        speed = rng.uniform(0.9, 2.5) * rng.choice([-1, 1])
        cos, sin = np.cos(speed * t)[:, None], np.sin(speed * t)[:, None]
        g = rows[0, :3]
        rows[:, :3] = g * cos + np.cross(axis, g) * -sin + axis * (axis @ g) * (1 - cos)  # Rodrigues
        rows[:, 3:] += speed * axis
    elif kind == "walking":
        step = rng.uniform(1.6, 2.2)
        up = rows[0, :3] / np.linalg.norm(rows[0, :3])
        bounce = np.sin(2 * np.pi * step * t) + 0.4 * np.sin(4 * np.pi * step * t + 1.0)
        rows[:, :3] += rng.uniform(1.5, 3.0) * bounce[:, None] * up
        rows[:, 3:] += rng.uniform(0.15, 0.4) * np.sin(np.pi * step * t)[:, None] * axis
    else:  # dropped: free fall, then a hit
        fall = t < 0.72 * t[-1]
        rows[fall, :3] *= 0.03
        rows[~fall, :3] += rng.uniform(25, 60) * np.exp(-(t[~fall] - t[~fall][0]) * 25)[:, None] * axis
        rows[fall, 3:] += rng.uniform(0.3, 2.0) * axis
    return rows
