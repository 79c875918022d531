"""Pictures that were looked at, against those drawn now; a tolerance for other font rasterisers.

To renew them after a wanted change: `SCRIBBLE_GOLDEN=write pytest tests/view/test_golden.py`,
then look at every one of them.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scribblediffusion.analysis.difference import compare
from scribblediffusion.analysis.summary import summarise
from scribblediffusion.view import fonts
from scribblediffusion.view.comparison import comparison
from scribblediffusion.view.evolution import Evolution, EvolutionStyle
from scribblediffusion.view.figure import FigureStyle, analysis_figure, figure_image
from scribblediffusion.view.heatmap import HeatStyle, overlay

GOLDEN = Path(__file__).with_name("golden")


def turned(record):
    """The same maps, left and right exchanged."""
    return record.reshape(*record.shape[:3], 32, 32)[..., ::-1].reshape(record.shape)


def drawn(name, trace):
    if name == "overlay-light":
        return overlay(trace.word("apple"), trace.picture, title="“apple”", size=256)
    if name == "overlay-dark-cividis":
        style = HeatStyle("cividis", smooth=False)
        share = trace.stream("sketch")
        return overlay(share, trace.picture, view="attention", style=style, size=256, ground="dark")
    if name.startswith("evolution"):
        style = EvolutionStyle(ground="light" if name.endswith("light") else "dark")
        return Evolution.of(trace, "kite", style=style).frame(12)
    if name.startswith("comparison"):
        other = dataclasses.replace(
            trace,
            records={k: turned(v) for k, v in trace.records.items()},
            pictures=(trace.picture[:, ::-1],),
        )
        ground = "light" if name.endswith("light") else "dark"
        return comparison(compare(trace, other), trace, other, ground=ground)
    if name == "scripts":
        prompt = "苹果 🍎 사과 · яблоко · تفاحة · תפוח · pomme à l’été"
        prompts = (dataclasses.replace(trace.prompts[0], text=prompt),)
        return Evolution.of(dataclasses.replace(trace, prompts=prompts), "kite").frame(4)
    ground = "light" if name.endswith("light") else "dark"
    return figure_image(analysis_figure(summarise(trace), FigureStyle(ground)))


@pytest.mark.parametrize(
    "name",
    ["overlay-light", "overlay-dark-cividis", "evolution-dark", "evolution-light",
     "analysis-light", "analysis-dark", "comparison-light", "comparison-dark", "scripts"],
)  # fmt: skip
def test_it_looks_as_it_was_seen(name, trace, monkeypatch):
    monkeypatch.setattr(fonts, "others", lambda: ())  # a machine with no fonts of its own
    fonts.path_for.cache_clear()
    fonts.readable.cache_clear()
    image, path = drawn(name, trace), GOLDEN / f"{name}.webp"
    if os.environ.get("SCRIBBLE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        image.save(path, lossless=False, quality=90, method=6)
    with Image.open(path) as golden:
        assert image.size == golden.size
        small = (image.width // 4, image.height // 4)
        now, then = (
            np.asarray(one.convert("RGB").resize(small, Image.Resampling.BOX), int)
            for one in (image, golden)
        )
    apart = np.abs(now - then).max(axis=2)
    assert apart.mean() < 3
    assert (apart > 40).mean() < 0.004
