"""The analysis as one HTML file: nothing is fetched, every step can be gone through by hand.

The maps travel as bytes on the shared colour scale (256 levels) and are coloured in the page by
the same table as in the other views.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from scribblediffusion.analysis.printing import Printed, quoted
from scribblediffusion.analysis.regions import place_in_words
from scribblediffusion.analysis.subjects import Subject
from scribblediffusion.analysis.summary import RunSummary
from scribblediffusion.view.colour import Scale, table, theme
from scribblediffusion.view.figure import FigureStyle, analysis_figure, figure_image
from scribblediffusion.view.files import whole
from scribblediffusion.view.heatmap import as_image, fitted_box
from scribblediffusion.view.layout import proportions
from scribblediffusion.view.typeset import png, shown

Array = np.ndarray[Any, np.dtype[Any]]
_PAGE = Path(__file__).with_name("report.html")
#: At most this many sketch regions can be looked at in a report.
REGIONS = 8
#: A prompt is cut after so many characters wherever it is a title.
_LONG = 200


@dataclass(frozen=True, eq=False)
class _Scrubbed:
    """One word or region in the scrubber."""

    title: str
    kind: str
    maps: Array
    scale: Scale

    def data(self) -> dict[str, Any]:
        levels = (self.scale.fraction(self.maps) * 255).round().astype(np.uint8)
        return {
            "title": self.title,
            "kind": self.kind,
            "levels": base64.b64encode(levels.tobytes()).decode(),
            "silent": np.flatnonzero(~self.maps.any(axis=(1, 2))).tolist(),
            "ticks": self.scale.ticks(),
            "unit": self.scale.unit,
        }


def report_html(summary: RunSummary, style: FigureStyle | None = None) -> str:
    """The report of one run as a self-contained HTML page.

    Args:
        summary: from `scribblediffusion.analysis.summary.summarise`.
        style: ground, colour map and opacity.

    Returns:
        The page: figure, tables, and a scrubber for the steps. It asks the network for nothing.
    """
    style = style or FigureStyle()
    colours = theme(style.ground)
    trace = summary.trace
    prompt = shown(trace.prompt)
    short = prompt if len(prompt) <= _LONG else prompt[:_LONG].rstrip() + "…"
    figure = png(figure_image(analysis_figure(summary, style)))
    values = {
        "title": escape(short or "no prompt"),
        "heading": escape(quoted(short)),
        "whole": "" if short == prompt else _fold(prompt),
        "scheme": colours.name,
        "figure": _data_url(figure, "image/png"),
        "tables": "".join(_section(part, short) for part in _parts(summary)),
        "audit": escape(summary.audit_line),
        "data": _safe_json(_scrubber(summary, style)),
        **{name: _css(getattr(colours, name)) for name in ("ground", "panel", "text", "muted")},
        "accent": _css(colours.accent),
    }
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(values)
    return page.encode("utf-8", "replace").decode()  # a prompt may hold half a character


def save_report(
    summary: RunSummary, path: str | os.PathLike[str], style: FigureStyle | None = None
) -> Path:
    """Writes the report, whole or not at all, and returns its path."""
    path = Path(path)
    page = report_html(summary, style)
    with whole(path) as made:
        made.write_text(page, encoding="utf-8")
    return path


def _parts(summary: RunSummary) -> Sequence[Printed]:
    found = [summary, summary.concentrations, summary.balance, summary.heard]
    return [part for part in found if part is not None]


def _section(part: Printed, prompt: str) -> str:
    table = part.table()
    if isinstance(part, RunSummary):
        table = replace(table, title=quoted(prompt))
    return f"<section>{shown(table.html)}</section>"


def _fold(prompt: str) -> str:
    summary = f"the whole prompt, {len(prompt)} characters"
    return f"<details><summary>{summary}</summary><p>{escape(prompt)}</p></details>"


def _scrubber(summary: RunSummary, style: FigureStyle) -> Mapping[str, Any]:
    trace, maps = summary.trace, summary.maps
    height, width = maps.raw.shape[-2:]
    pictures = [trace.picture_after(step.index) for step in maps.steps]
    scrubbed = _scrubbed(summary)
    wide, high = trace.picture_size[::-1] if trace.picture_size else proportions(summary)
    return {
        "size": fitted_box((wide, high), max(256, wide, high)),
        "grid": [width, height],
        "smooth": style.heat.smooth,
        "opacity": style.heat.opacity,
        "colours": base64.b64encode(table(style.heat.colours).tobytes()).decode(),
        "labels": [str(step) for step in maps.steps],
        "subjects": [one.data() for one in scrubbed],
        "chosen": _first(summary, scrubbed),
        "pictures": _each_once(pictures),
        "sketch": None if summary.drawing is None else _webp(summary.drawing),
    }


def _each_once(pictures: Sequence[Array | None]) -> list[str | None]:
    """Data URLs; the finished picture, where it stands for all steps, is packed once."""
    packed: dict[int, str] = {}
    for picture in pictures:
        if picture is not None and id(picture) not in packed:
            packed[id(picture)] = _webp(picture)
    return [None if p is None else packed[id(p)] for p in pictures]


def _scrubbed(summary: RunSummary) -> list[_Scrubbed]:
    """The words on one scale, then the regions heard most on another."""
    words = list(summary.words)
    heard = summary.heard.leading(REGIONS) if summary.heard is not None else ()
    regions = [r.heard.subject for r in heard]
    return [*_group(summary, words, "word"), *_group(summary, regions, "region")]


def _first(summary: RunSummary, scrubbed: Sequence[_Scrubbed]) -> int:
    """The leading word, where there is one, is shown first."""
    leading = summary.leading_word
    titles = [one.title for one in scrubbed]
    return titles.index(_title(leading)) if leading and _title(leading) in titles else 0


def _title(subject: Subject) -> str:
    """A short name for a button."""
    if subject.region is None:
        return f"“{shown(subject.name)}”"
    r = subject.region
    return f"{place_in_words(r)} ({r.level}×{r.level}: {r.row}, {r.column})"


def _group(summary: RunSummary, subjects: Sequence[Subject], kind: str) -> list[_Scrubbed]:
    heat = []
    for subject in subjects:
        raw = summary.maps.of(subject)
        mass = raw.sum(axis=(1, 2), keepdims=True)
        if mass.any():
            heat.append((subject, raw / np.where(mass > 0, mass, 1)))
    if not heat:
        return []
    scale = Scale.of_heat(*(maps for _, maps in heat))
    return [_Scrubbed(_title(s), kind, maps, scale) for s, maps in heat]


def _webp(picture: Array) -> str:
    buffer = io.BytesIO()
    as_image(picture).save(buffer, "WEBP", quality=85, method=1)
    return _data_url(buffer.getvalue(), "image/webp")


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _safe_json(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _css(colour: tuple[int, int, int]) -> str:
    return f"rgb({colour[0]}, {colour[1]}, {colour[2]})"
