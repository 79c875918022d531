"""`scribble`: the command line. Heavy libraries load only inside the commands that need them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scribblediffusion.errors import InputError, ScribbleError, SketchError
from scribblediffusion.train.cli import app as train_app

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(
    name="scribble",
    help="Draw a sketch, type a prompt, get a picture, and see where each word and stroke acted.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(train_app, name="train")
_UsageError: Any = typer.BadParameter.__base__


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield progress


def _say(text: str) -> None:
    typer.echo(text)


def _output(output: Path | None, prompt: str, seed: int) -> Path:
    """The file to write: what was asked for, or a name made of the prompt and the seed."""
    if output is None:
        words = "".join(c if c.isascii() and c.isalnum() else " " for c in prompt.lower()).split()
        output = Path(f"{'-'.join(words)[:40] or 'sketch'}-{seed}.png")
    if output.suffix.lower() not in (".png", ".webp", ".jpg", ".jpeg"):
        raise InputError(f"--output {output}: the name must end in .png, .webp or .jpg")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}")
    return output


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        raise InputError(
            'say what to do, for instance: scribble draw sketch.png "a red apple" '
            "(scribble --help lists every command)"
        )


@app.command()
def draw(
    sketch: Annotated[str, typer.Argument(help='Image file with the sketch; "-" for none.')],
    prompt: Annotated[str, typer.Argument(help='What to draw; "" for the sketch alone.')],
    seed: Annotated[int | None, typer.Option(help="Same seed, same picture.", min=0)] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    guidance: Annotated[float | None, typer.Option(help="How much the words count.")] = None,
    sketch_guidance: Annotated[
        float | None, typer.Option(help="How much the sketch counts; 1 is fastest.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Image; where it is black the sketch has no say.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many pictures.", min=1, max=64)] = 1,
    output: Annotated[Path | None, typer.Option(help="Where to write the picture.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or hub id; without it the shipped model.")
    ] = None,
) -> None:
    """Draw a picture from a sketch and a prompt."""
    import secrets

    from scribblediffusion.sketch import Sketch

    seed = secrets.randbelow(2**31) if seed is None else seed
    target = _output(output, prompt, seed)
    no_sketch = sketch == "-"
    if not no_sketch and not Path(sketch).is_file():
        raise SketchError(f'{sketch}: there is no such file; give an image, or "-" for no sketch')
    cleaned = None if no_sketch else Sketch.from_image(sketch, mask=mask)

    from PIL import Image, PngImagePlugin

    from scribblediffusion.pipeline import GUIDANCE, SKETCH_GUIDANCE, ScribblePipeline, seeded

    settings = {
        "num_inference_steps": steps,
        "guidance_scale": GUIDANCE if guidance is None else guidance,
        "sketch_guidance_scale": SKETCH_GUIDANCE if sketch_guidance is None else sketch_guidance,
    }
    with _progress() as progress:
        task = progress.add_task("Loading the model", total=None)
        pipe = ScribblePipeline.from_pretrained(model)
        run = pipe.denoise(
            prompt, cleaned, generator=seeded(seed, count), num_images_per_prompt=count, **settings
        )
        for step in run:
            text = f"Noise remaining: {step.noise_remaining:.0%}"
            progress.update(task, description=text, total=step.count, completed=step.index + 1)
        pictures = pipe.finish(step.latents)
    for number, picture in enumerate(pictures):
        path = target if count == 1 else target.with_stem(f"{target.stem}-{number + 1}")
        about = PngImagePlugin.PngInfo()
        about.add_itxt("prompt", prompt)
        about.add_itxt("seed", str(seed + number))
        Image.fromarray(picture).save(path, **({"pnginfo": about} if path.suffix == ".png" else {}))
        _say(str(path))
    if seed is not None:
        _say(f"seed {seed}")


@app.command()
def evaluate(
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("evaluation"),
    scenes: Annotated[int, typer.Option(help="Held-out scenes of each set.", min=2)] = 200,
    sets: Annotated[
        str, typer.Option(help="Which sets: test, objects, pairs, wobbly.")
    ] = "test,objects,pairs,wobbly",
    model: Annotated[str | None, typer.Option(help="Folder or hub id.")] = None,
) -> None:
    """Measure how well pictures follow their sketches and words, on held-out scenes."""
    from scribblediffusion.evaluate.report import run

    run(
        output,
        scenes=scenes,
        sets=tuple(sets.split(",")),
        model=model,
        progress=_progress,
        say=_say,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error is one line on standard error.

    Exit status: 0 done, 1 something failed, 2 what was given cannot be used, 130 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        code = app(args=arguments, standalone_mode=False)
    except InputError as error:
        _fail(error, 2)
    except ScribbleError as error:
        _fail(error, 1)
    except _UsageError as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except OSError as error:
        _fail(error, 1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: object, code: int) -> None:
    line = " ".join(str(message).split())
    typer.echo(f"scribble: {line}", err=True)
    sys.exit(code)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
