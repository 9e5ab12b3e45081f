"""Published vision towers against transformers' own models and processors, on tiny random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from encoders.clip import ClipTower
from encoders.dinov2 import Dinov2Tower
from encoders.eva import EvaTower
from encoders.preprocess import PatchRule, PictureRule
from encoders.siglip import NaflexTower, SiglipTower

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": 14}
CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56},
        "crop_size": {"height": 56, "width": 56}}
BLIP = {"image_processor_type": "BlipImageProcessor", "size": {"height": 56, "width": 56}}
SHAPES = [(2, 61, 83), (2, 120, 47), (1, 56, 56), (1, 30, 41), (1, 301, 20)]


def frames(count: int, height: int, width: int) -> np.ndarray:
    """Smooth colours and noise: what interpolates and what rings."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], -1)
    return np.stack([np.clip(smooth + rng.normal(0, 20 * i, smooth.shape), 0, 255) for i in range(count)]).astype(np.uint8)


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """Random in every tensor: transformers leaves biases and gains at values that would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def reference(name: str, config: dict):
    """transformers' processor on Pillow."""
    return getattr(transformers, f"{name}ImageProcessorPil")(**{k: v for k, v in config.items() if "type" not in k})


@pytest.mark.parametrize(("name", "config"), [
    ("CLIP", CLIP),
    ("CLIP", {"crop_size": 40, "do_center_crop": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor",
              "resample": 3, "size": 40}),  # OpenAI's own file of 2022
    ("CLIP", {**CLIP, "crop_size": {"height": 61, "width": 70}}),  # larger than what is resized: black around it
    ("Llava", {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "size": {"shortest_edge": 42},
               "crop_size": {"height": 42, "width": 42}}),
    ("Blip", BLIP),
    ("Siglip", {"image_processor_type": "SiglipImageProcessor", "size": {"height": 48, "width": 48}, "resample": 3,
                "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 0.00392156862745098}),
    ("Siglip", {"image_processor_type": "SiglipImageProcessor", "size": {"height": 48, "width": 32}, "resample": 2}),
    ("Bit", {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}, "resample": 3,
             "crop_size": {"height": 56, "width": 56}, "image_mean": [0.485, 0.456, 0.406],
             "image_std": [0.229, 0.224, 0.225]}),
    ("ViT", {"image_processor_type": "ViTImageProcessor", "size": {"height": 30, "width": 30}, "do_normalize": False}),
])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_the_published_processors_to_the_last_bit(name: str, config: dict, shape: tuple) -> None:
    given = frames(*shape)
    want = reference(name, config)(list(given), return_tensors="pt").pixel_values
    got = PictureRule.from_config({"image_processor_type": f"{name}ImageProcessor", **config})(given)
    assert got.dtype == want.dtype and torch.equal(got, want)


def test_padding_to_a_square_is_an_option_of_any_rule() -> None:
    given = frames(2, 61, 83)
    want = transformers.LlavaImageProcessorPil(do_pad=True, **{k: v for k, v in CLIP.items() if "type" not in k})
    got = PictureRule.from_config(CLIP, pad_square=True)(given)
    assert torch.equal(got, want(list(given), return_tensors="pt").pixel_values)


@pytest.mark.parametrize("shape", SHAPES)
def test_naflex_patches_are_the_published_processors(shape: tuple) -> None:
    given = frames(*shape)
    config = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 24}
    want = reference("Siglip2", config)(list(given), return_tensors="pt")
    pixels, real, grids = PatchRule.from_config(config)(given)
    assert torch.equal(pixels, want["pixel_values"]) and torch.equal(real, want["pixel_attention_mask"])
    assert torch.equal(grids, want["spatial_shapes"])


def test_frames_of_several_streams_share_a_batch() -> None:
    tower = awake(ClipTower.from_pretrained_config(clip_config(), preprocessor=CLIP))
    wide, tall = frames(2, 61, 83), frames(1, 120, 47)
    together = tower(tower.prepare([*wide, *tall]))[0]
    alone = torch.cat([tower(tower.prepare(wide))[0], tower(tower.prepare(tall))[0]])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("config", "message"), [
    ({"image_processor_type": "OwlImageProcessor"}, "no preprocessing rule for image_processor_type 'OwlImage"),
    ({"size": {"longest_edge": 20}}, "neither shortest_edge nor height and width"),
    ({"image_std": [1.0, 0.0, 1.0]}, "none of them 0"),
])
def test_a_rule_that_is_not_known_is_refused(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PictureRule.from_config(config)


def test_what_is_not_a_frame_is_refused() -> None:
    rule = PictureRule.from_config(CLIP)
    for wrong in (np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 8, 4), np.uint8), np.zeros((1, 0, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 .H, W, 3. RGB, found"):
            rule(wrong)
    with pytest.raises(ValueError, match="no frames"):
        rule([])
    with pytest.raises(ValueError, match="do not make one batch"):
        PictureRule.from_config({**CLIP, "do_center_crop": False})([*frames(1, 61, 83), *frames(1, 120, 47)])


# --- towers


def clip_config(**changes) -> dict:
    return CLIPVisionConfig(**{**SIZES, "image_size": 56, "projection_dim": 24, **changes}).to_dict()


def loaded(tower: torch.nn.Module, state: dict) -> torch.nn.Module:
    tower.load_state_dict(state)  # strict: its keys are the published ones
    return tower.eval()


@torch.inference_mode()
def check_layers(make, model, state: dict, pixels, extra: int, **inputs) -> None:
    """Every hidden state, and the model's own output, against `model`."""
    out = model(pixels, output_hidden_states=True, **inputs)
    for layer in (None, 0, 2, -2):
        for select in ("patch", "cls_patch", "cls") if extra else ("patch",):
            tower = loaded(make(layer=layer, select=select), state)
            want = out.last_hidden_state if layer is None else out.hidden_states[layer]
            want = {"patch": want[:, extra:], "cls_patch": want, "cls": want[:, :1]}[select]
            got, joint = tower(pixels)
            assert joint is None and got.shape[-1] == tower.width
            assert torch.allclose(got, want, atol=1e-5), (layer, select)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])  # OpenAI's, OpenCLIP's
def test_clip_tower_is_transformers_clip(act: str) -> None:
    model = awake(CLIPVisionModel(CLIPVisionConfig.from_dict(clip_config(hidden_act=act))))
    state = {f"vision_model.{k}": v for k, v in model.state_dict().items()}
    pixels = PictureRule.from_config(CLIP)(frames(2, 61, 83))

    def make(**options):
        return ClipTower.from_pretrained_config(clip_config(hidden_act=act), preprocessor=CLIP, **options)

    check_layers(make, model, state, pixels, 1)
    with torch.inference_mode():
        out = model(pixels)
        assert torch.allclose(loaded(make(select="pooled"), state)(pixels)[0][:, 0], out.pooler_output, atol=1e-5)
        normed = loaded(make(norm=True, select="cls_patch"), state)(pixels)[0]
        assert torch.allclose(normed, model.post_layernorm(out.last_hidden_state), atol=1e-5)


def test_clip_joint_embedding_has_the_whole_models_width() -> None:
    """OpenCLIP's files repeat a projection_dim in vision_config that is not the projection's."""
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    config = CLIPConfig(vision_config=clip_config(projection_dim=512), text_config=text, projection_dim=20)
    model = awake(CLIPModel(config))
    state = {k: v for k, v in model.state_dict().items() if k.startswith(("vision_model.", "visual_projection."))}
    tower = ClipTower.from_pretrained_config(config.to_dict(), preprocessor=CLIP, joint=True, layer=-2)
    pixels = tower.prepare(frames(2, 61, 83))
    with torch.inference_mode():
        features, joint = loaded(tower, state)(pixels)
        want = model.get_image_features(pixels).pooler_output
        hidden = model.vision_model(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    assert torch.allclose(joint, torch.nn.functional.normalize(want, dim=-1), atol=1e-5)
    assert torch.allclose(features, hidden, atol=1e-5)


def test_openclip_bigg_has_its_published_sizes() -> None:
    """Built without memory: 48 layers of 1664, projected to 1280."""
    with torch.device("meta"):
        tower = ClipTower.from_pretrained_config(
            {"projection_dim": 1280, "vision_config": {
                "hidden_act": "gelu", "hidden_size": 1664, "intermediate_size": 8192, "num_attention_heads": 16,
                "num_hidden_layers": 48, "patch_size": 14, "image_size": 224}}, joint=True)
    assert tower.width == 1664 and tower.visual_projection.out_features == 1280
    assert round(sum(p.numel() for p in tower.parameters()) / 1e6) == 1845


def test_layers_after_the_chosen_one_are_not_computed() -> None:
    tower = awake(ClipTower.from_pretrained_config(clip_config(), preprocessor=CLIP, layer=-2))
    ran = []
    for i, block in enumerate(tower.vision_model.encoder.layers):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    tower(tower.prepare(frames(1, 61, 83)))
    assert ran == [0, 1, 2]


@pytest.mark.parametrize("head", [True, False])
def test_siglip_tower_is_transformers_siglip(head: bool) -> None:
    config = transformers.SiglipVisionConfig(**SIZES, image_size=56, vision_use_head=head)
    model = awake(transformers.SiglipVisionModel(config))
    state = {f"vision_model.{k}": v for k, v in model.state_dict().items()}
    rule = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 56, "width": 56}}

    def make(**options):
        return SiglipTower.from_pretrained_config(config.to_dict(), preprocessor=rule, **options)

    pixels = make().prepare(frames(2, 61, 83))
    check_layers(make, model, state, pixels, 0)
    if not head:
        with pytest.raises(ValueError, match="without its pooling head"):
            make(select="pooled")
        return
    with torch.inference_mode():
        features, joint = loaded(make(select="pooled", joint=True), state)(pixels)
        want = model(pixels).pooler_output
    assert torch.allclose(features[:, 0], want, atol=1e-5)
    assert torch.allclose(joint, torch.nn.functional.normalize(want, dim=-1), atol=1e-5)


def test_naflex_tower_keeps_aspect_ratios_apart_in_one_batch() -> None:
    config = transformers.Siglip2VisionConfig(**{**SIZES, "patch_size": 8}, num_patches=16)
    model = awake(transformers.Siglip2VisionModel(config))
    state = {f"vision_model.{k}": v for k, v in model.state_dict().items()}
    rule = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 23}
    tower = loaded(NaflexTower.from_pretrained_config(config.to_dict(), preprocessor=rule, joint=True), state)
    given = [*frames(1, 61, 83), *frames(1, 120, 47)]
    with torch.inference_mode():
        features, joint = tower(tower.prepare(given))
        want = reference("Siglip2", rule)(given, return_tensors="pt")
        out = model(**want)
    real = want["pixel_attention_mask"].bool()
    assert features.shape[1] == int(real.sum(1).max()) < real.shape[1]
    for row in range(2):
        count = int(real[row].sum())
        assert torch.allclose(features[row, :count], out.last_hidden_state[row, :count], atol=1e-5)
        assert not features[row, count:].any()
    assert torch.allclose(joint, torch.nn.functional.normalize(out.pooler_output, dim=-1), atol=1e-5)


def test_eva_tower_is_blip2s() -> None:
    config = transformers.Blip2VisionConfig(**SIZES, image_size=56)
    model = awake(transformers.Blip2VisionModel(config))
    state = {f"vision_model.{k}": v for k, v in model.state_dict().items()}

    def make(**options):
        return EvaTower.from_pretrained_config(config.to_dict(), preprocessor=BLIP, **options)

    pixels = make().prepare(frames(2, 61, 83))
    check_layers(make, model, state, pixels, 1)
    with torch.inference_mode():
        got = loaded(make(select="pooled"), state)(pixels)[0][:, 0]
        assert torch.allclose(got, model(pixels).pooler_output, atol=1e-5)
    with torch.device("meta"):  # as published: 39 layers of 1408
        whole = EvaTower.from_pretrained_config({})
    assert whole.width == 1408 and round(sum(p.numel() for p in whole.parameters()) / 1e6) == 986


@pytest.mark.parametrize("registers", [0, 3])
def test_dinov2_tower_is_transformers_dinov2(registers: int) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": 14, "image_size": 84}
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers)
        model = awake(transformers.Dinov2WithRegistersModel(config))
    else:
        config = transformers.Dinov2Config(**sizes, use_swiglu_ffn=True)
        model = awake(transformers.Dinov2Model(config))
    rule = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}, "do_center_crop": True,
            "crop_size": {"height": 56, "width": 56}}  # its positions are resampled from 84 px

    def make(**options):
        return Dinov2Tower.from_pretrained_config(config.to_dict(), preprocessor=rule, **options)

    pixels = make().prepare(frames(2, 61, 83))
    check_layers(make, model, model.state_dict(), pixels, 1 + registers)
    with torch.inference_mode():
        got = loaded(make(select="pooled"), model.state_dict())(pixels)[0][:, 0]
        assert torch.allclose(got, model(pixels).pooler_output, atol=1e-5)


def test_a_tower_in_bfloat16_takes_the_same_pixels() -> None:
    tower = awake(ClipTower.from_pretrained_config(clip_config(), preprocessor=CLIP, joint=True))
    pixels = tower.prepare(frames(2, 61, 83))
    with torch.inference_mode():
        whole, _ = tower(pixels)
        half, joint = tower.to(torch.bfloat16)(pixels)
    assert half.dtype == torch.bfloat16 and joint.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(whole, half.float(), dim=-1).min() > 0.999


def test_a_compiled_tower_gives_the_same_and_keeps_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.nn.Module.compile  # without the C++ compiler, which takes a minute
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **given: compile_(self, backend="eager", **given))
    plain = awake(ClipTower.from_pretrained_config(clip_config(), preprocessor=CLIP))
    compiled = ClipTower.from_pretrained_config(clip_config(), preprocessor=CLIP, compile=True)
    loaded(compiled, plain.state_dict())
    pixels = plain.prepare(frames(2, 61, 83))
    with torch.inference_mode():
        assert torch.allclose(compiled(pixels)[0], plain(pixels)[0], atol=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    ({"layer": 5}, "it has hidden states -5 to 4"),
    ({"layer": -6}, "it has hidden states -5 to 4"),
    ({"select": "token"}, "select 'token' is none of patch"),
    ({"select": "pooled", "layer": -2}, "read from the last layer"),
])
def test_options_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipTower.from_pretrained_config(clip_config(), preprocessor=CLIP, **options)


def test_a_tower_without_its_preprocessor_refuses_frames() -> None:
    with pytest.raises(ValueError, match="no preprocessor was given"):
        ClipTower.from_pretrained_config(clip_config()).prepare(frames(1, 61, 83))
    with pytest.raises(ValueError, match="no joint space"):
        Dinov2Tower.from_pretrained_config({}, joint=True)
    with pytest.raises(ValueError, match="no class token"):
        SiglipTower.from_pretrained_config({**SIZES, "image_size": 56}, select="cls")
