"""ImageBind: the published names and shapes, towers equal to CLIP's where they are CLIP's, closed forms elsewhere."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from encoders.imagebind import HUGE, ImageBind, TrunkSize
from encoders.imagebind_input import MODALITIES, Inputs, text_ids

SMALL = {m: {"width": 16, "layers": 2, "heads": 2} for m in MODALITIES}
PX = 56


def small(modality: str, **options) -> ImageBind:
    """A small ImageBind of one modality with weights that all matter."""
    torch.manual_seed(MODALITIES.index(modality))
    inputs = {"image_px": PX, **options.pop("inputs", {})}
    model = ImageBind(ImageBind.Config(modality=modality, size=SMALL[modality], joint=8, inputs=inputs, vocab=60,
                                       max_text=10, **options))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def ready(modality: str, clips: int | None = None) -> torch.Tensor:
    torch.manual_seed(9)
    several = () if clips is None else (clips,)
    return {"vision": torch.randn(2, *several, 3, *(() if clips is None else (2,)), PX, PX),
            "text": torch.tensor([[57, 3, 9, 59, 0, 0, 0, 0, 0, 0], [57, 4, 5, 6, 7, 59, 0, 0, 0, 0]]),
            "audio": torch.randn(2, *(several or (1,)), 1, 128, 204), "depth": torch.randn(2, 1, PX, PX),
            "thermal": torch.randn(2, 1, PX, PX), "imu": torch.randn(2, 6, 2000)}[modality]


def close(ours, theirs, atol: float = 1e-5) -> None:
    torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), atol=atol, rtol=0)


# -- the published file ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def huge() -> dict[str, ImageBind]:
    """Every modality at its published size, without memory."""
    with torch.device("meta"):
        return {m: ImageBind(ImageBind.Config(modality=m)) for m in MODALITIES}


def test_all_towers_together_have_the_published_count_of_tensors_and_parameters(huge):
    assert sum(len(model.state_dict()) for model in huge.values()) == 1311
    assert len(set().union(*(model.state_dict() for model in huge.values()))) == 1311
    assert round(sum(p.numel() for model in huge.values() for p in model.parameters()) / 1e6, 2) == 1200.78


@pytest.mark.parametrize("modality, millions", [("vision", 632.8), ("text", 354.0), ("audio", 86.2), ("depth", 21.9),
                                                ("thermal", 86.2), ("imu", 19.6)])
def test_each_tower_has_the_published_size(huge, modality, millions):
    assert round(sum(p.numel() for p in huge[modality].parameters()) / 1e6, 1) == millions
    assert all(key.split(".")[1] == modality for key in huge[modality].state_dict())  # none of another tower is built


STEMS = {
    "modality_preprocessors.vision.cls_token": (1, 1, 1280),
    "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
    "modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 257, 1280),
    "modality_preprocessors.text.pos_embed": (1, 77, 1024),
    "modality_preprocessors.text.mask": (77, 77),
    "modality_preprocessors.text.token_embedding.weight": (49408, 1024),
    "modality_preprocessors.audio.cls_token": (1, 1, 768),
    "modality_preprocessors.audio.rgbt_stem.proj.weight": (768, 1, 16, 16),
    "modality_preprocessors.audio.rgbt_stem.norm_layer.weight": (768,),
    "modality_preprocessors.audio.rgbt_stem.norm_layer.bias": (768,),
    "modality_preprocessors.audio.pos_embedding_helper.pos_embed": (1, 229, 768),
    "modality_preprocessors.depth.cls_token": (1, 1, 384),
    "modality_preprocessors.depth.depth_stem.proj.weight": (384, 1, 16, 16),
    "modality_preprocessors.depth.depth_stem.norm_layer.weight": (384,),
    "modality_preprocessors.depth.depth_stem.norm_layer.bias": (384,),
    "modality_preprocessors.depth.pos_embedding_helper.pos_embed": (1, 197, 384),
    "modality_preprocessors.thermal.cls_token": (1, 1, 768),
    "modality_preprocessors.thermal.rgbt_stem.proj.weight": (768, 1, 16, 16),
    "modality_preprocessors.thermal.rgbt_stem.norm_layer.weight": (768,),
    "modality_preprocessors.thermal.rgbt_stem.norm_layer.bias": (768,),
    "modality_preprocessors.thermal.pos_embedding_helper.pos_embed": (1, 197, 768),
    "modality_preprocessors.imu.cls_token": (1, 1, 512),
    "modality_preprocessors.imu.pos_embed": (1, 251, 512),
    "modality_preprocessors.imu.imu_stem.proj.weight": (512, 48),
    "modality_preprocessors.imu.imu_stem.norm_layer.weight": (512,),
    "modality_preprocessors.imu.imu_stem.norm_layer.bias": (512,),
    "modality_trunks.vision.pre_transformer_layer.0.weight": (1280,),
    "modality_trunks.vision.pre_transformer_layer.0.bias": (1280,),
    "modality_heads.text.proj.0.weight": (1024,), "modality_heads.text.proj.0.bias": (1024,),
    "modality_heads.text.proj.1.weight": (1024, 1024),
    "modality_heads.imu.3.weight": (1024, 512),
}


def published_shapes(modality: str) -> dict[str, tuple[int, ...]]:
    """Written down from the description of the published file, beside the code that is tested."""
    width, layers = {"vision": (1280, 32), "text": (1024, 24), "audio": (768, 12), "depth": (384, 12), "thermal": (768, 12),
                     "imu": (512, 6)}[modality]
    found = {key: shape for key, shape in STEMS.items() if key.split(".")[1] == modality}
    block = {"attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
             "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,), "norm_1.weight": (width,),
             "norm_1.bias": (width,), "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,),
             "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,), "norm_2.weight": (width,),
             "norm_2.bias": (width,)}
    if modality not in ("vision", "text"):
        block |= {"attn.bias_k": (1, 1, width), "attn.bias_v": (1, 1, width)}
    found |= {f"modality_trunks.{modality}.blocks.{i}.{key}": shape for i in range(layers) for key, shape in block.items()}
    if modality != "text":
        found |= {f"modality_heads.{modality}.0.weight": (width,), f"modality_heads.{modality}.0.bias": (width,)}
        if modality != "imu":
            found[f"modality_heads.{modality}.2.weight"] = (1024, width)
    if modality != "vision":
        found[f"modality_postprocessors.{modality}.1.log_logit_scale"] = ()
    return found


@pytest.mark.parametrize("modality", MODALITIES)
def test_names_and_shapes_are_those_of_the_published_file(huge, modality):
    assert {key: tuple(t.shape) for key, t in huge[modality].state_dict().items()} == published_shapes(modality)


def test_a_file_of_that_layout_loads_strictly_and_a_foreign_tensor_does_not():
    model = small("audio")
    again = small("audio")
    again.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        again.load_state_dict({**model.state_dict(), "modality_trunks.audio.blocks.9.norm_1.bias": torch.zeros(16)})


# -- towers ----------------------------------------------------------------------------------------------------


def clip_blocks(state: dict, trunk: str, layers: int, prefix: str) -> dict:
    """A trunk's blocks under CLIP's names."""
    out = {}
    for i in range(layers):
        a, b = f"{trunk}.blocks.{i}", f"{prefix}.encoder.layers.{i}"
        for part in ("weight", "bias"):
            q, k, v = state[f"{a}.attn.in_proj_{part}"].chunk(3)
            out |= {f"{b}.self_attn.q_proj.{part}": q, f"{b}.self_attn.k_proj.{part}": k, f"{b}.self_attn.v_proj.{part}": v,
                    f"{b}.self_attn.out_proj.{part}": state[f"{a}.attn.out_proj.{part}"],
                    f"{b}.layer_norm1.{part}": state[f"{a}.norm_1.{part}"],
                    f"{b}.layer_norm2.{part}": state[f"{a}.norm_2.{part}"],
                    f"{b}.mlp.fc1.{part}": state[f"{a}.mlp.fc1.{part}"],
                    f"{b}.mlp.fc2.{part}": state[f"{a}.mlp.fc2.{part}"]}
    return out


def test_the_vision_tower_on_a_picture_is_clips():
    model = small("vision")
    state = model.state_dict()
    stem = "modality_preprocessors.vision"
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=PX, patch_size=14,
        projection_dim=8, hidden_act="gelu", layer_norm_eps=1e-6)).eval()
    theirs = clip_blocks(state, "modality_trunks.vision", 2, "vision_model") | {
        "vision_model.embeddings.class_embedding": state[f"{stem}.cls_token"][0, 0],
        "vision_model.embeddings.patch_embedding.weight": state[f"{stem}.rgbt_stem.proj.1.weight"].sum(2),
        "vision_model.embeddings.position_embedding.weight": state[f"{stem}.pos_embedding_helper.pos_embed"][0],
        "vision_model.pre_layrnorm.weight": state["modality_trunks.vision.pre_transformer_layer.0.weight"],
        "vision_model.pre_layrnorm.bias": state["modality_trunks.vision.pre_transformer_layer.0.bias"],
        "vision_model.post_layernorm.weight": state["modality_heads.vision.0.weight"],
        "vision_model.post_layernorm.bias": state["modality_heads.vision.0.bias"],
        "visual_projection.weight": state["modality_heads.vision.2.weight"]}
    clip.load_state_dict(theirs)
    x = ready("vision")
    with torch.no_grad():
        features, joint = model(x)
        wanted = nn.functional.normalize(clip(x).image_embeds, dim=-1)
    close(features[:, 0], wanted, 1e-6)
    close(joint, wanted, 1e-6)


def test_the_text_tower_is_clips_scaled():
    model = small("text")
    state = model.state_dict()
    clip = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=60, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, projection_dim=8,
        max_position_embeddings=10, hidden_act="gelu", layer_norm_eps=1e-6, bos_token_id=57, eos_token_id=59,
        pad_token_id=0)).eval()
    clip.load_state_dict(clip_blocks(state, "modality_trunks.text", 2, "text_model") | {
        "text_model.embeddings.token_embedding.weight": state["modality_preprocessors.text.token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["modality_preprocessors.text.pos_embed"][0],
        "text_model.final_layer_norm.weight": state["modality_heads.text.proj.0.weight"],
        "text_model.final_layer_norm.bias": state["modality_heads.text.proj.0.bias"],
        "text_projection.weight": state["modality_heads.text.proj.1.weight"]})
    with torch.no_grad():
        model.modality_postprocessors["text"][1].log_logit_scale.fill_(math.log(1 / 0.07))
        features, joint = model(ready("text"))
        wanted = nn.functional.normalize(clip(ready("text")).text_embeds, dim=-1)
        close(features[:, 0], wanted / 0.07, 5e-5)
        close(joint, wanted, 2e-6)
        model.modality_postprocessors["text"][1].log_logit_scale.fill_(9.0)
        close(model(ready("text"))[0][:, 0].norm(dim=-1), torch.full((2,), 100.0), 1e-3)  # a learnt scale has a limit


def test_attention_with_one_key_and_value_more_is_its_closed_form():
    """softmax([q k_1 .. q k_n, q b_k] / sqrt(d)) [v_1 .. v_n, b_v], head by head."""
    model = small("audio")
    block = model.modality_trunks["audio"].blocks[0]
    x = torch.randn(2, 7, 16)
    seen = block.norm_1(x)
    with torch.no_grad():
        q, k, v = (seen @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, -1)
        k = torch.cat([k, block.attn.bias_k.expand(2, 1, 16)], 1)
        v = torch.cat([v, block.attn.bias_v.expand(2, 1, 16)], 1)
        heads = []
        for h in (slice(0, 8), slice(8, 16)):
            weight = (q[..., h] @ k[..., h].transpose(1, 2) / math.sqrt(8)).softmax(-1)
            assert weight.shape == (2, 7, 8)
            heads.append(weight @ v[..., h])
        mixed = x + block.attn.out_proj(torch.cat(heads, -1))
        wanted = mixed + block.mlp["fc2"](nn.functional.gelu(block.mlp["fc1"](block.norm_2(mixed))))
        close(block(x, None), wanted, 1e-5)
        block.attn.bias_v.add_(1.0)
        assert (block(x, None) - wanted).abs().max() > 0.01


def test_the_stem_of_sound_has_12_times_19_overlapping_patches():
    model = small("audio", meaning="tokens")
    mel = ready("audio")[:, 0]
    stem = model.modality_preprocessors["audio"]
    with torch.no_grad():
        tokens = stem(mel)
        assert tokens.shape == (2, 1 + 12 * 19, 16)
        row, column = 3, 7
        patch = mel[0, 0, 10 * row : 10 * row + 16, 10 * column : 10 * column + 16]
        value = (stem.get_submodule("rgbt_stem")["proj"].weight[:, 0] * patch).sum((1, 2))
        value = stem.get_submodule("rgbt_stem")["norm_layer"](value)
        at = 1 + 19 * row + column
        close(tokens[0, at], value + stem.pos_embedding_helper["pos_embed"][0, at])


def test_the_stem_of_imu_cuts_8_rows_axis_by_axis():
    model = small("imu")
    rows, stem = ready("imu"), model.modality_preprocessors["imu"]
    with torch.no_grad():
        tokens = stem(rows)
        assert tokens.shape == (2, 251, 16)
        flat = torch.cat([rows[1, axis, 40:48] for axis in range(6)])
        value = stem.imu_stem["norm_layer"](stem.imu_stem["proj"](flat))
        close(tokens[1, 6], value + stem.pos_embed[0, 6])


def test_a_picture_is_a_film_that_stands_still():
    model, still = small("vision"), ready("vision")
    film = still[:, None, :, None].expand(-1, 1, -1, 2, -1, -1)
    with torch.no_grad():
        close(model(still)[0], model(film)[0], 0)
        moving = film.clone()
        moving[:, :, :, 1] = 0
        assert (model(moving)[0] - model(film)[0]).abs().max() > 1e-3


# -- the three meanings, and clips -----------------------------------------------------------------------------


@pytest.mark.parametrize("modality, scale", [("vision", 1.0), ("audio", 20.0), ("depth", 5.0), ("thermal", 10.0),
                                             ("imu", 5.0)])
def test_every_modality_has_its_own_scale(modality, scale):
    with torch.no_grad():
        features, joint = small(modality)(ready(modality))
    assert features.shape == (2, 1, 8)
    close(features.norm(dim=-1), torch.full((2, 1), scale), 1e-4)
    close(joint * scale, features[:, 0], 1e-4)


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_clips_are_averaged_after_scaling_and_not_normalised_again(modality):
    x = ready(modality, clips=3)
    model, each, unit = small(modality), small(modality, average=False), small(modality, meaning="unit")
    with torch.no_grad():
        mean, apart, again = model(x)[0], each(x)[0], unit(x)[0]
        alone = [model(x[:, i : i + 1])[0][:, 0] for i in range(3)]
    assert apart.shape == (2, 3, 1, 8)
    close(apart[:, :, 0], torch.stack(alone, 1))
    close(mean, apart.mean(1))
    assert (mean.norm(dim=-1) < apart.norm(dim=-1).min() - 1e-3).all()  # shorter than the scale, as the clips differ
    close(again, nn.functional.normalize(mean, dim=-1))
    close(again.norm(dim=-1), torch.ones(2, 1))


def test_tokens_are_the_trunks_without_the_head():
    model = small("audio", meaning="tokens")
    x = ready("audio", clips=2)
    with torch.no_grad():
        features, joint = model(x)
        trunk = model.modality_trunks["audio"](model.modality_preprocessors["audio"](x.flatten(0, 1)))
        again = small("audio")(x)[1]
    assert model.width == 16 and features.shape == (2, 229, 16)
    close(features, trunk.unflatten(0, (2, 2)).mean(1))
    close(joint, again)


@pytest.mark.parametrize("wrong, said", [({"modality": "touch"}, "'touch' is none of"), ({"meaning": "raw"}, "'raw'"),
                                         ({"size": {"width": 30, "heads": 4}}, "multiple of heads"),
                                         ({"inputs": {"crops": 2}}, "crops 2")])
def test_options_check_themselves(wrong, said):
    with pytest.raises(ValueError, match=said):
        ImageBind.Config(**wrong)


def test_a_small_size_leaves_the_rest_as_published():
    assert ImageBind.Config(modality="audio", size={"width": 24}).trunk == TrunkSize(
        width=24, layers=12, heads=12, patch=16, stride=10, channels=1)
    assert ImageBind.Config(modality="audio").trunk == HUGE["audio"]


def test_bf16_keeps_the_direction():
    model = small("depth")
    with torch.no_grad():
        exact, low = model(ready("depth"))[1], model.to(torch.bfloat16)(ready("depth"))[1]
    assert low.dtype == torch.float32 and (exact * low).sum(-1).min() > 0.995


# -- inputs ----------------------------------------------------------------------------------------------------


def wave(seconds: float, rate_hz: int = 16000) -> np.ndarray:
    rng = np.random.default_rng(3)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.1 + 0.4 * np.sin(2 * np.pi * 700 * t * (1 + t / 9))
    return (tone + 0.05 * rng.standard_normal((2, len(t)))).astype(np.float32)


def test_sound_becomes_kaldi_mel_frames_of_three_clips():
    samples = wave(7.0)
    out = Inputs().sound(samples, 16000)
    assert out.shape == (2, 3, 1, 128, 204)
    bank = mel_filter_bank(257, 128, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True)
    for clip, start_s in enumerate((0.0, 2.5, 5.0)):
        own = samples[1, int(start_s * 16000) : int((start_s + 2) * 16000)]
        mel = spectrogram(own - own.mean(), window_function(400, "hann", periodic=False), 400, 160, fft_length=512,
                          power=2.0, center=False, preemphasis=0.97, mel_filters=bank, log_mel="log",
                          mel_floor=1.192092955078125e-07, remove_dc_offset=True)
        assert mel.shape == (128, 198)
        mel = np.pad(mel, ((0, 0), (0, 6)))
        close(out[1, clip, 0], ((mel + 4.268) / 9.138).astype(np.float32), 1e-4)


def test_a_window_of_one_second_is_one_clip_filled_with_empty_frames():
    out = Inputs(clips=1).sound(wave(1.0), 16000)
    assert out.shape == (2, 1, 1, 128, 204)
    empty = 4.268 / 9.138
    assert (out[..., 98:] - empty).abs().max() < 1e-6 and (out[..., :98] - empty).abs().mean() > 0.05
    close(Inputs(clips=3).sound(wave(1.0), 16000)[:, 2], out[:, 0], 0)  # shorter than a clip: the same one again


def test_another_rate_is_resampled_first():
    close(Inputs(clips=1).sound(wave(1.0, 48000), 48000).shape, (2, 1, 1, 128, 204), 0)


def test_a_picture_is_scaled_by_its_shorter_side_and_cut_in_the_middle():
    from PIL import Image

    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (300, 401, 3), np.uint8)
    out = Inputs().pictures([frame])
    scaled = np.asarray(Image.fromarray(frame).resize((299, 224), Image.Resampling.BICUBIC))
    left = round((299 - 224) / 2)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    wanted = (scaled[:, left : left + 224] / 255 - mean) / std
    assert out.shape == (1, 3, 224, 224)
    close(out[0], torch.from_numpy(wanted).permute(2, 0, 1).float(), 1e-5)


def test_a_film_becomes_two_frames_of_each_clip_at_three_places():
    frames = np.zeros((1, 40, 32, 64, 3), np.uint8)
    frames[:] = np.arange(40, dtype=np.uint8)[:, None, None, None] * 6  # a frame's brightness says which it is
    frames[:, :, :, :20, 0] = 255
    inputs = Inputs(image_px=16)
    out = inputs.films(frames, 4.0)  # 10 s: clips begin at 0, 2, 4, 6, 8 s
    assert out.shape == (1, 15, 3, 2, 16, 16)
    level = out[0, :, 2, :, 8, 15] * 0.27577711 + 0.40821073
    close((level * 255 / 6).round().reshape(5, 3, 2)[:, 0], torch.tensor([[0.0, 7], [8, 15], [16, 23], [24, 31], [32, 39]]))
    red = out[0, :3, 0, 0, 8]
    assert red[0, 0] > red[0, 15] and (red[2] == red[2, 0]).all()  # the red lies at the left: not in the right crop
    middle = Inputs(image_px=16, crops=1, clips=1).films(frames, 4.0)
    close(middle[:, 0], out[:, 1], 0)
    assert inputs.films(frames[:, :1], 4.0).shape == (1, 15, 3, 2, 16, 16)  # one frame is all there is


def test_depth_and_thermal_pictures_are_scaled_and_cut():
    levels = np.linspace(0, 1, 64, dtype=np.float32)[None, None].repeat(48, 1)
    depth, heat = Inputs(image_px=16).measured("depth", levels), Inputs(image_px=16).measured("thermal", levels)
    assert depth.shape == heat.shape == (1, 1, 16, 16)
    close(depth, (heat - 0.0418) / 0.0295, 1e-4)
    assert (heat[0, 0].diff(dim=1) > 0).all() and heat.min() > 0.1 and heat.max() < 0.9


def test_levels_of_16_bits_become_values():
    inputs = Inputs(image_px=16, level_scale=0.01, level_offset=-273.15)
    warm = np.full((20, 20, 1), 30315, np.uint16)  # 30 degrees Celsius in hundredths of a kelvin
    close(inputs.prepare("thermal", [warm, warm]), torch.full((2, 1, 16, 16), 30.0), 1e-3)


def test_rows_of_imu_are_put_on_the_published_grid_and_the_last_is_held():
    rows = np.zeros((1, 50, 6), np.float32)
    rows[0, :, 0] = np.arange(50) / 50
    out = Inputs().imu(rows, 50.0)
    assert out.shape == (1, 6, 2000)  # 5 s at 400 Hz
    close(out[0, 0, :392], torch.arange(392) / 400, 1e-5)
    close(out[0, 0, 400:], torch.full((1600,), 0.98), 1e-5)


def test_texts_get_their_marks_and_long_ones_keep_their_end():
    words = {"a": 1, "dog": 2, "&": 3}
    ids = text_ids(["A  dog &amp; a dog", "dog " * 100], lambda text: [words[w] for w in text.split()])
    assert ids.shape == (2, 77) and ids[0, :8].tolist() == [49406, 1, 2, 3, 1, 2, 49407, 0]
    assert ids[1, 0] == 49406 and ids[1, -1] == 49407 and (ids[1, 1:-1] == 2).all()
    with pytest.raises(ValueError, match="a list of at least one"):
        text_ids("a dog", lambda text: [])


@pytest.mark.parametrize("modality, signals, rate, said", [
    ("audio", np.zeros((1, 16000), np.int16), 16000, "mono float"),
    ("audio", np.zeros((1, 16000), np.float32), None, "rate_hz"), ("imu", np.zeros((1, 9, 3), np.float32), 50, "T, 6"),
    ("depth", np.zeros((1, 9, 9, 3), np.float32), None, "depth"),
    ("vision", np.zeros((1, 9, 9, 4), np.uint8), None, "uint8"),
    ("vision", np.zeros((1, 2, 9, 9, 4), np.uint8), 4, "films are"), ("text", ["a"], None, "text_ids")])
def test_other_signals_are_refused(modality, signals, rate, said):
    with pytest.raises(ValueError, match=said):
        Inputs().prepare(modality, signals, rate)


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_prepared_can_be_encoded(modality):
    signals = {"vision": np.zeros((2, 60, 80, 3), np.uint8), "audio": wave(1.0), "depth": np.zeros((2, 60, 80), np.float32),
               "thermal": np.zeros((2, 60, 80), np.float32), "imu": np.zeros((2, 250, 6), np.float32)}
    model = small(modality)
    x = ready("text") if modality == "text" else model.prepare(signals[modality], {"audio": 16000, "imu": 50}.get(modality))
    with torch.no_grad():
        features, joint = model(x)
    assert features.shape == (2, 1, 8) and torch.isfinite(features).all() and joint.shape == (2, 8)
