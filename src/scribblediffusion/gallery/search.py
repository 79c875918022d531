"""What is looked for in a gallery, by words of the prompt, days and seeds, and what is found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

from ulid import ULID

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery.run import Run

#: A search takes no more words than this.
MOST_WORDS = 100
#: Around words that a person types, these say nothing.
_AROUND = ".,;:!?\"'()"
#: Not in any `words_of`: what is looked for where only invisible signs were given.
_NOWHERE = "\u200b"
#: Scripts that leave no space between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)
#: Marks of these combining classes make another letter; all other marks are accents.
_LETTER_MARKS = (0, 7, 8, 9)


@dataclass(frozen=True)
class Query:
    """What to list.

    Attributes:
        words: each as `words_of` spells it; it must occur in the prompt from a word's beginning.
        first: smallest id, inclusive; ids begin with the time.
        last: largest id, exclusive.
        seed: the seed, or None for any.
    """

    words: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None
    seed: int | None = None

    @classmethod
    def of(
        cls,
        words: str,
        since: date | datetime | None,
        until: date | datetime | None,
        seed: int | None,
    ) -> Query:
        """What a person asked for, as `Gallery.list` takes it.

        Raises:
            GalleryError: too many words, or a value of another type.
        """
        if not isinstance(words, str):
            raise GalleryError(f"words: text was expected, found {type(words).__name__}")
        for name, day in (("since", since), ("until", until)):
            if not isinstance(day, date | None):
                raise GalleryError(f"{name}: a date was expected, found {day!r}"[:200])
        wanted = tuple(dict.fromkeys(words.split()))
        if len(wanted) > MOST_WORDS:
            raise GalleryError(f"{len(wanted)} words to look for; give at most {MOST_WORDS}")
        spelt = (" ".join(words_of(word.strip(_AROUND) or word)) for word in wanted)
        return cls(
            tuple(word or _NOWHERE for word in spelt), _bound(since, 0), _bound(until, 1), seed
        )

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


@dataclass(frozen=True)
class Page:
    """Some of the runs that were asked for, newest first.

    Attributes:
        runs: the runs of this page.
        number: which page, from 1.
        size: how many runs a page holds.
        total: how many runs there are on all pages.
    """

    runs: tuple[Run, ...]
    number: int
    size: int
    total: int

    @property
    def pages(self) -> int:
        """How many pages there are; at least 1."""
        return max(1, -(-self.total // self.size))

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


def _bound(moment: date | datetime | None, days: int) -> str | None:
    """The smallest id of a moment; of a day, of its first moment, or of that of the next."""
    if moment is None:
        return None
    try:
        if not isinstance(moment, datetime):
            day = date.fromordinal(moment.toordinal() + days)
            moment = datetime.combine(day, datetime.min.time())
        milliseconds = min(max(0, round(1000 * moment.timestamp())), 2**48 - 1)
    except (OverflowError, ValueError, OSError):  # beyond the calendar: before or after every run
        milliseconds = 2**48 - 1 if moment.year > 2000 else 0
    return str(ULID(milliseconds.to_bytes(6, "big") + bytes(10)))


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared: no case, no accents, each sign a word.

    A letter of a script that leaves no space between words is a word too.

    >>> words_of("Zwei SÜSSE Äpfel: 🍎苹果")
    ('zwei', 'susse', 'apfel', ':', '🍎', '苹', '果')
    """
    spread = unicodedata.normalize("NFKD", text.encode("utf-8", "ignore").decode())
    bare = "".join(c for c in spread if unicodedata.combining(c) in _LETTER_MARKS)
    folded = unicodedata.normalize("NFC", bare.casefold())
    return tuple("".join(map(_spaced, folded)).split())


def _spaced(letter: str) -> str:
    """A letter with the spaces that part it from its neighbours."""
    kind = unicodedata.category(letter)[0]
    if kind in "ZC":
        return " "
    if "\ufe00" <= letter <= "\ufe0f":  # says how the emoji before it looks
        return ""
    one = letter == "_" or (kind in "LMN" and not _UNSPACED.match(letter))
    return letter if one else f" {letter} "
