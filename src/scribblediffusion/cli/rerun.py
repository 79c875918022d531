"""`scribble gallery rerun`: a run once more, and whether its bits are the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scribblediffusion.cli.capture import OURS, captured
from scribblediffusion.cli.painting import paint
from scribblediffusion.cli.pictures import check_gallery
from scribblediffusion.cli.source import RUN_HELP, GalleryRoot, find_run
from scribblediffusion.cli.terminal import say
from scribblediffusion.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from scribblediffusion.attention.trace import AttentionTrace
    from scribblediffusion.gallery import Run
    from scribblediffusion.sketch import Sketch

_PICTURE = re.compile(r"image(?:-(\d+))?\.png")
_DIALS = ("num_inference_steps", "guidance_scale", "sketch_guidance_scale")


@dataclass(frozen=True)
class Recipe:
    """What it takes to repeat a run.

    Attributes:
        prompts: one for each picture.
        seeds: one for each picture, or one for all of them.
        settings: steps and guidance.
        model: a folder or hub id; None for the shipped model.
        pipeline: name of the pipeline's class.
        stopped_after: so many steps were run, where it was stopped before the last.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    model: str | None
    pipeline: str
    stopped_after: int | None

    @classmethod
    def of(cls, run: Run, model: str | None = None) -> Recipe:
        """Reads a run's recipe.

        Args:
            run: the run.
            model: to be used instead of the run's own.

        Raises:
            InputError: it was drawn without a seed.
            GalleryError: its record is damaged.
        """
        record = run.record
        settings = run.part("settings", dict)
        told = settings.get("seeds")
        told = told if isinstance(told, list) and told else [record.get("seed")]
        seeds = tuple(seed for seed in told if isinstance(seed, int))
        if len(seeds) != len(told):
            raise InputError(f"run {run.id} was drawn without a seed: it cannot be repeated")
        made_by = str(run.part("versions", dict).get("model") or OURS).split(" ", 1)
        own = settings["model"] if "model" in settings else _folder(made_by[1:])
        return cls(
            prompts=_prompts(run, len(seeds)),
            seeds=seeds,
            settings={name: settings[name] for name in _DIALS if name in settings},
            model=model or own,
            pipeline=str(settings.get("pipeline") or made_by[0]),
            stopped_after=run.stopped_after,
        )


def rerun(
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Folder or hub id; without it the run's own model."),
    ] = None,
    gallery: GalleryRoot = None,
) -> None:
    """Repeat a run, and say whether the picture is the same.

    Same prompt, sketch, settings, seed and model: on the same machine the bits are the same. The
    new run is kept, too. Exit status 1 where the picture differs.
    """
    kept_in, kept = find_run(run, gallery)
    before = pictures_of(kept)
    recipe = Recipe.of(kept, model)
    sketches = kept.sketches()
    check_gallery(kept_in.root)
    trace = _repeated(recipe, sketches)
    settings = {"model": recipe.model, "rerun_of": kept.id}
    new = kept_in.add(trace, sketch=sketches[0], settings=settings)
    say(f"run {new.id} in {new.folder}")
    if not before:
        say(f"run {kept.id} has no picture to compare with")
        return
    verdict = compared(before, trace.pictures)
    say(verdict or f"the same bits as run {kept.id}: {_count(len(before))}")
    if verdict:
        for line in _reasons(kept, trace):
            say(line)
        raise typer.Exit(1)


def pictures_of(run: Run) -> tuple[np.ndarray, ...]:
    """The pictures of a run uint8 `[H, W, 3]`, checked against the manifest, in their order.

    Raises:
        GalleryError: one is damaged.
    """
    import numpy as np
    from PIL import Image

    found = sorted((int(m[1] or 1), n) for n in run.files if (m := _PICTURE.fullmatch(n)))
    pictures = []
    for _, name in found:
        with Image.open(run.checked(name)) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    return tuple(pictures)


def compared(before: tuple[np.ndarray, ...], after: tuple[np.ndarray, ...]) -> str:
    """What differs between pictures, in one line; "" where every bit is the same."""
    import numpy as np

    if [p.shape for p in before] != [p.shape for p in after]:
        return f"not the same: {_sizes(before)} before, {_sizes(after)} now"
    apart = [
        np.abs(a.astype(int) - b.astype(int)).max(axis=-1)
        for a, b in zip(before, after, strict=True)
    ]
    if not any(a.any() for a in apart):
        return ""
    share = float(np.mean([(a > 0).mean() for a in apart]))
    most = max(int(a.max()) for a in apart)
    return f"not the same: {share:.1%} of the pixels differ, by at most {most} of 255"


def _repeated(recipe: Recipe, sketches: Sequence[Sketch | None]) -> AttentionTrace:
    if recipe.pipeline != OURS:
        if recipe.model is None:
            raise InputError(
                f"this run was made with a {recipe.pipeline}, and does not say from which folder: "
                "name it with --model"
            )
        steps, guidance = (recipe.settings.get(name) for name in _DIALS[:2])
        return captured(recipe.model, recipe.prompts[0], recipe.seeds[0], steps, guidance)
    trace: Any = paint(
        recipe.model,
        recipe.prompts,
        list(sketches) if len(sketches) > 1 else sketches[0],
        recipe.seeds,
        recipe.settings,
        stop_after=recipe.stopped_after,
    )[1]
    return trace


def _prompts(run: Run, least: int) -> tuple[str, ...]:
    """The prompt of each picture."""
    count = max(least, len([name for name in run.files if _PICTURE.fullmatch(name)]), 1)
    if count > 1 and run.trace is not None:
        prompts = tuple(prompt.text for prompt in run.open().prompts)
        if len(prompts) == count:
            return prompts
    return (run.prompt,) * count


def _folder(told: list[str]) -> str | None:
    """The folder or hub id that the trace noted; None for weights that came with a package."""
    from pathlib import Path

    named = told[0] if told else ""
    return named if named and (Path(named).is_dir() or not Path(named).is_absolute()) else None


def _reasons(kept: Run, trace: AttentionTrace) -> list[str]:
    """What else is not as it was: versions of the libraries."""
    before = kept.part("versions", dict)
    changed = [
        f"{name} {before.get(name, 'none')} → {now}"
        for name, now in trace.versions.items()
        if before.get(name) != now
    ]
    if changed:
        return [f"made with other versions: {', '.join(changed)}"]
    return ["the same versions; another machine, number of threads or weights may be the cause"]


def _sizes(pictures: tuple[np.ndarray, ...]) -> str:
    return ", ".join(f"{p.shape[1]}×{p.shape[0]}" for p in pictures) or "no picture"


def _count(pictures: int) -> str:
    return f"{pictures} picture{'' if pictures == 1 else 's'}"
