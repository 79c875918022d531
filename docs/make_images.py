"""The pictures in this folder and the sample trace, made anew from real runs of the shipped model.

    .venv/bin/python docs/make_images.py [FOLDER]

Draws a few of the sketches in examples/ (a minute on two cores) and writes into docs/images:

    hero.png  hero-dark.png          sketch, picture, and where its words acted
    analysis.png  analysis-dark.png  the comprehensive analysis of one run
    evolution.gif                    one word, step by step
    comparison.png                   the same sketch with another prompt, word by word

and, unless another FOLDER is named, examples/traces/fish.safetensors, a short run for
examples/saved_run.py.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from scribblediffusion import AttentionTrace, RealAttentionExtractor, ScribblePipeline, Sketch
from scribblediffusion.analysis.difference import compare
from scribblediffusion.analysis.summary import summarise
from scribblediffusion.settings import seeded
from scribblediffusion.view.colour import Ground, Scale, theme
from scribblediffusion.view.comparison import comparison
from scribblediffusion.view.evolution import Evolution
from scribblediffusion.view.figure import FigureStyle, analysis_figure, save_figure
from scribblediffusion.view.heatmap import as_image, blended, colour_bar
from scribblediffusion.view.typeset import width as text_width
from scribblediffusion.view.typeset import write

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
SEED = 7
#: Sketch, and the words whose maps the first picture of the documentation shows.
HERO = (("fish", ("orange", "fish", "blue")), ("balloon", ("purple", "balloon", "yellow")))
_SIDE, _GAP, _MARGIN, _HEAD, _FOOT = 280, 18, 28, 58, 94


def run(pipe: ScribblePipeline, name: str, prompt: str = "", steps: int = 20) -> AttentionTrace:
    """One run of a sketch in examples/, with its own prompt unless told."""
    prompts = json.loads((EXAMPLES / "sketches" / "prompts.json").read_text(encoding="utf-8"))
    sketch = Sketch.from_image(EXAMPLES / "sketches" / f"{name}.png")
    with RealAttentionExtractor(pipe) as extractor:
        pipe(
            prompt or prompts[f"{name}.png"],
            sketch,
            generator=seeded(SEED),
            num_inference_steps=steps,
        )
    return extractor.trace


def hero(runs: Sequence[tuple[AttentionTrace, Sequence[str]]], ground: Ground) -> Image.Image:
    """A row for each run: sketch, picture, and the maps of its words on one scale."""
    colours = theme(ground)
    columns = 2 + max(len(words) for _, words in runs)
    row = _HEAD + _SIDE + _FOOT
    width = 2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP
    page = Image.new("RGB", (width, len(runs) * row), colours.ground)
    for number, (trace, words) in enumerate(runs):
        _row(page, number * row, trace, words, ground)
    return page


def _row(
    page: Image.Image, top: int, trace: AttentionTrace, words: Sequence[str], ground: Ground
) -> None:
    colours, draw, y = theme(ground), ImageDraw.Draw(page), top + _HEAD
    maps = [trace.word(word) for word in words]
    scale = Scale.of_heat(*maps)
    write(draw, (_MARGIN, top + 20), trace.prompt, 24, colours.text, room=page.width - 2 * _MARGIN)
    shown = [as_image(one, (_SIDE, _SIDE)) for one in (trace.sketch, trace.picture)]
    shown += [blended(one, trace.picture, scale, (_SIDE, _SIDE)) for one in maps]
    captions = ["sketch", "picture", *(f"where “{word}” acted" for word in words)]
    for column, (image, caption) in enumerate(zip(shown, captions, strict=True)):
        x = _MARGIN + column * (_SIDE + _GAP)
        page.paste(image, (x, y))
        write(draw, (x, y + _SIDE + 8), caption, 18, colours.muted, room=_SIDE)
    left = _MARGIN + 2 * (_SIDE + _GAP)
    bar, end = (left, y + _SIDE + 42), page.width - _MARGIN
    length = end - left - round(text_width(scale.unit, 15)) - 12
    colour_bar(page, bar, length, scale, "inferno", colours, 15)
    write(draw, (end, bar[1] - 3), scale.unit, 15, colours.muted, anchor="ra")


def main(folder: Path) -> None:
    """Draw everything."""
    folder.mkdir(parents=True, exist_ok=True)
    pipe = ScribblePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    runs = [(run(pipe, name), words) for name, words in HERO]
    fish = runs[0][0]
    for ending, ground in (("", "light"), ("-dark", "dark")):
        hero(runs, ground).save(folder / f"hero{ending}.png", optimize=True)
        figure = analysis_figure(summarise(fish), FigureStyle(ground))
        save_figure(figure, folder / f"analysis{ending}.png")
    Evolution.of(fish, "orange").save(folder / "evolution.gif")
    other = run(pipe, "fish", "a green fish on a blue background")
    comparison(compare(fish, other), fish, other).save(folder / "comparison.png", optimize=True)
    if folder == HERE / "images":
        traces = EXAMPLES / "traces"
        traces.mkdir(exist_ok=True)
        short = run(pipe, "fish", steps=8)
        # The folder that the weights lay in is nobody else's business.
        named = {**short.versions, "model": type(pipe).__name__}
        short = replace(short, versions=named)
        short.save(traces / "fish.safetensors", dtype="u8-sqrt")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images")
