"""The progress bar that commands share: on standard error, gone when done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress() -> Iterator[Progress]:
    """A Rich progress bar with a description, a bar and the time that is left.

    Where standard error is no terminal there is none, so that a log gets no stray lines;
    `quarterly` says a few.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    console = Console(stderr=True)
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown as bar:
        yield bar


def quarterly(bar: Progress, text: str, done: int, total: int) -> None:
    """Says how far it has come at each quarter but the last, where no bar is seen."""
    if bar.disable and done < total and 4 * done // total > 4 * (done - 1) // total:
        typer.echo(text, err=True)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars of the libraries themselves while a model loads: one line is enough."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [
        library
        for library in (diffusers_logging, transformers_logging)
        if library.is_progress_bar_enabled()
    ]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
