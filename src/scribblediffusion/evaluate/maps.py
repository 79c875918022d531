"""`scribble evaluate maps`: do the maps tell the truth? Experiments on held-out scenes.

Every scene's result is one line of a file, written as soon as it is there: an evaluation that was
interrupted goes on where it stopped, and one of more scenes adds to one of fewer. The figures,
tables and plots are made from those lines alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scribblediffusion.analysis.change import NO_EFFECT, explain_change
from scribblediffusion.attention.layout import prompt_record
from scribblediffusion.attention.records import Word
from scribblediffusion.attention.trace import resize
from scribblediffusion.evaluate import causal, truth
from scribblediffusion.evaluate.edits import (
    Edit,
    erasure,
    longest_stroke,
    removal,
    replaced,
    without,
)
from scribblediffusion.evaluate.records import Lines, claimed, weights_digest
from scribblediffusion.model.text import TEXT_TOKENS
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import GUIDANCE, SKETCH_GUIDANCE
from scribblediffusion.sketch import Sketch
from scribblediffusion.train.latents import spans
from scribblediffusion.train.objects import FAMILIES, things
from scribblediffusion.train.scenes import Scene

Array = np.ndarray[Any, np.dtype[Any]]

#: What is asked of a scene. Raised whenever the meaning of a record changes, so that an older
#: folder is refused and not gone on with.
QUESTIONS = 2
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
#: The grid on which changes of two pictures are compared: that of the finest maps.
PLACES = (32, 32)


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
    about: dict[str, Any] = {
        "questions": QUESTIONS,
        "weights": weights_digest(model),
        "steps": steps,
        "seed": truth.SEED,
        "split": truth.SPLIT,
        "guidance_scale": GUIDANCE,
        "sketch_guidance_scale": SKETCH_GUIDANCE,
    }
    return claimed(folder, about | ({} if model is None else {"model": model}))


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

    Every noun and colour word is removed, and some of the other words; of the first object, noun
    and colour are replaced, too. What is removed of the first object and of the other words is
    knocked out as well. The longest stroke is erased. Controls are the words of other objects.
    """
    sketch = Sketch.from_image(255 - one.sketch)
    rng = np.random.default_rng([truth.SEED, number, 7])
    found: list[tuple[str, int | None, Edit]] = []
    named = [
        (owner, kind, start, end, tuple(k for w in words if start <= w.start < end for k in w.keys))
        for owner, kind, start, end in spans(one)
    ]
    for owner, kind, start, end, keys in named:
        own = {k for other, _, _, _, ks in named if other == owner for k in ks}
        others = tuple(w.keys for w in words if w.keys and not own & set(w.keys))

        def edit(
            how: str, prompt: str, knocked: tuple[int, ...] = (),
            text=one.caption[start:end], keys=keys, others=others,
        ) -> Edit:  # fmt: skip
            return Edit(text, how, keys, prompt, sketch, knocked, others)

        found.append((kind, owner, edit("removed", without(one.caption, start, end))))
        if owner == 0:
            other = _another(rng, one, kind)
            new = replaced(one.caption, start, end, other)
            found.append((kind, owner, edit(f"replaced by {other}", new)))
            found.append((kind, owner, edit("knocked out", one.caption, keys)))
    taken = {k for *_, keys in named for k in keys}
    found += _other_edits(one, words, taken, sketch)
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


def _other_edits(
    one: Scene, words: tuple[Word, ...], named: set[int], sketch: Sketch
) -> list[tuple[str, int | None, Edit]]:
    """The ground's colour, and some words that name nothing, each at its first place: removed, and
    knocked out.
    """
    free = [w for w in words if not set(w.keys) & named and w.text.isalpha() and w.keys]
    grounds = [w for w in free if w.text in FAMILIES or w.text == "white"]
    rest = [w for w in free if w not in grounds and not w.occurrence]
    chosen = [("ground", w) for w in grounds] + [("other", w) for w in rest[:FUNCTION_WORDS]]
    return [
        (kind, None, edit)
        for kind, w in chosen
        for edit in (
            removal(one.caption, w, w.text, sketch),
            Edit(w.text, "knocked out", w.keys, one.caption, sketch, w.keys),
        )
    ]


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
        yield {
            "scene": number,
            "caption": one.caption,
            "noise": [round(s.noise_remaining or 0.0, 4) for s in done.trace.steps],
            "words": [[w.text, _share(done, w)] for w in done.trace.words if w.keys],
            "edits": [
                _record(one, kind, owner, outcome, done)
                for (kind, owner, _), outcome in zip(listed, done.outcomes, strict=True)
            ],
        }


def _share(done: causal.Experiment, word: Word) -> float:
    """A word's share of all attention, for each of its tokens."""
    return round(float(causal.raw_map(done.trace, word.keys).mean()) / len(word.keys), 6)


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
        "attention": outcome.attention / len(outcome.edit.keys),
        "attention_by_step": by_step,
        "effect": seen.effect,
        "delta": float(outcome.change.mean()),
        "picture": [seen.share, seen.chance, seen.control, seen.best],
        "latents": [deep.share, deep.chance, deep.control, deep.best],
    }
    mask = None if owner is None else one.labels == owner + 1
    if mask is not None and mask.any() and outcome.change.any():
        record["inside"] = float(outcome.change[mask].sum() / outcome.change.sum())
        record["area"] = float(mask.mean())
    removed = _removal_of(outcome, done)
    if removed and (removed.explained.effect or 0) >= NO_EFFECT and outcome.change.any():
        heat = resize(outcome.change, *PLACES)
        alike = explain_change(heat, removed.change, name=outcome.edit.subject)
        record["as removed"] = [alike.share, alike.chance]
    return _rounded(record)


def _removal_of(outcome: causal.Outcome, done: causal.Experiment) -> causal.Outcome | None:
    """The removal of what an edit knocks out."""
    if outcome.edit.kind != "knocked out":
        return None
    removals = (o for o in done.outcomes if o.edit.kind == "removed")
    return next((o for o in removals if o.edit.keys == outcome.edit.keys), None)


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


def moments(steps: int) -> list[int]:
    """The steps of a run at which a word is removed or comes back (`MOMENTS`)."""
    return sorted({min(steps - 1, round(share * steps)) for share in MOMENTS})


def _moments(
    pipe: ScribblePipeline, scenes: list[Scene], missing: list[int], folder: Path, steps: int
) -> Iterator[dict[str, Any]]:
    at = moments(steps)
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
            effects = [[m.step, m.after, m.effect, m.seen] for m in found]
            record |= {"kind": kind, "subject": edit.subject, "moments": _rounded(effects)}
        yield record
