"""Drawing on a matplotlib figure in pixels from the upper left: text, pictures, boxes, charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from scribblediffusion.view.colour import Colour, Theme
from scribblediffusion.view.fonts import families, readable
from scribblediffusion.view.heatmap import as_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Dots an inch: a pixel of the page is a pixel of the picture.
DPI = 100


@contextmanager
def plain_style() -> Iterator[None]:
    """The defaults of matplotlib, whatever a person has set: each figure is made and drawn so."""
    from matplotlib import style

    with style.context("default"):
        yield


def rgb(colour: Colour) -> tuple[float, float, float]:
    """A colour as matplotlib counts, 0…1."""
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


def points(pixels: float) -> float:
    """A height in pixels as a font size."""
    return pixels * 72 / DPI


def text_at(
    canvas: Axes, x: float, y: float, text: str, size: float, colour: Colour, *, align: str = "left"
) -> None:
    """A line whose upper edge is at y, `size` pixels high; a dollar sign is a dollar sign."""
    line = readable(text)
    canvas.text(
        x, y, line, fontsize=points(size), color=rgb(colour), va="top", ha=align,
        family=families(line), parse_math=False, usetex=False,
    )  # fmt: skip


def image_at(
    canvas: Axes, picture: Any, box: tuple[float, float, float, float], colours: Theme
) -> None:
    """A picture in a box (left, top, width, height)."""
    left, top, width, height = box
    shown = as_image(picture, (round(width), round(height)))
    extent = (left, left + width, top + height, top)
    canvas.imshow(np.asarray(shown), extent=extent, aspect="auto", interpolation="nearest")


def empty_at(
    canvas: Axes, message: str, box: tuple[float, float, float, float], colours: Theme
) -> None:
    """An empty box that says why."""
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    canvas.add_patch(Rectangle((left, top), width, height, facecolor=rgb(colours.panel)))
    at = left + width / 2, top + height / 2 - 8
    text_at(canvas, *at, message, 13, colours.muted, align="center")


def square_at(canvas: Axes, at: tuple[float, float], side: float, colour: Colour) -> None:
    """A filled square."""
    from matplotlib.patches import Rectangle

    canvas.add_patch(Rectangle(at, side, side, facecolor=rgb(colour), edgecolor="none"))


def chart_at(figure: Figure, size: tuple[int, int], colours: Theme, box: Sequence[float]) -> Axes:
    """A chart in a box of pixels, in the colours of the page."""
    left, top, width, height = box
    place = left / size[0], 1 - (top + height) / size[1]
    axes = figure.add_axes((*place, width / size[0], height / size[1]))
    axes.set_facecolor(rgb(colours.ground))
    axes.tick_params(
        colors=rgb(colours.muted), labelsize=points(12), length=3, labelfontfamily="DejaVu Sans"
    )
    axes.xaxis.label.set(fontsize=points(12), fontfamily="DejaVu Sans")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(rgb(colours.muted))
    return axes
