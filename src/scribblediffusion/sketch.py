"""From any image to a `Sketch`, and the 77 regions that a sketch is read in.

The regions are a pyramid over the square sketch: 8×8, then 3×3, then 2×2, each row by row.
Region `i` is token `i` of the sketch stream and key `77 + i` of the shipped model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from scribblediffusion.cleaning import (
    Cleaning,
    Method,
    Polarity,
    clean,
    placed_box,
)
from scribblediffusion.errors import SketchError
from scribblediffusion.reading import grey, opacity, read

#: The grids of the pyramid, in token order.
LEVELS = (8, 3, 2)
#: Side of a prepared sketch in pixels.
SIZE = 256

#: What a mask is read from.
MaskSource: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"
#: What a sketch is read from.
Source: TypeAlias = "MaskSource | Sketch"


@dataclass(frozen=True, order=True)
class Region:
    """One place of the sketch: cell (row, column) of the level × level grid."""

    level: int
    row: int
    column: int

    @property
    def index(self) -> int:
        """0–76: the position in the sketch stream."""
        before = sum(n * n for n in LEVELS[: LEVELS.index(self.level)])
        return before + self.row * self.level + self.column

    def box(self, size: int = SIZE) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels of a `size` × `size` picture, right and bottom open.

        The boxes of one level tile the picture: every pixel lies in exactly one of them.
        """
        edge = [round(i * size / self.level) for i in range(self.level + 1)]
        return edge[self.column], edge[self.row], edge[self.column + 1], edge[self.row + 1]

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle, in 0…1 from the upper left."""
        return (self.column + 0.5) / self.level, (self.row + 0.5) / self.level


#: All 77 regions in token order: 64 fine, 9 middle, 4 coarse.
REGIONS: tuple[Region, ...] = tuple(
    Region(n, row, column) for n in LEVELS for row in range(n) for column in range(n)
)


@dataclass(frozen=True, eq=False, repr=False)
class Sketch:
    """A drawing as the model reads it: ink on a square, and where it has a say.

    Attributes:
        ink: `[256, 256]` float32 in 0…1, 1 is ink, in steps of 1/255; read-only. What people
            are shown; the model reads `strokes`.
        cleaning: what was done to the image, or None for a blank sketch.
        mask: `[256, 256]` bool, True where the sketch has a say, or None for everywhere. Ink
            outside is erased.

    Raises:
        SketchError: ink or mask of another shape, or ink outside 0…1.
    """

    ink: np.ndarray
    cleaning: Cleaning | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        ink = np.array(self.ink, np.float32)
        if (
            ink.shape != (SIZE, SIZE)
            or not np.isfinite(ink).all()
            or ink.min() < -0.01
            or ink.max() > 1.01
        ):
            raise SketchError(
                f"ink must be [{SIZE}, {SIZE}] in 0…1; found {list(ink.shape)}; "
                "use Sketch.from_image for any other image"
            )
        levels = np.round(255 * np.clip(ink, 0, 1))  # 8 bits, so that a saved sketch is the same
        if self.mask is not None:
            inside = np.array(self.mask, bool)
            if inside.shape != (SIZE, SIZE):
                raise SketchError(
                    f"a mask must be [{SIZE}, {SIZE}]; found {list(inside.shape)}; "
                    "use Sketch.masked for any other image"
                )
            object.__setattr__(self, "mask", _frozen(inside))
            levels = np.where(inside, levels, 0)
        object.__setattr__(self, "ink", _frozen((levels / 255).astype(np.float32)))

    @classmethod
    def from_image(
        cls,
        source: Source,
        *,
        mask: MaskSource | None = None,
        polarity: Polarity | Literal["auto"] = "auto",
        method: Method | Literal["auto"] = "auto",
    ) -> Sketch:
        """Any image as a sketch.

        Dark on light or light on dark, a photo, with alpha (put on white; on black where it
        would vanish there), of any size and shape: what was done is in `cleaning`. Of an
        animation the first frame is read. A clean 256 × 256 drawing in black on white comes
        through unchanged.

        Args:
            source: a path, a PIL image, an array (`[H, W]`, `[H, W, 3]` or `[H, W, 4]`, uint8
                or floats in 0…1; bool, or integers of only 0 and 1, are black and white, and
                which of them is ink follows `polarity`), or a `Sketch`, which is returned as it
                is.
            mask: where the sketch has a say; see `masked`.
            polarity: "dark-on-light", "light-on-dark", or "auto": the paper is what most of
                the image and of its border shows.
            method: "threshold" for drawings, "edges" for photos, or "auto".

        Raises:
            SketchError: what was given cannot be read as an image (text, a missing or damaged
                file, over 40 megapixels, an empty or wrongly shaped array, NaN), or a mask
                that does not fit.
        """
        if isinstance(source, Sketch):
            sketch = source
        else:
            sketch = cls(*clean(read(source), side=SIZE, polarity=polarity, method=method))
        return sketch if mask is None else sketch.masked(mask)

    @classmethod
    def blank(cls) -> Sketch:
        """No drawing at all."""
        return cls(np.zeros((SIZE, SIZE), np.float32))

    @classmethod
    def from_ink(
        cls, image: Image.Image, *, cleaning: Cleaning | None = None, mask: np.ndarray | None = None
    ) -> Sketch:
        """The very sketch that `to_image` drew, bit for bit: nothing is cleaned.

        Args:
            image: black on white, mode "L", 256 × 256.
            cleaning: what had been done to find the ink.
            mask: bool `[256, 256]`, True where the sketch has a say.

        Raises:
            SketchError: of another size.
        """
        return cls((255 - np.asarray(image.convert("L"), np.float32)) / 255, cleaning, mask)

    def __repr__(self) -> str:
        where = "" if self.mask is None else f", {int(self.active.sum())} of 77 regions active"
        return f"Sketch({100 * float(self.ink.mean()):.1f} % ink{where}; {self.cleaning})"

    @property
    def strokes(self) -> np.ndarray:
        """Where there is ink for the model, `[256, 256]` bool: at least half of it.

        Training draws ink or none. The soft rims of a resized drawing, the grain of chalk and the
        grey of a pencil would be news to the model.
        """
        return self.ink >= 0.5

    @property
    def is_blank(self) -> bool:
        """Whether no ink was found, or the mask left none."""
        return not bool(self.strokes.any())

    @property
    def active(self) -> np.ndarray:
        """Of each of the 77 regions, bool: False for a region of which the mask keeps no pixel."""
        if self.mask is None:
            return np.ones(len(REGIONS), bool)
        boxes = (region.box() for region in REGIONS)
        kept = [self.mask[top:bottom, left:right].any() for left, top, right, bottom in boxes]
        return np.array(kept, bool)

    def masked(self, mask: MaskSource) -> Sketch:
        """The sketch with a say only where the mask is bright.

        Ink outside is erased, and a region wholly outside is not `active`. A second mask
        narrows the first.

        Args:
            mask: any image that `from_image` reads, of the original image's proportions or
                square (then it covers the whole 256 × 256 sketch). The bright half of the grey
                scale is inside, and of an array True or 1; where the mask has transparent
                pixels, its opaque half is.

        Raises:
            SketchError: not an image, or of other proportions.
        """
        inside = self._inside(read(_as_bits(mask), "mask"))
        inside = inside if self.mask is None else inside & self.mask
        return Sketch(self.ink, self.cleaning, inside)

    def _inside(self, mask: Image.Image) -> np.ndarray:
        """A mask laid over the square: `[256, 256]` bool; padding continues its nearest edge."""
        bright = opacity(mask) or grey(mask)[0]
        box = placed_box(mask.size, SIZE)
        drawn = self.cleaning.box if self.cleaning else (0, 0, SIZE, SIZE)
        if (
            box != (0, 0, SIZE, SIZE)
            and max(abs(a - b) for a, b in zip(box, drawn, strict=True)) > 1
        ):
            width, height = mask.size
            size = self.cleaning.original_size if self.cleaning else (SIZE, SIZE)
            raise SketchError(
                f"the mask is {width}×{height}, the drawing {size[0]}×{size[1]}; "
                "give a mask of the same proportions, or a square one for the whole sketch"
            )
        size = box[2] - box[0], box[3] - box[1]
        inside = np.asarray(bright.resize(size, Image.Resampling.BOX)) >= 128
        return np.pad(inside, ((box[1], SIZE - box[3]), (box[0], SIZE - box[2])), mode="edge")

    def to_image(self) -> Image.Image:
        """The ink in black on white: PIL mode "L", 256 × 256."""
        return Image.fromarray(np.round(255 - 255 * self.ink).astype(np.uint8))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _as_bits(mask: MaskSource) -> MaskSource:
    """An array of 0 and 1 as bool: one that is 1 everywhere is all inside, not nearly black."""
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "ui" or not mask.size:
        return mask
    return mask.astype(bool) if mask.min() >= 0 and mask.max() <= 1 else mask
