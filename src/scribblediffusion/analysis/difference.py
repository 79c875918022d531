"""Two runs side by side: what another prompt, seed or sketch changed, word by word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scribblediffusion.analysis.correlation import pearson
from scribblediffusion.analysis.printing import Printed, Table, percent, quoted
from scribblediffusion.analysis.subjects import StepMaps, Subject
from scribblediffusion.attention.trace import AttentionTrace, Word, resize

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class WordDifference:
    """One word in two runs, each heat map over its whole run, on the larger of the two grids.

    Attributes:
        name: the word; one that either run repeats with its number, from 1.
        before: `[H, W]`, the first run's heat map; sums to 1.
        after: the second run's.
        change: after less before; sums to 0.
        moved: share of the map that is somewhere else: ½ Σ |change|, 0…1.
        correlation: Pearson's r of the two maps; None where one is constant.
        shift: (x, y) from the first centre of mass to the second, in picture widths and heights.
        shares: raw share of all attention in the first and in the second run.
    """

    name: str
    before: Array
    after: Array
    change: Array
    moved: float
    correlation: float | None
    shift: tuple[float, float]
    shares: tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class TraceDifference(Printed):
    """Two traces compared.

    Attributes:
        prompts: of the first and the second.
        words: the words that both have and that have a map in both, in the first one's order.
        only_first: words of the first alone.
        only_second: words of the second alone.
        without_map: shared words with no weight anywhere in one of them.
    """

    prompts: tuple[str, str]
    words: tuple[WordDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    without_map: tuple[str, ...]

    def table(self) -> Table:
        """One row for each shared word."""
        header = ("word", "moved", "r", "shift", "share before", "share after")
        rows = [_row(word) for word in self.words]
        notes = [] if rows else ["no word is in both prompts with a map in both"]
        for label, names in (
            ("only in the first", self.only_first),
            ("only in the second", self.only_second),
            ("no weight in one of them", self.without_map),
        ):
            notes += [f"{label}: {', '.join(names)}"] if names else []
        title = f"{quoted(self.prompts[0])} against {quoted(self.prompts[1])}"
        return Table(title, header, rows, notes)


def _row(word: WordDifference) -> tuple[str, ...]:
    r = "undefined" if word.correlation is None else f"{word.correlation:.3f}"
    shift = f"({word.shift[0]:+.2f}, {word.shift[1]:+.2f})"
    return (word.name, percent(word.moved), r, shift, *map(percent, word.shares))


def compare(first: AttentionTrace, second: AttentionTrace) -> TraceDifference:
    """Compares two traces for each word that both have (same letters, same occurrence)."""
    maps = StepMaps.read(first), StepMaps.read(second)
    words = _recorded(first), _recorded(second)
    repeated = {w.text.casefold() for t in (first, second) for w in t.words if w.occurrence}
    names = {key: _named(key, repeated) for key in (*words[0], *words[1])}
    found, silent = [], []
    for key in (key for key in words[0] if key in words[1]):
        a, b = (Subject(names[key], one[key].keys, "word") for one in words)
        raw = [m.of(s).mean(axis=0, dtype=np.float64) for m, s in zip(maps, (a, b), strict=True)]
        if min(r.sum() for r in raw) == 0:
            silent.append(names[key])
        else:
            found.append(_difference(names[key], *raw))
    return TraceDifference(
        prompts=(first.prompt, second.prompt),
        words=tuple(found),
        only_first=tuple(names[k] for k in words[0] if k not in words[1]),
        only_second=tuple(names[k] for k in words[1] if k not in words[0]),
        without_map=tuple(silent),
    )


def _recorded(trace: AttentionTrace) -> dict[tuple[str, int], Word]:
    """The recorded words by their letters and occurrence."""
    kept = set(trace.keys)
    return {
        (w.text.casefold(), w.occurrence): w
        for w in trace.words
        if w.keys and kept.issuperset(w.keys)
    }


def _named(key: tuple[str, int], repeated: set[str]) -> str:
    """A word with its number, where one of the runs repeats it."""
    text, occurrence = key
    return f"{text} ({occurrence + 1})" if text in repeated else text


def _difference(name: str, first: Array, second: Array) -> WordDifference:
    grid = max(first.shape, second.shape, key=lambda s: s[0] * s[1])
    before, after = (resize(raw, *grid) for raw in (first, second))
    before, after = before / before.sum(), after / after.sum()
    change = after - before
    y, x = ((np.arange(n) + 0.5) / n for n in grid)
    return WordDifference(
        name=name,
        before=before,
        after=after,
        change=change,
        moved=min(1.0, 0.5 * float(np.abs(change).sum())),
        correlation=pearson(before, after),
        shift=(float(change.sum(axis=0) @ x), float(change.sum(axis=1) @ y)),
        shares=(float(first.mean()), float(second.mean())),
    )
