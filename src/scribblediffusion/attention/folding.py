"""From queries and keys to the weights that are kept: ``softmax(q·kᵀ·scale + mask)``, in float32.

The softmax runs over all keys that the mask leaves any weight, piece by piece over the places. A
piece is small enough to stay in a processor's cache from the product to the record, which is where
the time goes otherwise; on an accelerator pieces are larger. What is kept of each piece goes at
once into the record, keys by places, and where the proof wants it the same weights are applied to
the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scribblediffusion.attention.resample import area_matrix

#: Largest piece of weights in memory at once, in numbers (float32): on a CPU, and elsewhere.
PIECE, LARGE_PIECE = 1 << 19, 1 << 24
#: Places of the smallest piece: fewer leave vector units idle.
_FEWEST = 64
#: A bias so far below another leaves a key weight 0 exactly. Diffusers masks with −10000, of which
#: bfloat16 makes −9984.
NO_WEIGHT = 9900.0

#: Positions among the keys: a slice where they are in a row (a view), else their numbers.
Positions = slice | Tensor


@dataclass(frozen=True)
class Kept:
    """Which columns of the softmax are kept, as positions in the softmax of one layer.

    Attributes:
        single: Keys that keep a column of their own.
        summed: Groups of keys that are kept as their sum, after the single ones.
    """

    single: Positions
    summed: Sequence[Positions] = field(default_factory=tuple)
    # The last mask and what it leaves: a run has one mask for many calls.
    _last: list[tuple[Tensor, Left | None]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def under(self, mask: Tensor | None) -> Left | None:
        """What is left under a mask that hides whole keys, or None where all of them are seen.

        None as well where a mask differs between heads or places, and off the CPU, where asking
        would make the accelerator wait.
        """
        if mask is None or mask.device.type != "cpu" or mask.shape[1] != 1 or mask.shape[2] != 1:
            return None
        for known, left in self._last:
            if known.dtype == mask.dtype and torch.equal(known, mask):
                return left
        seen = _seen(mask[:, 0, 0])
        left = None if seen is None else self._among(seen, mask)
        self._last[:] = [(mask.clone(), left)]
        return left

    def _among(self, seen: Tensor, mask: Tensor) -> Left:
        device, keys = seen.device, mask.shape[-1]
        place = torch.full((keys,), -1, dtype=torch.int64, device=device)
        place[seen] = torch.arange(len(seen), dtype=torch.int64, device=device)
        single = place[self.single]
        there = single >= 0
        groups = [[at for at in place[one].tolist() if at >= 0] for one in self.summed]
        kept = Kept(
            positions(single[there].tolist(), device), [positions(x, device) for x in groups]
        )
        columns = positions(there.nonzero()[:, 0].tolist(), device)
        return Left(seen, kept, columns, _telling(mask[..., seen]))


@dataclass(frozen=True)
class Left:
    """What a mask that hides whole keys leaves of a softmax.

    Attributes:
        seen: Numbers of the keys that have weight in some row.
        kept: Which of them are kept, as positions among them.
        columns: The record's columns of its single keys.
        mask: What the mask still hides of them in single rows, or None.
    """

    seen: Tensor
    kept: Kept
    columns: Positions
    mask: Tensor | None


def positions(numbers: Sequence[int], device: torch.device) -> Positions:
    """Positions in this order, as a slice where that is the same.

    >>> positions([3, 4, 5], torch.device("cpu"))
    slice(3, 6, None)
    """
    if not numbers:
        return slice(0, 0)
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return slice(numbers[0], numbers[-1] + 1)
    return torch.tensor(numbers, dtype=torch.int64, device=device)


def weights(q: Tensor, k: Tensor, mask: Tensor | None, out: Tensor) -> Tensor:
    """The attention weights ``[B, H, K, S]``, keys before places, written into `out`.

    A place from which every key is hidden has weight 0 on all of them, as in torch's kernels: its
    row does not sum to 1, and the audit says so.

    Args:
        q: Queries ``[B, H, S, D]`` in float32.
        k: Keys ``[B, H, K, D]`` in float32, the scale multiplied in.
        mask: Broadcast over ``[B, H, S, K]``: true where a key may be seen, or a bias to add.
        out: float32 ``[B, H, K, S]``.
    """
    torch.matmul(k, q.transpose(-1, -2), out=out)
    if mask is None:
        return torch.softmax(out, dim=-2, out=out)
    mask = mask.transpose(-1, -2)
    hidden = ~mask if mask.dtype == torch.bool else mask == -torch.inf
    blind = hidden.all(dim=-2, keepdim=True)
    if mask.dtype == torch.bool:
        out.masked_fill_(hidden, -torch.inf)
    else:
        out.add_(mask)
    torch.softmax(out, dim=-2, out=out)
    # Off the CPU asking whether there is one would make the accelerator wait.
    return out.masked_fill_(blind, 0) if out.device.type != "cpu" or bool(blind.any()) else out


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
    single, columns = slice(0, _count(kept.single)), _count(kept.single) + len(kept.summed)
    if (left := kept.under(mask)) is not None:
        kept, single, mask = left.kept, left.columns, left.mask
        k = k.index_select(2, left.seen)
        v = None if v is None else v.index_select(2, left.seen)
    k, v = k.float() * scale, None if v is None else v.float()
    kind = {"dtype": torch.float32, "device": q.device}
    record = torch.zeros((batch, heads if every_head else 1, columns, places), **kind)
    mixed = None if v is None else torch.empty((*q.shape[:3], v.shape[3]), **kind)
    size = max(1, min(places, _places_at_once(q, k.shape[2])))
    room = torch.empty((batch, heads, k.shape[2], size), **kind)
    for start in range(0, places, size):
        piece = slice(start, min(start + size, places))
        here = mask if mask is None or mask.shape[2] == 1 else mask[:, :, piece]
        width = piece.stop - start
        # A narrower last piece gets memory of its own: products into a strided view are slow.
        out = room if width == size else room.new_empty((batch, heads, k.shape[2], width))
        p = weights(q[:, :, piece].float(), k, here, out)
        if v is not None and mixed is not None:
            mixed[:, :, piece] = p.transpose(-1, -2) @ v
        p = p if every_head else p.mean(dim=1, keepdim=True)
        into = record[..., piece]
        into[..., single, :] = _take(p, kept.single)
        for column, group in enumerate(kept.summed, columns - len(kept.summed)):
            if _count(group):
                into[..., column, :] = _take(p, group).sum(-2)
    return record, mixed


def _seen(rows: Tensor) -> Tensor | None:
    """Which keys a mask ``[B, K]`` leaves weight in some row, or None where that is all."""
    if rows.dtype != torch.bool:
        rows = rows > rows.amax(-1, keepdim=True) - NO_WEIGHT
    seen = rows.any(0)
    return None if bool(seen.all() | ~rows.any(-1).all()) else seen.nonzero()[:, 0]


def _telling(mask: Tensor) -> Tensor | None:
    """A mask, or None where it changes nothing."""
    same = mask.all() if mask.dtype == torch.bool else ~mask.any()
    return None if bool(same) else mask


def _count(at: Positions) -> int:
    return at.stop - at.start if isinstance(at, slice) else len(at)


def _places_at_once(q: Tensor, keys: int) -> int:
    most = PIECE if q.device.type == "cpu" else LARGE_PIECE
    return max(_FEWEST, most // (q.shape[0] * q.shape[1] * keys))


def _take(p: Tensor, at: Positions) -> Tensor:
    return p[..., at, :] if isinstance(at, slice) else p.index_select(-2, at)


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
    rows, columns = (
        record.new_tensor(area_matrix(*pair).tolist()) for pair in zip(grid, target, strict=True)
    )
    return (rows @ record.unflatten(-1, grid) @ columns.T).flatten(-2)
