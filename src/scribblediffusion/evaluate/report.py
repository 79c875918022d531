"""`scribble evaluate`: JSON, a table to read, and sheets of pictures to look at."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate.quality import (
    COUNTS,
    QUESTIONS,
    SEED,
    SETS,
    by_place,
    figures,
    measure,
    names_a_colour,
    picture_file,
    with_colours,
)
from scribblediffusion.evaluate.records import claimed, weights_digest
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import GUIDANCE, SKETCH_GUIDANCE
from scribblediffusion.train.scenes import Scene, scene
from scribblediffusion.view.typeset import wrapped, write

#: What the shipped model aims for: (set, figure) → value.
AIMS = {
    ("test", "fidelity"): 0.95,
    ("test", "colour_one"): 0.95,
    ("test", "colour_two"): 0.90,
    ("objects", "fidelity"): 0.93,
    ("objects", "colour_one"): 0.90,
    ("objects", "colour_two"): 0.85,
    ("pairs", "fidelity"): 0.93,
    ("pairs", "colour_one"): 0.90,
    ("pairs", "colour_two"): 0.85,
}
FIGURES = {
    "fidelity": "ink F1 within 3 px",
    "colour_one": "colour right, one object",
    "colour_two": "colour right, each of two",
    "swapped_two": "took the other's colour, of two",
    "colour_three": "colour right, each of three",
    "swapped_three": "took another's colour, of three",
}


#: How many pictures a sheet shows: the first scenes of its set, good or bad.
SAMPLES = 24
STEPS = 20


def table(report: dict[str, Any]) -> str:
    """The report as Markdown: for each set of scenes its sheet of pictures and a table."""
    parts = []
    for name, found in report.items():
        parts += [f"### {name}: {SETS.get(name, name)}", "", f"![Samples]({name}.png)", ""]
        parts += [set_table(name, found)]
    return "\n".join(parts)


def set_table(name: str, found: dict[str, Any]) -> str:
    """The figures of one set of scenes as a Markdown table.

    Every figure says of how many it is, with its 95 % interval for drawing other scenes, and one
    that misses its aim by how much.
    """
    rows = [_row(name, figure, label, found) for figure, label in FIGURES.items()]
    head = ["| figure | model | aim | ceiling | floor |", "| --- | ---: | ---: | ---: | ---: |"]
    return "\n".join([*head, *rows, ""])


def places(found: dict[str, dict[str, Any]]) -> str:
    """What `by_place` found, as a Markdown table: binding with and without places in the prompt."""
    parts = [
        '| colour right | the prompt says where ("above") | it does not ("a cat and a dog") |',
        "| --- | ---: | ---: |",
    ]
    for of in ("two", "three"):
        cells = [
            f"{_cell(found[name], f'colour_{of}')} (of {found[name][f'named_{of}']})"
            for name in ("placed", "unplaced")
        ]
        parts.append(f"| each of {of} | {' | '.join(cells)} |")
    return "\n".join([*parts, ""])


def _row(name: str, figure: str, label: str, found: dict[str, Any]) -> str:
    model, ceiling, floor = (_cell(found[kind], figure) for kind in ("model", "ceiling", "floor"))
    value, aim = found["model"].get(figure), AIMS.get((name, figure))
    goal = "" if aim is None else f"{aim:.2f}"
    if aim is not None and value is not None:
        goal += " ✓" if value >= aim else f" (−{aim - value:.3f})"
    of = figure.rsplit("_", 1)[-1]
    scenes, named = (found["model"].get(f"{what}_{of}") for what in ("scenes", "named"))
    cases = f"{found['model']['scenes']}" if named is None else f"{named} objects in {scenes}"
    label = f"{label} ({cases} scenes)"
    return f"| {label} | {model} | {goal} | {ceiling} | {floor} |"


def _cell(found: dict[str, Any], figure: str) -> str:
    if figure not in found:
        return "–"
    low, high = found[f"{figure}_interval"]
    return f"{found[figure]:.3f} [{low:.2f}, {high:.2f}]"


#: The sheet's measures in pixels, and its colours.
_SIDE, _SEAM, _GAP, _MARGIN, _LINE = 200, 6, 40, 48, 21
_PAPER, _TEXT, _FRAME = (255, 255, 255), (52, 52, 56), (226, 226, 230)


def sheet(samples: list[tuple[Scene, np.ndarray]], columns: int = 4) -> Image.Image:
    """Sketch beside picture, with the whole prompt below, for each sample."""
    cell = 2 * _SIDE + _SEAM
    captions = [wrapped(one.caption, 15, cell, most=4) for one, _ in samples]
    rows = [range(i, min(i + columns, len(samples))) for i in range(0, len(samples), columns)]
    heights = [_SIDE + 12 + _LINE * max(len(captions[i]) for i in row) for row in rows]
    size = (
        2 * _MARGIN + columns * cell + (columns - 1) * _GAP,
        2 * _MARGIN + sum(heights) + (len(rows) - 1) * _GAP * 3 // 4,
    )
    page = Image.new("RGB", size, _PAPER)
    pen, top = ImageDraw.Draw(page), _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left = _MARGIN + column * (cell + _GAP)
            one, picture = samples[i]
            for x, shown in ((left, 255 - one.sketch), (left + _SIDE + _SEAM, picture)):
                image = Image.fromarray(shown).convert("RGB")
                page.paste(image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), (x, top))
                pen.rectangle((x, top, x + _SIDE - 1, top + _SIDE - 1), outline=_FRAME)
            for number, text in enumerate(captions[i]):
                write(pen, (left, top + _SIDE + 10 + _LINE * number), text, 15, _TEXT)
        top += height + _GAP * 3 // 4
    return page


def run(
    folder: Path,
    *,
    scenes: int,
    sets: tuple[str, ...],
    model: str | None,
    progress: Callable[[], Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Evaluate and write `evaluation.json`, `evaluation.md` and `<set>.png` into a folder.

    Interrupted, it goes on where it stopped when it is called again with the same folder.

    Args:
        folder: the report, each scene's scores (`<set>.jsonl`) and picture.
        scenes: held-out scenes of each set; for its colours at least as many of one, of two and of
            three objects, each with a named colour.
        sets: which of `quality.SETS`.
        model: a folder or hub id; None for the shipped model.
        progress: a context that gives a progress bar.
        say: prints a text.

    Raises:
        SettingError: an unknown set, or the folder holds an evaluation of other weights or dials.
    """
    unknown = [name for name in sets if name not in SETS]
    if unknown or not sets:
        raise SettingError(f"sets {', '.join(unknown)!r}: choose from {', '.join(SETS)}")
    dials = {
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "sketch_guidance_scale": SKETCH_GUIDANCE,
    }
    about = claimed(
        folder, {"questions": QUESTIONS, "weights": weights_digest(model), "seed": SEED} | dials
    )
    pipe, start = ScribblePipeline.from_pretrained(model), time.time()
    with progress() as bar:
        drawn = _drawn(pipe, folder, sets, scenes, dials, bar)
    found = {name: figures(*both) for name, both in drawn.items()}
    by = by_place([one for both in drawn.values() for records in both for one in records])
    for name in sets:
        _sheet_of(folder, name, min(SAMPLES, scenes)).save(folder / f"{name}.png")
    about |= {"scenes": scenes, "seconds": round(time.time() - start), "sets": found, "places": by}
    (folder / "evaluation.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    text = f"{table(found)}\n### all sets: does the prompt say where?\n\n{places(by)}"
    (folder / "evaluation.md").write_text(text, encoding="utf-8")
    say(text)
    say(f"written to {folder}")
    return about


def _drawn(
    pipe: ScribblePipeline,
    folder: Path,
    sets: tuple[str, ...],
    scenes: int,
    dials: dict[str, Any],
    bar: Any,
) -> dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """The records of each set's scenes as they come, and of the further ones for colour."""
    task = bar.add_task("Looking for named colours", total=len(sets))
    plan = {}
    for name in sets:
        plan[name] = _further(name, scenes)
        bar.update(task, advance=1)
    total = sum(scenes + sum(more.values()) for more in plan.values())
    task = bar.add_task("Drawing held-out scenes", total=total)

    def measured(part: str, make: Callable[[int], Scene], count: int) -> list[dict[str, Any]]:
        bar.update(task, description=f"Drawing held-out scenes: {part}")
        return measure(
            pipe, make, count, folder, part, shown=SAMPLES if part in sets else 0,
            on_scenes=lambda more: bar.update(task, advance=more), **dials,
        )  # fmt: skip

    drawn = {}
    for name in sets:
        drawn[name] = measured(name, scene_of(name), scenes), []
        for count, needed in plan[name].items():
            make = scene_of(name, count)
            numbers = with_colours(make, needed)
            part = f"{name}-{COUNTS[count]}"
            drawn[name][1].extend(measured(part, lambda i, m=make, n=numbers: m(n[i]), needed))
    return drawn


def scene_of(name: str, count: int | None = None) -> Callable[[int], Scene]:
    """Number to held-out scene of a set, as they come or, in a stream apart, of `count` objects."""
    return lambda number: scene(number, split=name, seed=SEED + (count or 0), count=count)


def _further(name: str, scenes: int) -> dict[int, int]:
    """How many scenes of so many objects a set lacks of `scenes` with a named colour."""
    make = scene_of(name)
    mix = Counter(len(one.objects) for one in map(make, range(scenes)) if names_a_colour(one))
    lacking = {count: max(0, scenes - mix[count]) for count in COUNTS}
    # the floor is the picture of another scene: there are two at least
    return {count: max(2, more) for count, more in lacking.items() if more}


def _sheet_of(folder: Path, name: str, count: int) -> Image.Image:
    make = scene_of(name)
    pictures = [np.asarray(Image.open(picture_file(folder, name, i))) for i in range(count)]
    return sheet([(make(i), picture) for i, picture in enumerate(pictures)])
