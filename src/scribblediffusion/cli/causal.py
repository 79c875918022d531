"""`scribble explain --causal`: the run again without a word or a stroke, and what that changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scribblediffusion.cli.capture import OURS
from scribblediffusion.cli.explain import REGION, as_json
from scribblediffusion.cli.progress import progress, quiet_loading
from scribblediffusion.cli.rerun import Recipe, compared, pictures_of
from scribblediffusion.cli.source import find_run
from scribblediffusion.cli.terminal import aligned, say, show
from scribblediffusion.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from scribblediffusion.analysis.printing import Table
    from scribblediffusion.attention.records import Region, Word
    from scribblediffusion.evaluate.causal import Experiment
    from scribblediffusion.evaluate.edits import Edit
    from scribblediffusion.sketch import Sketch

#: How much a grey value may differ between a picture in a batch and the same one alone.
ROUNDING = 2
#: What the report gives of each edit, in the order of `_numbers`.
_NUMBERS = ("explained", "chance", "control", "pixels_changed")
_TITLE = "what each edit changed, seed and noise the same"


def tell_causes(
    run: str,
    gallery: Path | None,
    word: str | None = None,
    region: str | None = None,
    replace: str | None = None,
    kind: str = "png",
    output: Path | None = None,
) -> str | None:
    """Repeats a run with edits and says where the picture changed, and whether the map said so.

    Args:
        run: the run as a person names it.
        gallery: where ids are looked up.
        word: removed and knocked out; without it, and without `region`, every word is removed.
        region: "8:2,3": its ink is erased.
        replace: what takes the word's place.
        kind: "png" or "svg" for a picture, too; "text" or "json" for the report alone.
        output: file or folder for the picture; else it is kept with its run.

    Returns:
        The report, where it has not been printed: for JSON, and for text that is to be a file.

    Raises:
        InputError: the run cannot be repeated, or has no such word or ink.
    """
    kept_in, kept = find_run(run, gallery)
    recipe = Recipe.of(kept)
    if recipe.pipeline != OURS:
        raise InputError(f"--causal repeats runs of {OURS}; this one was made by {recipe.pipeline}")
    if replace is not None and word is None:
        raise InputError("--replace-by says what to put in a word's place: name it with --word")
    prompt, seed, sketch = recipe.prompts[0], recipe.seeds[0], kept.sketch()
    done = _done(recipe.model, prompt, sketch, seed, (word, region, replace), recipe.settings)
    notes = [*_of_the_run(recipe), *_if_another(recipe, done.picture, pictures_of(kept)[:1])]
    if kind == "json":
        return as_json(_record(kept.id, recipe, done, notes))
    if kind == "text" and output is not None:
        lines = [aligned(_table(done)), *(o.explained.sentence for o in done.outcomes), *notes]
        return "\n".join(lines) + "\n"
    show(_table(done))
    for line in (*(o.explained.sentence for o in done.outcomes), *notes):
        say(line)
    if kind != "text":
        say(_kept(done, kept_in, kept.id, f"causal.{kind}", output))
    return None


def _table(done: Experiment) -> Table:
    from scribblediffusion.analysis.printing import Table, percent

    header = ("edit", "explained", "chance", "control", "pixels changed")
    rows = [
        (
            f"{o.edit.subject} {o.edit.how}",
            *(percent(v) if v is not None else "–" for v in _numbers(o.explained)),
        )
        for o in done.outcomes
    ]
    return Table(_TITLE, header, rows)


def _record(run_id: str, recipe: Recipe, done: Experiment, notes: list[str]) -> dict[str, Any]:
    """The report as plain values: shares 0…1, unrounded."""
    return {
        "run": run_id,
        "prompt": recipe.prompts[0],
        "seed": recipe.seeds[0],
        "settings": recipe.settings,
        "edits": [
            {
                "subject": o.edit.subject,
                "how": o.edit.how,
                "keys": o.edit.keys,
                "prompt": o.edit.prompt,
                **dict(zip(_NUMBERS, _numbers(o.explained), strict=True)),
                "best": o.explained.best,
                "says": o.explained.sentence,
            }
            for o in done.outcomes
        ],
        "notes": notes,
    }


def _of_the_run(recipe: Recipe) -> list[str]:
    """What of the run is told of, where that is not all of it."""
    notes = []
    if (count := len(recipe.prompts)) > 1:
        notes.append(f"this is the first of the run's {count} pictures, alone")
    if recipe.stopped_after is not None:
        steps = recipe.settings.get("num_inference_steps", "all")
        notes.append(
            f"the run was stopped after {recipe.stopped_after} of {steps} steps; here it goes on "
            "to the last, so that its picture is not the kept one"
        )
    return notes


def _if_another(recipe: Recipe, now: np.ndarray, before: tuple[np.ndarray, ...]) -> list[str]:
    """The edits are held against the run as it is made now: say so where that is another picture.

    A picture in a batch may differ from the same one alone by the last bit.
    """
    import numpy as np

    if not before or recipe.stopped_after is not None:
        return []
    if np.abs(before[0].astype(int) - now.astype(int)).max() <= ROUNDING:
        return []
    return [f"the unchanged run is not the kept picture any more: {compared(before, (now,))}"]


def _numbers(explained: Any) -> tuple[float | None, ...]:
    return explained.share, explained.chance, explained.control, explained.effect


def _done(
    model: str | None,
    prompt: str,
    sketch: Sketch | None,
    seed: int,
    asked: tuple[str | None, str | None, str | None],
    settings: dict[str, Any],
) -> Experiment:
    from scribblediffusion import ScribblePipeline
    from scribblediffusion.evaluate.causal import experiment
    from scribblediffusion.evaluate.maps import words_in

    with progress() as bar:
        bar.add_task("Running it again, each time with one thing changed", total=None)
        with quiet_loading():
            pipe = ScribblePipeline.from_pretrained(model)
        pipe.set_progress_bar_config(disable=True)
        words = words_in(pipe, prompt)
        edits = _edits(prompt, words, sketch, *asked)
        return experiment(pipe, prompt, sketch, edits, seed, **settings)


def _edits(
    prompt: str,
    words: tuple[Word, ...],
    sketch: Sketch | None,
    word: str | None,
    region: str | None,
    replace: str | None,
) -> list[Edit]:
    """What is to be changed, one edit at a time."""
    from scribblediffusion.attention.naming import word_name
    from scribblediffusion.evaluate.edits import Edit, longest_stroke, removal, replaced

    if region is not None:
        return [_region_erased(prompt, sketch, region)]
    if word is not None:
        first, last, keys = _found(prompt, words, word)
        cut = (first.start, last.start + len(last.text))
        name = word_name(first, words) if first is last else word
        edits = [
            Edit(name, "removed", keys, replaced(prompt, *cut, ""), sketch),
            Edit(name, "knocked out", keys, prompt, sketch, keys),
        ]
        if replace is not None:
            changed = replaced(prompt, *cut, replace)
            edits.append(Edit(name, f"replaced by {replace}", keys, changed, sketch))
        return edits
    from scribblediffusion.evaluate.edits import erasure

    edits = [removal(prompt, w, word_name(w, words), sketch) for w in words if w.keys]
    ink = None if sketch is None else longest_stroke(sketch)
    if ink is not None:
        edits.append(erasure(prompt, sketch, ink, _first_key()))
    if not edits:
        raise InputError("this run has neither words nor a sketch: there is nothing to change")
    return edits


def _found(prompt: str, words: tuple[Word, ...], text: str) -> tuple[Word, Word, tuple[int, ...]]:
    """The first and last word of a phrase of the prompt, and its keys."""
    from scribblediffusion.attention.naming import find
    from scribblediffusion.attention.records import Prompt

    numbered = re.fullmatch(r"(.+?)\s*\((\d+)\)", text)
    bare, at = (numbered[1], int(numbered[2]) - 1) if numbered else (text, 0)
    places = find(bare, Prompt(prompt, words=words))
    if not 0 <= at < len(places):
        raise InputError(f"--word {text!r}: {bare!r} is in the prompt {len(places)} time(s)")
    keys = places[at]
    own = [w for w in words if w.keys and set(w.keys) <= set(keys)]
    return own[0], own[-1], keys


def _region_erased(prompt: str, sketch: Sketch | None, named: str) -> Edit:
    import numpy as np

    from scribblediffusion.analysis.strokes import THRESHOLD
    from scribblediffusion.evaluate.edits import erasure
    from scribblediffusion.sketch import REGIONS

    found = REGION.fullmatch(named)
    region: Region | None = next(
        (
            r
            for r in REGIONS
            if found and (r.level, r.row, r.column) == tuple(map(int, found.groups()))
        ),
        None,
    )
    if region is None:
        raise InputError(f"--region {named!r}: give LEVEL:ROW,COLUMN, for instance 8:0,3")
    inside: np.ndarray = np.zeros((256, 256), bool)
    left, top, right, bottom = region.box()
    inside[top:bottom, left:right] = True
    ink = inside & (np.zeros_like(inside) if sketch is None else sketch.ink > THRESHOLD)
    return erasure(prompt, sketch, ink, _first_key(), region)


def _first_key() -> int:
    from scribblediffusion.model.text import TEXT_TOKENS

    return TEXT_TOKENS


def _kept(done: Experiment, kept_in: Any, run_id: str, name: str, output: Path | None) -> str:
    """Draws what changed; kept with the run, or where it was asked for."""
    import tempfile

    from scribblediffusion.view.evidence import change_rows
    from scribblediffusion.view.figure import save_figure

    rows = change_rows(
        done.picture,
        [
            (o.explained.sentence, f"{o.edit.subject} {o.edit.how}", o.picture, o.change, o.heat)
            for o in done.outcomes
        ],
    )
    if output is not None:
        target = output / name if output.is_dir() else output
        return str(save_figure(rows, target)[0])
    with tempfile.TemporaryDirectory() as folder:
        made = save_figure(rows, Path(folder) / name)[0]
        return str(kept_in.attach(run_id, made))
