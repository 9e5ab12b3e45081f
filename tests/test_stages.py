"""The stages of the main path, each as a table of what it is given and what it makes of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from anymodal.bundle import load_bundle
from anymodal.errors import MediaError, QuestionError, RuntimeFault
from anymodal.stages.items import Clip, Closing, Opening, Percept, Question
from anymodal.stages.perceive import Perceive
from anymodal.stages.source import Source
from anymodal.stages.think import Think, time_first_tokens
from anymodal.stages.together import Together
from anymodal.testing import gradient_frame, make_video, run_stage
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta, Signal, Window

LONG_S = 300.0  # a wait that only a broken test comes to the end of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(random_bundle(tmp_path_factory.mktemp("bundle")))


def window(index: int, seed: int | None = None, *, imu: bool = True) -> Window:
    rng = np.random.default_rng(index if seed is None else seed)
    signals = {
        "video": Signal("video", rng.integers(0, 255, (4, 32, 32, 3), dtype=np.uint8), 4, float(index)),
        "audio": Signal("audio", rng.normal(0, 0.1, 16000).astype(np.float32), 16000, float(index)),
    }
    if imu:
        signals["imu"] = Signal("imu", rng.normal(0, 1, (50, 6)).astype(np.float32), 50, float(index))
    return Window(index, float(index), index + 1.0, signals, {"video": index % 2, "audio": 7})


def same_tokens(one: Percept, other: Percept) -> bool:
    pairs = list(zip(one.tokens, other.tokens, strict=True))
    return all(np.array_equal(a.embeds, b.embeds) and a.familiarity == b.familiarity for a, b in pairs)


# -- source ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at_s", "indices"), [(None, [0, 1, 2]), (2.0, [0, 1]), (1.9, [0]), (0.0, [])])
def test_source_gives_windows_that_had_ended(bundle, tmp_path, at_s, indices):
    clip = make_video(tmp_path / "clip.mp4", [gradient_frame(64, i) for i in range(75)])
    windows = run_stage(Source(bundle.spec), [Clip("a", str(clip), at_s)])
    assert [w.index for w in windows] == indices
    assert all(w.signals["video"].data.shape[1:] == (32, 32, 3) for w in windows)


def test_source_without_media_gives_nothing(bundle):
    assert run_stage(Source(bundle.spec), [Clip("a", None)]) == []
    with pytest.raises(QuestionError, match="no media"):
        run_stage(Source(bundle.spec), [Clip("a", None, 1.0)])


def test_source_tells_of_damage(bundle, tmp_path):
    whole = make_video(tmp_path / "whole.mp4", [gradient_frame(64, i) for i in range(100)],
                       container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    warnings: list[str] = []
    assert 0 < len(list(Source(bundle.spec).push(Clip("a", str(cut)), warnings))) < 4
    assert any("cut.mp4" in w for w in warnings)
    with pytest.raises(MediaError, match="no file"):
        run_stage(Source(bundle.spec), [Clip("a", str(tmp_path / "none.mp4"))])


# -- perceive -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_perceive_keeps_order_and_counts(bundle, count):
    percepts = run_stage(Perceive(bundle.perception), [("a", window(i)) for i in range(count)])
    assert [p.index for p in percepts] == list(range(count))
    for percept in percepts:
        assert [t.modality for t in percept.tokens] == ["video", "audio", "imu"]
        assert (percept.frames, percept.dropped) == (4, percept.index % 2)
        assert all(np.isfinite(t.embeds).all() for t in percept.tokens)


def test_tokens_do_not_depend_on_the_batch(bundle):
    """What shares a batch, where in it a window stands and how full it is leave the tokens the same, to the bit."""
    stage = Perceive(bundle.perception)
    alone = stage.encode([("a", window(5))])[0]
    for others in ([1], [2, 3], [4, 6, 7], [1, 2, 3, 4, 6, 7]):
        for place in {0, len(others) // 2, len(others)}:
            items = [("b", window(i, imu=bool(i % 2))) for i in others]
            items.insert(place, ("a", window(5)))
            assert same_tokens(stage.encode(items)[place], alone)
    assert not same_tokens(stage.encode([("a", window(6))])[0], alone)


# -- think ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def percepts(bundle):
    return run_stage(Perceive(bundle.perception), [("a", window(i)) for i in range(4)])


def ask(think: Think, given: list) -> list[tuple[int, Answer]]:
    pieces = run_stage(think, given)
    return [(n, p.text, p.confidence, p.windows_seen) for n, p in pieces if isinstance(p, Answer)]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 0, 3, 1, 2, 3]])
def test_windows_enter_in_order_and_once(bundle, percepts, order):
    given = [Opening("a"), *(percepts[i] for i in order), Question("a", 0, "what was that?", windows=4)]
    straight = [Opening("a"), *percepts, Question("a", 0, "what was that?")]
    assert ask(Think(bundle.mind), given) == ask(Think(bundle.mind), straight)


def test_asking_does_not_disturb_the_session(bundle, percepts):
    first, second = Question("a", 0, "what was that?"), Question("a", 1, "and then?")
    think = Think(bundle.mind)
    run_stage(think, [Opening("a"), *percepts])
    both = ask(think, [first, second])
    assert ask(think, [second, first]) == both[::-1]
    assert both[0][1] != both[1][1]


def test_two_sessions_do_not_mix(bundle, percepts):
    think = Think(bundle.mind)
    others = run_stage(Perceive(bundle.perception), [("b", window(i, seed=40 + i)) for i in range(4)])
    mixed = [item for pair in zip(percepts, others) for item in pair]
    together = ask(think, [Opening("a"), Opening("b"), *mixed, Question("a", 0, "what?"), Question("b", 1, "what?")])
    alone = ask(Think(bundle.mind), [Opening("b"), *others, Question("b", 1, "what?")])
    assert together[1] == alone[0]
    assert together[0][1:3] != together[1][1:3]


def test_a_session_that_is_not_open_is_refused(bundle, percepts):
    think = Think(bundle.mind)
    for given in ([percepts[0]], [Question("a", 0, "what?")], [Opening("a"), Closing("a"), percepts[0]]):
        with pytest.raises(RuntimeFault, match="does not know this session"):
            run_stage(think, given)
    assert think.sessions == 0


def test_a_question_is_not_answered_on_less_than_it_asked_for(bundle, percepts):
    with pytest.raises(RuntimeFault, match="1 windows have reached the mind, 4"):
        run_stage(Think(bundle.mind), [Opening("a"), percepts[0], Question("a", 0, "what?", windows=4)])
    with pytest.raises(RuntimeFault, match="1 windows"):
        run_stage(Think(bundle.mind), [Opening("a"), percepts[0], percepts[3], Question("a", 0, "what?")])


def test_time_to_first_token_is_the_askers_wait(monkeypatch):
    clock = iter([11.0, 12.5])
    monkeypatch.setattr("anymodal.stages.think.time.perf_counter", lambda: next(clock, 99.0))
    answer = Answer("q", "a b", 0.5)
    pieces = [(0, Delta("a")), (0, Delta(" b")), (0, answer), (1, answer)]
    timed = dict(item for item in time_first_tokens(pieces, 10.0) if isinstance(item[1], Answer))
    assert timed[0].ttft_s == 1.0
    assert timed[1].ttft_s >= 2.5


def test_stages_import_no_more_than_they_need():
    """The host of the source must not pay for torch."""
    import subprocess
    import sys

    code = "import sys, anymodal.stages.source, anymodal.stages.think; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, timeout=300).returncode == 0


# -- perception that sessions share -----------------------------------------------------------------------------


def see_behind_the_first(noting, shared, see, indices) -> None:
    """See windows in threads: the first is held in the encoder until the others wait, in order."""
    first, *others = [threading.Thread(target=see, args=(i,)) for i in indices]
    first.start()
    assert noting.begun.wait(LONG_S)
    deadline_s = time.monotonic() + LONG_S
    for number, thread in enumerate(others, 1):
        thread.start()
        while shared.under_way <= number:
            assert time.monotonic() < deadline_s, "it does not wait"
            time.sleep(0.001)
    noting.go.set()
    for thread in (first, *others):
        thread.join(LONG_S)


class Noting:
    """A perception that notes its batches, holds the first until it is told, and fails on window 13."""

    def __init__(self, perception):
        self.spec, self.perception, self.batches = perception.spec, perception, []
        self.begun, self.go = threading.Event(), threading.Event()

    def encode_many(self, items, **given):
        self.batches.append([window.index for _, window in items])
        self.begun.set()
        assert self.go.wait(LONG_S)
        if any(w.index == 13 for _, w in items):
            raise RuntimeFault("window 13")
        return self.perception.encode_many(items, **given)


def test_sessions_share_batches_and_their_tokens_are_as_alone(bundle):
    alone = {i: Perceive(bundle.perception).encode([("s", window(i))])[0] for i in range(6)}
    noting, found = Noting(bundle.perception), {}
    shared = Together(noting)

    def see(index: int) -> None:
        found.update({p.index: p for p in Perceive(shared).encode([(f"s{index}", window(index))])})

    see_behind_the_first(noting, shared, see, range(6))
    assert noting.batches == [[0], [1, 2, 3, 4], [5]]
    assert all(same_tokens(found[i], alone[i]) and found[i].tokens[0].session == f"s{i}" for i in range(6))


def test_a_window_that_cannot_be_encoded_spoils_no_other(bundle):
    noting, found, wrong = Noting(bundle.perception), {}, []
    shared = Together(noting)

    def see(index: int) -> None:
        try:
            found.update({p.index: p for p in Perceive(shared).encode([("s", window(index))])})
        except RuntimeFault as error:
            wrong.append((index, str(error)))

    see_behind_the_first(noting, shared, see, (0, 13, 2))
    assert wrong == [(13, "window 13")] and sorted(found) == [0, 2]
    assert Perceive(shared).encode([("s", window(3))])[0].tokens  # its lane is free again
