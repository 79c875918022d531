"""The gallery: a folder of runs that loses nothing.

    gallery/2026-11-23/153012-a-red-apple-01J…/
        image.png  sketch.png  trace.safetensors  run.json  manifest.json  views/

The folders are the truth and can be copied, backed up and looked into with any tool. A save is
whole or absent (`durable`), damage is named (`manifest`), the index is a cache (`index`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import archive, content, durable, manifest, staging
from scribblediffusion.gallery.index import Index
from scribblediffusion.gallery.manifest import Damage
from scribblediffusion.gallery.run import (
    FOLDER,
    RECORD,
    Run,
    created_of,
    folder_name,
    new_id,
)
from scribblediffusion.gallery.search import Page, Query

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from scribblediffusion.attention.trace import AttentionTrace
    from scribblediffusion.sketch import Sketch

#: Where the gallery is, if this environment variable is set.
ENVIRONMENT = "SCRIBBLE_GALLERY"
BIN = ".bin"

_log = logging.getLogger(__name__)


def default_root() -> Path:
    """`$SCRIBBLE_GALLERY`, or else the place that the system keeps a user's data in."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_data_dir("scribblediffusion", appauthor=False)) / "gallery"


class Gallery:
    """A store of runs. Any number of processes and threads may use one folder at once.

    Args:
        root: the folder; made when the first run is added. By default `default_root()`.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root).expanduser().absolute() if root is not None else default_root()
        self._index = Index(self.root)
        with durable.told_clearly(f"look into {self.root}"):
            is_there = self.root.exists()
        if is_there and not self.root.is_dir():
            raise GalleryError(f"{self.root} is a file, not a gallery; name a folder")
        with contextlib.suppress(OSError):  # a gallery that may only be read is fine
            self._sweep()

    def __repr__(self) -> str:
        return f"Gallery({str(self.root)!r})"

    def __len__(self) -> int:
        return self.list(size=1).total

    # --- put in ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """See that runs can be kept, before anything is drawn; makes the folder if there is none.

        Raises:
            GalleryError: it cannot be made, or may not be written to.
        """
        with durable.told_clearly(f"keep runs in {self.root}"), durable.private_folder(self.root):
            pass

    def stage(self, prompt: str, sketch_info: str = "") -> Path:
        """A folder to put views and other files in before `add` publishes it.

        Args:
            prompt: the prompt; it names the folder, and is kept in its `run.json`.
            sketch_info: words about the sketch, kept too.

        Returns:
            The folder. It is no run yet: it is removed if it is not added, nor anything in it
            changed, for a day.

        Raises:
            GalleryError: it cannot be made.
        """
        with durable.told_clearly("stage a run"):
            return staging.make(self.root, prompt, sketch_info)

    def add(
        self,
        source: AttentionTrace | str | os.PathLike[str],
        *,
        picture: Image.Image | np.ndarray | None = None,
        sketch: Sketch | Image.Image | np.ndarray | None = None,
        settings: Mapping[str, Any] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> Run:
        """Save a run: afterwards it is in the gallery whole, or this raised and it is not.

        Args:
            source: a trace, or a folder (as `stage` makes) with any of `run.json`,
                `trace.safetensors`, `image.png`, `sketch.png` and views.
            picture: the picture; by default the trace's own.
            sketch: the sketch; by default the trace's own. A `Sketch` keeps mask and cleaning.
            settings: what the run was made with, beyond what the trace says.
            folder: with a trace: a folder whose files are kept with it.

        Returns:
            The run. A staged folder of this gallery is gone afterwards.

        Raises:
            GalleryError: the disk is full, a place may not be written to, or what was given is no
                trace, folder, picture or sketch.
            TraceFileError: the trace in the folder is damaged.
        """
        if isinstance(source, str | os.PathLike):
            trace, folder = None, source if folder is None else folder
        else:
            trace = source
        staged = None if folder is None else Path(folder)
        content.check(trace, picture, sketch, staged)
        if staged is not None and self.root.resolve().is_relative_to(staged.resolve()):
            raise GalleryError(f"cannot add {staged}: the gallery itself lies in it")
        run_id = new_id()
        with durable.told_clearly("save the run"), staging.in_use(self.root, staged, run_id):
            self._sweep()
            with durable.private_folder(self.root) as place:
                if staged is not None:
                    content.copy(staged, place)
                record = content.fill(place, trace, picture, sketch, settings or {})
                run = self._publish(place, run_id, record)
        return run

    def attach(self, run_id: str, path: str | os.PathLike[str], name: str | None = None) -> Path:
        """Keep a file (a view) with a run, under `views/`; the manifest then lists it.

        Args:
            run_id: the run, as for `get`.
            path: the file to copy.
            name: its name under `views/`; by default its own.

        Raises:
            GalleryError: no such run, a name that cannot be, or the disk is full.
        """
        run, path = self.get(run_id), Path(path)
        relative = f"views/{name or path.name}"
        if not manifest.is_safe(relative) or relative.count("/") != 1:
            raise GalleryError(f"{name or path.name!r} cannot name a view; use letters and digits")
        with durable.told_clearly(f"keep {path.name} with run {run.id}"):
            view = path.read_bytes()
            with durable.alone(self.root / durable.TEMPORARY / "views"):
                entries = manifest.read(run.folder)
                if entries.pop(relative, None):  # a killed replacement leaves an unlisted view
                    durable.replace_file(run.folder / manifest.NAME, manifest.dump(entries))
                (run.folder / "views").mkdir(exist_ok=True)
                durable.replace_file(run.folder / relative, view)
                entries[relative] = manifest.digest(run.folder / relative)
                durable.replace_file(run.folder / manifest.NAME, manifest.dump(entries))
        return run.folder / relative

    def _publish(self, place: Path, run_id: str, record: Mapping[str, Any]) -> Run:
        """Give a filled private folder its record, manifest and name."""
        created = created_of(run_id)
        head = {"format": 1, "id": run_id, "created": created.isoformat(timespec="milliseconds")}
        content.write_record(place, {**record, **head})
        manifest.write(place)
        target = self.root / folder_name(run_id, str(record.get("prompt", "")), created)
        durable.publish(place, target)
        return Run.read(target)

    # --- find -----------------------------------------------------------------------------------

    def get(self, run_id: str) -> Run:
        """One run.

        Args:
            run_id: its id (the permalink), or enough of the id's beginning or end to be the only
                one (at least four characters), in any letter case.

        Raises:
            GalleryError: there is none, or several.
        """
        wanted = str(run_id).strip().upper()
        known = self._index.find(wanted) if self.root.is_dir() and len(wanted) >= 4 else ()
        exact = [run for run in known if run.id == wanted] or [*known]
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise GalleryError(f"{run_id!r} fits several runs; give more of the id")
        if self._in_bin(wanted):
            raise GalleryError(f"run {run_id} is in the bin; take it out with `restore`")
        raise GalleryError(
            f"there is no run {str(run_id)[:60]!r} in {self.root}; "
            "`scribble gallery list` shows what there is"
        )

    def list(
        self,
        *,
        page: int = 1,
        size: int = 24,
        words: str = "",
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        seed: int | None = None,
    ) -> Page:
        """The runs, newest first.

        Args:
            page: which page, from 1.
            size: runs on a page.
            words: only runs whose prompt has all of these words (or words that begin so), signs
                and emoji included.
            since: only runs from this day or moment on, in local time unless it has a zone.
            until: only runs up to the end of this day, or before this moment.
            seed: only runs with this seed.

        Raises:
            GalleryError: a page or a size below 1, words that are no text, or a day that is none.
        """
        if page < 1 or size < 1:
            raise GalleryError(f"page {page} of {size} runs: both count from 1")
        if not self.root.is_dir():
            return Page((), page, size, 0)
        query = Query.of(words, since, until, seed)
        with durable.told_clearly("list the gallery"):
            runs, total = self._index.page(query, size, (page - 1) * size)
        return Page(runs, page, size, total)

    def __iter__(self) -> Iterator[Run]:
        """Every run, newest first."""
        number, more = 1, True
        while more:
            page = self.list(page=number, size=500)
            yield from page
            number, more = number + 1, number < page.pages

    def open(self, run_id: str) -> AttentionTrace:
        """The trace of a run, compared with the manifest first.

        Raises:
            GalleryError: no such run, no trace in it, or damaged.
        """
        return self.get(run_id).open()

    # --- look after -----------------------------------------------------------------------------

    def verify(self, run_id: str | None = None) -> tuple[Damage, ...]:
        """Everything that is not as it was saved, in one run or in all; empty if all is well.

        A run that lies in several folders is listed once; the other folders are named here.
        """
        runs = iter(self) if run_id is None else iter([self.get(run_id)])
        copied = self._index.copied() if self.root.is_dir() else {}
        return tuple(
            damage
            for run in runs
            for damage in (
                *run.verify(),
                *(d for copy in copied.get(run.id, ())[1:] for d in _copied(run, copy)),
            )
        )

    def rebuild(self) -> int:
        """Make the index anew from the folders; returns how many runs there are."""
        self._index.forget()
        return len(self)

    def delete(self, run_id: str) -> Path:
        """Move a run to the bin; `restore` takes it out again. Returns where it is now.

        Of a run that lies in several folders, the one that is listed; another is listed then.
        """
        run = self.get(run_id)
        place = self.root / BIN / run.name
        if place.exists():  # deleted before, and imported again since
            place = place.parent.with_name(f"{place.parent.name}.{new_id()}") / place.name
        with durable.told_clearly(f"delete run {run.id}"):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(run.folder, place)
            durable.sync_folder(run.folder.parent)
        return place

    def restore(self, run_id: str) -> Run:
        """Take a run out of the bin; of several deletions of one run, the last.

        Raises:
            GalleryError: it is not in the bin, or it is back in the gallery already.
        """
        place = self._in_bin(str(run_id).strip().upper())
        if place is None:
            raise GalleryError(f"there is no run {str(run_id)[:60]!r} in the bin of {self.root}")
        if self._index.find(place.name[-26:]):
            raise GalleryError(f"run {place.name[-26:]} is in the gallery already; delete it first")
        target = self.root / place.parent.name.partition(".")[0] / place.name
        with durable.told_clearly(f"restore run {run_id}"):
            target.parent.mkdir(exist_ok=True)
            os.rename(place, target)
            durable.sync_folder(target.parent)
        return Run.read(target)

    def bin(self) -> tuple[Run, ...]:
        """The runs in the bin, newest first."""
        found = (self.root / BIN).glob("*/*")
        runs = [Run.read(path) for path in found if FOLDER.fullmatch(path.name)]
        return tuple(sorted(runs, key=lambda run: run.id, reverse=True))

    def empty_bin(self) -> int:
        """Remove the runs in the bin for good; returns how many."""
        runs = self.bin()
        with durable.told_clearly("empty the bin"):
            for run in runs:
                with durable.private_folder(self.root) as place:
                    os.rename(run.folder, place / run.folder.name)
        return len(runs)

    # --- carry ----------------------------------------------------------------------------------

    def export(self, run_id: str, path: str | os.PathLike[str]) -> Path:
        """Write a run as a ZIP file.

        Args:
            run_id: the run, as for `get`.
            path: the file to write, or a folder to write it in.

        Returns:
            The file, which is there whole or not at all.

        Raises:
            GalleryError: no such run, it is damaged, or it cannot be written.
        """
        run, path = self.get(run_id), Path(path)
        path = path / f"{run.folder.name}.zip" if path.is_dir() else path
        saying = durable.told_clearly(f"export run {run.id}")
        with saying, durable.beside(self.root, path) as partial:
            archive.pack(run, partial)
            durable.sync_file(partial)
            os.replace(partial, path)
            durable.sync_folder(partial.parent)
        return path

    def import_zip(self, path: str | os.PathLike[str]) -> Run:
        """Add the run of a ZIP file that `export` wrote, under the id that it had.

        Returns:
            The run; the one that is here already, where it is the same.

        Raises:
            GalleryError: not a run, damaged, a file that leads out of the run's folder, or
                another run has the id.
        """
        path = Path(path)
        with durable.told_clearly(f"import {path.name}"), contextlib.ExitStack() as stack:
            place = stack.enter_context(durable.private_folder(self.root))
            run = Run.read(archive.unpack(path, place))
            if run.damaged:
                raise GalleryError(f"cannot import {path}: its {RECORD} is none of a run")
            if (other := run.misnamed) is not None:
                raise GalleryError(f"cannot import {path}: its folder is {run.id}, its run {other}")
            here = self._index.find(run.id)
            if here:
                if not manifest.same(here[0].folder, run.folder):
                    raise GalleryError(f"cannot import {path}: run {run.id} is here, but other")
                return here[0]
            target = self.root / run.day / run.folder.name
            durable.publish(run.folder, target)
        return Run.read(target)

    # --- inside ---------------------------------------------------------------------------------

    def _in_bin(self, wanted: str) -> Path | None:
        if len(wanted) < 4:
            return None
        found = (path for path in (self.root / BIN).glob("*/*") if FOLDER.fullmatch(path.name))
        fits = [p for p in found if p.name[-26:].startswith(wanted) or p.name.endswith(wanted)]
        return max(fits, key=lambda p: p.parent.name, default=None)

    def _sweep(self) -> None:
        swept = durable.sweep(self.root)
        if swept:
            _log.info("removed what %d interrupted saves had left", swept)
        staging.sweep(self.root)


def _copied(run: Run, copy: Run) -> Iterator[Damage]:
    """What is wrong with having a run in a second folder, and with what lies in that."""
    same = manifest.same(run.folder, copy.folder)
    how = "with the same files" if same else "with other files"
    yield Damage(run.id, copy.name, f"is this run once more, {how}: move one of the two away")
    for damage in manifest.verify(copy.folder, run.id):
        yield Damage(run.id, f"{copy.name}/{damage.file}", damage.what)
