"""A drawing as strokes: skeleton paths, free ends, crossings, corners, and what they enclose.

The ink is thinned to one-pixel lines (skimage's `skeletonize`) and read as a graph (`skeleton.py`).
All lengths are pixels of the drawing; all points are (x, y) from the upper left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from scribblediffusion.analysis.skeleton import (
    Graph,
    Path,
    Pixel,
    degrees,
    graph_of,
    opening,
    overlap,
    paths_of,
    pruned,
)

Array = np.ndarray[Any, np.dtype[Any]]

#: Ink above this counts as drawn; below it are the soft edges of strokes.
THRESHOLD = 0.3
#: Enclosed paper of fewer pixels than this is a gap in the ink.
LEAST_HOLE = 12
#: A half-width from which on ink is an area: no pen draws such a stroke in this size.
BROAD = 11.0
#: A filled area is at least so much ink: gaps between strokes leave less.
FILLED = 0.91
#: More ends and crossings than this in a window of 33 × 33 pixels are a thicket.
KNOTS = 16


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


@dataclass(frozen=True, eq=False)
class Hole:
    """Paper that ink encloses on all sides.

    Attributes:
        pixels: `[n, 2]` (x, y).
    """

    pixels: Array


@dataclass(frozen=True)
class Blob:
    """A filled area, wider than any stroke: centre, greatest half-width, pixels `[n, 2]` (x, y)."""

    x: float
    y: float
    radius: float
    pixels: Array


@dataclass(frozen=True)
class Strokes:
    """Everything that was found in one drawing.

    In a thicket, strokes meet or end so often that they are no lines that an eye could follow; its
    strokes are not followed here either, so that what else is found costs little.

    Attributes:
        ink: the drawing.
        depth: `[H, W]`, how far each inked pixel is from the nearest paper.
        skeleton: `[H, W]` bool, the strokes thinned to lines, those of thickets included.
        thicket: `[H, W]` bool, where the drawing is a thicket.
        paths: the strokes.
        ends: where they end.
        crossings: where they meet.
        corners: where they turn sharply.
        holes: what they enclose.
        blobs: what is too wide for a stroke.
    """

    ink: Array
    depth: Array
    skeleton: Array
    thicket: Array
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
    drawn, depth = _drawn(np.asarray(ink, dtype=np.float32), threshold)
    skeleton = skeletonize(drawn)
    thicket = _thicket(skeleton)
    graph = pruned(graph_of(skeleton & ~thicket), depth)
    paths, touching, nodes = paths_of(graph)
    return Strokes(
        ink=np.asarray(ink, np.float32),
        depth=depth,
        skeleton=skeleton,
        thicket=thicket,
        paths=paths,
        ends=tuple(_ends(paths, touching, nodes, skeleton & thicket)),
        crossings=_crossings(paths, touching, graph, nodes, depth),
        corners=tuple(c for i, path in enumerate(paths) for c in _corners(i, path, depth)),
        holes=_holes(drawn, thicket),
        blobs=_blobs(drawn, depth),
    )


def _thicket(skeleton: Array) -> Array:
    """Where ends and crossings crowd, in a window of 33 pixels."""
    knots = (skeleton & (degrees(skeleton) != 2)).astype(np.float64)
    crowd = np.asarray(ndimage.uniform_filter(knots, 33, mode="reflect"))
    return crowd * 33**2 > KNOTS


def numbered(found: Array) -> tuple[Array, int]:
    """The connected patches of a boolean array, numbered from 1, and how many there are."""
    label, count = cast("tuple[Array, int]", ndimage.label(found))
    return label, count


def distances(inside: Array) -> Array:
    """Of each true element, how far the nearest false one is."""
    return np.asarray(ndimage.distance_transform_edt(inside))


def _drawn(ink: Array, threshold: float) -> tuple[Array, Array]:
    """What is drawn, and its depth.

    Gaps smaller than a hole are ink, but not where they are what is left of the paper between
    strokes that lie too close for larger ones: there an area is hatched and not filled.
    """
    marked = ink > threshold
    drawn = _without_pinholes(marked)
    depth = _depth(drawn)
    core = depth >= BROAD
    if not core.any() or drawn.sum() == marked.sum():
        return drawn, depth
    share, within = (
        np.asarray(ndimage.uniform_filter(part, 2 * int(BROAD) - 1))
        for part in (ink * (depth >= 2), (depth >= 2).astype(np.float32))
    )
    hatched = core & (share < FILLED * within)
    if not hatched.any():
        return drawn, depth
    drawn &= marked | (distances(~hatched) > BROAD)
    return drawn, _depth(drawn)


def _without_pinholes(drawn: Array) -> Array:
    """Gaps of paper smaller than a hole are ink: thinning would run around each of them."""
    label, _ = numbered(~drawn)
    areas = np.bincount(label.ravel())
    edge = np.unique(np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]]))
    small = areas < LEAST_HOLE
    small[edge] = False
    return drawn | small[label]


def _depth(drawn: Array) -> Array:
    """Distance of each inked pixel from the nearest paper; the picture's border is no paper."""
    if drawn.all():
        return np.full(drawn.shape, max(drawn.shape), dtype=np.float64)
    return distances(drawn)


def _ends(
    paths: tuple[Path, ...], chains: list[list[Pixel]], nodes: set[Pixel], beyond: Array
) -> Iterator[End]:
    """Free ends; a path that goes on `beyond` what is followed has none there."""
    on = ndimage.binary_dilation(beyond, np.ones((3, 3))) if beyond.any() else beyond
    for i, (path, chain) in enumerate(zip(paths, chains, strict=True)):
        if path.closed or len(chain) < 2:
            continue
        for at in (0, -1):
            if chain[at] not in nodes and not on[chain[at]]:
                yield End(*path.points[at].tolist(), path=i)


def _crossings(
    paths: tuple[Path, ...],
    chains: list[list[Pixel]],
    graph: Graph,
    nodes: set[Pixel],
    depth: Array,
) -> tuple[Crossing, ...]:
    """Crossing pixels that touch, or that a link inside the ink's overlap joins, are one."""
    touching: dict[Pixel, set[int]] = {node: set() for node in nodes}
    for i, chain in enumerate(chains):
        for at in nodes.intersection((chain[0], chain[-1])):
            touching[at].add(i)
    found = []
    for group in _grouped(chains, graph, nodes, depth):
        meeting = sorted(set().union(*(touching[node] for node in group)))
        found.append(_crossing(group, meeting, paths, chains))
    return tuple(c for c in found if c is not None)


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
            angle = max(opening(chain, graph), opening(chain[::-1], graph))
            if len(chain) <= 2 + max(2 * half, 2 * overlap(half, angle)):
                join(first, last)
    return list({id(g): g for g in group.values()}.values())


def _crossing(
    group: set[Pixel], candidates: list[int], paths: tuple[Path, ...], chains: list[list[Pixel]]
) -> Crossing | None:
    centre = np.mean([(c, r) for r, c in group], axis=0)
    directions, meeting = [], set()
    for i in candidates:
        chain = chains[i]
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


def _corners(index: int, path: Path, depth: Array) -> Iterator[Corner]:
    """Turns of more than 45° that happen within a few pixels (more in a broad stroke, whose
    skeleton cuts its corners).

    Over twice the distance a circle turns twice as far, and a corner no further: a corner's turn
    over `near` pixels exceeds what the turn over `far` would give on a circle.
    """
    if len(path.points) < 13 or _straight(path):  # too short for the turns below, or none
        return
    at = path.points.round().astype(int)
    near = max(5, round(1.3 * float(np.median(depth[at[:, 1], at[:, 0]]))))
    far = 2 * near
    if len(path.points) < 2 * near + 3:
        return
    sharp, short = _turns(path, near)
    wide, long = _turns(path, far)
    round_share = short / long  # 1 near the ends of a path, where it cannot be told
    sudden = sharp > wide * (round_share + 0.32 * (1 - round_share))
    found = sudden & (sharp > 38) & (wide > 45) & (short == 2 * near) & (round_share < 0.65)
    label, count = numbered(found)
    if path.closed and count > 1 and found[0] and found[-1]:
        label[label == count] = 1
        count -= 1
    for i in range(1, count + 1):
        where = np.flatnonzero(label == i)
        top = where[np.argmax(sharp[where])]
        x, y = path.points[top].tolist()
        yield Corner(x, y, float(wide[where].max()), index)


def _straight(path: Path) -> bool:
    """No point is as far from the line between the ends as a corner would be."""
    chord = path.points[-1] - path.points[0]
    x, y = (path.points - path.points[0]).T
    away = np.abs(x * chord[1] - y * chord[0]).max()
    return not path.closed and bool(away < 1.2 * np.hypot(*chord))


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


def _holes(drawn: Array, thicket: Array) -> tuple[Hole, ...]:
    """Patches of paper that do not reach the picture's border; in a thicket they are no shapes."""
    label, count = numbered(~drawn)
    edge = set(np.unique(np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])))
    holes = []
    for i, box in enumerate(ndimage.find_objects(label, count), start=1):
        if i in edge:
            continue
        pixels = np.argwhere(label[box] == i)[:, ::-1] + (box[1].start, box[0].start)
        x, y = pixels.mean(axis=0).round().astype(int)
        if not thicket[y, x]:
            holes.append(Hole(pixels))
    return tuple(holes)


def _blobs(drawn: Array, depth: Array, least: float = BROAD) -> tuple[Blob, ...]:
    """Inked areas more than twice `least` wide."""
    core, count = numbered(depth >= least)
    blobs = []
    for i in range(1, count + 1):
        inside = core == i
        radius = float(depth[inside].max())
        if radius < 1.2 * least:
            continue  # where two broad strokes cross
        grown = distances(~inside) <= least
        pixels = np.argwhere(grown & drawn)[:, ::-1]
        x, y = pixels.mean(axis=0).tolist()
        blobs.append(Blob(x, y, radius, pixels))
    return tuple(blobs)
