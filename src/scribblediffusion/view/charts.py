"""The two charts of the comprehensive analysis: shares over the noise, and step against step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scribblediffusion.analysis.correlation import StepCorrelation
from scribblediffusion.analysis.printing import noise_words
from scribblediffusion.view.colour import table
from scribblediffusion.view.fonts import families
from scribblediffusion.view.layout import BODY, MARGIN, NOTE, SMALL, AnalysisPage, cut
from scribblediffusion.view.page import chart_at, points, rgb, text_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]
#: Width of the chart of shares; where the matrix of correlations begins, its side, and the room of
#: a line below it, in pixels.
_CHART, _LEFT, _SIDE, _ROOM = 232, MARGIN + 416, 184, 232
#: From the chart to the names of its lines; the labels left of the matrix; the air before them.
_NAMES, _TICKS, _AIR = 8, 48, 8
_DASHES = ("-", "--", ":")


def draw_shares(figure: Figure, canvas: Axes, page: AnalysisPage) -> None:
    """Each stream's share of the attention over the noise that remained."""
    from matplotlib.ticker import MaxNLocator

    top, muted = page.charts_top, rgb(page.colours.muted)
    title = "share of all attention, as the noise goes"
    text_at(canvas, MARGIN, top - 30, title, BODY, page.colours.text)
    axes = chart_at(
        figure, (page.width, page.height), page.colours, (MARGIN + 40, top, _CHART, 220)
    )
    balance = page.summary.balance
    known = all(n is not None for n in balance.noise)
    x = np.array([100 * n if n is not None else i + 1 for i, n in enumerate(balance.noise)], float)
    x = x if known else np.arange(1.0, len(x) + 1)
    for number, shares in enumerate(balance.by_step.values()):
        colour, dashes = _looks(page, number)
        axes.plot(
            x, 100 * np.array(shares), color=colour, linewidth=2.2, linestyle=dashes,
            marker="o", markersize=3,
        )  # fmt: skip
    _name_lines(axes, page)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"])
    axes.set_xlabel("noise remaining, %" if known else "step", color=muted)
    if known:
        axes.set_xlim(max(x) + 3, min(0.0, float(min(x))))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, len(x) + 0.5)


def _looks(page: AnalysisPage, number: int) -> tuple[tuple[float, float, float], str]:
    """Colour and dashes of a stream's line, for eighteen streams no two alike."""
    colours = page.colours.streams
    return rgb(colours[number % len(colours)]), _DASHES[number // 3 % len(_DASHES)]


def _name_lines(axes: Axes, page: AnalysisPage) -> None:
    """Names at the right end of the lines, pushed apart where they would overlap.

    They are cut so that there is air between them and the matrix.
    """
    room = _LEFT - _TICKS - _AIR - (MARGIN + 40 + _CHART + _NAMES)
    ends = sorted((s[-1] * 100, n) for n, s in page.summary.balance.by_step.items())
    numbers = {n: i for i, n in enumerate(page.summary.balance.by_step)}
    at = -100.0
    for end, name in ends:
        at = max(end, at + 9)
        text = cut(name, NOTE, room)
        axes.annotate(
            text, (1 + _NAMES / _CHART, at), xycoords=("axes fraction", "data"),
            color=_looks(page, numbers[name])[0], fontsize=points(NOTE), va="center",
            annotation_clip=False, family=families(text), parse_math=False,
        )  # fmt: skip


def draw_correlation(figure: Figure, canvas: Axes, page: AnalysisPage) -> None:
    """The leading word's maps, each step against each."""
    word, colours = page.summary.leading_word, page.colours
    left, top = _LEFT, page.charts_top
    if word is None:
        text_at(canvas, left, top, "no word with a map to correlate", BODY, colours.muted)
        return
    found = next(c for c in page.summary.correlations if c.subject.keys == word.keys)
    title = cut(f"“{word.name}”: step by step", BODY, _ROOM)
    text_at(canvas, left - 24, top - 30, title, BODY, colours.text)
    if len(found.steps) > 1:
        _matrix(figure, canvas, page, found, (left, top))
    else:
        text_at(canvas, left - 24, top, found.verdict, SMALL, colours.muted)


def _matrix(
    figure: Figure, canvas: Axes, page: AnalysisPage, found: StepCorrelation, at: tuple[int, int]
) -> None:
    (left, top), colours = at, page.colours
    axes = chart_at(figure, (page.width, page.height), colours, (left, top, _SIDE, _SIDE))
    matrix = np.ma.masked_invalid(found.array)
    lowest = float(matrix.min()) if matrix.count() else 0.0
    low = min(0.9, np.floor(lowest * 10) / 10)
    axes.imshow(matrix, cmap=page.style.heat.colours, vmin=low, vmax=1, interpolation="nearest")
    axes.set_facecolor(rgb(colours.panel))
    known = all(n is not None for n in found.noise)
    ends = [0, len(found.noise) - 1]
    labels = [noise_words(found.noise[i]) if known else str(i + 1) for i in ends]
    axes.set_xticks(ends, labels)
    axes.set_yticks(ends, labels)
    axes.set_xlabel("noise remaining" if known else "step", color=rgb(colours.muted), labelpad=0)
    strip = np.repeat(table(page.style.heat.colours)[None], 2, axis=0)
    canvas.imshow(strip, extent=(left, left + _SIDE, top + 232, top + 222), aspect="auto")
    middle, notes = (_SIDE / 2, "Pearson's r", "center"), [found.verdict]
    for x, text, align in ((0, f"{low:.1f}", "left"), middle, (_SIDE, "1", "right")):
        text_at(canvas, left + x, top + 235, text, SMALL, colours.muted, align=align)
    notes += ["grey: undefined"] if found.constant else []
    for number, note in enumerate(notes):
        y = top + 255 + 17 * number
        text_at(canvas, left, y, cut(note, SMALL, _ROOM), SMALL, colours.muted)
