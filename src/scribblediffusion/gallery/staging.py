"""Folders in which views are drawn before their run is added.

They are no runs and in no list. A process that dies in between leaves its folder; another may add
what it drew, so that it stays for a day. Where the run was saved before the process died, nothing
more is to come of it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import content
from scribblediffusion.gallery.run import ID, created_of, folder_name, new_id

STAGING = ".staging"
#: A staged folder in which nothing changed for so many seconds is removed.
STAGED_FOR = 24 * 3600
#: A file in it that holds the id of the run that is made of it; hidden files are not copied.
BECOMES = ".becomes"


def make(root: Path, prompt: str, sketch_info: str) -> Path:
    """A new folder, with a record that holds the prompt and words about the sketch.

    Raises:
        GalleryError: either is no text.
    """
    for name, given in (("prompt", prompt), ("sketch_info", sketch_info)):
        if not isinstance(given, str):
            raise GalleryError(f"{name}: text was expected, found {type(given).__name__}")
    run_id = new_id()
    name = folder_name(run_id, prompt, created_of(run_id)).partition("/")[2]
    folder = root / STAGING / name
    folder.mkdir(parents=True)
    try:
        content.write_record(folder, {"prompt": prompt, "sketch_info": sketch_info})
    except BaseException:  # nobody knows of it yet
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


@contextlib.contextmanager
def in_use(root: Path, folder: Path | None, run_id: str) -> Iterator[None]:
    """While a run is made of a folder, no other process sweeps it; afterwards it is gone.

    Folders that lie anywhere else, and every folder when this fails, stay as they are.
    """
    staged = folder is not None and folder.resolve().parent == (root / STAGING).resolve()
    if folder is None or not staged:
        yield
        return
    (folder / BECOMES).write_text(run_id, encoding="ascii")
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            (folder / BECOMES).unlink()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove the folders that became runs, and those in which nothing changed for long."""
    home = root / STAGING
    for folder in home.iterdir() if home.is_dir() else ():
        with contextlib.suppress(OSError):  # added or swept by another process meanwhile
            if _became_a_run(root, folder) or time.time() - _changed(folder) > STAGED_FOR:
                shutil.rmtree(folder, ignore_errors=True)


def _became_a_run(root: Path, folder: Path) -> bool:
    """Whether the run that was made of a folder is there, so that its writer died afterwards."""
    try:
        run_id = (folder / BECOMES).read_text(encoding="ascii")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(ID.fullmatch(run_id)) and any(root.glob(f"*/*-{run_id}"))


def _changed(folder: Path) -> float:
    """When anything in a folder was last written, in Unix seconds."""
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
