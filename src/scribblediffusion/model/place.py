"""Place: the Fourier features that sketch tokens and image queries share.

Both sides of a cross-attention carry F(x, y) = sin, cos of πf·x and πf·y for f in 1, 2, 4, 8
(16 numbers; x and y in 0…1 from the upper left). For two places Δ apart their product is
Σ_f (cos πfΔx + cos πfΔy): largest where both are the same place. So a query can find the
sketch token that lies where it lies, from the first training step on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

FREQUENCIES = (1, 2, 4, 8)
FEATURES = 4 * len(FREQUENCIES)
#: Strength of the place features against content of unit variance.
STRENGTH = 3.0


def fourier(x: Tensor, y: Tensor) -> Tensor:
    """F(x, y): coordinates `[n]` in 0…1 to features `[n, 16]`, four numbers a frequency."""
    columns = []
    for f in FREQUENCIES:
        for axis in (x, y):
            columns += [torch.sin(math.pi * f * axis), torch.cos(math.pi * f * axis)]
    return torch.stack(columns, -1)


def orthonormal(width: int, seed: int) -> Tensor:
    """A fixed map `[16, width]` with orthonormal rows, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    kind = {
        "dtype": torch.float64,
        "device": "cpu",
    }  # real even where a skeleton is built on "meta"
    q, r = torch.linalg.qr(torch.randn(width, FEATURES, generator=generator, **kind))
    return (q * r.diagonal().sign()).T.float().contiguous()


def grid(side: int, like: Tensor) -> Tensor:
    """F at the centres of a side × side grid, row by row: `[side², 16]`."""
    centres = (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return fourier(x.flatten(), y.flatten()).to(like.dtype)


class PlaceEmbedding(nn.Module):
    """Adds the place of each image position: `[B, side², width]` to the same shape.

    Serves as `BasicTransformerBlock.pos_embed`, which the block calls on its normalised input.
    The map is a persistent buffer, so that saved weights bring it along.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        self.map: Tensor
        self.register_buffer("map", orthonormal(width, seed))
        self._made: tuple[tuple, Tensor] | None = None  # the last grid, and what it was made for

    def forward(self, x: Tensor) -> Tensor:
        """The block's normalised input, with its place.

        Raises:
            ValueError: the positions are no square grid.
        """
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise ValueError(f"place needs a square grid, found {x.shape[1]} positions")
        return x + self._places(side, x)

    def _places(self, side: int, like: Tensor) -> Tensor:
        """`[side², width]`, made once: a run asks for the same grid at every step."""
        kind = (side, like.dtype, like.device, self.map.data_ptr(), self.map._version)
        if self._made is None or self._made[0] != kind:
            self._made = kind, STRENGTH * (grid(side, like) @ self.map.to(like.dtype))
        return self._made[1]


@torch.no_grad()
def align_heads(attention: Any, query_map: Tensor, key_map: Tensor, logit: float = 2.0) -> None:
    """Let half of the heads begin by attending to their own place.

    The rows of `to_q` and `to_k` undo the two orthonormal maps, scaled so that the logit is
    `logit`·Σ_f (cos πfΔx + cos πfΔy). Training is free to change them. Heads narrower than 16
    take every other frequency (8 wide: f = 1 and 4).
    """
    if attention.to_q.weight.is_meta:  # a skeleton: the weights are loaded afterwards
        return
    width = attention.to_q.out_features // attention.heads
    step = max(1, FEATURES // width)
    picked = [i for n in range(0, len(FREQUENCIES), step) for i in range(4 * n, 4 * n + 4)][:width]
    gain = math.sqrt(logit / attention.scale) / STRENGTH
    for head in range(attention.heads // 2):
        rows = slice(head * width, head * width + len(picked))
        for projection, place in ((attention.to_q, query_map), (attention.to_k, key_map)):
            projection.weight[rows] = 0.1 * projection.weight[rows] + gain * place[picked]
