"""Video-LLaMA and PandaGPT as bundles say what a straight composition of their published parts says.

transformers has no model of either, so each is put together here from transformers' parts, by the published prompt.
ImageBind's towers are ours; they are compared with CLIP and closed forms in test_imagebind.py.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    BlipImageProcessorPil,
    LlamaForCausalLM,
)

from anymodal.agent import Agent
from anymodal.bundle import load_bundle
from anymodal.config import load_spec
from anymodal.errors import ConfigError, WeightsError
from anymodal.testing import make_video, make_wav
from anymodal.testing_checkpoints import reference_answer, worst_difference
from anymodal.testing_checkpoints_blip import QFORMER
from anymodal.testing_checkpoints_imagebind import (
    IMAGEBIND,
    LORA,
    PICTURE_PX,
    make_pandagpt,
    make_video_llama,
    tiny_bundle,
)
from encoders.imagebind import ImageBind

MOST = 24  # tokens of an answer
QUESTION = "What is happening, and where is the red circle now?"
PANDA_FILES = {"video encoder": {"imagebind_huge.pth"}, "video adapter": {"pytorch_model.pt"},
               "audio encoder": {"imagebind_huge.pth"}, "audio adapter": {"pytorch_model.pt"},
               "language model": {"model.safetensors", "pytorch_model.pt"}}


def blocks(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (5, 7, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(count)]


def noise(seconds: float, seed: int) -> np.ndarray:
    t = np.arange(round(seconds * 16000)) / 16000
    rng = np.random.default_rng(seed)
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) + 0.05 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Clips to the last bit: four and eight seconds of pictures at 1 and 2 Hz, each with sound, and a sound alone."""
    folder = tmp_path_factory.mktemp("media")
    for name, count, rate in (("slow", 4, 1), ("four", 8, 2), ("eight", 16, 2)):
        make_video(folder / f"{name}.mkv", blocks(count, count), rate_hz=rate, codec="ffv1", pixel_format="bgr0",
                   audio=noise(count / rate, count), audio_hz=16000, audio_codec="pcm_f32le")
    make_wav(folder / "sound.wav", noise(2.0, 5), 16000)
    return folder


def agent_of(name: str, folder) -> Agent:
    bundle = load_bundle(tiny_bundle(name, folder))
    prompt = bundle.spec.prompt.model_copy(update={"max_answer_tokens": MOST})
    return Agent(replace(bundle, spec=bundle.spec.model_copy(update={"prompt": prompt})))


def exactly(agent: Agent) -> Agent:
    """The same with a log that keeps tokens as they are made."""
    return Agent(replace(agent.bundle, spec=agent.spec.model_copy(update={"dtype": "float32"})))


class Composition:
    """Embeddings of a prompt, piece by piece: texts through the published tokenizer, tensors as they are."""

    def __init__(self, folder, llama: LlamaForCausalLM) -> None:
        self.tokenizer, self.llama = AutoTokenizer.from_pretrained(folder), llama.eval()

    def inputs(self, *pieces) -> dict[str, torch.Tensor]:
        found = []
        for i, piece in enumerate(pieces):
            if isinstance(piece, str):
                ids = self.tokenizer(piece, add_special_tokens=i == 0, return_tensors="pt").input_ids
                piece = self.llama.get_input_embeddings()(ids)[0]
            found.append(piece)
        embeds = torch.cat(found)[None].detach()
        return {"inputs_embeds": embeds, "attention_mask": torch.ones(embeds.shape[:2], dtype=torch.long)}

    def said(self, inputs, stop: str = "\0") -> str:
        ids, _ = reference_answer(self.llama, inputs, MOST)
        return self.tokenizer.decode(ids, skip_special_tokens=True).split(stop)[0].strip()


def imagebind(folder, modality: str, **options) -> ImageBind:
    tower = ImageBind(ImageBind.Config(modality=modality, inputs={"image_px": PICTURE_PX, **options}, **IMAGEBIND))
    state = torch.load(folder / "imagebind_huge.pth", weights_only=True)
    tower.load_state_dict({key: value for key, value in state.items() if key.split(".")[1] == modality}, strict=True)
    return tower.eval()


# -- PandaGPT --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def panda_folder(tmp_path_factory):
    return make_pandagpt(tmp_path_factory.mktemp("panda"))


@pytest.fixture(scope="module")
def panda(panda_folder):
    return agent_of("pandagpt-7b", panda_folder)


class PandaReference(Composition):
    """One vector a picture, one a sound; LoRA merged into the weights."""

    def __init__(self, folder) -> None:
        llama = LlamaForCausalLM.from_pretrained(folder / "vicuna")
        self.state = torch.load(folder / "pytorch_model.pt", weights_only=True)
        for key in [k for k in self.state if k.endswith("lora_A.default.weight")]:
            path = re.sub(r"^llama_model\.base_model\.model\.|\.lora_A\.default\.weight$", "", key)
            low = self.state[key.replace("lora_A", "lora_B")] @ self.state[key]
            llama.get_submodule(path).weight.data += low * LORA["alpha"] / LORA["rank"]
        super().__init__(folder / "vicuna", llama)
        self.vision, self.hearing = imagebind(folder, "vision"), imagebind(folder, "audio", clips=3)

    @torch.no_grad()
    def seen(self, frames) -> torch.Tensor:
        return self._projected(self.vision(self.vision.prepare(frames))[0][:, 0])

    @torch.no_grad()
    def heard(self, wave) -> torch.Tensor:
        return self._projected(self.hearing(self.hearing.prepare(wave[None], 16000))[0][:, 0])

    def _projected(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors @ self.state["llama_proj.weight"].T + self.state["llama_proj.bias"]

    def asked(self, *tokens, question=QUESTION) -> dict[str, torch.Tensor]:
        return self.inputs("### Human: <Img>", *tokens, f"</Img> {question}\n### Assistant:")


@pytest.fixture(scope="module")
def panda_reference(panda_folder):
    return PandaReference(panda_folder)


def test_pandagpt_on_a_picture_is_the_published_composition(panda, panda_reference, tmp_path):
    from PIL import Image

    [frame] = blocks(1, 3)
    Image.fromarray(frame).save(tmp_path / "picture.png")
    inputs = panda_reference.asked(panda_reference.seen([frame]))
    assert worst_difference(panda, tmp_path / "picture.png", QUESTION, panda_reference.llama, inputs, most=MOST) < 1e-4
    assert panda.ask(tmp_path / "picture.png", QUESTION).text == panda_reference.said(inputs, "###")


def test_pandagpt_on_two_seconds_of_sound_is_the_published_composition(panda, panda_reference, media):
    """The published three clips are all the same two seconds then."""
    wave = (noise(2.0, 5) * 32767).round() / 32768
    inputs = panda_reference.asked(panda_reference.heard(wave.astype(np.float32)))
    assert worst_difference(panda, media / "sound.wav", QUESTION, panda_reference.llama, inputs, most=MOST) < 1e-4
    assert panda.ask(media / "sound.wav", QUESTION).text == panda_reference.said(inputs, "###")


def panda_clip(reference: PandaReference) -> dict[str, torch.Tensor]:
    """slow.mkv: two windows, each of two pictures and two seconds of sound."""
    pictures, wave = reference.seen(blocks(4, 4)), noise(4.0, 4)
    return reference.asked(pictures[:2], reference.heard(wave[:32000]), pictures[2:], reference.heard(wave[32000:]))


def test_pandagpt_on_pictures_and_sound_has_a_token_for_each(panda, panda_reference, media):
    inputs = panda_clip(panda_reference)
    assert worst_difference(panda, media / "slow.mkv", QUESTION, panda_reference.llama, inputs, most=MOST) < 1e-4
    answer = panda.ask(media / "slow.mkv", QUESTION)
    assert (answer.windows_seen, answer.frames_seen, answer.evidence) == (2, 4, ())


def test_pandagpt_in_a_stream_says_what_it_says_of_the_file(panda, panda_reference, media):
    with exactly(panda).open() as session:
        session.feed(media / "slow.mkv")
        session.wait()
        assert session.ask(QUESTION).text == panda_reference.said(panda_clip(panda_reference), "###")


def test_pandagpts_lora_is_in_use_and_each_part_reads_its_own_files(panda, panda_folder, panda_reference, media):
    panda.bundle.mind, panda.bundle.perception  # noqa: B018
    reports = panda.bundle.published.reports
    assert {what: set(report.files) for what, report in reports.items()} == PANDA_FILES
    assert all(".vision." in key for key in reports["video encoder"].read)
    assert all(".audio." in key for key in reports["audio encoder"].read)
    assert sum("lora" in key for key in reports["language model"].read) == 2 * 4 * 2
    plain = PandaReference(panda_folder)
    plain.llama = LlamaForCausalLM.from_pretrained(panda_folder / "vicuna").eval()
    assert plain.said(panda_clip(plain), "###") != panda_reference.said(panda_clip(panda_reference), "###")


def test_a_target_that_no_layer_has_is_named(panda_folder):
    from anymodal.language.lora import LoraLM

    text = load_bundle(tiny_bundle("pandagpt-7b", panda_folder)).published.resolved(load_spec("pandagpt-7b")[0].language)
    with pytest.raises(ConfigError, match="called 'qkv_proj'"):
        LoraLM(LoraLM.Config(text=text.options["text"], targets=("q_proj", "qkv_proj")))


# -- Video-LLaMA -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    return make_video_llama(tmp_path_factory.mktemp("videollama"))


@pytest.fixture(scope="module")
def video_llama(llama_folder):
    return agent_of("video-llama-2-7b", llama_folder)


class VideoLlamaReference(Composition):
    def __init__(self, folder) -> None:
        super().__init__(folder / "llama-2-7b-chat-hf", LlamaForCausalLM.from_pretrained(folder / "llama-2-7b-chat-hf"))
        self.blip2 = Blip2ForConditionalGeneration.from_pretrained(folder / "blip2").eval()
        self.pictures = BlipImageProcessorPil.from_pretrained(folder / "blip2")
        self.hearing = imagebind(folder, "audio", clips=2)
        self.branch = {name: torch.load(folder / f"{name}_LLaMA_2_7B_Finetuned.pth", weights_only=True)["model"]
                       for name in ("VL", "AL")}

    def pooled(self, branch: str, prefix: str, proj: str, features: torch.Tensor) -> torch.Tensor:
        """Features (1, L, D), places in time added -> tokens: a branch's Q-Former and linear layer."""
        state = self.branch[branch]
        config = {**QFORMER, "num_hidden_layers": 2, "cross_attention_frequency": 1, "use_qformer_text_input": False}
        model = Blip2QFormerModel(Blip2QFormerConfig(**config, encoder_hidden_size=features.shape[-1])).eval()
        names = {}
        for key in model.state_dict():
            other = re.sub(r"^layernorm\.", "embeddings.LayerNorm.", key)
            names[key] = f"{prefix}_Qformer.bert." + re.sub(r"(attention)\.attention\.", r"\1.self.", other)
        model.load_state_dict({key: state[name] for key, name in names.items()}, strict=True)
        out = model(query_embeds=state[f"{prefix}_query_tokens"], encoder_hidden_states=features).last_hidden_state
        return (out @ state[f"{proj}.weight"].T + state[f"{proj}.bias"])[0]

    @torch.no_grad()
    def seen(self, frames) -> torch.Tensor:
        pixels = self.pictures(frames, return_tensors="pt").pixel_values
        image = self.blip2.vision_model(pixels).last_hidden_state
        queries = self.blip2.query_tokens.expand(len(frames), -1, -1)
        states = self.blip2.qformer(query_embeds=queries, encoder_hidden_states=image).last_hidden_state
        places = self.branch["VL"]["video_frame_position_embedding.weight"][: len(frames), None]
        return self.pooled("VL", "video", "llama_proj", (states + places).flatten(0, 1)[None])

    @torch.no_grad()
    def heard(self, wave) -> torch.Tensor:
        clips = self.hearing.prepare(wave[None], 16000)[0]
        vectors = torch.cat([self.hearing(clip[None])[0][:, 0] for clip in clips])
        places = self.branch["AL"]["audio_position_embedding.weight"][: len(vectors)]
        return self.pooled("AL", "audio", "audio_llama_proj", (vectors + places)[None])

    def asked(self, *windows) -> dict[str, torch.Tensor]:
        pieces = ["[INST] <<SYS>>\n\n<</SYS>>\n\n"]
        for seen, heard in windows:
            see = "Close your ears, open your eyes and you see that <Video>"
            if heard is not None:
                pieces += ["Close your eyes, open your ears and you imagine only based on the sound that: ", heard]
            pieces += [see if heard is None else f". {see}", seen, "</Video>."]
        return self.inputs(*pieces, "Now answer my question based on what you have just seen and heard. "
                                    f"{QUESTION} [/INST]")


@pytest.fixture(scope="module")
def llama_reference(llama_folder):
    return VideoLlamaReference(llama_folder)


def clip_of(reference: VideoLlamaReference, seconds: int) -> dict[str, torch.Tensor]:
    frames, wave = blocks(2 * seconds, 2 * seconds), noise(seconds, 2 * seconds)
    parts = [(frames[2 * at : 2 * at + 8], wave[16000 * at : 16000 * (at + 4)]) for at in range(0, seconds, 4)]
    return reference.asked(*[(reference.seen(seen), reference.heard(heard)) for seen, heard in parts])


@pytest.mark.parametrize("name, seconds", [("four", 4), ("eight", 8)])
def test_video_llama_is_the_published_composition(video_llama, llama_reference, media, name, seconds):
    """Of one window it is the published model: 8 frames, and the sound's clips, each with its place in time."""
    inputs = clip_of(llama_reference, seconds)
    path = media / f"{name}.mkv"
    assert worst_difference(video_llama, path, QUESTION, llama_reference.llama, inputs, most=MOST) < 1e-4
    answer = video_llama.ask(path, QUESTION)
    assert answer.text == llama_reference.said(inputs)
    assert (answer.windows_seen, answer.frames_seen) == (seconds // 4, 2 * seconds)


def test_video_llamas_vision_branch_answers_alone(video_llama, llama_reference, tmp_path):
    frames = blocks(8, 11)
    clip = make_video(tmp_path / "silent.mkv", frames, rate_hz=2, codec="ffv1", pixel_format="bgr0")
    inputs = llama_reference.asked((llama_reference.seen(frames), None))
    assert worst_difference(video_llama, clip, QUESTION, llama_reference.llama, inputs, most=MOST) < 1e-4


def test_video_llama_in_a_stream_says_what_the_composition_says(video_llama, llama_reference, media):
    with exactly(video_llama).open() as session:
        session.feed(media / "eight.mkv")
        session.wait()
        at_four, at_end = session.ask(QUESTION, at_s=4.0), session.ask(QUESTION)
    windows = clip_of(llama_reference, 8)
    assert at_end.text == llama_reference.said(windows) and at_four.text != at_end.text
    assert at_four.windows_seen == 1


def test_a_windows_tokens_know_their_order_in_time(video_llama, llama_reference):
    frames = blocks(8, 2)
    with torch.no_grad():
        ours, turned = llama_reference.seen(frames), llama_reference.seen(frames[::-1])
    assert (ours - turned).abs().max() > 0.01


def test_each_part_of_video_llama_reads_its_own_files(video_llama):
    video_llama.bundle.mind, video_llama.bundle.perception  # noqa: B018
    reports = video_llama.bundle.published.reports
    assert set(reports["language model"].files) == {"model.safetensors"}
    assert set(reports["audio encoder"].files) == {"imagebind_huge.pth"}
    assert set(reports["audio adapter"].files) == {"AL_LLaMA_2_7B_Finetuned.pth"}
    assert "VL_LLaMA_2_7B_Finetuned.pth" in reports["video adapter"].files
    assert not any(key.startswith("language_model.") for what in ("video encoder", "video adapter")
                   for key in reports[what].read)


def test_a_branchs_file_with_a_tensor_less_refuses_and_names_it(llama_folder, tmp_path):
    import shutil

    folder = shutil.copytree(llama_folder, tmp_path / "less")
    path = folder / "VL_LLaMA_2_7B_Finetuned.pth"
    state = torch.load(path, weights_only=True)
    del state["model"]["video_query_tokens"]
    torch.save(state, path)
    bundle = load_bundle(tiny_bundle("video-llama-2-7b", folder))
    with pytest.raises(WeightsError, match="video adapter's 'query_tokens'"):
        bundle.perception  # noqa: B018


# -- both ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pandagpt-7b", "video-llama-2-7b"])
def test_imagebinds_licence_shows(name):
    known = load_spec(name)[0].checkpoint
    assert known.non_commercial and "ImageBind: CC BY-NC-SA 4.0" in known.licence
    assert any("imagebind_huge.pth" in need and "commercial" in need for need in known.needs)


def test_without_imagebind_the_file_is_named(panda_folder, tmp_path):
    import shutil

    folder = shutil.copytree(panda_folder, tmp_path / "without", ignore=shutil.ignore_patterns("imagebind*"))
    with pytest.raises(WeightsError, match=r"none of imagebind_huge\.pth"):
        load_bundle(tiny_bundle("pandagpt-7b", folder)).perception  # noqa: B018


@pytest.mark.parametrize("name, make", [("pandagpt-7b", "panda"), ("video-llama-2-7b", "llama")])
def test_ask_answers_from_the_command_line(cli, request, media, name, make):
    folder = request.getfixturevalue(f"{make}_folder")
    ran = cli("ask", media / "four.mkv", QUESTION, "--model", tiny_bundle(name, folder))
    assert ran.code == 0, ran
    assert len(ran.out.strip()) > 8
