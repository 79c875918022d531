"""From any image to ink: what a drawing shows, whatever it was drawn on.

    read ─▶ grey on a backdrop ─▶ polarity ─▶ threshold, or edges for photos ─▶ square, lines kept

Every choice is made from the image alone, can be overruled by the caller, and is written down
in a `Cleaning` that travels with the sketch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from scribblediffusion.errors import SketchError
from scribblediffusion.reading import grey

Polarity = Literal["dark-on-light", "light-on-dark"]
Method = Literal["threshold", "edges"]
Box = tuple[int, int, int, int]

#: Lines are cleaned at no more than this many pixels along the longer side.
WORKING_SIDE = 1024
#: A line that would come out thinner than this, in pixels of the sketch, is drawn this wide.
THINNEST = 2.0
#: Less contrast than this between paper and pen, in 0…1, is no ink.
FAINTEST = 0.08
#: Fewer tones than this between paper and pen, away from lines, is a clean line drawing.
FEWEST_TONES = 0.003
#: More of them than this, once uneven light and fills are taken out, is no line drawing.
MOST_TONES = 0.08
#: Nor is it one with more ink than this.
MOST_INK = 0.3
#: Features wider than this, in pixels of the sketch, are ground and not lines in uneven light.
WIDEST = 21


@dataclass(frozen=True)
class Cleaning:
    """What was done to an image to make ink of it.

    Attributes:
        original_size: width and height of the upright image, in its own pixels.
        box: left, top, right, bottom of the image within the square sketch; the rest is padding.
        backdrop: the colour behind transparent pixels, or None where the image is opaque.
        polarity: whether the ink is darker or lighter than the paper.
        method: "threshold" for drawings, "edges" for photos.
        threshold: how far from paper, in 0…1 of the grey scale, ink begins: half-way to the pen;
            None for edges and where no ink was found.
        flattened: whether uneven light and fills were taken out before the threshold.
    """

    original_size: tuple[int, int]
    box: Box
    backdrop: Literal["white", "black"] | None = None
    polarity: Polarity = "dark-on-light"
    method: Method = "threshold"
    threshold: float | None = None
    flattened: bool = False

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Cleaning:
        """The cleaning that `dataclasses.asdict` made a record of, also after a way through JSON.

        Raises:
            SketchError: the record is not one of ours.
        """
        try:
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
            }
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise SketchError(f"not a record of a cleaning: {error}") from None

    def __str__(self) -> str:
        width, height = self.original_size
        how = "edges of a photo" if self.method == "edges" else "no ink found"
        if self.threshold is not None:
            how = f"threshold {self.threshold:.2f}" + (", light evened" if self.flattened else "")
        ground = f", transparent on {self.backdrop}" if self.backdrop else ""
        return f"{width}×{height}{ground}, {self.polarity}, {how}, placed at {self.box}"


# --- clean --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Levels:
    """Paper and pen on a darkness scale, and the noise of the paper."""

    paper: float
    noise: float
    pen: float

    @property
    def middle(self) -> float:
        return (self.paper + self.pen) / 2

    @property
    def blank(self) -> bool:
        return self.pen - self.paper < max(FAINTEST, 6 * self.noise)


def _levels(dark: np.ndarray) -> _Levels:
    """Paper is the commonest tone of the lighter half; the pen is the mean of the few darkest."""
    few = max(1, min(dark.size, max(8, dark.size // 5000)))
    pen = float(np.partition(dark.ravel(), -few)[-few:].mean())
    counts = np.bincount((dark * 255 + 0.5).astype(np.uint8).ravel(), minlength=256)
    lighter = int(255 * (pen + float(dark.min())) / 2) + 1
    paper = float(np.convolve(counts, np.ones(3), "same")[:lighter].argmax()) / 255
    step = np.abs(np.diff(dark, axis=int(dark.shape[1] > 1)))
    noise = float(np.median(step)) * 1.4826 / np.sqrt(2) if step.size else 0.0
    return _Levels(paper, noise, pen)


def _tones(dark: np.ndarray, levels: _Levels) -> float:
    """Share of pixels that are neither paper nor ink nor the rim of a line."""
    from scipy import ndimage

    span = levels.pen - levels.paper
    rim = max(2, round(2 * max(dark.shape) / 256))
    solid = dark > levels.paper + 0.8 * span
    lines = np.asarray(ndimage.maximum_filter(solid, 2 * rim + 1), bool)
    between = np.abs(dark - levels.paper) > max(0.15 * span, 4 * levels.noise)
    return float((between & ~lines).mean())


def _flatten(dark: np.ndarray, noise: float) -> np.ndarray:
    """Darkness relative to the ground, where ground is all that is wider than a line.

    Dividing by the ground's brightness undoes uneven light: what remains is 1 − reflectance.
    """
    from scipy import ndimage

    unit = max(dark.shape) / 256
    if noise > 0.008:
        dark = np.asarray(ndimage.gaussian_filter(dark, unit / 2))
    wide = max(3, round(WIDEST * unit))
    pad = [min(wide, size - 1) for size in dark.shape]  # light goes on as it was, past the rim
    beyond = np.pad(dark, [(n, n) for n in pad], mode="reflect", reflect_type="odd")
    ground = np.asarray(ndimage.grey_opening(beyond, (wide, wide)))
    inner = tuple(slice(n, n + size) for n, size in zip(pad, dark.shape, strict=True))
    ground = np.clip(ground[inner], 0, 1)
    return np.clip((dark - ground) / np.maximum(1 - ground, 0.1), 0, 1).astype(np.float32)


def _is_rough(dark: np.ndarray, levels: _Levels) -> bool:
    """Whether the noisiest parts of the paper are as strong as what seems to be ink."""
    lag = max(1, 2 * max(dark.shape) // 256)
    cells = [
        float(np.quantile(np.abs(cell[:, lag:] - cell[:, :-lag]), 0.25)) * 2.22  # of a Gaussian
        for band in np.array_split(dark, 8)
        for cell in np.array_split(band, 8, axis=1)
        if cell.shape[0] and cell.shape[1] > lag
    ]
    return bool(cells) and levels.pen - levels.paper < 6 * float(np.quantile(cells, 0.9))


def _stretch(dark: np.ndarray, levels: _Levels, *, firm: bool = False) -> np.ndarray:
    """Ink in 0…1: nothing on paper, 1 at the pen; black on white comes through unchanged."""
    low, high = levels.paper + 3 * levels.noise, levels.pen
    if levels.paper < 0.03 and levels.noise < 0.005:
        low = 0.0
    if high > 0.9:
        high = 1.0
    if firm or levels.noise > 0.01:  # pencil or camera: half ink at the threshold
        quarter = (levels.pen - levels.paper) / 4
        low, high = max(low, levels.middle - quarter), min(high, levels.middle + quarter)
    ink = np.clip((dark - low) / max(high - low, 1e-6), 0, 1)
    return np.where(ink < 0.04, 0, ink).astype(np.float32)


def _lines(dark: np.ndarray, forced: bool) -> tuple[np.ndarray, float | None, bool] | None:
    """Ink, threshold and whether the light was evened; None where this is no line drawing."""
    levels = _levels(dark)
    nothing = np.zeros(dark.shape, np.float32), None, False
    if levels.blank:
        return nothing
    tones = _tones(dark, levels)
    if tones < FEWEST_TONES:
        return _stretch(dark, levels), round(levels.middle - levels.paper, 4), False
    flat = _flatten(dark, levels.noise)
    evened = _levels(flat)
    if evened.blank:
        return nothing
    tones = _tones(flat, evened)
    too_much = tones > MOST_TONES or float((flat > evened.middle).mean()) > MOST_INK
    if not forced and (too_much or _is_rough(flat, evened)):
        return None
    ink = _stretch(flat, evened, firm=True)
    if float((np.abs(dark - levels.paper) < 0.03).mean()) > 0.5:  # even light: fills of ink stay
        ink = np.maximum(ink, _stretch(np.where(dark > 0.8 * levels.pen, dark, 0), levels))
    return ink, round(evened.middle - evened.paper, 4), True


def _edges(light: np.ndarray) -> np.ndarray:
    """Outlines of a photo as lines `THINNEST` pixels wide at the size of the sketch."""
    from scipy import ndimage
    from skimage.feature import canny
    from skimage.morphology import remove_small_objects

    unit = max(light.shape) / 256
    sigma = 1.6 * max(unit, 0.5)
    smooth = ndimage.gaussian_filter(light, sigma)
    slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))  # 8 × the gradient
    faintest = 8 * FAINTEST / (2.5 * sigma)  # of a step of this contrast
    low = max(float(np.quantile(slope, 0.8)), faintest / 2)
    high = max(float(np.quantile(slope, 0.92)), faintest)
    found = canny(light, sigma=sigma, low_threshold=low, high_threshold=high)
    found = remove_small_objects(found, max_size=int(14 * max(unit, 0.5)), connectivity=2)
    return _discs(found, THINNEST * unit / 2)


def _discs(points: np.ndarray, radius: float) -> np.ndarray:
    """Every True pixel drawn as a disc with a soft rim, in 0…1."""
    from scipy import ndimage

    if not points.any():
        return np.zeros(points.shape, np.float32)
    distance = ndimage.distance_transform_edt(~points)
    return np.clip(radius - np.asarray(distance, np.float32) + 0.5, 0, 1)


def _light_on_dark(light: np.ndarray) -> bool:
    """Paper is the tone of most of the picture and of its border.

    Where that is even, as on a page in uneven light, ink is what stands out from its
    neighbourhood.
    """
    from scipy import ndimage

    low, high = np.percentile(light, [0.02, 99.98])
    dark = light < (low + high) / 2
    rim = max(1, min(light.shape) // 50)
    inner = dark[rim:-rim, rim:-rim]
    border = (dark.sum() - inner.sum()) / max(1, dark.size - inner.size)
    vote = 0.7 * dark.mean() + 0.3 * border
    if abs(vote - 0.5) > 0.15:
        return bool(vote > 0.5)
    small = np.asarray(Image.fromarray(light).resize((64, 64), Image.Resampling.BOX))
    out = small - np.asarray(ndimage.median_filter(small, 9))
    lean = float(np.sum(out**3))
    return lean > 0 if np.abs(out).max() > 0.05 else bool(vote > 0.5)


# --- square -------------------------------------------------------------------------------------


def placed_box(size: tuple[int, int], side: int) -> Box:
    """Where an image of this width and height lies in a square: centred, the longer side full."""
    width, height = (max(1, round(side * s / max(size))) for s in size)
    left, top = (side - width) // 2, (side - height) // 2
    return left, top, left + width, top + height


def _pooled(light: np.ndarray, factor: int, pick: np.ufunc) -> np.ndarray:
    """The least or greatest value of each factor × factor block, so that no line is lost."""
    for axis in (0, 1):
        by = min(factor, light.shape[axis])  # a long strip is not padded to a block's height
        if by == 1:
            continue
        over = [(0, 0), (0, 0)]
        over[axis] = (0, -light.shape[axis] % by)
        light = np.pad(light, over, mode="edge")
        parts = [light[i::by] if axis == 0 else light[:, i::by] for i in range(by)]
        light = pick.reduce(parts) if by < 3 else _fold(pick, parts)
    return light


def _fold(pick: np.ufunc, parts: list[np.ndarray]) -> np.ndarray:
    out = parts[0].copy()
    for part in parts[1:]:
        pick(out, part, out=out)
    return out


def _thin_lines_kept(ink: np.ndarray, unit: float) -> np.ndarray:
    """Lines thinner than `THINNEST` pixels of the sketch drawn that wide; others untouched."""
    from scipy import ndimage
    from skimage.morphology import skeletonize

    solid = np.pad(ink > 0.3, 1)
    width = 2 * np.asarray(ndimage.distance_transform_edt(solid)) - 1
    thin = (skeletonize(solid) & (width < THINNEST * unit))[1:-1, 1:-1]
    return np.maximum(ink, _discs(thin, THINNEST * unit / 2))


def _square(ink: np.ndarray, box: Box, side: int) -> np.ndarray:
    size = box[2] - box[0], box[3] - box[1]
    unit = max(ink.shape) / side
    how = Image.Resampling.BICUBIC
    if unit > 1:
        ink, how = _thin_lines_kept(ink, unit), Image.Resampling.BOX
    scaled = np.asarray(Image.fromarray(ink).resize(size, how)) if unit != 1 else ink
    out = np.zeros((side, side), np.float32)
    out[box[1] : box[3], box[0] : box[2]] = np.clip(scaled, 0, 1)
    return out


def clean(
    image: Image.Image,
    *,
    side: int,
    polarity: Polarity | Literal["auto"] = "auto",
    method: Method | Literal["auto"] = "auto",
) -> tuple[np.ndarray, Cleaning]:
    """The ink of an image and what was done to find it.

    Args:
        image: as `read` gives it.
        side: the side of the square to make.
        polarity: whether ink is darker or lighter than the paper; "auto" looks.
        method: "threshold", "edges", or "auto": edges where the image is no line drawing.

    Returns:
        Ink `[side, side]` float32 in 0…1 (1 is ink), and the record.

    Raises:
        SketchError: an unknown polarity or method.
    """
    for value, name, known in (
        (polarity, "polarity", ("auto", "dark-on-light", "light-on-dark")),
        (method, "method", ("auto", "threshold", "edges")),
    ):
        if value not in known:
            raise SketchError(f"{name} {value!r} is unknown; use one of {', '.join(known)}")
    flat, backdrop = grey(image)
    factor = -(-max(image.size) // WORKING_SIDE)
    even = np.asarray(flat.reduce(factor) if factor > 1 else flat, np.float32) / 255
    if polarity == "auto":
        polarity = "light-on-dark" if _light_on_dark(even) else "dark-on-light"
    record = Cleaning(image.size, placed_box(image.size, side), backdrop, polarity)
    if method == "edges":
        return _square(_edges(even), record.box, side), replace(record, method="edges")

    inked = polarity == "dark-on-light"
    levels_of = np.asarray(flat)
    pooled = _pooled(levels_of, factor, np.minimum if inked else np.maximum)
    light = pooled.astype(np.float32) / 255
    dark = 1 - light if inked else light
    found = _lines(dark, forced=method == "threshold")
    if found is None:
        return _square(_edges(even), record.box, side), replace(record, method="edges")
    ink, threshold, flattened = found
    return _square(ink, record.box, side), replace(record, threshold=threshold, flattened=flattened)
