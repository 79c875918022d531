"""How much memory a record takes, and what is given up, in a stated order, to stay within a limit.

First the single heads (their mean is kept), then the resolution of the largest layers (halved,
again and again, as long as they have more than 4×4 places), then every second of the wanted steps,
again and again; last of all everything, as where earlier runs have filled the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from scribblediffusion.attention.resample import resize

#: Layers of no more places than this are not made coarser.
_COARSEST = 16
_FLOAT = 4


@dataclass(frozen=True)
class Plan:
    """What is kept of each step.

    Attributes:
        every_head: One record a head, or their mean.
        grids: Layer → (height, width) of its record.
        heads: Layer → heads.
        batch: Pictures.
        columns: Columns of a record.
        calls: Denoiser calls that will be recorded, as the schedule says.
        stride: Every how manieth of the wanted steps is kept; 0 keeps none.
        thinned: What was given up so far, in sentences.
    """

    every_head: bool
    grids: Mapping[str, tuple[int, int]]
    heads: Mapping[str, int]
    batch: int
    columns: int
    calls: int = 1
    stride: int = 1
    thinned: tuple[str, ...] = ()

    def step_bytes(self) -> int:
        """Bytes of the records of one step."""
        places = (
            h * w * (self.heads[name] if self.every_head else 1)
            for name, (h, w) in self.grids.items()
        )
        return _FLOAT * self.batch * self.columns * sum(places)

    def forecast(self) -> int:
        """Bytes of the records of the run."""
        return self.step_bytes() * -(-self.calls // self.stride) if self.stride else 0

    def keeps(self, number: int) -> bool:
        """Whether a step is kept; `number` counts the wanted steps alone, in the order run."""
        return self.stride > 0 and number % self.stride == 0

    def thinner(self) -> Plan | None:
        """The same with the next thing given up; None if there is nothing left to give."""
        if self.every_head:
            return replace(self, every_head=False)._saying("the heads of each layer were averaged")
        most = max((h * w for h, w in self.grids.values()), default=0)
        if most > _COARSEST:
            grids = {
                name: (-(-h // 2), -(-w // 2)) if h * w == most else (h, w)
                for name, (h, w) in self.grids.items()
            }
            largest = "×".join(map(str, max(grids.values())))
            return replace(self, grids=grids)._saying(f"layers were made coarser, to {largest}")
        if 0 < self.stride < 1 << 16:
            more = replace(self, stride=2 * self.stride)
            return more._saying(f"one step in {more.stride} was kept")
        if self.stride:
            return replace(self, stride=0)._saying("one step did not fit, and none was kept")
        return None

    def _saying(self, sentence: str) -> Plan:
        """With a sentence on top; a later one on the same matter takes its place."""
        start = sentence.split()[0]
        earlier = tuple(s for s in self.thinned if s.split()[0] != start)
        return replace(self, thinned=(*earlier, sentence))


def fit(plan: Plan, room: int) -> Plan:
    """The least thinned plan whose forecast stays within `room` bytes.

    If even the thinnest does not, that one.
    """
    while plan.forecast() > room:
        thinner = plan.thinner()
        if thinner is None:
            break
        plan = thinner
    return plan


def thin(record: np.ndarray, old: tuple[int, int], new: tuple[int, int], mean: bool) -> np.ndarray:
    """A stored record ``[B, H, C, places]`` on a coarser grid, or as the mean of its heads."""
    if mean:
        record = record.mean(axis=1, keepdims=True)
    if old == new:
        return record
    maps = resize(record.reshape(*record.shape[:3], *old), *new)
    return np.ascontiguousarray(maps.reshape(*record.shape[:3], -1))
