"""The comprehensive analysis: one figure that can be read in half a minute.

Sketch with the leading regions, picture, a row for each word at four noise levels, text against
sketch over the noise, the correlation of the steps, and the audit's line. Everything is placed in
pixels on one page; matplotlib's `Figure` only, nothing of pyplot.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from scribblediffusion.analysis.listening import HeardRegion
from scribblediffusion.analysis.printing import noise_words, percent
from scribblediffusion.analysis.subjects import Subject
from scribblediffusion.analysis.summary import RunSummary
from scribblediffusion.errors import SettingError
from scribblediffusion.view.colour import Colour, Ground, Scale, Theme, table, theme
from scribblediffusion.view.fonts import families, readable
from scribblediffusion.view.heatmap import HeatStyle, blended, fitted_box
from scribblediffusion.view.page import (
    DPI,
    chart_at,
    empty_at,
    image_at,
    points,
    rgb,
    square_at,
    text_at,
)
from scribblediffusion.view.typeset import fitted, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]
_MARGIN, _GAP, _LEFT, _LABEL = 44, 20, 600, 136
_PICTURE = (_LEFT - _GAP) // 2
_TOP = 128
_REGIONS = 5
_LINE = 21
#: Sizes of text in pixels.
_TITLE, _HEAD, _BODY, _NOTE = 28, 19, 15, 14


@dataclass(frozen=True)
class FigureStyle:
    """How the figure is drawn.

    Attributes:
        ground: "light" or "dark".
        heat: colours, opacity and enlargement of the maps.
        words: at most this many words have a row; the others are named.
    """

    ground: Ground = "light"
    heat: HeatStyle = field(default_factory=HeatStyle)
    words: int = 7

    def __post_init__(self) -> None:
        theme(self.ground)
        if self.words < 1:
            raise SettingError(f"{self.words} words: at least one")


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
    page = _Page.of(summary, style)
    figure = Figure(figsize=(page.width / DPI, page.height / DPI), dpi=DPI)
    figure.patch.set_facecolor(rgb(page.colours.ground))
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, page.width), ylim=(page.height, 0))
    canvas.axis("off")
    _header(canvas, page)
    _pictures(canvas, page)
    _descriptions(canvas, page)
    _word_rows(canvas, page)
    _shares(figure, canvas, page)
    _correlation(figure, canvas, page)
    note = _cut(summary.audit_line, _NOTE, page.width - 2 * _MARGIN)
    text_at(canvas, _MARGIN, page.height - 40, note, _NOTE, page.colours.muted)
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
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".figure-") as folder:
            _write(figure, Path(folder) / path.name)
            os.replace(Path(folder) / path.name, path)
        made.append(path)
    return tuple(made)


def figure_image(figure: Figure) -> Image.Image:
    """The figure as RGB image, one pixel for each of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _write(figure: Figure, path: Path) -> None:
    if path.suffix.lower() == ".png":
        figure_image(figure).save(path, "PNG", compress_level=4)
    else:
        figure.savefig(path, facecolor=figure.get_facecolor())


# --- the page --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Page:
    """What goes where, in pixels."""

    summary: RunSummary
    style: FigureStyle
    colours: Theme
    words: tuple[Subject, ...]
    steps: tuple[int, ...]
    leading: tuple[HeardRegion, ...]
    cell: tuple[int, int]
    lines: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, summary: RunSummary, style: FigureStyle) -> _Page:
        words = _chosen(summary, style.words)
        count = len(summary.maps.steps)
        steps = tuple(dict.fromkeys(np.linspace(0, count - 1, 4).round().astype(int).tolist()))
        leading = summary.heard.leading(_REGIONS) if summary.heard is not None else ()
        longest = 200 if len(words) <= 4 else max(108, 830 // len(words) - 8)
        cell = fitted_box(_proportions(summary), longest)
        lines = tuple(wrapped(str(r), _BODY, _LEFT - 26 - 72) for r in leading)
        return cls(summary, style, theme(style.ground), words, steps, leading, cell, lines)

    @property
    def picture(self) -> tuple[int, int]:
        return fitted_box(_proportions(self.summary), _PICTURE)

    @property
    def list_top(self) -> int:
        return _TOP + _PICTURE + 44

    @property
    def charts_top(self) -> int:
        lines = sum(len(entry) * _LINE + 7 for entry in self.lines)
        return self.list_top + max(lines, _LINE) + 56

    @property
    def grid(self) -> tuple[int, int]:
        """Left and top of the word rows."""
        return _MARGIN + _LEFT + 56 + _LABEL, _TOP

    @property
    def grid_bottom(self) -> int:
        return _TOP + max(1, len(self.words)) * (self.cell[1] + 8)

    @property
    def width(self) -> int:
        columns = max(4, len(self.steps))
        return self.grid[0] + max(columns * (self.cell[0] + 8) - 8, 440) + _MARGIN

    @property
    def height(self) -> int:
        return max(self.charts_top + 292, self.grid_bottom + 112) + 40


def _cut(text: str, size: int, room: float) -> str:
    """A line cut to its room as this page sets it."""
    return fitted(text, size, room, plain=False)


def _proportions(summary: RunSummary) -> tuple[int, int]:
    trace = summary.trace
    if trace.picture is not None:
        return trace.picture.shape[1], trace.picture.shape[0]
    height, width = trace.picture_size or trace.grid
    return width, height


def _chosen(summary: RunSummary, most: int) -> tuple[Subject, ...]:
    """The words with the highest peaks, in the order of the prompt."""
    peaks = {
        e.subject.keys: e.shape.peak
        for e in summary.concentrations.entries
        if e.shape is not None and not e.subject.special
    }
    mapped = [w for w in summary.words if w.keys in peaks]
    best = sorted(mapped, key=lambda w: -peaks[w.keys])[:most]
    return tuple(w for w in mapped if w in best)


# --- its parts -------------------------------------------------------------------------------


def _header(canvas: Axes, page: _Page) -> None:
    trace = page.summary.trace
    room = page.width - 2 * _MARGIN
    title = _cut(f"“{trace.prompt}”" if trace.prompt else "no prompt", _TITLE, room)
    text_at(canvas, _MARGIN, 30, title, _TITLE, page.colours.text)
    parts = [f"seed {trace.settings['seed']}"] if "seed" in trace.settings else []
    count = len(page.summary.maps.steps)
    parts += [f"{count} step{'' if count == 1 else 's'}", f"{len(trace.layers)} attention layers"]
    parts[-1] = parts[-1].removesuffix("s") if len(trace.layers) == 1 else parts[-1]
    parts += [f"branch {trace.branch}"] + ([] if trace.complete else ["ended early"])
    text_at(canvas, _MARGIN, 74, _cut(" · ".join(parts), _BODY, room), _BODY, page.colours.muted)


def _pictures(canvas: Axes, page: _Page) -> None:
    summary, colours = page.summary, page.colours
    width, height = page.picture
    right = _MARGIN + _PICTURE + _GAP
    if summary.ink is not None:
        paper = ((1 - summary.ink) * 255).round().astype(np.uint8)
        image_at(canvas, paper, (_MARGIN, _TOP, width, height), colours)
        _outlines(canvas, page, (_MARGIN, _TOP, width, height))
        caption = "sketch, and the regions heard most" if page.leading else "sketch"
        text_at(canvas, _MARGIN, _TOP + height + 8, caption, _NOTE, colours.muted)
    else:
        empty_at(canvas, "no sketch in this trace", (_MARGIN, _TOP, width, height), colours)
    if summary.trace.picture is not None:
        image_at(canvas, summary.trace.picture, (right, _TOP, width, height), colours)
        text_at(canvas, right, _TOP + height + 8, "picture", _NOTE, colours.muted)
    else:
        empty_at(canvas, "no picture in this trace", (right, _TOP, width, height), colours)


def _outlines(canvas: Axes, page: _Page, box: tuple[int, int, int, int]) -> None:
    """The leading regions, each with its number in a corner that no other number is in."""
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    tags: list[tuple[float, float]] = []
    for number, heard in enumerate(page.leading, start=1):
        x0, y0, x1, y1 = (v / 256 for v in heard.description.region.box(256))
        inset = 1.5 * number  # nested regions keep lines of their own
        x, y = left + x0 * width + inset, top + y0 * height + inset
        size = (x1 - x0) * width - 2 * inset, (y1 - y0) * height - 2 * inset
        colour = _REGION_COLOURS[(number - 1) % len(_REGION_COLOURS)]
        canvas.add_patch(Rectangle((x, y), *size, fill=False, edgecolor=rgb(colour), lw=2.2))
        corners = [(x, y), (x + size[0] - _TAG, y), (x, y + size[1] - _TAG),
                   (x + size[0] - _TAG, y + size[1] - _TAG)]  # fmt: skip
        at = next((c for c in corners if not any(_touch(c, tag) for tag in tags)), corners[0])
        tags.append(at)
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


def _descriptions(canvas: Axes, page: _Page) -> None:
    y, colours = page.list_top, page.colours
    if not page.leading:
        missing = "no sketch regions to describe: no drawn region, or no sketch in this trace"
        text_at(canvas, _MARGIN, y, _cut(missing, _BODY, _LEFT), _BODY, colours.muted)
        return
    for number, (heard, lines) in enumerate(zip(page.leading, page.lines, strict=True)):
        swatch = _REGION_COLOURS[number % len(_REGION_COLOURS)]
        _tag(canvas, (_MARGIN, y), number + 1, swatch)
        share = percent(heard.share)
        text_at(canvas, _MARGIN + _LEFT, y, share, _BODY, colours.muted, align="right")
        for line in lines:
            text_at(canvas, _MARGIN + 26, y, line, _BODY, colours.text)
            y += _LINE
        y += 7


def _word_rows(canvas: Axes, page: _Page) -> None:
    left, top = page.grid
    width, height = page.cell
    colours = page.colours
    if not page.words:
        message = "no word has a map: the prompt is empty, or its tokens were not recorded"
        room = page.width - _MARGIN - left + _LABEL
        for number, line in enumerate(wrapped(message, _BODY, room)):
            text_at(canvas, left - _LABEL, top + _LINE * number, line, _BODY, colours.muted)
        return
    maps = [page.summary.maps.of(word)[list(page.steps)] for word in page.words]
    heat = [m / np.where((s := m.sum(axis=(1, 2), keepdims=True)) > 0, s, 1) for m in maps]
    scale = Scale.of_heat(*heat)
    for column, step in enumerate(page.steps):
        x = left + column * (width + 8)
        noise = page.summary.maps.noise[step]
        label = f"step {step + 1}" if noise is None else f"noise {noise_words(noise)}"
        text_at(canvas, x, top - 22, label, _NOTE, colours.muted)
    for row, (word, word_maps) in enumerate(zip(page.words, heat, strict=True)):
        y = top + row * (height + 8)
        _label(canvas, page, word, y)
        for column, step in enumerate(page.steps):
            box = (left + column * (width + 8), y, width, height)
            if not word_maps[column].any():
                empty_at(canvas, "no weight", box, colours)
                continue
            shown = blended(
                word_maps[column], _shown(page, step), scale, (width, height), page.style.heat
            )
            image_at(canvas, shown, box, colours)
    _scale_bar(canvas, page, scale)


def _label(canvas: Axes, page: _Page, word: Subject, y: float) -> None:
    x = page.grid[0] - _LABEL
    entry = next(e for e in page.summary.concentrations.entries if e.subject.keys == word.keys)
    room = _LABEL - 12
    text_at(canvas, x, y, _cut(word.name, _HEAD, room), _HEAD, page.colours.text)
    verdict = next(c for c in page.summary.correlations if c.subject.keys == word.keys).verdict
    lines = [f"{percent(entry.share)} of all", *wrapped(verdict, 13, room)]
    lines = ["did nothing", *lines[:1]] if entry.did_nothing else lines
    for number, line in enumerate(lines[:4]):
        text_at(canvas, x, y + 29 + 17 * number, line, 13, page.colours.muted)


def _shown(page: _Page, step: int) -> Array | None:
    trace, index = page.summary.trace, page.summary.maps.steps[step].index
    if trace.previews is not None and index < len(trace.previews):
        return trace.previews[index]
    return trace.picture


def _scale_bar(canvas: Axes, page: _Page, scale: Scale) -> None:
    x, y, length = page.grid[0], page.grid_bottom + 12, 4 * (page.cell[0] + 8) - 8
    strip = np.repeat(table(page.style.heat.colours)[None], 2, axis=0)
    canvas.imshow(strip, extent=(x, x + length, y + 12, y), aspect="auto", zorder=2)
    for fraction, label in scale.ticks():
        at = x + fraction * length
        align = "left" if fraction == 0 else "right" if fraction > 0.97 else "center"
        text_at(canvas, at, y + 16, label, 13, page.colours.muted, align=align)
    over = ", over the emerging picture" if page.summary.trace.previews is not None else ""
    note = f"{scale.unit}; one scale for all{over}"
    text_at(canvas, x, y + 38, _cut(note, 13, length), 13, page.colours.muted)
    grid = page.summary.maps.raw.shape[-2:]
    text_at(canvas, x, y + 57, page.style.heat.note(grid), 13, page.colours.muted)
    others = [w.name for w in page.summary.words if w not in page.words]
    if others:
        text = _cut(f"without a row: {', '.join(others)}", 13, length)
        text_at(canvas, x, y + 76, text, 13, page.colours.muted)


def _shares(figure: Figure, canvas: Axes, page: _Page) -> None:
    colours, top = page.colours, page.charts_top
    text_at(
        canvas, _MARGIN, top - 30, "share of all attention, as the noise goes", _BODY, colours.text
    )
    axes = chart_at(figure, (page.width, page.height), page.colours, (_MARGIN + 40, top, 250, 220))
    balance = page.summary.balance
    known = all(n is not None for n in balance.noise)
    x = np.array([100 * n if n is not None else i + 1 for i, n in enumerate(balance.noise)], float)
    for number, shares in enumerate(balance.by_step.values()):
        colour = rgb(colours.streams[number % len(colours.streams)])
        axes.plot(x, 100 * np.array(shares), color=colour, linewidth=2.2, marker="o", markersize=3)
    _line_labels(axes, page, x)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"])
    axes.set_xlabel("noise remaining, %" if known else "step", color=rgb(colours.muted))
    if known and len(x) > 1:
        axes.set_xlim(max(x) + 3, min(0.0, float(min(x))))


def _line_labels(axes: Axes, page: _Page, x: Array) -> None:
    """Names at the right end of the lines, pushed apart where they would overlap."""
    ends = sorted((s[-1] * 100, n) for n, s in page.summary.balance.by_step.items())
    numbers = {n: i for i, n in enumerate(page.summary.balance.by_step)}
    at = -100.0
    for end, name in ends:
        at = max(end, at + 9)
        colour = page.colours.streams[numbers[name] % len(page.colours.streams)]
        axes.annotate(
            readable(name), (1.03, at), xycoords=("axes fraction", "data"), color=rgb(colour),
            fontsize=points(_NOTE), va="center", annotation_clip=False, family=families(name),
        )  # fmt: skip


def _correlation(figure: Figure, canvas: Axes, page: _Page) -> None:
    word, colours, top = page.summary.leading_word, page.colours, page.charts_top
    left = _MARGIN + 392
    if word is None:
        text_at(canvas, left, top, "no word with a map to correlate", _BODY, colours.muted)
        return
    found = next(c for c in page.summary.correlations if c.subject.keys == word.keys)
    title = _cut(f"“{word.name}”: step by step", _BODY, _LEFT + _MARGIN + 40 - left)
    text_at(canvas, left - 24, top - 30, title, _BODY, colours.text)
    axes = chart_at(figure, (page.width, page.height), page.colours, (left, top, 184, 184))
    matrix = np.ma.masked_invalid(found.array)
    lowest = float(matrix.min()) if matrix.count() else 0.0
    low = min(0.9, np.floor(lowest * 10) / 10)
    axes.imshow(matrix, cmap=page.style.heat.colours, vmin=low, vmax=1, interpolation="nearest")
    axes.set_facecolor(rgb(colours.panel))
    ends = sorted({0, len(found.noise) - 1})
    labels = [noise_words(found.noise[i]) for i in ends]
    axes.set_xticks(ends, labels)
    axes.set_yticks(ends, labels)
    axes.set_xlabel("noise remaining", color=rgb(colours.muted), labelpad=-8)
    strip = np.repeat(table(page.style.heat.colours)[None], 2, axis=0)
    canvas.imshow(strip, extent=(left, left + 184, top + 232, top + 222), aspect="auto")
    note = "Pearson's r" + (", grey: undefined" if found.constant else "")
    for at, text, align in ((0, f"{low:.1f}", "left"), (92, note, "center"), (184, "1", "right")):
        text_at(canvas, left + at, top + 235, text, 13, colours.muted, align=align)
    text_at(canvas, left, top + 256, _cut(found.verdict, 13, 220), 13, colours.muted)
