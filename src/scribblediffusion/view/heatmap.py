"""Heat maps as pictures: coloured, laid over a picture, with a colour bar that has numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from scribblediffusion.attention.trace import resize
from scribblediffusion.errors import SettingError
from scribblediffusion.view.colour import ColourMap, Ground, Scale, Theme, table, theme
from scribblediffusion.view.typeset import width, wrapped, write

Array = np.ndarray[Any, np.dtype[Any]]
Picture = Image.Image | Array
#: Height of a colour bar with its numbers.
BAR_HEIGHT = 34
#: An overlay's longer side has from so many to so many pixels.
LEAST, MOST = 96, 4096


@dataclass(frozen=True)
class HeatStyle:
    """How a map is drawn.

    Attributes:
        colours: "inferno", or "cividis" for the colour-blind.
        opacity: 0 (the picture alone) to 1 (the map alone). As the map covers it the picture
            loses its colour, so that hue always means the map, and its paper fades sooner than
            its ink, so that a low value on white paper is nearly as dark as in the colour bar.
        smooth: enlarged smoothly for the eye; otherwise each place is one square.
    """

    colours: ColourMap = "inferno"
    opacity: float = 0.72
    smooth: bool = True

    def __post_init__(self) -> None:
        table(self.colours)
        if not 0 <= self.opacity <= 1:
            raise SettingError(f"opacity {self.opacity}: from 0 (picture) to 1 (map)")

    def note(self, grid: Sequence[int], size: tuple[int, int]) -> str:
        """How a map of `[H, W]` fills (width, height): "32 by 32 map, smoothly enlarged"."""
        how = "smoothly enlarged" if self.smooth else "at its true resolution"
        if _reduced(grid, size):
            how = "reduced"
        return f"{grid[1]} by {grid[0]} map, {how}"


def as_image(picture: Picture, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture as RGB image of `size` (width, height).

    Args:
        picture: an image, or uint8 `[H, W]` or `[H, W, 3]`.
        size: what it is enlarged or reduced to; its own unless told.

    Raises:
        SettingError: an array of another type or shape.
    """
    if not isinstance(picture, Image.Image):
        picture = _from_array(picture)
    picture = picture.convert("RGB") if picture.mode != "RGB" else picture
    return picture if size is None else _resized(picture, size)


def _from_array(picture: Array) -> Image.Image:
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise SettingError(
            f"picture of {array.dtype} {array.shape}: give uint8 [H, W] or [H, W, 3]"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def enlarged(values: Array, size: tuple[int, int], smooth: bool = True) -> Array:
    """A map `[H, W]` as float32 `[height, width]` of `size` (width, height).

    Smooth enlargement is cubic and kept within the map's own range; otherwise each place is one
    square (and a map that is larger than `size` is reduced by area).
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if _reduced(values.shape, size):
        return resize(values, size[1], size[0])
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    large = np.array(Image.fromarray(values).resize(size, how))
    return np.clip(large, values.min(), values.max(), out=large)


def _reduced(grid: Sequence[int], size: tuple[int, int]) -> bool:
    return size[0] < grid[1] or size[1] < grid[0]


def coloured(
    values: Array, size: tuple[int, int], scale: Scale, style: HeatStyle | None = None
) -> Image.Image:
    """A map `[H, W]` as RGB image of `size` (width, height), coloured by `scale`."""
    style = style or HeatStyle()
    return _in_colours(_levels(values, size, scale, style), table(style.colours).tobytes())


def blended(
    values: Array,
    picture: Picture | None,
    scale: Scale,
    size: tuple[int, int],
    style: HeatStyle | None = None,
    sketch: Picture | None = None,
) -> Image.Image:
    """A map over a picture, without any text; the sketch's lines over both in white.

    Args:
        values: `[H, W]`.
        picture: what lies below; None draws the map alone.
        scale: which number is which colour.
        size: (width, height).
        style: how it is drawn.
        sketch: dark lines on light paper, drawn over on request.
    """
    style = style or HeatStyle()
    lines = (
        None if sketch is None else _grey(sketch).point([(255 - v) * 4 // 5 for v in range(256)])
    )
    if picture is None or style.opacity == 1:
        return _lined(coloured(values, size, scale, style), lines)
    if style.opacity == 0:
        return _lined(as_image(picture, size), lines)
    below = as_image(picture)
    inner = _mixing_size(values.shape, below.size, size, style.smooth)
    image = _over(_levels(values, inner, scale, style), below, style)
    if lines is not None and lines.size == inner:  # as for the mixture: far less, and as sharp
        return _resized(_lined(image, lines), size)
    return _lined(_resized(image, size), lines)


def _lined(image: Image.Image, lines: Image.Image | None) -> Image.Image:
    """With lines over it in white, as screen mode draws them; the image itself stays as it is."""
    if lines is None:
        return image
    channels, mask = image.split(), _resized(lines, image.size)
    for channel in channels:  # far faster than white over all three at once
        channel.paste(255, mask=mask)
    return Image.merge("RGB", channels)


def _mixing_size(
    grid: Sequence[int], picture: tuple[int, int], size: tuple[int, int], smooth: bool
) -> tuple[int, int]:
    """Where map and picture are mixed: at the picture's size, if that loses nothing of the map.

    Enlarging the mixture costs as much as enlarging the picture, and mixing far less. A map at its
    true resolution is mixed at a multiple that has whole pixels for each square and is no more
    than doubled, so that the edges of squares stay sharp.
    """
    factor = 1 if smooth else max(1, -(-max(size) // (2 * max(picture))))
    mixed = picture[0] * factor, picture[1] * factor
    axes = list(zip(grid[::-1], mixed, size, strict=True))
    holds = all(4 * places <= inner <= outer for places, inner, outer in axes)
    whole = smooth or all(inner % places == 0 for places, inner, _ in axes)
    return mixed if holds and whole else size


def _levels(values: Array, size: tuple[int, int], scale: Scale, style: HeatStyle) -> Image.Image:
    """A map as one byte a pixel: its place in the colour table."""
    levels = enlarged(values, size, style.smooth) * np.float32(255 / scale.top)
    return Image.fromarray(np.minimum(levels, 255, out=levels).astype(np.uint8))


def _in_colours(levels: Image.Image, palette: bytes) -> Image.Image:
    levels.putpalette(palette)
    return levels.convert("RGB")


def _over(levels: Image.Image, below: Image.Image, style: HeatStyle) -> Image.Image:
    """map·(1 − a + a·picture) + b·picture·(1 − map), with a = 1 − opacity and b = a·√a.

    With b = a it would be the usual mixture; a smaller b keeps white paper from paling the map.
    It lies on a line between what is seen over black and what is seen over white.
    """
    greyed = Image.blend(below, below.convert("L").convert("RGB"), style.opacity)
    greyed = _resized(greyed, levels.size)
    white, black = (_in_colours(levels, p) for p in _ends(style.colours, style.opacity))
    channels = map(Image.composite, white.split(), black.split(), greyed.split())
    return Image.merge("RGB", list(channels))


@functools.lru_cache(maxsize=64)
def _ends(colours: str, opacity: float) -> tuple[bytes, bytes]:
    """The palettes of 256 colours as seen over white and over black."""
    ink = 1 - opacity
    paper = ink**1.5
    colour = table(colours).astype(float)
    ends = colour + paper * (255 - colour), colour * (1 - ink)
    white, black = (end.round().astype(np.uint8).tobytes() for end in ends)
    return white, black


def _grey(picture: Picture) -> Image.Image:
    image = picture if isinstance(picture, Image.Image) else _from_array(picture)
    return image if image.mode == "L" else image.convert("L")


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    enlarging = size[0] >= image.width
    return image.resize(size, Image.Resampling.BILINEAR if enlarging else Image.Resampling.BOX)


def overlay(
    values: Array,
    picture: Picture | None = None,
    *,
    view: Literal["heat_map", "attention"] = "heat_map",
    title: str = "",
    scale: Scale | None = None,
    style: HeatStyle | None = None,
    sketch: Picture | None = None,
    size: int = 512,
    bar: bool = True,
    ground: Ground = "light",
) -> Image.Image:
    """A map over a picture, with a title, a colour bar and a note on its resolution.

    Args:
        values: `[H, W]` from `trace.word`, `trace.region` or `trace.stream`.
        picture: what lies below, or None.
        view: which view `values` is: decides how the numbers of the bar read.
        title: above it, usually the word; wrapped where it is long.
        scale: a shared scale; its own (from 0 to its highest value) unless given.
        style: colours, opacity, enlargement.
        sketch: drawn over in white, where given.
        size: the longer side of the picture in pixels, 96 to 4096.
        bar: with title, colour bar and note; False gives the picture alone.
        ground: "light" or "dark".

    Returns:
        An RGB image.

    Raises:
        SettingError: a map of another shape, or an option out of range.
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.size == 0:
        raise SettingError(f"map of shape {values.shape}: give one map [H, W]")
    if not LEAST <= size <= MOST:
        raise SettingError(f"size {size}: the longer side has from {LEAST} to {MOST} pixels")
    style = style or HeatStyle()
    made = Scale.of_heat if view == "heat_map" else Scale.of_attention
    scale = scale or made(values)
    box = fitted_box(_shape(values, picture), size)
    image = blended(values, picture, scale, box, style, sketch)
    if not bar:
        return image
    return _framed(image, values.shape, scale, style, title, theme(ground))


def _shape(values: Array, picture: Picture | None) -> tuple[int, int]:
    if picture is None:
        return values.shape[1], values.shape[0]
    if isinstance(picture, Image.Image):
        return picture.size
    return picture.shape[1], picture.shape[0]


def fitted_box(shape: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) of the same proportions whose longer side is `longest`.

    >>> fitted_box((768, 512), 300)
    (300, 200)
    """
    factor = longest / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _framed(
    image: Image.Image,
    grid: Sequence[int],
    scale: Scale,
    style: HeatStyle,
    title: str,
    colours: Theme,
) -> Image.Image:
    margin, height = 16, image.height
    notes = scale.unit, style.note(grid, image.size)
    inner = max(image.width, 200, *(math.ceil(width(note, 13)) for note in notes))
    lines = wrapped(title, 20, inner, 6, plain=True) if title else ()
    head = 16 + 28 * len(lines)
    page = Image.new("RGB", (inner + 2 * margin, head + height + 102), colours.ground)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        write(draw, (margin, 12 + 28 * number), line, 20, colours.text, room=inner)
    page.paste(image, (margin + (inner - image.width) // 2, head))
    colour_bar(page, (margin, head + height + 12), inner, scale, style.colours, colours)
    for number, note in enumerate(notes):
        at = (margin, head + height + 52 + 20 * number)
        write(draw, at, note, 13, colours.muted, room=inner)
    return page


def colour_bar(
    page: Image.Image,
    at: tuple[int, int],
    length: int,
    scale: Scale,
    colours: str,
    ground: Theme,
    size: int = 13,
) -> None:
    """Draws a horizontal colour bar with numbers, `BAR_HEIGHT` high."""
    x, y = at
    strip = Image.fromarray(np.ascontiguousarray(table(colours)[None]))
    page.paste(strip.resize((length, 12), Image.Resampling.NEAREST), (x, y))
    draw = ImageDraw.Draw(page)
    for fraction, text in scale.ticks(4 if length > 180 else 2):
        tick = x + round(fraction * (length - 1))
        half = width(text, size) / 2
        draw.line([(tick, y + 12), (tick, y + 15)], fill=ground.muted)
        centre = min(max(tick, x + half), x + length - half)
        write(draw, (centre, y + 17), text, size, ground.muted, anchor="ma")
