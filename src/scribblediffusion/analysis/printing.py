"""How results show themselves: a small table, as text and in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """A small table.

    Attributes:
        title: a line above.
        header: names of the columns.
        rows: what is in them.
        notes: lines below.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [self.header, *self.rows] if self.rows else []
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in lines]
        return "\n".join([self.title, *("  " + line.rstrip() for line in body), *self.notes])

    @property
    def html(self) -> str:
        """The table as HTML, every text escaped."""
        head = "".join(f"<th style='text-align:left'>{escape(c)}</th>" for c in self.header)
        rows = "".join(
            "<tr>" + "".join(f"<td style='{_cell(c)}'>{escape(c)}</td>" for c in row) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<div style='opacity:.75'>{escape(note)}</div>" for note in self.notes)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<div><b>{escape(self.title)}</b>{table if self.rows else ''}{notes}</div>"


def _cell(text: str) -> str:
    """A number or a name stays on one line; a sentence may wrap."""
    return "text-align:left" + (";white-space:nowrap" if len(text) < 24 else "")


class Printed(ABC):
    """A result with a table that says it all: its dataclass is made with `repr=False`."""

    @abstractmethod
    def table(self) -> Table:
        """The result as a table."""

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.table().html


def quoted(prompt: str) -> str:
    """A prompt in quotation marks; none as "no prompt".

    >>> quoted("a red apple"), quoted("")
    ('“a red apple”', 'no prompt')
    """
    return f"“{prompt}”" if prompt.strip() else "no prompt"


def percent(share: float | None) -> str:
    """0.123 as "12.3 %"; None as "not known".

    >>> percent(0.0004), percent(0.5), percent(None)
    ('0.04 %', '50.0 %', 'not known')
    """
    if share is None:
        return "not known"
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.001 else f"{100 * share:.2f} %"


def noise_words(noise: float | None) -> str:
    """0.8 as "80 %"; None as "not known"."""
    return "not known" if noise is None else f"{100 * noise:.0f} %"
