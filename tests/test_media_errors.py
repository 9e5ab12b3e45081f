"""Bad input: one clear MediaError with a way to mend it, or what can be read together with a warning."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest

av = pytest.importorskip("av")

from anymodal.errors import InputError, MediaError, QuestionError  # noqa: E402
from anymodal.media import StreamSpec, open_media, probe, read_windows  # noqa: E402
from anymodal.testing import gradient_frame, make_audio, make_video, make_wav  # noqa: E402

SPECS = {"video": StreamSpec("video", 4, 32), "audio": StreamSpec("audio", 16000)}
BUNDLE = SimpleNamespace(window_s=1.0, modalities=SPECS)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = [gradient_frame(64, i, 48) for i in range(100)]
    return make_video(
        tmp_path_factory.mktemp("clip") / "clip.mp4", frames, audio=np.zeros(44100 * 4, np.float32), options={"g": "10"}
    )


def fails(path, match: str, fix: str, **options) -> None:
    with pytest.raises(MediaError, match=match) as raised, open_media(path, SPECS, **options) as source:
        list(source)
    assert fix in raised.value.fix, raised.value.fix
    assert "\n" not in str(raised.value) and raised.value.exit_code == 3


def write(path, data: bytes):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("channels", "seconds"), [(10, 0.1), (64, 0.0156), (65, 0.0), (255, 0.0)])
def test_more_channels_than_a_frame_has_planes(tmp_path, channels, seconds):
    """A flipped bit in a header must not crash the process. Above 64 FFmpeg itself gives up: the sound is damaged."""
    data = bytearray(make_wav(tmp_path / "a.wav", np.full(16000, 0.25, np.float32), 16000).read_bytes())
    data[22:24] = channels.to_bytes(2, "little")
    with open_media(write(tmp_path / "b.wav", bytes(data)), {"audio": SPECS["audio"]}) as source:
        heard = np.concatenate([p.data for p in source] or [np.zeros(0, np.float32)])
        assert len(heard) / 16000 == pytest.approx(seconds, abs=0.01) and np.allclose(heard, 0.25, atol=1e-3)
        assert bool(source.warnings) == (channels > 64)


def test_a_rate_that_no_sound_has(tmp_path):
    data = bytearray(make_wav(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000).read_bytes())
    data[24:28] = (2**31 - 1).to_bytes(4, "little")
    fails(write(tmp_path / "b.wav", bytes(data)), "says that it has 2147483647 samples a second", "copy or export it again")


def test_a_missing_file(tmp_path):
    fails(tmp_path / "none.mp4", "no file .*none.mp4", "check the path")
    with pytest.raises(MediaError, match="no file"):
        probe(tmp_path / "none.mp4")


def test_a_directory_without_images(tmp_path):
    fails(tmp_path, "directory without images", "folder of png or jpg")


def test_a_folder_of_broken_images(tmp_path):
    write(tmp_path / "a.png", b"nothing")
    fails(tmp_path, "no decodable frame", "again")


def test_an_empty_file(tmp_path):
    fails(write(tmp_path / "a.mp4", b""), "is empty", "again")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    fails(tmp_path / "pipe.mp4", "not a regular file", "save the stream")


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes.wav", "notes.png", "list.m3u8", "list.ffconcat"])
def test_text_is_no_media_whatever_its_name(tmp_path, name):
    text = {"list.m3u8": "#EXTM3U\n#EXTINF:1,\nclip.ts\n", "list.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n"}
    fails(write(tmp_path / name, text.get(name, "hello there, no media\n" * 50).encode()), "media|frame", "")


def test_noise_is_no_media(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 20000, dtype=np.uint8).tobytes()
    fails(write(tmp_path / "noise.mp4", noise), "cannot be opened|no decodable|none of what|no video", "")


def test_zeros_are_named(tmp_path):
    fails(write(tmp_path / "zeros.mp4", bytes(5000)), "cannot be opened", "only zeros")


def test_an_mp4_cut_before_its_index(clip, tmp_path):
    data = clip.read_bytes()
    fails(write(tmp_path / "cut.mp4", data[: len(data) // 2]), "cannot be opened", "cut short")


def test_a_file_of_zero_length(tmp_path):
    fast = {"movflags": "frag_keyframe+empty_moov"}
    path = make_video(tmp_path / "some.mp4", [gradient_frame(64, 0, 48)], container_options=fast)
    data = path.read_bytes()
    header_only = data[: data.index(b"moof") - 4]
    fails(write(tmp_path / "nothing.mp4", header_only), "no decodable frame", "again")
    fails(make_wav(tmp_path / "nothing.wav", np.zeros(0, np.float32), 16000), "no decodable|cannot be opened", "")


def test_a_file_cut_short_gives_what_it_has_and_a_warning(tmp_path):
    frames = [gradient_frame(64, i, 48) for i in range(100)]
    fast = {"movflags": "faststart"}
    whole = make_video(tmp_path / "whole.mp4", frames, options={"g": "10"}, container_options=fast)
    data = whole.read_bytes()
    path = write(tmp_path / "cut.mp4", data[: int(len(data) * 0.6)])
    with open_media(path, {"video": SPECS["video"]}) as source:
        found = [p for p in source]
        warnings = source.warnings
        assert source.duration_s < 3.5
    assert 4 <= len(found) < 16
    assert any("its header says 4.00 s" in w for w in warnings), warnings
    with open_media(whole, {"video": SPECS["video"]}) as source:
        kept = list(source)
        assert source.warnings == []
    assert all(np.array_equal(a.data, b.data) for a, b in zip(found[:-1], kept))


def test_an_mkv_cut_short_is_told_by_its_file_s_header(tmp_path):
    whole = make_video(tmp_path / "whole.mkv", [gradient_frame(64, i, 48) for i in range(100)], options={"g": "10"})
    data = whole.read_bytes()
    for path, told in ((write(tmp_path / "cut.mkv", data[: len(data) // 2]), True), (whole, False)):
        with open_media(path, {"video": SPECS["video"]}) as source:
            list(source)
            assert any("its header says 4.0" in w for w in source.warnings) == told, source.warnings


def test_a_wav_cut_short_is_told_by_its_own_header(tmp_path):
    whole = make_wav(tmp_path / "whole.wav", np.full(8 * 16000, 0.25, np.float32), 16000)
    data = whole.read_bytes()
    at = data.index(b"data")
    rate, size = (16000 * 2).to_bytes(4, "little"), len(data) - at - 8
    odd = data[:at] + b"note" + (3).to_bytes(4, "little") + b"hi!\0" + data[at:]  # a chunk of its own before the sound
    large = data[:12].replace(b"RIFF", b"RF64") + b"ds64" + (28).to_bytes(4, "little") + bytes(8) + size.to_bytes(
        8, "little") + bytes(12) + data[12:at] + b"data" + b"\xff" * 4 + data[at + 8:]
    streamed = data[: at + 4] + b"\xff" * 4 + data[at + 8:]
    damaged = data.replace(rate, bytes(4))
    for name, content, told in (("plain", data, True), ("odd", odd, True), ("large", large, True),
                                ("streamed", streamed, False), ("damaged", damaged, False)):
        for part, count in ((1.0, 8.0), (0.13, 1.04)):
            path = write(tmp_path / f"{name}.wav", content[: int(len(content) * part)])
            with open_media(path, {"audio": SPECS["audio"]}) as source:
                assert sum(len(p.data) for p in source) / 16000 == pytest.approx(count, abs=0.02), name
                said = any("its header says 8.00 s" in w for w in source.warnings)
            assert said == (told and part < 1), (name, part)
            assert probe(path).duration_s == pytest.approx(count, abs=0.02), name


@pytest.mark.parametrize("name, codec", [("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.webm", "libvpx")])
def test_streamable_files_cut_anywhere_give_what_they_have(tmp_path, name, codec):
    frames = [gradient_frame(64, i, 48) for i in range(50)]
    whole = make_video(tmp_path / name, frames, codec=codec, options={"g": "10"})
    data = whole.read_bytes()
    counts = []
    for part in (0.35, 0.7, 1.0):
        path = write(tmp_path / f"cut-{name}", data[: int(len(data) * part)])
        with open_media(path, {"video": StreamSpec("video", 25, 32)}) as source:
            counts.append(len(list(source)))
    assert 0 < counts[0] < counts[1] < counts[2] == 50


def test_damage_in_the_middle_loses_little(tmp_path):
    frames = [gradient_frame(64, i, 48) for i in range(100)]
    path = make_video(tmp_path / "a.mkv", frames, options={"g": "10"}, audio=np.zeros(44100 * 4, np.float32))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 600] = np.random.default_rng(1).bytes(600)
    path.write_bytes(data)
    with open_media(path, SPECS) as source:
        times_s = [p.pts_s for p in source if p.stream == "video"]
    assert times_s[0] == 0 and times_s[-1] >= 3.5 and len(times_s) == len(set(times_s))


def test_a_clock_that_jumps_by_days_ends_the_clip(tmp_path):
    pts = [*range(25), *range(10**7, 10**7 + 25)]
    frames = [gradient_frame(32, i) for i in range(50)]
    path = make_video(tmp_path / "jump.mkv", frames, pts=pts)
    with open_media(path, {"video": SPECS["video"]}) as source:
        assert len(list(source)) == 4
        assert any("out of order" in warning for warning in source.warnings)


def test_the_name_may_lie(clip, tmp_path):
    path = write(tmp_path / "sound.wav", clip.read_bytes())
    with open_media(path, SPECS) as source:
        assert set(source.streams) == {"video", "audio"}


def test_the_header_may_lie_about_duration_and_size(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        at = -1
        while (at := data.find(box, at + 1)) >= 0:
            duration = at + 4 + {b"mvhd": 16, b"tkhd": 20, b"mdhd": 16}[box]
            data[duration : duration + 4] = (10**6).to_bytes(4, "big")
            if box == b"tkhd":
                data[at + 4 + 76 : at + 4 + 84] = (9999 << 16).to_bytes(4, "big") * 2
    path = write(tmp_path / "liar.mp4", bytes(data))
    windows = list(read_windows(path, BUNDLE))
    assert len(windows) == 4
    assert windows[0].signals["video"].data.shape == (4, 32, 32, 3)
    assert probe(path, exact_duration=True).duration_s == pytest.approx(4.0, abs=0.05)
    with pytest.raises(QuestionError, match="is 4.0"):
        list(read_windows(path, BUNDLE, at_s=7.0))


def test_video_is_demanded_of_sound(tmp_path):
    path = make_wav(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000)
    fails(path, "has no usable video: has only audio", "give a file with video", require=("video",))
    with open_media(path, SPECS) as source:
        assert set(source.streams) == {"audio"}
    with pytest.raises(MediaError, match="none of what is asked for: video"):
        open_media(path, {"video": SPECS["video"]})


def hide_codec(clip, path, tag: bytes):
    data = clip.read_bytes()
    at = data.index(tag, data.index(b"stsd"))
    return write(path, data[:at] + b"zzz9" + data[at + 4 :])


def test_a_codec_without_a_decoder_is_named(clip, tmp_path):
    silent = make_video(tmp_path / "silent.mp4", [gradient_frame(64, i, 48) for i in range(5)])
    path = hide_codec(silent, tmp_path / "odd.mp4", b"avc1")
    fails(path, "no decoder for its video codec .*zzz9", "ffmpeg -i odd.mp4")
    half = hide_codec(clip, tmp_path / "half.mp4", b"avc1")
    with open_media(half, SPECS) as source:  # the sound is still there
        assert set(source.streams) == {"audio"} and "zzz9" in source.warnings[0]
    fails(half, "no usable video.*zzz9", "give a file with video", require=("video",))
    assert not probe(half).streams[0].decodable


def test_a_codec_that_nothing_names_is_called_unknown(tmp_path):
    path = make_video(tmp_path / "a.mkv", [gradient_frame(64, i, 48) for i in range(5)])
    write(path, path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/XXX/YYY"))
    fails(path, "no decoder for its video codec, which it does not know", "ffmpeg -i a.mkv")
    assert probe(path).streams[0].codec == "unknown"
    data = bytearray(make_wav(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000).read_bytes())
    data[20:22] = b"\x77\x77"
    fails(write(tmp_path / "b.wav", bytes(data)), "no decoder for its audio codec 0x7777", "ffmpeg -i b.wav")


def test_a_time_outside_the_clip(clip):
    for at_s in (-0.1, -1e9, float("nan")):
        with pytest.raises(QuestionError, match="begins at 0"):
            read_windows(clip, BUNDLE, at_s=at_s)
    with pytest.raises(QuestionError, match="is 4.0. s long") as raised:
        read_windows(clip, BUNDLE, at_s=5.5)
    assert "from 0 to 4.0" in raised.value.fix and raised.value.exit_code == 2
    assert len(list(read_windows(clip, BUNDLE, at_s=4.9))) == 4


def test_errors_are_input_errors():
    assert issubclass(MediaError, InputError)


# -- addresses ------------------------------------------------------------------------------------------------


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/broken.mp4":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
            return
        super().do_GET()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_http_address_is_read_like_a_file(clip):
    with served(clip.parent) as address:
        far = list(read_windows(f"{address}/clip.mp4?key=1", BUNDLE))
        assert probe(f"{address}/clip.mp4").has_video
    near = list(read_windows(clip, BUNDLE))
    assert len(far) == len(near)
    for a, b in zip(far, near):
        assert all(np.array_equal(a.signals[k].data, b.signals[k].data) for k in b.signals)


def test_addresses_that_do_not_answer(clip):
    with served(clip.parent) as address:
        fails(f"{address}/none.mp4?secret=1", "none.mp4 cannot be fetched: File not found", "check the address")
        fails(f"{address}/broken.mp4", "broke off|cannot be fetched", "")
    fails(f"{address}/clip.mp4", "cannot be fetched", "network")


def test_a_silent_server_times_out(monkeypatch):
    import socket

    monkeypatch.setattr("anymodal.media.fetch.CONNECT_TIMEOUT_S", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        fails(f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4", "cannot be fetched: timed out", "network")


def test_any_fsspec_address(clip):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/clips/clip.mp4", clip.read_bytes())
    assert len(list(read_windows("memory://clips/clip.mp4", BUNDLE))) == 4
    assert len(list(read_windows(f"file://{clip}", BUNDLE))) == 4
    fails("memory://clips/none.mp4", "cannot be fetched", "check the address")
    fails("nosuch://x/y.mp4", "cannot be fetched", "check the address")


@pytest.mark.parametrize("rate_hz", [8000, 44100])
def test_a_short_sound_is_one_window(tmp_path, rate_hz):
    path = make_audio(tmp_path / "blip.flac", np.full(rate_hz // 20, 0.1, np.float32), rate_hz, "flac")
    windows = list(read_windows(path, BUNDLE))
    assert [len(w.signals["audio"].data) for w in windows] == [800]
