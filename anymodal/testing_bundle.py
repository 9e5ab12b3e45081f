"""A bundle for tests that must not depend on trained weights: real parts, very small, with random weights.

    path = random_bundle(tmp_path)        a YAML and its weights folder, in the layout of a shipped bundle
    agent = anymodal.load(path)           answers gibberish, which differs from clip to clip and question to question
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from anymodal.config import configs_dir, parse_spec

WIDTH = 32
SPREAD = 10.0  # weights are this many times their usual random size, so that answers depend on what was seen


def random_bundle(folder: str | Path, *, name: str = "random", seed: int = 0,
                  runtime: dict[str, Any] | None = None, senses: tuple[str, ...] = ()) -> Path:
    """Write `name`.yaml and its weights into `folder`; returns the YAML's path. `runtime`: the bundle's own key.
    `senses`: names of further ones, of 16-bit pictures in millimetres."""
    import torch
    from safetensors.torch import save_file

    from anymodal.config import build_part
    from anymodal.perception import Perception

    folder = Path(folder)
    raw = _description(name, senses) | ({"runtime": runtime} if runtime else {})
    weights = folder / name
    weights.mkdir(parents=True, exist_ok=True)
    shutil.copy(configs_dir() / "tiny" / "tokenizer.json", weights / "tokenizer.json")
    spec = parse_spec(raw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lm = build_part(spec.language)
        parts = {"perception": Perception(spec, lm.width), "language": lm.model}
        words = lm.model.get_input_embeddings().weight  # also what the logits are made of
        for parameter in (p for part in parts.values() for p in part.parameters()):
            if parameter.dim() > 1 and parameter is not words:
                parameter.data.mul_(SPREAD)
    for file, part in parts.items():
        state = {key: value.contiguous() for key, value in part.state_dict().items() if key != "lm_head.weight"}
        save_file(state, weights / f"{file}.safetensors")
    (weights / "calibration.json").write_text('{"scale": 0.05, "offset": 2.0}', encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


def _description(name: str, senses: tuple[str, ...]) -> dict[str, Any]:
    small = {"width": WIDTH, "layers": 1, "heads": 2, "joint": 16}

    def adapter(queries: int, steps: int, patches: int) -> dict[str, Any]:
        return {"use": "anymodal.adapters.qformer:QFormer", "queries": queries, "steps": steps,
                "patches": patches, **small}

    further = {"usual": False, "rate_hz": 4, "size_px": 24, "pixels": "gray16", "level": {"unit": "m", "scale": 0.001},
               "encoder": {"use": "encoders.raster:RasterTransformer", "image_px": 24, "patch_px": 12, **small},
               "adapter": adapter(2, 5, 4)}
    return {
        "name": name,
        "window_s": 1.0,
        "modalities": {
            "video": {"rate_hz": 4, "size_px": 32, "adapter": adapter(2, 5, 4),
                      "encoder": {"use": "encoders.clip:ClipVision", "image_px": 32, "patch_px": 16, "mlp_width": 64,
                                  **small}},
            "audio": {"rate_hz": 16000, "adapter": adapter(1, 1, 25),
                      "encoder": {"use": "encoders.logmel:LogMelTransformer", "mel_bins": 16, **small}},
            "imu": {"rate_hz": 50, "adapter": adapter(1, 1, 10),
                    "axes": ["accel_x_m_s2", "accel_y_m_s2", "accel_z_m_s2", "gyro_x_rad_s", "gyro_y_rad_s",
                             "gyro_z_rad_s"],
                    "encoder": {"use": "encoders.imu:ImuTransformer", **small}},
            **dict.fromkeys(senses, further),
        },
        "language": {"use": "anymodal.language.causal:CausalLM", "width": WIDTH, "layers": 2, "heads": 2,
                     "mlp_width": 64},
        "prompt": {"order": ["video", "audio", "imu", *senses], "max_answer_tokens": 12},
        "weights": name,
        "dtype": "float32",
    }
