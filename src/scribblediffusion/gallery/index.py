"""A cache over the folders: which runs there are, newest first, in SQLite.

The folders are the truth. The index is brought up to date before every reading, by the time
stamps of the days' folders, and rebuilt from nothing whenever it is missing, damaged or does
not fit: deleting it loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import durable
from scribblediffusion.gallery.run import DAY, FOLDER, Run

T = TypeVar("T")
_log = logging.getLogger(__name__)

NAME = ".index.sqlite"
VERSION = 2
#: A folder changed less than this many nanoseconds ago may change again within one stamp.
UNSETTLED = 2_000_000_000

_SCHEMA = """
create table if not exists runs (
    id text primary key, day text not null, folder text not null, words text not null, seed text
) without rowid;
create index if not exists runs_of_day on runs (day);
create index if not exists runs_of_seed on runs (seed);
create index if not exists runs_of_words on runs (words);
create table if not exists days (
    day text primary key, stamp integer not null, runs integer not null
) without rowid;
"""


@dataclass(frozen=True)
class Query:
    """What to list.

    Attributes:
        words: each must begin a word of the prompt; letter case and accents do not matter.
        first: smallest id, inclusive; ids begin with the time.
        last: largest id, exclusive.
        seed: the seed, or None for any.
    """

    words: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None
    seed: int | None = None

    def where(self) -> tuple[str, list[object]]:
        """As SQL condition and its values."""
        parts = ["instr(words, ?) > 0" for _ in self.words]
        values: list[object] = [f" {word}" for word in self.words]
        for condition, value in (
            ("id >= ?", self.first),
            ("id < ?", self.last),
            ("seed = ?", None if self.seed is None else str(self.seed)),
        ):
            if value is not None:
                parts.append(condition)
                values.append(value)
        return " and ".join(parts) or "1", values


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared: no case, no accents, no punctuation."""
    spread = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode())
    bare = "".join(c for c in spread if not unicodedata.combining(c))
    return tuple(re.findall(r"\w+", bare.casefold()))


class Index:
    """The cache of one gallery; every method opens it, uses it and closes it again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / NAME

    def page(self, query: Query, limit: int, offset: int) -> tuple[tuple[Run, ...], int]:
        """So many runs from an offset on, newest first, and how many there are in all."""
        where, values = query.where()

        def look(database: sqlite3.Connection) -> tuple[tuple[Run, ...], int]:
            count = f"select count(*) from runs where {where}"
            rows = f"select id, folder from runs where {where} order by id desc limit ? offset ?"
            (total,) = database.execute(count, values).fetchone()
            found = database.execute(rows, [*values, limit, offset]).fetchall()
            return tuple(self._read(*row) for row in found), total

        return self._with(look)

    def find(self, run_id: str) -> tuple[Run, ...]:
        """The runs whose id begins or ends with a text; at most two."""

        def look(database: sqlite3.Connection) -> tuple[Run, ...]:
            whole = "select id, folder from runs where id = ?"
            rows = database.execute(whole, (run_id,)).fetchall()
            rows = (
                rows
                or database.execute(
                    "select id, folder from runs where id between ? and ? or "
                    "substr(id, -length(?)) = ? limit 2",
                    (run_id, run_id + "Z" * 26, run_id, run_id),
                ).fetchall()
            )
            return tuple(self._read(*row) for row in rows)

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
        known = {day: stamp for day, stamp, _ in database.execute("select * from days")}
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
            self._forget_day(database, day)
        for day in changed:
            settled = now - found[day] > UNSETTLED
            self._read_day(database, day, found[day] if settled else -1)
        database.execute("commit")

    def _forget_day(self, database: sqlite3.Connection, day: str) -> None:
        database.execute("delete from runs where day = ?", (day,))
        database.execute("delete from days where day = ?", (day,))

    def _read_day(self, database: sqlite3.Connection, day: str, stamp: int) -> None:
        known = {f for (f,) in database.execute("select folder from runs where day = ?", (day,))}
        try:
            names = os.listdir(self._root / day)
        except FileNotFoundError:
            names = []
        present = {f"{day}/{name}" for name in names if FOLDER.fullmatch(name)}
        gone, new = known - present, present - known
        database.executemany("delete from runs where folder = ?", ((f,) for f in gone))
        rows = self._rows(day, sorted(new))
        database.executemany("insert or replace into runs values (?, ?, ?, ?, ?)", rows)
        (runs,) = database.execute("select count(*) from runs where day = ?", (day,)).fetchone()
        database.execute("insert or replace into days values (?, ?, ?)", (day, stamp, runs))

    def _rows(self, day: str, folders: Iterable[str]) -> Iterator[tuple[object, ...]]:
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                run = Run.read(self._root / folder)
                seed = None if run.seed is None else str(run.seed)
                words = "".join(f" {word}" for word in words_of(run.prompt))
                yield run.id, day, folder, words, seed


class _Stale(Exception):
    """A row of the index that no folder stands behind."""
