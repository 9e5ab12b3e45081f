"""Video on the grid against an independent decode of every frame, on files made with FFmpeg's encoders."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from anymodal.errors import MediaError  # noqa: E402
from anymodal.media import StreamSpec, open_media, probe  # noqa: E402
from anymodal.media.spec import ceil_index  # noqa: E402
from anymodal.media.video import VideoReader, grid_of_ticks  # noqa: E402
from anymodal.testing import gradient_frame, make_video  # noqa: E402

SIZE_PX = 32


def pictures(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    return [gradient_frame(width, i, height) for i in range(count)]


def reference(path, rate_hz: float, size_px: int | None = SIZE_PX, number: int = 0):
    """Decode every frame in the plainest way, then pick the last one with pts <= t by hand."""
    with av.open(str(path)) as container:
        stream = container.streams.video[number]
        frames = list(container.decode(stream))
        times = sorted(f.pts * f.time_base for f in frames)  # AVI tells them in order of decoding
    last = frames[-1].duration * frames[-1].time_base if frames[-1].duration else times[-1] - times[-2]
    zero, end = times[0], times[-1] + last
    out, j = [], 0
    while Fraction(j) / Fraction(rate_hz).limit_denominator(1000) + zero < end:
        t = Fraction(j) / Fraction(rate_hz).limit_denominator(1000) + zero
        shown = [f for f, at in zip(frames, times) if at <= t]
        if shown:
            frame = shown[-1]
            out.append((float(t - zero), turned(frame, size_px)))
        j += 1
    return out


def turned(frame, size_px):
    width, height = (size_px, size_px) if size_px else (frame.width, frame.height)
    image = frame.reformat(width=width, height=height, format="rgb24", interpolation="BILINEAR").to_ndarray()
    return np.rot90(image, round(frame.rotation / 90))


def ours(path, rate_hz: float, size_px: int | None = SIZE_PX, **options):
    with open_media(path, {"video": StreamSpec("video", rate_hz, size_px)}, **options) as source:
        return [(p.pts_s, p.data) for p in source]


def assert_same(found, expected) -> None:
    assert [t for t, _ in found] == pytest.approx([t for t, _ in expected], abs=1e-9)
    assert len(found) > 0
    for (t, a), (_, b) in zip(found, expected):
        assert np.array_equal(a, b), f"another frame at {t} s"


FILES = {
    "b-frames.mp4": {"options": {"bf": "3", "g": "12"}},
    "clip.mkv": {"options": {"bf": "2"}},
    "clip.mov": {},
    "clip.webm": {"codec": "libvpx-vp9"},
    "clip.ts": {},
    "clip.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "h264.avi": {},
    "clip.gif": {"codec": "gif", "pixel_format": "rgb8", "rate_hz": 10},
    "ten-bit.mp4": {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "gray.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "gray10.mkv": {"codec": "ffv1", "pixel_format": "gray10le"},
    "full-range.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "ntsc.mp4": {"rate_hz": Fraction(30000, 1001)},
    "open-gop.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "8"}},
    "vp8.webm": {"codec": "libvpx"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("video")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rate_hz", [2, 8, 7.5, 60])
def test_every_container_gives_the_last_frame_at_or_before_each_time(folder, name, rate_hz):
    path = folder / name
    if not path.exists():
        make_video(path, pictures(33), **FILES[name])
    assert_same(ours(path, rate_hz), reference(path, rate_hz))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps_ms=st.lists(st.integers(5, 400), min_size=4, max_size=24),
    first_ms=st.integers(0, 2000),
    rate_hz=st.sampled_from([1, 2, 3, 4, 8, 12.5, 25]),
    b_frames=st.integers(0, 4),
    name=st.sampled_from(["vfr.mp4", "vfr.mkv"]),
)
def test_any_frame_times(tmp_path, steps_ms, first_ms, rate_hz, b_frames, name):
    pts = (first_ms + np.cumsum([0, *steps_ms])).tolist()
    path = tmp_path / name
    make_video(
        path, pictures(len(pts), 32, 32), pts=pts, time_base=Fraction(1, 1000), options={"bf": str(b_frames), "g": "6"}
    )
    found, expected = ours(path, rate_hz, None), reference(path, rate_hz, None)
    if expected:
        assert_same(found, expected)
    else:
        assert found == []


@given(
    pts=st.integers(-(10**12), 10**12),
    tick_s=st.sampled_from([Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000)]),
    zero=st.fractions(-1000, 1000, max_denominator=90000),
    rate_hz=st.fractions(Fraction(1, 100), 1000, max_denominator=90000),
)
def test_the_grid_in_ticks_is_the_grid_in_seconds(pts, tick_s, zero, rate_hz):
    assert grid_of_ticks(tick_s, zero, rate_hz)(pts) == ceil_index(pts * tick_s - zero, rate_hz)


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("size_px", [None, SIZE_PX])
def test_rotation_metadata_is_applied(tmp_path, degrees, size_px):
    path = make_video(tmp_path / "turned.mp4", pictures(6), rotation_deg=degrees)
    assert_same(ours(path, 25, size_px), reference(path, 25, size_px))
    if size_px is None:
        upright = ours(path, 25, None)[0][1]
        assert upright.shape[:2] == ((64, 48) if degrees != 180 else (48, 64))
        want = np.rot90(pictures(1)[0], degrees // 90).astype(int)
        assert np.abs(upright - want).mean() < 6


def test_a_mirrored_picture_is_mirrored_back(tmp_path):
    with av.open(str(tmp_path / "mirror.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        for image in pictures(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    image = ours(tmp_path / "mirror.mp4", 5, None)[0][1].astype(int)
    assert np.abs(image - pictures(1)[0][:, ::-1]).mean() < 6


@pytest.mark.parametrize("width, height", [(33, 47), (1, 1), (17, 16)])
def test_odd_sizes(tmp_path, width, height):
    path = make_video(tmp_path / "odd.mkv", pictures(5, width, height), codec="ffv1", pixel_format="yuv444p")
    assert_same(ours(path, 10, None), reference(path, 10, None))
    assert ours(path, 10, None)[0][1].shape == (height, width, 3)
    assert ours(path, 10, 16)[0][1].shape == (16, 16, 3)


def test_times_count_from_the_first_frame(tmp_path):
    path = make_video(tmp_path / "late.mp4", pictures(10), pts=[i + 40 for i in range(10)])
    assert probe(path).streams[0].start_s == pytest.approx(1.6)
    found = ours(path, 25)
    assert [t for t, _ in found] == pytest.approx([i / 25 for i in range(10)])


def test_the_offset_between_video_and_audio_is_kept(tmp_path):
    path = make_video(
        tmp_path / "offset.mkv", pictures(20), pts=[i + 10 for i in range(20)], audio=np.zeros(44100, np.float32)
    )
    specs = {"video": StreamSpec("video", 25, SIZE_PX), "audio": StreamSpec("audio", 16000)}
    with open_media(path, specs) as source:
        packets = list(source)
    video = [p.pts_s for p in packets if p.stream == "video"]
    assert video[0] == pytest.approx(0.4, abs=0.041)  # no frame is shown before the first
    assert min(p.pts_s for p in packets if p.stream == "audio") == 0
    times_s = [p.pts_s for p in packets]
    assert max(np.maximum.accumulate(times_s) - times_s) < 0.25  # interleaved in time


def test_missing_durations_are_found(tmp_path):
    path = make_video(tmp_path / "raw.h264", pictures(25), container_format="h264")
    assert probe(path).duration_s == pytest.approx(1.0)
    assert [t for t, _ in ours(path, 5)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    live = make_video(tmp_path / "live.mkv", pictures(25), container_options={"live": "1"})
    assert probe(live).duration_s == pytest.approx(1.0, abs=0.05)


def test_the_last_frame_is_held_for_its_duration_and_no_longer(tmp_path):
    path = make_video(tmp_path / "two.mp4", pictures(2), rate_hz=1)
    assert [t for t, _ in ours(path, 4)] == pytest.approx(np.arange(8) / 4)


def test_several_streams_are_selectable_and_attached_pictures_are_not_video(tmp_path):
    path = tmp_path / "many.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=5) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(10):
            for k, stream in enumerate(streams):
                frame = av.VideoFrame.from_ndarray(gradient_frame(64, i + 100 * k, 48), "rgb24")
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    assert_same(ours(path, 5), reference(path, 5, number=0))
    assert_same(ours(path, 5, video_stream=1), reference(path, 5, number=1))
    with pytest.raises(MediaError, match="2 video stream"):
        ours(path, 5, video_stream=2)


def test_a_cover_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = out.add_stream("aac", rate=16000, layout="mono")
        out.mux(cover.encode(av.VideoFrame.from_ndarray(pictures(1)[0], "rgb24").reformat(format="yuvj420p")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        for piece in av.AudioResampler("fltp", "mono", 16000, 1024).resample(frame):
            out.mux(sound.encode(piece))
        out.mux(cover.encode(None) + sound.encode(None))
    info = probe(path)
    assert any(s.attached_picture for s in info.streams) and not info.has_video and info.has_audio
    with pytest.raises(MediaError, match="no usable video"):
        ours(path, 5, require=("video",))


@pytest.mark.parametrize("start_s, end_s", [(0.5, 1.0), (11.3, 12.1), (14.0, None), (99.0, None)])
def test_a_span_is_what_the_whole_has_there(folder, start_s, end_s):
    path = folder / "long.mp4"
    if not path.exists():
        make_video(path, pictures(150), rate_hz=10, options={"g": "30", "bf": "2"})
    whole = [(t, d) for t, d in ours(path, 5) if t >= start_s and (end_s is None or t < end_s)]
    found = ours(path, 5, start_s=start_s, end_s=end_s)
    assert [t for t, _ in found] == [t for t, _ in whole]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, whole))


def write_png(path, image) -> None:
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))


def test_a_still_image_is_one_frame(tmp_path):
    write_png(tmp_path / "still.png", pictures(1)[0])
    found = ours(tmp_path / "still.png", 4, None)
    assert [t for t, _ in found] == [0.0]
    assert np.array_equal(found[0][1], pictures(1)[0])
    assert probe(tmp_path / "still.png").is_image


def test_an_image_folder_is_a_video_in_natural_order(tmp_path):
    images = pictures(12)
    for i, image in enumerate(images):
        write_png(tmp_path / f"f{i}.png", image)
    found = ours(tmp_path, 5, None, folder_rate_hz=10)
    assert [t for t, _ in found] == pytest.approx(np.arange(6) / 5)
    assert all(np.array_equal(image, images[2 * i]) for i, (_, image) in enumerate(found))
    assert probe(tmp_path, folder_rate_hz=10).duration_s == pytest.approx(1.2)
    (tmp_path / "f4.png").write_bytes(b"no image")
    with open_media(tmp_path, {"video": StreamSpec("video", 5, None)}, folder_rate_hz=10) as source:
        again = [p.data for p in source]
        assert "f4.png" in source.warnings[0]
    assert np.array_equal(again[2], images[3])  # the one before stays


def test_frames_off_the_grid_are_not_decoded_where_nothing_refers_to_them(tmp_path):
    options = {"bf": "3", "x264-params": "b-adapt=0:b-pyramid=none:scenecut=0"}
    path = make_video(tmp_path / "skip.mp4", pictures(60), options=options)

    def decoded(rate_hz: Fraction | None) -> int:
        reader = VideoReader(path, SIZE_PX)
        counted = 0
        original = reader._frames

        def counting():
            nonlocal counted
            for frame in original:
                counted += 1
                yield frame

        reader._frames = counting()
        list(reader.sample(reader.start, rate_hz) if rate_hz else reader.every_frame())
        reader.close()
        return counted

    assert decoded(None) == 59  # all but the first, which was decoded on opening
    assert decoded(Fraction(2)) < 40
