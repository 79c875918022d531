"""Measures of a picture against its sketch and its caption (pure: arrays in, numbers out)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.morphology import disk

from scribblediffusion.train.objects import dominant_family

#: How far, in pixels of a 256-pixel picture, a line may lie from its ink.
REACH = 3
#: A pixel is dark where its brightest channel is below this (0–255).
DARK = 72
#: What survives an opening with this radius is a filled area, not a line.
LINE_RADIUS = 6


@dataclass(frozen=True)
class Fidelity:
    """How well a picture's dark lines follow the ink.

    Attributes:
        precision: share of dark line pixels with ink within 3 px.
        recall: share of ink pixels with a dark pixel within 3 px.
    """

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of the two; 0 where both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def dark(picture: np.ndarray) -> np.ndarray:
    """Where a picture `[H, W, 3]` uint8 is dark, `[H, W]` bool."""
    return picture.max(-1) < DARK


def lines(mask: np.ndarray) -> np.ndarray:
    """A dark mask without its filled areas: what an opening takes away."""
    filled = ndimage.binary_opening(mask, disk(LINE_RADIUS))
    return mask & ~np.asarray(ndimage.binary_dilation(filled, disk(2)), bool)


def _near(points: np.ndarray, target: np.ndarray) -> float:
    """Share of `points` that have a pixel of `target` within `REACH`."""
    if not points.any():
        return 1.0 if not target.any() else 0.0
    if not target.any():
        return 0.0
    distance = np.asarray(ndimage.distance_transform_edt(~target))
    return float((distance[points] <= REACH).mean())


def fidelity(picture: np.ndarray, ink: np.ndarray) -> Fidelity:
    """Sketch fidelity.

    Args:
        picture: `[H, W, 3]` uint8.
        ink: `[H, W]` bool, True where the sketch has ink.
    """
    seen = dark(picture)
    return Fidelity(precision=_near(lines(seen), ink), recall=_near(ink, seen))


def fill_family(picture: np.ndarray, mask: np.ndarray) -> str:
    """The palette family that most of an object's fill has in a picture.

    Args:
        picture: `[H, W, 3]` uint8.
        mask: `[H, W]` bool, the object; its rim and dark lines are left out.
    """
    lines_and_rim = np.asarray(ndimage.binary_dilation(dark(picture)), bool)
    inner = np.asarray(ndimage.binary_erosion(mask, iterations=2)) & ~lines_and_rim
    inner = inner if inner.sum() >= 16 else mask
    return dominant_family(picture[inner])
