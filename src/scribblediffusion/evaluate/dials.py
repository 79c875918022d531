"""`scribble evaluate dials`: which guidance dials suit the model, on scenes that nothing else uses.

Every pair of dials draws the same scenes from the same noise. Interrupted, it goes on where it
stopped. The figures of so few scenes are rough: pairs that differ by less than the spread given
below the table are equally good, and then the one that needs fewer calls of the denoiser is better.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate.quality import QUESTIONS, Score, measure
from scribblediffusion.evaluate.records import claimed, weights_digest
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import check_settings
from scribblediffusion.train.scenes import Scene, scene

#: The stream of scenes: not the one that reports are made of.
SEED = 4052
TEXT, SKETCH = (2.0, 3.0, 4.0, 5.5), (1.0, 1.5, 2.0)


def one_or_two(number: int) -> Scene:
    """Scenes of one and of two objects in turn, where colours can be told apart best."""
    return scene(number, split="test", seed=SEED, count=1 + number % 2)


def calls(text: float, sketch: float) -> int:
    """Rows of the denoiser's batch for one picture with words and a sketch."""
    return 1 if text == sketch == 1 else 2 if sketch == 1 else 3


def run(
    folder: Path,
    *,
    scenes: int = 24,
    text: Sequence[float] = TEXT,
    sketch: Sequence[float] = SKETCH,
    steps: int = 20,
    model: str | None = None,
    progress: Callable[[], Any],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Draw and measure the scenes with every pair of dials; write `dials.json` and `dials.md`.

    Args:
        folder: one set of lines and pictures for each pair.
        scenes: how many, half of them with two objects.
        text: values of `guidance_scale`.
        sketch: values of `sketch_guidance_scale`.
        steps: sampling steps.
        model: a folder or hub id; None for the shipped model.
        progress: a context that gives a progress bar.
        say: prints a text.

    Returns:
        One row a pair, best first: the dials, "fidelity", "colour" (of all named objects),
        "score" (their mean), "spread" (standard error of the score), "calls".

    Raises:
        SettingError: dials out of range, or the folder holds a sweep of other weights.
    """
    pairs = list(itertools.product(text, sketch))
    if not pairs:
        raise SettingError("no dials to try: name values for both")
    for pair in pairs:
        check_settings(steps, *pair)
    about = {"questions": QUESTIONS, "weights": weights_digest(model), "seed": SEED}
    about |= {"num_inference_steps": steps}
    claimed(folder, about)
    pipe, rows = ScribblePipeline.from_pretrained(model), []
    with progress() as bar:
        task = bar.add_task("Trying dials", total=len(pairs) * scenes)
        for a, b in pairs:
            bar.update(task, description=f"Trying dials: text {a:g}, sketch {b:g}")
            records = measure(
                pipe, one_or_two, scenes, folder, f"text-{a:g}-sketch-{b:g}",
                on_scenes=lambda more: bar.update(task, advance=more),
                num_inference_steps=steps, guidance_scale=a, sketch_guidance_scale=b,
            )  # fmt: skip
            rows.append({"text": a, "sketch": b, "calls": calls(a, b)} | _row(records))
    rows.sort(key=lambda row: -row["score"])
    (folder / "dials.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / "dials.md").write_text(table(rows), encoding="utf-8")
    say(table(rows))
    return rows


def _row(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    scores = [Score(**record["model"]) for record in records]
    named = sum(s.named for s in scores)
    colour = sum(s.right for s in scores) / max(1, named)
    f1 = np.array([s.f1 for s in scores])
    error = np.hypot(f1.std() / len(f1) ** 0.5, (colour * (1 - colour) / max(1, named)) ** 0.5) / 2
    found = {"fidelity": f1.mean(), "colour": colour, "score": (f1.mean() + colour) / 2}
    return {k: round(float(v), 4) for k, v in (found | {"spread": error}).items()} | {
        "objects": named
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table, best first, and which pair is the cheapest of the good ones."""
    lines = [
        "| text | sketch | score | ink F1 | colour right | calls a step |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        values = " | ".join(f"{row[k]:.3f}" for k in ("score", "fidelity", "colour"))
        lines.append(f"| {row['text']:g} | {row['sketch']:g} | {values} | {row['calls']} |")
    best = rows[0]
    good = [row for row in rows if row["score"] >= best["score"] - best["spread"]]
    cheap = min(good, key=lambda row: (row["calls"], -row["score"]))
    lines += [
        "",
        f"{best['objects']} named objects; one standard error of the best score is "
        f"{best['spread']:.3f}. Within it, the cheapest is text {cheap['text']:g}, sketch "
        f"{cheap['sketch']:g}.",
    ]
    return "\n".join(lines) + "\n"
