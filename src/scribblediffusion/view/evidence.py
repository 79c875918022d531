"""Plots of measurements with intervals: bars, curves over the noise, a matrix, rows of pictures.

Plain values in, a matplotlib `Figure` out; `figure.save_figure` writes it. An interval is
(value, low, high).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scribblediffusion.view.colour import LIGHT, Scale, table
from scribblediffusion.view.page import DPI, plain_style, rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]
Interval = tuple[float, float, float]
#: Colours of series in turn; the first is what is measured, greys are chance and controls.
COLOURS = ((0, 95, 150), (196, 78, 36), (120, 80, 150), (60, 130, 80))
#: Largest change that change maps show, in ΔE*ab.
CHANGE_TOP = 40.0
GREYS = ((70, 70, 78), (150, 150, 158), (200, 200, 204))


@dataclass(frozen=True)
class Bars:
    """One panel of grouped bars.

    Attributes:
        title: above the panel.
        groups: name of a group → series → interval; groups may lack a series.
        aims: name of a group → a line to reach.
        unit: name of the axis.
    """

    title: str
    groups: Mapping[str, Mapping[str, Interval]]
    aims: Mapping[str, float] = field(default_factory=dict)
    unit: str = "share"


@dataclass(frozen=True)
class Curves:
    """One panel of curves over the noise that remains.

    Attributes:
        title: above the panel.
        series: name → points (noise remaining, interval), in any order.
        unit: name of the axis.
        grey: names of series that are chance or controls.
    """

    title: str
    series: Mapping[str, Sequence[tuple[float, Interval]]]
    unit: str
    grey: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class PictureRow:
    """A row of pictures with a line of text above.

    Attributes:
        text: what is to be seen.
        pictures: (label, uint8 `[h, w, 3]`).
    """

    text: str
    pictures: Sequence[tuple[str, Array]]


@plain_style()
def bars(panels: Sequence[Bars]) -> Figure:
    """Grouped bars with intervals, one panel beside another."""
    figure, axes = _figure(len(panels), 430, 380)
    names = list(dict.fromkeys(s for p in panels for g in p.groups.values() for s in g))
    for axis, panel in zip(axes, panels, strict=True):
        width = 0.8 / max(1, len(names))
        for number, name in enumerate(names):
            at = [i for i, g in enumerate(panel.groups.values()) if name in g]
            drawn = [list(panel.groups.values())[i][name] for i in at]
            x = [i + (number - (len(names) - 1) / 2) * width for i in at]
            _bar(axis, x, drawn, width * 0.92, _colour(number), name)
        for i, group in enumerate(panel.groups):
            if group in panel.aims:
                axis.plot(
                    [i - 0.45, i + 0.45], [panel.aims[group]] * 2, color="black", lw=1, ls=":"
                )
        axis.set_xticks(range(len(panel.groups)), list(panel.groups), fontsize=9)
        axis.set(title=panel.title, ylabel=panel.unit, ylim=(0, 1.02))
    _legend(figure, axes[0])
    return figure


@plain_style()
def curves(panels: Sequence[Curves]) -> Figure:
    """Curves with their intervals, most noise at the left; all panels of one scale."""
    figure, axes = _figure(len(panels), 430, 340)
    for axis, panel in zip(axes, panels, strict=True):
        lively = [name for name in panel.series if name not in panel.grey]
        for name, points in panel.series.items():
            grey = name in panel.grey
            colour = GREYS[list(panel.grey).index(name)] if grey else COLOURS[lively.index(name)]
            ordered = sorted(points, key=lambda p: -p[0])
            x = [100 * p[0] for p in ordered]
            value, low, high = (np.array([p[1][i] for p in ordered]) for i in range(3))
            axis.plot(x, value, color=rgb(colour), lw=1.8, ls="--" if grey else "-", label=name)
            axis.fill_between(x, low, high, color=rgb(colour), alpha=0.15, lw=0)
        axis.set(title=panel.title, xlabel="noise remaining, %", ylabel=panel.unit)
        axis.set_xlim(102, -2)
    top = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:  # of one scale
        axis.set_ylim(0, top)
    _legend(figure, *axes)
    return figure


@plain_style()
def ranked(panels: Sequence[Bars]) -> Figure:
    """Horizontal intervals, one row a group: for many names, as of layers."""
    rows = max(len(p.groups) for p in panels)
    figure, axes = _figure(len(panels), 360, 120 + 24 * rows, left=250)
    for number, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        names = list(dict.fromkeys(s for g in panel.groups.values() for s in g))
        for order, name in enumerate(names):
            for i, group in enumerate(panel.groups.values()):
                if name in group:
                    value, low, high = group[name]
                    colour = rgb(_colour(order))
                    axis.plot([low, high], [i, i], color=colour, lw=2, alpha=0.6)
                    axis.plot([value], [i], "o", color=colour, ms=5, label=name)
        axis.set(title=panel.title, xlabel=panel.unit, xlim=(0, 1.02))
        labels = list(panel.groups) if not number else [""] * len(panel.groups)
        axis.set_yticks(range(len(panel.groups)), labels, fontsize=8)
        axis.invert_yaxis()
    _legend(figure, axes[0])
    return figure


@plain_style()
def matrix(
    panels: Sequence[tuple[str, Array]], rows: Sequence[str], columns: Sequence[str], unit: str
) -> Figure:
    """Numbers 0…1 as colours with the numbers in them, all panels on one scale from 0."""
    from matplotlib.colors import ListedColormap

    figure, axes = _figure(len(panels), 400, 120 + 26 * len(rows), left=250)
    scale = Scale(1.0)
    colours = ListedColormap(table("cividis") / 255)
    for number, (axis, (title, values)) in enumerate(zip(axes, panels, strict=True)):
        axis.imshow(scale.fraction(values), cmap=colours, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            ink = "white" if value < 0.55 else "black"
            text = f"{100 * value:.0f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
        axis.set(title=f"{title}, {unit}", xlabel="head")
        axis.set_xticks(range(len(columns)), list(columns), fontsize=8)
        axis.set_yticks(
            range(len(rows)), list(rows) if not number else [""] * len(rows), fontsize=8
        )
    return figure


@plain_style()
def pictures(rows: Sequence[PictureRow]) -> Figure:
    """Rows of pictures with a sentence above each row and a label under each picture."""
    from matplotlib.figure import Figure

    side, gap, head, foot = 210, 12, 46, 26
    width = max(len(r.pictures) for r in rows) * (side + gap) + gap
    height = len(rows) * (side + head + foot + gap) + gap
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.patch.set_facecolor(rgb(LIGHT.ground))
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, width), ylim=(height, 0))
    canvas.axis("off")
    for number, row in enumerate(rows):
        top = gap + number * (side + head + foot + gap)
        canvas.text(gap, top + head - 10, row.text, fontsize=9.5, va="bottom", parse_math=False)
        for i, (label, picture) in enumerate(row.pictures):
            left = gap + i * (side + gap)
            box = (left, left + side, top + head + side, top + head)
            canvas.imshow(picture, extent=box, aspect="auto", interpolation="bilinear")
            muted = rgb(LIGHT.muted)
            middle = left + side / 2, top + head + side + 5
            canvas.text(
                *middle, label, fontsize=8, color=muted, ha="center", va="top", parse_math=False
            )
    return figure


def change_row(
    text: str, how: str, before: Array, after: Array, change: Array, heat: Array
) -> PictureRow:
    """A run before and after an edit, what changed, and the map that should say where.

    Args:
        text: above the row.
        how: what was done.
        before: the picture, uint8 `[H, W, 3]`.
        after: the changed run's.
        change: ΔE*ab `[H, W]`.
        heat: the map `[h, w]`, any scale.
    """
    even = heat / heat.mean()
    top = float(even.max())
    shown = [
        ("the picture", before),
        (how, after),
        (f"change (brightest: ΔE ≥ {CHANGE_TOP:.0f})", coloured(change, CHANGE_TOP)),
        (f"its map (brightest: {top:.1f}× even)", coloured(even, top)),
    ]
    return PictureRow(text, shown)


@plain_style()
def change_rows(before: Array, edits: Sequence[tuple[str, str, Array, Array, Array]]) -> Figure:
    """One row an edit: (text, how, picture after, change, map); see `change_row`."""
    return pictures([change_row(text, how, before, *arrays) for text, how, *arrays in edits])


def coloured(values: Array, top: float) -> Array:
    """Numbers from 0 to `top` as inferno colours, uint8 `[h, w, 3]`."""
    at = (Scale(top).fraction(values) * 255).round().astype(np.uint8)
    return table("inferno")[at]


def _figure(panels: int, width: int, height: int, left: int = 64) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side; room for a legend below."""
    from matplotlib.figure import Figure

    gap, right, top, bottom = 70, 24, 36, 92
    total = left + panels * width + (panels - 1) * gap + right
    figure = Figure(figsize=(total / DPI, (height + top + bottom) / DPI), dpi=DPI)
    figure.patch.set_facecolor(rgb(LIGHT.ground))
    axes = []
    for i in range(panels):
        box = (
            (left + i * (width + gap)) / total,
            bottom / (height + top + bottom),
            width / total,
            height / (height + top + bottom),
        )
        axis = figure.add_axes(box)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_facecolor(rgb(LIGHT.ground))
        axis.title.set_fontsize(10)
        axes.append(axis)
    return figure, axes


def _bar(
    axis: Axes, x: Sequence[float], drawn: Sequence[Interval], width: float, colour: Any, name: str
) -> None:
    value = [v for v, _, _ in drawn]
    errors = [[max(0, v - low) for v, low, _ in drawn], [max(0, high - v) for v, _, high in drawn]]
    axis.bar(x, value, width, color=rgb(colour), label=name)
    axis.errorbar(x, value, errors, fmt="none", ecolor="black", elinewidth=1, capsize=2)


def _colour(number: int) -> Any:
    return COLOURS[0] if number == 0 else GREYS[(number - 1) % len(GREYS)]


def _legend(figure: Figure, *axes: Axes) -> None:
    """One legend for all panels, below them."""
    found: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= {k: v for k, v in zip(labels, handles, strict=True) if k not in found}
    figure.legend(
        list(found.values()),
        list(found),
        loc="lower center",
        ncols=len(found),
        frameon=False,
        fontsize=9,
    )
