"""Published models against transformers alone, same weights: encoders, loading, and on a GPU the language model.

    python -m benchmarks.models [--case encoders] [--case loading] [--case scaling] [--case gpu] [--device cuda] [--quick]
                                [--json FILE]

encoders   windows/s of every published tower that transformers has, too, at random weights: its batch, what prepares its
           input, and several streams that share a batch: `benchmarks/models_encoders.py`. `--device` is for this case.
loading    seconds and peak memory of perception and of the mind, each in a process of its own, against `from_pretrained`
           of the whole model in one, its weights read once, as it maps them first. The target is a part's share of the
           weights and a tenth.
scaling    answers of the default bundle to frames scaled in decode and to full ones: `benchmarks/models_scaling.py`.
gpu        ViT-L and a language model of the size of 7B, both random and in bf16: share of the measured matmul peak, first
           token and tokens/s. Without a GPU it says so and measures nothing.
Ratios are ours / baseline, contenders take turns within this one run. `--quick` takes tiny models.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from benchmarks.models_encoders import BASE, LARGE, TINY, encoders, towers  # noqa: E402
from benchmarks.models_scaling import scaling  # noqa: E402
from benchmarks.report import Row, best_of_interleaved, parser, report  # noqa: E402

LLAMA_7B = {"vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "max_position_embeddings": 4096}


# --- loading ---------------------------------------------------------------------------------------------------------

_PEAK = """
import sys, time; from pathlib import Path
import torch, anymodal.bundle, anymodal.published, anymodal.language.pretrained, encoders.clip, anymodal.adapters.mlp
from transformers import CLIPVisionModel, LlamaForCausalLM
if sys.argv[2] == 'whole': from transformers import LlavaForConditionalGeneration
def status(key): return int(Path('/proc/self/status').read_text().split(key + ':')[1].split()[0]) * 1024
def work():
    if sys.argv[2] == 'whole':
        model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.float32)
        return model, [float(p.sum()) for p in model.parameters()]  # it only maps them: what is used comes into memory
    bundle = anymodal.bundle.load_bundle(sys.argv[1]); getattr(bundle, sys.argv[2]); return bundle
Path('/proc/self/clear_refs').write_text('5')
before, began = status('VmRSS'), time.perf_counter()
kept = work()
took = time.perf_counter() - began
share = sum(r.nbytes for r in kept.published.reports.values()) if sys.argv[2] != 'whole' else 0
print(took, status('VmHWM') - before, share)
"""


def loading(quick: bool, repeats: int) -> list[Row]:
    """Each in a fresh process; the fastest and the smallest of the repeats."""
    from anymodal.testing_checkpoints import make_llava

    with tempfile.TemporaryDirectory() as folder:
        text = {} if quick else {"vocab_size": 32064, "hidden_size": 1024, "intermediate_size": 2816,
                                 "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 16}
        vision = {} if quick else BASE
        made = make_llava(Path(folder) / "llava", vision=vision, **text)
        size = (made / "model.safetensors").stat().st_size
        found = {part: [_loaded(made, part) for _ in range(repeats)] for part in ("whole", "perception", "mind")}
    best = {part: [min(column) for column in zip(*rows, strict=True)] for part, rows in found.items()}
    rows, (whole_s, whole_bytes, _) = [], best["whole"]
    for part in ("perception", "mind"):
        took_s, peak, share = best[part]
        rows.append(Row("load_seconds", took_s, whole_s, took_s / whole_s, None, "s", part, True))
        rows.append(Row("load_peak_memory", peak / 1e6, whole_bytes / 1e6, peak / whole_bytes, 1.1 * share / size, "MB",
                        part, True))
    return rows


def _loaded(folder: Path, part: str) -> tuple[float, float, float]:
    done = subprocess.run([sys.executable, "-c", _PEAK, str(folder), part], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).resolve().parent.parent)
    return tuple(map(float, done.stdout.split()[-3:]))


# --- on a GPU --------------------------------------------------------------------------------------------------------

@torch.inference_mode()
def gpu(quick: bool, repeats: int) -> list[Row]:
    """Shares of the matmul peak measured here, and the language model's first token and tokens/s."""
    if not torch.cuda.is_available():
        print("gpu: torch sees no CUDA GPU, so nothing was measured", file=sys.stderr)
        return []
    from transformers import LlamaConfig, LlamaForCausalLM

    from anymodal.language.forks import Forks, Trunk

    device, dtype = "cuda", torch.bfloat16
    peak = _matmul_peak(device, dtype, repeats)
    rows = []
    torch.set_default_dtype(dtype)
    try:
        for name, ours, _ in towers(TINY if quick else LARGE, 32 if quick else 224):
            ours = ours.to(device)
            side = 32 if quick else 224
            pixels = torch.randn(8 if quick else 128, 3, side, side, device=device, dtype=dtype)
            [took_s] = best_of_interleaved([_waited(lambda m=ours, x=pixels: m(x))], repeats)
            flops = 2 * sum(p.numel() for p in ours.parameters() if p.dim() > 1) * len(pixels) * (side // 16) ** 2
            rows.append(Row("vit_share_of_peak", flops / took_s / 1e12, peak / 1e12, flops / took_s / peak, None, "TFLOP/s",
                            name))
        config = LlamaConfig(**({**TINY, "vocab_size": 512} if quick else LLAMA_7B), attn_implementation="sdpa")
        with torch.device(device):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    width, prefix = config.hidden_size, 256 if quick else 2048
    embeds = torch.randn(prefix, width, device=device, dtype=dtype)
    trunk = Trunk(model, prefix)
    [filled_s] = best_of_interleaved([_waited(lambda: (trunk.clear(), trunk.extend(embeds)))], repeats)
    flops = 2 * sum(p.numel() for p in model.parameters() if p.dim() > 1) * prefix
    rows.append(Row("lm_prefill_share_of_peak", flops / filled_s / 1e12, peak / 1e12, flops / filled_s / peak, None,
                    "TFLOP/s"))
    asked = embeds[:32]
    whole = torch.cat([embeds, asked])[None]
    first = [_waited(lambda: Forks(trunk, [asked]).logits), _waited(lambda: model(inputs_embeds=whole, logits_to_keep=1))]
    ours_s, theirs_s = best_of_interleaved(first, repeats)
    rows.append(Row("lm_first_token", ours_s, theirs_s, theirs_s / ours_s, 1.0, "s"))
    forks, count = Forks(trunk, [asked]), 8 if quick else 64
    token = torch.zeros(1, dtype=torch.long, device=device)
    ours_s = _timed(lambda: [forks.step(token) for _ in range(count)])
    cached = model(inputs_embeds=whole, use_cache=True, logits_to_keep=1).past_key_values
    theirs_s = _timed(lambda: [model(input_ids=token[None], past_key_values=cached, use_cache=True) for _ in range(count)])
    rows.append(Row("lm_tokens_per_s", count / ours_s, count / theirs_s, theirs_s / ours_s, 1.0, "tokens/s"))
    return rows


def _matmul_peak(device: str, dtype: torch.dtype, repeats: int) -> float:
    """FLOP/s of a large matrix product, measured."""
    side = 8192
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    [took_s] = best_of_interleaved([_waited(lambda: a @ b)], max(5, repeats))
    return 2 * side**3 / took_s


def _waited(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def _timed(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - began_s


CASES = {"encoders": encoders, "loading": loading, "scaling": scaling, "gpu": gpu}


def main(argv: Sequence[str] | None = None) -> list[Row]:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--case", action="append", choices=CASES, help="only this one; repeatable")
    made.add_argument("--quick", action="store_true", help="tiny models, one repeat")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--device", default="cpu", help="where the encoders run: cpu or cuda")
    args = made.parse_args(argv)
    repeats = 1 if args.quick else args.repeats
    cases = {**CASES, "encoders": partial(encoders, device=args.device)}
    rows = [row for case in args.case or CASES for row in cases[case](args.quick, repeats)]
    report("published models", rows, args.json)
    return rows


if __name__ == "__main__":
    main()
