"""Qwen2.5-VL and Qwen3-VL as bundles say to the last token what transformers' own models say, on files and in a stream.

Their processors need torchvision: the reference inputs are built here by hand, from the published rules, with patches of
transformers' own image processor.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from anymodal.agent import Agent
from anymodal.bundle import load_bundle
from anymodal.errors import MediaError
from anymodal.memory import Compaction
from anymodal.stages.perceive import Perceive
from anymodal.testing import make_video
from anymodal.testing_checkpoints import own_logits, reference_answer, worst_difference
from anymodal.testing_checkpoints_qwen import make_qwen2_5_vl, make_qwen3_vl
from anymodal.types import Signal, Window
from encoders.qwen_vision import PatchGridRule, QwenVision

MOST = 24  # tokens of an answer
QUESTION = "What is happening in this picture?"
FAMILIES = {"qwen2.5-vl": (make_qwen2_5_vl, Qwen2_5_VLForConditionalGeneration),
            "qwen3-vl": (make_qwen3_vl, Qwen3VLForConditionalGeneration)}


def noise(count, seed=5, *, height=40, width=56):
    """Frames of coloured blocks."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(count)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return FAMILIES[family][0](tmp_path_factory.mktemp("checkpoints") / family)


@pytest.fixture(scope="module")
def agent(folder):
    return with_spec(Agent(load_bundle(folder)))


def with_spec(agent, *, dtype="bfloat16", **memory):
    prompt = agent.spec.prompt.model_copy(update={"max_answer_tokens": MOST})
    kept = agent.spec.memory.model_copy(update=memory)
    bundle = replace(agent.bundle, spec=agent.spec.model_copy(update={"prompt": prompt, "memory": kept, "dtype": dtype}))
    return Agent(bundle)


@pytest.fixture(scope="module")
def reference(family, folder):
    return FAMILIES[family][1].from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A picture, and clips at two frames a second, to the last bit."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(noise(1)[0]).save(folder / "picture.png")
    for seconds in (1, 3):
        lossless(folder / f"{seconds}.mkv", noise(2 * seconds))
    return folder


def lossless(path, frames):
    return make_video(path, frames, rate_hz=2, codec="ffv1", pixel_format="bgr0")


def patches(folder, frames):
    """Pixels (S, d) and the grid of frames, two to a patch of time, by transformers' image processor, which puts a picture
    into both."""
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    rows, grids = zip(*[processor(images=[f], return_tensors="pt").values() for f in frames])
    side = processor.patch_size
    rows = [r.view(len(r), 3, 2, side, side)[:, :, 0] for r in rows]
    pairs = [torch.stack([rows[i], rows[min(i + 1, len(rows) - 1)]], 2).flatten(1) for i in range(0, len(rows), 2)]
    return torch.cat(pairs), (len(pairs), *grids[0][0, 1:].tolist())


def asked(family, folder, frames, question=QUESTION, *, picture=False):
    """The published prompt with its inputs."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pixels, (times, down, across) = patches(folder, frames)
    pad = "<|image_pad|>" if picture else "<|video_pad|>"
    soft = pad * (down * across // 4)
    if family == "qwen2.5-vl":
        seen = f"<|vision_start|>{soft * times}<|vision_end|>"
        system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    else:
        stamps = [""] if picture else [f"<{i + 0.25:.1f} seconds>" for i in range(times)]
        seen, system = "".join(f"{t}<|vision_start|>{soft}<|vision_end|>" for t in stamps), ""
    text = f"{system}<|im_start|>user\n{seen}{question}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, return_tensors="pt").input_ids
    kinds = torch.zeros_like(ids)
    kinds[ids == tokenizer.convert_tokens_to_ids(pad)] = 1 if picture else 2
    grid = torch.tensor([[times, down, across]])
    given = {"pixel_values": pixels, "image_grid_thw": grid} if picture else \
        {"pixel_values_videos": pixels, "video_grid_thw": grid}
    if family == "qwen2.5-vl" and not picture:
        given["second_per_grid_ts"] = torch.tensor([1.0])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds, **given}


def said(folder, ids):
    return AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True).strip()


# --- pictures to patches to features ---------------------------------------------------------------------------------

@pytest.mark.parametrize("height, width", [(37, 91), (480, 640), (56, 56), (20, 700), (1000, 31)])
@pytest.mark.parametrize("keys", [{"min_pixels": 56 * 56, "max_pixels": 200 * 200},
                                  {"size": {"shortest_edge": 16384, "longest_edge": 65536}, "patch_size": 16,
                                   "image_mean": [0.5] * 3, "image_std": [0.5] * 3}])
def test_pictures_become_the_patches_of_transformers_processor(height, width, keys):
    frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    wanted = Qwen2VLImageProcessorPil(**keys)(images=[frame], return_tensors="pt")
    found = PatchGridRule.from_config({**keys, "image_processor_type": "Qwen2VLImageProcessor"})([frame])
    assert [list(found.grid)] == wanted["image_grid_thw"].tolist()
    assert torch.equal(found.pixels, wanted["pixel_values"])


def test_what_cannot_be_cut_into_patches_is_refused():
    rule = PatchGridRule()
    with pytest.raises(ValueError, match="10 x 2100 pixels is more than 200 times as long"):
        rule([np.zeros((10, 2100, 3), np.uint8)])
    with pytest.raises(ValueError, match=r"different sizes: \[\(56, 56\), \(56, 84\)\]"):
        rule([np.zeros((56, 56, 3), np.uint8), np.zeros((56, 84, 3), np.uint8)])
    with pytest.raises(ValueError, match="min_pixels 9 and max_pixels 4"):
        PatchGridRule(min_pixels=9, max_pixels=4)
    with pytest.raises(ValueError, match="vision model_type 'clip' is none of"):
        QwenVision.Config(vision={"model_type": "clip"})


def test_a_picture_that_the_model_cannot_read_is_told_with_its_place(agent, tmp_path):
    Image.fromarray(np.zeros((2, 500, 3), np.uint8)).save(tmp_path / "thin.png")
    with pytest.raises(MediaError, match="'video' at 0 s cannot be read by this model: .*2 x 500 pixels is more than 200"):
        agent.ask(tmp_path / "thin.png", QUESTION)


def test_a_clip_in_windows_has_the_features_that_it_has_at_once(agent, reference, folder):
    """Each patch of time is attended to by itself, deeper layers' extras too."""
    encoder, frames = agent.bundle.perception.encoders["video"], noise(6)
    with torch.inference_mode():
        whole = encoder(encoder.prepare(frames))
        pieces = [encoder(encoder.prepare(frames[i : i + 2])) for i in range(0, 6, 2)]
        pixels, grid = patches(folder, frames)
        wanted = reference.model.visual(pixels, grid_thw=torch.tensor([grid]), return_dict=True)
    assert whole.grid == (3, 5, 7)
    assert torch.allclose(whole.features, wanted.pooler_output, atol=1e-5)
    assert torch.allclose(whole.features, torch.cat([p.features for p in pieces]), atol=1e-5)
    if whole.extras is not None:
        assert whole.extras.shape == (2, 105, 48)
        assert torch.allclose(whole.extras, torch.stack(list(wanted.deepstack_features)), atol=1e-5)
        assert torch.allclose(whole.extras, torch.cat([p.extras for p in pieces], 1), atol=1e-5)


# --- the whole model -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seen", ["picture", 1, 3])
def test_text_and_logits_are_those_of_transformers(family, agent, reference, folder, media, seen):
    picture = seen == "picture"
    frames = noise(1) if picture else noise(2 * seen)
    file = media / ("picture.png" if picture else f"{seen}.mkv")
    inputs = asked(family, folder, frames, picture=picture)
    assert worst_difference(agent, file, QUESTION, reference, inputs, most=MOST) < 1e-4
    answer = agent.ask(file, QUESTION)
    ids, _ = reference_answer(reference, inputs, most=MOST)
    assert answer.text == said(folder, ids) and len(ids) > 8
    assert answer.windows_seen == (1 if picture else seen)


def test_text_goes_on_behind_a_clip_that_is_longer_than_its_grid_is_wide(family, agent, reference, folder, tmp_path):
    """As the model was trained: transformers 5 puts it behind the grid's width alone, into the middle of the clip."""
    if family != "qwen2.5-vl":
        pytest.skip("each patch of time has text before it")
    seconds = 10
    inputs = asked(family, folder, noise(2 * seconds))
    kinds = inputs["mm_token_type_ids"][0]
    begin, count = int(kinds.argmax()), int((kinds == 2).sum())
    grid = np.stack(np.meshgrid(2 * np.arange(seconds), np.arange(5), np.arange(7), indexing="ij"), -1).reshape(-1, 3)
    behind = begin + 2 * (seconds - 1) + 1 + np.arange(len(kinds) - begin - count)
    assert grid[:, 0].max() > grid[:, 1:].max()
    places = np.concatenate([np.arange(begin)[:, None].repeat(3, 1), begin + grid, behind[:, None].repeat(3, 1)])
    with torch.inference_mode():
        wanted = reference(**inputs, position_ids=torch.from_numpy(places).T[:, None]).logits[0, -1]
        theirs = reference(**inputs).logits[0, -1]
    own = own_logits(agent, lossless(tmp_path / "clip.mkv", noise(2 * seconds)), QUESTION)[0]
    assert float((own - wanted).abs().max()) < 1e-4 < float((own - theirs).abs().max())


def test_two_cameras_in_one_window_are_what_two_media_are_to_transformers(family, agent, reference, folder):
    """Their grids do not overlap. Qwen2.5-VL has all of its windows between one pair of brackets, so to transformers, which
    tells media apart by kind, the second is a picture."""
    left, right = noise(2), noise(2, 8, height=56, width=40)
    seen = {name: Signal("video", np.stack(frames), 2, 0.0) for name, frames in (("left", left), ("right", right))}
    percepts = perceived(agent, Window(0, 0.0, 1.0, seen))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (first, grid), (second, other) = (patches(folder, frames) for frames in (left, right))
    one, two = grid[1] * grid[2] // 4, other[1] * other[2] // 4
    assert (one, two) == (35, 35) and grid != other
    if family == "qwen2.5-vl":
        text = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
                + "<|video_pad|>" * one + "<|image_pad|>" * two + "<|vision_end|>")
        given = {"pixel_values_videos": first, "video_grid_thw": torch.tensor([grid]), "pixel_values": second,
                 "image_grid_thw": torch.tensor([other]), "second_per_grid_ts": torch.tensor([1.0])}
    else:
        text = ("<|im_start|>user\n<0.2 seconds>"
                + "".join(f"<|vision_start|>{'<|video_pad|>' * count}<|vision_end|>" for count in (one, two)))
        given = {"pixel_values_videos": torch.cat([first, second]), "video_grid_thw": torch.tensor([grid, other])}
    ids = tokenizer(f"{text}{QUESTION}<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt").input_ids
    kinds = sum((ids == tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>")).long() * number
                for kind, number in (("image", 1), ("video", 2)))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds, **given}
    said_ids, logits = reference_answer(reference, inputs, most=MOST)
    mind = agent.bundle.mind
    forks = mind.fork(mind.open(windows=percepts), [mind.layout.question(QUESTION)], room=len(said_ids))
    own = [forks.logits[0], *(forks.step(torch.tensor([token]))[0] for token in said_ids[:-1])]
    assert float((torch.stack(own) - logits).abs().max()) < 1e-4
    assert [int(row.argmax()) for row in own] == said_ids


def perceived(agent, window):
    perceive = Perceive(agent.perception)
    return [*perceive.push(("s", window)), *perceive.close()]


def test_what_is_seen_and_asked_matters(agent, media):
    texts = {agent.ask(media / "3.mkv", QUESTION).text, agent.ask(media / "1.mkv", QUESTION).text,
             agent.ask(media / "3.mkv", "Where is the red circle now?").text, agent.ask(None, QUESTION).text}
    assert len(texts) == 4


def test_a_stream_says_what_the_monolithic_prompt_says(family, agent, reference, folder, media):
    """As of earlier moments too, and from its log when it is opened again."""
    exact = with_spec(agent, dtype="float32")
    path = folder / "session.db"
    with exact.open(log=path) as session:
        session.feed(media / "3.mkv")
        session.wait()
        answers = {2: session.ask(QUESTION, at_s=2.0), 3: session.ask(QUESTION)}
    with exact.reopen(path) as session:
        again = session.ask(QUESTION)
    path.unlink()
    assert again.text == answers[3].text
    for seconds, answer in answers.items():
        ids, _ = reference_answer(reference, asked(family, folder, noise(6)[: 2 * seconds]), most=MOST)
        assert answer.text == said(folder, ids)


def test_a_stream_longer_than_the_memory_goes_on_and_is_rebuilt_as_it_was(agent, tmp_path):
    """Where staging differs: windows past the budget are merged, token by token on the same grid."""
    tight = with_spec(agent, budget_tokens=512, compact_at=0.7, compact_to=0.3, keep_recent=0.2, slices=2)
    clip = lossless(tmp_path / "long.mkv", noise(60, 1))
    with tight.open(log=tmp_path / "s.db") as session:
        session.feed(clip)
        session.wait()
        answer, made = session.ask(QUESTION), session.log.compaction_before(Compaction)
        assert answer.windows_seen == 30 and made is not None
        merged = made.entries[0].parts[0]
        assert merged.windows > 1 and merged.positions.shape == (35, 3)
    with tight.reopen(tmp_path / "s.db") as session:
        assert session.ask(QUESTION).text == answer.text


def test_ask_takes_a_folder_of_a_checkpoint(cli, agent, folder, media):
    ran = cli("ask", media / "picture.png", QUESTION, "--model", folder, "--json")
    row = json.loads(ran.out)
    assert (ran.code, row["model"], row["evidence"]) == (0, str(folder), [])
    assert row["answer"].startswith(agent.ask(media / "picture.png", QUESTION).text[:20])
