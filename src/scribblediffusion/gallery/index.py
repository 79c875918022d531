"""A cache over the folders: which runs there are, newest first, in SQLite.

The folders are the truth. The index is brought up to date before every reading, by the time
stamps of the days' folders, and rebuilt from nothing whenever it is missing, damaged or does
not fit: deleting it loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import durable
from scribblediffusion.gallery.run import DAY, FOLDER, Run
from scribblediffusion.gallery.search import Query, words_of

T = TypeVar("T")
_log = logging.getLogger(__name__)

NAME = ".index.sqlite"
VERSION = 3
#: On a disk whose time stamps are the coarsest: how long they may stay the same, in nanoseconds.
UNSETTLED = 2_000_000_000
#: The largest number that SQLite takes.
LARGEST = 2**63 - 1

# A row for each folder. Of a run that was copied and has several, one is listed: first one whose
# record can be read and that lies under its own day, not one that is stray.
_SCHEMA = """
create table if not exists runs (
    listed integer not null, id text not null, folder text not null, day text not null,
    stray integer not null, words text not null, seed text, primary key (listed, id, folder)
) without rowid;
create index if not exists runs_of_day on runs (day);
create index if not exists runs_of_seed on runs (seed);
create table if not exists days (
    day text primary key, stamp integer not null, runs integer not null
) without rowid;
"""
_CHOOSE = """
update runs set listed = folder = (
    select folder from runs as one where one.listed in (0, 1) and one.id = runs.id
    order by stray, folder limit 1
) where listed in (0, 1) and id = ?
"""


class Index:
    """The cache of one gallery; every method opens it, uses it and closes it again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / NAME

    def page(self, query: Query, limit: int, offset: int) -> tuple[tuple[Run, ...], int]:
        """So many runs from an offset on, newest first, and how many there are in all."""
        where, values = query.where()

        def look(database: sqlite3.Connection) -> tuple[tuple[Run, ...], int]:
            count = f"select count(*) from runs where listed = 1 and {where}"
            rows = (
                f"select id, folder from runs where listed = 1 and {where} "
                "order by id desc limit ? offset ?"
            )
            (total,) = database.execute(count, values).fetchone()
            part = min(limit, LARGEST), min(offset, LARGEST)
            found = database.execute(rows, [*values, *part]).fetchall()
            return tuple(self._read(*row) for row in found), total

        return self._with(look)

    def find(self, run_id: str) -> tuple[Run, ...]:
        """The runs whose id begins or ends with a text; at most two."""
        if not (run_id.isascii() and run_id.isalnum()):
            return ()

        def look(database: sqlite3.Connection) -> tuple[Run, ...]:
            listed = "select id, folder from runs where listed = 1"
            rows = (
                database.execute(f"{listed} and id = ?", (run_id,)).fetchall()
                or database.execute(
                    f"{listed} and (id between ? and ? or substr(id, -length(?)) = ?) limit 2",
                    (run_id, run_id + "Z" * 26, run_id, run_id),
                ).fetchall()
            )
            return tuple(self._read(*row) for row in rows)

        return self._with(look)

    def copied(self) -> dict[str, tuple[Run, ...]]:
        """Every run that lies in several folders, by its id; the one that is listed first."""
        several = "select id from runs where listed = 0"
        rows = f"select id, folder from runs where id in ({several}) order by id, stray, folder"

        def look(database: sqlite3.Connection) -> dict[str, tuple[Run, ...]]:
            found = dict[str, tuple[Run, ...]]()
            for run_id, folder in database.execute(rows):
                found[run_id] = (*found.get(run_id, ()), self._read(run_id, folder))
            return found

        return self._with(look)

    def forget(self) -> None:
        """Delete the cache; the next reading builds it again."""
        for name in (NAME, f"{NAME}-wal", f"{NAME}-shm", f"{NAME}-journal"):
            (self._root / name).unlink(missing_ok=True)

    def _read(self, run_id: str, folder: str) -> Run:
        """The run that a row stands for, read from its folder."""
        path = self._root / folder
        named = FOLDER.fullmatch(path.name)
        if named is None or named[1] != run_id:
            raise _Stale(folder)
        try:
            return Run.read(path)
        except OSError:
            raise _Stale(folder) from None

    def _with(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What `look` finds in the database, up to date.

        A damaged file is made anew; where none can be written, memory serves for this once.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(durable.alone(self._root / durable.TEMPORARY / "index"))
            for place in (str(self._path), str(self._path), ":memory:"):
                try:
                    with contextlib.closing(self._current(place)) as database:
                        return look(database)
                except (sqlite3.DatabaseError, _Stale, OSError) as error:
                    _log.info("the index is made anew: %s", error)
                    with contextlib.suppress(OSError):
                        self.forget()
        raise GalleryError(f"{self._root} changes faster than it can be listed; try again")

    def _current(self, place: str) -> sqlite3.Connection:
        database = sqlite3.connect(place, timeout=60, isolation_level=None)
        try:
            database.execute("pragma synchronous = off")  # a cache may be lost
            (version,) = database.execute("pragma user_version").fetchone()
            if version not in (0, VERSION):
                raise _Stale("of another version")
            if version == 0:
                database.executescript(_SCHEMA)
                database.execute(f"pragma user_version = {VERSION}")
            begin = time.monotonic()
            self._update(database, settling=place != ":memory:")
            if time.monotonic() - begin > UNSETTLED / 1e9:  # what was not settled then may be now
                self._update(database, settling=place != ":memory:")
            (counted,) = database.execute("select count(*) from runs").fetchone()
            (known,) = database.execute("select coalesce(sum(runs), 0) from days").fetchone()
            if counted != known:
                raise _Stale("runs are missing")
        except BaseException:
            database.close()
            raise
        return database

    def _update(self, database: sqlite3.Connection, *, settling: bool) -> None:
        """Read again the days whose folders have changed since they were last read."""
        # A damaged file may hold values of any kind: as text they fit no folder.
        known = {str(day): stamp for day, stamp, _ in database.execute("select * from days")}
        found = {
            entry.name: entry.stat().st_mtime_ns
            for entry in os.scandir(self._root)
            if DAY.fullmatch(entry.name) and entry.is_dir()
        }
        changed = [day for day, stamp in found.items() if known.get(day) != stamp]
        gone = [day for day in known if day not in found]
        if not changed and not gone:
            return
        database.execute("begin immediate")
        now = 0
        if settling:  # measured by the disk's own clock, which nothing else sets
            os.utime(self._path)
            now = self._path.stat().st_mtime_ns
        for day in gone:
            self._read_day(database, day, 0)
            database.execute("delete from days where day = ?", (day,))
        for day in changed:
            settled = now - found[day] > _unsettled(found[day])
            self._read_day(database, day, found[day] if settled else -1)
        database.execute("commit")

    def _read_day(self, database: sqlite3.Connection, day: str, stamp: int) -> None:
        rows = database.execute("select folder from runs where day = ?", (day,))
        known = {str(folder)[len(day) + 1 :] for (folder,) in rows}
        try:
            names = set(os.listdir(self._root / day))
        except (FileNotFoundError, NotADirectoryError):
            names = set[str]()
        gone = [(name[-26:], f"{day}/{name}") for name in known - names]
        new = sorted(f"{day}/{name}" for name in names - known if FOLDER.fullmatch(name))
        lost = "delete from runs where listed in (0, 1) and id = ? and folder = ?"
        database.executemany(lost, gone)
        rows = self._rows(day, new)
        database.executemany("insert into runs values (0, ?, ?, ?, ?, ?, ?)", rows)
        touched = {folder[-26:] for folder in (*(folder for _, folder in gone), *new)}
        database.executemany(_CHOOSE, ((run_id,) for run_id in touched))
        (runs,) = database.execute("select count(*) from runs where day = ?", (day,)).fetchone()
        database.execute("insert or replace into days values (?, ?, ?)", (day, stamp, runs))

    def _rows(self, day: str, folders: Iterable[str]) -> Iterator[tuple[object, ...]]:
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                run = Run.read(self._root / folder)
                stray = run.damaged or run.day != day
                words = "".join(f" {word}" for word in words_of(run.prompt))
                seed = None if run.seed is None else str(run.seed)
                yield run.id, folder, day, int(stray), words, seed


def _unsettled(stamp: int) -> int:
    """For so many nanoseconds after a change, another change may get the same time stamp.

    Disks that count whole seconds give stamps every two seconds at worst, all others with every
    tick of the system's clock.
    """
    return UNSETTLED if stamp % 1_000_000_000 == 0 else UNSETTLED // 20


class _Stale(Exception):
    """A row of the index that no folder stands behind."""
