"""LLaVA-OneVision and SmolVLM2 as bundles say to the last token what transformers' own models say.

LLaVA-OneVision's processor needs torchvision and SmolVLM's num2words: the reference inputs are built here by hand, from
the published rules, with pixels of transformers' own image processors.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    LlavaOnevisionForConditionalGeneration,
    SmolVLMForConditionalGeneration,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from anymodal.agent import Agent
from anymodal.bundle import load_bundle
from anymodal.errors import ConfigError
from anymodal.testing import make_video
from anymodal.testing_checkpoints import reference_answer, worst_difference
from anymodal.testing_checkpoints_video import make_llava_onevision, make_smolvlm2
from encoders.llava_onevision import CropRule, OneVision
from encoders.smolvlm import SmolVision, SquareRule

MOST = 24  # tokens of an answer
QUESTION = "What is happening in this picture?"


def noise(count, seed=5, *, height=48, width=80):
    """Frames of coloured blocks."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(count)]


def with_spec(agent, **changes):
    prompt = agent.spec.prompt.model_copy(update={"max_answer_tokens": MOST})
    return Agent(replace(agent.bundle, spec=agent.spec.model_copy(update={"prompt": prompt, **changes})))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Pictures of several shapes and a clip at a frame a second, to the last bit."""
    folder = tmp_path_factory.mktemp("media")
    for height, width in ((48, 80), (24, 24), (104, 32)):
        Image.fromarray(noise(1, height=height, width=width)[0]).save(folder / f"{height}x{width}.png")
    make_video(folder / "clip.mkv", noise(3), rate_hz=1, codec="ffv1", pixel_format="bgr0")
    make_video(folder / "long.mkv", noise(60, 1), rate_hz=1, codec="ffv1", pixel_format="bgr0")
    return folder


def said(folder, ids):
    return AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True).strip()


def tokens(folder, text):
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


# --- LLaVA-OneVision -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=["anyres_max_9", "anyres_max_3"])
def one_folder(request, tmp_path_factory):
    return make_llava_onevision(tmp_path_factory.mktemp("checkpoints") / "one", aspect=request.param)


@pytest.fixture(scope="module")
def one(one_folder):
    return with_spec(Agent(load_bundle(one_folder)))


@pytest.fixture(scope="module")
def one_reference(one_folder):
    return LlavaOnevisionForConditionalGeneration.from_pretrained(one_folder).eval()


def one_picture(folder, reference, frame):
    inputs = LlavaOnevisionImageProcessorPil.from_pretrained(folder)(images=[frame], return_tensors="pt")
    with torch.inference_mode():
        made = reference.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
    prompt = f"<|im_start|>user {'<image>' * len(made[0])}\n{QUESTION}<|im_end|><|im_start|>assistant\n"
    return {**tokens(folder, prompt), **{k: inputs[k] for k in ("pixel_values", "image_sizes")}}, made[0]


def one_video(folder, frames):
    """A video's frames, resized as pictures are."""
    processor = LlavaOnevisionImageProcessorPil.from_pretrained(folder)
    pixels = torch.stack([processor(images=[f], return_tensors="pt")["pixel_values"][0, 0] for f in frames])
    prompt = f"<|im_start|>user {'<video>' * (len(frames) * 25 + 1)}\n{QUESTION}<|im_end|><|im_start|>assistant\n"
    return {**tokens(folder, prompt), "pixel_values_videos": pixels[None]}


@pytest.mark.parametrize("height, width", [(48, 80), (24, 24), (104, 32), (36, 36), (500, 90), (7, 61)])
def test_pictures_become_the_crops_of_transformers_processor(one_folder, height, width):
    processor = LlavaOnevisionImageProcessorPil.from_pretrained(one_folder)
    frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    wanted = processor(images=[frame], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(CropRule.from_config(processor.to_dict()).picture(frame), wanted)


@pytest.mark.parametrize("shape", ["48x80", "24x24", "104x32"])
def test_one_vision_on_a_picture(one, one_reference, one_folder, media, shape):
    frame = np.asarray(Image.open(media / f"{shape}.png").convert("RGB"))
    inputs, features = one_picture(one_folder, one_reference, frame)
    with torch.inference_mode():
        own = one.bundle.perception.encoders["video"].picture(frame)
    assert own.shape == features.shape and torch.allclose(own, features, atol=1e-5)
    assert worst_difference(one, media / f"{shape}.png", QUESTION, one_reference, inputs, most=MOST) < 1e-4
    ids, _ = reference_answer(one_reference, inputs, most=MOST)
    assert one.ask(media / f"{shape}.png", QUESTION).text == said(one_folder, ids)


def test_one_vision_on_a_clip_and_in_a_stream(one, one_reference, one_folder, media):
    """The newline that ends a video comes with the question, so any number of windows is the published prompt."""
    inputs = one_video(one_folder, noise(3))
    assert worst_difference(one, media / "clip.mkv", QUESTION, one_reference, inputs, most=MOST) < 1e-4
    exact = with_spec(one, dtype="float32")
    with exact.open() as session:
        session.feed(media / "clip.mkv")
        session.wait()
        for at_s, count in ((2.0, 2), (None, 3)):
            ids, _ = reference_answer(one_reference, one_video(one_folder, noise(3)[:count]), most=MOST)
            assert session.ask(QUESTION, at_s=at_s).text == said(one_folder, ids)


def test_one_vision_refuses_what_it_cannot_read():
    with pytest.raises(ValueError, match="no image_grid_pinpoints"):
        CropRule.from_config({"size": {"height": 4, "width": 4}})
    with pytest.raises(ValueError, match="aspect 'pad' is not anyres_max_"):
        OneVision.Config(lm_width=8, aspect="pad")


# --- SmolVLM2 --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def smol_folder(tmp_path_factory):
    return make_smolvlm2(tmp_path_factory.mktemp("checkpoints") / "smol")


@pytest.fixture(scope="module")
def smol(smol_folder):
    return with_spec(Agent(load_bundle(smol_folder)))


@pytest.fixture(scope="module")
def smol_reference(smol_folder):
    return SmolVLMForConditionalGeneration.from_pretrained(smol_folder).eval()


def smol_picture(folder, frame):
    inputs = SmolVLMImageProcessorPil.from_pretrained(folder)(images=[frame], return_tensors="pt", return_row_col_info=True)
    rows, columns = inputs["rows"][0][0], inputs["cols"][0][0]
    around, soft = "<fake_token_around_image>", "<image>" * 4
    seen = "".join("".join(f"{around}<row_{y + 1}_col_{x + 1}>{soft}" for x in range(columns)) + "\n" for y in range(rows))
    seen += ("\n" if rows else "") + f"{around}<global-img>{soft}{around}"
    prompt = f"<|im_start|>User:{seen}{QUESTION}<end_of_utterance>\nAssistant:"
    return {**tokens(folder, prompt), **{k: inputs[k] for k in ("pixel_values", "pixel_attention_mask")}}


def smol_video(folder, frames, question=QUESTION):
    """The published prompt of a video, without the sentences that tell its length and end it."""
    processor = SmolVLMImageProcessorPil.from_pretrained(folder)
    inputs = processor(images=[list(frames)], return_tensors="pt", do_image_splitting=False)
    one = f"<fake_token_around_image><global-img>{'<image>' * 4}<fake_token_around_image>"
    seen = "".join(f"\nFrame from {k // 60:02d}:{k % 60:02d}:{one}" for k in range(len(frames)))
    prompt = f"<|im_start|>User:{seen}{question}<end_of_utterance>\nAssistant:"
    return {**tokens(folder, prompt), **{k: inputs[k] for k in ("pixel_values", "pixel_attention_mask")}}


@pytest.mark.parametrize("height, width", [(48, 80), (24, 24), (104, 32), (61, 7), (500, 90)])
def test_pictures_become_the_squares_of_transformers_processor(smol_folder, height, width):
    processor = SmolVLMImageProcessorPil.from_pretrained(smol_folder)
    frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    rule = SquareRule.from_config(processor.to_dict())
    wanted = processor(images=[frame], return_tensors="pt", return_row_col_info=True)
    pixels, rows, columns = rule.crops(frame)
    assert torch.equal(pixels, wanted["pixel_values"][0])
    assert (rows, columns) == (wanted["rows"][0][0], wanted["cols"][0][0])
    whole = processor(images=[frame], return_tensors="pt", do_image_splitting=False)["pixel_values"][0]
    assert torch.equal(rule.frames([frame]), whole)


@pytest.mark.parametrize("shape", ["48x80", "24x24", "104x32"])
def test_smolvlm_on_a_picture_in_crops(smol, smol_reference, smol_folder, media, shape):
    frame = np.asarray(Image.open(media / f"{shape}.png").convert("RGB"))
    inputs = smol_picture(smol_folder, frame)
    assert worst_difference(smol, media / f"{shape}.png", QUESTION, smol_reference, inputs, most=MOST) < 1e-4
    ids, _ = reference_answer(smol_reference, inputs, most=MOST)
    assert smol.ask(media / f"{shape}.png", QUESTION).text == said(smol_folder, ids)


def test_smolvlm_on_a_clip_and_in_a_stream(smol, smol_reference, smol_folder, media):
    inputs = smol_video(smol_folder, noise(3))
    assert worst_difference(smol, media / "clip.mkv", QUESTION, smol_reference, inputs, most=MOST) < 1e-4
    exact = with_spec(smol, dtype="float32")
    with exact.open() as session:
        session.feed(media / "clip.mkv")
        session.wait()
        for at_s, count in ((2.0, 2), (None, 3)):
            ids, _ = reference_answer(smol_reference, smol_video(smol_folder, noise(3)[:count]), most=MOST)
            assert session.ask(QUESTION, at_s=at_s).text == said(smol_folder, ids)


def test_smolvlm_pictures_crops_come_back_from_a_log(smol, media, tmp_path):
    exact = with_spec(smol, dtype="float32")
    with exact.open(log=tmp_path / "s.db") as session:
        session.feed(media / "48x80.png")
        session.wait()
        text = session.ask(QUESTION).text
    with exact.reopen(tmp_path / "s.db") as session:
        assert session.ask(QUESTION).text == text == exact.ask(media / "48x80.png", QUESTION).text


def test_smolvlm_refuses_a_window_of_several_frames():
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "image_size": 8,
             "patch_size": 4}
    encoder = SmolVision(SmolVision.Config(vision=tower, preprocessor={"max_image_size": {"longest_edge": 8}}, lm_width=8))
    signal = type("Signal", (), {"data": np.zeros((2, 8, 8, 3), np.uint8), "still": False})
    with pytest.raises(ValueError, match="a window of 2 frames: this model has text between them"):
        encoder.perceive(signal, 1.0)
    with pytest.raises(ValueError, match="3 x 3 patches cannot be shuffled by 2"):
        SmolVision(SmolVision.Config(vision={**tower, "image_size": 12}, lm_width=8))


# --- both ------------------------------------------------------------------------------------------------------------

def test_a_stream_longer_than_the_memory_goes_on(one, smol, media):
    """Where staging differs: windows past the budget are merged, token by token."""
    for agent, budget in ((one, 520), (smol, 400)):
        small = agent.spec.memory.model_copy(update={"budget_tokens": budget})
        with with_spec(agent, memory=small).open() as session:
            session.feed(media / "long.mkv")
            session.wait()
            answer = session.ask(QUESTION)
        assert answer.windows_seen == 60 and answer.text


def test_a_picture_that_the_memory_has_no_room_for_is_refused(one, media):
    small = one.spec.memory.model_copy(update={"budget_tokens": 400})
    with pytest.raises(ConfigError, match="window 0 has .* tokens, the memory takes 100 of its 400"):
        with_spec(one, memory=small).ask(media / "48x80.png", QUESTION)


def test_ask_takes_a_folder_of_a_checkpoint(cli, one, one_folder, smol, smol_folder, media):
    for agent, folder in ((one, one_folder), (smol, smol_folder)):
        ran = cli("ask", media / "48x80.png", QUESTION, "--model", folder, "--json")
        row = json.loads(ran.out)
        assert (ran.code, row["model"]) == (0, str(folder))
        assert row["answer"].startswith(agent.ask(media / "48x80.png", QUESTION).text[:20])
