"""Hatching: strokes so close to each other that they are a texture and no longer lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from scribblediffusion.analysis.strokes import Strokes

Array = np.ndarray[Any, np.dtype[Any]]
#: Left, top, right, bottom; right and bottom open.
Box = tuple[int, int, int, int]
#: Lines this close to each other (pixels of a 256 px drawing) are dense.
HATCH_SPACING = 10.5
#: So many enclosed gaps in one region are no shapes: they are a texture.
CELLS = 8
#: So many crossings of close lines that run in two directions are a grid.
CROSSINGS = 3
#: Share of the strokes in two directions from which on they are a grid and no scribble.
TWO_WAYS = 0.62


class Texture:
    """Where strokes lie so close that they are a texture: measured in a moving window."""

    def __init__(self, strokes: Strokes) -> None:
        size = strokes.ink.shape[0]
        scale = size / 256
        window = max(9, round(33 * scale))
        weight, parallel = (np.zeros((size, size), dtype=np.complex128) for _ in range(2))
        for path in strokes.paths:
            at = path.points.round().astype(int)
            x, y = path.tangents.T
            angle = np.arctan2(y, x)
            np.add.at(weight, (at[:, 1], at[:, 0]), 1.0)
            np.add.at(parallel, (at[:, 1], at[:, 0]), np.exp(2j * angle))
        amount = np.real(_moving(weight, window))
        safe = np.where(amount > 1e-9, amount, 1)
        self.skeleton = np.real(weight) > 0
        self.dense = amount > 1 / (HATCH_SPACING * scale)
        self.direction = np.where(self.skeleton, _moving(parallel, window) / safe, 0)
        self.crossings = np.array([(c.x, c.y) for c in strokes.crossings]).reshape(-1, 2)
        self.cells = np.array([h.pixels.mean(axis=0) for h in strokes.holes]).reshape(-1, 2)
        drawn = [path for path in strokes.paths if len(path.points) > 1]
        self.points = np.concatenate([np.zeros((0, 2)), *(path.points for path in drawn)])
        tangents = np.concatenate([np.zeros((0, 2)), *(_chords(path.points) for path in drawn)])
        self.angles = np.arctan2(tangents[:, 1], tangents[:, 0])

    def within(self, box: Box) -> str | None:
        """The hatching that covers at least half of the strokes in a box."""
        part = np.s_[box[1] : box[3], box[0] : box[2]]
        drawn = self.skeleton[part]
        dense = drawn & self.dense[part]
        if drawn.sum() < 40 or dense.sum() < 0.5 * drawn.sum():
            return None
        direction = complex(self.direction[part][dense].mean())
        if abs(direction) > 0.7:
            angle = np.angle(direction) / 2
            words = direction_of(np.array([np.cos(angle), np.sin(angle)]))
            return f"dense hatching, {words.replace(' line', ' lines')}"
        crossing = int(inside(self.crossings, box).sum()) >= CROSSINGS
        cells = int(inside(self.cells, box).sum()) >= CELLS
        if (crossing or cells) and self._share_of_two(box) > TWO_WAYS:
            return "dense cross-hatching"
        return "dense scribbling" if cells else None

    def _share_of_two(self, box: Box) -> float:
        """How much of the strokes in a box runs in its two commonest directions, ±15°."""
        angles = np.degrees(self.angles[inside(self.points, box)]) % 180
        counts = np.bincount((angles // 7.5).astype(int) % 24, minlength=24)
        windows = np.sum([np.roll(counts, k) for k in range(-2, 2)], axis=0)
        apart = [windows[i] + windows[(i + k) % 24] for i in range(24) for k in range(4, 13)]
        return float(max(apart) / max(1, counts.sum()))


def _chords(points: Array, reach: int = 4) -> Array:
    """Of each point of a path, from `reach` points before to as many after: steadier than steps."""
    at = np.arange(len(points))
    return points[(at + reach).clip(max=len(points) - 1)] - points[(at - reach).clip(0)]


def _moving(values: Array, window: int) -> Array:
    """Mean over a square window, mirrored at the picture's border."""
    parts = (
        np.asarray(ndimage.uniform_filter(part, window, mode="reflect"))
        for part in (np.real(values), np.imag(values))
    )
    real, imaginary = parts
    return real + 1j * imaginary


def direction_of(chord: Array) -> str:
    """The direction of a line (dx, dy), y pointing down, in words."""
    angle = float(np.degrees(np.arctan2(-chord[1], chord[0]))) % 180  # anticlockwise from right
    if angle < 15 or angle >= 165:
        return "horizontal line"
    if 75 <= angle < 105:
        return "vertical line"
    return f"diagonal line {'rising' if angle < 75 else 'falling'} to the right"


def inside(points: Array, box: Box) -> Array:
    """Which of the points `[n, 2]` (x, y) lie in a box."""
    left, top, right, bottom = box
    x, y = points[:, 0], points[:, 1]
    return (left <= x) & (x < right) & (top <= y) & (y < bottom)
