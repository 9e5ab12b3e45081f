"""Training: what it shows the model is what answering shows it, a killed run resumes, and splits never meet."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from anymodal.adapters.qformer import QFormer
from anymodal.config import BundleSpec, build_part, load_spec
from anymodal.errors import ConfigError
from anymodal.language.layout import Layout
from anymodal.language.mind import Calibration, Mind
from anymodal.language.prompt import answer_ids, note_ids
from anymodal.language.stamp import spread_numbers, window_stamp
from anymodal.language.tokenizer import TextTokenizer
from anymodal.perception import Perception
from anymodal.playground.questions import CANNOT_TELL, Question, facts, make_questions
from anymodal.playground.world import HELD_OUT_PAIRS, PLACES, SOUNDS, make_scene, still_scene
from anymodal.stages.items import Percept
from anymodal.training.clips import clip_signals, coded
from anymodal.training.drills import drills
from anymodal.training.language import (
    DrawClips,
    LanguageStage,
    clip_prefix,
    draw_present,
    pack,
    packed_loss,
    soft_tokens,
    window_places,
)
from anymodal.training.loop import StagePlan, run_stage
from anymodal.training.optim import MasterOptimizer, Muon
from anymodal.training.packed import Packing, chunk_for, layout, packed_attention
from anymodal.training.reading import ReaderStage
from anymodal.training.recipe import Recipe, plans
from anymodal.training.said import said_loss
from anymodal.training.sounds import SoundStage
from anymodal.training.symbols import SymbolStage
from anymodal.training.windows import ClipFeatures
from anymodal.training.words import HAPPENINGS, window_words
from anymodal.types import Evidence, Signal, Window


@pytest.fixture(scope="module")
def spec() -> BundleSpec:
    return load_spec("tiny")[0]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    path = load_spec("tiny")[1]
    return TextTokenizer(path.parent / "tiny" / "tokenizer.json")


@pytest.fixture(scope="module")
def parts(spec):
    torch.manual_seed(3)
    lm = build_part(spec.language)
    return Perception(spec, lm.width).eval(), lm.eval()


def told(mind: Mind, state, question: str, said: list[int]):
    """The logits of each token of an answer, as it is decoded: a window that a step looks at is shown once more."""
    asked = mind._ask(question, state.memory.entries, state.trunk.free())
    forks, reader = state.trunk.fork([asked.rows]), mind.layout.reader()
    for token in said:
        yield forks.logits
        reader.push(token)
        asked.said.append(token)
        if mind._ask.looks(asked, reader):
            forks = state.trunk.fork([asked.rows])
        else:
            forks.step(torch.tensor([token]))


# --- training sees what answering sees -------------------------------------------------------------------------------

def test_packed_questions_score_as_forks_of_the_cache_do(spec, tokenizer, parts):
    """The loss of a packed question is that of the mind's own path: windows one by one, a fork, the answer."""
    perception, lm = parts
    batch = DrawClips(5, 1, 3, (8,), 1, None, 1.0, 2, False, 2, 96)(0)
    batch["present"] = ("video", "audio", "imu")
    with torch.inference_mode():
        soft = soft_tokens(ClipFeatures(perception), batch)
        prefix = clip_prefix(lm, tokenizer, soft, [range(8)])
        named = Question("describe_at", "what was there at 3 s, and at 6 s?", "a ring, a star", (), ())
        stepped = Question("yn_place", "is the ring at the top left?", "no", (), (), (5, "bottom", (1, 4), 2, 5))
        rows = [*batch["asked"][0], named, stepped]
        again = {"shown": window_places(tokenizer, soft, range(8)), "look_again": 2}
        packed = [float(packed_loss(lm, prefix, [pack(tokenizer, [row], 96, 1.0, **again)])[0]) for row in rows]
        together = float(packed_loss(lm, prefix, [pack(tokenizer, rows, 96, 1.0, **again)])[0])
        spec = spec.model_copy(update={"memory": spec.memory.model_copy(update={"look_again": 2})})
        mind = Mind(spec, lm, Layout(spec, tokenizer), Calibration())
        state = mind.open()
        signals = batch["signals"]
        for k in range(8):
            frames = signals.frames[signals.index[k]][signals.valid[k]]
            window = Window(k, float(k), k + 1.0, {
                "video": Signal("video", frames[:4], 4, float(k), frames[4] if len(frames) == 5 else None),
                "audio": Signal("audio", signals.audio[k], 16000, float(k)),
                "imu": Signal("imu", signals.imu[k], 50, float(k))})
            (tokens,) = perception.encode("s", [window])
            mind.extend(state, Percept.of("s", window, tokens))
        for row, expected in zip(rows, packed, strict=True):
            said = [i for step in row.steps for i in note_ids(tokenizer, step)]
            said += answer_ids(tokenizer, row.answer, row.evidence, 1.0)
            out = torch.cat(list(told(mind, state, row.question, said))).float()
            weight = torch.tensor([w for w in pack(tokenizer, [row], 96, 1.0).weight if w])
            losses = nn.functional.cross_entropy(out, torch.tensor(said), reduction="none")
            assert float((losses * weight).sum() / weight.sum()) == pytest.approx(expected, abs=2e-4)
    weights = [sum(pack(tokenizer, [row], 96, 1.0).weight) for row in rows]
    assert len(pack(tokenizer, [named], 96, 1.0, **again).ids) > len(pack(tokenizer, [named], 96, 1.0).ids) + 2 * 16
    bare = replace(stepped, steps=())
    assert len(pack(tokenizer, [stepped], 96, 1.0, **again).ids) > len(pack(tokenizer, [bare], 96, 1.0).ids) + 2 * 16
    assert together == pytest.approx(np.average(packed, weights=weights), abs=2e-4), "questions see one another"


def test_clip_signals_share_a_closing_frame_and_know_where_the_clip_ends():
    scene = make_scene("val", 1, 2, seconds=3)
    signals = clip_signals(scene, 24)
    assert signals.index.shape == (3, 5) and signals.frames.shape == (13, 24, 24, 3)
    assert (signals.index[:-1, -1] == signals.index[1:, 0]).all()
    assert signals.valid.sum() == 14, "nothing is shown at the very end of the clip"
    assert signals.audio.shape == (3, 16000) and signals.imu.shape == (3, 50, 6)
    softened = coded(signals.frames, np.random.default_rng(1))
    assert softened.shape == signals.frames.shape
    assert np.abs(softened.astype(int) - signals.frames).mean() < 12


def test_words_of_a_window_say_what_is_where():
    scene = make_scene("val", 1, 4, seconds=4)
    for k in range(4):
        words = window_words(scene, k)
        shown = {t.shape for t in scene.things if min(t.vanish_s, k + 1) - max(t.appear_s, k) > 0.2}
        assert {w for row in words["video"] for w in row} >= shown
        for place, row in zip(PLACES, words["video"][:-HAPPENINGS], strict=True):
            assert row == ("nothing",) or set(place.split()) <= set(row)


def test_what_happens_is_said_by_tokens_of_its_own():
    told = 0
    for index in range(40):
        scene = make_scene("val", 1, index, seconds=4)
        for k in range(4):
            said = [row for row in window_words(scene, k)["video"][-HAPPENINGS:] if row != ("nothing",)]
            events = [(t, e) for t in scene.things for e in t.events if k <= e.t_s < k + 1]
            wanted = {(c, t.shape, t.size, *e.kind.split()) for t, e in events
                      for c in ((t.color, t.recolor[1]) if e.kind == "changes colour" else (t.color_at(e.t_s),))}
            bare = {tuple(w for w in row if w not in ("before", "after")) for row in said}
            assert bare <= wanted and len(said) == min(HAPPENINGS, len(wanted))
            told += len(said)
    assert told > 60


def test_tokens_of_what_happens_may_say_it_in_any_order():
    vocabulary = {w: i for i, w in enumerate(("nothing", "red", "ring", "stops", "blue", "star", "appears"))}
    head = nn.Identity()
    head.weight = torch.zeros(1)
    lm = SimpleNamespace(model=SimpleNamespace(model=SimpleNamespace(norm=nn.Identity()), lm_head=head))
    happens = [("red", "ring", "stops"), ("blue", "star", "appears"), ("nothing",)]

    def tokens(rows):
        return torch.stack([sum(8 * nn.functional.one_hot(torch.tensor(vocabulary[w]), 7).float() for w in row)
                            for row in rows])[None, None]

    def loss(rows):
        words = [{"video": [("red", "ring"), *happens]}]
        return float(said_loss(lm, lambda w: [vocabulary[w]], {"video": tokens([("red", "ring"), *rows])}, words))

    best = loss(happens)
    assert all(loss(rows) == pytest.approx(best, abs=1e-5) for rows in permutations(happens))
    assert loss([happens[0], happens[0], happens[2]]) > best + 0.5
    mixed = ("red", "star", "stops"), ("blue", "ring", "appears"), ("nothing",)
    assert loss(mixed) > best + 0.5, "whose kind to whom"


# --- Q-Former --------------------------------------------------------------------------------------------------------

def test_padded_steps_change_nothing_and_regional_queries_see_their_part_only():
    torch.manual_seed(0)
    adapter = QFormer(QFormer.Config(queries=10, regions=3, width=24, layers=1, heads=2, steps=3, patches=36, joint=8),
                      feature_width=16, lm_width=12).eval()
    features = torch.randn(1, 3, 36, 16)
    valid = torch.tensor([[True, True, False]])
    with torch.inference_mode():
        plain = adapter(features, valid)
        other = features.clone()
        other[:, 2] += 5
        assert torch.equal(plain, adapter(other, valid)), "a padded step leaks"
        assert (~adapter.reach[0]).any() and adapter.reach[9].all()
        reach = adapter.reach.view(10, 6, 6)
        assert reach[0, 0, 0] and not reach[0, 5, 5] and reach[8, 5, 5] and not reach[8, 0, 0]
        assert adapter.project(plain).shape == (1, 10, 12)
        assert torch.allclose(adapter.joint(plain).norm(dim=-1), torch.ones(1, 10), atol=1e-5)


@pytest.mark.parametrize("wrong", [{"queries": 8, "regions": 3}, {"queries": 0}, {"width": 25},
                                   {"patches": 35, "regions": 1}])
def test_a_q_former_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError):
        QFormer.Config(**{"queries": 10, "width": 24, "heads": 2, "patches": 36, **wrong})


# --- optimizer and loop ----------------------------------------------------------------------------------------------

def test_masters_keep_what_bf16_rounds_away():
    parameter = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterOptimizer([("bias", parameter)], lr=1e-4, muon_lr=0.0, decay_from=1.0, warmup=1e-9)
    for _ in range(40):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step(0.5)
    assert float(optimizer.masters["bias"][0].detach()) == pytest.approx(1 - 40e-4, abs=2e-4)
    assert float(parameter[0].detach()) < 1.0, "forty steps too small for bf16 must add up"


def test_a_step_with_a_broken_gradient_is_passed_over():
    parameter = nn.Parameter(torch.ones(3, 3))
    optimizer = MasterOptimizer([("w", parameter)], lr=0.1, muon_lr=0.1)
    parameter.grad = torch.full((3, 3), float("nan"))
    assert not np.isfinite(optimizer.step(0.5))
    assert torch.equal(parameter.detach(), torch.ones(3, 3))


def tiny_symbols(spec, tokenizer) -> SymbolStage:
    torch.manual_seed(1)
    options = {**spec.language.options, "width": 32, "layers": 1, "heads": 2, "mlp_width": 32}
    lm = build_part(spec.language.model_copy(update=options))
    return SymbolStage(lm.to(torch.bfloat16), tokenizer, clips=1, questions=2, seconds=(1,))


def test_a_killed_run_resumes_where_it_was_and_ends_the_same(spec, tokenizer, tmp_path):
    whole, cut = tiny_symbols(spec, tokenizer), tiny_symbols(spec, tokenizer)
    plan = StagePlan(name="symbols", steps=6)
    random_state = torch.get_rng_state()
    run_stage(whole, plan, tmp_path / "whole", workers=0)
    torch.set_rng_state(random_state)

    class Killed(Exception):
        pass

    calls = 0
    loss = cut.loss

    def fails_at_the_fourth(batch):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return loss(batch)

    cut.loss = fails_at_the_fourth
    with pytest.raises(Killed):
        run_stage(cut, plan, tmp_path / "cut", workers=0, save_every_s=0.0)
    fresh = tiny_symbols(spec, tokenizer)
    torch.set_rng_state(random_state)
    run_stage(fresh, plan, tmp_path / "cut", workers=0)
    a = torch.load(tmp_path / "whole" / "symbols.ckpt", weights_only=True)
    b = torch.load(tmp_path / "cut" / "symbols.ckpt", weights_only=True)
    assert a["step"] == b["step"] == 6
    for name, master in a["optimizer"]["masters"].items():
        assert torch.allclose(master, b["optimizer"]["masters"][name], atol=0.05), name
    rows = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert rows, "progress is written"


def test_language_stage_trains_adapters_and_lm_but_not_the_frame_encoder(spec, tokenizer):
    torch.manual_seed(2)
    lm = build_part(spec.language)
    perception = Perception(spec, lm.width)
    stage = LanguageStage(perception, lm, tokenizer, clips=1, questions=2, seconds=(1,))
    batch = next(b for b in map(stage.draw(), range(50)) if b["present"] == ("video", "audio", "imu"))
    loss, parts = stage.loss(batch)
    loss.backward()
    assert np.isfinite(float(loss.detach())) and "words" in parts
    assert all(p.grad is None for p in perception.encoders["video"].parameters())
    for name in ("adapters.video.queries", "adapters.audio.queries", "encoders.imu.body.cls"):
        assert dict(perception.named_parameters())[name].grad.abs().sum() > 0, name
    idle = [("nothing",)] * HAPPENINGS
    quiet, eventful = ([{"video": [row] * 9 + idle}] for row in (("red", "circle"), ("red", "circle", "appears")))
    tokens = {"video": torch.randn(1, 1, 12, lm.width)}
    with torch.no_grad():
        plain, heavy = ([float(said_loss(lm, tokenizer.encode, tokens, words, events)) for words in (quiet, eventful)]
                        for events in (1.0, 3.0))
    assert heavy[0] == pytest.approx(plain[0]) and heavy[1] > plain[1] + 1, "words of events weigh three times"


def test_the_word_reader_learns_from_windows_that_it_keeps(spec, tokenizer):
    torch.manual_seed(0)
    lm = build_part(spec.language)
    perception = Perception(spec, lm.width)
    reader = build_part(spec.word_reader, token_width=lm.width)
    stage = ReaderStage(perception, lm, reader, tokenizer, clips=1, seconds=(1,), keep=6, batch=8)
    optimizer = torch.optim.Adam(reader.parameters(), lr=1e-2)
    losses, draw = [], stage.draw()
    for step in range(24):
        loss, parts = stage.loss(draw(step % 4))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2 and len(stage.kept) == 6
    assert {name for name, _ in stage.trainable()} == {f"reader.{n}" for n, _ in reader.named_parameters()}
    assert all(p.grad is None for p in (*perception.parameters(), *lm.model.parameters()))


def test_sounds_learn_to_mean_what_plain_ones_did(spec):
    torch.manual_seed(0)
    perception = Perception(spec, 64)
    before = {name: p.clone() for name, p in perception.named_parameters()}
    stage = SoundStage(perception, scenes=2)
    with torch.no_grad():
        for _, parameter in stage.trainable():
            parameter += 0.03 * torch.randn_like(parameter)
    optimizer = torch.optim.Adam([p for _, p in stage.trainable()], lr=1e-3)
    batch, losses = stage.draw()(0), []
    assert batch["varied"].shape == batch["plain"].shape == (12, 16000)
    for _ in range(12):
        loss, parts = stage.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2 and {*parts} == {"tokens", "joint", "direct"}
    changed = {name.split(".")[1] for name, p in perception.named_parameters() if not p.equal(before[name])}
    assert changed == {"audio"} == {name.split(".")[1] for name, _ in stage.trainable()}
    assert all(p.equal(before[name]) for name, p in stage.teacher.named_parameters())


def test_what_happens_is_learned_in_the_order_that_costs_least():
    stage = ReaderStage.__new__(ReaderStage)
    stage.free, stage.orders = torch.arange(3), torch.tensor(list(permutations(range(3))))
    said = torch.eye(4)[None, [0, 1, 2]]
    logits = torch.full((1, 3, 4), -9.0)
    for token, word in enumerate((2, 0, 1)):
        logits[0, token, word] = 9.0
    assert stage._in_any_order(logits, said).max() < 0.01
    logits[0, 0], logits[0, 1] = logits[0, 1].clone(), logits[0, 1].clone()
    assert stage._in_any_order(logits, said).max() > 1, "two tokens cannot say the same one"


def test_what_one_stage_leaves_alone_the_next_may_learn(tmp_path):
    recipe = Recipe(load_spec("tiny")[0], tmp_path / "run")
    recipe.stage(StagePlan(name="windows-any", steps=1))
    assert not any(p.requires_grad for p in recipe.lm.parameters())
    stage = recipe.stage(StagePlan(name="language-any", steps=1, options={"frozen": True}))
    assert all(p.requires_grad for name, p in stage.trainable() if name.startswith("language."))


def test_a_stage_may_leave_an_average_of_what_it_began_with_and_what_it_learned(tmp_path, monkeypatch):
    spec = load_spec("tiny")[0]
    row = {"name": "reader-any", "steps": 1, "average": 0.25}
    recipe = Recipe(spec.model_copy(update={"training": {"stages": [row]}}), tmp_path / "run")
    before = {name: p.detach().float().clone() for name, p in recipe.reader.named_parameters()}

    def learned(stage, *_, **__) -> None:
        for _, parameter in stage.trainable():
            parameter.data += 1.0

    monkeypatch.setattr("anymodal.training.recipe.run_stage", learned)
    recipe.train()
    for name, parameter in recipe.reader.named_parameters():
        assert parameter.detach().float().numpy() == pytest.approx(before[name].numpy() + 0.75, abs=2e-2)
    assert (tmp_path / "run" / "weights" / "word_reader.safetensors").is_file()


def test_stages_of_the_recipe_are_read_strictly(spec):
    assert [p.name for p in plans(spec)][:2] == ["frames", "windows"]
    wrong = spec.model_copy(update={"training": {"stages": [{"name": "frames", "step": 3}]}})
    with pytest.raises(ConfigError, match="step"):
        plans(wrong)


# --- the world -------------------------------------------------------------------------------------------------------

def test_splits_are_disjoint_and_training_never_draws_a_held_out_pair():
    looks = {split: {make_scene(split, 7, i, seconds=8).look for i in range(40)} for split in ("train", "val", "test")}
    assert not looks["train"] & looks["test"] and not looks["train"] & looks["val"] and not looks["val"] & looks["test"]
    for i in range(150):
        for thing in make_scene("train", 7, i, seconds=8).things:
            assert not thing.names() & HELD_OUT_PAIRS
        for thing in still_scene(np.random.default_rng(i)).things:
            assert not thing.names() & HELD_OUT_PAIRS
    shown = [set().union(*(t.names() for t in make_scene("compositional", 7, i, seconds=8).things)) & HELD_OUT_PAIRS
             for i in range(40)]
    assert sum(map(bool, shown)) >= 36, "compositional clips are made of held-out pairs"


def test_at_least_half_of_the_clips_have_three_or_more_objects():
    counts = [len(make_scene("test", 1, i).things) for i in range(400)]
    assert np.mean([c >= 3 for c in counts]) >= 0.5 and max(counts) <= 5 and min(counts) >= 1


def test_answers_follow_from_the_scene():
    for i in range(60):
        scene = make_scene("test", 3, i, seconds=8)
        found = facts(scene, random.Random(i))
        things = {(t.color, t.shape): t for t in scene.things}
        for fact in found.get("event_when", []):
            times = [e.t_s for t in scene.things for e in t.events]
            assert any(fact.answer == f"at {int(t)} s" for t in times)
            (span,) = fact.evidence
            assert isinstance(span, Evidence) and span.end_s - span.start_s == 1
        for fact in found.get("color", []):
            assert fact.answer in {t.color for t in things.values()}
        for fact in found.get("count", []):
            if fact.slots["objs"] == "objects":
                assert fact.answer == str(len(scene.things))
        assert all(f.answer == CANNOT_TELL for f in found.get("unanswerable", []))
        for question in make_questions(scene, random.Random(i)):
            assert isinstance(question, Question) and len(question.accept) <= 4
            assert all(0 <= e.start_s < e.end_s <= 8 for e in question.evidence)


def test_a_second_is_carried_by_tokens_and_said_by_copying(tokenizer):
    seconds = (0, 1, 2, 3, 59, 60, 61, 3600, 3661)
    stamps = torch.stack([window_stamp(torch.zeros(1, 256), float(t)) for t in seconds])
    likeness = nn.functional.normalize(stamps, dim=-1) @ nn.functional.normalize(stamps, dim=-1).T
    assert (likeness - torch.eye(len(seconds))).abs().max() < 0.9, "two times are told apart"
    assert (likeness[:5, :5] - torch.eye(5)).abs().max() < 0.3, "and seconds easily"
    assert torch.equal(stamps[3], window_stamp(torch.zeros(1, 256), 3.0))
    embeds = 0.02 * torch.randn(2048, 256)
    spread_numbers(embeds, tokenizer)
    said = [(embeds @ window_stamp(embeds, float(t))).argmax().item() for t in range(60)]
    assert said == [tokenizer.encode(str(t))[1] for t in range(60)]
    numbers = [tokenizer.encode(str(t))[1] for t in range(60)]
    learned = 0.02 * torch.randn(2048, 256)
    before = learned.clone()
    spread_numbers(learned, tokenizer, 9)
    assert torch.equal(learned[numbers[:9]], before[numbers[:9]]), "what is known stays"
    assert [(learned[numbers] @ window_stamp(learned, float(t))).argmax().item() for t in range(9, 60)] == [*range(9, 60)]


def test_drills_ask_what_the_scene_holds():
    found = {}
    for seed in range(12):
        scene = make_scene("train", 5, seed, seconds=6)
        for drill in drills(scene, random.Random(seed), 30, ("video", "audio", "imu"), alone=True):
            found.setdefault(drill.type, []).append(drill)
            if drill.type == "drill_sound_when":
                kind = drill.question.removeprefix("when: the ").removesuffix(" starts")
                assert [str(int(s.t0_s)) for s in scene.sounds if s.kind == kind] == [drill.answer]
            if drill.type == "drill_color_by_shape":
                k, shape = int(drill.question.split()[2]), drill.question.rsplit(" ", 1)[1]
                assert drill.answer in [t.color_at(k) for t in scene.things if t.shape == shape]
            if drill.type == "drill_check":
                lookup, said = drill.question.removesuffix("?").rsplit(", ", 1)
                assert drill.answer in ("yes", "no") and said
            if drill.type == "drill_any" and (kind := drill.question.removeprefix("any: ")) in SOUNDS:
                assert (drill.answer == "yes") == any(s.kind == kind for s in scene.sounds)
            if drill.type == "drill_first":
                assert drill.answer in drill.question.removeprefix("first: ").split(", ")
    assert {"drill_when", "drill_place_now", "drill_place_first", "drill_device_when", "drill_first"} <= found.keys()
    said = [drill.answer for kind in ("drill_check", "drill_any") for drill in found[kind]]
    assert 0.3 < said.count("yes") / len(said) < 0.7, "yes and no are about as frequent"
    named = drills(scene, random.Random(1), 20, ("video", "audio", "imu"), alone=("sound_time", "device"))
    assert {drill.type for drill in named} <= {"drill_sound_when", "drill_device"}
    assert not drills(scene, random.Random(1), 5, ("video", "audio"), alone=("first",)), "that needs every sense"
    assert not drills(scene, random.Random(1), 5, ()), "nothing is asked without a sense"


@pytest.mark.parametrize("lengths", [(5, 9, 40), (63, 64, 2), (70, 100, 30)])
def test_packed_attention_is_dense_attention_under_the_packing_mask(lengths):
    before, chunk = 7, chunk_for(max(lengths))
    starts = layout(lengths, chunk)
    packed = (max(starts) // chunk + 1) * chunk
    owner = torch.full((1, packed), -1)
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        owner[0, start : start + length] = number
    query, key, value = torch.randn(3, 1, 2, before + packed, 8)
    packing = Packing.of(before, owner, chunk, torch.float32)
    out, _ = packed_attention(nn.Identity(), query, key, value, None, 8**-0.5, packing=packing)
    whose = torch.cat([torch.full((1, before), -2), owner], 1)[0]
    allowed = ((whose[None, :] == -2) | (whose[None, :] == whose[:, None])).tril()
    dense = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed).transpose(1, 2)
    real = whose != -1
    torch.testing.assert_close(out[:, real], dense[:, real], rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40))
def test_no_question_crosses_a_chunk_or_lies_on_another(lengths):
    starts = layout(lengths, 64)
    assert all(start // 64 == (start + length - 1) // 64 for start, length in zip(starts, lengths, strict=True))
    taken = [i for start, length in zip(starts, lengths, strict=True) for i in range(start, start + length)]
    assert len(set(taken)) == len(taken)
    assert max(taken) // 64 + 1 <= 2 * -(-sum(lengths) // 64), "no more than two are half empty"


def moved_by(step_of, starts: list[torch.Tensor]) -> list[torch.Tensor]:
    """How far an optimizer moves parameters in four steps."""
    torch.manual_seed(1)
    parameters = [nn.Parameter(s.clone()) for s in starts]
    optimizer = step_of(parameters)
    for _ in range(4):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return [p.detach() - s for p, s in zip(parameters, starts, strict=True)]


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 0.02), (torch.bfloat16, 0.04)])
def test_muon_is_torchs_own_but_for_its_rounding(monkeypatch, dtype, apart):
    torch.manual_seed(0)
    starts = [torch.randn(64, 32), torch.randn(64, 32), torch.randn(32, 64)]
    monkeypatch.setattr("anymodal.training.optim.compute_dtype", lambda _: dtype)
    ours = moved_by(lambda given: Muon(given, lr=0.02, weight_decay=0.01), starts)
    theirs = moved_by(lambda given: torch.optim.Muon(given, lr=0.02, weight_decay=0.01, momentum=0.95,
                                                     adjust_lr_fn="original"), starts)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < apart * one.norm()  # torch's own rounds to bfloat16; so may ours, elsewhere


def test_a_share_of_clips_has_depth_and_thermal_pictures():
    dice = random.Random(3)
    drawn = [draw_present(dice, 0.5) for _ in range(400)]
    assert 0.35 < sum("depth" in p or "thermal" in p for p in drawn) / 400 < 0.65
    assert {p[-1] for p in drawn if p} >= {"thermal", "depth", "imu"}
    assert all(list(p) == [m for m in ("video", "audio", "imu", "depth", "thermal") if m in p] for p in drawn)
