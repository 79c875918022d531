"""A drawing's skeleton as a graph, and the graph as paths between ends and crossings.

Two pixels are neighbours where no third one joins them already (m-adjacency: a staircase is no
crossing); the spurs that thinning leaves on thick strokes are taken off.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Pixel = tuple[int, int]  # (row, column), as arrays are indexed
Graph = dict[Pixel, list[Pixel]]


@dataclass(frozen=True)
class Path:
    """One stroke between two nodes (ends or crossings), or a loop without any.

    Attributes:
        points: `[n, 2]` (x, y), one pixel apart, lightly smoothed.
        closed: the last point joins the first.
    """

    points: Array
    closed: bool

    @property
    def tangents(self) -> Array:
        """`[n, 2]` unit steps along the path, zero for a path of one point."""
        if len(self.points) < 2:
            return np.zeros_like(self.points)
        ahead = np.concatenate([self.points[1:], self.points[-1:]])
        steps = ahead - np.concatenate([self.points[:1], self.points[:-1]])
        norm = np.linalg.norm(steps, axis=1, keepdims=True)
        return steps / np.where(norm > 0, norm, 1)


def graph_of(skeleton: Array) -> Graph:
    """Pixels and their neighbours; a diagonal only where no straight step joins the two."""
    pixels = {(int(r), int(c)) for r, c in np.argwhere(skeleton)}
    return {pixel: list(_neighbours(pixel, pixels)) for pixel in pixels}


def _neighbours(pixel: Pixel, pixels: Set[Pixel]) -> Iterator[Pixel]:
    row, column = pixel
    for dr, dc in ((-1, 0), (0, -1), (0, 1), (1, 0)):
        if (row + dr, column + dc) in pixels:
            yield row + dr, column + dc
    for dr, dc in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        joined = (row + dr, column) in pixels or (row, column + dc) in pixels
        if (row + dr, column + dc) in pixels and not joined:
            yield row + dr, column + dc


def degrees(skeleton: Array) -> Array:
    """How many neighbours each pixel has, as `graph_of` counts them; 0 off the skeleton."""
    page = np.pad(skeleton, 1)

    def seen(dr: int, dc: int) -> Array:
        return page[1 + dr : page.shape[0] - 1 + dr, 1 + dc : page.shape[1] - 1 + dc]

    count = sum(seen(dr, dc).astype(int) for dr, dc in ((-1, 0), (0, -1), (0, 1), (1, 0)))
    for dr, dc in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        count += seen(dr, dc) & ~seen(dr, 0) & ~seen(0, dc)
    return np.where(skeleton, count, 0)


def pruned(graph: Graph, depth: Array, rounds: int = 2) -> Graph:
    """Without the side branches that are no longer than the stroke is wide."""
    for _ in range(rounds):
        spurs = [branch for end in graph if len(graph[end]) == 1 for branch in _spur(end, graph)]
        lost = {p for b in spurs if len(b) <= _spur_limit(b, graph, depth) for p in b[:-1]}
        if not lost:
            break
        left = graph.keys() - lost
        graph = {p: list(_neighbours(p, left)) for p in left}
    return graph


def _spur(end: Pixel, graph: Graph) -> Iterator[list[Pixel]]:
    """The branch from a free end up to and with the crossing it hangs on, if there is one."""
    branch = [end]
    here, before = end, None
    while len(graph[here]) <= 2:
        onward = [p for p in graph[here] if p != before]
        if not onward:
            return  # a line with two free ends is no spur
        before, here = here, onward[0]
        branch.append(here)
    yield branch


def _spur_limit(branch: list[Pixel], graph: Graph, depth: Array) -> float:
    """The length in pixels up to which a branch is thinning's work and not the pen's.

    Two strokes that meet in a sharp angle fill the space between them with ink, and the skeleton
    gets a stem there: of half a stroke's width over the sine of half the angle.
    """
    node, half = branch[-1], float(depth[branch[-1]])
    arms = [_ahead(node, onward, graph) for onward in graph[node] if onward != branch[-2]]
    angle = _angle(arms[0], arms[1]) if len(arms) == 2 else np.pi
    return 3 + max(half, overlap(half, angle))


def overlap(half_width: float, angle: float) -> float:
    """How far the ink of two strokes at this angle runs together; nothing from 75° on."""
    if angle > np.radians(75):
        return 0.0
    return 1.3 * half_width / float(np.sin(max(angle, 0.2) / 2))


def _ahead(node: Pixel, onward: Pixel, graph: Graph, steps: int = 10) -> Array:
    """The direction (row, column) in which an arm leaves a crossing."""
    before, here = node, onward
    for _ in range(steps):
        further = [p for p in graph[here] if p != before]
        if len(graph[here]) != 2 or not further:
            break
        before, here = here, further[0]
    return np.array((here[0] - node[0], here[1] - node[1]), dtype=float)


def _angle(a: Array, b: Array) -> float:
    """Between two directions, radians."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.arccos(np.clip(a @ b / norm, -1, 1))) if norm else float(np.pi)


def paths_of(graph: Graph) -> tuple[tuple[Path, ...], list[list[Pixel]], set[Pixel]]:
    """All paths; for each path its raw pixels; and the crossing pixels."""
    nodes = {p for p, near in graph.items() if len(near) > 2}
    chains: list[list[Pixel]] = []
    closed: list[bool] = []
    seen: set[frozenset[Pixel]] = set()
    starts = [p for p, near in graph.items() if len(near) != 2]
    for start in starts:
        for onward in graph[start]:
            chain = _walk(start, onward, graph)
            key = frozenset((*chain[:2], *chain[-2:]))
            if key not in seen and not (len(chain) == 2 and nodes.issuperset(chain)):
                seen.add(key)
                chains.append(chain)
                closed.append(False)
        if not graph[start]:
            chains.append([start])
            closed.append(False)
    left = set(graph) - {p for chain in chains for p in chain} - nodes
    while left:
        start = left.pop()
        chain = _walk(start, graph[start][0], graph)[:-1]
        left.difference_update(chain)
        chains.append(chain)
        closed.append(True)
    paths = tuple(_path(chain, loop) for chain, loop in zip(chains, closed, strict=True))
    return paths, chains, nodes


def _walk(start: Pixel, onward: Pixel, graph: Graph) -> list[Pixel]:
    """From `start` through `onward` to the next end or crossing, or around to `start`."""
    chain = [start, onward]
    while len(graph[chain[-1]]) == 2 and chain[-1] != start:
        first, second = graph[chain[-1]]
        chain.append(second if first == chain[-2] else first)
    return chain


def _path(chain: list[Pixel], closed: bool) -> Path:
    points = np.array([(c, r) for r, c in chain], dtype=np.float64)
    if len(points) > 4:
        smooth = _smoothed(points, closed)
        if not closed:
            smooth[0], smooth[-1] = points[0], points[-1]
        points = smooth
    return Path(points, closed)


#: A Gaussian of one pixel.
_KERNEL = np.exp(-0.5 * np.arange(-4, 5) ** 2)
_KERNEL /= _KERNEL.sum()


def _smoothed(points: Array, closed: bool) -> Array:
    """As scipy's `gaussian_filter1d`, which takes ten times as long for such short lines."""
    count = len(points)
    at = np.arange(-4, count + 4)
    padded = points[at % count if closed else at.clip(0, count - 1)]
    return np.sum([k * padded[i : i + count] for i, k in enumerate(_KERNEL)], axis=0)


def opening(chain: list[Pixel], graph: Graph) -> float:
    """The angle between the two other arms at the start of a link."""
    node = chain[0]
    arms = [_ahead(node, onward, graph) for onward in graph[node] if onward != chain[1]]
    return _angle(arms[0], arms[1]) if len(arms) == 2 else float(np.pi)
