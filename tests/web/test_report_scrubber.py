"""The report's scrubber in a real browser: each step's map, word by word, pixel by pixel."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from browsing import eventually
from painted import make_trace

from scribblediffusion.analysis.summary import RunSummary, summarise
from scribblediffusion.view.colour import table
from scribblediffusion.view.figure import FigureStyle
from scribblediffusion.view.heatmap import HeatStyle
from scribblediffusion.view.report import save_report

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.long]
GRID = 8
#: The colour in the middle of each place of the map.
MIDDLES = """grid => {
  const map = document.getElementById("map"), pen = map.getContext("2d"), found = [];
  const [w, h] = [map.width / grid, map.height / grid];
  for (let y = 0; y < grid; y++) for (let x = 0; x < grid; x++)
    found.push([...pen.getImageData((x + .5) * w, (y + .5) * h, 1, 1).data].slice(0, 3));
  return found;
}"""


@pytest.fixture(scope="module")
def summary() -> RunSummary:
    """Three steps; "red" has no weight at the first."""
    trace = make_trace(steps=3, grid=GRID)
    records = {key: record.copy() for key, record in trace.records.items()}
    next(iter(records.values()))[..., 2, :] = 0
    return summarise(dataclasses.replace(trace, records=records))


def colours_of(summary: RunSummary, name: str, step: int) -> np.ndarray:
    """What the map must show: its words share one scale, from 0 to the highest of all."""
    raw = {word.name: summary.maps.of(word).astype(np.float64) for word in summary.words}
    mass = {n: maps.sum(axis=(1, 2), keepdims=True) for n, maps in raw.items()}
    heat = {n: maps / np.where(mass[n] > 0, mass[n], 1) for n, maps in raw.items()}
    top = max(maps.max() for maps in heat.values())
    return table("inferno")[(heat[name][step] / top * 255).round().astype(int)].reshape(-1, 3)


def test_every_step_of_every_word_shows_its_map(chromium, summary, tmp_path: Path) -> None:
    style = FigureStyle(heat=HeatStyle(opacity=1, smooth=False))
    path = save_report(summary, tmp_path / "report.html", style)
    page = chromium.new_page()
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    for name in ("kite", "red"):
        page.get_by_text(f"“{name}”", exact=True).click()
        for step, noise in enumerate(("100%", "67%", "33%")):
            page.get_by_label("Step").fill(str(step))
            expect(page.locator("#noise")).to_have_text(f"Noise remaining: {noise}")
            if (name, step) == ("red", 0):
                expect(page.locator("#caption")).to_have_text("“red” has no weight at this step")
                continue
            expect(page.locator("#caption")).to_have_text(f"where “{name}” acted")
            colours = colours_of(summary, name, step)

            def is_drawn(colours=colours) -> bool:
                apart = np.abs(np.array(page.evaluate(MIDDLES, GRID)) - colours).max(axis=1)
                return bool(np.mean(apart <= 4) > 0.95)

            eventually(is_drawn)
    page.get_by_label("Opacity").fill("0")
    picture = summary.trace.previews[2]
    middles = picture[16::32, 16::32].reshape(-1, 3).astype(int)
    eventually(lambda: np.abs(np.array(page.evaluate(MIDDLES, GRID)) - middles).mean() < 12)
    page.close()
    assert errors == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
