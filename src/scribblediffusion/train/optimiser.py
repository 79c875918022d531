"""Muon for matrices and convolutions, AdamW for everything else.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) orthogonalises the momentum
of each weight matrix by a Newton–Schulz iteration; its update is scaled to the size of AdamW's
(Liu et al. 2025, "Muon is scalable for LLM training"), so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: `[n, m]` to the same shape, in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    flipped = x.shape[0] > x.shape[1]
    x = x.T if flipped else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if flipped else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon on parameters of two or more dimensions (kernels flattened to matrices)."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(momentum, group["momentum"])
                update = orthogonalise(direction.reshape(len(direction), -1))
                size = 0.2 * max(update.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["decay"])
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * size)


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes a parameter: hidden weights, not embeddings, inputs or outputs."""
    outside = ("position", "level", "conv_in", "conv_out", "time_embedding", "time_emb_proj")
    return parameter.ndim >= 2 and not any(word in name for word in outside)
