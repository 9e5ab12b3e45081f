"""Pure bf16 weights with fp32 masters: Muon for hidden matrices, AdamW for the rest.

Muon: Jordan et al. 2024. Masters hold what bf16 rounds away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with adjust_lr_fn="original", matrices of one shape together, in bf16 only where the hardware
    multiplies it: torch's own always does, thirty times slower on a CPU without instructions for it.
    """

    COEFFICIENTS, STEPS, EPS = (3.4445, -4.7750, 2.0315), 5, 1e-7  # of the quintic iteration, as published

    def __init__(self, params: Iterable, *, lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    alike.setdefault(param.shape, []).append(param)
            for shape, params in alike.items():
                updates = self._orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in params]))
                lr = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(updates), alpha=-lr)

    def _momentum(self, param: Tensor, share: float) -> Tensor:
        buffer = self.state[param].setdefault("momentum_buffer", torch.zeros_like(param))
        buffer.lerp_(param.grad, 1 - share)
        return param.grad.lerp(buffer, share)

    def _orthogonal(self, updates: Tensor) -> Tensor:
        """updates (N, R, C) -> the nearest orthogonal matrices, about."""
        a, b, c = self.COEFFICIENTS
        tall = updates.shape[1] > updates.shape[2]
        x = (updates.mT if tall else updates).to(compute_dtype(updates.device))
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=self.EPS)
        for _ in range(self.STEPS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return (x.mT if tall else x).to(updates.dtype)


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """bf16 where the hardware multiplies it; on a CPU without it, it is thirty times as slow as fp32."""
    if torch.device(device).type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


class MasterOptimizer:
    """Steps fp32 copies of `named` parameters and writes them back in the parameters' own dtype.

    `progress` in [0, 1] drives a warm-up, a plateau, and a cosine decay to a twentieth of the learning rate.
    `scale_of` gives a parameter's share of the learning rate by its name.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], *, lr: float, muon_lr: float,
                 weight_decay: float = 0.01, warmup: float = 0.02, decay_from: float = 0.4,
                 scale_of: Callable[[str], float] | None = None) -> None:
        self.named = [(n, p) for n, p in named if p.requires_grad]
        self.warmup, self.decay_from = warmup, decay_from
        self.masters = {n: p.detach().float().clone().requires_grad_(True) for n, p in self.named}
        scale_of = scale_of or (lambda _: 1.0)

        def groups(hidden: bool, base_lr: float) -> list[dict]:
            by_lr: dict[float, list[Tensor]] = {}
            for name, master in self.masters.items():
                if _is_hidden_matrix(name, master) == hidden:
                    by_lr.setdefault(base_lr * scale_of(name), []).append(master)
            return [{"params": params, "lr": rate, "base_lr": rate} for rate, params in by_lr.items()]

        self.parts: list[torch.optim.Optimizer] = []
        if matrices := groups(True, muon_lr):
            self.parts.append(Muon(matrices, lr=muon_lr, weight_decay=weight_decay))
        if rest := groups(False, lr):
            self.parts.append(torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0))

    def scale(self, progress: float) -> float:
        if progress < self.warmup:
            return max(progress / self.warmup, 1e-3)
        if progress < self.decay_from:
            return 1.0
        done = (progress - self.decay_from) / max(1e-6, 1 - self.decay_from)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    @torch.no_grad()
    def step(self, progress: float, clip: float = 1.0) -> float:
        """Apply the gradients; returns their norm. A step with a non-finite gradient is skipped."""
        grads: list[Tensor] = []
        for name, parameter in self.named:
            master = self.masters[name]
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
            if master.grad is not None:
                grads.append(master.grad)
        norm = torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
        if not torch.isfinite(norm):
            return float(norm)
        for grad in grads:
            grad.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        scale = self.scale(progress)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["base_lr"] * scale
            part.step()
        for name, parameter in self.named:
            parameter.copy_(self.masters[name])
        return float(norm)

    def state_dict(self) -> dict:
        return {"masters": {n: m.detach() for n, m in self.masters.items()}, "parts": [p.state_dict() for p in self.parts]}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        for name, master in self.masters.items():
            master.copy_(state["masters"][name])
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for name, parameter in self.named:
            parameter.copy_(self.masters[name])


def _is_hidden_matrix(name: str, tensor: Tensor) -> bool:
    """Matrices between hidden layers; not embeddings, positions, queries, heads or stems."""
    outside = ("embed", "position", "queries", "time", "place", "cls", "head", "stem", "projection", "to_joint")
    return tensor.dim() == 2 and not any(word in name for word in outside)
