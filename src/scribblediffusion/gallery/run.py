"""One run of the gallery: its names, its record `run.json`, and what is in its folder."""

from __future__ import annotations

import json
import os
import re
import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image
from ulid import ULID

from scribblediffusion.cleaning import Cleaning
from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import manifest
from scribblediffusion.sketch import Sketch

if TYPE_CHECKING:
    from scribblediffusion.attention.trace import AttentionTrace

Kind = TypeVar("Kind", dict[str, Any], list[Any])

RECORD = "run.json"
IMAGE = "image.png"
SKETCH = "sketch.png"
MASK = "mask.png"
TRACE = "trace.safetensors"

#: A day's folder, an id, and a run's folder in that of its day: time, slug, id.
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
FOLDER = re.compile(rf"[0-9]{{6}}-[a-z0-9-]{{1,40}}-({ID.pattern})")
#: More pictures than any batch has.
MOST_PICTURES = 10_000
#: The last second of the calendar that is one in every time zone; an id can tell a later time.
_LAST = datetime(9999, 12, 30, tzinfo=UTC).timestamp()


def new_id(seconds: float | None = None) -> str:
    """A ULID of this time (Unix seconds; default now); 80 fresh random bits tell equal times apart.

    The bits come from the system each time: two processes never share a sequence.
    """
    milliseconds = int(1000 * (time.time() if seconds is None else seconds))
    stamp = min(max(milliseconds, 0), 2**48 - 1).to_bytes(6, "big")
    return str(ULID(stamp + os.urandom(10)))


def created_of(run_id: str) -> datetime:
    """When a run was made, in local time, from its id; at the latest the end of year 9999."""
    seconds = min(ULID.from_str(run_id).milliseconds / 1000, _LAST)
    return datetime.fromtimestamp(seconds).astimezone()


def slug(prompt: str) -> str:
    """A prompt as part of a folder's name: a–z, 0–9 and single hyphens, 1 to 40 characters."""
    plain = unicodedata.normalize("NFKD", prompt[:1000]).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall(r"[a-z0-9]+", plain))[:40].strip("-") or "run"


def folder_name(run_id: str, prompt: str, created: datetime) -> str:
    """The folder of a run, relative to the gallery: day / time-slug-ULID."""
    return f"{created:%Y-%m-%d}/{created:%H%M%S}-{slug(prompt)}-{run_id}"


@dataclass(frozen=True)
class Run:
    """A run as it lies in the gallery.

    Attributes:
        id: the ULID: the permalink; it never changes.
        folder: where it is.
        created: when it was made, with the offset of its place.
        prompt: the prompt; empty where `run.json` is damaged.
        seed: the seed, where it is a number.
        damaged: True where `run.json` cannot be read; `Gallery.verify` says more.
    """

    id: str
    folder: Path
    created: datetime
    prompt: str = ""
    seed: int | None = None
    damaged: bool = False

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run in a folder whose name ends in a ULID.

        Raises:
            GalleryError: the name is none of a run.
            FileNotFoundError: there is no such folder.
        """
        named = FOLDER.fullmatch(folder.name)
        if not named:
            raise GalleryError(f"{folder} is no run: its name does not end in a run's id")
        try:
            record = read_record(folder)
            created = datetime.fromisoformat(record["created"])
            created = created if created.tzinfo else created.astimezone()
            seed = record.get("seed")
            number = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
            prompt = "" if record["prompt"] is None else str(record["prompt"])
            return cls(named[1], folder, created, prompt, number)
        except (GalleryError, LookupError, ValueError, TypeError, OverflowError):
            if not folder.is_dir():
                raise FileNotFoundError(2, "no such run", str(folder)) from None
            return cls(named[1], folder, created_of(named[1]), damaged=True)

    @property
    def name(self) -> str:
        """The folder relative to the gallery, with a slash."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def day(self) -> str:
        """The day's folder that it belongs in: the date where it was made."""
        return self.created.date().isoformat()

    @property
    def record(self) -> dict[str, Any]:
        """All of `run.json`: settings, steps with their noise, versions, audit.

        Raises:
            GalleryError: missing or damaged.
        """
        return read_record(self.folder)

    def part(self, name: str, kind: type[Kind]) -> Kind:
        """A part of the record; empty where it is not what we write: a run may be anybody's.

        Raises:
            GalleryError: the record is missing or damaged.
        """
        part = self.record.get(name)
        return part if isinstance(part, kind) else kind()

    @property
    def stopped_after(self) -> int | None:
        """After how many steps it was stopped; None for a run that went to its end.

        Raises:
            GalleryError: the record is missing or damaged.
        """
        steps = [s.get("index", 0) for s in self.part("steps", list) if isinstance(s, dict)]
        return max(steps) + 1 if steps and not self.record.get("complete", True) else None

    @property
    def misnamed(self) -> str | None:
        """The id that the record tells, where it is not that of the folder's name."""
        told = self.id if self.damaged else self.record.get("id", self.id)
        return None if told == self.id else str(told)[:60]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that the manifest lists.

        Raises:
            GalleryError: the manifest is missing or damaged.
        """
        return tuple(manifest.read(self.folder))

    @property
    def image(self) -> Path | None:
        """The picture, if there is one."""
        return self._path(IMAGE)

    @property
    def trace(self) -> Path | None:
        """The trace's file, if there is one; `open` checks it first."""
        return self._path(TRACE)

    def _path(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() and not self.folder.is_symlink() else None

    def checked(self, name: str) -> Path:
        """A file of the run, its size and sha256 compared with the manifest.

        Raises:
            GalleryError: the file, or the manifest, is missing or damaged.
        """
        try:
            entry = manifest.read(self.folder).get(name)
        except GalleryError as error:
            raise GalleryError(f"run {self.id}: {error}; see `scribble gallery verify`") from None
        if entry is None:
            raise GalleryError(f"run {self.id} has no {name}; it holds {', '.join(self.files)}")
        what = manifest.wrong(self.folder / name, entry)
        if what:
            raise GalleryError(
                f"run {self.id}: {name} is damaged: {what}; nothing was read from it. "
                "Import the run again, or repeat it"
            )
        return self.folder / name

    def verify(self) -> tuple[manifest.Damage, ...]:
        """Everything that is not as it was saved, the id in the folder's name included."""
        found = manifest.verify(self.folder, self.id)
        if found or (other := self.misnamed) is None:
            return found
        what = f"says that this is run {other}: the folder was renamed"
        return (manifest.Damage(self.id, RECORD, what),)

    def open(self) -> AttentionTrace:
        """The trace, after its file was compared with the manifest.

        Raises:
            GalleryError: the run has no trace, or it is damaged.
            TraceFileError: the file is whole, but no trace of a version that we read.
        """
        from scribblediffusion.attention.trace import AttentionTrace

        return AttentionTrace.load(self.checked(TRACE))

    def sketch(self, number: int = 1) -> Sketch | None:
        """The sketch exactly as the model read it, mask included; None for a run without one.

        Args:
            number: of which picture, from 1, where the pictures have sketches of their own.

        Raises:
            GalleryError: its file is damaged.
        """
        names = numbered(SKETCH, number), numbered(MASK, number)
        if self._path(names[0]) is None and names[0] not in self.files:
            return None
        mask = self.checked(names[1]) if names[1] in self.files else None
        with Image.open(self.checked(names[0])) as drawn:
            inside = None
            if mask is not None:
                with Image.open(mask) as image:
                    inside = np.asarray(image.convert("L")) > 127
            cleaning = _cleaning(self.record) if number == 1 else None
            return Sketch.from_ink(drawn, cleaning=cleaning, mask=inside)

    def sketches(self) -> tuple[Sketch | None, ...]:
        """The sketches of the pictures in their order, or the one that is that of all of them.

        Raises:
            GalleryError: a file is damaged.
        """
        told = self.record.get("sketches")
        count = told if isinstance(told, int) and 1 < told <= MOST_PICTURES else 1
        return tuple(self.sketch(number) for number in range(1, count + 1))


def numbered(name: str, number: int) -> str:
    """The file of one picture of a batch: image.png, then image-2.png."""
    path = Path(name)
    return name if number == 1 else f"{path.stem}-{number}{path.suffix}"


def read_record(folder: Path) -> dict[str, Any]:
    """`run.json` of a folder.

    Raises:
        GalleryError: missing, not what was written, or the folder is a link.
    """
    manifest.refuse_link(folder)
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except FileNotFoundError:
        raise GalleryError(f"{folder.name}: {RECORD} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise GalleryError(f"{folder.name}: {RECORD} is damaged: {error}") from None
    if not isinstance(record, dict):
        raise GalleryError(f"{folder.name}: {RECORD} is damaged: not a record")
    return record


def _cleaning(record: dict[str, Any]) -> Cleaning | None:
    """What had been done to the sketch, as far as the record tells."""
    told = record.get("sketch")
    cleaning = told.get("cleaning") if isinstance(told, dict) else None
    return Cleaning.from_record(cleaning) if cleaning else None
