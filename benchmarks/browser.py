"""A real browser on the web page, fed by playground clips; and how its answers compare with those about the file.

    python -m benchmarks.browser [--clips N] [--questions N] [--json FILE]
    python -m benchmarks.browser --pictures docs

Clips are opened in headless Chromium through the page's File button, their sensor readings arrive as DeviceMotion events,
and questions are typed into the page once the clip is over. `browser_vs_file` is the share of right answers, against that
of `agent.ask` on the same files: at most 5 points less are wanted. tests/test_web.py uses the same ways to drive a browser.
`--pictures` takes those of the page that docs/web.md shows.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anymodal.playground.files import render_clips  # noqa: E402
from anymodal.playground.truth import load_truth  # noqa: E402
from anymodal.testing import make_wav  # noqa: E402
from anymodal.training.scoring import is_right  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--autoplay-policy=no-user-gesture-required", "--mute-audio", "--disable-dev-shm-usage")
LAUNCH_TIMEOUT_S, PAGE_TIMEOUT_S = 60, 60
SOUND_HZ = 48000
UNSCORED = ("caption", "describe_at")

# dispatches a clip's readings at their own times, from when `playMotion` is called, and then its last one on and on
MOTION = """
globalThis.playMotion = (rows, rate_hz) => {
  const began_ms = performance.now(), degrees = 180 / Math.PI;
  let next = 0;
  globalThis.stopMotion?.();
  const timer = setInterval(() => {
    for (; next / rate_hz <= (performance.now() - began_ms) / 1000; next += 1) {
      const row = rows[Math.min(rows.length - 1, next)];
      const event = new DeviceMotionEvent("devicemotion", {
        accelerationIncludingGravity: { x: row[0], y: row[1], z: row[2] },
        rotationRate: { alpha: row[3] * degrees, beta: row[4] * degrees, gamma: row[5] * degrees }, interval: 20 });
      Object.defineProperty(event, "timeStamp", { value: began_ms + 1000 * next / rate_hz });
      dispatchEvent(event);
    }
  }, 20);
  globalThis.stopMotion = () => clearInterval(timer);
};
"""


def find_chromium() -> str | None:
    """The path of a Chromium: $CHROMIUM, Debian's, or Chrome."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A headless browser of Playwright's, closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launched(playwright, *flags) as browser:
        yield browser


@contextmanager
def launched(playwright: Any, *flags: str) -> Iterator[Any]:
    """The same, where Playwright runs already: one thread has one."""
    browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*QUIET, *flags], headless=True,
                                         timeout=1000 * LAUNCH_TIMEOUT_S)
    try:
        yield browser
    finally:
        browser.close()


def fake_devices(video: Path | None, sound: Path | None) -> list[str]:
    """Flags by which a camera and a microphone play files, again and again, and may be used."""
    return ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
            *([f"--use-file-for-fake-video-capture={video}"] if video else []),
            *([f"--use-file-for-fake-audio-capture={sound}"] if sound else [])]


def as_camera(clip: Path, path: Path) -> Path:
    """A clip's pictures as Y4M, which Chromium's fake camera plays."""
    import av

    with av.open(str(clip)) as container, path.open("wb") as out:
        stream = container.streams.video[0]
        rate = stream.average_rate
        out.write(f"YUV4MPEG2 W{stream.width} H{stream.height} F{rate.numerator}:{rate.denominator} Ip A1:1 C420mpeg2\n"
                  .encode())
        for frame in container.decode(video=0):
            out.write(b"FRAME\n" + frame.reformat(format="yuv420p").to_ndarray().tobytes())
    return path


def as_microphone(clip: Path, path: Path) -> Path:
    """A clip's sound as WAV, which Chromium's fake microphone plays."""
    import av

    with av.open(str(clip)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SOUND_HZ)
        pieces = [f.to_ndarray()[0] for frame in container.decode(audio=0) for f in resampler.resample(frame)]
    return make_wav(path, np.concatenate(pieces), SOUND_HZ)


def readings(clip: Path) -> tuple[list[list[float]], float]:
    """A clip's sensor rows, and their rate."""
    rows = np.loadtxt(clip.with_suffix(".imu.csv"), delimiter=",", skiprows=1)
    return rows[:, 1:].tolist(), float(round(1 / np.diff(rows[:, 0]).mean()))


def open_page(browser: Any, url: str, **options: Any) -> Any:
    """The page, connected."""
    page = browser.new_page(**options)
    page.set_default_timeout(1000 * PAGE_TIMEOUT_S)
    page.add_init_script(MOTION)
    page.goto(url)
    page.wait_for_selector("#state[data-state=live]")
    return page


def seen_s(page: Any) -> float:
    """Seconds of media time that the page was told of."""
    minutes, seconds = page.inner_text("#clock").split(":")
    return 60 * int(minutes) + float(seconds)


def wait_seen(page: Any, time_s: float) -> None:
    page.wait_for_function("""(wanted) => { const [m, s] = document.querySelector('#clock').textContent.split(':');
                           return 60 * m + Number(s) >= wanted; }""", arg=time_s)


def ask(page: Any, question: str) -> str:
    """Type a question, and wait for the whole answer."""
    before = page.locator(".turn .meta").count()
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_function("""(before) => document.querySelectorAll('.turn .meta, .turn.failed').length > before
                           && document.querySelector('#stop').hidden""", arg=before)
    return page.locator(".turn .a").last.inner_text()


def hold(page: Any, clip: Path) -> None:
    """Turn the motion sensors on, in the attitude in which a clip begins; `playMotion(rows, rate_hz)` moves them."""
    page.evaluate("([rows, rate_hz]) => { Object.assign(window, { rows, rate_hz }); playMotion([rows[0]], rate_hz); }",
                  list(readings(clip)))
    page.click("#motion")
    page.wait_for_selector("#motion[aria-pressed=true]")


def watch_file(page: Any, clip: Path, seconds: float) -> None:
    """Let the page play a clip with its sensors, to its end, and wait for all of it to be seen."""
    hold(page, clip)
    page.evaluate("""() => document.querySelector('#video').addEventListener('playing', () => {
                  playMotion(rows, rate_hz); }, { once: true })""")
    page.set_input_files("#file", str(clip))
    page.wait_for_selector("#open[aria-pressed=true]")
    page.wait_for_selector("#open[aria-pressed=false]", timeout=1000 * (seconds + PAGE_TIMEOUT_S))
    page.click("#motion")
    wait_seen(page, seconds)


def compare(clips: Sequence[Path], count: int, seconds: float, model: str) -> list[Row]:
    from actors.gateway.hosts import LocalHost
    from actors.gateway.settings import Settings
    from actors.gateway.testing import serving
    from anymodal.agent import load

    agent = load(model)
    right = {"browser": 0, "file": 0, "same": 0, "asked": 0}
    with tempfile.TemporaryDirectory() as folder:
        host = LocalHost(model, folder=Path(folder) / "sessions")
        with serving(host, Settings(port=0, state=Path(folder))) as server, chromium() as browser:
            for number, clip in enumerate(clips):
                truth = load_truth(clip.with_suffix(".json"))
                questions = [q for q in truth.questions if q.type not in UNSCORED]
                questions = random.Random(number).sample(questions, min(count, len(questions)))
                page = open_page(browser, server.url)
                watch_file(page, clip, seconds)
                theirs = agent.ask(clip, [q.question for q in questions])
                for question, answer in zip(questions, theirs, strict=True):
                    ours = ask(page, question.question)
                    right["asked"] += 1
                    right["browser"] += is_right(question, ours)
                    right["file"] += is_right(question, answer.text)
                    right["same"] += ours == answer.text
                print(f"  {clip.stem}: {json.dumps(right)}, {page.inner_text('#dropped-here')} dropped", flush=True)
                page.close()
    ours, base = (right[name] / right["asked"] for name in ("browser", "file"))
    return [Row("browser_vs_file", ours, base, ours - base, -0.05, "right"),
            Row("browser_same_words", same := right["same"] / right["asked"], 1.0, same, unit="of answers")]


def take_pictures(folder: Path, model: str) -> None:
    """web-light.png, web-dark.png, web-phone.png and web-moment.png, of a clip that is watched with all sources on."""
    from actors.gateway.hosts import LocalHost
    from actors.gateway.settings import Settings
    from actors.gateway.testing import serving
    from anymodal.config import load_spec
    from anymodal.speech import load_speech

    with tempfile.TemporaryDirectory() as scratch:
        (clip,) = render_clips(scratch, split="test", seed=77, first=4, count=1, seconds=6)
        files = as_camera(clip, clip.with_suffix(".y4m")), as_microphone(clip, clip.with_suffix(".wav"))
        host = LocalHost(model, folder=Path(scratch) / "sessions")
        with serving(host, Settings(port=0, state=Path(scratch))) as server, chromium(*fake_devices(*files)) as browser:
            spec, path = load_spec(model)
            server.gateway.speech = load_speech(spec, path.parent / (spec.weights or spec.name))
            page = open_page(browser, server.url, viewport={"width": 1440, "height": 900}, color_scheme="light")
            page.uncheck("#listen")  # bells are no questions
            for text in ("there is a blue star", "the red ring is in view"):
                page.fill("#rule", text)
                page.press("#rule", "Enter")
            page.click("#camera")
            page.click("#microphone")
            hold(page, clip)
            page.evaluate("playMotion(rows, rate_hz)")
            wait_seen(page, 8)
            for question in ("What is the color of the star?", "Name the sounds you heard.",
                             "What was the motion of the camera?"):
                ask(page, question)
            page.fill("#query", "blue star")
            page.press("#query", "Enter")
            page.wait_for_selector("#hits button")
            wait_seen(page, seen_s(page) + 8)  # what was noticed leaves the page
            _picture(page, folder / "web-light.png")
            page.click("#theme")
            _picture(page, folder / "web-dark.png")
            page.locator(".chip.video").first.click()
            _picture(page, folder / "web-moment.png")
            page.keyboard.press("Escape")
            page.set_viewport_size({"width": 390, "height": 844})
            _picture(page, folder / "web-phone.png", whole=True)


def _picture(page: Any, path: Path, *, whole: bool = False) -> None:
    """A screenshot of 256 colours: a fourth of the bytes."""
    from PIL import Image

    for notice in page.locator(".notice button").all():
        notice.dispatch_event("click")
    page.wait_for_timeout(400)  # what moves comes to rest
    page.screenshot(path=str(path), full_page=whole)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--clips", type=int, default=10, help="clips (default 10)")
    arguments.add_argument("--questions", type=int, default=12, help="questions of each (default 12)")
    arguments.add_argument("--seconds", type=float, default=6.0, help="length of a clip (default 6)")
    arguments.add_argument("--model", default="tiny", help="default tiny")
    arguments.add_argument("--pictures", metavar="FOLDER", type=Path, help="only take pictures of the page")
    options = arguments.parse_args()
    if find_chromium() is None:
        raise SystemExit("error: no Chromium is installed (apt-get install chromium, or name it in $CHROMIUM)")
    if options.pictures:
        take_pictures(options.pictures, options.model)
        return
    with tempfile.TemporaryDirectory() as folder:
        clips = render_clips(folder, split="test", seed=91, count=options.clips, seconds=options.seconds)
        rows = compare(clips, options.questions, options.seconds, options.model)
    report("answers through the page, against those about the file", rows, options.json)


if __name__ == "__main__":
    main()
