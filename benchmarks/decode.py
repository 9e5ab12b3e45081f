"""Decode and scale speed of sampled video, against decord and against the naive way with PyAV.

    python -m benchmarks.decode [CLIP ...] [--repeats N] [--json FILE]

All three bring the same frames at 224 x 224 px as RGB arrays: at 2 frames/s, at 8 frames/s and every frame. The naive
way decodes with PyAV's defaults and converts each frame that it needs with `to_ndarray(width=..., height=...)`.
Clips are made when none are given. `decode_vs_decord` and `decode_vs_naive_pyav` compare the geometric means over all
cases, so that the slow cases do not hide the quick ones.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anymodal.errors import MediaError  # noqa: E402
from anymodal.media.spec import exact  # noqa: E402
from anymodal.media.video import VideoReader  # noqa: E402
from anymodal.testing import make_video  # noqa: E402
from benchmarks.report import Row, best_of_interleaved, parser, report  # noqa: E402

SIZE_PX = 224
RATES_HZ = (2.0, 8.0, None)  # None: every frame
TARGET_DECORD, TARGET_NAIVE = 1.0, 2.0


def ours(path: Path, rate_hz: float | None) -> np.ndarray:
    """Frames (T, H, W, 3) by the reader that `open_media` uses."""
    reader = VideoReader(path, SIZE_PX)
    try:
        if rate_hz is None:
            return np.stack([image for _, image in reader.every_frame()])
        return np.stack([image for _, image in reader.sample(reader.start, exact(rate_hz))])
    finally:
        reader.close()


def by_decord(path: Path, rate_hz: float | None) -> np.ndarray:
    """The same frames by decord: its own frame times give the indices."""
    import decord

    reader = decord.VideoReader(str(path), width=SIZE_PX, height=SIZE_PX)
    if rate_hz is None:
        return reader.get_batch(range(len(reader))).asnumpy()
    times_s = reader.get_frame_timestamp(range(len(reader)))
    count = math.ceil((times_s[-1, 0] + np.diff(times_s[:, 0]).mean()) * rate_hz - 1e-6)
    indices = np.searchsorted(times_s[:, 0], np.arange(count) / rate_hz + 1e-4, side="right") - 1
    return reader.get_batch(indices.tolist()).asnumpy()


def naive_pyav(path: Path, rate_hz: float | None) -> np.ndarray:
    """The same frames by PyAV in the plain way: decode all, convert those that are needed one by one."""
    return np.stack(list(_naive_frames(path, rate_hz)))


def _naive_frames(path: Path, rate_hz: float | None) -> Iterator[np.ndarray]:
    import av

    def convert(frame: av.VideoFrame) -> np.ndarray:
        return frame.to_ndarray(width=SIZE_PX, height=SIZE_PX, format="rgb24")

    with av.open(str(path)) as container:
        index, start, shown = 0, None, None
        for frame in container.decode(video=0):
            at = frame.pts * frame.time_base
            start = at if start is None else start
            if rate_hz is None:
                yield convert(frame)
                continue
            image = None
            while shown is not None and Fraction(index) / exact(rate_hz) < at - start:
                image = convert(shown) if image is None else image
                yield image
                index += 1
            shown, end = frame, at - start + frame.duration * frame.time_base
        image = convert(shown) if rate_hz is not None else None
        while rate_hz is not None and Fraction(index) / exact(rate_hz) < end:
            yield image
            index += 1


def make_clips(folder: Path) -> list[Path]:
    """Two slow pans of 8 s over a cloudy picture: a landscape at 25 frames/s and a portrait at 30. A frame is one slice, as
    in what cameras and the `ffmpeg` command write; PyAV would make as many as there are cores."""
    clips, options = [], {"crf": "23", "x264-params": "sliced-threads=0"}
    for width, height, rate_hz in ((854, 480, 25), (576, 1024, 30)):
        canvas = clouds(width + 600, height + 300)
        frames = [canvas[i:, 2 * i :][:height, :width] for i in range(8 * rate_hz)]
        clips.append(make_video(folder / f"{width}x{height}.mp4", frames, rate_hz=rate_hz, options=options))
    return clips


def clouds(width: int, height: int) -> np.ndarray:
    """Smooth noise of several sizes, (H, W, 3) uint8: about as hard to code as a photograph."""
    import av

    rng = np.random.default_rng(0)
    picture = np.zeros((height, width, 3), np.float32)
    for size_px, weight in ((200, 0.5), (50, 0.3), (12, 0.14), (3, 0.06)):
        grid = rng.integers(0, 256, (height // size_px + 2, width // size_px + 2, 3), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(grid, "rgb24").reformat(width, height, interpolation="BICUBIC")
        picture += weight * frame.to_ndarray()
    return picture.astype(np.uint8)


def measure(clips: list[Path], repeats: int) -> list[Row]:
    """Rows of every case, then the two means."""
    cases_s, rows = [], []
    for clip in clips:
        for rate_hz in RATES_HZ:
            ways = (ours, by_decord, naive_pyav)
            counts = [len(way(clip, rate_hz)) for way in ways]
            if max(counts) - min(counts) > 1:  # decord knows no duration of the last frame
                raise SystemExit(f"error: {clip} at {rate_hz}: {counts} frames are not the same work")
            times_s = best_of_interleaved([partial(way, clip, rate_hz) for way in ways], repeats)
            cases_s.append(times_s)
            case = f"{clip.stem} {'every frame' if rate_hz is None else f'{rate_hz:g}/s'}"
            for name, seconds in zip(("decord", "naive_pyav"), times_s[1:]):
                rows.append(Row(f"{case} vs {name}", times_s[0] * 1e3, seconds * 1e3, seconds / times_s[0], unit="ms"))
            print(f"  {case}: " + ", ".join(f"{way.__name__} {s * 1e3:.0f} ms" for way, s in zip(ways, times_s)))
    ours_ms, decord_ms, naive_ms = np.exp(np.log(cases_s).mean(axis=0)) * 1e3
    return rows + [
        Row("decode_vs_decord", ours_ms, decord_ms, decord_ms / ours_ms, TARGET_DECORD, "ms"),
        Row("decode_vs_naive_pyav", ours_ms, naive_ms, naive_ms / ours_ms, TARGET_NAIVE, "ms"),
    ]


def check_clip(path: Path) -> None:
    """Raise MediaError for what is no video."""
    reader = VideoReader(path)
    reader.close()
    if reader.start is None:
        raise MediaError(f"{path} has no video that can be decoded", fix="give a video file")


def main() -> None:
    """Command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("clips", nargs="*", metavar="CLIP", type=Path, help="video files (made when none are given)")
    arguments.add_argument("--repeats", type=int, default=5, help="turns of each; the fastest counts (default 5)")
    options = arguments.parse_args()
    for clip in options.clips:
        try:
            check_clip(clip)
        except MediaError as error:
            arguments.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        clips = options.clips or make_clips(Path(folder))
        rows = measure(clips, options.repeats)
    report(f"decode and scale to {SIZE_PX} px", rows, options.json)


if __name__ == "__main__":
    main()
