"""The strokes of a drawing, found by place: what is in a box costs what is in the box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scribblediffusion.analysis.hatching import Box, inside
from scribblediffusion.analysis.strokes import Hole, Strokes, distances

Array = np.ndarray[Any, np.dtype[Any]]
#: The middle of a drawn loop is half a stroke away from its hole, its corners included; thinning
#: may err by so many pixels more.
SLACK = 5
#: No stroke's middle is farther than this from the hole that it encloses.
REACH = 18


@dataclass(frozen=True)
class Loop:
    """The strokes around a hole.

    Attributes:
        roundness: of the hole, 4π·area / perimeter²: near 1 for a circle, 0.79 for a square.
        corners: sharp turns of the strokes around it.
        turn: by how many degrees these turn in all.
        paths: the paths around it.
    """

    roundness: float
    corners: int
    turn: float
    paths: frozenset[int]


class Indexed:
    """Strokes by place.

    Attributes:
        strokes: all of them.
        filled: `[H, W]` bool, the filled areas.
    """

    def __init__(self, strokes: Strokes) -> None:
        self.strokes = strokes
        self._lengths = np.array([len(path.points) for path in strokes.paths], dtype=int)
        self._points = np.concatenate([np.zeros((0, 2)), *(p.points for p in strokes.paths)])
        self._owner = np.repeat(np.arange(len(self._lengths)), self._lengths)
        bounds = [(*h.pixels.min(axis=0), *h.pixels.max(axis=0)) for h in strokes.holes]
        self._holes = np.array(bounds, dtype=int).reshape(-1, 4)
        self.filled = np.zeros(strokes.ink.shape, dtype=bool)
        for blob in strokes.blobs:
            self.filled[blob.pixels[:, 1], blob.pixels[:, 0]] = True
        self._ends: dict[int, list[tuple[float, float]]] = {}
        for end in strokes.ends:
            self._ends.setdefault(end.path, []).append((end.x, end.y))
        self._loops: dict[Hole, Loop] = {}

    def paths(self, box: Box) -> list[int]:
        """Numbers of the paths that run through a box, in order."""
        return np.unique(self._owner[inside(self._points, box)]).tolist()

    def ends(self, path: int) -> list[tuple[float, float]]:
        """Where a path's free ends are."""
        return self._ends.get(path, [])

    def holes(self, box: Box) -> list[Hole]:
        """The holes of which more than nine tenths lie in a box."""
        left, top, right, bottom = box
        x0, y0, x1, y1 = self._holes.T
        near = np.flatnonzero((x0 < right) & (x1 >= left) & (y0 < bottom) & (y1 >= top))
        holes = [self.strokes.holes[i] for i in near]
        return [hole for hole in holes if inside(hole.pixels, box).mean() > 0.9]

    def covered(self, pixels: Array, box: Box) -> set[int]:
        """Paths of which most of the part within a box runs through these pixels `[n, 2]`."""
        page = np.zeros(self.strokes.ink.shape, dtype=bool)
        page[pixels[:, 1], pixels[:, 0]] = True
        within = inside(self._points, box)
        at, owner = self._points[within].round().astype(int), self._owner[within]
        return self._mostly(owner, page[at[:, 1], at[:, 0]], np.bincount(owner, minlength=1))

    def loop(self, hole: Hole) -> Loop:
        """The strokes around a hole; measured when first asked for."""
        if hole not in self._loops:
            self._loops[hole] = self._loop(hole)
        return self._loops[hole]

    def _loop(self, hole: Hole) -> Loop:
        from skimage.measure import perimeter_crofton

        depth = self.strokes.depth
        corner = (hole.pixels.min(axis=0) - REACH).clip(0)
        right, bottom = (hole.pixels.max(axis=0) + REACH + 1).clip(max=depth.shape[::-1])
        box = (int(corner[0]), int(corner[1]), int(right), int(bottom))
        depth = depth[box[1] : box[3], box[0] : box[2]]
        paper = np.zeros(depth.shape, dtype=bool)
        paper[tuple((hole.pixels - corner).T[::-1])] = True
        close = distances(~paper) < depth + SLACK
        within = inside(self._points.round(), box)
        at, owner = self._points[within].round().astype(int) - corner, self._owner[within]
        around = self._mostly(owner, close[at[:, 1], at[:, 0]], self._lengths)
        turns = []
        for turn in self.strokes.corners:
            x, y = round(turn.x) - box[0], round(turn.y) - box[1]
            on = turn.path in around and 0 <= x < close.shape[1] and 0 <= y < close.shape[0]
            if on and close[y, x]:
                turns.append(turn.angle)
        length = float(perimeter_crofton(paper, directions=4))
        roundness = min(1.0, 4 * np.pi * len(hole.pixels) / length**2)
        return Loop(roundness, len(turns), sum(turns), frozenset(around))

    @staticmethod
    def _mostly(owner: Array, true: Array, lengths: Array) -> set[int]:
        """The owners of which more than half of `lengths` points are true."""
        counts = np.bincount(owner[true], minlength=len(lengths))
        return set(np.flatnonzero(counts > lengths / 2).tolist())
