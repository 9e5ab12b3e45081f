"""Depth, thermal and any other sense of pictures: beside a clip, pushed, over the wire, and through a bundle's parts."""

import base64
import csv
import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.gateway.faults import Fault
from actors.gateway.hosts import LocalHost
from actors.gateway.pictures import levels
from actors.gateway.settings import Settings
from actors.gateway.testing import serving
from anymodal.agent import load
from anymodal.client import Client, InvalidError, Options
from anymodal.client.encode import frame_of
from anymodal.config import GateSpec, parse_spec
from anymodal.errors import ConfigError, PacketError, SidecarError
from anymodal.media import StreamSpec, Windower, find_sidecars, open_media, read_windows, stream_specs
from anymodal.media.levels import Level, scaled, to_levels
from anymodal.session.feeder import shed
from anymodal.stages.gate import Gate
from anymodal.testing import gradient_frame, gradient_levels, make_levels_video, make_video, make_wav
from anymodal.testing_bundle import random_bundle
from anymodal.types import Packet, Signal, Window

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")

CLIP_S = 2.0
DEPTH = StreamSpec("depth", 4, 12, pixels="gray16")
SPECS = {"audio": StreamSpec("audio", 8000), "depth": DEPTH}


@pytest.fixture
def clip(tmp_path):
    return make_wav(tmp_path / "clip.wav", np.zeros(int(CLIP_S * 8000), np.float32), 8000)


def noise(count: int, height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (count, height, width)).astype(np.uint16)


def read(clip, spec: StreamSpec = DEPTH, **given) -> tuple[dict[float, np.ndarray], list[str]]:
    """The sense's frames by their time."""
    with open_media(clip, {"audio": SPECS["audio"], spec.modality: spec}, **given) as source:
        found = {p.pts_s: p.data for p in source if p.stream == spec.modality}
        return found, source.warnings


def nearest(frame: np.ndarray, size: int) -> np.ndarray:
    """An independent nearest neighbour: for each pixel out, the pixel in whose middle is nearest to its own."""
    height, width = frame.shape[:2]
    rows = [int(np.floor((i + 0.5) / size * height)) for i in range(size)]
    columns = [int(np.floor((i + 0.5) / size * width)) for i in range(size)]
    return np.array([[frame[r, c] for c in columns] for r in rows])[:, :, None]


def shown(times: list[float], end_s: float, rate_hz: float, until_s: float) -> dict[float, int]:
    """Which picture is on show at each grid time: the last one whose time is not after it, counted in nanoseconds."""
    ns = [round(t * 1e9) for t in times]
    found = {}
    for j in range(10_000):
        now = round(j / rate_hz * 1e9)
        if now >= round(min(end_s, until_s) * 1e9):
            return found
        before = [i for i, t in enumerate(ns) if t <= now]
        if before:
            found[j / rate_hz] = before[-1]
    return found


def expect(found: dict[float, np.ndarray], wanted: dict[float, int], frames: np.ndarray, size: int = 12) -> None:
    assert sorted(found) == sorted(wanted)
    for at_s, i in wanted.items():
        assert found[at_s].dtype == np.uint16
        assert np.array_equal(found[at_s], nearest(frames[i], size)), (at_s, i)


def save_png(path, frame: np.ndarray):
    Image.fromarray(frame).save(path)
    return path


def folder(path, frames, names=None, times_s=None):
    path.mkdir()
    names = names or [f"{i:06d}.png" for i in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        save_png(path / name, frame)
    if times_s is not None:
        (path / "timestamps.csv").write_text("time_s\n" + "\n".join(map(repr, times_s)) + "\n")
    return path


# --- each way in gives the same pictures ------------------------------------------------------------------------------

TIMES = st.lists(st.integers(0, 240), min_size=1, max_size=9, unique=True).map(lambda t: [i / 100 for i in sorted(t)])


FORMS = ["folder", "npz", "packed", "npy", "mkv"]


@settings(max_examples=15, deadline=None)
@given(times=TIMES, rate_hz=st.sampled_from([2, 4, 7.5, 10]), form=st.sampled_from(FORMS))
def test_the_last_picture_that_is_not_later_is_shown(tmp_path_factory, times, rate_hz, form):
    path = tmp_path_factory.mktemp("clip")
    clip = make_wav(path / "clip.wav", np.zeros(int(CLIP_S * 8000), np.float32), 8000)
    frames = noise(len(times))
    last_s = times[-1] - times[-2] if len(times) > 1 else 1 / rate_hz
    if form == "folder":
        folder(path / "clip.depth", frames, times_s=times)
        last_s = last_s if len(times) > 1 else 1 / 25
    elif form in ("npz", "packed"):
        save = np.savez if form == "npz" else np.savez_compressed
        save(path / "clip.depth.npz", frames=frames, time_s=np.array(times))
    elif form == "npy":
        np.save(path / "clip.depth.npy", frames[..., None].astype(">u2"))
        (path / "clip.depth.timestamps.csv").write_text("time_s\n" + "\n".join(map(repr, times)))
    else:
        make_levels_video(path / "clip.depth.mkv", frames, times_s=times)
        last_s = 1 / 25  # a container says how long its pictures last
    found, warnings = read(clip, StreamSpec("depth", rate_hz, 12, pixels="gray16"))
    expect(found, shown(times, times[-1] + last_s, rate_hz, CLIP_S), frames)
    late = times[0] >= CLIP_S
    assert bool(warnings) == late and (not late or "after the clip's end" in warnings[0])


def test_names_in_order_are_shown_at_a_rate(clip, tmp_path):
    frames = noise(20)
    folder(tmp_path / "clip.depth", frames, [f"frame{i}.png" for i in range(20)])  # frame10 after frame9
    found, warnings = read(clip, folder_rate_hz=10)
    expect(found, {j / 4: int(j / 4 * 10) for j in range(8)}, frames)
    assert not warnings
    _, warnings = read(clip)  # at 25 a second they last 0.8 s, the clip 2 s
    assert "0.80 s at 25 a second" in warnings[0] and "timestamps.csv" in warnings[0]


def test_a_table_may_name_its_pictures(clip, tmp_path):
    frames = noise(3)
    path = folder(tmp_path / "clip.depth", frames, ["b.png", "a.png", "unused.png"])
    with (path / "timestamps.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["time_s", "file"], ["0.0", "a.png"], [], ["1.0", "b.png"]])
    found, _ = read(clip)
    expect(found, {j / 4: 1 if j < 4 else 0 for j in range(8)}, frames)


@pytest.mark.parametrize("kind, bits", [("gray16le", 16), ("gray12le", 12), ("gray10le", 10)])
def test_video_of_any_depth_keeps_its_levels(clip, tmp_path, kind, bits):
    frames = noise(8) >> (16 - bits)
    make_levels_video(tmp_path / "clip.depth.mkv", frames, pixel_format=kind, rate_hz=4)
    found, _ = read(clip)
    expect(found, {j / 4: j for j in range(8)}, frames)


def test_floats_become_levels_by_what_the_bundle_says(clip, tmp_path):
    levels = noise(8) % 9000 + 100
    spec = StreamSpec("depth", 4, 12, pixels="gray16", level=Level("m", 0.001))
    for kind in ("<f4", ">f8"):
        np.savez(tmp_path / "clip.depth.npz", frames=(levels / 1000).astype(kind), rate_hz=4.0)
        expect(read(clip, spec)[0], {j / 4: j for j in range(8)}, levels)
    with pytest.raises(SidecarError, match="does not say what a level is"):
        read(clip)
    with pytest.raises(SidecarError, match=r"picture 0 holds values from .* levels are 0 to 0.65535 m"):
        read(clip, StreamSpec("depth", 4, 12, pixels="gray16", level=Level("m", 1e-5)))


def test_a_clip_with_no_sound_or_sight_of_its_own(tmp_path):
    """The bundle may want the further sense only."""
    clip = make_video(tmp_path / "clip.mp4", [gradient_frame(32, i) for i in range(50)])
    frames = noise(8)
    np.savez(tmp_path / "clip.depth.npz", frames=frames, rate_hz=4.0)
    with open_media(clip, {"depth": DEPTH}) as source:
        assert [p.pts_s for p in source] == [j / 4 for j in range(8)]


def test_colour_pictures_of_any_name_are_read(tmp_path):
    """A second camera, say: pixels tell the kind, not the name."""
    clip = make_video(tmp_path / "clip.mkv", [gradient_frame(32, i) for i in range(50)], codec="ffv1", pixel_format="bgr0")
    frames = [gradient_frame(24, 10 + i) for i in range(8)]
    spec = StreamSpec("rear", 4, 24, pixels="rgb8")
    make_video(tmp_path / "clip.rear.mkv", frames, rate_hz=4, codec="ffv1", pixel_format="bgr0")
    folder(tmp_path / "other", frames)
    np.savez(tmp_path / "other.npz", frames=np.stack(frames), rate_hz=4.0)
    for options in ({}, {"sidecars": {"rear": tmp_path / "other"}, "folder_rate_hz": 4},
                    {"sidecars": {"rear": tmp_path / "other.npz"}}):
        found, _ = read(clip, spec, **options)
        assert sorted(found) == [j / 4 for j in range(8)]
        assert all(np.array_equal(found[j / 4], frames[j]) for j in range(8)), options


def test_what_is_beside_a_clip_is_found(clip, tmp_path):
    frames = noise(2)
    make_levels_video(tmp_path / "clip.depth.mkv", frames)
    np.save(tmp_path / "clip.thermal.npy", frames)
    (tmp_path / "clip.thermal.timestamps.csv").write_text("time_s\n0\n1\n")
    folder(tmp_path / "clip.left", frames)
    (tmp_path / "clip.imu.csv").write_text("time_s\n")
    (tmp_path / "clip.notes").write_text("")  # no folder
    found = find_sidecars(clip)
    assert {m: p.name for m, p in found.items()} == {
        "depth": "clip.depth.mkv", "thermal": "clip.thermal.npy", "left": "clip.left", "imu": "clip.imu.csv"}
    spec = StreamSpec("depth", 4, None, pixels="gray16")
    assert read(clip, spec)[0][0.0].shape == (20, 30, 1)  # its own size, where the bundle asks for none


def test_reading_from_the_middle_is_reading_the_rest(tmp_path):
    clip = make_wav(tmp_path / "clip.wav", np.zeros(30 * 8000, np.float32), 8000)
    frames = noise(120, 8, 8)
    spec = StreamSpec("depth", 4, 8, pixels="gray16")
    make_levels_video(tmp_path / "a.mkv", frames, rate_hz=4)
    np.savez_compressed(tmp_path / "a.npz", frames=frames, rate_hz=4.0)
    folder(tmp_path / "a", frames)
    for name in ("a.mkv", "a.npz", "a"):
        found, _ = read(clip, spec, start_s=15.0, end_s=20.0, sidecars={"depth": tmp_path / name}, folder_rate_hz=4)
        expect(found, {j / 4: j for j in range(60, 80)}, frames, 8)


def test_a_large_array_is_read_picture_by_picture(clip, tmp_path):
    """A sparse file of 8 GB: reading it whole would fail or fill the memory."""
    import resource

    path = tmp_path / "clip.depth.npy"
    count, height, width = 10_000, 640, 640
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<u2", "fortran_order": False, "shape": (count, height, width)})
        at = file.tell()
        file.truncate(at + count * height * width * 2)
        file.seek(at + 50 * height * width * 2)
        file.write(np.full(height * width, 7, "<u2").tobytes())
    (tmp_path / "clip.depth.timestamps.csv").write_text("time_s\n" + "\n".join(f"{i / 100}" for i in range(count)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, _ = read(clip)
    assert found[0.5].max() == found[0.5].min() == 7 and found[0.25].max() == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 30))
def test_scaling_takes_the_nearest_pixel(height, width, size):
    frame = noise(1, height, width)[0][:, :, None]
    assert np.array_equal(scaled(frame, size), nearest(frame[:, :, 0], size))
    assert set(scaled(frame, size).ravel()) <= set(frame.ravel())  # nothing that was not measured
    assert scaled(frame, None) is frame


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0005, 0.02), st.floats(-300, 300), st.integers(0, 2**32))
def test_levels_and_values_are_each_others_inverse(scale, offset, seed):
    levels = noise(1, 5, 6, seed)[0]
    assert np.array_equal(to_levels(levels * scale + offset, Level("K", scale, offset))[:, :, 0], levels)


# --- bad input --------------------------------------------------------------------------------------------------------

def _npz(path, **arrays):
    np.savez(path / "clip.depth.npz", **arrays)


def _cut(path):
    np.savez(path / "clip.depth.npz", frames=noise(8), rate_hz=4.0)
    data = (path / "clip.depth.npz").read_bytes()
    (path / "clip.depth.npz").write_bytes(data[: len(data) // 2])


def _short(path):
    np.save(path / "clip.depth.npy", noise(8))
    data = (path / "clip.depth.npy").read_bytes()
    (path / "clip.depth.npy").write_bytes(data[:-50])
    (path / "clip.depth.timestamps.csv").write_text("time_s\n" + "\n".join(str(i / 4) for i in range(8)))


def _pickled(path):
    np.savez(path / "clip.depth.npz", frames=np.array([{"a": 1}], object), rate_hz=4.0)


def _huge(path):
    """A header that claims far more than there is."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<u2", "fortran_order": False, "shape": (4, 200_000, 200_000)})
    with zipfile.ZipFile(path / "clip.depth.npz", "w") as archive:
        archive.writestr("frames.npy", buffer.getvalue())


def _with_nan(path):
    frames = np.ones((8, 4, 4), np.float32)
    frames[5, 2, 2] = np.nan
    _npz(path, frames=frames, rate_hz=4.0)


BAD = {
    "8-bit pictures": (lambda p: folder(p / "clip.depth", noise(2).astype(np.uint8)), "of 8 bits; .* 16 bits"),
    "8-bit video": (lambda p: make_video(p / "clip.depth.mkv", [gradient_frame(32, 0)] * 4), "yuv420p, of 8 bits"),
    "8-bit array": (lambda p: _npz(p, frames=noise(2).astype(np.uint8), rate_hz=4.0), r"uint8 \(2, 20, 30\), uint16"),
    "colour": (lambda p: make_video(p / "clip.depth.mkv", [gradient_frame(32, 0)] * 4, codec="ffv1",
                                    pixel_format="yuv420p10le"), "not of one channel"),
    "colour array": (lambda p: _npz(p, frames=noise(6).reshape(2, 20, 30, 3), rate_hz=4.0), r"\(2, 20, 30, 3\)"),
    "one picture as array": (lambda p: _npz(p, frames=noise(1)[0], rate_hz=4.0), r"uint16 \(T, H, W\) is wanted"),
    "no pictures in array": (lambda p: _npz(p, frames=noise(0), rate_hz=4.0), r"\(0, 20, 30\)"),
    "Fortran order": (lambda p: _npz(p, frames=np.asfortranarray(noise(3)), rate_hz=4.0), "ascontiguousarray"),
    "not a number": (_with_nan, "picture 5 holds values that are no numbers"),
    "times not sorted": (lambda p: _npz(p, frames=noise(3), time_s=np.array([0, 2.0, 1])), r"time_s\[2\] 1 comes after 2"),
    "times repeated": (lambda p: folder(p / "clip.depth", noise(3), times_s=[0, 1, 1]), "line 4: time_s 1 is repeated"),
    "times no numbers": (lambda p: _npz(p, frames=noise(2), time_s=np.array([0, np.nan])), "time_s holds values"),
    "too few times": (lambda p: _npz(p, frames=noise(3), time_s=np.array([0, 1.0])), r"time_s is float64 \(2,\), for 3"),
    "no times": (lambda p: np.save(p / "clip.depth.npy", noise(3)), "add clip.depth.timestamps.csv"),
    "no rate": (lambda p: _npz(p, frames=noise(3)), "save a .npz with time_s or rate_hz"),
    "rate 0": (lambda p: _npz(p, frames=noise(3), rate_hz=0.0), "rate_hz is"),
    "no frames": (lambda p: _npz(p, depth=noise(3), rate_hz=1.0), "has no 'frames', only 'depth', 'rate_hz'"),
    "fewer times than pictures": (lambda p: folder(p / "clip.depth", noise(3), times_s=[0, 1]), "2 times, .* 3 pictures"),
    "a picture is missing": (lambda p: folder(p / "clip.depth", noise(5), ["1.png", "2.png", "4.png", "5.png", "6.png"]),
                             "after 2.png comes no picture 3"),
    "a named picture is missing": (
        lambda p: (folder(p / "clip.depth", noise(1)) / "timestamps.csv").write_text("time_s,file\n0,gone.png\n"),
        "names 'gone.png'"),
    "a picture of elsewhere": (
        lambda p: (folder(p / "clip.depth", noise(1)) / "timestamps.csv").write_text("time_s,file\n0,../clip.wav\n"),
        r"names '../clip.wav'"),
    "an empty folder": (lambda p: (p / "clip.depth").mkdir(), "without images"),
    "cut archive": (_cut, "cannot be read: File is not a zip"),
    "cut array": (_short, "picture 7 of 8 is not whole"),
    "pickled": (_pickled, "object"),
    "too large": (_huge, "too large"),
    "no media": (lambda p: (p / "clip.depth.mkv").write_text("no video"), "cannot be opened as media"),
    "not numpy": (lambda p: (p / "clip.depth.npy").write_text("no array at all, only text"), "magic"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_named(clip, tmp_path, name):
    make, words = BAD[name]
    make(tmp_path)
    spec = StreamSpec("depth", 4, 12, pixels="gray16", level=Level("m", 0.001)) if name == "not a number" else DEPTH
    with pytest.raises(SidecarError, match=words) as caught:
        read(clip, spec)
    assert "clip.depth" in str(caught.value) and caught.value.fix


def test_a_table_is_no_picture_and_a_path_has_to_exist(clip, tmp_path):
    (tmp_path / "d.csv").write_text("time_s,depth_m\n0,1\n")
    with pytest.raises(SidecarError, match=r"is a table, and depth are pictures, uint16 \(12, 12, 1\)"):
        read(clip, sidecars={"depth": tmp_path / "d.csv"})
    with pytest.raises(SidecarError, match="no sidecar"):
        read(clip, sidecars={"depth": tmp_path / "gone"})


def test_one_picture_that_cannot_be_read_leaves_the_one_before(clip, tmp_path):
    frames = noise(8)
    path = folder(tmp_path / "clip.depth", frames)
    (path / "000003.png").write_bytes(b"\x89PNG broken")
    found, warnings = read(clip, folder_rate_hz=4)
    expect(found, {j / 4: 2 if j == 3 else j for j in range(8)}, frames)
    assert any("000003.png" in w for w in warnings)


# --- through windows, gate, perception and sessions -------------------------------------------------------------------

QUESTION = "what is nearest?"
SECONDS = 4


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return load(random_bundle(tmp_path_factory.mktemp("bundle"), senses=("depth", "thermal")), threads=1)


def scenes(seed: int) -> np.ndarray:
    """Smooth pictures that change, (T, 24, 24)."""
    return np.stack([gradient_levels(24, seed + i)[:, :, 0] for i in range(4 * SECONDS)])


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A clip with depth and warmth beside it, in two different forms."""
    path = tmp_path_factory.mktemp("clip")
    clip = make_video(path / "clip.mkv", [gradient_frame(32, i) for i in range(4 * SECONDS)], rate_hz=4)
    np.savez(path / "clip.depth.npz", frames=scenes(20), rate_hz=4.0)
    make_levels_video(path / "clip.thermal.mkv", scenes(50), rate_hz=4)
    return clip


def timeless(answer):
    return replace(answer, ttft_s=0.0, stale_s=0.0, last_window=None)


def test_what_is_pushed_is_what_is_read(agent, watched, tmp_path):
    with read_windows(watched, agent.spec) as reader:
        windows = list(reader)
    assert [sorted(w.signals) for w in windows] == [["depth", "thermal", "video"]] * SECONDS
    for k, window in enumerate(windows):
        depth = window.signals["depth"]
        assert depth.is_picture and depth.data.dtype == np.uint16
        assert np.array_equal(depth.data[..., 0], scenes(20)[4 * k : 4 * k + 4])
        assert (depth.closing is None) == (k == SECONDS - 1)
        assert depth.closing is None or np.array_equal(depth.closing[..., 0], scenes(20)[4 * k + 4])
    with open_media(watched, stream_specs(agent.spec.modalities)) as source:
        packets = list(source)
    fed = agent.ask(watched, QUESTION)
    with agent.open(streams={"video": "video", "depth": "depth", "thermal": "thermal"}) as session:
        for packet in packets:
            session.push(packet)
        session.flush()
        assert timeless(session.ask(QUESTION)) == timeless(fed)
    assert fed.frames_seen == 4 * SECONDS  # of video
    alone = make_video(tmp_path / "alone.mkv", [gradient_frame(32, i) for i in range(4 * SECONDS)], rate_hz=4)
    assert agent.ask(alone, QUESTION).text != fed.text
    given = {"depth": watched.with_suffix(".depth.npz"), "thermal": watched.with_suffix(".thermal.mkv")}
    assert timeless(agent.ask(alone, QUESTION, sidecars=given)) == timeless(fed)


def test_pushed_pictures_that_are_no_use_are_named(agent):
    with agent.open(streams={"depth": "depth"}) as session:
        for data, words in (
            (np.zeros((24, 24, 1), np.uint8), r"is uint8 .*, its stream uint16 \(24, 24, 1\).*push uint16 frames"),
            (np.zeros((24, 24), np.uint16), r"is uint16 \(24, 24\)"),
            (np.zeros((12, 24, 1), np.uint16), r"is uint16 \(12, 24, 1\)"),
        ):
            with pytest.raises(PacketError, match=words):
                session.push(Packet("depth", "depth", 0.0, data, 4.0))


def window_of(levels: np.ndarray, index: int = 0) -> Window:
    signal = Signal("depth", levels[:4, :, :, None], 4.0, float(index), levels[4][:, :, None] if len(levels) > 4 else None)
    return Window(index, float(index), index + 1.0, {"depth": signal})


def test_levels_reach_the_encoder_whole(agent):
    """Also those that a signed 16-bit number or a bfloat16 has not."""
    perception = agent.bundle.perception
    seen: list[torch.Tensor] = []
    handle = perception.encoders["depth"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    levels = np.full((5, 24, 24), 65535, np.uint16)
    levels[4] = 32769
    perception.encode("s", [window_of(levels)])
    perception.encode_many([("s", window_of(levels))], rows=1, once=True)
    handle.remove()
    assert seen[0].shape == (5, 24, 24, 1) and len(seen[1]) == 2  # equal ones are encoded once
    assert seen[0].flatten(1).unique(dim=1).flatten().tolist() == [65535] * 4 + [32769]
    encoder = perception.encoders["depth"]
    values = encoder.values(torch.from_numpy(levels)[..., None])
    wanted = levels.astype(np.float64) * encoder.config.scale + encoder.config.offset
    assert np.allclose(values[..., 0].numpy(), wanted, rtol=1e-6)


def test_a_windows_tokens_do_not_depend_on_its_batch(agent):
    windows = [("a", window_of(noise(5, 24, 24, k), k)) for k in range(3)]
    alone = [agent.bundle.perception.encode_many([w], rows=4)[0] for w in windows]
    together = agent.bundle.perception.encode_many(windows, rows=4)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one[0].embeds, other[0].embeds) and np.array_equal(one[0].joint, other[0].joint)


@pytest.mark.parametrize("unit, base", [(1, 0), (1, 30_000), (20, 0)])
def test_the_gate_knows_a_still_picture_by_its_own_range(unit, base):
    """Noise of 1 % of the range is nothing new; a thing that moves, or the whole becoming warmer, is."""
    rng = np.random.default_rng(3)
    place = np.linspace(0, 1000, 24 * 24).reshape(24, 24)

    def pictures(shift: float = 0.0, thing_at=(None,) * 5) -> np.ndarray:
        out = np.stack([place + shift + rng.normal(0, 10, place.shape) for _ in thing_at])
        for frame, x in zip(out, thing_at, strict=True):
            if x is not None:
                frame[6:12, x : x + 6] = 900
        return (base + unit * np.clip(out, 0, None)).astype(np.uint16)

    gate = Gate(GateSpec(grid=4))
    assert not gate.push("s", window_of(pictures(), 1)).repeats
    assert gate.push("s", window_of(pictures(), 2)).repeats == {"depth": 1}
    assert gate.push("s", window_of(pictures(shift=10.0), 3)).repeats == {"depth": 1}
    assert not gate.push("s", window_of(pictures(thing_at=(None, None, 0, 6, 12)), 4)).repeats
    assert not gate.push("s", window_of(pictures(thing_at=(12,) * 5), 5)).repeats
    assert gate.push("s", window_of(pictures(thing_at=(12,) * 5), 6)).repeats == {"depth": 5}
    assert not gate.push("s", window_of(pictures(shift=100.0, thing_at=(12,) * 5), 7)).repeats
    settled = Gate(GateSpec(grid=4)).push("s", window_of(pictures(), 1)).window.signals["depth"]
    assert len({f.tobytes() for f in (*settled.data, settled.closing)}) == 1  # like ones are made equal


def test_shed_and_late_pictures_are_counted(agent):
    window = Window(3, 3.0, 4.0, {"depth": Signal("depth", noise(4, 24, 24)[..., None], 4.0, 3.0)}, {"depth": 1})
    (left, gap) = shed(window)
    assert gap and left.dropped == {"depth": 5} and not left.signals
    windower = Windower(1.0, {"depth": DEPTH}, allowed_lateness_s=0.5)
    frames = noise(20, 12, 12)[..., None]
    out = [w for j in range(12) if j != 2 for w in windower.push(Packet("depth", "depth", j / 4, frames[j], 4.0))]
    out += windower.push(Packet("depth", "depth", 0.5, frames[2], 4.0))
    assert [w.index for w in out] == [0, 1] and windower.totals["depth"].late == 1
    assert np.array_equal(out[0].signals["depth"].data[2], frames[1])  # the one before stays
    assert np.array_equal(out[1].signals["depth"].closing, frames[8])


def test_the_gated_session_answers_too(agent, watched):
    with agent.open(watched, gate=True) as session:
        session.wait()
        assert session.ask(QUESTION).frames_seen == 4 * SECONDS


@pytest.mark.parametrize("change, words", [
    ({"pixels": "gray15"}, "modalities.depth.pixels: .*'rgb8' or 'gray16'"),
    ({"pixels": None}, "set pixels to gray16"),
    ({"axes": ["depth_m"]}, "one or the other"),
    ({"level": {"unit": "m", "scale": 0}}, "all levels say the same"),
    ({"level": {"unit": "m", "scal": 0.1}}, "unknown key 'modalities.depth.level.scal' .did you mean 'scale'"),
])
def test_a_sense_that_makes_no_sense_is_refused(agent, change, words):
    raw = agent.spec.model_dump(mode="json")
    raw["modalities"]["depth"] |= change
    with pytest.raises(ConfigError, match=words):
        parse_spec(raw)


def test_video_is_colour_unless_it_says_otherwise(agent):
    kinds = {name: (m.pixels, m.is_picture) for name, m in agent.spec.modalities.items()}
    assert kinds == {"video": ("rgb8", True), "audio": (None, False), "imu": (None, False),
                     "depth": ("gray16", True), "thermal": ("gray16", True)}


# --- over the wire ----------------------------------------------------------------------------------------------------

@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), size=st.sampled_from([None, 12]), seed=st.integers(0, 99))
def test_levels_go_over_the_wire_unchanged(height, width, size, seed):
    frame = noise(1, height, width, seed)[0]
    made = frame_of(frame, "depth", shorter_px=size, pixels="gray16")
    data = base64.b64decode(made["data"])
    with Image.open(io.BytesIO(data)) as image:  # another's decoder
        assert (made["encoding"], image.format, image.mode) == ("png", "PNG", "I;16")
        wanted = frame if size is None else nearest(frame, size)[:, :, 0]
        assert np.array_equal(np.array(image), wanted)
    got = levels(data, DEPTH, encoding="png", shape=None, most_pixels=10**6)
    assert np.array_equal(got, nearest(frame, 12))  # scaled here, there, or in a file: the same
    if size is None:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "png")
        assert np.array_equal(levels(buffer.getvalue(), DEPTH, encoding="png", shape=None, most_pixels=10**6), got)


def test_floats_go_over_the_wire_as_levels():
    metres = StreamSpec("depth", 4, None, pixels="gray16", level=Level("m", 0.001))
    frame = noise(1)[0] % 9000
    made = frame_of(frame / 1000, "depth", pixels="gray16", level=metres.level)
    got = levels(base64.b64decode(made["data"]), metres, encoding="png", shape=None, most_pixels=10**6)
    assert np.array_equal(got[:, :, 0], frame)
    raw = (frame / 1000).astype("<f4").tobytes()  # of a client that knows nothing of levels
    assert np.array_equal(levels(raw, metres, encoding="float32", shape=(20, 30), most_pixels=10**6), got)
    with pytest.raises(PacketError, match="a depth frame holds floats, and the bundle"):
        frame_of(frame / 1000, "depth", pixels="gray16")
    assert frame_of(frame, "depth")["encoding"] == "float32"  # to a server that shows it as a picture


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("data, given, words", [
    (png(np.zeros((4, 4), np.uint8)), {}, "the png is L, one channel of 16 bits is wanted"),
    (png(np.zeros((4, 4, 3), np.uint8)), {}, "the png is RGB"),
    (png(np.zeros((4, 4), np.uint16))[:45], {}, "no whole PNG"),
    (b"", {}, "no whole PNG"),
    (png(np.zeros((60, 60), np.uint16)), {"most_pixels": 100}, "60x60 pixels, at most 100"),
    (np.full(4, np.nan, "<f4").tobytes(), {"encoding": "float32", "shape": (2, 2)}, "values that are no numbers"),
    (np.full(4, 99, "<f4").tobytes(), {"encoding": "float32", "shape": (2, 2)}, "levels are 0 to 65.535 m"),
    (np.full(4, 1, "<f4").tobytes(), {"encoding": "float32", "shape": None}, "shape is missing"),
])
def test_frames_of_no_use_are_refused(data, given, words):
    metres = StreamSpec("depth", 4, None, pixels="gray16", level=Level("m", 0.001))
    with pytest.raises(Fault, match=words):
        levels(data, metres, **{"encoding": "png", "shape": None, "most_pixels": 10**6} | given)


@pytest.fixture(scope="module")
def served(agent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    threads = {"perception": {"threads": 1}, "mind": {"threads": 1}}
    bundle = random_bundle(folder, senses=("depth", "thermal"), runtime=threads)
    settings = Settings(port=0, state=folder / "state")
    with serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings) as running:
        yield running


def csv_of(clip):
    path = clip.with_name("depth.csv")
    path.write_text("time_s,depth_m\n0,1\n")
    return path


@pytest.mark.timeout(600)
def test_a_client_pushes_and_streams_further_senses(agent, watched, served):
    """What goes through the socket is answered as what is read by the library."""
    wanted = agent.ask(watched, QUESTION)
    with open_media(watched, stream_specs(agent.spec.modalities)) as source:
        packets = list(source)
    options = Options(connect_timeout_s=120.0, answer_timeout_s=120.0)
    with Client(served.url, options=options) as client:
        given = {"depth": watched.with_suffix(".depth.npz"), "thermal": watched.with_suffix(".thermal.mkv")}
        assert client.ask(watched, QUESTION, sidecars=given).answer().text.strip() == wanted.text.strip()
        with pytest.raises(InvalidError, match=r"pictures come as .npz or .mkv"):
            client.ask(watched, QUESTION, sidecars={"depth": csv_of(watched)}).answer()
        with client.live(streams={"cam": "video", "depth": "depth", "thermal": "thermal"}) as session:
            assert session.wants["depth"].pixels == "gray16" and session.wants["depth"].level == Level("m", 0.001)
            session.stream_file(watched, speed=None)
            answer = session.ask(QUESTION).answer()
            assert (answer.text.strip(), answer.frames_seen) == (wanted.text.strip(), wanted.frames_seen)
        with client.live(streams={name: name for name in ("video", "depth", "thermal")}) as session:
            for packet in packets:
                if packet.modality == "video":
                    session.push_frame(packet.data, packet.pts_s, encoding="rgb8")
                elif packet.modality == "depth":
                    session.push("depth", "depth", packet.data[:, :, 0] / 1000, packet.pts_s)  # in metres
                else:
                    session.push_frame(packet.data, packet.pts_s, stream="thermal")
            session.flush()
            assert session.ask(QUESTION).answer().text.strip() == wanted.text.strip()
            with pytest.raises(PacketError, match="uint8, 16-bit levels are wanted"):
                session.push("depth", "depth", np.zeros((24, 24), np.uint8), 9.0)
        with client.live() as session:  # none of them is declared: the session does not wait for any
            assert session.stream_file(watched, speed=None) == SECONDS
            assert session.ask(QUESTION).answer().windows_missing == 0
