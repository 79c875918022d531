"""What the drawing shows in each sketch region, in words: facts from the ink, not guesses.

"upper right: a curve bending down, 6 % ink". The strokes are read once from the whole drawing
(`strokes.py`), so that a line which merely leaves a region is no end, and a box cut out of a
circle is no closed shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scribblediffusion.analysis.hatching import Box, Texture, direction_of, inside
from scribblediffusion.analysis.indexed import Indexed, Loop
from scribblediffusion.analysis.skeleton import Path
from scribblediffusion.analysis.strokes import THRESHOLD, Crossing, numbered, read_strokes
from scribblediffusion.attention.resample import resize
from scribblediffusion.errors import SketchError
from scribblediffusion.sketch import REGIONS, SIZE, Region

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal[
    "hatching", "filled", "closed shape", "crossing", "corner", "curve", "straight line", "end",
    "dot",
]  # fmt: skip

#: Most telling first: the order in which a description names what it found.
KINDS: tuple[Kind, ...] = (
    "hatching", "filled", "closed shape", "crossing", "corner", "curve", "straight line", "end",
    "dot",
)  # fmt: skip
#: A piece of stroke shorter than this says nothing about its shape.
SHORT = 6.0
#: Corners that turn by less than this in all (degrees; all the way around would be 360, of which
#: a thinned stroke shows 280 to 340) are not all the corners of a shape.
TURNS = 262
_COMPASS = ("right", "to the lower right", "down", "to the lower left",
            "left", "to the upper left", "up", "to the upper right")  # fmt: skip


@dataclass(frozen=True)
class Feature:
    """One thing seen in a region.

    Attributes:
        kind: what it is.
        phrase: in words, with its article: "a straight horizontal line".
        plural: the same of several: "straight horizontal lines".
    """

    kind: Kind
    phrase: str
    plural: str


@dataclass(frozen=True)
class RegionDescription:
    """A sketch region, described from the drawing.

    Attributes:
        region: which region.
        ink: share of its area that is ink, 0 to 1.
        features: what is there, most telling first; empty where nothing is drawn.
        touched: some of its ink is dark enough to be part of a stroke.
    """

    region: Region
    ink: float
    features: tuple[Feature, ...]
    touched: bool = True

    @property
    def where(self) -> str:
        """The place in words: "upper left"."""
        return place_in_words(self.region)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of all features, each once, most telling first."""
        return tuple(dict.fromkeys(f.kind for f in self.features))

    @property
    def what(self) -> str:
        """What is there in words: "a curve bending down, 6 % ink"."""
        if self.ink == 0:
            return "no ink"
        amount = f"{self.ink * 100:.0f} % ink" if self.ink >= 0.005 else "under 1 % ink"
        seen = "a trace of ink at the edge" if self.touched else "faint ink, no line"
        return f"{_joined(self.features) or seen}, {amount}"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def place_in_words(region: Region) -> str:
    """The place of a region in words.

    >>> place_in_words(Region(3, 0, 2)), place_in_words(Region(2, 1, 0))
    ('upper right', 'lower left quarter')
    """
    if region.level == 2:
        return f"{('upper', 'lower')[region.row]} {('left', 'right')[region.column]} quarter"
    x, y = region.centre
    vertical = ("upper", "", "lower")[int(y * 3)]
    horizontal = ("left", "", "right")[int(x * 3)]
    if vertical and horizontal:
        return f"{vertical} {horizontal}"
    alone = {"upper": "top middle", "lower": "bottom middle", "left": "middle left",
             "right": "middle right", "": "centre"}  # fmt: skip
    return alone[vertical or horizontal]


def describe_regions(
    ink: Array, regions: Sequence[Region] = REGIONS
) -> tuple[RegionDescription, ...]:
    """Describes regions of a drawing.

    Args:
        ink: `[H, W]`, square, from 0 (paper) to 1 (ink); read in a size of 256 × 256.
        regions: which regions; all 77 unless told.

    Returns:
        One description for each region, in the order given.

    Raises:
        SketchError: the array is not a square drawing with values from 0 to 1.
    """
    strokes = Indexed(read_strokes(_checked(ink)))
    texture = Texture(strokes.strokes)
    return tuple(_describe(region, strokes, texture) for region in regions)


def _checked(ink: Array) -> Array:
    ink = np.asarray(ink, dtype=np.float32)
    if ink.ndim != 2 or ink.shape[0] != ink.shape[1] or ink.shape[0] < 8:
        raise SketchError(
            f"regions are read from a square drawing [H, W]; this array has shape {ink.shape}: "
            "give `Sketch.ink`"
        )
    if not np.isfinite(ink).all() or ink.min() < 0 or ink.max() > 1:
        raise SketchError(
            f"ink runs from 0 (paper) to 1 (ink); this array runs from {ink.min():g} to "
            f"{ink.max():g}: divide by 255, and invert a drawing that is black on white"
        )
    if ink.shape[0] != SIZE:  # lengths below are those of a drawing of this size
        ink = np.clip(resize(ink, SIZE, SIZE), 0, 1).astype(np.float32)
    return ink


def _describe(region: Region, strokes: Indexed, texture: Texture) -> RegionDescription:
    sheet = strokes.strokes.ink
    box = region.box(sheet.shape[0])
    left, top, right, bottom = box
    part = sheet[top:bottom, left:right]
    features = sorted(_features(box, strokes, texture), key=lambda f: KINDS.index(f.kind))
    touched = bool((part > THRESHOLD).any())
    return RegionDescription(region, float(part.mean()), tuple(features), touched)


# --- what there is in a box ------------------------------------------------------------------


def _features(box: Box, strokes: Indexed, texture: Texture) -> Iterator[Feature]:
    hatching = texture.within(box)
    if hatching:
        yield Feature("hatching", hatching, hatching)
        return
    found = strokes.strokes
    told: set[int] = set()  # paths that a shape with a name of its own has told of
    for blob in found.blobs:
        share = inside(blob.pixels, box).sum()
        if share > 0.5 * len(blob.pixels) or share > 0.5 * _area(box):
            yield Feature("filled", "a filled area", "filled areas")
            told |= strokes.covered(blob.pixels, box)
    for loop in map(strokes.loop, strokes.holes(box)):
        yield _closed(loop)
        told |= loop.paths
    for crossing in found.crossings:
        if strokes.filled[round(crossing.y), round(crossing.x)]:
            continue  # thinning's work: in a filled area no strokes are seen that could cross
        if _has(box, crossing.x, crossing.y) and not crossing.paths <= told:
            yield _crossing(crossing)
            told |= crossing.paths
    bent = {c.path for c in found.corners if _has(box, c.x, c.y)}
    for corner in found.corners:
        if _has(box, corner.x, corner.y) and corner.path not in told:
            yield _corner(corner.angle)
            # Of a path with a corner here, the straight arms need no telling.
    yield from _lines(box, strokes, told, bent)


def _lines(box: Box, strokes: Indexed, told: set[int], bent: set[int]) -> Iterator[Feature]:
    for i in strokes.paths(box):
        if i in told:
            continue
        path, at = strokes.strokes.paths[i], strokes.ends(i)
        ends = [end for end in at if _has(box, *end)]
        if i not in bent and len(path.points) > SHORT / 2:
            yield from map(_line, (r for r in _runs(path, box) if _length(r) >= SHORT))
        if len(ends) == 1:
            yield Feature("end", "an end", "ends")
        if len(path.points) < SHORT and (len(ends) == 2 or len(path.points) == 1):
            x, y = path.points.mean(axis=0)
            if _has(box, x, y):
                yield Feature("dot", "a dot", "dots")


def _closed(loop: Loop) -> Feature:
    # Small rings: their few pixels turn sharply somewhere, but no square is as round as that.
    if loop.roundness > (0.86 if loop.corners == 0 else 0.94) and loop.corners < 4:
        shape = "closed round shape"
    elif loop.corners in (3, 4) and loop.turn > TURNS:
        shape = f"closed shape with {('three', 'four')[loop.corners - 3]} corners"
    else:
        shape = "closed shape"
    return Feature("closed shape", f"a {shape}", shape.replace("shape", "shapes", 1))


def _crossing(crossing: Crossing) -> Feature:
    arms = len(crossing.directions)
    if arms == 3:
        letter = "T" if _straight_through(crossing.directions) else "Y"
        return Feature("crossing", f"a {letter}-shaped crossing", f"{letter}-shaped crossings")
    if arms == 4:
        return Feature("crossing", "a crossing of two lines", "crossings of two lines")
    return Feature("crossing", f"a crossing of {arms} arms", f"crossings of {arms} arms")


def _straight_through(directions: Sequence[float]) -> bool:
    """Two of the arms lie on one line, within 25°."""
    bends = [
        abs(abs((a - b + np.pi) % (2 * np.pi) - np.pi) - np.pi)
        for i, a in enumerate(directions)
        for b in directions[:i]
    ]
    return min(bends) < np.radians(25)


def _corner(turn: float) -> Feature:
    if turn > 105:
        return Feature("corner", "a sharp corner", "sharp corners")
    return Feature("corner", "a corner", "corners")


def _line(points: Array) -> Feature:
    """A run of stroke as a straight line with its direction, or a curve with its bend."""
    chord = points[-1] - points[0]
    span = float(np.linalg.norm(chord))
    length = _length(points)
    if span < 0.4 * length:
        return Feature("curve", "a curve turning back on itself", "curves turning back")
    normal = np.array([-chord[1], chord[0]]) / span
    away = (points - points[0]) @ normal
    high, low = float(away.max()), float(-away.min())
    if max(high, low) <= max(1.4, 0.05 * length):
        direction = direction_of(chord)
        return Feature("straight line", f"a straight {direction}", f"straight {_many(direction)}")
    if min(high, low) > 0.35 * max(high, low):
        return Feature("curve", "a winding curve", "winding curves")
    # The ends of a curve lie towards the side that it bends to: an arch bends down.
    bend = -normal if high > low else normal
    towards = _COMPASS[round(float(np.arctan2(bend[1], bend[0])) / (np.pi / 4)) % 8]
    return Feature("curve", f"a curve bending {towards}", f"curves bending {towards}")


def _many(line: str) -> str:
    return line.replace("line", "lines", 1)


# --- boxes -----------------------------------------------------------------------------------


def _has(box: Box, x: float, y: float) -> bool:
    left, top, right, bottom = box
    return left <= x < right and top <= y < bottom


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _runs(path: Path, box: Box) -> list[Array]:
    """The unbroken pieces of a path within a box."""
    within = inside(path.points, box)
    if not within.any():
        return []
    points = path.points
    if path.closed and within[0] and within[-1] and not within.all():
        turn = int(np.flatnonzero(~within)[0])
        within, points = np.roll(within, -turn), np.roll(points, -turn, axis=0)
    label, count = numbered(within)
    return [points[label == i] for i in range(1, count + 1)]


def _length(points: Array) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


# --- words -----------------------------------------------------------------------------------


def _joined(features: Sequence[Feature], most: int = 3) -> str:
    """Features as one phrase, such as "a curve bending down, two straight lines and an end"."""
    counts = Counter(features)
    parts = [f.phrase if n == 1 else f"{_number(n)} {f.plural}" for f, n in counts.items()]
    if len(parts) > most:
        parts = [*parts[: most - 1], "more"]
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _number(n: int) -> str:
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[n - 2] if n < len(words) + 2 else str(n)
