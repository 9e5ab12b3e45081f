"""Live sources against real servers on loopback, which are killed and started again; `anymodal live` in a terminal.

FFmpeg serves MPEG-TS over HTTP, UDP and TCP, and HLS through Python's http.server; GStreamer serves RTSP. A test whose
server is not installed is skipped and says what brings it.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from actors.cluster import free_ports
from anymodal.agent import load
from anymodal.commands.live import Run
from anymodal.commands.live_view import JsonLines
from anymodal.errors import InputError, MediaError, OutputError
from anymodal.live import address
from anymodal.live.clock import LATE_S, MediaClock, Timeline, common_step_s
from anymodal.live.grid import AudioGrid, VideoGrid
from anymodal.live.live import Live
from anymodal.live.reconnect import Backoff, Reconnect
from anymodal.live.record import Recorder
from anymodal.live.source import Limits, News, Source
from anymodal.media.spec import StreamSpec
from anymodal.testing import FakeClock, gradient_frame, make_video
from anymodal.types import Packet

SPECS = {"video": StreamSpec("video", 20, 32), "audio": StreamSpec("audio", 16000)}
LIMITS = Limits(open_timeout_s=10, read_timeout_s=3, backoff=Backoff(first_s=0.2, most_s=0.5))
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here: install Debian's package ffmpeg")
SERVER_PYTHON = "/usr/bin/python3"  # the system's, which Debian's GStreamer bindings are made for
RTSP_PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
RTSP_SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
if not all(Gst.ElementFactory.find(name) for name in ("x264enc", "rtph264pay", "rtppcmapay")): sys.exit(3)
if len(sys.argv) < 2: sys.exit(0)
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,width=64,height=64,framerate=10/1 ! x264enc "
    "tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 pt=96 "
    "audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 pt=8 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
GLib.MainLoop().run()
"""


def wait_for(condition, seconds: float = 20.0, what: str = "") -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what or condition} has not come in {seconds} s"
        time.sleep(0.02)


def has_rtsp() -> bool:
    if not Path(SERVER_PYTHON).exists():
        return False
    return subprocess.run([SERVER_PYTHON, "-c", RTSP_SERVER], capture_output=True, timeout=60).returncode == 0


# -- clocks and attempts ------------------------------------------------------------------------------------------


def test_attempts_come_later_each_time_and_not_at_once():
    backoff = Backoff(first_s=1, most_s=20, jitter=0.25)
    for attempt, middle_s in ((1, 1), (2, 2), (3, 4), (5, 16), (6, 20), (1000, 20)):
        waits = [backoff.wait_s(attempt, random.Random(seed)) for seed in range(50)]
        assert middle_s * 0.75 <= min(waits) < max(waits) <= middle_s * 1.25 and len(set(waits)) > 40
    with pytest.raises(ValueError, match="not a backoff"):
        Backoff(first_s=2, most_s=1)


def test_a_connection_that_held_starts_the_attempts_over():
    clock = FakeClock()
    attempts = Reconnect(Backoff(first_s=1, most_s=60, jitter=0, steady_s=10), clock=clock)
    assert [attempts.lost() for _ in range(3)] == [1, 2, 4]
    clock.advance(3)
    assert attempts.left_s == 1
    attempts.connected()
    clock.advance(9)
    assert attempts.lost() == 8  # it flaps
    attempts.connected()
    clock.advance(10)
    assert (attempts.lost(), attempts.attempt) == (1, 1)


def test_a_connection_is_laid_onto_the_clock():
    clock = FakeClock()
    media = MediaClock(clock=clock)
    clock.advance(5)
    line = Timeline(media)
    assert line.arrived("video", 1000.0, True) == 0 and line.at("video", 1000.0) == 5
    assert line.at("audio", Fraction(2001, 2)) == 5.5  # a stream of the same source keeps its distance
    clock.advance(LATE_S)
    assert line.arrived("video", 1000.0, True) == 0  # a little late is not late
    clock.advance(3)
    assert line.arrived("video", 1000.5, False) == 0 and line.at("video", 1000.5) == 5.5  # it was us who were slow
    line = Timeline(media)
    line.arrived("video", 0.0, True)
    clock.advance(4)
    assert line.arrived("video", 0.5, True) == 3.5  # nothing came for 4 s
    assert line.at("video", 0.5) == media.now_s() == line.at("audio", 0.5)


def test_a_stream_whose_times_do_not_agree_is_moved_alone():
    clock = FakeClock()
    line = Timeline(MediaClock(clock=clock))
    line.arrived("video", 100.0, True)
    for i in range(1, 5):
        clock.advance(0.1)
        line.arrived("video", 100 + i / 10, True)
        line.arrived("audio", 50 + i / 10, True)
    assert line.at("video", 100.4) == pytest.approx(0.4) == line.at("audio", 50.4)


def test_time_goes_on_over_a_gap_and_never_back():
    clock = FakeClock()
    media = MediaClock(start_s=10, clock=clock)
    first = Timeline(media)
    first.arrived("video", 0.0, True)
    assert first.at("video", 2.0) == 12
    clock.advance(1)
    second = Timeline(media, first_s=12.0)  # what came is ahead of the clock by a second
    second.arrived("video", 0.0, True)
    assert second.at("video", 0.0) == 12
    clock.advance(7200)
    media.hold(7000)
    assert media.now_s() == 211


def test_the_step_that_stays_on_every_grid():
    assert common_step_s([Fraction(4), Fraction(16000)]) == 0.25
    assert common_step_s([Fraction(1, 3), Fraction(2)]) == 3
    assert common_step_s([]) == 1


# -- names and addresses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "name", "url"), [
    ("rtsp://user:secret@cam.local/live", "cam.local", "rtsp://user:secret@cam.local/live"),
    ("front=http://192.0.2.7/x.m3u8?a=b", "front", "http://192.0.2.7/x.m3u8?a=b"),
    ("udp://:1234", "stream", "udp://:1234"),
])
def test_addresses(text, name, url):
    found = address.parse(text)
    assert (found.name, found.url) == (name, url) and "secret" not in found.shown
    assert "file" not in found.options["protocol_whitelist"].split(",")


@pytest.mark.parametrize(("text", "wanted"), [
    ("ftp://x/y", "no live source (did you mean 'tcp'?)"), ("rtsp:///x", "names no host"),
    ("nowhere.mp4", "no file nowhere.mp4"), (" ", "a source is empty"), ("gopher://h/", "the scheme 'gopher'"),
])
def test_bad_addresses(text, wanted):
    with pytest.raises(InputError) as raised:
        address.parse(text)
    assert wanted in str(raised.value)


@pytest.mark.skipif(sys.platform != "linux", reason="names of Linux's devices")
def test_devices():
    assert [(a.url, a.format, a.name) for a in map(address.camera, ("/dev/video2", "2", "yard=x11grab::0"))] == [
        ("/dev/video2", "v4l2", "camera"), ("/dev/video2", "v4l2", "camera"), (":0", "x11grab", "yard")]
    assert [(a.url, a.format) for a in map(address.microphone, ("default", "hw:1", "pulse:x"))] == [
        ("default", "alsa"), ("hw:1", "alsa"), ("x", "pulse")]
    with Live([address.camera("/dev/video-none")], SPECS, limits=LIMITS) as live, pytest.raises(MediaError) as raised:
        live.open()
    assert "camera /dev/video-none cannot be used: No such file" in str(raised.value)


# -- grids and shedding -------------------------------------------------------------------------------------------


def video_frame(number: int):
    import av

    return av.VideoFrame.from_ndarray(gradient_frame(32, number), "rgb24")


def sound_frame(samples: np.ndarray, rate_hz: int):
    import av

    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
    frame.sample_rate = rate_hz
    return frame


def test_frames_onto_the_grid():
    grid = VideoGrid("v", StreamSpec("video", 4, 32))
    given = [p for i in range(30) for p in grid.put(video_frame(i), 0.1 + i / 10)]
    assert [p.pts_s for p in given] == [i / 4 for i in range(1, 12)]
    shown = [int(np.argmin([np.abs(p.data.astype(int) - gradient_frame(32, i)).sum() for i in range(30)])) for p in given]
    assert shown == [1, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26]  # the last frame at or before each time
    assert len(list(grid.put(video_frame(0), 60.0))) == 8  # a frame is held for two seconds, not for a minute
    list(grid.end())
    assert list(grid.put(video_frame(1), 61.0)) == [] and [p.pts_s for p in grid.put(video_frame(1), 61.3)] == [61, 61.25]


def test_sound_onto_the_grid_over_two_connections():
    grid = AudioGrid("a", StreamSpec("audio", 16000))
    t_s = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 200 * t_s)

    def connection(at_s: float) -> list[Packet]:
        put = [p for i in range(0, 44100, 1024)
               for p in grid.put(sound_frame(tone[i:i + 1024], 44100), at_s + i / 44100)]
        return [*put, *grid.end()]

    first, second = connection(0.5), connection(1.25)  # a quarter of a second of it has been given already
    for packets, begin_s, end_s in ((first, 0.5, 1.5), (second, 1.5, 2.25)):
        assert packets[0].pts_s == pytest.approx(begin_s, abs=1e-3)
        joined = np.concatenate([p.data for p in packets])
        assert packets[0].pts_s + len(joined) / 16000 == pytest.approx(end_s, abs=2e-3)
        for before, after in zip(packets, packets[1:]):
            assert after.pts_s == pytest.approx(before.pts_s + len(before.data) / 16000)
    joined = np.concatenate([p.data for p in first])
    wanted = np.sin(2 * np.pi * 200 * np.arange(len(joined)) / 16000)
    assert np.abs(joined - wanted)[200:-200].max() < 0.02


def test_what_waits_too_long_is_shed_and_time_is_not_turned_back():
    clock = FakeClock()
    media = MediaClock(clock=clock)
    source = Source(address.parse("udp://127.0.0.1:9"), SPECS, media, limits=LIMITS)
    source.begin({"video": "v"}, 0.0)
    source._timeline.offset_s = 0.0

    def put(pts_s: float) -> None:
        source._put(Packet("v", "video", pts_s, np.zeros(1), 20.0), 0)

    put(0.0)
    assert [p.pts_s for p in source.due(media.now_s())] == [0.0] and source.due(0.0) == []
    for i in range(1, 61):  # three seconds of frames at once
        put(i / 20 + source._timeline.offset_s)
    times = [p.pts_s for p in source._waiting]
    assert times == sorted(times) and 0 < times[0] and times[-1] <= LIMITS.held_s
    assert source.counts["shed"] + len(times) == 60 and source._timeline.offset_s < 0


def test_sound_that_was_given_is_not_said_again_when_what_waits_is_shed():
    source = Source(address.parse("udp://127.0.0.1:9"), SPECS, media := MediaClock(clock=FakeClock()), limits=LIMITS)
    source.begin({"audio": "a"}, 0.0)
    source._timeline.offset_s = 0.0
    source._put(Packet("a", "audio", 0.0, np.zeros(1600), 16000.0), 0)
    given = source.due(media.now_s())
    for i in range(1, 31):  # three seconds of sound at once, shifted by what is no whole number of packets
        source._put(Packet("a", "audio", i / 10 + 0.05 + source._timeline.offset_s, np.zeros(1600), 16000.0), 0)
    media.hold(-LIMITS.held_s)
    given += source.due(media.now_s())
    ends = [p.pts_s + len(p.data) / 16000 for p in given]
    assert len(given) > 2 and all(after.pts_s >= end - 1e-6 for end, after in zip(ends, given[1:]))


# -- servers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(folder) -> Path:
    """A minute in which it flashes and beeps at every second, for 0.2 s each."""
    hz, rate_hz = 20, 16000
    dark, bright = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    frames = [bright if i % hz < 4 else dark for i in range(60 * hz)]
    t_s = np.arange(60 * rate_hz) / rate_hz
    beeps = (0.5 * np.sin(2 * np.pi * 440 * t_s) * (t_s % 1 < 0.2)).astype(np.float32)
    return make_video(folder / "clip.mp4", frames, rate_hz=hz, audio=beeps, audio_hz=rate_hz,
                      options={"preset": "ultrafast", "tune": "zerolatency", "g": "5", "threads": "1"})


class Server:
    """One that is started, killed and started again.

    FFmpeg serves one connection and ends: with one that is broken off on a busy machine, or when its port was taken in the
    meantime. As what runs such servers would, this runs it again until it is killed.
    """

    def __init__(self, kind: str, clip: Path, folder: Path) -> None:
        self.kind, self.clip, self.folder, self.port = kind, clip, folder / kind, free_ports(1)[0]
        self.folder.mkdir()
        self.processes: list[subprocess.Popen] = []
        self.log = folder / f"{kind}.log"
        path = {"http": "/x", "hls": "/live.m3u8", "rtsp": "/live"}.get(kind, "")
        self.url = f"{'http' if kind == 'hls' else kind}://127.0.0.1:{self.port}{path}"

    def start(self, *, again: bool = False) -> None:
        self._killed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, args=(self._killed,), daemon=True)
        self._keeper.start()
        self._start(again)

    def _start(self, again: bool) -> None:
        if self.kind == "rtsp":
            self._run([SERVER_PYTHON, "-c", RTSP_SERVER, str(self.port)])
            return
        begin = ["-ss", "20"] if again else []
        play = [FFMPEG, "-v", "error", "-re", *begin, "-i", str(self.clip), "-c", "copy"]
        if self.kind == "hls":
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            self._run([*play, "-f", "hls", "-hls_time", "0.5", "-hls_list_size", "5", str(self.folder / "live.m3u8")])
            self._run([sys.executable, "-m", "http.server", str(self.port), "--bind", "127.0.0.1", "-d", str(self.folder)])
            wait_for((self.folder / "live.m3u8").exists, what="the playlist")
        else:
            listen = {"http": ["-listen", "1", self.url], "tcp": [f"{self.url}?listen=1"],
                      "udp": [f"{self.url}?pkt_size=1316"]}[self.kind]
            self._run([*play, "-f", "mpegts", *listen])

    def kill(self) -> None:
        self._killed.set()
        self._keeper.join()
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def _keep(self, killed: threading.Event) -> None:
        while not killed.wait(0.1):
            for process in [p for p in self.processes if p.poll() is not None]:
                self.processes.remove(process)
                self._run(process.args)

    def _run(self, argv: list[str]) -> None:
        with self.log.open("a") as log:
            self.processes.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log))


class Watched:
    """What came of a source whose server was killed and started again."""

    def __init__(self, server: Server, record: Path | None = None) -> None:
        self.kind, self.log = server.kind, server.log
        self.packets: list[tuple[float, Packet]] = []
        self.news: list[News] = []
        recorder = None if record is None else Recorder(record)
        try:
            server.start()
            with Live([address.parse(server.url)], SPECS, limits=LIMITS, record=recorder) as live:
                self.wrong = live.open(wait=True)
                self._wait(live, lambda: all(s.found for s in live.sources), "is found")
                self.streams = live.streams
                live.begin(lambda packet: self.packets.append((live.clock.now_s(), packet)))
                self._wait(live, lambda: self._newest_s() > 3, "sends packets")
                self._told(live, "")  # of before, when a busy machine may have stalled
                self.news.clear()
                server.kill()
                self._wait(live, lambda: self._told(live, "lost"), "is lost")
                time.sleep(0.5)
                server.start(again=True)
                self._wait(live, lambda: self._told(live, "gap"), "is back")
                back_s = live.clock.now_s()
                self._wait(live, lambda: self._newest_s() > back_s + 2, "sends packets after the gap")
                self.status = live.status()[0]
        finally:
            server.kill()

    def _wait(self, live: Live, condition, what: str) -> None:
        try:
            wait_for(condition)
        except AssertionError:
            pytest.fail(f"not so in time: the {self.kind} server {what}. It says {self.log.read_text()[-2000:]!r}; "
                        f"the source is {live.status()[0]}, its news {[*self.news, *live.news()]}")

    def _newest_s(self) -> float:
        return max((p.pts_s for _, p in self.packets), default=0.0)

    def _told(self, live: Live, kind: str) -> bool:
        self.news += live.news()
        return any(news.kind == kind for news in self.news)

    def of(self, modality: str) -> list[Packet]:
        return [p for _, p in self.packets if p.modality == modality]


@pytest.fixture(scope="module")
def watched(clip, folder):
    """kind -> a Watched to come: all of them at the same time."""
    kinds = [*(("http", "hls", "udp", "tcp") if FFMPEG else ()), *(("rtsp",) if has_rtsp() else ())]
    with ThreadPoolExecutor(len(kinds) or 1) as pool:
        yield {kind: pool.submit(Watched, Server(kind, clip, folder), folder / f"{kind}.mkv") for kind in kinds}


def result(watched: dict[str, Future], kind: str) -> Watched:
    if kind not in watched:
        packages = RTSP_PACKAGES if kind == "rtsp" else "ffmpeg"
        pytest.skip(f"no {kind} server here: install Debian's packages {packages}")
    return watched[kind].result(timeout=180)


KINDS = pytest.mark.parametrize("kind", ["http", "hls", "udp", "tcp", "rtsp"])


@KINDS
def test_a_server_that_is_killed_and_started_again(watched, kind):
    seen = result(watched, kind)
    assert seen.streams == {"video": "video", "audio": "audio"}
    gap = next(news for news in seen.news if news.kind == "gap")
    assert gap.t_s - gap.from_s > 0.4 and gap.text
    assert seen.status.counts["lost"] >= 1 and seen.status.counts["gaps"] >= 1
    for modality in ("video", "audio"):
        packets = seen.of(modality)
        ends = [p.pts_s + (len(p.data) / p.rate_hz if modality == "audio" else 0) for p in packets]
        assert all(after.pts_s >= end - 1e-6 for end, after in zip(ends, packets[1:])), "time went back"
        inside = [p.pts_s for p in packets if gap.from_s + 0.3 < p.pts_s < gap.t_s - 0.3]
        if not seen.status.counts.get("shed"):  # which makes what follows due earlier than its gap was told to end
            assert inside == [], "the gap is not empty"
        assert any(p.pts_s > gap.t_s for p in packets) and any(p.pts_s < gap.from_s for p in packets)
    late = [now_s - p.pts_s for now_s, p in seen.packets]
    assert np.median(late) < 0.5  # media time is the time that goes by


def onsets(times_s: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """When something begins that was not there 50 ms before."""
    on = levels > levels.max() / 2
    begins = times_s[1:][on[1:] & ~on[:-1]]
    return begins[np.concatenate(([True], np.diff(begins) > 0.3))] if len(begins) else begins


def check_sync(flashes_s: np.ndarray, beeps_s: np.ndarray, tolerance_s: float) -> None:
    assert len(flashes_s) >= 3 and len(beeps_s) >= 3, (flashes_s, beeps_s)
    off_s = [np.abs(beeps_s - flash_s).min() for flash_s in flashes_s[1:-1]]
    assert np.median(off_s) < tolerance_s, (flashes_s, beeps_s)


@pytest.mark.parametrize("kind", ["http", "hls", "udp", "tcp"])
def test_picture_and_sound_stay_together(watched, kind):
    seen = result(watched, kind)
    video, audio = seen.of("video"), seen.of("audio")
    flashes_s = onsets(np.array([p.pts_s for p in video]), np.array([p.data.mean() for p in video]))
    loud = [(p.pts_s + i / 16000, np.abs(p.data[i:i + 160]).max()) for p in audio for i in range(0, len(p.data), 160)]
    check_sync(flashes_s, onsets(*map(np.array, zip(*loud))), 0.1)


def read_recording(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times at which it flashes and beeps, and those of all frames, by decoding all of it."""
    import av

    bright, loud = [], []
    with av.open(str(path)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                bright.append((frame.time, frame.to_ndarray(format="gray").mean()))
            else:
                samples, hz = np.abs(frame.to_ndarray().astype(np.float32)).max(axis=0), frame.sample_rate
                loud += [(frame.time + i / hz, samples[i:i + 160].max()) for i in range(0, len(samples), 160)]
    shown = onsets(*map(np.array, zip(*bright)))
    return shown, onsets(*map(np.array, zip(*loud))), np.array([time_s for time_s, _ in bright])


def test_why_a_source_was_away_is_in_the_session_s_log(random_model, tmp_path, capsys):
    news = [News("door", "lost", 1.0, "connection refused"), News("door", "gap", 3.0, "connection refused", 1.0)]
    feeds = SimpleNamespace(news=lambda: iter(news), status=list, streams={"video": "video"},
                            clock=SimpleNamespace(now_s=lambda: 3.0))
    with load(random_model, threads=1).open(live=True, streams=feeds.streams) as session:
        Run(session, feeds, JsonLines(), SimpleNamespace(lines=list, text=""), [], math.inf)._look()
        for i in (*range(5), *range(16, 21)):
            session.push(Packet("video", "video", i / 4, gradient_frame(32, i), 4))
        session.flush()
        assert [p.gap for p in session.log.windows(2, 4)] == ["door: connection refused", "no signal", ""]
    assert '"connection refused"' in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["http", "udp", "tcp"])
def test_the_recording_is_in_sync_and_on_the_session_s_clock(watched, folder, kind):
    seen = result(watched, kind)
    flashes_s, beeps_s, frames_s = read_recording(folder / f"{kind}.mkv")
    check_sync(flashes_s, beeps_s, 0.1)
    gap = next(news for news in seen.news if news.kind == "gap")
    assert any(f > gap.t_s for f in flashes_s) and any(f < gap.from_s for f in flashes_s)
    for whole_s in (frames_s[frames_s < gap.from_s], frames_s[frames_s > gap.t_s]):  # as it was sent, 20 a second
        assert len(whole_s) > 2 and np.median(np.diff(whole_s)) == pytest.approx(1 / 20, abs=0.011)
        assert kind == "udp" or len(whole_s) >= 0.9 * 20 * (whole_s[-1] - whole_s[0])  # which may lose some
    video = seen.of("video")
    seen_s = onsets(np.array([p.pts_s for p in video]), np.array([p.data.mean() for p in video]))
    assert np.median([np.abs(seen_s - f).min() for f in flashes_s[1:-1]]) < 0.1


RECORDING = """
import sys, time
from anymodal.live import address
from anymodal.live.live import Live
from anymodal.live.record import Recorder
from anymodal.media.spec import StreamSpec
specs = {"video": StreamSpec("video", 4, 32), "audio": StreamSpec("audio", 16000)}
with Live([address.parse(sys.argv[1])], specs, record=Recorder(sys.argv[2])) as live:
    live.open(wait=True)
    live.begin(lambda packet: print(packet.pts_s, flush=True))
    time.sleep(60)
"""


@needs_ffmpeg
def test_a_recording_that_is_killed_can_be_read(clip, folder, tmp_path):
    server = Server("http", clip, tmp_path)
    server.start()
    path = tmp_path / "killed.mkv"
    process = subprocess.Popen([sys.executable, "-c", RECORDING, server.url, path], stdout=subprocess.PIPE, text=True)
    try:
        last_s = 0.0
        while last_s < 5:
            line = process.stdout.readline()
            assert line, "it ended"
            last_s = float(line)
    finally:
        process.kill()
        process.wait()
        server.kill()
    flashes_s, beeps_s, _ = read_recording(path)
    check_sync(flashes_s, beeps_s, 0.1)
    assert flashes_s[-1] > last_s - 3.5
    with pytest.raises(OutputError, match="there already"):
        Recorder(path)
    with pytest.raises(OutputError, match="no mkv"):
        Recorder(tmp_path / "x.mp4")


@needs_ffmpeg
def test_what_is_decoded_too_slowly_is_caught_up_with(clip, tmp_path, monkeypatch):
    server = Server("tcp", clip, tmp_path)
    put = VideoGrid.put
    slow = []

    def slow_put(grid, frame, at_s):
        slow.append(at_s)
        time.sleep(0.12 if len(slow) < 40 else 0)  # at 20 frames/s
        return put(grid, frame, at_s)

    monkeypatch.setattr(VideoGrid, "put", slow_put)
    packets: list[tuple[float, Packet]] = []
    try:
        server.start()
        with Live([address.parse(server.url)], SPECS, limits=LIMITS) as live:
            live.open(wait=True)
            wait_for(lambda: live.sources[0].found)
            live.begin(lambda packet: packets.append((live.clock.now_s(), packet)))
            wait_for(lambda: len(slow) > 70)
            counts = live.status()[0].counts
    finally:
        server.kill()
    assert counts["too slow"] > 5 and counts.get("lost", 0) == 0
    late = [now_s - p.pts_s for now_s, p in packets if p.modality == "video"]
    assert max(late) < 1.5 and np.median(late[-10:]) < 0.5  # it is not further and further behind


def test_a_reader_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr("anymodal.live.source.HUNG_S", 0.2)
    hang, opened = threading.Event(), []

    def open_live(*_):
        opened.append(threading.current_thread())
        if len(opened) == 1:
            hang.wait(30)
        raise MediaError("it is gone")

    monkeypatch.setattr("anymodal.live.connection.open_live", open_live)
    limits = Limits(open_timeout_s=0.1, read_timeout_s=0.1, backoff=Backoff(first_s=0.1, most_s=0.1))
    with Live([address.camera("v4l2:/dev/video-none")], SPECS, limits=limits) as live:
        live.sources[0].opened.set()
        live.open(wait=True)
        live.begin(lambda packet: None)
        wait_for(lambda: len(opened) > 2, 10)
        assert [news.kind for news in live.news()][0] == "lost"
        assert live.status()[0].text.startswith("it hangs")
        hang.set()


# -- the command --------------------------------------------------------------------------------------------------


def rows(text: str, kind: str) -> list[dict]:
    return [row for row in map(json.loads, text.splitlines()) if row["type"] == kind]


@pytest.fixture(scope="module")
def short_clip(folder) -> Path:
    return make_video(folder / "short.mp4", [gradient_frame(32, i) for i in range(15)], rate_hz=5,
                      audio=np.zeros(3 * 16000, np.float32), audio_hz=16000, container_options={"movflags": "faststart"},
                      options={"preset": "ultrafast", "threads": "1"})


def test_several_sources_as_json(cli, short_clip, random_model, tmp_path):
    log = tmp_path / "session.db"
    device = "yard=lavfi:testsrc2=size=64x48:rate=10,realtime"
    ran = cli("live", f"door={short_clip}", "--camera", device, "--rule", "tell me when a bell rings", "--ask", "1: what?",
              "--ask", "what now?", "--for", "3", "--log", log, "--model", random_model, "--json")
    assert ran.code == 0, ran
    (started,), (end,) = rows(ran.out, "started"), rows(ran.out, "end")
    assert started["streams"] == {"yard": "video", "door": "video", "door-audio": "audio"}
    assert (end["windows"], end["end_s"]) == (3, 3.0)
    windows = rows(ran.out, "window")
    assert [w["window"] for w in windows] == [0, 1, 2] and {"yard", "door", "door-audio"} <= set(windows[1]["streams"])
    first, last = rows(ran.out, "answer")
    assert (first["question"], first["at_s"], first["last_window"]) == ("what?", 1.0, 0)
    assert (last["question"], last["last_window"]) == ("what now?", 2)
    status = {s["source"]: s for s in rows(ran.out, "status")[-1]["sources"]}
    assert status["yard"]["rates_hz"]["video"] == pytest.approx(10, rel=0.3)

    again = cli("live", short_clip, "--for", "1.5", "--log", log, "--model", random_model)
    assert again.code == 0 and "watching" in again.out and "5 windows, 5 s" in again.out.splitlines()[-1], again


def test_an_address_with_an_end_is_played_at_its_own_speed(short_clip):
    port = free_ports(1)[0]
    server = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d",
                               str(short_clip.parent)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    packets: list[tuple[float, Packet]] = []
    try:
        with Live([address.parse(f"http://127.0.0.1:{port}/short.mp4")], SPECS, limits=LIMITS) as live:
            live.open(wait=True)
            wait_for(lambda: live.sources[0].found)
            live.begin(lambda packet: packets.append((live.clock.now_s(), packet)))
            wait_for(lambda: live.is_over)
            assert 2.5 < live.clock.now_s() < 4 and live.error is None
            assert [news.kind for news in live.news()] == ["live", "ended"]
    finally:
        server.kill()
        server.wait()
    assert max(abs(now_s - p.pts_s) for now_s, p in packets[5:]) < 0.5


@pytest.mark.parametrize(("argv", "code", "wanted"), [
    ([], 2, "nothing to watch"), (["--camera", "lavfi:nosuchfilter"], 3, "camera lavfi:nosuchfilter cannot be used"),
    (["rtsp://127.0.0.1:9/x"], 3, "Connection refused (start the server"), (["CLIP", "--for", "-1"], 2, "--for -1"),
    (["CLIP", "--record", "x.mkv"], 2, "--record: a file is there already"), (["nowhere.mp4"], 2, "no file nowhere.mp4"),
    (["CLIP", "--record", "x.avi"], 7, "is no mkv"),
])
def test_bad_arguments(cli, random_model, short_clip, argv, code, wanted):
    ran = cli("live", *(short_clip if word == "CLIP" else word for word in argv), "--model", random_model)
    assert ran.code == code and wanted in ran.err, ran


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pty")
def test_the_view_in_a_terminal_and_a_typed_question(folder, random_model):
    import fcntl
    import pty
    import select
    import struct
    import termios

    clip = make_video(folder / "long.mp4", [gradient_frame(32, i) for i in range(400)], rate_hz=4,
                      options={"preset": "ultrafast", "threads": "1"})
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    before = termios.tcgetattr(theirs)
    argv = ["live", clip, "--model", random_model, "--rule", "tell me when a bell rings"]
    process = subprocess.Popen([sys.executable, "-m", "anymodal", *argv], stdin=theirs, stdout=theirs, stderr=theirs,
                               start_new_session=True, env={**os.environ, "TERM": "xterm"})
    shown = ""

    def read() -> str:
        ready = select.select([ours], [], [], 0.1)[0]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(ours, 65536).decode(errors="replace")) if ready else ""

    def until(text: str, seconds: float = 120.0) -> None:
        nonlocal shown
        end = time.monotonic() + seconds
        while text not in shown:
            assert time.monotonic() < end and process.poll() is None, shown[-2000:]
            shown += read()

    try:
        until("2.0 s")
        assert "long" in shown and "frames/s" in shown and "ask>" in shown
        os.write(ours, b"what can you sea\x7fe?")
        until("what can you see?_")
        os.write(ours, b"\r")
        until("> what can you see?")
        until("confidence")
        os.write(ours, b"/rules\r")
        until("rule-1: tell me when a bell rings")
        os.write(ours, b"/quit\r")
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            shown += read()
        assert process.wait(1) == 0 and "nothing lost" in shown
        assert termios.tcgetattr(theirs) == before  # the terminal is as it was
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
