"""Clips that are decoded in a process of their own: the same windows and words as in this one, and what happens when that
process crashes, hangs, takes too much memory, or is not wanted any more."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from actors.gateway.decoding import ApartReader, Decoders
from actors.gateway.hosts import LocalHost
from actors.gateway.settings import MIB, Settings
from actors.gateway.sniff import Lookers
from actors.gateway.testing import serving
from anymodal.errors import MediaError, SessionError, SidecarError
from anymodal.media import StreamSpec, read_windows
from anymodal.testing import gradient_frame, gradient_levels, make_imu_csv, make_levels_video, make_video, make_wav

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
AXES = ("ax", "ay", "az")
SPEC = SimpleNamespace(window_s=1.0, modalities={
    "video": StreamSpec("video", 4, 96), "audio": StreamSpec("audio", 16000), "imu": StreamSpec("imu", 50, axes=AXES),
    "depth": StreamSpec("depth", 4, 24, pixels="gray16"), "thermal": StreamSpec("thermal", 4, None, pixels="gray16")})
LONG_S = 30  # of a clip whose windows do not all fit the pipe
QUESTION = "what colour is it?"


@pytest.fixture(scope="module")
def media(folder):
    """Files by name, good and bad."""
    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * 16000) / 16000).astype(np.float32)
    frames = [gradient_frame(48, i) for i in range(16)]
    clip = make_video(folder / "clip.mp4", frames, rate_hz=4, audio=tone, audio_hz=16000)
    make_imu_csv(folder / "clip.imu.csv", np.arange(200) / 50, rng.standard_normal((200, 3)).astype(np.float32), AXES)
    levels = np.stack([gradient_levels(24, i)[:, :, 0] for i in range(16)])
    np.savez(folder / "depth.npz", frames=levels, rate_hz=4.0)
    make_levels_video(folder / "thermal.mkv", levels[::-1], rate_hz=4)
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(3):
        make_video(pictures / f"{i}.png", [gradient_frame(48, i)], codec="png", pixel_format="rgb24",
                   container_format="image2")
    (folder / "cut.mkv").write_bytes(make_video(folder / "whole.mkv", frames, rate_hz=4).read_bytes()[:-600])
    (folder / "noise.mp4").write_bytes(rng.bytes(5000))
    (folder / "bad.csv").write_text("time_s,ax,ay,az\n0,1,2,much\n")
    for name, more_s in (("long", 0), ("longer", 2)):
        make_video(folder / f"{name}.mkv", [gradient_frame(48, i) for i in range(4 * (LONG_S + more_s))], rate_hz=4)
    return {"clip": clip, "sound": make_wav(folder / "sound.wav", tone, 16000), "picture": pictures / "0.png",
            "pictures": pictures, "long": folder / "long.mkv", "longer": folder / "longer.mkv", "cut": folder / "cut.mkv",
            "noise": folder / "noise.mp4", "none": folder / "none.mp4"}


@pytest.fixture(scope="module")
def lookers():
    made = Lookers()
    yield made
    made.close()


def decoders(lookers, **limits) -> Decoders:
    return Decoders(lookers, Settings(**limits))


def begun(lookers, path, **limits) -> ApartReader:
    """A reader that has given its first window."""
    reader = decoders(lookers, **limits).begin(path, SPEC).open()
    assert next(reader).index == 0
    return reader


def there(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def state(pid: int) -> str:
    """By the kernel; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def until(true, seconds: float = 30.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.01)


def outcome(reader) -> tuple:
    """All that a reader gives: windows, warnings and the error at its end."""
    windows = []
    try:
        with reader() as opened:
            for window in opened:
                windows.append(window)
            return windows, list(opened.warnings), None
    except (MediaError, SidecarError) as error:
        return windows, [], (type(error), error.message, error.fix)


def assert_equal(one, other) -> None:
    assert (one.index, one.t0_s, one.t1_s, dict(one.dropped)) == (other.index, other.t0_s, other.t1_s, dict(other.dropped))
    assert list(one.signals) == list(other.signals)
    for mine, its in zip(one.signals.values(), other.signals.values()):
        assert (mine.modality, mine.rate_hz, mine.t0_s, mine.still) == (its.modality, its.rate_hz, its.t0_s, its.still)
        for a, b in ((mine.data, its.data), (mine.closing, its.closing)):
            assert (a is None) == (b is None)
            assert a is None or (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


# -- the same as in this process -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sidecars", "first_window"), [
    ("clip", {}, 0), ("clip", {"depth": "depth.npz", "thermal": "thermal.mkv"}, 0), ("clip", {"depth": "depth.npz"}, 2),
    ("clip", {}, 9), ("sound", {}, 0), ("picture", {}, 0), ("pictures", {}, 0), ("long", {}, 17), ("cut", {}, 0),
    ("noise", {}, 0), ("none", {}, 0), ("clip", {"imu": "bad.csv"}, 0), ("clip", {"depth": "bad.csv"}, 0),
    ("clip", {"smell": "bad.csv"}, 0),
])
def test_windows_errors_and_warnings_are_the_same(lookers, media, folder, name, sidecars, first_window):
    given = {"sidecars": {kind: folder / file for kind, file in sidecars.items()}, "first_window": first_window}
    wanted, warned, wrong = outcome(lambda: read_windows(media[name], SPEC, **given))
    windows, warnings, error = outcome(lambda: decoders(lookers).begin(media[name], SPEC, **given).open())
    assert (warnings, error) == (warned, wrong)
    assert len(windows) == len(wanted)
    for one, other in zip(windows, wanted):
        assert_equal(one, other)
    said = {"cut": warned, "noise": wrong, "none": wrong, "clip": wrong if "bad.csv" in sidecars.values() else wanted}
    assert said.get(name, wanted) or first_window == 9, "this case is to show something"


def test_one_process_serves_many_clips_and_looks(media):
    lookers = Lookers()
    try:
        pids = set()
        for _ in range(3):
            assert lookers.ask(media["clip"], 60, 20)["kind"] == "video"
            with decoders(lookers).begin(media["clip"], SPEC).open() as reader:
                assert len(list(reader)) == 4
            pids.add(reader.pid)
            assert not there(reader.pid)
        assert len(pids) == 3 and lookers._idle.qsize() == 1
    finally:
        lookers.close()


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_in_the_middle_is_an_error_in_words(lookers, media, sign):
    reader = begun(lookers, media["long"])
    os.kill(reader.pid, sign)
    with pytest.raises(MediaError) as caught:
        list(reader)
    assert caught.value.message == f"{media['long']} cannot be decoded: the decoder crashed ({sign.name})"
    assert not there(reader.pid)
    with decoders(lookers).begin(media["long"], SPEC).open() as again:
        assert len(list(again)) == LONG_S


def test_one_that_hangs_is_killed(lookers, media):
    assert decoders(lookers, sniff_timeout_s=5)._silence_s == 15
    reader = begun(lookers, media["long"])
    reader._silence_s = 0.3  # from now on: a busy machine may take longer to open a file
    os.kill(reader.pid, signal.SIGSTOP)
    began_s = time.monotonic()
    with pytest.raises(MediaError, match="its decoder gave nothing for 0.3 s"):
        list(reader)
    assert 0.2 < time.monotonic() - began_s < 10 and not there(reader.pid)


def test_a_slow_reader_is_no_hanging_decoder(lookers, media):
    reader = begun(lookers, media["long"])
    reader._silence_s = 2.0
    time.sleep(3.0)  # the pipe is full, and the process waits
    assert len(list(reader)) == LONG_S - 1


def test_what_is_read_ahead_is_bounded(lookers, media):
    """The process waits in its write; what it has read ahead is a pipe full, however long the clip."""
    reader = begun(lookers, media["long"])
    until(lambda: state(reader.pid) == "S")
    time.sleep(0.2)
    os.kill(reader.pid, signal.SIGKILL)
    got = 0
    with pytest.raises(MediaError, match="SIGKILL"):
        for _ in reader:
            got += 1
    assert got < LONG_S / 2


def test_one_that_takes_too_much_memory_dies_alone(lookers, media, folder):
    bomb = make_video(folder / "bomb.png", [np.zeros((5000, 5000, 3), np.uint8)], codec="png", pixel_format="rgb24",
                      container_format="image2")
    with decoders(lookers).begin(bomb, SPEC).open() as reader:
        assert len(list(reader)) == 1
    with pytest.raises(MediaError, match="its decoder takes over 100 MiB of memory"):
        list(decoders(lookers, decoder_bytes=100 * MIB).begin(bomb, SPEC).open())
    with decoders(lookers, decoder_bytes=1000 * MIB).begin(media["clip"], SPEC).open() as reader:
        assert len(list(reader)) == 4


def test_what_is_no_message_is_a_crash(lookers, media):
    """A decoder that was taken over may write anything."""
    for said in (b"\xff\xff\xff\xff", b"\x02\0\0\0[]", b"\x04\0\0\0null", b"\x0c\0\0\0{\"window\": 1}",
                 b"\x03\0\0\0abc", b"\x02\0\0\0{}"):
        reader = begun(lookers, media["long"])
        out, its = os.pipe()
        os.write(its, said)
        os.close(its)
        os.dup2(out, reader._pipe)
        os.close(out)
        with pytest.raises(MediaError, match="cannot be decoded"):
            next(reader)
        assert not there(reader.pid)


def test_a_looker_that_is_killed_takes_its_decoder_along(media):
    lookers = Lookers()
    try:
        reader = begun(lookers, media["long"])
        os.kill(reader._looker._process.pid, signal.SIGKILL)
        with pytest.raises(MediaError, match="the decoder crashed"):
            list(reader)
        until(lambda: state(reader.pid) in ("", "Z"))  # not ours to reap
        assert len(list(decoders(lookers).begin(media["clip"], SPEC).open())) == 4
    finally:
        lookers.close()


# -- the end -------------------------------------------------------------------------------------------------------


def test_closing_early_ends_the_process(lookers, media):
    with begun(lookers, media["long"]) as reader:
        os.kill(reader.pid, signal.SIGSTOP)  # it could not end by itself
    assert not there(reader.pid)
    reader.close()
    assert list(reader) == []


def test_stopping_from_another_thread_ends_a_wait(lookers, media):
    reader = begun(lookers, media["long"])
    os.kill(reader.pid, signal.SIGSTOP)
    stopping = threading.Timer(0.3, reader.stop)
    stopping.start()
    began_s = time.monotonic()
    with pytest.raises(SessionError, match="taken back"):
        list(reader)
    assert time.monotonic() - began_s < 10 and not there(reader.pid)
    reader.close()
    assert len(list(decoders(lookers).begin(media["clip"], SPEC).open())) == 4


def test_a_killed_gateway_leaves_no_process(media):
    program = f"""
import time
from test_gateway_media_child import SPEC, Decoders, Lookers, Settings
reader = Decoders(Lookers(), Settings()).begin({str(media["long"])!r}, SPEC).open()
next(reader)
print(reader._looker._process.pid, reader.pid, flush=True)
time.sleep(600)
"""
    root = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root.parent}"}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=env) as gateway:
        pids = [int(pid) for pid in gateway.stdout.readline().split()]
        assert len(pids) == 2 and all(map(there, pids))
        gateway.kill()
    until(lambda: all(state(pid) in ("", "Z") for pid in pids))


# -- in a server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(bundle, folder):
    settings = Settings(port=0, state=folder / "state")
    with serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings) as running:
        yield running


@pytest.fixture
def readers(monkeypatch):
    """All readers that were begun."""
    made, begin = [], Decoders.begin

    def noted(self, *given, **options) -> ApartReader:
        made.append(begin(self, *given, **options))
        return made[-1]

    monkeypatch.setattr(Decoders, "begin", noted)
    return made


def question(path: Path) -> dict:
    url = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    parts = [{"type": "text", "text": QUESTION}, {"type": "video_url", "video_url": {"url": url}}]
    return {"model": "random", "messages": [{"role": "user", "content": parts}]}


def ask(server, path: Path) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json=question(path), timeout=240)


def text_of(got: httpx.Response) -> str:
    assert got.status_code == 200, got.text
    return got.json()["choices"][0]["message"]["content"]


def test_an_answer_is_that_of_the_library_and_leaves_no_process(server, agent, media, readers):
    assert text_of(ask(server, media["long"])) == agent.ask(media["long"], QUESTION).text
    assert len(readers) == 1 and not there(readers[0].pid)


def test_a_crash_while_another_question_goes_on(server, agent, media, readers, monkeypatch):
    read, crashed, size = ApartReader.__next__, threading.Event(), media["long"].stat().st_size

    def read_or_crash(self):
        window = read(self)
        if Path(self._name).stat().st_size != size:
            os.kill(self.pid, signal.SIGSEGV)
        elif window.index == 1:
            assert crashed.wait(120)
        return window

    monkeypatch.setattr(ApartReader, "__next__", read_or_crash)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(ask(server, media["long"])))
    asking.start()
    until(lambda: readers)
    got = ask(server, media["longer"])
    crashed.set()
    asking.join(240)
    assert got.status_code == 400, got.text
    error = got.json()["error"]
    assert error["code"] == "invalid_media" and error["param"] == "messages.0.content.1.video_url"
    assert error["message"].startswith("the file cannot be decoded: the decoder crashed (SIGSEGV)")
    assert text_of(answers[0]) == agent.ask(media["long"], QUESTION).text
    monkeypatch.undo()
    assert text_of(ask(server, media["longer"])) == agent.ask(media["longer"], QUESTION).text


@pytest.mark.parametrize("opened", [True, False], ids=["while it decodes", "while it opens"])
def test_a_client_that_leaves_ends_the_process(server, media, readers, monkeypatch, opened):
    """Although it hangs, and would for a minute."""
    method, held = ("__next__" if opened else "open"), threading.Event()
    read = getattr(ApartReader, method)

    def read_what_hangs(self):
        os.kill(self.pid, signal.SIGSTOP)
        held.set()
        return read(self)

    monkeypatch.setattr(ApartReader, method, read_what_hangs)
    client = http.client.HTTPConnection("127.0.0.1", server.port)
    client.request("POST", "/v1/chat/completions", json.dumps(question(media["long"])),
                   {"content-type": "application/json"})
    assert held.wait(120)
    client.close()
    until(lambda: not there(readers[0].pid), 20)
    monkeypatch.undo()
    assert text_of(ask(server, media["clip"]))
    until(lambda: server.gateway.host.names() == [])


def test_draining_ends_the_processes(bundle, folder, media, readers, monkeypatch):
    settings = Settings(port=0, state=folder / "drained", drain_s=1.0)
    read = ApartReader.__next__

    def read_what_hangs(self):
        os.kill(self.pid, signal.SIGSTOP)
        return read(self)

    monkeypatch.setattr(ApartReader, "__next__", read_what_hangs)

    def ask_in_vain() -> None:
        with pytest.raises(httpx.HTTPError):
            ask(running, media["long"]).raise_for_status()

    with serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings) as running:
        asking = threading.Thread(target=ask_in_vain)
        asking.start()
        until(lambda: readers)
        looker = readers[0]._looker._process
        running.drain()
        asking.join(60)
    assert not asking.is_alive() and not there(readers[0].pid)
    until(lambda: looker.poll() is not None)
