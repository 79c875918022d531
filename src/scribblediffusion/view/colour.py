"""Colours: perceptual maps, the two grounds, and the scale that turns numbers into colours.

Nothing is ever stretched between its own minimum and maximum: a `Scale` begins at 0, is shared by
all the maps it was made for, and prints its numbers in the unit of its view.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scribblediffusion.errors import SettingError

Array = np.ndarray[Any, np.dtype[Any]]
Colour = tuple[int, int, int]
ColourMap = Literal["inferno", "cividis"]
Ground = Literal["light", "dark"]
#: Colour maps that are perceptually even; cividis reads the same with colour blindness.
COLOUR_MAPS: tuple[ColourMap, ...] = ("inferno", "cividis")


@functools.cache
def table(name: str) -> Array:
    """The 256 colours of a map, uint8 `[256, 3]`, read-only.

    Raises:
        SettingError: not one of `COLOUR_MAPS`.
    """
    if name not in COLOUR_MAPS:
        raise SettingError(f"colour map {name!r}: there are {', '.join(COLOUR_MAPS)}")
    from matplotlib import colormaps

    colours = (colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    colours.setflags(write=False)
    return colours


@dataclass(frozen=True)
class Theme:
    """The colours of one ground.

    Attributes:
        name: "light" or "dark".
        ground: behind everything.
        panel: behind a picture that does not fill its panel, and of the empty part of a track.
        text: what is to be read first.
        muted: captions and units.
        accent: the filled part of a track, outlines.
        streams: one colour for each stream in turn: text, sketch, others; told apart with colour
            blindness.
    """

    name: Ground
    ground: Colour
    panel: Colour
    text: Colour
    muted: Colour
    accent: Colour
    streams: tuple[Colour, ...]

    def ramp(self, colour: Colour, count: int) -> tuple[Colour, ...]:
        """Colours from the ground (without it) to `colour`: what soft edges are made of."""
        at = np.linspace(0, 1, count + 1)[1:, None]
        mixed = np.array(self.ground) * (1 - at) + np.array(colour) * at
        return tuple((int(r), int(g), int(b)) for r, g, b in mixed.round())


LIGHT = Theme(
    "light", (250, 250, 248), (232, 232, 228), (28, 28, 32), (104, 104, 112), (196, 78, 36),
    ((0, 95, 150), (196, 78, 36), (96, 96, 104), (150, 60, 190), (0, 150, 125), (90, 50, 0)),
)  # fmt: skip
DARK = Theme(
    "dark", (20, 21, 26), (44, 46, 54), (240, 240, 236), (160, 162, 172), (246, 146, 68),
    ((104, 178, 232), (246, 146, 68), (168, 168, 178), (200, 120, 240), (0, 150, 115),
     (248, 236, 150)),
)  # fmt: skip


def theme(ground: Ground | Theme) -> Theme:
    """The theme of a ground.

    Raises:
        SettingError: neither "light" nor "dark".
    """
    if isinstance(ground, Theme):
        return ground
    if ground not in ("light", "dark"):
        raise SettingError(f'ground {ground!r}: there are "light" and "dark"')
    return DARK if ground == "dark" else LIGHT


@dataclass(frozen=True)
class Scale:
    """From 0 to `top`: which number is which colour, and what it is called.

    Attributes:
        top: the number that the last colour stands for.
        factor: what numbers are multiplied by before they are printed.
        suffix: behind each printed number.
        unit: what the numbers are, in words.
    """

    top: float
    factor: float = 1.0
    suffix: str = ""
    unit: str = ""

    @classmethod
    def of_heat(cls, *maps: Array) -> Scale:
        """One scale for all these heat maps (each sums to 1): printed as multiples of even."""
        places = maps[0][..., :, :].shape[-1] * maps[0].shape[-2]
        return cls(_top(maps), places, "", "times the even share")

    @classmethod
    def of_attention(cls, *maps: Array) -> Scale:
        """One scale for all these raw maps (0…1): printed in per cent of a place's attention."""
        return cls(_top(maps), 100, "%", "of each place's attention")

    def fraction(self, values: Array) -> Array:
        """`values` as 0…1 of the scale; what is beyond the top is the top."""
        return np.clip(np.asarray(values, np.float32) / np.float32(self.top), 0, 1)

    def ticks(self, most: int = 4) -> tuple[tuple[float, str], ...]:
        """(0…1 along the scale, text) from 0 to the top, at round numbers, at most `most` + 1."""
        end = self.top * self.factor
        raw = end / most
        size = 10.0 ** np.floor(np.log10(raw))
        step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw * 0.999)
        digits = max(0, -int(np.floor(np.log10(step) + 1e-9)) + (step / size == 2.5))
        count = int(end / step + 1e-6)
        return tuple(
            (min(1.0, i * step / end), f"{i * step:.{digits}f}{self.suffix}")
            for i in range(count + 1)
        )


def _top(maps: Iterable[Array]) -> float:
    top = max(float(np.max(m)) for m in maps)
    if not np.isfinite(top):
        raise SettingError("a map holds numbers that are not finite: it has no scale")
    return top if top > 0 else 1.0
