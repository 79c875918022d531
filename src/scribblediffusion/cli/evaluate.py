"""`scribble evaluate`: how well pictures follow their sketches and words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scribblediffusion.cli.progress import progress


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

    chosen = tuple(name.strip() for name in sets.split(",") if name.strip())
    run(output, scenes=scenes, sets=chosen, model=model, progress=progress, say=typer.echo)
