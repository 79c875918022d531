"""A drawing as strokes: skeleton paths, free ends, crossings, corners, and what they enclose.

The ink is thinned to one-pixel lines (skimage's `skeletonize`), read as a graph in which two
pixels are neighbours where no third one joins them already (m-adjacency: a staircase is no
crossing), and freed of the spurs that thinning leaves on thick strokes. All lengths are pixels
of the drawing; all points are (x, y) from the upper left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

Array = np.ndarray[Any, np.dtype[Any]]
Pixel = tuple[int, int]  # (row, column), as arrays are indexed
Graph = dict[Pixel, list[Pixel]]

#: Ink above this counts as drawn; below it are the soft edges of strokes.
THRESHOLD = 0.3
#: Enclosed paper of fewer pixels than this is a gap in the ink.
LEAST_HOLE = 12


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
        steps = np.gradient(self.points, axis=0)
        norm = np.linalg.norm(steps, axis=1, keepdims=True)
        return steps / np.where(norm > 0, norm, 1)


@dataclass(frozen=True)
class End:
    """A free end of path `path` at (x, y)."""

    x: float
    y: float
    path: int


@dataclass(frozen=True)
class Crossing:
    """A place where three or more arms meet.

    Attributes:
        x: from the left.
        y: from the top.
        directions: of each arm, radians, 0 = right, counted clockwise (y points down).
        paths: the paths that meet here.
    """

    x: float
    y: float
    directions: tuple[float, ...]
    paths: frozenset[int]


@dataclass(frozen=True)
class Corner:
    """A sharp turn of path `path` at (x, y), by `angle` degrees from straight on."""

    x: float
    y: float
    angle: float
    path: int


@dataclass(frozen=True)
class Hole:
    """Paper that ink encloses on all sides.

    Attributes:
        pixels: `[n, 2]` (x, y).
        roundness: 4π·area / perimeter²: near 1 for a circle, 0.79 for a square.
        corners: sharp turns of the strokes around it.
        paths: the paths around it.
    """

    pixels: Array
    roundness: float
    corners: int
    paths: frozenset[int]


@dataclass(frozen=True)
class Blob:
    """A filled area, wider than any stroke: centre, greatest half-width, pixels `[n, 2]` (x, y)."""

    x: float
    y: float
    radius: float
    pixels: Array


@dataclass(frozen=True)
class Strokes:
    """Everything that was found in one drawing."""

    ink: Array
    paths: tuple[Path, ...]
    ends: tuple[End, ...]
    crossings: tuple[Crossing, ...]
    corners: tuple[Corner, ...]
    holes: tuple[Hole, ...]
    blobs: tuple[Blob, ...]


def read_strokes(ink: Array, threshold: float = THRESHOLD) -> Strokes:
    """Reads the strokes of a drawing.

    Args:
        ink: `[H, W]` from 0 (paper) to 1 (ink).
        threshold: ink above it is drawn.

    Returns:
        The strokes; all tuples empty where there is no ink.
    """
    drawn = _without_pinholes(np.asarray(ink, dtype=np.float32) > threshold)
    depth = _depth(drawn)
    blobs = _blobs(drawn, depth)
    graph = _pruned(_graph(skeletonize(drawn)), depth)
    paths, touching, nodes = _paths(graph)
    crossings = _crossings(paths, touching, graph, nodes, depth)
    corners = tuple(c for i, path in enumerate(paths) for c in _corners(i, path))
    ends = tuple(_ends(paths, touching, nodes))
    holes = _holes(drawn, paths, corners)
    return Strokes(np.asarray(ink, np.float32), paths, ends, crossings, corners, holes, blobs)


def _without_pinholes(drawn: Array) -> Array:
    """Gaps of paper smaller than a hole are ink: thinning would run around each of them."""
    label, _ = ndimage.label(~drawn)
    areas = np.bincount(label.ravel())
    edge = np.unique(np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]]))
    small = areas < LEAST_HOLE
    small[edge] = False
    return drawn | small[label]


def _depth(drawn: Array) -> Array:
    """Distance of each inked pixel from the nearest paper; the picture's border is no paper."""
    if drawn.all():
        return np.full(drawn.shape, max(drawn.shape), dtype=np.float64)
    return np.asarray(ndimage.distance_transform_edt(drawn))


# --- the graph of the skeleton ---------------------------------------------------------------


def _graph(skeleton: Array) -> Graph:
    """Pixels and their neighbours; a diagonal only where no straight step joins the two."""
    pixels = {(int(r), int(c)) for r, c in np.argwhere(skeleton)}
    return {pixel: list(_neighbours(pixel, pixels)) for pixel in pixels}


def _neighbours(pixel: Pixel, pixels: set[Pixel]) -> Iterator[Pixel]:
    row, column = pixel
    for dr, dc in ((-1, 0), (0, -1), (0, 1), (1, 0)):
        if (row + dr, column + dc) in pixels:
            yield row + dr, column + dc
    for dr, dc in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        joined = (row + dr, column) in pixels or (row, column + dc) in pixels
        if (row + dr, column + dc) in pixels and not joined:
            yield row + dr, column + dc


def _pruned(graph: Graph, depth: Array, rounds: int = 2) -> Graph:
    """Without the side branches that are no longer than the stroke is wide."""
    for _ in range(rounds):
        spurs = [branch for end in graph if len(graph[end]) == 1 for branch in _spur(end, graph)]
        lost = {p for b in spurs if len(b) <= _spur_limit(b, graph, depth) for p in b[:-1]}
        if not lost:
            break
        graph = {p: list(_neighbours(p, graph.keys() - lost)) for p in graph.keys() - lost}
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
    return 3 + max(half, _overlap(half, angle))


def _overlap(half_width: float, angle: float) -> float:
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
    return np.subtract(here, node).astype(float)


def _angle(a: Array, b: Array) -> float:
    """Between two directions, radians."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.arccos(np.clip(a @ b / norm, -1, 1))) if norm else float(np.pi)


def _paths(graph: Graph) -> tuple[tuple[Path, ...], list[list[Pixel]], set[Pixel]]:
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
        mode = "wrap" if closed else "nearest"
        smooth = ndimage.gaussian_filter1d(points, 1.0, axis=0, mode=mode)
        if not closed:
            smooth[0], smooth[-1] = points[0], points[-1]
        points = smooth
    return Path(points, closed)


# --- what the graph shows --------------------------------------------------------------------


def _ends(paths: tuple[Path, ...], chains: list[list[Pixel]], nodes: set[Pixel]) -> Iterator[End]:
    for i, (path, chain) in enumerate(zip(paths, chains, strict=True)):
        if path.closed or len(chain) < 2:
            continue
        for at in (0, -1):
            if chain[at] not in nodes:
                yield End(*path.points[at].tolist(), path=i)


def _crossings(
    paths: tuple[Path, ...],
    chains: list[list[Pixel]],
    graph: Graph,
    nodes: set[Pixel],
    depth: Array,
) -> tuple[Crossing, ...]:
    """Crossing pixels that touch, or that a link inside the ink's overlap joins, are one."""
    groups = _grouped(chains, graph, nodes, depth)
    return tuple(c for group in groups if (c := _crossing(group, paths, chains)) is not None)


def _grouped(
    chains: list[list[Pixel]], graph: Graph, nodes: set[Pixel], depth: Array
) -> list[set[Pixel]]:
    group = {node: {node} for node in nodes}

    def join(a: Pixel, b: Pixel) -> None:
        if group[a] is not group[b]:
            merged = group[a] | group[b]
            group.update(dict.fromkeys(merged, merged))

    for row, column in nodes:
        for near in ((row, column + 1), (row + 1, column), (row + 1, column + 1)):
            if near in nodes:
                join((row, column), near)
        if (row + 1, column - 1) in nodes:
            join((row, column), (row + 1, column - 1))
    for chain in chains:
        first, last = chain[0], chain[-1]
        if first in nodes and last in nodes and first != last:
            half = float(max(depth[first], depth[last]))
            angle = max(_opening(chain, graph), _opening(chain[::-1], graph))
            if len(chain) <= 2 + max(2 * half, 2 * _overlap(half, angle)):
                join(first, last)
    return list({id(g): g for g in group.values()}.values())


def _opening(chain: list[Pixel], graph: Graph) -> float:
    """The angle between the two other arms at the start of a link."""
    node = chain[0]
    arms = [_ahead(node, onward, graph) for onward in graph[node] if onward != chain[1]]
    return _angle(arms[0], arms[1]) if len(arms) == 2 else float(np.pi)


def _crossing(
    group: set[Pixel], paths: tuple[Path, ...], chains: list[list[Pixel]]
) -> Crossing | None:
    centre = np.mean([(c, r) for r, c in group], axis=0)
    directions, meeting = [], set()
    for i, chain in enumerate(chains):
        at_start, at_end = chain[0] in group, chain[-1] in group
        if at_start and at_end and _is_link(chain, paths[i]):
            meeting.add(i)
            continue
        for touches, points in ((at_start, paths[i].points), (at_end, paths[i].points[::-1])):
            if touches:
                dx, dy = points[min(12, len(points) - 1)] - centre
                directions.append(float(np.arctan2(dy, dx)))
                meeting.add(i)
    if len(directions) < 3:
        return None
    return Crossing(float(centre[0]), float(centre[1]), tuple(directions), frozenset(meeting))


def _is_link(chain: list[Pixel], path: Path) -> bool:
    """A straight link inside a crossing, and not a loop that comes back to it."""
    return float(np.linalg.norm(path.points[-1] - path.points[0])) > 0.7 * len(chain) or (
        len(chain) < 12
    )


def _corners(index: int, path: Path, near: int = 5, far: int = 10) -> Iterator[Corner]:
    """Turns of more than 45° that happen within a few pixels.

    Over twice the distance a circle turns twice as far, and a corner no further: a corner's turn
    over `near` pixels exceeds what the turn over `far` would give on a circle.
    """
    if len(path.points) < 2 * near + 3:
        return
    sharp, short = _turns(path, near)
    wide, long = _turns(path, far)
    round_share = short / long  # 1 near the ends of a path, where it cannot be told
    sudden = sharp > wide * (round_share + 0.42 * (1 - round_share))
    found = sudden & (sharp > 38) & (wide > 45) & (short == 2 * near) & (round_share < 0.65)
    label, count = ndimage.label(found)
    if path.closed and count > 1 and found[0] and found[-1]:
        label[label == count] = 1
        count -= 1
    for i in range(1, count + 1):
        where = np.flatnonzero(label == i)
        top = where[np.argmax(sharp[where])]
        x, y = path.points[top].tolist()
        yield Corner(x, y, float(wide[where].max()), index)


def _turns(path: Path, reach: int) -> tuple[Array, Array]:
    """`[n]` the turn in degrees between the points before each point and those after, up to
    `reach` pixels on either side; and `[n]` how many pixels that was in all.
    """
    points, count = path.points, len(path.points)
    at = np.arange(count)
    before, after = at - reach, at + reach
    if path.closed and count > 2 * reach:
        span = np.full(count, 2.0 * reach)
        before, after = before % count, after % count
    else:
        before, after = before.clip(0), after.clip(max=count - 1)
        span = np.maximum(after - before, 1).astype(float)
    incoming, outgoing = points - points[before], points[after] - points
    cross = incoming[:, 0] * outgoing[:, 1] - incoming[:, 1] * outgoing[:, 0]
    turn = np.abs(np.degrees(np.arctan2(cross, (incoming * outgoing).sum(axis=1))))
    return turn, span


def _holes(drawn: Array, paths: tuple[Path, ...], corners: tuple[Corner, ...]) -> tuple[Hole, ...]:
    """Patches of paper that do not reach the picture's border."""
    label, count = ndimage.label(~drawn)
    edge = set(np.unique(np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])))
    holes = []
    for i, box in enumerate(ndimage.find_objects(label, count), start=1):
        inside = label[box] == i
        if i not in edge:
            holes.append(_hole(inside, box, drawn.shape, paths, corners))
    return tuple(holes)


def _hole(
    inside: Array,
    box: tuple[slice, ...],
    shape: tuple[int, ...],
    paths: tuple[Path, ...],
    corners: tuple[Corner, ...],
) -> Hole:
    from skimage.measure import perimeter_crofton

    pixels = np.argwhere(inside)[:, ::-1] + (box[1].start, box[0].start)
    away = _away_from(inside, box, shape)
    around = frozenset(np.flatnonzero(_near(away, paths)).tolist())
    # A drawn loop is only a few pixels of stroke away from its hole.
    turns = sum(c.path in around and away[round(c.y), round(c.x)] < 8 for c in corners)
    length = float(perimeter_crofton(np.pad(inside, 1), directions=4))
    roundness = min(1.0, 4 * np.pi * len(pixels) / length**2)
    return Hole(pixels, roundness, turns, around)


def _away_from(inside: Array, box: tuple[slice, ...], shape: tuple[int, ...]) -> Array:
    """`shape` distances from the pixels of `inside`, measured up to 10 px around it, then 99."""
    reach = 10
    near = tuple(
        slice(max(0, b.start - reach), min(n, b.stop + reach))
        for b, n in zip(box, shape, strict=True)
    )
    page = np.ones(shape, dtype=bool)
    page[box] = ~inside
    away = np.full(shape, 99.0)
    away[near] = ndimage.distance_transform_edt(page[near])
    return away


def _near(away: Array, paths: tuple[Path, ...], reach: float = 8.0) -> Array:
    """`[paths]` whether most of each path's points are within reach."""
    if not paths:
        return np.zeros(0, dtype=bool)
    at = np.concatenate([path.points for path in paths]).round().astype(int)
    lengths = np.array([len(path.points) for path in paths])
    close = (away[at[:, 1], at[:, 0]] < reach).astype(int)
    return np.add.reduceat(close, np.cumsum(lengths) - lengths) > lengths / 2


def _blobs(drawn: Array, depth: Array, least: float = 11.0) -> tuple[Blob, ...]:
    """Inked areas more than twice `least` wide: no pen draws such a stroke in this size."""
    core, count = ndimage.label(depth >= least)
    blobs = []
    for i in range(1, count + 1):
        inside = core == i
        radius = float(depth[inside].max())
        if radius < 1.2 * least:
            continue  # where two broad strokes cross
        grown = ndimage.distance_transform_edt(~inside) <= least
        pixels = np.argwhere(grown & drawn)[:, ::-1]
        x, y = pixels.mean(axis=0).tolist()
        blobs.append(Blob(x, y, radius, pixels))
    return tuple(blobs)
