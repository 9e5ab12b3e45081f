"""Published audio encoders: their input equals the published extractor's, their output transformers' own model's."""

import math
import re

import numpy as np
import pytest
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTModel,
    ClapAudioModelWithProjection,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    PeAudioConfig,
    PeAudioFeatureExtractor,
    PeAudioModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.audio_utils import mel_filter_bank
from transformers.utils import is_speech_available

from anymodal.checkpoint import Checkpoint, unfilled
from encoders.audio_spectrogram import AudioSpectrogramTower, kaldi_fbank
from encoders.audio_tower import AudioTowerConfig
from encoders.clap import ClapTower
from encoders.mel import MelRule, filter_bank, resample
from encoders.pe_audio import PeAudioTower
from encoders.whisper import WhisperTower

WHISPER = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 2,
           "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 80, "vocab_size": 64,
           "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
AST = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_length": 128}
CLAP = {"audio_config": {"patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2],
                         "hidden_size": 64, "num_hidden_layers": 4, "projection_dim": 99},
        "text_config": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
                        "vocab_size": 50}, "projection_dim": 12}
PE = {"audio_config": {"hidden_size": 16, "head_dim": 8, "num_attention_heads": 2, "num_hidden_layers": 2,
                       "intermediate_size": 32, "dac_config": {"model_type": "dac", "encoder_hidden_size": 2,
                                                               "codebook_dim": 4, "downsampling_ratios": [2, 8, 10, 12]}},
      "text_config": {"model_type": "modernbert", "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
                      "intermediate_size": 8, "vocab_size": 50, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
                      "cls_token_id": 0, "sep_token_id": 0}}


def sound(rate_hz: int, seconds: float, clips: int = 2, seed: int = 0) -> np.ndarray:
    """Tones that glide, in noise, with an offset and a silent stretch: (clips, N) float32."""
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    rng = np.random.default_rng(seed)
    rows = [0.02 + 0.3 * np.sin(2 * np.pi * (200 + 300 * row) * t * (1 + t / 3)) + 0.05 * rng.standard_normal(len(t))
            for row in range(clips)]
    out = np.array(rows, np.float32)
    out[:, len(t) // 2 : len(t) * 5 // 8] = 0
    return out


def close(ours, theirs, atol: float = 1e-5) -> None:
    theirs = torch.as_tensor(np.asarray(theirs)).float()
    torch.testing.assert_close(torch.as_tensor(ours).float(), theirs, atol=atol, rtol=0)


def filled(module, reference, rename=lambda key: key):
    """`module` with the reference's tensors under their published names, all of its own and no other."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in reference.parameters():  # some begin as zeros, which would hide what is left out
            p.normal_(0, 0.05) if p.dim() > 1 else p.normal_(0.5, 0.2)
    state = {rename(key): value for key, value in reference.state_dict().items()}
    wanted = module.state_dict()
    module.load_state_dict({key: state[key] for key in wanted})
    return module.eval(), reference.eval()


# -- mel frames and resampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule, scale, norm, low, high, fft", [
    (MelRule(bins=80), "slaney", "slaney", 0, 8000, 400),
    (MelRule(bins=128), "slaney", "slaney", 0, 8000, 400),
    (MelRule(rate_hz=48000, frame=1024, fft=1024, hop=480, bins=64, high_hz=14000, scale="htk", area=False), "htk", None, 0,
     14000, 1024),
    (kaldi_fbank(16000, 128), "kaldi", None, 20, 8000, 512),
])
def test_filter_banks_are_those_of_the_reference(rule, scale, norm, low, high, fft):
    theirs = mel_filter_bank(fft // 2 + 1, rule.bins, low, high, rule.rate_hz, norm=norm, mel_scale=scale,
                             triangularize_in_mel_space=rule.kaldi)
    close(filter_bank(rule), theirs, 1e-12 if norm is None else 1e-9)


def test_a_tone_lands_in_the_bins_around_its_pitch():
    rule = MelRule(bins=40, area=False, scale="htk", floor=1e-12)
    t = torch.arange(16000) / 16000
    mel = rule(torch.stack([torch.sin(2 * math.pi * hz * t) for hz in (440.0, 2500.0)])).mean(1)
    centre = 2595 * np.log10(1 + np.array([440.0, 2500.0]) / 700) / (2595 * math.log10(1 + 8000 / 700)) * 41 - 1
    assert np.abs(mel.argmax(1).numpy() - centre).max() <= 1


@pytest.mark.parametrize("wrong, said", [({"scale": "bark"}, "'bark' is none of"), ({"frame": 800}, "from 2 to fft"),
                                         ({"high_hz": 9000}, "half of 16000 Hz"), ({"backend": "sox"}, "'sox'")])
def test_an_impossible_rule_says_what_is_wrong(wrong, said):
    with pytest.raises(ValueError, match=said):
        MelRule(**wrong)


def test_too_few_samples_for_a_frame_are_refused():
    with pytest.raises(ValueError, match="399 samples are less than one frame, 400"):
        kaldi_fbank(16000, 128)(torch.zeros(1, 399))
    with pytest.raises(ValueError, match=r"samples are \(B, N\)"):
        MelRule()(torch.zeros(16000))


@pytest.mark.parametrize("rates", [(48000, 16000), (16000, 48000), (44100, 16000), (22050, 48000)])
def test_resampling_keeps_a_tone_in_its_place_in_time(rates):
    source, target = rates
    t = torch.arange(source // 2, dtype=torch.float64) / source
    out = resample(torch.sin(2 * math.pi * 500 * t)[None], source, target)
    assert out.shape == (1, math.ceil(target / 2))
    ideal = torch.sin(2 * math.pi * 500 * torch.arange(out.shape[1], dtype=torch.float64) / target)
    inner = slice(target // 50, -(target // 50))  # the ends border on silence
    assert (out[0, inner] - ideal[inner]).abs().max() < 2e-3


def test_resampling_takes_away_what_the_lower_rate_cannot_hold():
    t = torch.arange(24000, dtype=torch.float64) / 48000
    out = resample(torch.sin(2 * math.pi * 11000 * t)[None], 48000, 16000)
    assert out[0, 400:-400].abs().max() < 0.02
    with pytest.raises(ValueError, match="whole numbers"):
        resample(torch.zeros(1, 10), 44100.5, 16000)


def torchaudio():
    """torchaudio, or a skip that says why it does not import."""
    try:
        import torchaudio
        import torchaudio.compliance.kaldi
        import torchaudio.functional
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio does not import here: {error}")
    return torchaudio


@pytest.mark.parametrize("rule", [
    kaldi_fbank(16000, 128), MelRule(), MelRule(rate_hz=16000, frame=512, fft=512, scale="htk", area=False, log="dB")],
    ids=["kaldi", "whisper", "htk"])
def test_torchaudio_computes_the_same_mel_frames(rule):
    torchaudio()
    samples = torch.from_numpy(sound(16000, 1.0))
    other = type(rule)(**{name: getattr(rule, name) for name in rule.__slots__} | {"backend": "torchaudio"})
    ours, theirs = rule(samples), other(samples)
    loud = ours > ours.amax() - (6 if rule.log == "log10" else 14 if rule.log == "ln" else 60)
    close(torch.where(loud, ours, 0), torch.where(loud, theirs, 0), 2e-3)  # in float32 what is faint is noise
    assert loud.float().mean() > 0.5


@pytest.mark.parametrize("rates", [(48000, 16000), (16000, 48000), (44100, 16000)])
def test_torchaudio_resamples_the_same(rates):
    torchaudio()
    samples = torch.from_numpy(sound(rates[0], 0.3))
    close(resample(samples, *rates), resample(samples, *rates, backend="torchaudio"), 1e-5)


def test_without_torchaudio_its_backend_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchaudio", None)  # what an import of a missing module finds
    with pytest.raises(ImportError, match=r"pip install 'anymodal\[cuda\]'"):
        resample(torch.zeros(1, 160), 16000, 8000, backend="torchaudio")


# -- Whisper ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whisper():
    reference = WhisperForConditionalGeneration(WhisperConfig(**WHISPER))
    return filled(WhisperTower.from_pretrained_config(WHISPER), reference, lambda key: key.removeprefix("model."))


@pytest.mark.parametrize("bins, seconds", [(80, 1.0), (128, 30.0), (80, 7.123)])
def test_whispers_input_is_that_of_its_extractor(bins, seconds):
    keys = WhisperFeatureExtractor(feature_size=bins).to_dict()
    tower = WhisperTower.from_pretrained_config({**WHISPER, "num_mel_bins": bins}, preprocessor=keys)
    wave = sound(16000, seconds)
    theirs = WhisperFeatureExtractor(feature_size=bins)(list(wave), sampling_rate=16000).input_features
    close(tower.prepare(wave, 16000), theirs)


def test_whispers_features_are_those_of_the_whole_model(whisper):
    tower, reference = whisper
    mel = tower.prepare(sound(16000, 3.0), 16000)
    with torch.no_grad():
        theirs = reference.model.encoder(mel, output_hidden_states=True)
        ours, joint = tower(mel)
    assert ours.shape == (2, 1500, 16) and joint is None
    close(ours, theirs.last_hidden_state)
    for layer in (0, 1, -2):
        chosen, _ = filled(WhisperTower.from_pretrained_config(WHISPER, layer=layer), reference,
                           lambda key: key.removeprefix("model."))
        with torch.no_grad():
            again = reference.model.encoder(mel, output_hidden_states=True).hidden_states[layer]
            close(chosen(mel)[0], again)


def test_a_window_of_one_second_is_the_first_50_of_whispers_1500_steps(whisper):
    tower, reference = whisper
    window = WhisperTower.from_pretrained_config(WHISPER, window_s=1.0).eval()
    window.load_state_dict(tower.state_dict())
    wave = sound(16000, 1.0)
    silence = np.concatenate([wave, np.zeros((2, 29 * 16000), np.float32)], 1)
    with torch.no_grad():
        cut, whole = window(window.prepare(wave, 16000))[0], tower(tower.prepare(silence, 16000))[0]
    assert cut.shape == (2, 50, 16)
    close(cut, whole[:, :50], 0)


def test_whisper_padded_less_is_cheaper_and_says_other_numbers(whisper):
    tower, _ = whisper
    short = WhisperTower.from_pretrained_config(WHISPER, window_s=1.0, pad_s=2.0).eval()
    short.load_state_dict(tower.state_dict())
    wave = sound(16000, 1.0)
    mel, full = short.prepare(wave, 16000), tower.prepare(wave, 16000)
    assert mel.shape == (2, 80, 200)
    close(mel[:, :, :190], full[:, :, :190])
    with torch.no_grad():
        ours, theirs = short(mel)[0], tower(full)[0][:, :50]
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() > 1e-4


@pytest.mark.parametrize("options, said", [({"joint": True}, "no joint"), ({"select": "pooled"}, "neither pools"),
                                           ({"layer": 4}, "layer 4 of a tower with 3"), ({"pad_s": 31.0}, "than the 30 s"),
                                           ({"preprocessor": {"feature_size": 128}}, "128 mel bins, the encoder takes 80")])
def test_whisper_says_what_it_cannot_do(options, said):
    with pytest.raises(ValueError, match=said):
        WhisperTower.from_pretrained_config(WHISPER, **options)


def test_samples_that_no_encoder_can_use_are_refused(whisper):
    tower, _ = whisper
    with pytest.raises(ValueError, match="30.1 s are more than the 30 s"):
        tower.prepare(np.zeros((1, 481600), np.float32), 16000)
    with pytest.raises(ValueError, match="mono float"):
        tower.prepare(np.zeros((1, 16000), np.int16), 16000)
    with pytest.raises(ValueError, match="mono float"):
        tower.prepare(np.zeros(16000, np.float32), 16000)
    with pytest.raises(ValueError, match="not finite"):
        tower.prepare(np.full((1, 16000), np.nan, np.float32), 16000)


def test_another_rate_is_resampled_on_the_way(whisper):
    tower, _ = whisper
    at48 = tower.prepare(sound(48000, 1.0), 48000)
    close(at48, tower.prepare(resample(torch.from_numpy(sound(48000, 1.0)), 48000, 16000), 16000), 0)


# -- AST -------------------------------------------------------------------------------------------------------


def ast_names(key: str) -> str:
    for pattern, to in AudioSpectrogramTower.renames:
        key = re.sub(pattern, to, key.replace("audio_spectrogram_transformer.", "model."))
    return key


@pytest.mark.parametrize("length, seconds", [(1024, 10.24), (1024, 1.0), (128, 1.0)])
def test_asts_input_is_that_of_its_extractor(length, seconds):
    extractor = ASTFeatureExtractor(max_length=length)
    tower = AudioSpectrogramTower.from_pretrained_config({**AST, "max_length": length}, preprocessor=extractor.to_dict())
    wave = sound(16000, seconds)
    theirs = extractor(list(wave), sampling_rate=16000).input_values
    close(tower.prepare(wave, 16000), np.stack(theirs), 2e-4 if is_speech_available() else 1e-5)  # torchaudio: in float32


def test_asts_features_are_those_of_the_published_model(tmp_path):
    from safetensors.torch import load_file

    reference = ASTForAudioClassification(ASTConfig(**AST))
    reference.save_pretrained(tmp_path)
    state = {ast_names(key): value for key, value in load_file(tmp_path / "model.safetensors").items()}
    tower = AudioSpectrogramTower.from_pretrained_config(AST).eval()
    tower.load_state_dict({key: value for key, value in state.items() if not key.startswith("classifier.")})
    mel = tower.prepare(sound(16000, 1.2), 16000)
    with torch.no_grad():
        theirs = reference.eval().audio_spectrogram_transformer(mel, output_hidden_states=True)
        close(tower(mel)[0], theirs.last_hidden_state[:, 2:])
        for layer in (0, 1, 2):
            chosen = AudioSpectrogramTower.from_pretrained_config(AST, layer=layer).eval()
            chosen.load_state_dict(tower.state_dict())
            close(chosen(mel)[0], theirs.hidden_states[layer][:, 2:])
        pooled = AudioSpectrogramTower.from_pretrained_config(AST, select="pooled").eval()
        pooled.load_state_dict(tower.state_dict())
        close(pooled(mel)[0][:, 0], theirs.pooler_output)


def test_a_window_of_one_second_keeps_asts_patches_that_lie_in_it():
    torch.manual_seed(1)
    tower, _ = filled(AudioSpectrogramTower.from_pretrained_config({**AST, "max_length": 1024}),
                      ASTModel(ASTConfig(**{**AST, "max_length": 1024})), lambda key: f"model.{key}")
    window = AudioSpectrogramTower.from_pretrained_config({**AST, "max_length": 1024}, window_s=1.0).eval()
    window.load_state_dict(tower.state_dict())
    mel = tower.prepare(sound(16000, 1.0), 16000)
    with torch.no_grad():
        whole, cut = tower(mel)[0], window(mel)[0]
    assert whole.shape == (2, 12 * 101, 16) and cut.shape == (2, 12 * 9, 16)  # 9 patches within 98 frames
    close(cut, whole.unflatten(1, (12, 101))[:, :, :9].flatten(1, 2), 0)
    assert (mel[:, 98:] == mel[0, 98, 0]).all() and (mel[:, :98] != mel[0, 98, 0]).any()
    with pytest.raises(ValueError, match="1098 mel frames are more than the 1024"):
        tower.prepare(np.zeros((1, 176000), np.float32), 16000)


# -- CLAP ------------------------------------------------------------------------------------------------------


def clap_config(fusion: bool) -> dict:
    audio = {**CLAP["audio_config"], "enable_fusion": fusion, "fusion_type": "channel_map" if fusion else None,
             "patch_embed_input_channels": 1}
    if fusion:
        audio |= {"fusion_type": "aff_2d"}
    return {**CLAP, "audio_config": audio}


@pytest.mark.parametrize("truncation, padding, seconds", [
    ("fusion", "repeatpad", 1.0), ("rand_trunc", "repeatpad", 1.0), ("rand_trunc", "repeat", 3.0),
    ("rand_trunc", "pad", 3.0), ("fusion", "repeatpad", 10.0)])
def test_claps_input_is_that_of_its_extractor(truncation, padding, seconds):
    extractor = ClapFeatureExtractor(truncation=truncation, padding=padding)
    tower = ClapTower.from_pretrained_config(clap_config(truncation == "fusion"), preprocessor=extractor.to_dict())
    wave = sound(48000, seconds, clips=1)
    theirs = extractor(list(wave), sampling_rate=48000, return_tensors="np").input_features
    ours = tower.prepare(wave, 48000)
    assert ours.shape == theirs.shape
    close(ours, theirs, 1e-4)  # dB, of which there are 100 between silence and a loud tone


@pytest.mark.parametrize("fusion", [False, True])
def test_claps_features_are_those_of_the_whole_model(fusion):
    config = clap_config(fusion)
    keys = ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc").to_dict()
    whole = ClapConfig(**config).audio_config
    whole.projection_dim = config["projection_dim"]
    tower, reference = filled(ClapTower.from_pretrained_config(config, preprocessor=keys, joint=True),
                              ClapAudioModelWithProjection(whole))
    mel = tower.prepare(sound(48000, 1.0), 48000)
    with torch.no_grad():
        theirs = reference(input_features=mel, is_longer=torch.ones(2, 1, dtype=torch.bool))
        ours, joint = tower(mel)
    assert ours.shape == (2, 64, 64)
    close(ours, theirs.last_hidden_state.permute(0, 3, 2, 1).flatten(1, 2))
    close(joint, torch.nn.functional.normalize(theirs.audio_embeds, dim=-1))
    window = ClapTower.from_pretrained_config(config, preprocessor=keys, window_s=1.0).eval()
    window.load_state_dict({k: v for k, v in tower.state_dict().items() if not k.startswith("audio_projection.")})
    with torch.no_grad():
        close(window(mel)[0], ours[:, : 4 * 2], 0)  # 3.2 of 32 steps, each of 2 bands


@pytest.mark.parametrize("options, said", [({"layer": -2}, "only its own output"), ({"pad_s": 2.0}, "cannot be chosen"),
                                           ({"preprocessor": {"truncation": "fusion"}}, "different checkpoints"),
                                           ({"preprocessor": {"truncation": "rand_trunc", "padding": "loop"}}, "'loop'")])
def test_clap_says_what_it_cannot_do(options, said):
    with pytest.raises(ValueError, match=said):
        ClapTower.from_pretrained_config(clap_config(False), **options)


def test_clap_refuses_clips_that_its_extractor_would_cut_by_lot():
    tower = ClapTower.from_pretrained_config(clap_config(False), preprocessor={"truncation": "rand_trunc"})
    with pytest.raises(ValueError, match="11 s are more than the 10 s"):
        tower.prepare(np.zeros((1, 528000), np.float32), 48000)


# -- PE-Audio --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [48000, 50000, 1000])
def test_pe_audios_input_is_that_of_its_extractor(samples):
    extractor = PeAudioFeatureExtractor()
    tower = PeAudioTower.from_pretrained_config(PE, preprocessor=extractor.to_dict())
    wave = sound(48000, samples / 48000, clips=1)
    theirs = extractor(wave[0], sampling_rate=48000).input_values
    ours = tower.prepare(wave, 48000)
    assert ours.shape == (1, 1, math.ceil(samples / 1920) * 1920)
    close(ours[0, 0], np.asarray(theirs).reshape(-1), 0)


def test_pe_audios_features_are_those_of_the_whole_model():
    reference = PeAudioModel(PeAudioConfig(**PE))
    tower, reference = filled(PeAudioTower.from_pretrained_config(PE, joint=True), reference)
    x = tower.prepare(sound(48000, 0.5), 48000)
    with torch.no_grad():
        theirs = reference.audio_encoder(x, padding_mask=torch.ones(2, x.shape[2], dtype=torch.long),
                                         output_hidden_states=True)
        ours, joint = tower(x)
        assert ours.shape == (2, 13, 16)
        close(ours, theirs.last_hidden_state)
        close(joint, torch.nn.functional.normalize(reference.audio_head(theirs.pooler_output), dim=-1))
        own = {key: value for key, value in tower.state_dict().items() if key.startswith("audio_encoder.")}
        for options, wanted in (({"select": "pooled"}, theirs.pooler_output[:, None]),
                                ({"layer": 0}, theirs.hidden_states[0][:, 1:]),
                                ({"layer": 1}, theirs.hidden_states[1][:, 1:]),
                                ({"window_s": 0.2}, theirs.last_hidden_state[:, :5])):
            chosen = PeAudioTower.from_pretrained_config(PE, **options).eval()
            chosen.load_state_dict(own)
            close(chosen(x)[0], wanted)


def test_pe_audio_is_found_within_pe_av():
    inside = {"model_type": "pe_audio_video", "audio_config": {"model_type": "pe_audio", **PE}}
    tower, alone = (PeAudioTower.from_pretrained_config(config, joint=True) for config in (inside, PE))
    assert {k: v.shape for k, v in tower.state_dict().items()} == {k: v.shape for k, v in alone.state_dict().items()}


def test_a_window_of_pe_audio_stands_alone():
    """The same second within a longer clip has other features: windows are encoded one by one by design."""
    tower, _ = filled(PeAudioTower.from_pretrained_config(PE), PeAudioModel(PeAudioConfig(**PE)))
    wave = sound(48000, 0.8)
    with torch.no_grad():
        whole = tower(tower.prepare(wave, 48000))[0]
        alone = tower(tower.prepare(wave[:, :19200], 48000))[0]
    assert alone.shape == (2, 10, 16) and (whole[:, :10] - alone).abs().max() > 1e-4


def test_pe_audio_refuses_what_cannot_be_reflected():
    tower = PeAudioTower.from_pretrained_config(PE)
    with pytest.raises(ValueError, match="960 samples are too few: at least 961"):
        tower.prepare(np.zeros((1, 960), np.float32), 48000)
    with pytest.raises(ValueError, match="joint needs the checkpoint's whole config"):
        PeAudioTower.from_pretrained_config(PE["audio_config"], joint=True)


# -- all of them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong, said", [({"select": "patch"}, "'patch' is none of sequence, pooled"),
                                         ({"select": "pooled", "layer": 1}, "from the last layer"),
                                         ({"window_s": 0.0}, "window_s 0.0 must be more than 0"),
                                         ({"backend": "librosa"}, "'librosa'")])
def test_options_check_themselves(wrong, said):
    with pytest.raises(ValueError, match=said):
        AudioTowerConfig(**wrong)


@pytest.mark.parametrize("reference, tower, config, tensors", [
    (lambda: WhisperForConditionalGeneration(WhisperConfig(**WHISPER)), WhisperTower, WHISPER,
     {"model.encoder.": "encoder."}),
    (lambda: ASTForAudioClassification(ASTConfig(**AST)), AudioSpectrogramTower, AST,
     {"audio_spectrogram_transformer.": "model."}),
    (lambda: ClapModel(ClapConfig(**clap_config(False))), ClapTower, clap_config(False),
     {"audio_model.": "audio_model.", "audio_projection.": "audio_projection."}),
    (lambda: PeAudioModel(PeAudioConfig(**PE)), PeAudioTower, PE,
     {"audio_encoder.": "audio_encoder.", "audio_head.": "audio_head."})], ids=["whisper", "ast", "clap", "pe_audio"])
def test_published_files_fill_the_towers_and_nothing_is_left(reference, tower, config, tensors, tmp_path):
    model = reference()
    model.save_pretrained(tmp_path)
    joint = len(tensors) > 1
    keys = {"preprocessor": {"truncation": "rand_trunc"}} if tower is ClapTower else {}
    with unfilled():
        made = tower.from_pretrained_config(Checkpoint(tmp_path).config, joint=joint, **keys)
    report = Checkpoint(tmp_path).fill(made, tensors, renames=getattr(made, "renames", ()))
    assert not any(t.is_meta for t in made.state_dict().values())
    assert set(report.read) == {k for k in Checkpoint(tmp_path).keys if k.startswith(tuple(tensors))}
    x = made.prepare(sound(made.rate_hz, 0.5), made.rate_hz)
    again = tower.from_pretrained_config(config, joint=joint, **keys)
    again.load_state_dict(made.state_dict())
    with torch.no_grad():
        close(made.eval()(x)[0], again.eval()(x)[0], 0)


@pytest.mark.parametrize("tower, config, rate", [(WhisperTower, WHISPER, 16000), (AudioSpectrogramTower, AST, 16000),
                                                 (PeAudioTower, PE, 48000)])
def test_bf16_stays_near_and_rows_do_not_depend_on_their_batch(tower, config, rate):
    torch.manual_seed(0)
    model = tower.from_pretrained_config(config, window_s=0.5).eval()
    x = model.prepare(sound(rate, 0.5), rate)
    with torch.no_grad():
        both, alone = model(x)[0], model(x[1:])[0]
        low = model.to(torch.bfloat16)(x)[0]
    close(both[1:], alone)
    assert low.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(low.float(), both, dim=-1).min() > 0.99
