"""`scribble compare`: two runs side by side, word by word."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scribblediffusion.cli.explain import Ground
from scribblediffusion.cli.pictures import check_output, write_picture
from scribblediffusion.cli.source import RUN_HELP, GalleryRoot, open_source
from scribblediffusion.cli.terminal import say, show

if TYPE_CHECKING:
    from scribblediffusion.attention.trace import AttentionTrace


def compare(
    first: Annotated[
        str, typer.Argument(metavar="RUN", help=f"{RUN_HELP} Or a .safetensors file.")
    ],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare it with.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the difference: a .png file.")
    ] = None,
    ground: Annotated[Ground, typer.Option(help="What it is drawn on.")] = Ground.dark,
    gallery: GalleryRoot = None,
) -> None:
    """Compare two runs, word by word.

    For each word that both prompts have: how much of its map moved (0 % nothing, 100 % all of
    it), how alike the maps are (r), how far the centre shifted in picture widths and heights, and
    the word's share of the attention in both runs.
    """
    if output is not None:
        check_output(output, (".png",))
    from scribblediffusion.analysis.difference import compare as compare_traces

    traces = tuple(open_source(named, gallery).trace for named in (first, second))
    found = compare_traces(*traces)
    show(found.table())
    for line in _settings(*traces):
        say(line)
    if output is not None:
        from scribblediffusion.view.comparison import comparison

        drawn = comparison(found, traces[0], traces[1], ground=ground.value)
        prompt = _both(trace.prompt for trace in traces)
        write_picture(output, drawn, prompt, _both(t.settings.get("seed", "") for t in traces))
        say(output)


def _settings(first: AttentionTrace, second: AttentionTrace) -> list[str]:
    """What the two runs were asked for differently."""
    before, after = first.settings, second.settings
    names = dict.fromkeys((*before, *after))
    changed = [
        f"{name} {_said(before, name)} → {_said(after, name)}"
        for name in names
        if before.get(name) != after.get(name)
    ]
    return [f"other settings: {', '.join(changed)}"] if changed else ["the same settings"]


def _said(settings: Any, name: str) -> object:
    return settings.get(name, "not given")


def _both(values: Iterable[object]) -> str:
    """The values of two runs as one text."""
    return " → ".join(dict.fromkeys(str(value) for value in values if value not in ("", None)))
