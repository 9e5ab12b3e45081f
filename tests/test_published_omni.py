"""Qwen2.5-Omni's thinker as a bundle says what transformers' own says: pictures and sound on their common clock.

Its processor needs torchvision: the reference inputs are built here by hand, from the published rules, with patches and mel
frames of transformers' own extractors.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from anymodal.agent import Agent
from anymodal.bundle import load_bundle
from anymodal.media import read_windows
from anymodal.testing import make_video, make_wav
from anymodal.testing_checkpoints import own_logits, reference_answer, worst_difference
from anymodal.testing_checkpoints_qwen import make_qwen2_5_omni
from encoders.qwen_audio import QwenAudio

MOST = 20  # tokens of an answer
HZ = 16000
QUESTION = "What is happening in this picture?"
HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
ASKED = f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n"


def noise(count, seed=5):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (5, 7, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(count)]


def sound(seconds, seed=3):
    """Tones that change every half second, on 16-bit levels, as a lossless file gives them back."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(round(2 * seconds)):
        t = np.arange(HZ // 2) / HZ
        found.append(0.3 * np.sin(2 * np.pi * rng.uniform(200, 3000) * t) + 0.02 * rng.standard_normal(len(t)))
    return (np.round(np.concatenate(found).clip(-0.9, 0.9) * 32768) / 32768).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_qwen2_5_omni(tmp_path_factory.mktemp("checkpoints") / "omni")


@pytest.fixture(scope="module")
def agent(folder):
    return with_spec(Agent(load_bundle(folder)))


def with_spec(agent, **changes):
    prompt = agent.spec.prompt.model_copy(update={"max_answer_tokens": MOST})
    return Agent(replace(agent.bundle, spec=agent.spec.model_copy(update={"prompt": prompt, **changes})))


@pytest.fixture(scope="module")
def reference(folder):
    return Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Clips of two and of six seconds with sound, without loss; a sound; a picture."""
    folder = tmp_path_factory.mktemp("media")
    for seconds in (2, 6):
        make_video(folder / f"{seconds}.mkv", noise(2 * seconds), rate_hz=2, codec="ffv1", pixel_format="bgr0",
                   audio=sound(seconds), audio_hz=HZ, audio_codec="flac")
    make_wav(folder / "sound.wav", sound(2), HZ)
    Image.fromarray(noise(1)[0]).save(folder / "picture.png")
    return folder


def windows(agent, path):
    """What the bundle is given of a clip's pictures and sound, window by window."""
    with read_windows(path, agent.spec) as reader:
        return [{name: s.data for name, s in w.signals.items()} for w in reader]


def patches(folder, frames):
    """Pixels (S, d) and grid of frames, two to a patch of time, by transformers' image processor."""
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    rows, grids = zip(*[processor(images=[f], return_tensors="pt").values() for f in frames])
    rows = [r.view(len(r), 3, 2, 4, 4)[:, :, 0] for r in rows]
    pairs = [torch.stack([rows[i], rows[min(i + 1, len(rows) - 1)]], 2).flatten(1) for i in range(0, len(rows), 2)]
    return torch.cat(pairs), (len(pairs), *grids[0][0, 1:].tolist())


def mel_of(folder, wave):
    """transformers' mel frames (M, F)."""
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    made = extractor(wave, sampling_rate=HZ, padding="max_length", return_attention_mask=True, return_tensors="pt")
    return made["input_features"][0][:, made["attention_mask"][0].bool()]


def both(folder, frames, mel):
    """The published prompt of a video with its sound: each two seconds' pictures, then their sound."""
    pixels, (times, down, across) = patches(folder, frames)
    count = ((mel.shape[1] - 1) // 2 + 1 - 2) // 2 + 1
    seen = ""
    for start in range(0, max(times, -(-count // 25)), 2):
        seen += "<|VIDEO|>" * (down * across // 4 * len(range(start, min(times, start + 2))))
        seen += "<|AUDIO|>" * len(range(25 * start, min(count, 25 * (start + 2))))
    text = f"{HEAD}<|vision_bos|><|audio_bos|>{seen}<|audio_eos|><|vision_eos|>{ASKED}"
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels,
            "video_grid_thw": torch.tensor([[times, down, across]]), "video_second_per_grid": torch.tensor([1.0]),
            "input_features": mel[None], "feature_attention_mask": torch.ones(1, mel.shape[1], dtype=torch.long),
            "use_audio_in_video": True}


def said(folder, ids):
    return AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True).strip()


# --- sound -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("samples", [2 * HZ, HZ + 77, 700])
def test_sound_becomes_the_mel_frames_of_transformers_extractor(agent, folder, samples):
    wave = sound(2)[:samples]
    found = agent.bundle.perception.encoders["audio"].prepare(wave, HZ)
    wanted = mel_of(folder, wave)
    assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=2e-5)


def test_sound_in_windows_has_the_features_that_it_has_at_once_given_its_mel_frames(agent, reference, folder):
    encoder, mel = agent.bundle.perception.encoders["audio"], mel_of(folder, sound(6))
    with torch.inference_mode():
        whole, pieces = encoder(mel), [encoder(piece) for piece in mel.split(200, 1)]
        wanted = reference.model.get_audio_features(mel[None], torch.ones(1, 600, dtype=torch.long)).last_hidden_state
    assert whole.shape == (150, 48)
    assert torch.allclose(whole, wanted, atol=1e-5) and torch.allclose(whole, torch.cat(pieces), atol=1e-5)


def test_where_staging_differs_mel_frames_at_a_windows_edges_see_nothing_beyond(agent, folder):
    encoder, wave = agent.bundle.perception.encoders["audio"], sound(6)
    whole = mel_of(folder, wave)
    pieces = torch.cat([encoder.prepare(piece, HZ) for piece in np.split(wave, 3)], 1)
    other = torch.nonzero((whole - pieces).abs().amax(0) > 1e-4)[:, 0].tolist()
    assert other and all(min(k % 200, 200 - k % 200) <= 1 for k in other), "only those next to an edge"


def test_too_little_sound_is_refused():
    tower = {"num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 1, "encoder_ffn_dim": 8, "d_model": 8,
             "output_dim": 8}
    with pytest.raises(ValueError, match="300 samples are too few for a token, 640"):
        QwenAudio(QwenAudio.Config(audio=tower)).prepare(np.zeros(300, np.float32), HZ)
    scrap = type("Signal", (), {"data": np.zeros(300, np.float32), "rate_hz": HZ, "t0_s": 4.0})
    made = QwenAudio(QwenAudio.Config(audio=tower)).perceive(scrap, 2.0)  # the end of a stream, filled up with silence
    assert made["embeds"].shape == (1, 8) and made["takes"] == (50, 50, 50)


# --- the whole model -------------------------------------------------------------------------------------------------

def test_text_and_logits_of_pictures_with_sound_are_those_of_transformers(agent, reference, folder, media):
    (window,) = windows(agent, media / "2.mkv")
    inputs = both(folder, noise(4), mel_of(folder, window["audio"]))
    assert np.array_equal(window["video"], noise(4))
    assert worst_difference(agent, media / "2.mkv", QUESTION, reference, inputs, most=MOST) < 1e-4
    ids, _ = reference_answer(reference, inputs, most=MOST)
    answer = agent.ask(media / "2.mkv", QUESTION)
    assert answer.text == said(folder, ids) and len(ids) > 8


def test_a_stream_says_what_the_monolithic_prompt_says_given_its_mel_frames(agent, reference, folder, media):
    """On the clock of the whole clip, as of earlier moments too."""
    found = windows(agent, media / "6.mkv")
    mel = [mel_of(folder, w["audio"]) for w in found]
    exact = with_spec(agent, dtype="float32")
    inputs = both(folder, noise(12), torch.cat(mel, 1))
    assert worst_difference(exact, media / "6.mkv", QUESTION, reference, inputs, most=MOST) < 1e-4
    with exact.open() as session:
        session.feed(media / "6.mkv")
        session.wait()
        for at_s, count in ((4.0, 2), (None, 3)):
            ids, _ = reference_answer(reference, both(folder, noise(4 * count), torch.cat(mel[:count], 1)), most=MOST)
            assert session.ask(QUESTION, at_s=at_s).text == said(folder, ids)


@pytest.mark.parametrize("kind", ["sound", "picture"])
def test_one_sense_alone_has_the_logits_of_transformers_at_the_same_places(agent, reference, folder, media, kind):
    """Where staging differs: a stream's head does not know which senses will come, so it opens both."""
    if kind == "sound":
        (window,) = windows(agent, media / "sound.wav")
        mel = mel_of(folder, window["audio"])
        given = {"input_features": mel[None], "feature_attention_mask": torch.ones(1, mel.shape[1], dtype=torch.long)}
        soft, rows, file = "<|AUDIO|>" * 50, [[k, k, k] for k in range(50)], "sound.wav"
    else:
        pixels, (_, down, across) = patches(folder, noise(1))
        given = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, down, across]])}
        rows = [[0, y, x] for y in range(down // 2) for x in range(across // 2)]
        soft, file = "<|IMAGE|>" * len(rows), "picture.png"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = tokenizer(f"{HEAD}<|vision_bos|><|audio_bos|>").input_ids
    after = tokenizer(f"<|audio_eos|><|vision_eos|>{ASKED}").input_ids
    begin = len(before) - 1  # two tokens share a place
    free = begin + max(map(max, rows)) + 1
    places = torch.tensor([[k] * 3 for k in [*range(begin), begin - 1]] + [[begin + v for v in row] for row in rows]
                          + [[free + k] * 3 for k in [0, *range(len(after) - 1)]]).T[:, None]
    ids = tokenizer(f"{HEAD}<|vision_bos|><|audio_bos|>{soft}<|audio_eos|><|vision_eos|>{ASKED}",
                    return_tensors="pt").input_ids
    with torch.inference_mode():
        wanted = reference(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=places, **given).logits[0, -1]
    own = own_logits(agent, media / file, QUESTION)[0]
    assert float((own - wanted).abs().max()) < 1e-4


def test_rules_are_judged_together_as_each_alone(agent, media):
    """The pairs of tokens that share a place are in packed prompts, too."""
    with agent.open() as session:
        session.feed(media / "2.mkv")
        session.wait()
        mind = agent.bundle.mind
        state = mind.open(windows=session.log.windows(0))
    rules = ["a red circle appears?", "a bell rings?", "a person walks?"]
    for rule, judged in zip(rules, mind.judge(state, rules), strict=True):
        (alone,) = mind.judge(state, [rule])
        forks = mind.fork(state, [mind.layout.condition(rule)])
        yes, no = (forks.logits[0, list(w)].logsumexp(-1) for w in (mind.layout.yes, mind.layout.no))
        assert judged.yes == pytest.approx(alone.yes, abs=1e-5)
        assert judged.yes == pytest.approx(float(torch.sigmoid(yes - no)), abs=1e-5)
    packed = state.trunk.packed(mind._judge._tree(tuple(rules)))
    tokens = torch.tensor([7, 8, 9])
    packed.step(tokens)  # and as each goes on by itself
    for row, rule in enumerate(rules):
        alone = mind.fork(state, [mind.layout.condition(rule)])
        assert torch.allclose(alone.step(tokens[row : row + 1])[0], packed.logits[row], atol=1e-4)


def test_ask_takes_a_folder_of_a_checkpoint(cli, agent, folder, media):
    ran = cli("ask", media / "2.mkv", QUESTION, "--model", folder, "--json")
    row = json.loads(ran.out)
    assert (ran.code, row["model"]) == (0, str(folder))
    assert row["answer"].startswith(agent.ask(media / "2.mkv", QUESTION).text[:20])
