"""Size and sha256 of every file of a run, so that damage is named and never read as data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from scribblediffusion.errors import GalleryError

NAME = "manifest.json"
#: Bytes read at once.
CHUNK = 1 << 20

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]*[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(?:CON|PRN|AUX|NUL|COM\d|LPT\d)(?:\..*)?", re.IGNORECASE)

_LINK = "is a link; a gallery holds files only: copy it there"

#: An entry as `dump` writes it, wherever it stands in what is left of a manifest.
_ENTRY = re.compile(r'"([^"]+)": \{\s*"size": (\d{1,18}),\s*"sha256": "([0-9a-f]{64})"\s*\}')


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a run.

    Attributes:
        run: the run's id, or the folder's name where the id is not known.
        file: the file, relative to the run's folder.
        what: what is wrong with it.
    """

    run: str
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.run}: {self.file}: {self.what}"


@dataclass(frozen=True)
class Entry:
    """What a file has to be: its size in bytes and its sha256 in hexadecimal."""

    size: int
    sha256: str


def is_safe(name: str) -> bool:
    """Whether a relative name stays inside its folder, on every system."""
    path = PurePosixPath(name)
    return (
        0 < len(name) <= 200
        and bool(path.parts)
        and str(path) == name
        and all(_PART.fullmatch(p) and not _RESERVED.fullmatch(p) for p in path.parts)
    )


def digest(path: Path) -> Entry:
    """Size and sha256 of a file."""
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            size += len(chunk)
    return Entry(size, found.hexdigest())


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every file of a run in order of name, hidden ones and the manifest not.

    Raises:
        GalleryError: a link, or a name that could leave the folder on some system.
    """
    for relative, path in _all(folder):
        odd = _odd(relative, path)
        if odd:
            raise GalleryError(f"{str(path)!r} {odd}")
        yield relative, path


def _all(folder: Path) -> Iterator[tuple[str, Path]]:
    """As `files`, with whatever else lies there, too."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*names, *folders]):
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (name.startswith(".") or relative == NAME or path.is_dir()):
                yield relative, path


def _odd(relative: str, path: Path) -> str | None:
    """Why something cannot be a file of a run, or None."""
    if path.is_symlink():
        return _LINK
    if not is_safe(relative):
        return (
            "cannot be the name of a file in a run; "
            "use letters, digits, dots, hyphens and underscores"
        )
    return None


def dump(entries: Mapping[str, Entry]) -> bytes:
    """The manifest as it is written; it carries its own sha256."""
    listed = _listed(entries)
    whole = {"format": 1, "files": listed, "sha256": _own(entries)}
    return (json.dumps(whole, indent=1) + "\n").encode()


def _listed(entries: Mapping[str, Entry]) -> dict[str, Any]:
    return {k: {"size": e.size, "sha256": e.sha256} for k, e in sorted(entries.items())}


def _own(entries: Mapping[str, Entry]) -> str:
    """The sha256 that a manifest with these entries carries."""
    return hashlib.sha256(json.dumps(_listed(entries), sort_keys=True).encode()).hexdigest()


def parse(content: bytes) -> dict[str, Entry]:
    """The entries of a manifest.

    Raises:
        GalleryError: it is not what `dump` wrote: damaged, or of another version.
    """
    try:
        listed = json.loads(content)["files"]
        entries = {str(k): Entry(int(e["size"]), str(e["sha256"])) for k, e in listed.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise GalleryError(f"{NAME} is damaged: not a manifest") from None
    if dump(entries) != content:
        raise GalleryError(f"{NAME} is damaged: its own sha256 differs")
    unsafe = [name for name in entries if not is_safe(name)]
    if unsafe:
        raise GalleryError(f"{NAME} names a file outside the run: {unsafe[0]!r}")
    return entries


def write(folder: Path) -> dict[str, Entry]:
    """Measure every file of a folder and write the manifest beside them."""
    entries = {name: digest(path) for name, path in files(folder)}
    (folder / NAME).write_bytes(dump(entries))
    return entries


def read(folder: Path) -> dict[str, Entry]:
    """The entries of the manifest in a folder.

    Raises:
        GalleryError: missing or damaged, or the folder is a link.
    """
    refuse_link(folder)
    try:
        content = (folder / NAME).read_bytes()
    except FileNotFoundError:
        raise GalleryError(f"{NAME} is missing") from None
    return parse(content)


def refuse_link(folder: Path) -> None:
    """Nothing, where a run's folder lies in the gallery itself.

    Raises:
        GalleryError: it is a link to a folder that may be anybody's.
    """
    if folder.is_symlink():
        raise GalleryError(f"{folder.name} {_LINK}")


def wrong(path: Path, entry: Entry) -> str | None:
    """What is wrong with a file, or None."""
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"has {size} bytes instead of {entry.size}"
        return None if digest(path) == entry else "its sha256 differs: the content was altered"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def same(folder: Path, other: Path) -> bool:
    """Whether two runs were saved with the same files; not where a manifest is damaged."""
    try:
        return read(folder) == read(other)
    except (GalleryError, OSError):
        return False


def verify(folder: Path, run: str) -> tuple[Damage, ...]:
    """Everything in a run's folder that is not as it was saved; empty if all is well."""
    if folder.is_symlink():
        return (Damage(run, folder.name, _LINK),)
    found: list[tuple[str, str | None]] = []
    present = dict(_all(folder))
    try:
        entries = read(folder)
        # Views are drawn on demand: one that is not listed (yet) is no damage.
        strange = (n for n in present if n not in entries and not n.startswith("views/"))
        found = [(name, wrong(folder / name, entry)) for name, entry in entries.items()]
        found += [(name, "is not in the manifest") for name in strange]
    except (GalleryError, OSError) as error:
        read_error = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else error
        found = [(NAME, str(read_error).removeprefix(f"{NAME} ")), *_doubtful(folder, present)]
    told = dict(found) | {name: odd for name, path in present.items() if (odd := _odd(name, path))}
    return tuple(Damage(run, name, what) for name, what in told.items() if what)


def _doubtful(folder: Path, present: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """The files that do not fit what can still be read of a damaged manifest.

    Its own sha256 tells whether it is the files that are as they were saved.
    """
    try:
        content = (folder / NAME).read_bytes()
    except OSError:
        return
    listed = {
        name: Entry(int(size), sha256)
        for name, size, sha256 in _ENTRY.findall(content.decode("utf-8", "replace"))
        if is_safe(name)
    }
    if not listed:
        return
    doubts = {
        name: f"{what}, unless {NAME} was altered there"
        for name, entry in listed.items()
        if (what := wrong(folder / name, entry))
    }
    unlisted = (n for n in present if n not in listed and n != NAME and not n.startswith("views/"))
    doubts |= dict.fromkeys(unlisted, f"cannot be checked: {NAME} does not list it any more")
    if not doubts:
        return
    with contextlib.suppress(OSError):
        found = {name: digest(path) for name, path in present.items() if path.is_file()}
        if _own(found).encode() in content:
            return
    yield from doubts.items()
