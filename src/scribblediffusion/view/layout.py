"""Where everything of the comprehensive analysis goes, in pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scribblediffusion.analysis.listening import HeardRegion
from scribblediffusion.analysis.printing import percent
from scribblediffusion.analysis.subjects import Subject
from scribblediffusion.analysis.summary import RunSummary
from scribblediffusion.errors import SettingError
from scribblediffusion.view.colour import Ground, Theme, theme
from scribblediffusion.view.heatmap import HeatStyle
from scribblediffusion.view.typeset import fitted, wrapped

MARGIN, GAP, LEFT, LABEL = 44, 20, 600, 136
PICTURE = (LEFT - GAP) // 2
TOP = 128
REGIONS = 5
LINE = 21
#: Sizes of text in pixels.
TITLE, HEAD, BODY, NOTE, SMALL = 28, 19, 15, 14, 13
#: Under a word's name: how far down its first line is, and how far each next one.
UNDER, SMALL_LINE = 29, 17
#: A column of maps is at least so wide, so that what is written over it fits.
_COLUMN = 92
Box = tuple[int, int, int, int]


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


@dataclass(frozen=True, eq=False)
class AnalysisPage:
    """What goes where, in pixels.

    Attributes:
        summary: the run.
        style: how it is drawn.
        colours: of the ground.
        words: those with a row.
        labels: what stands under each one's name.
        steps: positions of the steps that have a column.
        leading: the sketch regions that are described.
        cell: (width, height) of a map.
        lines: each description, wrapped.
    """

    summary: RunSummary
    style: FigureStyle
    colours: Theme
    words: tuple[Subject, ...]
    labels: tuple[tuple[str, ...], ...]
    steps: tuple[int, ...]
    leading: tuple[HeardRegion, ...]
    cell: tuple[int, int]
    lines: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, summary: RunSummary, style: FigureStyle) -> AnalysisPage:
        """The page of a run."""
        words = _chosen(summary, style.words)
        labels = tuple(_label(summary, word) for word in words)
        count = len(summary.maps.steps)
        steps = tuple(dict.fromkeys(np.linspace(0, count - 1, 4).round().astype(int).tolist()))
        leading = summary.heard.leading(REGIONS) if summary.heard is not None else ()
        tallest = 200 if len(words) <= 4 else max(108, 830 // len(words) - 8)
        cell = _within(proportions(summary), 200, tallest)
        lines = tuple(wrapped(str(r), BODY, LEFT - 26 - 72) for r in leading)
        colours = theme(style.ground)
        return cls(summary, style, colours, words, labels, steps, leading, cell, lines)

    @property
    def sketch(self) -> Box:
        """Where the sketch is, in its own proportions."""
        ink = self.summary.ink
        return _pictured(MARGIN, None if ink is None else (ink.shape[1], ink.shape[0]))

    @property
    def picture(self) -> Box:
        """Where the picture is, in its own proportions."""
        shown = self.summary.trace.picture
        size = None if shown is None else (shown.shape[1], shown.shape[0])
        return _pictured(MARGIN + PICTURE + GAP, size)

    @property
    def list_top(self) -> int:
        """Where the descriptions begin."""
        return TOP + PICTURE + 44

    @property
    def charts_top(self) -> int:
        """Where the charts begin."""
        lines = sum(len(entry) * LINE + 7 for entry in self.lines)
        return self.list_top + max(lines, LINE) + 56

    @property
    def grid(self) -> tuple[int, int]:
        """Left and top of the word rows."""
        return MARGIN + LEFT + 56 + LABEL, TOP

    @property
    def column(self) -> int:
        """From one map to the next in a row."""
        return max(self.cell[0], _COLUMN) + 8

    @property
    def row(self) -> int:
        """From one word to the next: its maps fit, and what is written beside them."""
        written = UNDER + SMALL_LINE * max(map(len, self.labels), default=0)
        return max(self.cell[1], written) + 8

    @property
    def grid_bottom(self) -> int:
        """Where the word rows end."""
        return TOP + max(1, len(self.words)) * self.row

    @property
    def bar(self) -> int:
        """Length of the colour bar: four columns, however many there are."""
        return 4 * self.column - 8

    @property
    def width(self) -> int:
        """Of the whole page."""
        return self.grid[0] + max(self.bar, 440) + MARGIN

    @property
    def height(self) -> int:
        """Of the whole page."""
        return max(self.charts_top + 292, self.grid_bottom + 112) + 40


def cut(text: str, size: int, room: float) -> str:
    """A line cut to its room as this page sets it."""
    return fitted(text, size, room, plain=False)


def _within(shape: tuple[int, int], widest: int, tallest: int) -> tuple[int, int]:
    """The largest (width, height) of these proportions that fits."""
    factor = min(widest / shape[0], tallest / shape[1])
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _pictured(left: int, size: tuple[int, int] | None) -> Box:
    width, height = (PICTURE, PICTURE) if size is None else _within(size, PICTURE, PICTURE)
    return left, TOP, width, height


def proportions(summary: RunSummary) -> tuple[int, int]:
    """Width and height of the picture, or of the maps where there is none."""
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


def _label(summary: RunSummary, word: Subject) -> tuple[str, ...]:
    """What stands under a word's name: its share, and when its map settled."""
    entry = next(e for e in summary.concentrations.entries if e.subject.keys == word.keys)
    share = f"{percent(entry.share)} of all"
    if entry.did_nothing:
        return "did nothing", share
    verdict = next(c for c in summary.correlations if c.subject.keys == word.keys).verdict
    return share, *wrapped(verdict, SMALL, LABEL - 12)
