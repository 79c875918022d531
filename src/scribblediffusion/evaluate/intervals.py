"""Bootstrap intervals over scenes (Efron 1979): a scene is drawn with everything in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

#: Resamples, and the seed of the draws: the same numbers give the same interval.
DRAWS, SEED = 2000, 95


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        value: the mean.
        low: the 2.5 % quantile of the resampled means.
        high: the 97.5 % quantile.
        count: how many cases it is a mean of.
    """

    value: float
    low: float
    high: float
    count: int

    def percent(self) -> str:
        """As text: "81 % [77, 84]".

        >>> Interval(0.812, 0.77, 0.84, 9).percent()
        '81 % [77, 84]'
        """
        return f"{100 * self.value:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"

    def number(self) -> str:
        """As text with two digits: "0.81 [0.77, 0.84]"."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def mean_interval(sums: Array, counts: Array) -> Interval | None:
    """The mean of all cases, with an interval for drawing other scenes.

    Args:
        sums: `[scenes]`, of each scene's cases.
        counts: `[scenes]`, how many cases a scene has; a scene may have none.

    Returns:
        None where no scene has a case.
    """
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    if not counts.sum():
        return None
    drawn = _drawn(len(counts))
    cases = drawn @ counts
    means = (drawn @ sums)[cases > 0] / cases[cases > 0]
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()))


def share_interval(sums: Array, counts: Array) -> Interval | None:
    """As `mean_interval`, for cases that are 0 or 1.

    Where all of them are alike there is nothing to draw from: then the interval is that of Clopper
    and Pearson (1934), for as many independent cases as there are scenes.
    """
    found = mean_interval(sums, counts)
    if found is None or found.value not in (0, 1):
        return found
    least = 0.025 ** (1 / np.count_nonzero(counts))
    return replace(found, low=least) if found.value else replace(found, high=1 - least)


@lru_cache(maxsize=8)
def _drawn(scenes: int) -> Array:
    """How often each scene is in each resample, `[DRAWS, scenes]`: the same for every figure."""
    share = np.full(scenes, 1 / scenes)
    return np.random.default_rng(SEED).multinomial(scenes, share, DRAWS).astype(np.float64)
