"""From queries and keys to the weights that are kept: ``softmax(q·kᵀ·scale + mask)``, in float32.

The softmax runs over all keys, piece by piece over the places, so that no more than a fixed
amount of memory is in use; what is kept of each piece goes at once into the record. Where the
proof wants it, the same weights are applied to the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

#: Largest piece of weights in memory at once, in numbers (float32).
PIECE = 1 << 24


@dataclass(frozen=True)
class Kept:
    """Which columns of the softmax are kept, as positions in the softmax of one layer.

    Attributes:
        single: Keys that keep a column of their own.
        summed: Groups of keys that are kept as their sum, after the single ones.
    """

    single: Tensor
    summed: Sequence[Tensor] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.single) + len(self.summed)


def weights(q: Tensor, k: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """The attention weights ``[B, H, S, K]`` of ``q [B, H, S, D]`` and ``k [B, H, K, D]``.

    Args:
        q: Queries in float32.
        k: Keys in float32.
        scale: Factor on the products.
        mask: Broadcast over ``[B, H, S, K]``: true where a key may be seen, or a bias to add.
    """
    scores = torch.matmul(q * scale, k.transpose(-1, -2))
    if mask is not None:
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        else:
            scores = scores.add_(mask)
    return torch.softmax(scores, dim=-1)


def fold(
    q: Tensor,
    k: Tensor,
    scale: float,
    mask: Tensor | None,
    kept: Kept,
    *,
    every_head: bool,
    v: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What is kept of a layer's weights, and the weights applied to the values.

    Args:
        q: ``[B, H, S, D]`` queries of image places.
        k: ``[B, H, K, D]`` all keys.
        scale: Factor on the products.
        mask: As for `weights`.
        kept: Columns to keep.
        every_head: One record for each head, or their mean.
        v: ``[B, H, K, D]`` values, or None where nothing is to be proved.

    Returns:
        ``[B, H or 1, columns, S]`` and, with `v`, ``[B, H, S, D]``; both float32.
    """
    batch, heads, places, _ = q.shape
    k, v = k.float(), None if v is None else v.float()
    record = q.new_empty(
        (batch, heads if every_head else 1, len(kept), places), dtype=torch.float32
    )
    mixed = None if v is None else torch.empty_like(q, dtype=torch.float32)
    size = max(1, PIECE // (batch * heads * k.shape[2]))
    for start in range(0, places, size):
        piece = slice(start, start + size)
        here = mask if mask is None or mask.shape[2] == 1 else mask[:, :, piece]
        p = weights(q[:, :, piece].float(), k, scale, here)
        if v is not None and mixed is not None:
            mixed[:, :, piece] = p @ v
        p = p if every_head else p.mean(dim=1, keepdim=True)
        record[..., piece] = _columns(p, kept).transpose(-1, -2)
    return record, mixed


def _columns(p: Tensor, kept: Kept) -> Tensor:
    """``[…, K]`` → ``[…, columns]``."""
    single = p.index_select(-1, kept.single)
    if not kept.summed:
        return single
    sums = [p.index_select(-1, group).sum(-1, keepdim=True) for group in kept.summed]
    return torch.cat([single, *sums], dim=-1)


def as_mask(mask: Tensor | None, batch: int, heads: int) -> Tensor | None:
    """A mask as an attention module receives it → broadcastable to ``[B, H, S, K]``.

    Diffusers gives ``[B, K]``, ``[B, 1, K]``, ``[B·heads, S, K]`` or ``[B, H, S, K]``.
    """
    if mask is None:
        return None
    if mask.ndim == 2:
        mask = mask[:, None]
    if mask.ndim == 3:
        many = mask.shape[0] == batch * heads and heads > 1 and mask.shape[0] != batch
        mask = mask.unflatten(0, (batch, heads)) if many else mask[:, None]
    return mask if mask.dtype == torch.bool else mask.float()


def shrink(record: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Area-average the places of ``[B, H, C, h·w]`` to a coarser grid; sums over columns stay."""
    if grid == target:
        return record
    maps = record.unflatten(-1, grid).flatten(0, 1)
    return F.adaptive_avg_pool2d(maps, target).flatten(-2).unflatten(0, record.shape[:2])
