"""Soft tokens with rows of positions (M-RoPE) and extras (deepstack): forks, memory and log carry them, exactly."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as tf
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
    Qwen2_5OmniTextConfig,
    Qwen2_5OmniThinkerTextModel,
)

from anymodal.config import MemorySpec
from anymodal.errors import ConfigError, LogError
from anymodal.language.capability import Capability
from anymodal.language.forks import Forks, Trunk
from anymodal.language.headed import HeadedText
from anymodal.language.rows import Places, Rows, largest
from anymodal.memory import Compaction, Memory, Span, merge
from anymodal.session.log import LogInfo
from anymodal.session.sqlite_log import SqliteLog
from anymodal.session.values import as_stored, pack_row, unpack_row
from anymodal.stages.items import Percept
from anymodal.types import Tokens

WIDTH = 32
SMALL = {"vocab_size": 99, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
         "bos_token_id": None, "eos_token_id": None,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
FAMILIES = {
    "Qwen2.5-VL": lambda: tf.Qwen2_5_VLTextModel(tf.Qwen2_5_VLTextConfig(**SMALL)),
    "Qwen3-VL": lambda: tf.Qwen3VLTextModel(tf.Qwen3VLTextConfig(**SMALL, head_dim=8)),
    "Qwen2.5-Omni": lambda: Qwen2_5OmniThinkerTextModel(Qwen2_5OmniTextConfig(**SMALL)),
}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def models():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return {name: HeadedText(make()).eval() for name, make in FAMILIES.items()}


def grid(frames: int, height: int, width: int, *, step: int = 2) -> np.ndarray:
    """Places (T*H*W, 3) of a grid, `step` apart in time."""
    t, h, w = np.meshgrid(np.arange(frames) * step, np.arange(height), np.arange(width), indexing="ij")
    return np.stack([t, h, w], -1).reshape(-1, 3).astype(np.int32)


def prompt(model, layers: int) -> Rows:
    """Text, two windows of one grid, text, a picture, text: positions repeat and jump."""
    places = Places()

    class Soft:
        stream, modality = "camera", "video"

        def __init__(self, positions, takes):
            self.positions, self.takes, self.embeds = positions, takes, positions

    found = [places.text(range(5)), *places.window([Soft(grid(2, 2, 3), (4, 0, 0))]),
             *places.window([Soft(grid(2, 2, 3), (4, 0, 0))]), places.text(range(4)),
             *places.window([Soft(grid(1, 3, 4), (0, 0, 0))]), places.text(range(3))]
    positions = torch.from_numpy(np.concatenate(found))
    extras = None
    if layers:
        soft = (positions != positions[:, :1]).any(-1) | torch.isin(torch.arange(len(positions)), torch.arange(5, 29))
        extras = torch.randn(layers, len(positions), WIDTH) * soft[:, None]
    return Rows(torch.randn(len(positions), WIDTH), positions, extras)


def plain(model, *parts: Rows) -> torch.Tensor:
    """Logits (V,) behind rows, by the text model of transformers alone."""
    rows = Rows.cat(parts)
    more = {}
    if rows.extras is not None:
        mask = rows.extras.abs().amax((0, 2)) > 0
        more = {"visual_pos_masks": mask[None], "deepstack_visual_embeds": [x[mask] for x in rows.extras]}
    with torch.inference_mode():
        hidden = model.model(inputs_embeds=rows.embeds[None], position_ids=rows.positions.T[:, None], use_cache=False,
                             **more)[0]
        return model.lm_head(hidden[0, -1])


def text(free: int, embeds: torch.Tensor) -> Rows:
    return Rows(embeds, torch.arange(free, free + len(embeds))[:, None].expand(-1, 3))


# --- language model --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES)
def test_forks_over_grids_equal_the_plain_model(models, family):
    model = models[family]
    layers = min(Capability.of(model).extras, 2)
    assert Capability.of(model).rows == 3 and Capability.of(model).unbounded
    assert layers == (2 if family == "Qwen3-VL" else 0)
    rows, embed = prompt(model, layers), model.get_input_embeddings()
    trunk = Trunk(model, capacity=16)
    for piece in rows.split(7):
        trunk.extend(piece)
    assert trunk.free() == int(rows.positions.max()) + 1 != trunk.length
    for length in (trunk.length, 31, 20, 5):  # as of earlier moments too, within a grid and before it
        suffixes = [torch.randn(n, WIDTH) for n in (3, 6, 1)]
        forks = Forks(trunk, suffixes, length=length, room=1)
        before, free = rows[:length], trunk.free(length)
        assert free == int(rows.positions[:length].max()) + 1
        heard = list(suffixes)
        for _ in range(3):
            for row, embeds in enumerate(heard):
                wanted = plain(model, before, text(free, embeds))
                assert torch.allclose(forks.logits[row], wanted, atol=1e-5), (family, length, row)
            tokens = forks.logits.argmax(-1)
            heard = [torch.cat([h, embed(t)[None]]) for h, t in zip(heard, tokens)]
            forks.step(tokens)
        forks.keep([2, 0])
        token = torch.tensor([7, 8])
        forks.step(token)
        for row, (number, own) in enumerate(zip((2, 0), token)):
            wanted = plain(model, before, text(free, torch.cat([heard[number], embed(own)[None]])))
            assert torch.allclose(forks.logits[row], wanted, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_forks_over_grids_equal_the_plain_model(models, family):
    model = models[family]
    rows, embed = prompt(model, min(Capability.of(model).extras, 2)), model.get_input_embeddings()
    trunk = Trunk(model, capacity=16)
    trunk.extend(rows)
    ids = [[7, 3, 9, 20, 5], [7, 3, 9, 8, 20, 21, 5], [7, 3], [50, 51]]
    packed = Forks.packed(trunk, ids)
    for _ in range(3):
        for row, own in enumerate(ids):
            wanted = plain(model, rows, text(trunk.free(), embed(torch.tensor(own))))
            assert torch.allclose(packed.logits[row], wanted, atol=1e-5), (family, row)
        tokens = packed.logits.argmax(-1).tolist()
        ids = [[*own, t] for own, t in zip(ids, tokens)]
        packed.step(torch.tensor(tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_looked_at_again_lie_in_a_fork_with_their_grids(models, family):
    """A fork may begin with soft tokens, of its own length; its text goes on behind them."""
    model = models[family]
    layers = min(Capability.of(model).extras, 2)
    rows, embed = prompt(model, layers), model.get_input_embeddings()
    trunk = Trunk(model, capacity=64)
    trunk.extend(rows)
    free = trunk.free()

    def again(frames: int) -> Rows:
        places = torch.from_numpy(grid(frames, 2, 2, step=9)).long() + free
        extras = torch.randn(layers, len(places), WIDTH) if layers else None
        behind = int(places.max()) + 1
        return Rows.cat([Rows(torch.randn(len(places), WIDTH), places, extras), text(behind, torch.randn(2, WIDTH))])

    suffixes = [again(1), again(3), text(free, torch.randn(3, WIDTH))]
    forks = Forks(trunk, suffixes)
    for _ in range(3):
        for row, own in enumerate(suffixes):
            assert torch.allclose(forks.logits[row], plain(model, rows, own), atol=1e-5), (family, row)
        tokens = forks.logits.argmax(-1)
        suffixes = [Rows.cat([own, text(int(own.positions.max()) + 1, embed(t)[None])])
                    for own, t in zip(suffixes, tokens)]
        forks.step(tokens)


def test_sessions_that_share_a_model_do_not_see_each_others_positions(models):
    model = models["Qwen2.5-VL"]
    one, other = prompt(model, 0), Rows(torch.randn(9, WIDTH))
    first, second = Trunk(model), Trunk(model)
    size = -(-len(one) // 3)
    for k in range(3):  # in turns
        first.extend(one[size * k : size * (k + 1)])
        second.extend(other[3 * k : 3 * k + 3])
    ask = torch.randn(2, WIDTH)
    wanted = plain(model, one, text(int(one.positions.max()) + 1, ask))
    assert torch.allclose(Forks(first, [ask]).logits[0], wanted, atol=1e-5)
    wanted = plain(model, text(0, torch.cat([other.embeds, ask])))
    assert torch.allclose(Forks(second, [ask]).logits[0], wanted, atol=1e-5)
    assert first.clear() and first.free() == 0
    first.extend(other)  # what was there before has left nothing behind
    assert torch.allclose(Forks(first, [ask]).logits[0], wanted, atol=1e-5)


def test_what_a_model_does_not_take_is_refused(models):
    llama = tf.LlamaForCausalLM(tf.LlamaConfig(**{k: v for k, v in SMALL.items() if k != "rope_parameters"})).eval()
    rows = prompt(models["Qwen3-VL"], 2)
    with pytest.raises(ConfigError, match=r"have positions \(\d+, 3\), LlamaForCausalLM takes 1 a token"):
        Trunk(llama).extend(Rows(rows.embeds, rows.positions))
    with pytest.raises(ConfigError, match="extras for 2 layers, HeadedText takes them for 0"):
        Trunk(models["Qwen2.5-VL"]).extend(rows)
    with pytest.raises(ConfigError, match=r"mrope_section \[2, 1, 1\]\) that it is not given by its own layers"):
        Capability.of(tf.Qwen2ForCausalLM(tf.Qwen2Config(**SMALL)))
    with pytest.raises(ValueError, match="1 of 2 pieces have positions"):
        Rows.cat([rows, torch.randn(2, WIDTH)])


# --- places ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole():
    """A Qwen2.5-VL of transformers, for the positions that it gives."""
    return tf.Qwen2_5_VLModel(tf.Qwen2_5_VLConfig(
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 16, "intermediate_size": 16,
                       "tokens_per_second": 2},
        text_config={**SMALL, "vocab_size": 99}, image_token_id=90, video_token_id=91))


def test_a_clip_in_windows_has_the_places_that_transformers_gives_it_whole(whole):
    """Three windows of two grids of time each, with text on both sides."""
    kinds = torch.tensor([[0] * 4 + [2] * 6 * 7 * 8 + [0] * 5])
    wanted, _ = whole.get_rope_index(torch.zeros_like(kinds), kinds, video_grid_thw=torch.tensor([[6, 14, 16]]),
                                     second_per_grid_ts=[0.5])
    places, window = Places(), Tokens("s", "v", 0, "video", 0, 1, np.zeros((112, 1)), positions=grid(2, 7, 8, step=1),
                                      takes=(2, 0, 0))
    found = [places.text(range(4)), *(x for _ in range(3) for x in places.window([window])), places.text(range(5))]
    assert np.array_equal(np.concatenate(found).T, wanted[:, 0])


def test_two_cameras_in_a_window_have_the_places_that_transformers_gives_two_media(whole):
    """One behind the other with no text between, which it takes of a video and a picture."""
    kinds = torch.tensor([[0] * 4 + [2] * 7 * 8 + [1] * 3 * 5 + [0] * 5])
    wanted, _ = whole.get_rope_index(torch.zeros_like(kinds), kinds, video_grid_thw=torch.tensor([[1, 14, 16]]),
                                     image_grid_thw=torch.tensor([[1, 6, 10]]), second_per_grid_ts=[1.0])
    left, right = camera("left", 7, 8), camera("right", 3, 5)
    places = Places()
    found = [places.text(range(4)), *places.window([left, right]), places.text(range(5))]
    assert np.array_equal(np.concatenate(found).T, wanted[:, 0])


def test_each_camera_goes_on_on_its_own_grid():
    left, right = camera("left", 2, 3), camera("right", 2, 3)
    sound = Tokens("s", "a", 0, "audio", 0, 1, np.zeros((1, 1)), positions=np.zeros((1, 3), np.int32), takes=(2, 2, 2))
    places = Places(10)
    corners = [[own[0].tolist() for own in places.window(parts)]
               for parts in ([left, right, sound], [left, right, sound], [right], [left, right, camera("back", 2, 3)])]
    assert corners == [[[10, 10, 10], [13, 13, 13], [10, 10, 10]], [[12, 10, 10], [15, 13, 13], [12, 12, 12]],
                       [[17, 13, 13]], [[16, 10, 10], [19, 13, 13], [20, 20, 20]]]
    assert places.free == 23
    places.text(range(1))
    assert [own[0].tolist() for own in places.window([right, left])] == [[24, 24, 24], [27, 27, 27]]


def camera(name: str, height: int, width: int) -> Tokens:
    return Tokens("s", name, 0, "video", 0, 1, np.zeros((height * width, 1)), positions=grid(1, height, width),
                  takes=(2, 0, 0))


def test_text_between_windows_begins_a_grid_of_its_own_behind_the_largest():
    window = Tokens("s", "v", 0, "video", 0, 1, np.zeros((4, 1)), positions=grid(1, 1, 4), takes=(1, 0, 0))
    places = Places(10)
    (first,), label, (second,) = places.window([window]), places.text(range(2)), places.window([window])
    assert first.tolist() == [[10, 10, 10 + w] for w in range(4)] and label[:, 1].tolist() == [14, 15]
    assert second.tolist() == [[16, 16, 16 + w] for w in range(4)] and places.free == 20


def test_parts_of_a_window_lie_beside_each_other_in_time():
    """Sound counts on in all rows, a picture in time alone; a window without pictures takes its time all the same."""
    video = Tokens("s", "v", 0, "video", 0, 2, np.zeros((4, 1)), positions=grid(2, 1, 2, step=25), takes=(50, 0, 0))
    sound = np.repeat(np.arange(50)[:, None], 3, 1).astype(np.int32)
    audio = Tokens("s", "a", 0, "audio", 0, 2, np.zeros((50, 1)), positions=sound, takes=(50, 50, 50))
    places = Places(7)
    windows = [places.window(parts) for parts in ([video, audio], [audio], [video, audio])]
    assert windows[0][0].tolist() == [[7, 7, 7], [7, 7, 8], [32, 7, 7], [32, 7, 8]]
    assert windows[1][0][0].tolist() == [57, 57, 57]
    assert windows[2][0][0].tolist() == [107, 7, 7] and windows[2][1][-1].tolist() == [156, 156, 156]
    assert places.free == 157 and largest(torch.from_numpy(windows[0][0])).tolist() == [8, 9, 33, 33]


# --- memory and log --------------------------------------------------------------------------------------------------

LAYERS = 2


def percept(index: int, *, frames: int = 1, height: int = 2, seed: int = 0) -> Percept:
    """A window whose scene changes every fifth time, with places and extras, as a log gives it."""
    scene, noise = np.random.default_rng([seed, index // 5]), np.random.default_rng([seed, index])
    count = frames * height * 3

    def values(*shape):
        return (scene.normal(size=shape) + 0.1 * noise.normal(size=shape)).astype(np.float32)

    video = Tokens("s", "video", index, "video", float(index), index + 1.0, values(count, WIDTH),
                   positions=grid(frames, height, 3), takes=(2 * frames, 0, 0), extras=values(LAYERS, count, WIDTH))
    audio = Tokens("s", "audio", index, "audio", float(index), index + 1.0, values(2, WIDTH))
    return as_stored(Percept("s", index, float(index), index + 1.0, (video, audio), 4), "bfloat16")


def flat(entries) -> list:
    return [(e.first, e.last, [(p.stream, p.embeds.tobytes(), p.windows, p.takes,
                                None if p.positions is None else p.positions.tolist(),
                                None if p.extras is None else p.extras.tobytes()) for p in e.parts]) for e in entries]


def laid_out(model, entries) -> Rows:
    """A list before the model: a label of one token, then the window."""
    places, parts = Places(), []
    for entry in entries:
        parts.append(Rows(torch.full((1, WIDTH), entry.t0_s / 9), torch.from_numpy(places.text(range(1)))))
        for part, own in zip(entry.parts, places.window(entry.parts), strict=True):
            extras = None if part.extras is None else torch.from_numpy(part.extras)
            parts.append(Rows(torch.from_numpy(part.embeds), torch.from_numpy(own), extras))
    return Rows.cat(parts)


SPEC = MemorySpec(budget_tokens=300, compact_at=0.7, compact_to=0.35, keep_recent=0.25, slices=2)


def test_a_compacted_list_keeps_its_grids_live_and_rebuilt(models, tmp_path):
    """Over compactions the list stays within its budget and its positions; the log gives back the same, and so do
    answers over it, equal to the plain model's over the whole list."""
    model = models["Qwen3-VL"]
    live, trunk, made, ask = Memory(SPEC, lambda _: 1, ("video", "audio")), None, [], torch.randn(3, WIDTH)
    live.system_tokens = 0
    with SqliteLog.create(tmp_path / "s.db", LogInfo("s", "q", "id", 1.0, "bfloat16")) as log:
        for k in range(100):
            log.append_window(percept(k))
            (stored,) = log.windows(k, k)
            if (compaction := live.append(stored)) is not None:
                made.append(compaction)
                log.append(compaction)
        assert len(made) >= 3 and live.entries[0].windows > 5
        rows = laid_out(model, live.entries)
        assert live.tokens <= SPEC.budget_tokens and int(rows.positions.max()) < len(rows)
        newest = log.compaction_before(Compaction)
        rebuilt = Memory(SPEC, lambda _: 1, ("video", "audio"))
        rebuilt.restore(newest)
        for stored in log.windows(newest.after_window + 1):
            rebuilt.append(stored)
        assert flat(rebuilt.entries) == flat(live.entries)
        trunk = Trunk(model, 300)
        trunk.extend(laid_out(model, rebuilt.entries))
        wanted = plain(model, rows, text(int(rows.positions.max()) + 1, ask))
        assert torch.allclose(Forks(trunk, [ask]).logits[0], wanted, atol=1e-4)


def test_neighbours_of_one_grid_are_averaged_in_place_and_others_keep_the_larger_grid():
    a, b, wide = (Span.of(percept(0)), Span.of(percept(1)), Span.of(percept(2, height=4)))
    (one,) = merge([a, b], 0, lambda e: e.soft_tokens, ("video", "audio"))
    video, audio = one.parts
    assert np.array_equal(video.positions, a.parts[0].positions) and video.takes == (2, 0, 0)
    assert np.allclose(video.extras, (a.parts[0].extras + b.parts[0].extras) / 2)
    assert np.allclose(video.embeds, (a.parts[0].embeds + b.parts[0].embeds) / 2)
    assert audio.positions is None and audio.extras is None
    (other,) = merge([a, wide], 0, lambda e: e.soft_tokens, ("video", "audio"))
    assert np.array_equal(other.parts[0].positions, wide.parts[0].positions)
    assert np.array_equal(other.parts[0].extras[:, 6:], wide.parts[0].extras[:, 6:])
    made = Compaction(9, 5, 7, (one, other), 300)
    again = Compaction.from_row(unpack_row(pack_row(made.to_row())))
    assert [e.parts[0].positions.tolist() for e in again.entries] == [video.positions.tolist(),
                                                                      other.parts[0].positions.tolist()]
    assert again.entries[1].parts[0].extras.shape == (LAYERS, 12, WIDTH)


def test_a_window_that_repeats_must_repeat_its_grid_and_extras():
    first = percept(0)
    entry = Span.of(first)
    after = replace(first, index=1, t0_s=1.0, t1_s=2.0, repeats={"video": 0, "audio": 0})
    assert entry.shows(after)
    moved = replace(first.tokens[0], positions=grid(1, 3, 2))
    other = replace(first.tokens[0], extras=-first.tokens[0].extras)
    for tokens in (moved, other, replace(first.tokens[0], extras=None)):
        assert not entry.shows(replace(after, tokens=(tokens, first.tokens[1])))


def test_the_log_gives_back_positions_and_extras_and_repeats_them(tmp_path):
    with SqliteLog.create(tmp_path / "s.db", LogInfo("s", "q", "id", 1.0, "bfloat16")) as log:
        first = percept(0)
        log.append_window(first)
        log.append_window(replace(first, index=1, t0_s=1.0, t1_s=2.0, repeats={"video": 0}))
        one, two = log.windows()
        for found in (one.tokens[0], two.tokens[0]):
            assert found.positions.dtype == np.int32 and np.array_equal(found.positions, first.tokens[0].positions)
            assert found.takes == (2, 0, 0) and np.array_equal(found.extras, first.tokens[0].extras)
        assert one.tokens[1].positions is None and one.tokens[1].extras is None


@pytest.mark.parametrize("change, message", [
    ({"positions": grid(1, 2, 2)}, r"positions of 'video' are int32 \(4, 3\), not int32 \(6, 3\)"),
    ({"positions": grid(1, 2, 3).astype(np.int64)}, "positions of 'video' are int64"),
    ({"extras": np.zeros((2, 6, 8), np.float32)}, r"extras of 'video', \(2, 6, 8\)"),
    ({"extras": np.full((2, 6, WIDTH), np.nan, np.float32)}, "are no finite"),
])
def test_places_that_do_not_fit_their_tokens_do_not_enter_the_log(tmp_path, change, message):
    bad = percept(0)
    bad = replace(bad, tokens=(replace(bad.tokens[0], **change), bad.tokens[1]))
    with SqliteLog.create(tmp_path / "s.db", LogInfo("s", "q", "id", 1.0, "bfloat16")) as log:
        with pytest.raises(LogError, match=message):
            log.append_window(bad)
        assert log.last_window() == -1


@pytest.mark.parametrize("version", [1, 2])
def test_a_log_of_a_version_before_is_read_as_it_is_and_gone_on_with(tmp_path, version):
    path = tmp_path / "old.db"
    with SqliteLog.create(path, LogInfo("s", "q", "id", 1.0, "bfloat16")) as log:
        plain_tokens = tuple(replace(t, positions=None, takes=(0, 0, 0), extras=None) for t in percept(0).tokens)
        log.append_window(replace(percept(0), tokens=plain_tokens))
    with sqlite3.connect(path) as db:  # as that version made it
        for column in ("positions", "extras")[: 2 if version == 1 else 0]:
            db.execute(f"ALTER TABLE vectors DROP COLUMN {column}")
        for table in ("windows", "tokens"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        db.execute("DELETE FROM about WHERE name = 'seal'")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    reader = SqliteLog.read(path)
    assert next(reader.windows()).tokens[0].positions is None
    with SqliteLog.open(path) as log:  # brought up to date, beside its reader
        log.append_window(percept(1))
        assert np.array_equal(list(log.windows())[1].tokens[0].extras, percept(1).tokens[0].extras)
    assert np.array_equal(list(reader.windows())[1].tokens[0].positions, percept(1).tokens[0].positions)
    reader.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE windows SET frames = 99 WHERE number = 0")  # one that the earlier version stored
    db.close()
    with pytest.raises(LogError, match="window 0: stored values do not match"), SqliteLog.read(path) as log:
        list(log.windows())
