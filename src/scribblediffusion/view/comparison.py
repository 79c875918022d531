"""Two runs side by side: each shared word's map in both, and what moved.

Both maps of all words share one colour scale. The change has two colours that are told apart with
colour blindness: blue where the second run's map is weaker, orange where it is stronger.
Each run has its own picture's proportions; a change is drawn in those of the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from scribblediffusion.analysis.difference import TraceDifference, WordDifference
from scribblediffusion.analysis.printing import percent, quoted
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.view.colour import Ground, Scale, Theme, theme
from scribblediffusion.view.heatmap import HeatStyle, blended, colour_bar, enlarged, fitted_box
from scribblediffusion.view.typeset import write

Array = np.ndarray[Any, np.dtype[Any]]
#: Weaker and stronger (after Okabe and Ito 2008, brightened).
WEAKER, STRONGER = (70, 160, 240), (246, 146, 40)
#: At most so many words are drawn: those that moved most.
WORDS = 8
_MARGIN, _GAP, _TOP, _LABEL, _SIDE = 28, 16, 104, 132, 200
#: Height of the foot with one note, and of each further note.
_FOOT, _LINE = 84, 20
#: A row is at least so high, and a map so wide, that what is written beside and below fits.
_ROW, _COLUMN = 70, 120


def comparison(
    difference: TraceDifference,
    first: AttentionTrace,
    second: AttentionTrace,
    *,
    ground: Ground = "dark",
    style: HeatStyle | None = None,
) -> Image.Image:
    """Draws two runs: a row for each shared word, its two maps and their change.

    Args:
        difference: from `analysis.difference.compare(first, second)`.
        first: the run before.
        second: the run after.
        ground: "light" or "dark".
        style: how the maps are drawn.

    Returns:
        An RGB image.
    """
    colours, style = theme(ground), style or HeatStyle()
    moved = sorted(difference.words, key=lambda w: -w.moved)[:WORDS]
    words = [word for word in difference.words if word in moved]
    cells = [fitted_box(_proportions(trace), _SIDE) for trace in (first, second)]
    box = max(_COLUMN, *(w for w, _ in cells)), max(_ROW, *(h for _, h in cells))
    notes = _resolution(words, (first, second), cells, style) if words else []
    left_out = len(difference.words) - len(words)
    notes += [f"{left_out} more shared words moved less"] if left_out else []
    width = 2 * _MARGIN + _LABEL + 3 * (box[0] + _GAP) - _GAP
    height = _TOP + max(1, len(words)) * (box[1] + _GAP) + _FOOT + _LINE * len(notes)
    page = Image.new("RGB", (width, height), colours.ground)
    _header(page, difference, box, colours)
    if not words:
        draw = ImageDraw.Draw(page)
        message = "no word is in both prompts with a map in both"
        write(draw, (_MARGIN, _TOP + 20), message, 15, colours.muted, room=width - 2 * _MARGIN)
        return page
    heat, change = _scales(words)
    for row, word in enumerate(words):
        top = _TOP + row * (box[1] + _GAP)
        _label(page, word, top, colours)
        images = [
            blended(word.before, first.picture, heat, cells[0], style),
            blended(word.after, second.picture, heat, cells[1], style),
            _changed(word.change, change, cells[0], colours, style.smooth),
        ]
        for column, image in enumerate(images):
            page.paste(image, (_left(column, box), top))
    _foot(page, (heat, change), box, style, notes, colours)
    return page


def _resolution(
    words: list[WordDifference],
    traces: tuple[AttentionTrace, AttentionTrace],
    cells: list[tuple[int, int]],
    style: HeatStyle,
) -> list[str]:
    """How the maps fill their places, and what was done to the maps and pictures that differ."""
    grid = words[0].before.shape
    size = min(w for w, _ in cells), min(h for _, h in cells)
    notes = [style.note(grid, size)]
    for name, trace in zip(("before", "after"), traces, strict=True):
        if trace.grid != grid:
            own = f"{trace.grid[1]} by {trace.grid[0]}"
            notes.append(f"the {own} map of the run {name} is spread over {grid[1]} by {grid[0]}")
    if cells[0] != cells[1]:
        notes.append("the pictures differ in shape: the change is drawn in that of the first")
    return notes


def _proportions(trace: AttentionTrace) -> tuple[int, int]:
    if trace.picture is not None:
        return trace.picture.shape[1], trace.picture.shape[0]
    height, width = trace.picture_size or trace.grid
    return width, height


def _scales(words: list[WordDifference]) -> tuple[Scale, Scale]:
    """One scale for all maps, one for all changes: that of the maps where nothing changed."""
    heat = Scale.of_heat(*(one for word in words for one in (word.before, word.after)))
    changes = [np.abs(word.change) for word in words]
    return heat, Scale.of_heat(*changes) if any(map(np.any, changes)) else heat


def _left(column: int, box: tuple[int, int]) -> int:
    return _MARGIN + _LABEL + column * (box[0] + _GAP)


def _header(
    page: Image.Image, difference: TraceDifference, box: tuple[int, int], colours: Theme
) -> None:
    draw, room = ImageDraw.Draw(page), page.width - 2 * _MARGIN
    for line, (name, prompt) in enumerate(
        zip(("before", "after"), difference.prompts, strict=True)
    ):
        text = f"{name}: {quoted(prompt)}"
        write(draw, (_MARGIN, 20 + 24 * line), text, 17, colours.text, room=room)
    for column, name in enumerate(("before", "after", "change")):
        write(draw, (_left(column, box), _TOP - 24), name, 13, colours.muted, room=box[0])


def _label(page: Image.Image, word: WordDifference, top: int, colours: Theme) -> None:
    draw, room = ImageDraw.Draw(page), _LABEL - 12
    r = "undefined" if word.correlation is None else f"{word.correlation:.2f}"
    r = f"r {r}".replace("-", "−")
    write(draw, (_MARGIN, top + 4), word.name, 17, colours.text, room=room)
    for line, text in enumerate((f"{percent(word.moved)} moved", r)):
        write(draw, (_MARGIN, top + 30 + 20 * line), text, 13, colours.muted, room=room)


def _changed(
    change: Array, scale: Scale, size: tuple[int, int], colours: Theme, smooth: bool = True
) -> Image.Image:
    """Blue where it is less, orange where it is more, the panel's colour where nothing changed."""
    levels = np.clip(enlarged(change, size, smooth) / scale.top, -1, 1)[..., None]
    base, less, more = (np.array(c, np.float32) for c in (colours.panel, WEAKER, STRONGER))
    mixed = base + np.abs(levels) * (np.where(levels < 0, less, more) - base)
    return Image.fromarray(mixed.round().astype(np.uint8))


def _foot(
    page: Image.Image,
    scales: tuple[Scale, Scale],
    box: tuple[int, int],
    style: HeatStyle,
    notes: list[str],
    colours: Theme,
) -> None:
    draw, top = ImageDraw.Draw(page), page.height - _FOOT - _LINE * len(notes) + 4
    heat, change = scales
    both = 2 * box[0] + _GAP
    colour_bar(page, (_left(0, box), top), both, heat, style.colours, colours)
    ends = np.linspace(-1, 1, box[0])[None].repeat(12, 0) * change.top
    left = _left(2, box)
    page.paste(_changed(ends, change, (box[0], 12), colours), (left, top))
    most = change.top * change.factor
    most = f"{most:.1f}" if most >= 0.1 else f"{most:.1g}"
    for at, text, anchor in ((0, f"−{most}", "la"), (0.5, "0", "ma"), (1, f"+{most}", "ra")):
        place = (left + at * box[0], top + 17)
        write(draw, place, text, 13, colours.muted, anchor=anchor)
    unit = f"{heat.unit}; one scale for all maps, another for all changes"
    for line, note in enumerate((unit, *notes)):
        at = (_MARGIN, top + 46 + _LINE * line)
        write(draw, at, note, 13, colours.muted, room=page.width - 2 * _MARGIN)
