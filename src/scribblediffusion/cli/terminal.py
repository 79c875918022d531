"""How commands show results: Rich tables on a terminal, aligned plain text anywhere else."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from scribblediffusion.analysis.printing import Table

_NUMBER = re.compile(r"[(+\-−]?\d.*")


def readable(text: object) -> str:
    r"""One line that is safe to print: no line breaks, control signs or halves of a character.

    >>> readable("a red\x1b[31m\n apple\u202e")
    'a red[31m apple'
    """
    line = " ".join(str(text).split())
    return "".join(c for c in line if unicodedata.category(c)[0] != "C")


def shortened(text: str, most: int = 60) -> str:
    """A readable line, cut with an ellipsis where it is longer than `most` characters.

    >>> shortened("a red apple above a blue kite", 12)
    'a red apple…'
    """
    line = readable(text)
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def say(text: object = "") -> None:
    """Prints one readable line."""
    typer.echo(readable(text))


def on_terminal() -> bool:
    """Whether a person reads along."""
    return sys.stdout.isatty()


def show(table: Table) -> None:
    """Prints a table: with Rich on a terminal, aligned text otherwise."""
    if on_terminal():
        _show_rich(_clean(table))
    else:
        typer.echo(aligned(table))


def aligned(table: Table) -> str:
    """The table as text: numbers to the right, everything else to the left."""
    table = _clean(table)
    lines = [table.header, *table.rows] if any(table.header) else [*table.rows]
    right = [_numeric(column) for column in zip(*table.rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = [
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)
        )
        for line in (lines if table.rows else [])
    ]
    title = [table.title] if table.title else []
    return "\n".join([*title, *("  " + line.rstrip() for line in body), *table.notes])


def _clean(table: Table) -> Table:
    return replace(
        table,
        title=readable(table.title),
        header=[readable(cell) for cell in table.header],
        rows=[[readable(cell) for cell in row] for row in table.rows],
        notes=[readable(note) for note in table.notes],
    )


def _numeric(cells: Iterable[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)


def _show_rich(table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    if table.title:
        console.print(Text(table.title, style="bold"))
    if table.rows:
        drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_header=any(table.header))
        for name, column in zip(table.header, zip(*table.rows, strict=True), strict=True):
            right = _numeric(column)
            drawn.add_column(
                Text(name), justify="right" if right else "left", no_wrap=right, overflow="fold"
            )
        for row in table.rows:
            drawn.add_row(*(Text(cell) for cell in row))
        console.print(drawn)
    for note in table.notes:
        console.print(Text(note, style="dim"))
