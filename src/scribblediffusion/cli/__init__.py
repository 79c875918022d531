"""`scribble`: the command line. Heavy libraries load only inside the commands that need them.

Exit status: 0 done, 1 something failed, 2 what was given cannot be used, 130 interrupted. Every
error is one line on standard error.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import sys
import warnings
from typing import Any, TextIO

import typer

from scribblediffusion.cli import app as studio
from scribblediffusion.cli import capture, compare, draw, evaluate, explain, gallery, train
from scribblediffusion.errors import (
    InputError,
    ScribbleError,
    TraceFileError,
    UnknownFamilyError,
    UnknownWordError,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="scribble",
    help="Draw a sketch, type a prompt, get a picture, and see where each word and stroke acted.",
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(draw.draw)
app.command()(explain.explain)
app.command()(compare.compare)
app.command()(capture.capture)
app.add_typer(gallery.app, name="gallery")
app.command()(studio.app)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(train.app, name="train")

_UsageError: Any = typer.BadParameter.__base__
#: What a person named is there, but cannot be used.
_GIVEN = (InputError, TraceFileError, UnknownFamilyError, UnknownWordError)


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        raise InputError(
            'say what to do, for instance: scribble draw sketch.png "a red apple" '
            "(scribble --help lists every command)"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    # torch's threads spin while they wait, and where another program wants the cores that costs
    # nearly all the time: a picture took 28 s instead of 3. Spinning shortly before they sleep, it
    # takes 8 s there, and 3.5 s elsewhere. Read once, when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    _keep_freed_memory()
    logging.basicConfig(level=logging.WARNING, format="scribble: %(message)s")
    warnings.showwarning = _one_line
    for stream in (sys.stdout, sys.stderr):  # a terminal without "×" shows "?", and goes on
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = app(args=arguments, standalone_mode=False)
    except _GIVEN as error:
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


def _keep_freed_memory() -> None:
    """Memory that one operation frees is there for the next one, instead of going back meanwhile.

    glibc gives blocks of some megabytes back to the system as they are freed. Asked for again, each
    of their pages is a fault: 190,000 for a picture, a seventh of its time. Elsewhere than in glibc
    nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, the most that it takes
        mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as a person reads it; those of other libraries are not for users."""
    if issubclass(category, UserWarning) and "scribblediffusion" in str(filename):
        typer.echo(f"scribble: {' '.join(str(message).split())}", err=True)


def _fail(message: object, code: int) -> None:
    typer.echo(f"scribble: {' '.join(str(message).split())}", err=True)
    sys.exit(code)
