"""How a map is spread: entropy, peak, centre and spread; and which words did nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scribblediffusion.analysis.printing import Printed, Table, percent
from scribblediffusion.analysis.regions import place_in_words
from scribblediffusion.analysis.subjects import StepMaps, Subject, specials_of, words_of
from scribblediffusion.attention.trace import CONDITION, AttentionTrace
from scribblediffusion.errors import NoHeatMapError, SettingError
from scribblediffusion.sketch import Region

Array = np.ndarray[Any, np.dtype[Any]]
Role = Literal["word", "region", "token", "special", "idle", "silent"]
#: A map whose peak is below this many even shares is almost even: it points nowhere.
FLAT = 1.5
_ROLES: dict[str, str] = {
    "special": "no word: start, end or padding",
    "idle": "did nothing: nowhere an even share",
    "silent": "did nothing: no weight anywhere",
}


@dataclass(frozen=True)
class Shape:
    """How one heat map lies on the picture.

    Attributes:
        entropy: in bits; 0 where all is in one place, log2(places) where it is even.
        evenness: entropy / log2(places), 0…1.
        peak: the highest value, in multiples of an even share.
        peak_at: (x, y) of the middle of that place, 0…1 from the upper left.
        centre: (x, y) of the centre of mass, 0…1.
        spread: root of the mean squared distance from the centre, in picture widths and heights.
    """

    entropy: float
    evenness: float
    peak: float
    peak_at: tuple[float, float]
    centre: tuple[float, float]
    spread: float

    @classmethod
    def of(cls, heat: Array) -> Shape:
        """Measures a heat map.

        Args:
            heat: `[H, W]`, not negative; it is divided by its sum.

        Raises:
            NoHeatMapError: it has no weight anywhere.
        """
        total = float(np.sum(heat, dtype=np.float64))
        if not total > 0:
            raise NoHeatMapError("a map without weight anywhere has no shape")
        p = np.asarray(heat, dtype=np.float64) / total
        rows, columns = p.shape
        y, x = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
        centre = float(p.sum(axis=0) @ x), float(p.sum(axis=1) @ y)
        apart = (x[None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2
        filled = p[p > 0]
        entropy = max(0.0, float(-(filled * np.log2(filled)).sum()))
        row, column = np.unravel_index(int(p.argmax()), p.shape)
        return cls(
            entropy=entropy,
            evenness=entropy / np.log2(p.size) if p.size > 1 else 1.0,
            peak=float(p.max()) * p.size,
            peak_at=(float(x[column]), float(y[row])),
            centre=centre,
            spread=float(np.sqrt((p * apart).sum())),
        )


@dataclass(frozen=True)
class Concentration:
    """One word, region or token: how much it got, where, and what it is.

    Attributes:
        subject: who.
        role: its kind; "special" for start, end and padding tokens; "idle" for one that nowhere
            and at no step had an even share of the attention (1 / number of keys), "silent" for
            one without any weight: these two did nothing.
        share: of all attention, mean of steps and places.
        most: the largest share that any place paid it at any step.
        shape: of its heat map over the whole run; None if silent.
        by_step: of its heat map at each step; None where it has no weight at that step.
    """

    subject: Subject
    role: Role
    share: float
    most: float
    shape: Shape | None
    by_step: tuple[Shape | None, ...]

    @property
    def did_nothing(self) -> bool:
        """True for an idle or silent word."""
        return self.role in ("idle", "silent")


@dataclass(frozen=True, repr=False)
class Concentrations(Printed):
    """The words of a run and the tokens that are none, in the order of the prompt.

    Attributes:
        entries: one for each.
    """

    entries: tuple[Concentration, ...]

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of the words that did nothing."""
        return tuple(e.subject.name for e in self.entries if e.did_nothing)

    def __getitem__(self, name: str) -> Concentration:
        for entry in self.entries:
            if entry.subject.name == name:
                return entry
        there = ", ".join(e.subject.name for e in self.entries)
        raise KeyError(f"{name!r}: measured were {there}")

    def table(self) -> Table:
        """One row for each."""
        header = ("", "share", "entropy", "peak", "centre", "spread", "")
        rows = [_row(entry) for entry in self.entries]
        idle = f"did nothing: {', '.join(self.idle)}" if self.idle else "every word did something"
        return Table("concentration", header, rows, [idle])


def _row(entry: Concentration) -> tuple[str, ...]:
    note = _ROLES.get(entry.role, "")
    shape = entry.shape
    if shape is None:
        return (entry.subject.name, percent(entry.share), "", "", "", "", note)
    if not note and shape.peak < FLAT:
        note = "almost even: points nowhere"
    centre = f"({shape.centre[0]:.2f}, {shape.centre[1]:.2f})"
    peak, spread = f"{shape.peak:.1f}x", f"{shape.spread:.2f}"
    name, share = entry.subject.name, percent(entry.share)
    return (name, share, f"{shape.entropy:.2f} bit", peak, centre, spread, note)


def measure_concentration(
    trace: AttentionTrace,
    subjects: Sequence[Subject] | None = None,
    *,
    maps: StepMaps | None = None,
) -> Concentrations:
    """Measures how concentrated maps are.

    Args:
        trace: the run.
        subjects: whose maps; all words and special tokens unless told.
        maps: `StepMaps.read(trace)`, where it is at hand.
    """
    maps = maps or StepMaps.read(trace)
    chosen = (*words_of(trace), *specials_of(trace)) if subjects is None else subjects
    even = _even_share(trace)
    return Concentrations(tuple(_measured(subject, maps, even) for subject in chosen))


def _even_share(trace: AttentionTrace) -> float:
    """What a key would get of a place that treats all keys alike, mean of the layers."""
    lengths = [x.keys for x in trace.layers if x.source == CONDITION and x.keys > 0]
    return float(np.mean([1 / n for n in lengths])) if lengths else 0.0


def _measured(subject: Subject, maps: StepMaps, even: float) -> Concentration:
    raw = maps.of(subject)
    most = float(raw.max())
    role: Role = "special" if subject.special else subject.kind
    if not subject.special and most < even:
        role = "silent" if most == 0 else "idle"
    return Concentration(
        subject=subject,
        role=role,
        share=float(raw.mean(dtype=np.float64)),
        most=most,
        shape=Shape.of(raw.mean(axis=0, dtype=np.float64)) if most > 0 else None,
        by_step=tuple(Shape.of(m) if m.max() > 0 else None for m in raw),
    )


def _array(heat: Any) -> Array:
    """A map as array; a tensor without its gradient, and in a type that arrays have."""
    if hasattr(heat, "detach"):
        heat = heat.detach().cpu()
        heat = heat.float() if heat.dtype.is_floating_point else heat
    return np.asarray(heat)


def acted_in_words(heat: Array) -> str:
    """Where in the picture a map `[H, W]` is highest, in words.

    Raises:
        SettingError: it is not one map of finite numbers, 0 or more.
    """
    heat = _array(heat)
    if heat.ndim != 2 or not heat.size or heat.dtype.kind not in "buif":
        raise SettingError(
            f"attention map of {heat.dtype} and shape {heat.shape}: give one map [H, W] of numbers"
        )
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise SettingError(
            f"attention map from {heat.min():g} to {heat.max():g}: attention is finite and never "
            "negative; give a map as `trace.word` or `trace.region` returns it"
        )
    if not heat.any():
        return "it acted nowhere"
    shape = Shape.of(heat / heat.max())
    x, y = shape.peak_at
    place = place_in_words(Region(3, int(y * 3), int(x * 3)))
    return f"acted most in the {place} of the picture, {shape.peak:.1f} times the even share"
