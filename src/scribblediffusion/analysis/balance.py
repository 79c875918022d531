"""Text against sketch: how the picture divided its attention among the streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scribblediffusion.analysis.printing import Printed, Table, noise_words, percent
from scribblediffusion.analysis.subjects import (
    StepMaps,
    Subject,
    regions_of,
    specials_of,
    words_of,
)
from scribblediffusion.attention.trace import CONDITION, AttentionTrace

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Share:
    """How much of all attention went to one word, region or token: mean of steps and places.

    Attributes:
        subject: who.
        share: 0…1 of all keys.
        by_step: the same at each step.
    """

    subject: Subject
    share: float
    by_step: tuple[float, ...]

    @property
    def top_step(self) -> int:
        """Position of the step with the largest share."""
        return int(np.argmax(self.by_step))


@dataclass(frozen=True, eq=False, repr=False)
class StreamBalance(Printed):
    """The raw shares of the streams. All shares of one step, layer or place sum to 1.

    Attributes:
        noise: noise remaining at each step, or None where not known.
        by_step: stream → share at each step.
        by_layer: layer → stream → share.
        by_place: stream → `[H, W]`, mean of the steps.
        words: every word's share, most first.
        regions: every sketch region's share, most first.
        specials: start, end and padding tokens for what they are.
    """

    noise: tuple[float | None, ...]
    by_step: Mapping[str, tuple[float, ...]]
    by_layer: Mapping[str, Mapping[str, float]]
    by_place: Mapping[str, Array]
    words: tuple[Share, ...]
    regions: tuple[Share, ...]
    specials: tuple[Share, ...]

    @property
    def mean(self) -> dict[str, float]:
        """Stream → share, mean of the steps."""
        return {name: float(np.mean(shares)) for name, shares in self.by_step.items()}

    def table(self) -> Table:
        """Shares at each step, and who leads."""
        names = list(self.by_step)
        rows = [
            (noise_words(n), *(percent(self.by_step[name][i]) for name in names))
            for i, n in enumerate(self.noise)
        ]
        notes = [
            f"{label}: " + ", ".join(f"{s.subject.name} {percent(s.share)}" for s in led[:4])
            for label, led in (
                ("leading words", self.words),
                ("leading regions", self.regions),
                ("not words", self.specials),
            )
            if led
        ]
        return Table("share of the attention", ("noise", *names), rows, notes)


def weigh_streams(trace: AttentionTrace, *, maps: StepMaps | None = None) -> StreamBalance:
    """Weighs the streams of a trace against each other.

    Args:
        trace: the run.
        maps: `StepMaps.read(trace)`, where it is at hand.

    Returns:
        Raw shares (of all keys, nothing renormalised), mean of heads.
    """
    maps = maps or StepMaps.read(trace)
    names = [name for name in trace.streams if "." not in name]
    streams = {name: maps.stream(name, trace.streams[name]) for name in names}
    layers = [layer.name for layer in trace.layers if layer.source == CONDITION]
    return StreamBalance(
        noise=maps.noise,
        by_step={n: tuple(m.mean(axis=(1, 2)).tolist()) for n, m in streams.items()},
        by_layer={layer: trace.shares(layer=layer) for layer in layers},
        by_place={n: m.mean(axis=0) for n, m in streams.items()},
        words=_ranked(words_of(trace), maps),
        regions=_ranked(regions_of(trace), maps),
        specials=_ranked(specials_of(trace), maps),
    )


def _ranked(subjects: tuple[Subject, ...], maps: StepMaps) -> tuple[Share, ...]:
    shares = []
    for subject in subjects:
        by_step = maps.of(subject).mean(axis=(1, 2), dtype=np.float64)
        shares.append(Share(subject, float(by_step.mean()), tuple(by_step.tolist())))
    return tuple(sorted(shares, key=lambda s: -s.share))
