"""Does a map find its object? Three measures against a mask, each beside chance and a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import hypergeom, rankdata

from scribblediffusion.analysis.printing import Printed, Table
from scribblediffusion.analysis.subjects import StepMaps, Subject, find_subject, words_of
from scribblediffusion.attention.trace import AttentionTrace, Region, Word, resize
from scribblediffusion.errors import NoHeatMapError, SettingError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Measures:
    """How well a map fits a mask.

    Attributes:
        pointing: pointing game: 1 if the map's highest place lies on the object, else 0 (a
            share where several places are highest; a mean where several maps were measured).
        iou: intersection over union with as many of the highest places as the object has (the
            mean over all ways to take the last of them, where several tie).
        auc: chance that a place on the object is higher than one off it (ties count half).
    """

    pointing: float
    iou: float
    auc: float


@dataclass(frozen=True, repr=False)
class Localisation(Printed):
    """The measures of one map, what blind chance would give, and what other words' maps give.

    Attributes:
        name: whose map.
        area: share of the places that the object covers.
        measured: of the map itself.
        chance: expected of a map in random order: `area`, the mean IoU of two random sets of the
            object's size, and 0.5.
        control: mean of the other words' maps against the same mask (the shuffled token);
            None where there is no other word.
        controls: how many maps that is.
        elsewhere: mean of this map against other objects' masks (the wrong object); None where
            no other mask was given.
        elsewhere_chance: what chance would give there.
    """

    name: str
    area: float
    measured: Measures
    chance: Measures
    control: Measures | None
    controls: int
    elsewhere: Measures | None = None
    elsewhere_chance: Measures | None = None

    def table(self) -> Table:
        """Measured, chance and control."""
        lines = [("measured", self.measured), ("chance", self.chance)]
        if self.control is not None:
            lines.append((f"other words ({self.controls})", self.control))
        if self.elsewhere is not None and self.elsewhere_chance is not None:
            lines.append(("on another object", self.elsewhere))
            lines.append(("chance there", self.elsewhere_chance))
        rows = [(n, f"{m.pointing:.2f}", f"{m.iou:.3f}", f"{m.auc:.3f}") for n, m in lines]
        notes = [f"the object covers {100 * self.area:.1f} % of the places"]
        if self.control is None:
            notes.append("no other word to compare with")
        return Table(f"localisation of {self.name}", ("", "pointing", "IoU", "AUC"), rows, notes)


def localise(
    trace: AttentionTrace,
    what: str | int | Word | Region | Subject,
    mask: Array,
    *,
    occurrence: int = 0,
    maps: StepMaps | None = None,
) -> Localisation:
    """Measures the heat map of a word over the whole run against the mask of its object.

    Args:
        trace: the run.
        what: a word or phrase of the prompt, a `Region`, or a key.
        mask: `[h, w]` over the whole picture, any size; true or non-zero is the object.
        occurrence: which one of a repeated word.
        maps: `StepMaps.read(trace)`, where it is at hand.

    Raises:
        UnknownWordError: the word is not in the prompt.
        NoHeatMapError: it has no weight anywhere.
        SettingError: the mask is empty, full, or not of two dimensions.
    """
    maps = maps or StepMaps.read(trace)
    subject = find_subject(trace, what, occurrence)
    others = [w for w in words_of(trace) if not set(w.keys) & set(subject.keys)]
    controls = [heat for w in others if (heat := _heat_or_none(maps, w)) is not None]
    return localise_map(maps.mean_heat(subject), mask, controls, name=subject.name)


def localise_map(
    heat: Array,
    mask: Array,
    controls: Sequence[Array] = (),
    *,
    elsewhere: Sequence[Array] = (),
    name: str = "map",
) -> Localisation:
    """Measures one map against a mask, on the map's own grid.

    Args:
        heat: `[H, W]`.
        mask: `[h, w]`, any size: a place is on the object where at least half of it is.
        controls: maps of other tokens, `[H, W]` each.
        elsewhere: masks of other objects, on which this map should not lie.
        name: what to call it.

    Raises:
        SettingError: a mask is empty, full, or not of two dimensions.
    """
    on = on_grid(mask, heat.shape)
    measured = [_measured(control, on) for control in controls]
    others = [on_grid(other, heat.shape) for other in elsewhere]
    return Localisation(
        name=name,
        area=float(on.mean()),
        measured=_measured(heat, on),
        chance=by_chance(on),
        control=_mean(measured) if measured else None,
        controls=len(measured),
        elsewhere=_mean([_measured(heat, other) for other in others]) if others else None,
        elsewhere_chance=_mean([by_chance(other) for other in others]) if others else None,
    )


def measure(maps: Array, on: Array) -> Array:
    """The three measures of many maps at once.

    Args:
        maps: `[..., H, W]`; any positive scale gives the same.
        on: `[H, W]` bool, neither empty nor full.

    Returns:
        float64 `[..., 3]`: pointing, IoU, AUC, as in `Measures`; a flat map is at chance.
    """
    values = np.asarray(maps, np.float64).reshape(*maps.shape[:-2], -1)
    inside = on.ravel()
    count = int(inside.sum())
    top = values == values.max(axis=-1, keepdims=True)
    pointing = (top & inside).sum(axis=-1) / top.sum(axis=-1)
    threshold = np.partition(values, -count, axis=-1)[..., -count, None]
    above, tied = values > threshold, values == threshold
    iou = _mean_iou(
        count,
        (above & inside).sum(axis=-1),
        count - above.sum(axis=-1),
        tied.sum(axis=-1),
        (tied & inside).sum(axis=-1),
    )
    ranks = np.asarray(rankdata(values, axis=-1))
    below = ranks[..., inside].sum(axis=-1) - count * (count + 1) / 2
    auc = below / (count * (inside.size - count))
    return np.stack([pointing, iou, auc], axis=-1)


def by_chance(on: Array) -> Measures:
    """What maps in random order would reach on this object, `[H, W]` bool."""
    count, places = int(on.sum()), on.size
    return Measures(count / places, float(_mean_iou(count, 0, count, places, count)), 0.5)


def _heat_or_none(maps: StepMaps, subject: Subject) -> Array | None:
    try:
        return maps.mean_heat(subject)
    except NoHeatMapError:
        return None


def on_grid(mask: Array, shape: tuple[int, ...]) -> Array:
    """The places at least half covered; of a smaller object, the place that it covers most.

    Args:
        mask: `[h, w]`, any size; true or non-zero is the object.
        shape: (rows, columns) of the places.

    Raises:
        SettingError: the mask is empty, full, or not of two dimensions.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.any():
        raise SettingError(
            f"mask of shape {mask.shape} with {int((mask != 0).sum())} pixels on the object: "
            "give [height, width] with at least one"
        )
    cover = resize((mask != 0).astype(np.float64), *shape)
    on = cover >= 0.5 if (cover >= 0.5).any() else cover == cover.max()
    if on.all():
        raise SettingError("the mask covers every place of the map: there is nothing off it")
    return on


def _measured(heat: Array, on: Array) -> Measures:
    return Measures(*map(float, measure(heat, on)))


def _mean_iou(count: int, sure: Any, seats: Any, tied: Any, hits: Any) -> Array:
    """Mean IoU of an object of `count` places with as many highest ones of a map.

    `sure` of those are on the object; for the last `seats` lots are drawn among `tied` places, of
    which `hits` are on it: how many of these come out is hypergeometric.
    """
    drawn = np.arange(np.max(seats) + 1)
    odds = hypergeom.pmf(drawn, *(np.asarray(n)[..., None] for n in (tied, hits, seats)))
    common = np.minimum(np.asarray(sure)[..., None] + drawn, count)  # no more have any odds
    return np.asarray((odds * common / (2 * count - common)).sum(axis=-1))


def _mean(measures: Sequence[Measures]) -> Measures:
    columns = zip(*((m.pointing, m.iou, m.auc) for m in measures), strict=True)
    return Measures(*(float(np.mean(column)) for column in columns))
