"""`scribble draw`: a sketch and a prompt become a picture, kept with its attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scribblediffusion.cli.painting import paint
from scribblediffusion.cli.pictures import check_gallery, check_output, write_picture
from scribblediffusion.cli.source import GalleryRoot, model_name
from scribblediffusion.errors import InputError, SketchError

if TYPE_CHECKING:
    from scribblediffusion.sketch import Sketch

#: Seeds up to here, with those of 64 pictures after it, fit a database's integers.
_LAST_SEED = 2**63 - 65


def draw(
    sketch: Annotated[
        str, typer.Argument(metavar="SKETCH", help='Image file with the sketch; "-" for none.')
    ],
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help='What to draw; "" for the sketch alone.')
    ],
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Same seed, same picture.", min=0, max=_LAST_SEED),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Denoising steps.")] = 20,
    guidance: Annotated[
        float | None, typer.Option(metavar="X", help="How much the words count.")
    ] = None,
    sketch_guidance: Annotated[
        float | None, typer.Option(metavar="X", help="How much the sketch counts; 1 is fastest.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Image; where it is black the sketch has no say."),
    ] = None,
    count: Annotated[
        int, typer.Option(metavar="N", help="How many pictures, each with the next seed.")
    ] = 1,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the picture.")
    ] = None,
    gallery: GalleryRoot = None,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Keep the run and its attention.")
    ] = True,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Folder or hub id; without it the shipped model."),
    ] = None,
) -> None:
    """Draw a picture from a sketch and a prompt."""
    import secrets

    from scribblediffusion import settings as dials

    if not 1 <= count <= 64:
        raise InputError(f"--count {count}: a number from 1 to 64")
    settings = {
        "num_inference_steps": steps,
        "guidance_scale": dials.GUIDANCE if guidance is None else guidance,
        "sketch_guidance_scale": (
            dials.SKETCH_GUIDANCE if sketch_guidance is None else sketch_guidance
        ),
    }
    dials.check_settings(*settings.values())
    dials.check_prompts(prompt)
    seed = secrets.randbelow(2**31) if seed is None else seed
    targets = _targets(output, prompt, seed, count)
    cleaned = _cleaned(sketch, mask)
    if keep:
        check_gallery(gallery)
    seeds = range(seed, seed + count)
    pictures, trace = paint(model, [prompt] * count, cleaned, seeds, settings, capture=keep)
    run = None
    try:  # kept first, so that it is not lost where the picture cannot be written
        if trace is not None:
            from scribblediffusion.gallery import Gallery

            run = Gallery(gallery).add(trace, sketch=cleaned, settings={"model": model_name(model)})
    finally:  # nor is the picture where the run cannot be kept
        for number, (target, picture) in enumerate(zip(targets, pictures, strict=True)):
            write_picture(target, picture, prompt, seed + number)
            typer.echo(str(target))
    if run is not None and trace is not None:
        typer.echo(f"run {run.id} in {run.folder}")
        typer.echo(str(trace.audit))
    typer.echo(f"seed {seed}")


def _cleaned(sketch: str, mask: Path | None) -> Sketch | None:
    """The sketch as the model will see it; None for "-"."""
    from scribblediffusion.sketch import Sketch

    if sketch == "-":
        if mask is not None:
            raise InputError(f"--mask {mask}: there is no sketch to mask; name one instead of -")
        return None
    if why := _missing(sketch):
        raise SketchError(f'{sketch}: {why}; give an image, or "-" for no sketch')
    cleaned = Sketch.from_image(sketch, mask=mask)
    if cleaned.is_blank:
        typer.echo(f"scribble: no ink was found in {sketch}, so the words alone count", err=True)
    return cleaned


def _missing(sketch: str) -> str | None:
    """Why there is no file of this name for us, or None."""
    try:
        return None if Path(sketch).exists() else "there is no such file"
    except OSError as error:  # a name that no file can have, or a folder that may not be read
        return (error.strerror or str(error)).lower()


def _targets(output: Path | None, prompt: str, seed: int, count: int) -> list[Path]:
    """The files to write: what was asked for, or names made of the prompt and the seed."""
    if output is None:
        words = "".join(c if c.isascii() and c.isalnum() else " " for c in prompt.lower()).split()
        output = Path(f"{'-'.join(words)[:40] or 'sketch'}-{seed}.png")
    targets = [output]
    if count > 1:
        targets = [output.with_stem(f"{output.stem}-{number + 1}") for number in range(count)]
    for target in targets:
        check_output(target)
    return targets
