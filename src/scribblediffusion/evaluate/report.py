"""Write what `evaluate` found: JSON, a table to read, and a sheet of pictures to look at."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate.quality import SETS, evaluate
from scribblediffusion.model.weights import FILE, digest, shipped
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.train.scenes import Scene

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


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    lines = [
        "| set | figure | model | aim | ceiling | floor |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, found in report.items():
        for figure, label in FIGURES.items():
            values = [found[k].get(figure) for k in ("model", "ceiling", "floor")]
            model, ceiling, floor = ("–" if v is None else f"{v:.3f}" for v in values)
            aim = AIMS.get((name, figure))
            goal = "" if aim is None else f"{aim:.2f}"
            lines.append(f"| {name} | {label} | {model} | {goal} | {ceiling} | {floor} |")
    return "\n".join(lines) + "\n"


def sheet(
    samples: list[tuple[Scene, np.ndarray]], columns: int = 6, side: int = 256
) -> Image.Image:
    """Sketch above picture above prompt, for each sample."""
    caption, gap = 44, 16
    rows = -(-len(samples) // columns)
    width = columns * (side + gap) + gap
    page = Image.new("RGB", (width, rows * (2 * side + caption + gap) + gap), (250, 250, 250))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for number, (one, picture) in enumerate(samples):
        left = gap + (number % columns) * (side + gap)
        top = gap + (number // columns) * (2 * side + caption + gap)
        page.paste(Image.fromarray(255 - one.sketch), (left, top))
        page.paste(Image.fromarray(picture), (left, top + side))
        pen.rectangle((left - 1, top - 1, left + side, top + 2 * side), outline=(205, 205, 205))
        for line, text in enumerate(_wrapped(one.caption, font, side)[:2]):
            pen.text((left, top + 2 * side + 6 + 18 * line), text, (40, 40, 40), font)
    return page


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def run(
    folder: Path,
    *,
    scenes: int,
    sets: tuple[str, ...],
    model: str | None,
    progress: Callable[[], Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Evaluate and write `evaluation.json`, `evaluation.md` and `<set>.png` into a folder."""
    unknown = [name for name in sets if name not in SETS]
    if unknown or not sets:
        raise SettingError(f"sets {', '.join(unknown)!r}: choose from {', '.join(SETS)}")
    folder.mkdir(parents=True, exist_ok=True)
    pipe = ScribblePipeline.from_pretrained(model)
    samples: dict[str, list[tuple[Scene, np.ndarray]]] = {name: [] for name in sets}
    start = time.time()
    with progress() as bar:
        task = bar.add_task("Drawing held-out scenes", total=scenes * len(sets))

        def on_picture(name: str, number: int, one: Scene, picture: np.ndarray) -> None:
            bar.update(task, advance=1, description=f"{name} {number + 1}/{scenes}")
            if number < 24:
                samples[name].append((one, picture))

        report = evaluate(pipe, scenes=scenes, sets=sets, on_picture=on_picture)
    about = {
        "scenes": scenes,
        "seconds": round(time.time() - start),
        "weights": digest((Path(model) if model else shipped()) / "unet" / FILE)[:16],
        "sets": report,
    }
    (folder / "evaluation.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(table(report), encoding="utf-8")
    for name, drawn in samples.items():
        sheet(drawn).save(folder / f"{name}.png")
    say(table(report))
    say(f"written to {folder}")
    return about
