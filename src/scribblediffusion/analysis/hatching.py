"""Hatching: strokes so close to each other that they are a texture and no longer lines."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy import ndimage

from scribblediffusion.analysis.strokes import Strokes, distances

Array = np.ndarray[Any, np.dtype[Any]]
#: Left, top, right, bottom; right and bottom open.
Box = tuple[int, int, int, int]
#: Lines this close to each other (pixels of a 256 px drawing) are dense.
HATCH_SPACING = 10.5
#: An area of such lines is hatched where it is at least twice as wide as this.
PATCH = 15.0
#: A stroke of fewer pixels is a dot.
DOT = 6
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
        if strokes.paths:
            points = np.concatenate([path.points for path in strokes.paths]).round().astype(int)
            x, y = np.concatenate([path.tangents for path in strokes.paths]).T
            at = points[:, 1], points[:, 0]
            np.add.at(weight, at, 1.0)
            np.add.at(parallel, at, np.exp(2j * np.arctan2(y, x)))
        amount = np.real(_moving(weight, window))
        safe = np.where(amount > 1e-9, amount, 1)
        self.skeleton = np.real(weight) > 0
        self.dense = (amount > 1 / (HATCH_SPACING * scale)) | _patches(self.skeleton, scale)
        self.direction = np.where(self.skeleton, _moving(parallel, window) / safe, 0)
        self.crossings = np.array([(c.x, c.y) for c in strokes.crossings]).reshape(-1, 2)
        self.cells = np.array([h.pixels.mean(axis=0) for h in strokes.holes]).reshape(-1, 2)
        drawn = [path for path in strokes.paths if len(path.points) > 1]
        self.points = np.concatenate([np.zeros((0, 2)), *(path.points for path in drawn)])
        tangents = np.concatenate([np.zeros((0, 2)), *(_chords(path.points) for path in drawn)])
        self.angles = np.arctan2(tangents[:, 1], tangents[:, 0])
        self.thicket = Thicket(strokes)

    def within(self, box: Box) -> str | None:
        """The hatching that covers at least half of the strokes in a box."""
        thicket = self.thicket.within(box)
        if thicket:
            return thicket
        part = np.s_[box[1] : box[3], box[0] : box[2]]
        drawn = self.skeleton[part]
        dense = drawn & self.dense[part]
        if drawn.sum() < 40 or dense.sum() < 0.5 * drawn.sum():
            return None
        direction = complex(self.direction[part][dense].mean())
        if abs(direction) > 0.7:
            return _one_way(direction)
        crossing = int(inside(self.crossings, box).sum()) >= CROSSINGS
        cells = int(inside(self.cells, box).sum()) >= CELLS
        if (crossing or cells) and self._share_of_two(box) > TWO_WAYS:
            return "dense cross-hatching"
        return "dense scribbling" if cells else None

    def _share_of_two(self, box: Box) -> float:
        return _share_of_two(self.angles[inside(self.points, box)])


class Thicket:
    """Where strokes are too dense to be followed: told by the ways in which most ink lies."""

    def __init__(self, strokes: Strokes) -> None:
        self.skeleton, self.area = strokes.skeleton, strokes.thicket
        if not self.area.any():
            return
        label, _ = cast("tuple[Array, int]", ndimage.label(self.skeleton, np.ones((3, 3))))
        self.dots = self.skeleton & (np.bincount(label.ravel()) < DOT)[label]
        amount = np.asarray(ndimage.uniform_filter(self.skeleton.astype(float), 33))
        self.dense = self.area | (amount > 1 / HATCH_SPACING)
        self.along = _ways(strokes.ink)

    def within(self, box: Box) -> str | None:
        """The dense strokes that at least half of those in a box belong to, some of a thicket."""
        part = np.s_[box[1] : box[3], box[0] : box[2]]
        drawn = self.skeleton[part]
        if not (drawn & self.area[part]).any():
            return None
        dense = drawn & self.dense[part]
        if dense.sum() < 0.5 * drawn.sum():
            return None
        if self.dots[part].sum() > 0.5 * drawn.sum():
            return "many dots"
        along = self.along[part][dense]
        direction = complex(np.exp(2j * along).mean())
        if abs(direction) > 0.7:
            return _one_way(direction)
        two = _share_of_two(along) > TWO_WAYS
        return "dense cross-hatching" if two else "dense scribbling"


def _patches(skeleton: Array, scale: float) -> Array:
    """Areas without paper that is farther from the strokes than half their spacing.

    A window would count one line more or fewer, by where it lies, and lose those at a border.
    """
    gap, width = HATCH_SPACING / 2 * scale, PATCH * scale
    if not skeleton.any():
        return skeleton
    near = distances(~skeleton) <= gap
    deep = near if near.all() else distances(near) > gap + width
    return distances(~deep) <= width if deep.any() else deep


def _ways(ink: Array, reach: int = 7) -> Array:
    """Of each pixel, the direction (radians) in which most ink lies on both sides of it."""
    size, ways = len(ink), np.radians(np.arange(24) * 7.5 + 3.75)
    page = np.pad(ink, reach)
    lying = np.zeros((len(ways), size, size), np.float32)
    for way, angle in zip(lying, ways, strict=True):
        for far in range(-reach, reach + 1):
            x, y = (reach + round(float(far * f(angle))) for f in (np.cos, np.sin))
            way += page[y : y + size, x : x + size]
    return ways[lying.argmax(axis=0)]


def _one_way(direction: complex) -> str:
    """Hatching in one direction, which is given with its angle doubled."""
    angle = np.angle(direction) / 2
    words = direction_of(np.array([np.cos(angle), np.sin(angle)]))
    return f"dense hatching, {words.replace(' line', ' lines')}"


def _share_of_two(angles: Array) -> float:
    """How much of these directions (radians) is in the two commonest, ±15°."""
    bins = (np.degrees(angles) % 180 // 7.5).astype(int) % 24
    counts = np.bincount(bins, minlength=24)
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
