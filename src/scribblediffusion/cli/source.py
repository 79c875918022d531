"""What a person names on the command line: a run of the gallery, its folder, or a trace's file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from scribblediffusion.errors import GalleryError, InputError

if TYPE_CHECKING:
    from scribblediffusion.attention.trace import AttentionTrace
    from scribblediffusion.gallery import Gallery, Run
    from scribblediffusion.sketch import Sketch

RUN_HELP = "A run's id, or enough of its beginning or end (4 characters or more); or its folder."


def _or_the_groups(context: typer.Context, value: Path | None) -> Path | None:
    """The option as given to the command, else to the group that it belongs to, else set."""
    source = context.get_parameter_source("gallery")
    if context.parent is None or (source is not None and source.name == "COMMANDLINE"):
        return value
    return context.parent.params.get("gallery") or value


#: `--gallery` of every command that reads or keeps runs.
GalleryRoot: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--gallery",
        metavar="FOLDER",
        help="The gallery.",
        envvar="SCRIBBLE_GALLERY",
        callback=_or_the_groups,
    ),
]


@dataclass(frozen=True, eq=False)
class Source:
    """A trace, and where it came from.

    Attributes:
        trace: the trace, with the run's picture where it has none of its own.
        drawing: the run's sketch, where the trace has none of its own.
        file: the trace's file.
        run: its run, where it is one of a gallery.
        gallery: that gallery.
    """

    trace: AttentionTrace
    file: Path
    drawing: Sketch | None = None
    run: Run | None = None
    gallery: Gallery | None = None


def open_source(named: str, root: Path | None) -> Source:
    """Opens what a person named.

    Args:
        named: a run's id or part of it, a run's folder, or a trace's file.
        root: the gallery in which ids are looked up.

    Raises:
        InputError: there is no such run or file.
        GalleryError: the run has no trace, or it is damaged.
        TraceFileError: the file is no sound trace.
    """
    from scribblediffusion.attention.trace import AttentionTrace
    from scribblediffusion.gallery.run import TRACE

    path = _existing(named)
    if path is None or _gallery_of(path) is not None:
        return _of_run(*find_run(named, root))
    file = path / TRACE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{named}: this folder holds no {TRACE}; name a run or a trace's file")
    return Source(AttentionTrace.load(file), file)


def find_run(named: str, root: Path | None) -> tuple[Gallery, Run]:
    """Finds a run of a gallery by its id, a part of it, or its folder.

    Raises:
        InputError: there is none, or several.
    """
    from scribblediffusion.gallery import Gallery
    from scribblediffusion.gallery.run import FOLDER, Run

    path = _existing(named)
    folder = None if path is None else _gallery_of(path)
    if folder is not None:
        return Gallery(folder.parent.parent), Run.read(folder)
    by_folder = FOLDER.fullmatch(Path(named).name)
    if by_folder is None and (path is not None or "/" in named or named.endswith(".safetensors")):
        what = "this is no run of a gallery" if path else "there is no such file or folder"
        raise InputError(f"{named}: {what}; `scribble gallery list` shows the runs")
    gallery = Gallery(root)
    try:
        return gallery, gallery.get(by_folder[1] if by_folder else named)
    except GalleryError as error:
        raise InputError(str(error)) from None


def model_name(model: str | None) -> str | None:
    """A model as a run keeps it: a folder by its whole path, a hub id as it is."""
    return str(Path(model).absolute()) if model and Path(model).is_dir() else model


def _existing(named: str) -> Path | None:
    """The file or folder of this name, or None."""
    if not named.strip():
        raise InputError("no run was named; `scribble gallery list` shows what there is")
    path = Path(named).expanduser()
    try:
        return path.absolute() if path.exists() else None
    except OSError:  # a name that no file can have
        return None


def _gallery_of(path: Path) -> Path | None:
    """The folder of a run that lies in a gallery, also where its trace was named."""
    from scribblediffusion.gallery.run import DAY, FOLDER, TRACE
    from scribblediffusion.gallery.store import BIN

    folder = path.parent if path.name == TRACE and path.is_file() else path
    named = FOLDER.fullmatch(folder.name) and DAY.fullmatch(folder.parent.name)
    return folder if named and folder.parent.parent.name != BIN else None


def _of_run(gallery: Gallery, run: Run) -> Source:
    """A run's trace, with the picture and the sketch that lie beside it where it has none."""
    trace = run.open()
    if not trace.pictures and run.image is not None:
        trace = replace(trace, pictures=(_pixels(run.checked(run.image.name)),))
    drawing = run.sketch() if trace.sketch is None else None
    from scribblediffusion.gallery.run import TRACE

    return Source(trace, run.folder / TRACE, drawing, run, gallery)


def _pixels(file: Path):
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
