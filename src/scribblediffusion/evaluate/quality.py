"""`scribble evaluate`: does a picture follow its sketch, and its words?

Held-out scenes, fixed seeds: fidelity on scenes as they come, colour on as many of one, of two and
of three objects, for which further scenes are drawn. Every figure stands between a *ceiling* (the
true picture passed through the autoencoder) and a *floor* (the picture made for another scene), so
that it has its scale. Pictures are kept as files and every scene's scores are a line of another,
written as soon as they are there: an evaluation that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scribblediffusion.evaluate.intervals import Interval, mean_interval, share_interval
from scribblediffusion.evaluate.metrics import fidelity, fill_family
from scribblediffusion.evaluate.records import Lines
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import seeded
from scribblediffusion.sketch import Sketch
from scribblediffusion.train.autoencoder import to_tensor
from scribblediffusion.train.scenes import Scene

#: The sets of held-out scenes, and what each is for.
SETS = {
    "test": "new scenes of known objects",
    "objects": "objects never trained on",
    "pairs": "colour × object pairs never trained on",
    "wobbly": "drawn with a shaky hand",
}
SEED = 2026
#: Which scenes are asked, and what of them: an older evaluation is not continued with others.
QUESTIONS = 2
#: Whose figures stand beside each other.
KINDS = ("model", "ceiling", "floor")
PICTURES = "pictures"
#: What scenes of so many objects are called.
COUNTS = {1: "one", 2: "two", 3: "three"}
#: How captions say which object is where; "and" and "next to" leave it to the drawings.
_WHERE = re.compile(r"\b(?:(?:left|right) of|above|below|under|from (?:left|top) to)\b")


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


def summary(scores: Sequence[Score], more: Sequence[Score] = ()) -> dict[str, Any]:
    """Means over scenes; colour as a share of named objects, by number of objects.

    Args:
        scores: of scenes as they come.
        more: of further scenes with a named colour, which count for colour alone.

    Returns:
        Each figure, and its 95 % interval for drawing other scenes under `<figure>_interval`;
        "scenes" of fidelity; "scenes_one" … with a named colour and "named_one" … objects in them.
    """
    every = [1] * len(scores)
    found: dict[str, Any] = {"scenes": len(scores)}
    for name, value in (("fidelity", "f1"), ("precision", "precision"), ("recall", "recall")):
        found |= _figure(name, mean_interval, [getattr(s, value) for s in scores], every)
    for count, label in COUNTS.items():
        chosen = [s for s in (*scores, *more) if s.count == count and s.named]
        named = [s.named for s in chosen]
        found |= {f"scenes_{label}": len(chosen), f"named_{label}": sum(named)}
        found |= _figure(f"colour_{label}", share_interval, [s.right for s in chosen], named)
        found |= _figure(f"swapped_{label}", share_interval, [s.swapped for s in chosen], named)
    return found


def _figure(
    name: str,
    interval_of: Callable[[np.ndarray, np.ndarray], Interval | None],
    sums: Sequence[float],
    counts: Sequence[int],
) -> dict[str, Any]:
    interval = interval_of(np.array(sums), np.array(counts)) if len(sums) else None
    if interval is None:
        return {}
    ends = [round(interval.low, 4), round(interval.high, 4)]
    return {name: round(interval.value, 4), f"{name}_interval": ends}


def names_a_colour(one: Scene) -> bool:
    """Whether the caption names the colour of an object that can be seen."""
    return any(p.named and (one.labels == i + 1).any() for i, p in enumerate(one.objects))


def with_colours(make: Callable[[int], Scene], count: int) -> list[int]:
    """The numbers of the first `count` scenes whose captions name a colour."""
    found = (number for number in itertools.count() if names_a_colour(make(number)))
    return list(itertools.islice(found, count))


def draw(pipe: ScribblePipeline, scenes: Sequence[Scene], seed: int, **dials: Any) -> np.ndarray:
    """The model's pictures of some scenes, `[B, 256, 256, 3]` uint8.

    Args:
        pipe: the model.
        scenes: one batch of them.
        seed: of the first picture's noise; the next has the next seed.
        **dials: passed to the pipeline.
    """
    output: Any = pipe(
        [one.caption for one in scenes],
        [Sketch.from_image(255 - one.sketch) for one in scenes],
        generator=seeded(seed, len(scenes)),
        output_type="np",
        **dials,
    )
    return output.images


@torch.no_grad()
def through_autoencoder(pipe: ScribblePipeline, one: Scene) -> np.ndarray:
    """The true picture as the autoencoder can tell it."""
    picture = to_tensor(one.picture[None].copy()).to(pipe.device)  # scenes are read-only
    return pipe.decode(pipe.autoencoder.encode(picture))[0]


def batches(count: int, size: int) -> list[range]:
    """The numbers 0 … count − 1 in batches; the last one has two at least, for the floor."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [range(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]


def measure(
    pipe: ScribblePipeline,
    make: Callable[[int], Scene],
    count: int,
    folder: Path,
    name: str,
    *,
    batch: int = 8,
    shown: int = 0,
    on_scenes: Callable[[int], None] = lambda _: None,
    **dials: Any,
) -> list[dict[str, Any]]:
    """Draw and measure scenes; those whose lines are in the folder already are not drawn again.

    Args:
        pipe: the model.
        make: number to scene.
        count: how many scenes, 2 at least.
        folder: holds `<name>.jsonl` and `pictures/<name>/<number>.png`.
        name: of this set of scenes.
        batch: scenes drawn at once.
        shown: how many of the first pictures must be there; one that is not is drawn again.
        on_scenes: told how many more scenes are done.
        **dials: passed to the pipeline.

    Returns:
        One record a scene, in order: its number and caption, and its `Score` under each of `KINDS`.
    """
    lines = Lines(folder / f"{name}.jsonl")
    (folder / PICTURES / name).mkdir(parents=True, exist_ok=True)

    def lacks(number: int) -> bool:
        is_lost = number < shown and not picture_file(folder, name, number).is_file()
        return is_lost or number not in lines.found

    on_scenes(sum(not lacks(number) for number in range(count)))
    pipe.set_progress_bar_config(disable=True)
    for numbers in batches(count, batch):
        missing = [number for number in numbers if lacks(number)]
        if not missing:
            continue
        scenes = [make(number) for number in numbers]
        pictures = draw(pipe, scenes, SEED + numbers.start, **dials)
        for row, (number, one) in enumerate(zip(numbers, scenes, strict=True)):
            if number not in missing:
                continue
            Image.fromarray(pictures[row]).save(picture_file(folder, name, number))
            if number not in lines.found:
                beside = pictures[row], through_autoencoder(pipe, one), pictures[row - 1]
                scores = {k: asdict(score(p, one)) for k, p in zip(KINDS, beside, strict=True)}
                lines.add({"scene": number, "caption": one.caption} | scores)
            on_scenes(1)
    return lines.first(count)


def picture_file(folder: Path, name: str, number: int) -> Path:
    """Where `measure` keeps the picture of a scene."""
    return folder / PICTURES / name / f"{number:04d}.png"


def figures(
    records: Sequence[dict[str, Any]], more: Sequence[dict[str, Any]] = ()
) -> dict[str, dict[str, Any]]:
    """What `measure` found, put together: "model", "ceiling" and "floor" → `summary`."""
    return {
        kind: summary([Score(**one[kind]) for one in records], [Score(**one[kind]) for one in more])
        for kind in KINDS
    }


def says_where(caption: str) -> bool:
    """Whether a caption tells which object is where.

    >>> says_where("a red plug above a rocket"), says_where("a red plug and a rocket")
    (True, False)
    """
    return _WHERE.search(caption) is not None


def by_place(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The model's colours of `measure`'s records, by whether the caption says where objects are.

    Returns:
        "placed" and "unplaced" → `summary`.
    """
    parts = {"placed": [], "unplaced": []}
    for one in records:
        name = "placed" if says_where(one["caption"]) else "unplaced"
        parts[name].append(Score(**one["model"]))
    return {name: summary((), scores) for name, scores in parts.items()}
