"""Windows on the media clock: order of arrival does not matter within the lateness, and every packet is counted."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from anymodal.media import StreamSpec, Windower  # noqa: E402
from anymodal.testing import FakeClock, run_stage, synthetic_packets  # noqa: E402
from anymodal.types import Packet, Window  # noqa: E402

SPECS = {
    "cam": StreamSpec("video", 4, size_px=4),
    "mic": StreamSpec("audio", 100),
    "imu": StreamSpec("imu", 10, axes=("x", "y")),
}
LATENESS_S = 1.0
LONGEST_PACKET_S = 0.25


def audio(pts_s: float, data, rate_hz: float = 100) -> Packet:
    return Packet("mic", "audio", pts_s, np.asarray(data, np.float32), rate_hz)


def frame(pts_s: float, value: int = 0, stream: str = "cam") -> Packet:
    return Packet(stream, "video", pts_s, np.full((4, 4, 3), value, np.uint8), 4)


def windower(**options) -> Windower:
    return Windower(options.pop("window_s", 1.0), options.pop("streams", SPECS), **options)


def assert_same_windows(found: list[Window], expected: list[Window]) -> None:
    assert [w.index for w in found] == [w.index for w in expected]
    for a, b in zip(found, expected):
        assert (a.t0_s, a.t1_s, dict(a.dropped)) == (b.t0_s, b.t1_s, dict(b.dropped))
        assert a.signals.keys() == b.signals.keys()
        for name, signal in a.signals.items():
            other = b.signals[name]
            assert (signal.t0_s, signal.rate_hz, signal.modality) == (other.t0_s, other.rate_hz, other.modality)
            assert np.array_equal(signal.data, other.data)


def total(w: Windower, fate: str) -> int:
    return sum(getattr(t, fate) for t in w.totals.values())


@st.composite
def broken_streams(draw):
    """Packets with some lost and some sent twice, in order of time."""
    duration_s = draw(st.floats(0.3, 6))
    packets = list(synthetic_packets(SPECS, duration_s, seed=draw(st.integers(0, 99))))
    lose = draw(st.floats(0, 0.6))
    rng = random.Random(draw(st.integers(0, 2**32)))
    kept = [p for p in packets if rng.random() >= lose] or packets[:1]
    return kept, [p for p in kept if rng.random() < 0.2], rng


@settings(max_examples=60, deadline=None)
@given(broken_streams(), st.sampled_from([0.5, 1.0, 0.7]))
def test_any_interleaving_within_the_lateness_gives_the_same_windows(streams, window_s):
    packets, again, rng = streams
    in_order, shuffled = windower(window_s=window_s), windower(window_s=window_s)
    expected = run_stage(in_order, packets)
    delay_s = LATENESS_S - LONGEST_PACKET_S
    found = run_stage(shuffled, sorted(packets + again, key=lambda p: p.pts_s + rng.uniform(0, delay_s)))
    assert_same_windows(found, expected)
    assert total(shuffled, "late") == total(shuffled, "malformed") == 0
    assert total(shuffled, "duplicate") == len(again)
    assert total(shuffled, "entered") == len(packets)


@settings(max_examples=60, deadline=None)
@given(broken_streams(), st.floats(0, 8))
def test_beyond_the_lateness_windows_and_late_counts_account_for_every_packet(streams, delay_s):
    packets, again, rng = streams
    w = windower(allowed_lateness_s=0.3)
    arriving = sorted(packets + again, key=lambda p: p.pts_s + rng.uniform(0, delay_s))
    windows: list[Window] = []
    for packet in arriving:
        windows += w.push(packet)
    windows += w.close()
    assert total(w, "packets") == len(arriving)
    assert [x.index for x in windows] == list(range(len(windows)))
    told = sum(sum(x.dropped.values()) for x in windows)
    last_dropped = total(w, "late") - told
    assert last_dropped >= 0  # what was late for the last window has no next one to tell it
    if total(w, "late") == 0:
        assert told == 0
    assert_every_sample_once(w, packets, windows)


def assert_every_sample_once(w: Windower, packets: list[Packet], windows: list[Window]) -> None:
    """Each grid time of the windows holds the sample that was sent for it, or the filler; packets enter as counted."""
    held: dict[tuple[str, int], np.ndarray] = {}
    for window in windows:
        for name, signal in window.signals.items():
            first = round(signal.t0_s * signal.rate_hz)
            for i, value in enumerate(signal.data):
                assert (name, first + i) not in held, "a grid time is in two windows"
                assert window.t0_s - 1e-9 <= (first + i) / signal.rate_hz < window.t1_s
                held[name, first + i] = value
    whole = {name: 0 for name in SPECS}
    for packet in packets:
        first = round(packet.pts_s * packet.rate_hz)
        samples = [packet.data] if packet.modality == "video" else list(packet.data)
        inside = [np.array_equal(held.get((packet.stream, first + i)), s) for i, s in enumerate(samples)]
        whole[packet.stream] += all(inside)
    for name, spec in SPECS.items():
        if spec.modality != "video":  # neighbouring frames may hold one another's place
            trimmed = w.totals[name].trimmed
            assert whole[name] >= w.totals[name].entered - trimmed
            assert whole[name] <= w.totals[name].entered + w.totals[name].late


def test_windows_are_aligned_and_on_the_grid():
    w = windower()
    windows = run_stage(w, synthetic_packets(SPECS, 3.0))
    assert [(x.index, x.t0_s, x.t1_s) for x in windows] == [(k, float(k), k + 1.0) for k in range(3)]
    for k, window in enumerate(windows):
        assert {n: s.data.shape for n, s in window.signals.items()} == {
            "cam": (4, 4, 4, 3), "mic": (100,), "imu": (10, 2),
        }
        assert all(s.t0_s == k for s in window.signals.values())
        assert window.dropped == {}


def test_a_complete_window_goes_out_at_once():
    w = windower(streams={"mic": SPECS["mic"]}, allowed_lateness_s=5.0)
    assert w.push(audio(0.0, np.ones(99))) == []
    assert [x.index for x in w.push(audio(0.99, np.ones(1)))] == [0]


def test_a_packet_over_an_edge_is_split_by_sample():
    w = windower(streams={"mic": SPECS["mic"]})
    windows = run_stage(w, [audio(0.0, np.arange(250))])
    assert [len(x.signals["mic"].data) for x in windows] == [100, 100, 50]
    assert np.array_equal(np.concatenate([x.signals["mic"].data for x in windows]), np.arange(250))


def test_rates_that_do_not_divide_the_window():
    spec = {"mic": StreamSpec("audio", 7)}
    packet = Packet("mic", "audio", 0.0, np.arange(21, dtype=np.float32), 7)
    windows = run_stage(Windower(0.5, spec), [packet])
    assert [len(x.signals["mic"].data) for x in windows] == [4, 3, 4, 3, 4, 3]
    assert [x.signals["mic"].t0_s for x in windows] == pytest.approx([0, 4 / 7, 1, 11 / 7, 2, 18 / 7])


def test_holes_are_silence_zeros_or_the_frame_before():
    w = windower()
    imu = [Packet("imu", "imu", t, np.ones((2, 2), np.float32), 10) for t in (0.0, 0.8)]
    windows = run_stage(
        w, [frame(0.0, 1), frame(0.75, 4), audio(0.1, np.ones(10)), audio(0.5, np.ones(10)), *imu]
    )
    signals = windows[0].signals
    assert signals["cam"].data[:, 0, 0, 0].tolist() == [1, 1, 1, 4]
    assert (signals["mic"].t0_s, len(signals["mic"].data)) == (0.1, 50)
    assert signals["mic"].data.tolist() == [1.0] * 10 + [0.0] * 30 + [1.0] * 10
    assert signals["imu"].data[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1]


def test_a_camera_off_the_grid_gives_the_newest_frame_before_each_time():
    w = windower(streams={"cam": SPECS["cam"]})
    windows = run_stage(w, [frame(t, v) for v, t in enumerate([0.0, 0.1, 0.2, 0.3, 0.45, 0.74, 0.76])])
    assert windows[0].signals["cam"].data[:, 0, 0, 0].tolist() == [0, 2, 4, 5]
    assert windows[1].signals["cam"].data[:, 0, 0, 0].tolist() == [6]  # shown at 1.0
    assert w.totals["cam"].entered == 7


def test_late_packets_are_told_by_the_next_window():
    w = windower(streams={"mic": SPECS["mic"]}, allowed_lateness_s=0.5)
    w.push(audio(0.0, np.ones(50)))
    assert [x.index for x in w.push(audio(1.0, np.ones(60)))] == [0]
    assert w.push(audio(0.6, np.ones(20))) == []
    assert w.push(audio(0.1, np.ones(20))) == []  # all of it is there: a duplicate, not late
    rest = w.close()
    assert [(x.index, x.dropped) for x in rest] == [(1, {"mic": 1})]
    assert (w.totals["mic"].late, w.totals["mic"].duplicate, w.totals["mic"].entered) == (1, 1, 2)


def test_a_packet_partly_late_counts_as_late_and_its_rest_enters():
    w = windower(streams={"mic": SPECS["mic"]}, allowed_lateness_s=0.2)
    w.push(audio(0.0, np.ones(90)))
    w.push(audio(1.5, np.ones(10)))
    w.push(audio(0.95, np.full(20, 7)))
    rest = w.close()
    assert rest[0].signals["mic"].data[:15].tolist() == [7.0] * 15
    assert w.totals["mic"].late == 1


MALFORMED = {
    "unknown stream": Packet("lidar", "lidar", 0.0, np.ones(3, np.float32), 1),
    "another modality": Packet("mic", "video", 0.0, np.ones(3, np.float32), 100),
    "no samples": audio(0.0, []),
    "NaN time": audio(math.nan, [1.0]),
    "infinite time": audio(math.inf, [1.0]),
    "negative time": audio(-0.5, [1.0]),
    "a broken clock": audio(1e9, [1.0]),
    "another rate": audio(0.0, [1.0], rate_hz=99),
    "NaN samples": audio(0.0, [1.0, math.nan]),
    "two channels": Packet("mic", "audio", 0.0, np.ones((3, 2), np.float32), 100),
    "float64": Packet("mic", "audio", 0.0, np.ones(3), 100),
    "a list": Packet("mic", "audio", 0.0, [1.0], 100),
    "gray frame": Packet("cam", "video", 0.0, np.zeros((4, 4), np.uint8), 4),
    "frame of another size": Packet("cam", "video", 0.0, np.zeros((4, 5, 3), np.uint8), 4),
    "float frame": Packet("cam", "video", 0.0, np.zeros((4, 4, 3), np.float32), 4),
    "too few axes": Packet("imu", "imu", 0.0, np.ones((3, 1), np.float32), 10),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_packets_are_counted_and_kept_out(what):
    w = windower()
    packets = list(synthetic_packets(SPECS, 1.0))
    windows = run_stage(w, [MALFORMED[what], *packets])
    assert_same_windows(
        [Window(x.index, x.t0_s, x.t1_s, x.signals, {}) for x in windows], run_stage(windower(), packets)
    )
    assert windows[0].dropped == {MALFORMED[what].stream: 1}
    assert w.totals[MALFORMED[what].stream].malformed == 1


def test_a_silent_stream_is_not_waited_for_after_the_idle_timeout():
    clock = FakeClock()
    w = windower(idle_timeout_s=2.0, clock=clock, allowed_lateness_s=60.0)
    for t in range(4):
        assert w.push(frame(t / 4)) == []
    assert w.push(audio(0.0, np.ones(100))) == []  # imu is awaited
    clock.advance(1.5)
    w.push(frame(1.0))
    w.push(audio(1.0, np.ones(10)))
    assert w.tick() == []
    clock.advance(0.6)
    windows = w.tick()
    assert [(x.index, sorted(x.signals)) for x in windows] == [(0, ["cam", "mic"])]
    late = Packet("imu", "imu", 0.5, np.ones((1, 2), np.float32), 10)
    assert w.push(late) == []
    assert w.totals["imu"].late == 1


def test_when_everything_is_silent_the_open_window_closes():
    clock = FakeClock()
    w = windower(streams={"mic": SPECS["mic"]}, idle_timeout_s=1.0, clock=clock)
    w.push(audio(0.0, np.ones(130)))
    assert w.tick() == []
    clock.advance(1.0)
    assert [(x.index, len(x.signals["mic"].data)) for x in w.tick()] == [(1, 30)]
    assert w.tick() == []
    assert [x.index for x in w.push(audio(2.0, np.ones(100)))] == [2]


def test_an_ended_stream_is_not_waited_for():
    w = windower(streams={k: SPECS[k] for k in ("cam", "mic")}, allowed_lateness_s=60.0)
    w.push(frame(0.0))
    assert w.push(audio(0.0, np.ones(200))) == []
    assert [x.index for x in w.end_of_stream("cam")] == [0, 1]


@pytest.mark.parametrize("rest, emitted", [(9, False), (10, True), (50, True)])
def test_a_last_window_needs_a_tenth_of_the_hop(rest, emitted):
    w = windower(streams={"mic": SPECS["mic"]})
    windows = run_stage(w, [audio(0.0, np.ones(200)), audio(2.0, np.ones(rest))])
    assert len(windows) == (3 if emitted else 2)
    assert w.totals["mic"].trimmed == (0 if emitted else rest)


def test_an_only_window_is_emitted_however_short():
    assert len(run_stage(windower(), [frame(0.0)])) == 1
    w = windower(streams={"mic": SPECS["mic"]})
    assert len(run_stage(w, [audio(0.0, np.ones(1))])) == 1
    assert run_stage(windower(), []) == []


def test_a_gap_gives_empty_windows_in_order():
    w = windower(streams={"mic": SPECS["mic"]})
    windows = run_stage(w, [audio(0.0, np.ones(100)), audio(3.0, np.ones(100))])
    assert [(x.index, sorted(x.signals)) for x in windows] == [(0, ["mic"]), (1, []), (2, []), (3, ["mic"])]


def test_it_can_resume_at_a_window():
    packets = list(synthetic_packets(SPECS, 4.0))
    whole = run_stage(windower(), packets)
    resumed = run_stage(windower(first_window=2), [p for p in packets if p.pts_s >= 2 - 1e-9])
    assert_same_windows(resumed, whole[2:])


def test_memory_stays_bounded():
    w = windower(streams={"mic": SPECS["mic"]})
    for k in range(500):
        w.push(audio(float(k), np.ones(100)))
    assert len(w._streams["mic"].cells) < 6


def test_a_window_has_a_length():
    with pytest.raises(ValueError, match="window_s"):
        windower(window_s=0.0)


def test_a_window_closes_with_the_next_ones_first_frame():
    windower = Windower(1.0, {"cam": SPECS["cam"]})
    frames = [np.full((4, 4, 3), i, np.uint8) for i in range(6)]
    out = [w for i, f in enumerate(frames) for w in windower.push(Packet("cam", "video", i / 4, f, 4))]
    assert [w.index for w in out] == [0], "it goes out once its closing frame is there"
    out += windower.close()
    first, last = (w.signals["cam"] for w in out)
    assert [int(f[0, 0, 0]) for f in first.data] == [0, 1, 2, 3]
    assert int(first.closing[0, 0, 0]) == 4 == int(last.data[0, 0, 0, 0])
    assert last.closing is None, "the clip ended before the window did"
