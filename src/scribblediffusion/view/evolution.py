"""A run as it happened: sketch, emerging picture and the map of one word, step by step.

All frames share one colour scale, carry the noise that remained ("Noise remaining: 75%") and the
word, and the last one stays longer. What the trace does not hold is not shown, and a line says so.
"""

from __future__ import annotations

import base64
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from scribblediffusion.analysis.subjects import Subject, find_subject, sampling_steps
from scribblediffusion.attention.trace import AttentionTrace, Region, Step, Word
from scribblediffusion.errors import NoHeatMapError, SettingError
from scribblediffusion.view.animation import save_animation
from scribblediffusion.view.colour import Colour, Ground, Scale, Theme, table, theme
from scribblediffusion.view.heatmap import (
    BAR_HEIGHT,
    HeatStyle,
    Picture,
    as_image,
    blended,
    colour_bar,
    fitted_box,
)
from scribblediffusion.view.typeset import write

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[int, int, int, int]
_MARGIN, _GAP, _TOP = 28, 20, 96
#: A panel is at least so wide, by how many there are: what is written below fits.
_LEAST = {1: 380, 2: 190, 3: 150}
#: Room that the noise and the count of steps need in one row.
_BESIDE = 420


@dataclass(frozen=True)
class EvolutionStyle:
    """How an evolution is drawn.

    Attributes:
        heat: colours, opacity and enlargement of the map.
        view: "heat_map" (where the word acted) or "attention" (raw share of each place).
        ground: "light" or "dark".
        panel: longer side of each picture in pixels; None fits it to the number of panels.
        frame_ms: how long a frame stays, in milliseconds.
        last_ms: how long the last one stays.
    """

    heat: HeatStyle = field(default_factory=HeatStyle)
    view: Literal["heat_map", "attention"] = "heat_map"
    ground: Ground = "dark"
    panel: int | None = None
    frame_ms: int = 180
    last_ms: int = 2400

    def __post_init__(self) -> None:
        theme(self.ground)
        if self.view not in ("heat_map", "attention"):
            raise SettingError(f'view {self.view!r}: there are "heat_map" and "attention"')
        if self.panel is not None and not 96 <= self.panel <= 1024:
            raise SettingError(f"panel {self.panel}: from 96 to 1024 pixels")
        if self.frame_ms < 20 or self.last_ms < 20:
            raise SettingError(f"{self.frame_ms} and {self.last_ms} ms a frame: at least 20")


@dataclass(frozen=True, eq=False)
class Evolution:
    """The frames of one run for one word or region, drawn when they are asked for.

    Attributes:
        trace: the run.
        subject: whose map it is.
        steps: one for each frame.
        maps: `[frames, H, W]`; all 0 at a step where the subject has no weight.
        scale: the one colour scale of all frames.
        style: how it is drawn.
        sketch: the drawing, or None.
    """

    trace: AttentionTrace
    subject: Subject
    steps: tuple[Step, ...]
    maps: Array
    scale: Scale
    style: EvolutionStyle
    sketch: Picture | None

    @classmethod
    def of(
        cls,
        trace: AttentionTrace,
        what: str | int | Word | Region | Subject,
        *,
        occurrence: int = 0,
        style: EvolutionStyle | None = None,
        sketch: Picture | None = None,
        scale: Scale | None = None,
    ) -> Evolution:
        """Reads the maps of a word, region or key at every recorded step.

        Args:
            trace: the run.
            what: a word or phrase of the prompt, a `Region`, or a key.
            occurrence: which one of a repeated word.
            style: how it is drawn.
            sketch: the drawing; the trace's own unless given.
            scale: to share a colour scale with another evolution.

        Raises:
            UnknownWordError: the word is not in the prompt.
            NoHeatMapError: it has no weight at any step; a step without says so in its frame.
            NotRecordedError: its tokens were not recorded.
        """
        style = style or EvolutionStyle()
        subject = find_subject(trace, what, occurrence)
        steps = sampling_steps(trace)
        maps = np.stack([_map_at(trace, subject, s.index, style.view) for s in steps])
        if style.view == "heat_map" and not maps.any():
            raise NoHeatMapError(
                f"{subject.name!r} has no weight at any step (padding or masked out): no heat map"
            )
        made = Scale.of_heat if style.view == "heat_map" else Scale.of_attention
        drawing = trace.sketch if sketch is None else sketch
        return cls(trace, subject, steps, maps, scale or made(maps), style, drawing)

    @property
    def missing(self) -> str:
        """What the trace does not hold, in words; "" if it holds everything."""
        if self.trace.previews is None and self.trace.picture is None:
            return "this trace holds no picture and no previews: the maps alone"
        if self.trace.previews is None:
            return "this trace holds no previews: the finished picture at every step"
        return ""

    @property
    def durations(self) -> list[int]:
        """How long each frame stays, in milliseconds; the last one longer."""
        return [*[self.style.frame_ms] * (len(self.steps) - 1), self.style.last_ms]

    @property
    def flat_colours(self) -> tuple[Colour, ...]:
        """Ground, letters, tracks and the colour bar: what a palette should keep as it is."""
        colours = theme(self.style.ground)
        ramps = [*colours.ramp(colours.text, 10), *colours.ramp(colours.muted, 6)]
        bar = [(int(r), int(g), int(b)) for r, g, b in table(self.style.heat.colours)[::4]]
        plain = [colours.ground, colours.panel, colours.accent, (255, 255, 255), (0, 0, 0)]
        return (*plain, *ramps, *bar)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes all frames as GIF, animated WebP or MP4, as the path ends.

        Raises:
            SettingError: another ending, or MP4 where there is no ffmpeg.
        """
        return save_animation(self.frames(), self.durations, path, kept=self.flat_colours)

    def _repr_html_(self) -> str:
        """The GIF itself, for notebooks."""
        with tempfile.TemporaryDirectory() as folder:
            content = self.save(Path(folder) / "evolution.gif").read_bytes()
        label = escape(f"{subject_title(self.subject)}, step by step", quote=True)
        data = base64.b64encode(content).decode()
        return f'<img alt="{label}" src="data:image/gif;base64,{data}">'

    def frames(self) -> Iterator[Image.Image]:
        """The frames in the order run, RGB, all of one size."""
        layout = _Layout.of(self)
        base = _base(self, layout)
        for number in range(len(self.steps)):
            yield _frame(self, layout, base, number)

    def frame(self, number: int) -> Image.Image:
        """One frame; negative numbers count from the last.

        Raises:
            SettingError: there is no such frame.
        """
        count = len(self.steps)
        if not -count <= number < count:
            raise SettingError(f"frame {number}: there are {count}, counted from 0")
        layout = _Layout.of(self)
        return _frame(self, layout, _base(self, layout), number % count)


def subject_title(subject: Subject) -> str:
    """How a subject is named to people: a word in quotes, a region by its place."""
    if subject.region is not None:
        from scribblediffusion.analysis.regions import place_in_words

        place = place_in_words(subject.region)
        level, row, column = subject.region.level, subject.region.row, subject.region.column
        return f"sketch, {place} (row {row}, column {column} of {level} by {level})"
    return f"“{subject.name}”" if subject.kind == "word" else f"token {subject.name}"


def subject_map(
    trace: AttentionTrace,
    subject: Subject,
    step: int | None = None,
    view: Literal["heat_map", "attention"] = "heat_map",
) -> Array:
    """The map `[H, W]` of a subject at one sampling step, or of the whole run.

    Raises:
        NoHeatMapError: it has no weight anywhere.
        NotRecordedError: that step was not recorded.
    """
    if subject.region is not None:
        r = subject.region
        return trace.region(r.row, r.column, level=r.level, view=view, step=step)
    return trace.word(Word(subject.name, subject.keys), view=view, step=step)


def _map_at(
    trace: AttentionTrace, subject: Subject, step: int, view: Literal["heat_map", "attention"]
) -> Array:
    """`subject_map` at one step; all 0, as the raw weights are, where there is no weight."""
    try:
        return subject_map(trace, subject, step, view)
    except NoHeatMapError:
        return subject_map(trace, subject, step, "attention")


# --- layout ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Where everything is, in pixels.

    The noise is told below sketch and picture, beside the colour bar; where that is too narrow, on
    rows of its own above the bar, both as wide as the page.
    """

    size: tuple[int, int]
    panels: dict[str, Box]
    stacked: bool

    @classmethod
    def of(cls, evolution: Evolution) -> _Layout:
        trace = evolution.trace
        names = ["sketch"] if evolution.sketch is not None else []
        names += ["picture"] if trace.previews is not None or trace.picture is not None else []
        names.append("map")
        longest = evolution.style.panel or {1: 420, 2: 320, 3: 256}[len(names)]
        width, height = fitted_box(_proportions(trace), longest)
        width = max(width, _LEAST[len(names)])
        step = width + _GAP
        panels = {
            name: (_MARGIN + i * step, _TOP, _MARGIN + i * step + width, _TOP + height)
            for i, name in enumerate(names)
        }
        stacked = (len(names) - 1) * step - _GAP < _BESIDE
        size = 2 * _MARGIN + len(names) * step - _GAP, _TOP + height + (234 if stacked else 136)
        return cls(size, panels, stacked)

    @property
    def noise(self) -> Box:
        """Where the noise label and its track are."""
        boxes = list(self.panels.values())
        last = boxes[-1] if self.stacked else boxes[-2]
        return boxes[0][0], boxes[0][3] + 42, last[2], boxes[0][3] + 100

    @property
    def bar(self) -> tuple[int, int, int]:
        """Left, top and length of the colour bar."""
        left, _, right, bottom = self.panels["map"]
        if self.stacked:
            return _MARGIN, bottom + 124, right - _MARGIN
        return left, bottom + 42, right - left


def _proportions(trace: AttentionTrace) -> tuple[int, int]:
    if trace.picture is not None:
        return trace.picture.shape[1], trace.picture.shape[0]
    if trace.previews is not None:
        return trace.previews.shape[2], trace.previews.shape[1]
    height, width = trace.picture_size or trace.grid
    return width, height


# --- drawing ---------------------------------------------------------------------------------


def _base(evolution: Evolution, layout: _Layout) -> Image.Image:
    """Everything that is the same in all frames."""
    colours, style = theme(evolution.style.ground), evolution.style
    page = Image.new("RGB", layout.size, colours.ground)
    draw = ImageDraw.Draw(page)
    room = layout.size[0] - 2 * _MARGIN
    write(draw, (_MARGIN, 20), subject_title(evolution.subject), 30, colours.text, room=room)
    prompt = evolution.trace.prompt or "no prompt"
    write(draw, (_MARGIN, 62), prompt, 15, colours.muted, room=room)
    finished = "picture" if evolution.trace.previews is None else "picture emerging"
    acted = "where it acted" if style.view == "heat_map" else "share of attention"
    captions = {"sketch": "sketch", "picture": finished, "map": acted}
    for name, (left, _, right, bottom) in layout.panels.items():
        text, room = captions[name], right - left
        write(draw, (left, bottom + 9), text, 14, colours.muted, room=room)
    if "sketch" in layout.panels and evolution.sketch is not None:
        _place(page, evolution.sketch, layout.panels["sketch"], colours)
    left, top, length = layout.bar
    colour_bar(page, (left, top), length, evolution.scale, style.heat.colours, colours)
    unit_at = top + BAR_HEIGHT + 6
    write(draw, (left, unit_at), evolution.scale.unit, 13, colours.muted, room=length)
    note = style.heat.note(evolution.maps.shape[1:3], _map_size(evolution, layout.panels["map"]))
    write(draw, (left, unit_at + 20), note, 13, colours.muted, room=length)
    if evolution.missing:
        at, room = (_MARGIN, layout.size[1] - 30), layout.noise[2] - _MARGIN
        write(draw, at, evolution.missing, 12, colours.muted, room=room)
    return page


def _frame(evolution: Evolution, layout: _Layout, base: Image.Image, number: int) -> Image.Image:
    page = base.copy()
    colours = theme(evolution.style.ground)
    shown = evolution.trace.picture_after(evolution.steps[number].index)
    if "picture" in layout.panels and shown is not None:
        _place(page, shown, layout.panels["picture"], colours)
    if evolution.maps[number].any():
        _map(page, evolution, layout.panels["map"], number, colours)
    else:
        _silent(page, layout.panels["map"], colours)
    _noise(page, layout, evolution.steps, number, colours)
    return page


def _map(page: Image.Image, evolution: Evolution, box: Box, number: int, colours: Theme) -> None:
    shown = evolution.trace.picture_after(evolution.steps[number].index)
    size, heat = _map_size(evolution, box), evolution.style.heat
    heat = blended(evolution.maps[number], shown, evolution.scale, size, heat)
    _place(page, heat, box, colours)


def _map_size(evolution: Evolution, box: Box) -> tuple[int, int]:
    room = box[2] - box[0], box[3] - box[1]
    size = fitted_box(_proportions(evolution.trace), max(room))
    return min(size[0], room[0]), min(size[1], room[1])


def _silent(page: Image.Image, box: Box, colours: Theme) -> None:
    """No map, and why."""
    left, top, right, bottom = box
    page.paste(colours.panel, box)
    draw, at = ImageDraw.Draw(page), ((left + right) / 2, (top + bottom) / 2 - 8)
    said, room = "no weight at this step", right - left - 8
    write(draw, at, said, 13, colours.muted, anchor="ma", room=room)


def _place(page: Image.Image, picture: Picture, box: Box, colours: Theme) -> None:
    """A picture in the middle of a panel, in its own proportions."""
    width, height = box[2] - box[0], box[3] - box[1]
    image = as_image(picture)
    factor = min(width / image.width, height / image.height)
    image = as_image(image, (round(image.width * factor), round(image.height * factor)))
    if image.size != (width, height):
        page.paste(colours.panel, box)
    page.paste(image, (box[0] + (width - image.width) // 2, box[1] + (height - image.height) // 2))


def _noise(
    page: Image.Image, layout: _Layout, steps: Sequence[Step], number: int, colours: Theme
) -> None:
    left, top, right, _ = layout.noise
    draw = ImageDraw.Draw(page)
    write(draw, (left, top), str(steps[number]), 24, colours.text)
    counted = f"step {number + 1} of {len(steps)}"
    if right - left >= _BESIDE:
        write(draw, (right, top + 9), counted, 14, colours.muted, anchor="ra")
    else:
        write(draw, (left, top + 52), counted, 14, colours.muted)
    track = (left, top + 40, right, top + 45)
    draw.rectangle(_open(track), fill=colours.panel)
    remaining = steps[number].noise_remaining
    if remaining is not None and math.isfinite(remaining):
        done = round((right - left) * (1 - min(1.0, max(0.0, remaining))))
        if done > 0:
            draw.rectangle(_open((left, track[1], left + done, track[3])), fill=colours.accent)


def _open(box: Box) -> Box:
    """Pillow draws the right and bottom edge too."""
    return box[0], box[1], box[2] - 1, box[3] - 1
