"""A run as one ZIP file, and back: nothing outside the run is ever written."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import manifest
from scribblediffusion.gallery.run import FOLDER, Run

#: The most that a run may unpack to, in bytes.
MAX_BYTES = 8 << 30


def pack(run: Run, path: Path) -> None:
    """Write a run as a ZIP file: its folder, with every file of the manifest.

    Raises:
        GalleryError: the run is damaged: a copy would spread it.
    """
    damages = run.verify()
    if damages:
        raise GalleryError(f"cannot export run {run.id}: it is damaged: {damages[0]}")
    # ZIP knows the years 1980 to 2107; a file of another date is a run's as well.
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False
    ) as archive:
        for name in (*manifest.read(run.folder), manifest.NAME):
            archive.write(run.folder / name, f"{run.folder.name}/{name}")


def unpack(path: Path, folder: Path) -> Path:
    """Write the run of a ZIP file into an empty folder; returns the run's own folder in it.

    Only files that the manifest lists are written, only if their names stay inside, and only if
    size and sha256 are right.

    Raises:
        GalleryError: not a ZIP file, no run of ours, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpack(archive, path.name, folder)
    except FileNotFoundError:
        raise GalleryError(f"cannot import {path}: there is no such file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise GalleryError(f"cannot import {path}: not a whole ZIP file ({error})") from None
    except (zipfile.LargeZipFile, ValueError, LookupError) as error:
        raise GalleryError(f"cannot import {path}: {error}") from None


def _unpack(archive: zipfile.ZipFile, label: str, folder: Path) -> Path:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    tops = {info.filename.partition("/")[0] for info in infos}
    if len(tops) != 1 or not FOLDER.fullmatch(top := tops.pop()):
        raise GalleryError(f"cannot import {label}: it holds no run; give what `export` wrote")
    members = {_name(info, top, label): info for info in infos}
    if len(members) != len(infos) or manifest.NAME not in members:
        raise GalleryError(f"cannot import {label}: {manifest.NAME} is missing or names repeat")
    if sum(info.file_size for info in infos) > MAX_BYTES:
        raise GalleryError(f"cannot import {label}: it would unpack to over {MAX_BYTES >> 30} GB")
    listing = _content(archive, members.pop(manifest.NAME), 1 << 24)
    try:
        entries = manifest.parse(listing)
    except GalleryError as error:
        raise GalleryError(f"cannot import {label}: {error}") from None
    if entries.keys() != members.keys():
        odd = sorted(entries.keys() ^ members.keys())[0]
        raise GalleryError(f"cannot import {label}: {odd} is missing, or not in the manifest")
    run = folder / top
    run.mkdir()
    for name, entry in entries.items():
        target = run / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _extract(archive, members[name], entry, target, label)
    (run / manifest.NAME).write_bytes(listing)
    return run


def _name(info: zipfile.ZipInfo, top: str, label: str) -> str:
    """A member's name inside the run; refuses links and names that lead out."""
    name = info.filename.removeprefix(f"{top}/")
    mode = info.external_attr >> 16
    safe = manifest.is_safe(name) and ".." not in PurePosixPath(info.filename).parts
    if not safe or stat.S_ISLNK(mode):
        raise GalleryError(f"cannot import {label}: {info.filename!r} would leave the run's folder")
    return name


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    with archive.open(info) as file:
        return file.read(most)


def _extract(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: manifest.Entry, target: Path, label: str
) -> None:
    found, left = hashlib.sha256(), entry.size
    with archive.open(info) as source, target.open("xb") as file:
        while chunk := source.read(min(manifest.CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            found.update(chunk)
            file.write(chunk)
    if left or found.hexdigest() != entry.sha256:
        os.unlink(target)
        raise GalleryError(f"cannot import {label}: {target.name} is damaged: its sha256 differs")
