"""`scribble explain --causal`: the run again without a word or a stroke, and what that changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scribblediffusion.cli.capture import OURS
from scribblediffusion.cli.progress import progress, quiet_loading
from scribblediffusion.cli.rerun import Recipe, compared, pictures_of
from scribblediffusion.cli.source import find_run
from scribblediffusion.cli.terminal import say, show
from scribblediffusion.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from scribblediffusion.attention.records import Region, Word
    from scribblediffusion.evaluate.causal import Experiment
    from scribblediffusion.evaluate.edits import Edit
    from scribblediffusion.sketch import Sketch

_REGION = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*")
#: How much a grey value may differ between a picture in a batch and the same one alone.
ROUNDING = 2
_TITLE = "what each edit changed, seed and noise the same"


def tell_causes(
    run: str,
    gallery: Path | None,
    *,
    word: str | None = None,
    region: str | None = None,
    replace: str | None = None,
    output: Path | None = None,
) -> None:
    """Repeats a run with edits and says where the picture changed, and whether the map said so.

    Args:
        run: the run as a person names it.
        gallery: where ids are looked up.
        word: removed and knocked out; without it, and without `region`, every word is removed.
        region: "8:2,3": its ink is erased.
        replace: what takes the word's place.
        output: file or folder for the picture; else it is kept with its run.

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
    from scribblediffusion.analysis.printing import Table, percent

    header = ("edit", "explained", "chance", "control", "pixels changed")
    rows = [
        (
            f"{o.edit.subject} {o.edit.how}",
            *(percent(v) if v is not None else "–" for v in _numbers(o.explained)),
        )
        for o in done.outcomes
    ]
    show(Table(_TITLE, header, rows))
    for outcome in done.outcomes:
        say(outcome.explained.sentence)
    _warn_if_another(done.picture, pictures_of(kept)[:1])
    say(_kept(done, kept_in, kept.id, output))


def _warn_if_another(now: np.ndarray, before: tuple[np.ndarray, ...]) -> None:
    """The edits are held against the run as it is made now: say so where that is another picture.

    A picture in a batch may differ from the same one alone by the last bit.
    """
    import numpy as np

    if before and np.abs(before[0].astype(int) - now.astype(int)).max() > ROUNDING:
        say(f"the unchanged run is not the kept picture any more: {compared(before, (now,))}")


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
    from scribblediffusion.evaluate.edits import Edit, longest_stroke, removal, replaced

    if region is not None:
        return [_region_erased(prompt, sketch, region)]
    if word is not None:
        first, last, keys = _found(prompt, words, word)
        cut = (first.start, last.start + len(last.text))
        edits = [
            Edit(word, "removed", keys, replaced(prompt, *cut, ""), sketch),
            Edit(word, "knocked out", keys, prompt, sketch, keys),
        ]
        if replace is not None:
            changed = replaced(prompt, *cut, replace)
            edits.append(Edit(word, f"replaced by {replace}", keys, changed, sketch))
        return edits
    from scribblediffusion.attention.naming import word_name
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
    from scribblediffusion.evaluate.edits import Edit, erasure
    from scribblediffusion.sketch import REGIONS

    found = _REGION.fullmatch(named)
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
    edit = erasure(prompt, sketch, ink, _first_key())
    return Edit(f"region {named}", "erased", (_first_key() + region.index,), prompt, edit.sketch)


def _first_key() -> int:
    from scribblediffusion.model.text import TEXT_TOKENS

    return TEXT_TOKENS


def _kept(done: Experiment, kept_in: Any, run_id: str, output: Path | None) -> str:
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
        target = output / "causal.png" if output.is_dir() else output
        return str(save_figure(rows, target)[0])
    with tempfile.TemporaryDirectory() as folder:
        made = save_figure(rows, Path(folder) / "causal.png")[0]
        return str(kept_in.attach(run_id, made))
