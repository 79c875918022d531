"""`scribble evaluate maps`: do the maps tell the truth? Experiments on held-out scenes.

Every scene's result is one line of a file, written as soon as it is there: an evaluation that was
interrupted goes on where it stopped, and one of more scenes adds to one of fewer. The figures,
tables and plots are made from those lines alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scribblediffusion.analysis.localisation import on_grid
from scribblediffusion.attention.layout import prompt_record
from scribblediffusion.attention.records import Word
from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate import causal, truth
from scribblediffusion.evaluate.edits import (
    Edit,
    erasure,
    longest_stroke,
    removal,
    replaced,
    without,
)
from scribblediffusion.model.text import TEXT_TOKENS
from scribblediffusion.model.weights import FILE, digest, shipped
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.sketch import Sketch
from scribblediffusion.train.latents import spans
from scribblediffusion.train.objects import FAMILIES, things
from scribblediffusion.train.scenes import Scene

Array = np.ndarray[Any, np.dtype[Any]]

#: Scenes in one batch of the localisation.
BATCH = 4
#: Of a hundred scenes, how many the causal and the time experiments use: each takes many runs.
CAUSAL, TIME = 16, 10
#: At most so many words of a prompt that name no object and no colour are removed.
FUNCTION_WORDS = 3
#: When a word is removed or comes back, as shares of the steps.
MOMENTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
SETTINGS, LOCALISATION, EFFECTS, MOMENTS_FILE = (
    "settings.json",
    "localisation.jsonl",
    "causal.jsonl",
    "time.jsonl",
)
PICTURES = "pictures"


class Lines:
    """A file of one JSON record a scene; a line that was cut off is as if it were not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[int, dict[str, Any]] = {}
        if path.is_file():
            self._read()

    def _read(self) -> None:
        sound = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
            except ValueError:
                break
            self.found[record["scene"]] = record
            sound += len(line)
        os.truncate(self.path, sound)

    def add(self, record: dict[str, Any]) -> None:
        """Writes one scene's record at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.found[record["scene"]] = record

    def first(self, count: int) -> list[dict[str, Any]]:
        """The records of the first scenes, in their order."""
        return [self.found[i] for i in sorted(self.found) if i < count]


def counts(scenes: int) -> tuple[int, int, int]:
    """How many scenes the localisation, the causal and the time experiments use."""
    return scenes, max(2, scenes * CAUSAL // 100), max(2, scenes * TIME // 100)


def run(
    folder: Path,
    *,
    scenes: int,
    steps: int = 20,
    model: str | None = None,
    progress: Callable[[], Any],
) -> dict[str, Any]:
    """Runs what is missing of the experiments in a folder.

    Args:
        folder: where the records are; made if it is not there.
        scenes: held-out scenes of two and three objects.
        steps: sampling steps.
        model: a folder or hub id; None for the shipped model.
        progress: a context that gives a progress bar.

    Returns:
        The settings of the evaluation.

    Raises:
        SettingError: the folder holds an evaluation of other weights or settings.
    """
    about = _settings(folder, steps, model)
    pipe = ScribblePipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    given = truth.scenes_of_several(max(counts(scenes)))
    many = counts(scenes)
    work = (
        ("Where maps point", LOCALISATION, many[0], _localise),
        ("What causes what", EFFECTS, many[1], _causes),
        ("When words matter", MOMENTS_FILE, many[2], _moments),
    )
    with progress() as bar:
        for title, name, count, experiment in work:
            lines = Lines(folder / name)
            missing = [i for i in range(count) if i not in lines.found]
            task = bar.add_task(title, total=count, completed=count - len(missing))
            for record in experiment(pipe, given, missing, folder, steps):
                lines.add(record)
                bar.update(task, advance=1)
    return about


def _settings(folder: Path, steps: int, model: str | None) -> dict[str, Any]:
    """Writes what the evaluation is of, or finds it the same as before."""
    weights = digest((Path(model) if model else shipped()) / "unet" / FILE)
    about = {"weights": weights[:16], "steps": steps, "seed": truth.SEED, "split": truth.SPLIT}
    path = folder / SETTINGS
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if {k: before.get(k) for k in about} != about:
            raise SettingError(
                f"{folder} holds an evaluation of {before}, this one is of {about}: "
                "name another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about) + "\n", encoding="utf-8")
    return about


# --- localisation --------------------------------------------------------------------------------


def _localise(
    pipe: ScribblePipeline, scenes: list[Scene], missing: list[int], folder: Path, steps: int
) -> Iterator[dict[str, Any]]:
    for start in sorted({i // BATCH * BATCH for i in missing}):
        numbers = list(range(start, min(start + BATCH, len(scenes))))
        part = [scenes[i] for i in numbers]
        trace = truth.captured(pipe, part, truth.SEED + start, num_inference_steps=steps)
        for row, number in enumerate(numbers):
            if number in missing:
                maps = truth.Maps(trace, row)
                yield {
                    "scene": number,
                    "caption": scenes[number].caption,
                    "views": maps.views.names,
                    "noise": [round(s.noise_remaining or 0.0, 4) for s in trace.steps],
                    "audit": bool(trace.audit and trace.audit.passed),
                    "kinds": truth.measured(scenes[number], maps, row, number),
                }


# --- causality -----------------------------------------------------------------------------------


def words_in(pipe: ScribblePipeline, prompt: str) -> tuple[Word, ...]:
    """The words of a prompt with their keys, as the model will read it."""
    reading = pipe.condition(prompt).readings[0]
    return prompt_record([(reading, range(TEXT_TOKENS))]).words


def edits_of(
    one: Scene, words: tuple[Word, ...], number: int
) -> list[tuple[str, int | None, Edit]]:
    """The edits of a scene: (kind of word, its object or None, edit).

    Every noun and colour word is removed, and some of the other words. Of the first object noun
    and colour are replaced and knocked out, too. The longest stroke is erased.
    """
    sketch = Sketch.from_image(255 - one.sketch)
    rng = np.random.default_rng([truth.SEED, number, 7])
    found: list[tuple[str, int | None, Edit]] = []
    named: set[int] = set()
    for owner, kind, start, end in spans(one):
        keys = tuple(k for w in words if start <= w.start < end for k in w.keys)
        named |= set(keys)
        text = one.caption[start:end]

        def edit(
            how: str, prompt: str, knocked: tuple[int, ...] = (), text=text, keys=keys
        ) -> Edit:
            return Edit(text, how, keys, prompt, sketch, knocked)

        found.append((kind, owner, edit("removed", without(one.caption, start, end))))
        if owner == 0:
            other = _another(rng, one, kind)
            new = replaced(one.caption, start, end, other)
            found.append((kind, owner, edit(f"replaced by {other}", new)))
            found.append((kind, owner, edit("knocked out", one.caption, keys)))
    found += _other_removals(one, words, named, sketch)
    ink = longest_stroke(sketch)
    if ink is not None:
        found.append(("stroke", None, erasure(one.caption, sketch, ink, TEXT_TOKENS)))
    return found


def _another(rng: np.random.Generator, one: Scene, kind: str) -> str:
    """A colour or a noun that the scene has not."""
    if kind == "colour":
        taken = {placed.named for placed in one.objects}
        return str(rng.choice([c for c in FAMILIES if c not in taken]))
    names = {placed.thing.name for placed in one.objects}
    return str(rng.choice([t.name for t in things() if not t.held_out and t.name not in names]))


def _other_removals(
    one: Scene, words: tuple[Word, ...], named: set[int], sketch: Sketch
) -> list[tuple[str, int | None, Edit]]:
    """The ground's colour, and some words that name nothing, each at its first place."""
    free = [w for w in words if not set(w.keys) & named and w.text.isalpha() and w.keys]
    grounds = [w for w in free if w.text in FAMILIES or w.text == "white"]
    rest = [w for w in free if w not in grounds and not w.occurrence]
    chosen = [("ground", w) for w in grounds] + [("other", w) for w in rest[:FUNCTION_WORDS]]
    return [(kind, None, removal(one.caption, w, w.text, sketch)) for kind, w in chosen]


def _causes(
    pipe: ScribblePipeline, scenes: list[Scene], missing: list[int], folder: Path, steps: int
) -> Iterator[dict[str, Any]]:
    (folder / PICTURES).mkdir(exist_ok=True)
    for number in missing:
        one = scenes[number]
        listed = edits_of(one, words_in(pipe, one.caption), number)
        done = causal.experiment(
            pipe,
            one.caption,
            Sketch.from_image(255 - one.sketch),
            [edit for _, _, edit in listed],
            truth.SEED + number,
            num_inference_steps=steps,
        )
        _keep(folder / PICTURES / f"{number:04d}.npz", done)
        shares = {w.text: _share(done, w) for w in done.trace.words}
        yield {
            "scene": number,
            "caption": one.caption,
            "noise": [round(s.noise_remaining or 0.0, 4) for s in done.trace.steps],
            "words": shares,
            "edits": [
                _record(one, kind, owner, outcome, done)
                for (kind, owner, _), outcome in zip(listed, done.outcomes, strict=True)
            ],
        }


def _share(done: causal.Experiment, word: Word) -> float:
    return round(float(causal.raw_map(done.trace, word.keys).mean()), 6)


def _record(
    one: Scene, kind: str, owner: int | None, outcome: causal.Outcome, done: causal.Experiment
) -> dict[str, Any]:
    seen, deep = outcome.explained, outcome.in_latents
    by_step = [
        float(np.sum([done.trace.token(k, "attention", s.index).mean() for k in outcome.edit.keys]))
        for s in done.trace.steps
    ]
    record = {
        "kind": kind,
        "subject": outcome.edit.subject,
        "edit": outcome.edit.kind,
        "how": outcome.edit.how,
        "prompt": outcome.edit.prompt,
        "attention": outcome.attention,
        "attention_by_step": by_step,
        "effect": seen.effect,
        "delta": float(outcome.change.mean()),
        "picture": [seen.share, seen.chance, seen.control, seen.best],
        "latents": [deep.share, deep.chance, deep.control, deep.best],
    }
    mask = None if owner is None else one.labels == owner + 1
    if mask is not None and mask.any() and outcome.change.any():
        record["inside"] = float(outcome.change[mask].sum() / outcome.change.sum())
        record["area"] = float(on_grid(mask, (32, 32)).mean())
    return _rounded(record)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def _keep(path: Path, done: causal.Experiment) -> None:
    """The pictures of a scene and its words' maps, whole or not at all."""
    part = path.with_suffix(".part.npz")
    np.savez_compressed(
        part,
        base=done.picture,
        changed=np.stack([o.picture for o in done.outcomes]),
        maps=np.stack([o.heat for o in done.outcomes]).astype(np.float32),
    )
    os.replace(part, path)


# --- over time -----------------------------------------------------------------------------------


def _moments(
    pipe: ScribblePipeline, scenes: list[Scene], missing: list[int], folder: Path, steps: int
) -> Iterator[dict[str, Any]]:
    at = sorted({round(share * steps) for share in MOMENTS})
    for number in missing:
        one = scenes[number]
        first, second = ("colour", "noun") if number % 2 == 0 else ("noun", "colour")
        removals = {
            kind: edit
            for kind, _, edit in reversed(edits_of(one, words_in(pipe, one.caption), number))
            if edit.kind == "removed"
        }
        kind = first if first in removals else second
        record: dict[str, Any] = {"scene": number, "caption": one.caption, "steps": steps}
        if kind in removals:
            edit = removals[kind]
            found = causal.over_time(
                pipe, one.caption, edit, at, truth.SEED + number, num_inference_steps=steps
            )
            moments = [[m.step, m.after, m.effect, m.seen] for m in found]
            record |= {"kind": kind, "subject": edit.subject, "moments": _rounded(moments)}
        yield record
