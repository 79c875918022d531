"""`scribble evaluate`: does a picture follow its sketch, and its words?

Held-out scenes, fixed seeds. Every figure stands between a *ceiling* (the true picture passed
through the autoencoder) and a *floor* (the picture made for another scene), so that it has its
scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scribblediffusion.evaluate.metrics import fidelity, fill_family
from scribblediffusion.pipeline import ScribblePipeline, seeded
from scribblediffusion.sketch import Sketch
from scribblediffusion.train.autoencoder import to_tensor
from scribblediffusion.train.scenes import Scene, scene

#: The sets of held-out scenes, and what each is for.
SETS = {
    "test": "new scenes of known objects",
    "objects": "objects never trained on",
    "pairs": "colour × object pairs never trained on",
    "wobbly": "drawn with a shaky hand",
}
SEED = 2026


@dataclass(frozen=True)
class Score:
    """One picture measured against its scene.

    Attributes:
        f1, precision, recall: sketch fidelity.
        named: objects whose colour the caption names.
        right: those whose dominant fill is the named family.
        swapped: those that took the colour named for another object of the scene instead.
        count: objects in the scene.
    """

    f1: float
    precision: float
    recall: float
    named: int
    right: int
    swapped: int
    count: int


def score(picture: np.ndarray, one: Scene) -> Score:
    """Measure one picture `[256, 256, 3]` uint8 against the scene it was made for."""
    follows = fidelity(picture, one.sketch > 127)
    named = right = swapped = 0
    for number, placed in enumerate(one.objects):
        mask = one.labels == number + 1
        if placed.named is None or not mask.any():
            continue
        found = fill_family(picture, mask)
        others = {p.named for p in one.objects if p is not placed} - {placed.named, None}
        named += 1
        right += found == placed.named
        swapped += found in others
    return Score(
        follows.f1, follows.precision, follows.recall, named, right, swapped, len(one.objects)
    )


def summary(scores: list[Score]) -> dict[str, float | int]:
    """Means over scenes; colour as a share of named objects, by number of objects."""
    found: dict[str, float | int] = {
        "scenes": len(scores),
        "fidelity": round(float(np.mean([s.f1 for s in scores])), 4),
        "precision": round(float(np.mean([s.precision for s in scores])), 4),
        "recall": round(float(np.mean([s.recall for s in scores])), 4),
    }
    for label, counts in (("one", (1,)), ("two", (2,)), ("three", (3,))):
        chosen = [s for s in scores if s.count in counts]
        named = sum(s.named for s in chosen)
        found[f"named_{label}"] = named
        if named:
            found[f"colour_{label}"] = round(sum(s.right for s in chosen) / named, 4)
            found[f"swapped_{label}"] = round(sum(s.swapped for s in chosen) / named, 4)
    return found


def draw(
    pipe: ScribblePipeline, scenes: list[Scene], batch: int = 8, **settings: Any
) -> Iterator[np.ndarray]:
    """The model's picture of each scene, in order, each with a seed of its own."""
    pipe.set_progress_bar_config(disable=True)
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        generators = [g for i in range(len(part)) for g in seeded(SEED + start + i)]
        sketches = [Sketch.from_image(255 - one.sketch) for one in part]
        prompts = [one.caption for one in part]
        output = pipe(prompts, sketches, generator=generators, output_type="np", **settings)
        yield from output.images  # type: ignore[union-attr]


@torch.no_grad()
def through_autoencoder(pipe: ScribblePipeline, one: Scene) -> np.ndarray:
    """The true picture as the autoencoder can tell it."""
    picture = to_tensor(one.picture[None]).to(pipe.device)
    return pipe.decode(pipe.autoencoder.encode(picture))[0]


def evaluate(
    pipe: ScribblePipeline,
    *,
    scenes: int = 200,
    sets: tuple[str, ...] = tuple(SETS),
    on_picture: Callable[[str, int, Scene, np.ndarray], None] = lambda *_: None,
    **settings: Any,
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Draw and measure held-out scenes.

    Args:
        pipe: the model.
        scenes: how many of each set.
        sets: which of `SETS`.
        on_picture: told of each picture: set, number, scene, picture.
        **settings: passed to the pipeline.

    Returns:
        set → "model", "ceiling" and "floor" → figures as in `summary`.
    """
    report = {}
    for name in sets:
        chosen = [scene(i, split=name, seed=SEED) for i in range(scenes)]
        pictures = []
        for number, picture in enumerate(draw(pipe, chosen, **settings)):
            pictures.append(picture)
            on_picture(name, number, chosen[number], picture)
        ceiling = [score(through_autoencoder(pipe, one), one) for one in chosen]
        floor = [score(p, one) for p, one in zip(pictures[1:] + pictures[:1], chosen, strict=True)]
        model = [score(p, one) for p, one in zip(pictures, chosen, strict=True)]
        report[name] = {
            "model": summary(model),
            "ceiling": summary(ceiling),
            "floor": summary(floor),
        }
    return report
