"""`scribble evaluate`: how pictures follow sketches and words, and whether maps tell the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scribblediffusion.cli.extras import SCENES, need
from scribblediffusion.cli.progress import progress, quiet_loading
from scribblediffusion.errors import SettingError

app = typer.Typer(
    help="Measure the model on held-out scenes; without a command, its pictures (quality).",
    invoke_without_command=True,
)

Output = Annotated[Path, typer.Option(help="Folder for the report.")]
Scenes = Annotated[
    int,
    typer.Option(
        help="Held-out scenes of each set; for colours, of each number of objects too.", min=2
    ),
]
Sets = Annotated[str, typer.Option(help="Which sets: test, objects, pairs, wobbly.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub id.")]
SETS = "test,objects,pairs,wobbly"


@app.callback()
def evaluate(
    context: typer.Context,
    output: Output = Path("evaluation"),
    scenes: Scenes = 200,
    sets: Sets = SETS,
    model: Model = None,
) -> None:
    """Measure the model on held-out scenes; without a command, its pictures (quality)."""
    if context.invoked_subcommand is None:
        quality(output, scenes, sets, model)
        return
    given = [name for name in context.params if _given(context, name)]
    if given:
        command = context.invoked_subcommand
        raise SettingError(
            f"--{given[0]} stands before {command}, which would not see it; "
            f"try: scribble evaluate {command} --{given[0]} …"
        )


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def quality(
    output: Output = Path("evaluation"),
    scenes: Scenes = 200,
    sets: Sets = SETS,
    model: Model = None,
) -> None:
    """Measure how well pictures follow their sketches and words, on held-out scenes."""
    need("evaluation", *SCENES)
    from scribblediffusion.evaluate.report import run

    chosen = tuple(name.strip() for name in sets.split(",") if name.strip())
    with quiet_loading():
        run(output, scenes=scenes, sets=chosen, model=model, progress=progress, say=typer.echo)


@app.command()
def dials(
    output: Output = Path("dials"),
    scenes: Annotated[int, typer.Option(help="Scenes, drawn with every pair.", min=2)] = 24,
    text: Annotated[str, typer.Option(help="Values of --guidance to try.")] = "2,3,4,5.5",
    sketch: Annotated[str, typer.Option(help="Values of --sketch-guidance.")] = "1,1.5,2",
    model: Model = None,
) -> None:
    """Find good guidance dials: every pair draws the same scenes, and is measured on them.

    Interrupted, it goes on where it stopped when it is called again.
    """
    need("evaluation", *SCENES)
    from scribblediffusion.evaluate.dials import run

    with quiet_loading():
        run(
            output,
            scenes=scenes,
            model=model,
            text=_numbers("--text", text),
            sketch=_numbers("--sketch", sketch),
            progress=progress,
            say=typer.echo,
        )


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingError(f"{name} {text}: numbers with commas between them, 1,1.5,2") from None


@app.command()
def maps(
    output: Annotated[Path, typer.Option(help="Folder for records, tables and plots.")] = Path(
        "maps"
    ),
    scenes: Annotated[
        int, typer.Option(help="Held-out scenes of two and three objects.", min=4)
    ] = 200,
    steps: Annotated[int, typer.Option(help="Sampling steps.", min=2, max=1000)] = 20,
    model: Model = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A Markdown page whose measured parts and pictures are brought up to date.",
        ),
    ] = None,
) -> None:
    """Measure whether attention maps tell the truth: where they point, and what words cause.

    Maps against the true places of objects, with chance and controls; runs repeated without a word
    or a stroke. Interrupted, it goes on where it stopped when it is called again.
    """
    need("evaluation", *SCENES)
    from scribblediffusion.evaluate.account import check, write
    from scribblediffusion.evaluate.findings import Evidence
    from scribblediffusion.evaluate.maps import run

    if page is not None:
        check(page)
    with quiet_loading():
        run(output, scenes=scenes, steps=steps, model=model, progress=progress)
    parts = write(Evidence.read(output, scenes), page)
    for part in parts.values():
        typer.echo(part)
    typer.echo(f"written to {output}")
