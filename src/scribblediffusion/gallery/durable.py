"""Writing so that a folder is there whole or not at all, whenever the process is killed.

Everything is written into a private folder under `.tmp`, synced to the disk, and then renamed
into its place: one step that happens or does not. Each private folder has a lock that the
kernel lets go when its writer dies, so that what a killed writer left can be told from what a
living one is still writing, and swept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scribblediffusion.errors import GalleryError

try:
    import fcntl
except ImportError:  # Windows has no flock: leftovers are then swept by age alone
    fcntl = None

TEMPORARY = ".tmp"
#: A private folder, or its lock; whatever else lies there is somebody's own and is left alone.
PRIVATE = re.compile(r"([0-9a-f]{16})(?:\.lock)?")
#: A file in a private folder that says where its writer writes outside the gallery.
ELSEWHERE = "elsewhere"
#: Without locks, a private folder older than this many seconds has no living writer.
ABANDONED = 24 * 3600


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power cut."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut; nothing to do on Windows."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync_file` for every file below a folder, `sync_folder` for every folder."""
    for here, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(here, name))
        sync_folder(Path(here))


@contextlib.contextmanager
def private_folder(root: Path) -> Iterator[Path]:
    """A folder of one's own on the gallery's disk, gone afterwards unless it was renamed."""
    home = root / TEMPORARY
    home.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    folder, lock = home / token, home / f"{token}.lock"
    with contextlib.ExitStack() as stack:
        with alone(home / "gate"):
            held = stack.enter_context(lock.open("x"))
            stack.callback(_remove, folder, lock)
            _lock(held)
            folder.mkdir()
        yield folder


@contextlib.contextmanager
def beside(root: Path, path: Path) -> Iterator[Path]:
    """A file beside `path`, outside the gallery, to write first and then to rename.

    What a killed writer leaves of it is swept with what it leaves in the gallery, which knows where
    it is; a gallery that cannot be written to is no hindrance.
    """
    with contextlib.ExitStack() as stack:
        try:
            home = stack.enter_context(private_folder(root))
        except OSError:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        partial = path.absolute().with_name(f".{path.name}.{home.name}.part")
        stack.callback(partial.unlink, missing_ok=True)
        (home / ELSEWHERE).write_bytes(os.fsencode(partial))
        yield partial


def sweep(root: Path) -> int:
    """Remove what killed writers left; returns how many private folders that were."""
    home = root / TEMPORARY
    if not home.is_dir():
        return 0
    swept = 0
    with alone(home / "gate"):
        found = (PRIVATE.fullmatch(path.name) for path in home.iterdir())
        for name in {match[1] for match in found if match}:
            folder, lock = home / name, home / f"{name}.lock"
            if _is_abandoned(folder, lock):
                _remove(folder, lock)
                swept += 1
    return swept


def publish(folder: Path, place: Path) -> None:
    """Sync a private folder and rename it to `place`: afterwards it is there, whole.

    Raises:
        FileExistsError: something is there already.
    """
    sync_tree(folder)
    parent = place.parent
    if not parent.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        sync_folder(parent.parent)
    try:
        os.rename(folder, place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(error.errno, "already there", str(place)) from error
        raise
    sync_folder(parent)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file by another content, whole or not at all."""
    with private_folder(_gallery_of(path)) as folder:
        fresh = folder / path.name
        fresh.write_bytes(content)
        sync_file(fresh)
        os.replace(fresh, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file: one process and thread at a time. A dying process lets it go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        _lock(handle, wait=True)
        yield


@contextlib.contextmanager
def told_clearly(doing: str) -> Iterator[None]:
    """Turn what the file system refuses into a `GalleryError` that says what to do.

    Args:
        doing: what was asked, as in "save the run".

    Raises:
        GalleryError: for any OSError inside.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            why = "the disk is full; nothing was changed; free some space and try again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = f"{error.filename or 'the gallery'} may not be written to; choose another place"
        else:
            why = f"{error.strerror or error}: {error.filename or 'no file named'}"
        raise GalleryError(f"cannot {doing}: {why}") from error


def _gallery_of(path: Path) -> Path:
    return next(parent for parent in path.parents if (parent / TEMPORARY).is_dir())


def _lock(handle: IO[str], *, wait: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_abandoned(folder: Path, lock: Path) -> bool:
    try:
        if fcntl is None:
            import time

            return time.time() - lock.stat().st_mtime > ABANDONED
        with lock.open() as handle:
            return _lock(handle)
    except FileNotFoundError:  # the lock is made first and removed last
        return folder.exists()


def _remove(folder: Path, lock: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        partial = Path(os.fsdecode((folder / ELSEWHERE).read_bytes()))
        if partial.name.endswith(f".{folder.name}.part"):  # its own, whatever the file says
            partial.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        lock.unlink(missing_ok=True)
