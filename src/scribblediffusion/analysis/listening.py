"""The sketch regions that the picture listened to: what is drawn there, how much it heard, when.

"upper right: a curve bending down, 6 % ink; listened to most at noise 80 %".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scribblediffusion.analysis.balance import Share, weigh_streams
from scribblediffusion.analysis.printing import Printed, Table, noise_words, percent
from scribblediffusion.analysis.regions import RegionDescription, describe_regions
from scribblediffusion.analysis.subjects import StepMaps
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import SketchError, TraceError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class HeardRegion:
    """One sketch region: what is drawn, and how strongly the picture listened.

    Attributes:
        description: what is drawn there.
        heard: its share of all attention, in all and at each step.
        noise: noise remaining at the step at which it was heard most; None if not known.
    """

    description: RegionDescription
    heard: Share
    noise: float | None

    @property
    def share(self) -> float:
        """Of all attention, mean of steps and places."""
        return self.heard.share

    def __str__(self) -> str:
        if self.share == 0:
            return f"{self.description}; never listened to"
        when = "" if self.noise is None else f" at noise {noise_words(self.noise)}"
        step = "" if when else f" at step {self.heard.top_step + 1}"
        return f"{self.description}; listened to most{when}{step}"


@dataclass(frozen=True, repr=False)
class HeardSketch(Printed):
    """All sketch regions of a run, most heard first.

    Attributes:
        regions: one for each recorded region.
    """

    regions: tuple[HeardRegion, ...]

    def leading(self, count: int = 5, *, drawn: bool = True) -> tuple[HeardRegion, ...]:
        """The regions heard most; with `drawn`, of those in which something can be seen."""
        kept = [r for r in self.regions if r.description.features or not drawn]
        return tuple(kept[:count])

    def table(self) -> Table:
        """The ten regions heard most."""
        rows = [(r.heard.subject.name, percent(r.share), str(r)) for r in self.regions[:10]]
        return Table("sketch regions", ("region", "share", ""), rows)


def listen(
    trace: AttentionTrace,
    ink: Array | None = None,
    *,
    maps: StepMaps | None = None,
    shares: tuple[Share, ...] | None = None,
) -> HeardSketch:
    """Describes every recorded sketch region and how strongly the picture listened to it.

    Args:
        trace: the run.
        ink: `[H, W]` from 0 (paper) to 1 (ink); the trace's own sketch unless given.
        maps: `StepMaps.read(trace)`, where it is at hand.
        shares: `weigh_streams(trace).regions`, where it is at hand.

    Raises:
        TraceError: the trace has no sketch regions.
        SketchError: no drawing was given and the trace holds none.
    """
    if not trace.regions:
        raise TraceError("this trace has no sketch regions: its model read no sketch in tokens")
    ink = ink_of(trace) if ink is None else ink
    maps = maps or StepMaps.read(trace)
    shares = shares if shares is not None else weigh_streams(trace, maps=maps).regions
    regions = [s.subject.region for s in shares if s.subject.region is not None]
    described = dict(zip(regions, describe_regions(ink, regions), strict=True))
    return HeardSketch(
        tuple(
            HeardRegion(described[s.subject.region], s, maps.noise[s.top_step])
            for s in shares
            if s.subject.region is not None
        )
    )


def ink_of(trace: AttentionTrace) -> Array:
    """The sketch of a trace as ink `[H, W]`, 0 (paper) to 1 (ink).

    Raises:
        SketchError: the trace holds no sketch.
    """
    if trace.sketch is None:
        raise SketchError("this trace holds no sketch: give the drawing")
    return 1 - np.asarray(trace.sketch, np.float32) / 255
