"""The comprehensive analysis: one figure that can be read in half a minute.

Sketch with the leading regions, picture, a row for each word at four noise levels, text against
sketch over the noise, the correlation of the steps, and the audit's line. Everything is placed in
pixels on one page; matplotlib's `Figure` only, nothing of pyplot.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from scribblediffusion.analysis.printing import noise_words, percent, quoted
from scribblediffusion.analysis.summary import RunSummary
from scribblediffusion.errors import SettingError
from scribblediffusion.view.charts import draw_correlation, draw_shares
from scribblediffusion.view.colour import Colour, Scale, table
from scribblediffusion.view.files import whole
from scribblediffusion.view.heatmap import blended
from scribblediffusion.view.layout import (
    BODY,
    HEAD,
    LABEL,
    LEFT,
    LINE,
    MARGIN,
    NOTE,
    SMALL,
    SMALL_LINE,
    TITLE,
    UNDER,
    AnalysisPage,
    Box,
    FigureStyle,
    cut,
)
from scribblediffusion.view.page import (
    DPI,
    empty_at,
    image_at,
    plain_style,
    rgb,
    square_at,
    text_at,
)
from scribblediffusion.view.typeset import wrapped

__all__ = ["FigureStyle", "analysis_figure", "figure_image", "save_figure"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]


@plain_style()
def analysis_figure(summary: RunSummary, style: FigureStyle | None = None) -> Figure:
    """Draws the comprehensive analysis of one run.

    Args:
        summary: from `scribblediffusion.analysis.summary.summarise`.
        style: how it is drawn.

    Returns:
        A matplotlib `Figure`; `save_figure` writes it.
    """
    from matplotlib.figure import Figure

    style = style or FigureStyle()
    page = AnalysisPage.of(summary, style)
    figure = Figure(figsize=(page.width / DPI, page.height / DPI), dpi=DPI)
    figure.patch.set_facecolor(rgb(page.colours.ground))
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, page.width), ylim=(page.height, 0))
    canvas.axis("off")
    _header(canvas, page)
    _pictures(canvas, page)
    _descriptions(canvas, page)
    _word_rows(canvas, page)
    draw_shares(figure, canvas, page)
    draw_correlation(figure, canvas, page)
    note = cut(summary.audit_line, NOTE, page.width - 2 * MARGIN)
    text_at(canvas, MARGIN, page.height - 40, note, NOTE, page.colours.muted)
    return figure


def save_figure(figure: Figure, *paths: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Writes a figure as PNG, SVG or PDF, as each path ends; each whole, or not at all.

    Raises:
        SettingError: another ending.
    """
    made = []
    for path in map(Path, paths):
        if path.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise SettingError(f"figure {path.name!r}: it must end in .png, .svg or .pdf")
        with whole(path) as file:
            _write(figure, file)
        made.append(path)
    return tuple(made)


@plain_style()
def figure_image(figure: Figure) -> Image.Image:
    """The figure as RGB image, one pixel for each of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


@plain_style()
def _write(figure: Figure, path: Path) -> None:
    if path.suffix.lower() == ".png":
        figure_image(figure).save(path, "PNG", compress_level=4)
    else:
        figure.savefig(path, facecolor=figure.get_facecolor())


# --- its parts -------------------------------------------------------------------------------


def _header(canvas: Axes, page: AnalysisPage) -> None:
    trace = page.summary.trace
    room = page.width - 2 * MARGIN
    title = cut(quoted(trace.prompt), TITLE, room)
    text_at(canvas, MARGIN, 30, title, TITLE, page.colours.text)
    parts = [f"seed {trace.settings['seed']}"] if "seed" in trace.settings else []
    count = len(page.summary.maps.steps)
    parts += [f"{count} step{'' if count == 1 else 's'}", f"{len(trace.layers)} attention layers"]
    parts[-1] = parts[-1].removesuffix("s") if len(trace.layers) == 1 else parts[-1]
    parts += [f"branch {trace.branch}"] + ([] if trace.complete else ["ended early"])
    text_at(canvas, MARGIN, 74, cut(" · ".join(parts), BODY, room), BODY, page.colours.muted)


def _pictures(canvas: Axes, page: AnalysisPage) -> None:
    summary, colours = page.summary, page.colours
    left, top, _, height = page.sketch
    if summary.drawing is not None:
        image_at(canvas, summary.drawing, page.sketch, colours)
        _outlines(canvas, page, page.sketch)
        caption = "sketch, and the regions heard most" if page.leading else "sketch"
        text_at(canvas, left, top + height + 8, caption, NOTE, colours.muted)
    else:
        empty_at(canvas, "no sketch in this trace", page.sketch, colours)
    left, top, _, height = page.picture
    if summary.trace.picture is not None:
        image_at(canvas, summary.trace.picture, page.picture, colours)
        text_at(canvas, left, top + height + 8, "picture", NOTE, colours.muted)
    else:
        empty_at(canvas, "no picture in this trace", page.picture, colours)


def _outlines(canvas: Axes, page: AnalysisPage, box: Box) -> None:
    """The leading regions, each with its number in a corner that no other number is in."""
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    tags: list[tuple[tuple[float, float], Colour]] = []
    for number, heard in enumerate(page.leading, start=1):
        x0, y0, x1, y1 = (v / 256 for v in heard.description.region.box(256))
        inset = 1.5 * number  # nested regions keep lines of their own
        x, y = left + x0 * width + inset, top + y0 * height + inset
        size = (x1 - x0) * width - 2 * inset, (y1 - y0) * height - 2 * inset
        colour = _REGION_COLOURS[(number - 1) % len(_REGION_COLOURS)]
        canvas.add_patch(Rectangle((x, y), *size, fill=False, edgecolor=rgb(colour), lw=2.2))
        corners = [(x, y), (x + size[0] - _TAG, y), (x, y + size[1] - _TAG),
                   (x + size[0] - _TAG, y + size[1] - _TAG)]  # fmt: skip
        at = next((c for c in corners if not any(_touch(c, tag) for tag, _ in tags)), corners[0])
        tags.append((at, colour))
    for number, (at, colour) in enumerate(tags, start=1):  # no outline runs through a number
        _tag(canvas, at, number, colour)


def _tag(canvas: Axes, at: tuple[float, float], number: int, colour: Colour) -> None:
    square_at(canvas, at, _TAG, colour)
    text_at(canvas, at[0] + _TAG / 2, at[1] + 2, str(number), 12, (255, 255, 255), align="center")


def _touch(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[0] - b[0]) < _TAG and abs(a[1] - b[1]) < _TAG


#: Side of the square with a region's number.
_TAG = 17
#: Told apart on white paper, also with colour blindness (after Okabe and Ito 2008).
_REGION_COLOURS: tuple[Colour, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 130, 95), (180, 80, 140), (90, 90, 90),
)  # fmt: skip


def _descriptions(canvas: Axes, page: AnalysisPage) -> None:
    y, colours = page.list_top, page.colours
    if not page.leading:
        missing = "no sketch regions to describe: no drawn region, or no sketch in this trace"
        text_at(canvas, MARGIN, y, cut(missing, BODY, LEFT), BODY, colours.muted)
        return
    for number, (heard, lines) in enumerate(zip(page.leading, page.lines, strict=True)):
        swatch = _REGION_COLOURS[number % len(_REGION_COLOURS)]
        _tag(canvas, (MARGIN, y), number + 1, swatch)
        share = percent(heard.share)
        text_at(canvas, MARGIN + LEFT, y, share, BODY, colours.muted, align="right")
        for line in lines:
            text_at(canvas, MARGIN + 26, y, line, BODY, colours.text)
            y += LINE
        y += 7


def _word_rows(canvas: Axes, page: AnalysisPage) -> None:
    left, top = page.grid
    width, height = page.cell
    colours = page.colours
    if not page.words:
        message = "no word has a map: the prompt is empty, or its tokens were not recorded"
        room = page.width - MARGIN - left + LABEL
        for number, line in enumerate(wrapped(message, BODY, room)):
            text_at(canvas, left - LABEL, top + LINE * number, line, BODY, colours.muted)
        return
    maps = [page.summary.maps.of(word)[list(page.steps)] for word in page.words]
    heat = [m / np.where((s := m.sum(axis=(1, 2), keepdims=True)) > 0, s, 1) for m in maps]
    scale = Scale.of_heat(*heat)
    run = page.summary
    pictures = [run.trace.picture_after(run.maps.steps[step].index) for step in page.steps]
    for column, step in enumerate(page.steps):
        x = left + column * page.column
        noise = page.summary.maps.noise[step]
        label = f"step {step + 1}" if noise is None else f"noise {noise_words(noise)}"
        text_at(canvas, x, top - 22, label, NOTE, colours.muted)
    for row, word_maps in enumerate(heat):
        y = top + row * page.row
        _label(canvas, page, row, y)
        for column, (one, picture) in enumerate(zip(word_maps, pictures, strict=True)):
            box = (left + column * page.column, y, width, height)
            if not one.any():
                empty_at(canvas, "no weight", box, colours)
                continue
            image = blended(one, picture, scale, page.cell, page.style.heat)
            image_at(canvas, image, box, colours)
    _scale_bar(canvas, page, scale)


def _label(canvas: Axes, page: AnalysisPage, row: int, y: float) -> None:
    x = page.grid[0] - LABEL
    name = cut(page.words[row].name, HEAD, LABEL - 12)
    text_at(canvas, x, y, name, HEAD, page.colours.text)
    for number, line in enumerate(page.labels[row]):
        at = y + UNDER + SMALL_LINE * number
        text_at(canvas, x, at, line, SMALL, page.colours.muted)


def _scale_bar(canvas: Axes, page: AnalysisPage, scale: Scale) -> None:
    x, y, length = page.grid[0], page.grid_bottom + 12, page.bar
    room = page.width - MARGIN - x
    strip = np.repeat(table(page.style.heat.colours)[None], 2, axis=0)
    canvas.imshow(strip, extent=(x, x + length, y + 12, y), aspect="auto", zorder=2)
    for fraction, label in scale.ticks():
        at = x + fraction * length
        align = "left" if fraction == 0 else "right" if fraction > 0.97 else "center"
        text_at(canvas, at, y + 16, label, SMALL, page.colours.muted, align=align)
    over = ", over the emerging picture" if page.summary.trace.previews is not None else ""
    note = f"{scale.unit}; one scale for all{over}"
    text_at(canvas, x, y + 38, cut(note, SMALL, room), SMALL, page.colours.muted)
    grid = page.summary.maps.raw.shape[-2:]
    text_at(canvas, x, y + 57, page.style.heat.note(grid, page.cell), SMALL, page.colours.muted)
    others = [w.name for w in page.summary.words if w not in page.words]
    if others:
        text = cut(f"without a row: {', '.join(others)}", SMALL, room)
        text_at(canvas, x, y + 76, text, SMALL, page.colours.muted)
