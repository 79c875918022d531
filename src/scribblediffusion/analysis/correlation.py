"""How a map changes from step to step: Pearson correlations, and when it has settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scribblediffusion.analysis.printing import Printed, Table, noise_words
from scribblediffusion.analysis.subjects import StepMaps, Subject, find_subject
from scribblediffusion.attention.trace import AttentionTrace, Region, Word

Array = np.ndarray[Any, np.dtype[Any]]
#: A map has settled from the step on at which it stays above this correlation with the last.
SETTLED = 0.95
#: A map whose values differ by less than this, relative to the largest, is constant.
CONSTANT = 1e-6


@dataclass(frozen=True, repr=False)
class StepCorrelation(Printed):
    """The raw maps of one word or region, each step against each.

    Attributes:
        subject: whose maps.
        steps: `Step.index` of each step, in the order run.
        noise: noise remaining at each step, 0…1, or None where not known.
        matrix: Pearson's r between steps i and j; None where either map is constant, since
            the correlation is undefined there.
    """

    subject: Subject
    steps: tuple[int, ...]
    noise: tuple[float | None, ...]
    matrix: tuple[tuple[float | None, ...], ...]

    @property
    def with_last(self) -> tuple[float | None, ...]:
        """Of each step with the last one; None where undefined."""
        return tuple(row[-1] for row in self.matrix)

    @property
    def constant(self) -> tuple[int, ...]:
        """`Step.index` of the steps at which the map is constant."""
        return tuple(s for i, s in enumerate(self.steps) if self.matrix[i][i] is None)

    @property
    def settled(self) -> int | None:
        """Position of the first step from which on all correlate with the last above 0.95.

        None where the last map is constant. The last step always correlates with itself: its
        own position means that the map was still changing until then.
        """
        found = None
        for position in reversed(range(len(self.steps))):
            r = self.with_last[position]
            if r is None or r <= SETTLED:
                break
            found = position
        return found

    @property
    def array(self) -> Array:
        """`[steps, steps]` for drawing, NaN where undefined."""
        return np.array([[np.nan if r is None else r for r in row] for row in self.matrix])

    @property
    def verdict(self) -> str:
        """When it settled, in words; steps are counted from 1 where their noise is not known."""
        if len(self.steps) == 1:
            return "one step only"
        if self.settled is None:
            return "undefined: the last map is constant"
        if self.settled == len(self.steps) - 1:
            return "still changing at the last step"
        noise = self.noise[self.settled]
        when = f"step {self.settled + 1}" if noise is None else f"noise {noise_words(noise)}"
        return f"settled at {when}"

    def table(self) -> Table:
        """The correlation of each step with the last."""
        rows = [
            (str(s), noise_words(n), "undefined" if r is None else f"{r:.3f}")
            for s, n, r in zip(self.steps, self.noise, self.with_last, strict=True)
        ]
        notes = [self.verdict]
        if self.constant:
            notes.append(f"constant map, no correlation, at steps {list(self.constant)}")
        return Table(self.subject.name, ("step", "noise", "r with last"), rows, notes)


def correlate_steps(
    trace: AttentionTrace,
    what: str | int | Word | Region | Subject,
    *,
    occurrence: int = 0,
    maps: StepMaps | None = None,
) -> StepCorrelation:
    """Correlates the raw maps of a word or region between all pairs of steps.

    Args:
        trace: the run.
        what: a word or phrase of the prompt, a `Region`, or a key.
        occurrence: which one of a repeated word.
        maps: `StepMaps.read(trace)`, where it is at hand.

    Returns:
        Pearson's r over the H × W places, mean of heads and layers.

    Raises:
        UnknownWordError: the word is not in the prompt.
        NotRecordedError: its tokens were not recorded.
    """
    maps = maps or StepMaps.read(trace)
    subject = find_subject(trace, what, occurrence)
    matrix = pearson_matrix(maps.of(subject))
    indices = tuple(step.index for step in maps.steps)
    return StepCorrelation(subject, indices, maps.noise, matrix)


def pearson_matrix(maps: Array) -> tuple[tuple[float | None, ...], ...]:
    """Pearson's r between all pairs of `[n, H, W]` maps; None where one of them is constant."""
    flat = np.asarray(maps, dtype=np.float64).reshape(len(maps), -1)
    spread = np.ptp(flat, axis=1)
    varies = spread > CONSTANT * np.abs(flat).max(axis=1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norm > 0, norm, 1)
    r = np.clip(unit @ unit.T, -1, 1)
    return tuple(
        tuple(float(r[i, j]) if varies[i] and varies[j] else None for j in range(len(flat)))
        for i in range(len(flat))
    )


def pearson(a: Array, b: Array) -> float | None:
    """Pearson's r of two maps `[H, W]`; None where one of them is constant."""
    return pearson_matrix(np.stack([a, b]))[0][1]
