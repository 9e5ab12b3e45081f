"""The memory keeps to its budget, covers all time in order, and is the same live and from the log; so is the mind."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.bundle import load_bundle
from anymodal.config import MemorySpec, load_spec, parse_spec
from anymodal.errors import ConfigError, QuestionError
from anymodal.language.mind import Mind, familiar
from anymodal.memory import Compaction, Memory, Span, merge, named, similarity, since, widened
from anymodal.session.log import Turn
from anymodal.session.values import pack_row, unpack_row
from anymodal.stages.items import Percept
from anymodal.testing_bundle import random_bundle
from anymodal.types import Answer, Delta, Evidence, Tokens

STREAMS = (("video", 3), ("audio", 1), ("imu", 1))
ORDER = ("video", "audio", "imu")


@cache
def percept(index: int, seed: int, width: int = 4, *, changes: int = 5, streams=STREAMS) -> Percept:
    """A window whose scene changes every `changes` windows; values are on bfloat16's grid, as a log gives them."""
    scene, noise = np.random.default_rng([seed, index // changes]), np.random.default_rng([seed, index])
    tokens = []
    for name, count in streams:
        embeds = np.round((scene.normal(size=(count, width)) + 0.1 * noise.normal(size=(count, width))) * 16) / 16
        tokens.append(Tokens("s", name, index, name, index * 1.0, index + 1.0, embeds.astype(np.float32),
                             familiarity=float(noise.uniform(0.5, 1))))
    return Percept("s", index, index * 1.0, index + 1.0, tuple(tokens), frames=4, dropped=index % 3)


def label_tokens(entry: Span) -> int:
    return 2 + (entry.t0_s >= 60) + (entry.t0_s >= 3600)


specs = st.builds(
    lambda budget, at, to, keep, slices: MemorySpec(
        budget_tokens=budget, compact_at=at, compact_to=to, keep_recent=keep, slices=slices),
    st.integers(200, 400), st.sampled_from([0.7, 0.75]), st.sampled_from([0.3, 0.35]),
    st.sampled_from([0.0, 0.1, 0.25]), st.integers(1, 4))
streams = st.lists(st.sampled_from([STREAMS, STREAMS[:1], STREAMS[1:], ()]), min_size=1, max_size=4)


def run(memory: Memory, percepts) -> list[Compaction]:
    return [c for p in percepts if (c := memory.append(p)) is not None]


def same(a: Memory, b: Memory) -> bool:
    def flat(memory):
        return [(e.first, e.last, e.t0_s, e.t1_s, e.frames, e.dropped,
                 [(p.stream, p.embeds.tobytes(), p.windows, p.familiarity) for p in e.parts]) for e in memory.entries]

    return flat(a) == flat(b) and a.tokens == b.tokens


@settings(max_examples=12, deadline=None)
@given(specs, st.integers(0, 9), st.integers(1, 9), streams)
def test_the_budget_holds_and_all_time_is_covered_in_order(spec, seed, changes, present):
    memory, again = Memory(spec, label_tokens, ORDER), Memory(spec, label_tokens, ORDER)
    percepts = [percept(k, seed, changes=changes, streams=present[k % len(present)]) for k in range(120)]
    for given_, p in enumerate(percepts, 1):
        memory.append(p)
        assert memory.tokens == 1 + sum(map(memory.size, memory.entries)) <= spec.budget_tokens
        assert memory.entries[0].first == 0 and memory.last_window == p.index
        for a, b in zip(memory.entries, memory.entries[1:]):
            assert b.first == a.last + 1 and b.t0_s == a.t1_s
        assert sum(e.frames for e in memory.entries) == 4 * given_
        newest = memory.entries[-1]
        assert newest.windows == 1 and [q.embeds.tobytes() for q in newest.parts] == [
            t.embeds.tobytes() for t in p.tokens], "the newest window stays whole"
    run(again, percepts)
    assert same(memory, again)


@settings(max_examples=10, deadline=None)
@given(specs, st.integers(0, 9), st.integers(30, 140))
def test_a_memory_from_the_log_equals_the_live_one(spec, seed, stop):
    live, percepts = Memory(spec, label_tokens, ORDER), [percept(k, seed) for k in range(170)]
    made = run(live, percepts[:stop])
    in_effect = [c for c in made if c.effective_from <= stop - 1]
    rebuilt, first = Memory(spec, label_tokens, ORDER), 0
    if in_effect:
        stored = Compaction.from_row(unpack_row(pack_row(in_effect[-1].to_row())))
        assert (stored.window, stored.key) == (in_effect[-1].window, str(in_effect[-1].after_window))
        rebuilt.restore(stored)
        first = stored.after_window + 1
    redone = run(rebuilt, percepts[first:stop])
    assert same(live, rebuilt) and live.in_effect_s == rebuilt.in_effect_s
    assert [c.key for c in redone] == [c.key for c in made if c not in in_effect], "only what is not in effect yet"
    later = run(live, percepts[stop:])
    assert [c.key for c in later] == [c.key for c in run(rebuilt, percepts[stop:])] and same(live, rebuilt)


def still(percepts, seed: int, *, share: float = 0.7, refresh: int = 16) -> list[Percept]:
    """The same, where most windows repeat an earlier one: as a change gate gives them."""
    dice, found = np.random.default_rng(seed), []
    for p in percepts:
        if found and p.index % refresh and dice.random() < share:
            source = next(q for q in reversed(found) if not q.repeats)
            tokens = tuple(replace(t, window=p.index, t0_s=p.t0_s, t1_s=p.t1_s) for t in source.tokens)
            p = replace(p, tokens=tokens, repeats={t.stream: source.index for t in tokens})
        found.append(p)
    return found


@settings(max_examples=10, deadline=None)
@given(specs, st.integers(0, 9), st.integers(30, 170))
def test_windows_that_repeat_lengthen_an_entry_live_and_from_the_log(spec, seed, stop):
    live, percepts = Memory(spec, label_tokens, ORDER), still([percept(k, seed) for k in range(170)], seed)
    made, lengthened = [], 0
    for p in percepts[:stop]:
        tokens, count, entries = live.tokens, len(live.entries), live.entries
        compaction = live.append(p)
        made += [compaction] if compaction else []
        if live.entries is entries and len(entries) == count:
            assert p.repeats and live.tokens == tokens and entries[-1].last == p.index
            assert [q.embeds.tobytes() for q in entries[-1].parts] == [t.embeds.tobytes() for t in p.tokens]
            lengthened += 1
        assert live.tokens == 1 + sum(map(live.size, live.entries)) <= spec.budget_tokens
        assert sum(e.dropped for e in live.entries) == sum(q.dropped for q in percepts[: p.index + 1])
    assert lengthened > stop / 3
    in_effect = [c for c in made if c.effective_from <= stop - 1]
    rebuilt, first = Memory(spec, label_tokens, ORDER), 0
    if in_effect:
        rebuilt.restore(Compaction.from_row(unpack_row(pack_row(in_effect[-1].to_row()))))
        first = in_effect[-1].after_window + 1
    run(rebuilt, percepts[first:stop])
    assert same(live, rebuilt) and [e.repeats for e in live.entries] == [e.repeats for e in rebuilt.entries]
    assert [c.key for c in run(live, percepts[stop:])] == [c.key for c in run(rebuilt, percepts[stop:])]
    assert same(live, rebuilt)


def test_an_entry_as_it_was_before_it_was_lengthened():
    memory, then = Memory(MemorySpec(), label_tokens), {}
    for p in still([percept(k, 3) for k in range(12)], 0, share=1.0):
        memory.append(p)
        then[p.index] = memory.entries[-1]
    (entry,) = memory.entries
    for index, wanted in then.items():
        earlier = entry.until(index + 1)
        assert [getattr(earlier, name) for name in ("first", "last", "t0_s", "t1_s", "frames", "dropped", "repeats")] == [
            getattr(wanted, name) for name in ("first", "last", "t0_s", "t1_s", "frames", "dropped", "repeats")]
        assert [(p.windows, p.familiarity) for p in earlier.parts] == [
            (p.windows, pytest.approx(p.familiarity)) for p in wanted.parts]


def test_a_memory_of_a_larger_budget_is_refused():
    made = run(Memory(MemorySpec(budget_tokens=2048), label_tokens), [percept(k, 1, changes=1) for k in range(300)])
    small = Memory(MemorySpec(budget_tokens=1024), label_tokens)
    with pytest.raises(ConfigError, match="is 1024, the log's memory has 2048") as caught:
        small.restore(Compaction.from_row(unpack_row(pack_row(made[0].to_row()))))
    assert "memory.budget_tokens" in caught.value.fix and small.entries == []


def test_a_compaction_is_in_effect_when_it_says_and_not_before():
    spec = MemorySpec(budget_tokens=300, compact_at=0.7, compact_to=0.35, keep_recent=0.2, slices=3)
    memory, due, swaps = Memory(spec, label_tokens), None, 0
    for k in range(200):
        before = memory.entries
        made = memory.append(percept(k, 1))
        if due is not None and k == due.effective_from:
            assert memory.entries is not before and memory.in_effect_s == k + 1.0
            assert memory.entries[: len(due.entries)] == list(due.entries)
            assert memory.entries[len(due.entries)].first == due.after_window + 1
            due, swaps = None, swaps + 1
        else:
            assert memory.entries is before
        due = made or due
    assert swaps >= 3


def test_alike_neighbours_are_merged_first_into_weighted_means():
    still, moved = percept(0, 3, changes=99), percept(0, 4)
    entries = [Span(k, k, float(k), k + 1.0, Span.of(still if k < 4 else moved).parts) for k in range(6)]
    entries[2] = Span(2, 2, 2.0, 3.0, Span.of(percept(7, 3, changes=99)).parts)  # the same scene, other noise
    assert similarity(entries[0], entries[1]) == pytest.approx(1)
    assert similarity(entries[0], entries[2]) > similarity(entries[3], entries[4])
    merged = merge(entries, 2 * 7, lambda e: 2 + e.soft_tokens, ORDER)
    assert [(e.first, e.last) for e in merged] == [(0, 3), (4, 5)]
    wanted = np.mean([e.parts[0].embeds for e in entries[:4]], axis=0)
    assert np.allclose(merged[0].parts[0].embeds, wanted, atol=1e-6) and merged[0].parts[0].windows == 4
    bell = Span.of(percept(1, 5, streams=STREAMS[1:2]))
    both = merge([Span.of(percept(0, 5, streams=STREAMS[:1])), bell], 0, lambda e: e.soft_tokens, ORDER)[0]
    assert [p.stream for p in both.parts] == ["video", "audio"] and both.parts[1].embeds is bell.parts[0].embeds


def test_windows_that_do_not_fit_or_follow_are_refused_and_leave_the_memory_alone():
    spec = MemorySpec(budget_tokens=200, compact_at=0.7, compact_to=0.3, keep_recent=0.2, slices=4)
    memory = Memory(spec, label_tokens)
    memory.append(percept(0, 0))
    with pytest.raises(ConfigError, match="window 1 has 22 tokens, the memory takes 12 of its 200"):
        memory.append(percept(1, 0, streams=(("video", 20),)))
    with pytest.raises(ValueError, match="window 2 cannot follow window 0"):
        memory.append(percept(2, 0))
    memory.append(percept(1, 0))
    assert memory.last_window == 1 and memory.tokens == 1 + 7 + 7


@pytest.mark.parametrize(("memory", "wanted"), [
    ({"budget_tokens": 0}, "memory.budget_tokens"),
    ({"budget": 9}, "unknown key 'memory.budget'.*did you mean 'budget_tokens'"),
    ({"budget_tokens": 500}, "a window has up to 29 tokens, there is room for 10.*set memory.budget_tokens to"),
    ({"compact_at": 0.5, "compact_to": 0.6}, "full again"),
    ({"keep_recent": 0.5}, "leaves nothing to merge"),
])
def test_a_budget_that_cannot_hold_is_refused(memory, wanted):
    raw = load_spec("tiny")[0].model_dump()
    raw["training"] = {}
    with pytest.raises(ConfigError, match=wanted):
        parse_spec({**raw, "memory": memory})


# --- the mind over it --------------------------------------------------------------------------------------------------

BUDGET = "memory: {budget_tokens: 400, slices: 2, compact_at: 0.8, compact_to: 0.4, keep_recent: 0.2}"
LONG = 150


@pytest.fixture(scope="module")
def mind(tmp_path_factory):
    path = random_bundle(tmp_path_factory.mktemp("mind"))
    path.write_text(path.read_text().replace("window_s: 1.0", f"window_s: 1.0\n{BUDGET}"))
    return load_bundle(path).mind


@pytest.fixture(scope="module")
def percepts(mind):
    streams = (("video", 2), ("audio", 1), ("imu", 1))
    return [percept(k, 8, width=mind.lm.width, streams=streams) for k in range(LONG)]


def texts(mind, state, **how) -> list[str]:
    return [p.text for p in mind.answer(state, "what is it?", **how) if isinstance(p, Delta)]


def logits(mind, state) -> torch.Tensor:
    return mind.fork(state, [[4, 300, 301, 5]]).logits[0]


@pytest.mark.parametrize("stop", [30, 64, 66, LONG])
def test_a_mind_from_the_log_answers_as_the_live_one(mind, percepts, stop):
    live, made = mind.open(), []
    for p in percepts[:stop]:
        if (c := mind.extend(live, p)) is not None:
            made.append(Compaction.from_row(c.to_row()))
    in_effect = [c for c in made if c.effective_from <= stop - 1]
    last = in_effect[-1] if in_effect else None
    rebuilt = mind.open(last, percepts[last.after_window + 1 if last else 0 : stop])
    assert len(made) >= stop // 50 and [c.key for c in rebuilt.made] == [c.key for c in made[len(in_effect):]]
    assert live.trunk.length == live.memory.tokens == rebuilt.trunk.length <= 400
    assert torch.allclose(logits(mind, live), logits(mind, rebuilt), atol=1e-4)
    (*deltas, one), (*same_deltas, other) = (list(mind.answer(s, "what is it?")) for s in (live, rebuilt))
    assert deltas == same_deltas and (one.text, one.evidence) == (other.text, other.evidence)
    assert one.windows_seen == other.windows_seen == stop and one.frames_dropped == other.frames_dropped
    for p in percepts[stop : stop + 40]:  # and they go on alike, a compaction under way included
        mind.extend(live, p), mind.extend(rebuilt, p)
    assert torch.allclose(logits(mind, live), logits(mind, rebuilt), atol=1e-4)


def test_the_cache_is_what_prefilling_the_list_afresh_gives(mind, percepts):
    state = mind.open()
    for p in percepts[:100]:
        mind.extend(state, p)
    fresh = mind.trunk()
    fresh.extend(mind.laid_out(state.memory.entries))
    state_logits, state.trunk = logits(mind, state), fresh
    assert torch.allclose(state_logits, logits(mind, state), atol=1e-4)


def test_as_of_a_time_is_what_was_answered_then(mind, percepts):
    state, then = mind.open(), {}
    for p in percepts[:60]:
        mind.extend(state, p)
        then[p.t1_s] = logits(mind, state), texts(mind, state)
    assert state.exact_from_s > 0
    for at_s in (state.exact_from_s, 57.0, 60.0, 99.0):
        answer = list(mind.answer(state, "what is it?", at_s=at_s))[-1]
        assert texts(mind, state, at_s=at_s) == then[min(at_s, 60.0)][1] and answer.windows_seen == min(at_s, 60)
    with pytest.raises(QuestionError, match="merged since") as caught:
        list(mind.answer(state, "what is it?", at_s=state.exact_from_s - 1))
    assert "log" in caught.value.fix


def test_asking_leaves_the_state_alone_and_outlives_a_swap(mind, percepts):
    state, alone = mind.open(), mind.open()
    for p in percepts[:40]:
        mind.extend(state, p), mind.extend(alone, p)
    wanted = texts(mind, alone)
    running = mind.answer(state, "what is it?")
    got = [next(running).text]
    trunk = state.trunk
    for p in percepts[40:90]:
        mind.extend(state, p), mind.extend(alone, p)
    assert state.trunk is not trunk, "another list came into effect meanwhile"
    got += [piece.text for piece in running if isinstance(piece, Delta)]
    assert got == wanted
    assert torch.equal(logits(mind, state), logits(mind, alone))


def test_windows_that_repeat_cost_nothing_and_answers_as_of_then_stay(mind, percepts):
    state, then = mind.open(), {}
    for p in still(percepts[:10], 1, share=0.8):
        before = state.trunk.length
        mind.extend(state, p)
        assert (state.trunk.length == before) == bool(p.repeats)
        (then[p.t1_s],) = [a for a in mind.answer(state, "what is it?") if isinstance(a, Answer)]
    assert len(state.memory.entries) < 8
    for at_s, wanted in then.items():
        (answer,) = [a for a in mind.answer(state, "what is it?", at_s=at_s) if isinstance(a, Answer)]
        assert replace(answer, ttft_s=0, confidence=0) == replace(wanted, ttft_s=0, confidence=0), at_s
        assert answer.confidence == pytest.approx(wanted.confidence)


def test_an_answer_is_cancelled_between_tokens(mind):
    heard = []
    for piece in mind.answer(mind.open(), "what is it?", cancelled=lambda: len(heard) >= 2):
        heard.append(piece)
    assert len(heard) == 2 and not any(isinstance(p, Answer) for p in heard)


def test_turns_and_recalled_windows_are_read_within_their_budgets(mind, percepts):
    state = mind.open(windows=percepts[:5])
    turns = [Turn(4, 5.0, f"question {k}?", f"answer {k}") for k in range(200)]
    kept = mind._ask.turns(turns)
    assert sum(len(mind.layout.turn(t)) for t in kept) <= mind.spec.memory.turn_tokens
    assert 0 < len(kept) < len(turns) and kept == turns[-len(kept) :], "the latest are kept"
    assert texts(mind, state, turns=turns[:1]) != texts(mind, state)
    assert sum(map(mind.size, mind._ask._shown_again("", (), percepts))) <= mind.spec.memory.recalled_tokens
    recalled = mind._ask._shown_again("", (), [percepts[21], percepts[22], percepts[20], percepts[21]])
    assert [entry.first for entry in recalled] == [20, 21, 22], "each once, by time"
    assert texts(mind, state, recalled=percepts[20:23]) != texts(mind, state)
    assert state.trunk.length == mind.open(windows=percepts[:5]).trunk.length, "neither enters the memory"


def test_rules_are_judged_together_as_they_are_alone(mind, percepts):
    state = mind.open(windows=percepts[:30])
    prompts = ["is a bell ringing now?", "is it red?", "does the circle stop at once, or does it go on?"]
    together = mind.judge(state, prompts, evidence=True)
    for prompt, judged in zip(prompts, together, strict=True):
        (alone,) = mind.judge(state, [prompt])
        assert judged.yes == pytest.approx(alone.yes, abs=1e-5) and 0 < judged.yes < 1
    assert len({round(j.yes, 6) for j in together}) == 3 and mind.judge(state, []) == []
    with pytest.raises(QuestionError, match="empty"):
        mind.judge(state, ["is it red?", " "])


def test_rules_see_the_last_windows_alone_as_if_the_stream_had_begun_with_them(mind, percepts, monkeypatch):
    memory = mind.spec.memory.model_copy(update={"rule_windows": 4})
    near = Mind(mind.spec.model_copy(update={"memory": memory}), mind.lm, mind.layout)
    prompts = ["Now: a bell rings?", "Now: the red circle stops?"]
    state, whole = near.open(windows=percepts[:30]), mind.open(windows=percepts[:30])
    for last, first in ((29, 24), (30, 24), (31, 24), (32, 28), (35, 28)):
        for k in range(state.memory.last_window + 1, last + 1):
            near.extend(state, percepts[k])
        moved = [replace(p, index=k, t0_s=float(k), t1_s=k + 1.0) for k, p in enumerate(percepts[first : last + 1])]
        fresh = [j.yes for j in mind.judge(mind.open(windows=moved), prompts)]
        assert [j.yes for j in near.judge(state, prompts)] == pytest.approx(fresh, abs=1e-5)
    assert fresh != pytest.approx([j.yes for j in mind.judge(whole, prompts)], abs=1e-3)
    assert len(list(near.answer(state, "what can you see?"))) > 0 and state.trunk.length == state.memory.tokens

    class Told:
        def evidence(self):
            return (Evidence(2.0, 9.0, "audio"),)

    monkeypatch.setattr(near, "greedy", lambda forks, **_: [Told()] * len(forks.logits))
    monkeypatch.setattr("anymodal.language.judging.SURE", 0.0)
    assert near.judge(state, prompts, evidence=True)[1].evidence == (Evidence(30.0, 36.0, "audio"),)


def test_windows_are_taken_out_as_far_back_as_they_stand_whole():
    merged, whole = Span(0, 4, 0.0, 5.0, ()), Span(5, 7, 5.0, 8.0, (), repeats=((4, 0), (4, 0)))
    entries, begin_s = since([merged, whole, Span(8, 8, 8.0, 9.0, ())], 3, 1.0)
    assert begin_s == 5.0 and [(e.first, e.last, e.t0_s, e.t1_s) for e in entries] == [(k, k, k, k + 1.0) for k in range(4)]
    assert since([merged], 3, 1.0) == ([], 0.0) == since([], -4, 1.0)


def test_evidence_that_ends_with_a_merged_entry_covers_all_of_it():
    merged, single = Span(0, 9, 0.0, 10.0, ()), Span(10, 10, 10.0, 11.0, ())
    found = (Evidence(0.0, 1.0, "video"), Evidence(0.0, 11.0, "video"))
    assert widened(found, [merged, single], 1.0) == (Evidence(0.0, 10.0, "video"), found[1])
    assert widened(found, [merged, single], 1.0, recalled=[percept(0, 0)]) == found
    assert widened([Evidence(10.0, 14.0, "video"), Evidence(11.0, 12.0, "audio")], [merged, single], 1.0) == (
        Evidence(10.0, 11.0, "video"),), "nothing relies on what was not seen"
    assert widened(found, [], 1.0) == ()


def test_a_budget_beyond_the_models_positions_is_refused(tmp_path):
    path = random_bundle(tmp_path)
    path.write_text(path.read_text().replace("window_s: 1.0", "window_s: 1.0\nmemory: {budget_tokens: 9000}"))
    with pytest.raises(ConfigError, match="positions for 4096") as caught:
        load_bundle(path).mind.open()
    assert "memory.budget_tokens" in caught.value.fix


def test_the_windows_whose_time_a_question_names_are_shown_again():
    whole = Span(0, 0, 0.0, 1.0, ())
    longer = Span(1, 3, 1.0, 4.0, (), repeats=((4, 0), (4, 0)))
    merged = Span(4, 9, 4.0, 10.0, ())
    entries = [whole, longer, merged]
    found = named("what was there at 0 s, and at 2.5 s, and at 5 s?", entries, 3, 1.0)
    assert [(e.first, e.last, e.t0_s, e.t1_s, e.whole) for e in found] == [(0, 0, 0.0, 1.0, True), (2, 2, 2.0, 3.0, True)]
    assert named("what was there at 0:03?", entries, 1, 1.0)[0].first == 3
    assert named("what was there at 0 s?", entries, 0, 1.0) == [] == named("what was there?", entries, 2, 1.0)
    assert [e.first for e in named("at 3 s, 1 s or 0 s", entries, 2, 1.0)] == [3, 1]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5)), min_size=1, max_size=9))
def test_what_looks_least_familiar_counts(rows):
    each = sorted(mean for mean, windows in rows for _ in range(windows))
    least = each[: -(-len(each) // 3)]
    assert familiar([(mean * windows, windows) for mean, windows in rows]) == pytest.approx(sum(least) / len(least))
    assert familiar([(1.0, 1), (0.0, 1), (1.0, 1)]) == 0.0 and familiar([(3.0, 3), (1.5, 3)]) == 0.5
