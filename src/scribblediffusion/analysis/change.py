"""What an edit changed, and whether it changed where the word's map said.

The definition behind "the map of *red* explains 81 % of what changed (chance 14 %, control 15 %)":

1. Change is the difference of the two pictures in CIELAB (ΔE*ab, CIE 1976), averaged over the
   pixels of each place of the map. Count the fewest places that together hold nine tenths of it;
   they are `chance` of the picture.
2. Take as many places where the word's map is highest. `share` of the change lies on them: a map
   that knew nothing would reach `chance`, one that knew everything `best`, nine tenths.
3. `control`: as many places from other maps of its kind, on average: those of other words or,
   where a stroke was erased, of other regions with ink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scribblediffusion.analysis.printing import Printed, Table, percent
from scribblediffusion.attention.trace import resize
from scribblediffusion.errors import SettingError

Array = np.ndarray[Any, np.dtype[Any]]

#: Share of a change that its largest places must hold.
MOST = 0.9
#: The least difference in CIELAB that people notice (Mahy, Van Eycken, Oosterlinck 1994).
NOTICEABLE = 2.3
#: Below this share of pixels that changed noticeably, an edit is said to have had no effect.
NO_EFFECT = 0.005


def picture_change(before: Array, after: Array) -> Array:
    """How different two pictures look, pixel by pixel.

    Args:
        before: uint8 `[H, W, 3]` in sRGB.
        after: the same size.

    Returns:
        float64 `[H, W]`: the distance in CIELAB (ΔE*ab); 2.3 is just noticeable.

    Raises:
        SettingError: the pictures differ in size.
    """
    if before.shape != after.shape:
        raise SettingError(f"pictures of {before.shape} and {after.shape}: they must be alike")
    from skimage.color import rgb2lab

    return np.linalg.norm(rgb2lab(before) - rgb2lab(after), axis=-1)


def latent_change(before: Array, after: Array) -> Array:
    """Distance of two latents at each place: `[C, h, w]` each to float64 `[h, w]`."""
    apart = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    return np.linalg.norm(apart, axis=0)


def noticeable(change: Array) -> float:
    """Share of the pixels that changed noticeably, 0…1."""
    return float((change > NOTICEABLE).mean())


@dataclass(frozen=True, repr=False)
class Explained(Printed):
    """How much of a change lies where a map said; the module's docstring has the definition.

    Attributes:
        name: whose map.
        edit: what was done: "removed", "replaced by blue", "knocked out", "erased".
        share: of the change that lies on the map's places; None where nothing changed at all.
        chance: share of the picture that these places are; 0 where nothing changed.
        control: the same of other maps of its kind; None where there are none.
        controls: how many maps that is.
        best: the most that as many places could hold.
        effect: share of the pixels that changed noticeably; None for a change of latents, which
            nobody sees.
    """

    name: str
    edit: str
    share: float | None
    chance: float
    control: float | None
    controls: int
    best: float | None
    effect: float | None

    @property
    def sentence(self) -> str:
        """The finding as a person reads it."""
        if self.share is None or (self.effect is not None and self.effect < NO_EFFECT):
            seen = "nothing changed"
            if self.effect is not None:
                seen = f"{100 * self.effect:.1f} % of the pixels changed noticeably"
            return f"{self.name}, {self.edit}: hardly any effect ({seen})"
        other = "" if self.control is None else f", control {100 * self.control:.0f} %"
        when = "" if self.edit == "removed" else f" when it was {self.edit}"
        return (
            f"the map of {self.name} explains {100 * self.share:.0f} % of what changed{when} "
            f"(chance {100 * self.chance:.0f} %{other})"
        )

    def table(self) -> Table:
        """Share, chance, control, and the best possible."""
        rows = [
            ("explained by its map", _percent(self.share)),
            ("chance", percent(self.chance)),
            (f"other maps of its kind ({self.controls})", _percent(self.control)),
            ("best possible with as many places", _percent(self.best)),
            ("pixels that changed noticeably", _percent(self.effect)),
        ]
        return Table(f"{self.name}, {self.edit}", ("", ""), rows, (self.sentence,))


def explain_change(
    heat: Array,
    change: Array,
    controls: Sequence[Array] = (),
    *,
    name: str,
    edit: str = "removed",
    is_seen: bool = True,
) -> Explained:
    """Holds a map against a change.

    Args:
        heat: the word's map `[H, W]`, 0 or more, not all 0.
        change: `[h, w]`, any size, as from `picture_change` or `latent_change`.
        controls: other maps of its kind `[H, W]`.
        name: whose map.
        edit: what was done.
        is_seen: whether it is a change of pictures (ΔE*ab), not of latents.

    Raises:
        SettingError: the map has no weight.
    """
    _highest(heat, 1)  # says so where it has no weight
    on = resize(np.asarray(change, np.float64), *heat.shape)
    total = float(on.sum())
    if not total:
        effect = 0.0 if is_seen else None
        return Explained(name, edit, None, 0.0, None, len(controls), None, effect)
    changed = top_places(on)
    count = float(changed.sum())

    def share_on(chosen: Array) -> float:
        return float((chosen * on).sum() / total)

    others = [share_on(_highest(control, count)) for control in controls]
    return Explained(
        name=name,
        edit=edit,
        share=share_on(_highest(heat, count)),
        chance=count / heat.size,
        control=float(np.mean(others)) if others else None,
        controls=len(others),
        best=share_on(changed),
        effect=noticeable(change) if is_seen else None,
    )


def top_places(values: Array, mass: float = MOST) -> Array:
    """The fewest places that together hold `mass` of a map or change, highest first.

    Returns:
        float64 `[H, W]`: 1 for a place that belongs, 0 for one that does not; places that tie for
        the last seats share them.

    Raises:
        SettingError: it is 0 everywhere.
    """
    ranked = np.sort(np.asarray(values, np.float64).ravel())[::-1]
    held = np.cumsum(ranked) / max(ranked.sum(), np.finfo(float).tiny)
    return _highest(values, int(np.searchsorted(held, mass * (1 - 1e-12)) + 1))


def _highest(values: Array, count: float) -> Array:
    """The `count` highest places as 1, all others 0; ties for the last seats share them."""
    values = np.asarray(values, np.float64)
    if not values.any():
        raise SettingError("a map that is 0 everywhere has no highest places")
    threshold = np.sort(values.ravel())[-max(1, round(count))]
    above, tied = values > threshold, values == threshold
    return above + (count - above.sum()) / tied.sum() * tied


def _percent(share: float | None) -> str:
    return "undefined" if share is None else percent(share)
