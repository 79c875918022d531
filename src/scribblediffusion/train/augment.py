"""Sketches as a freehand drawer gives them: other pens, gaps, strokes left out, a shifted hand.

The picture stays as it is, so that the model learns what a drawing means and not its pixels
alone. Evaluation draws without any of this.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.morphology import thin

#: How often each happens to a sketch, independently of the others.
PENS, GAPS, MISSING, SHIFTED, SOFT = 0.4, 0.2, 0.1, 0.2, 0.5
#: Pens other than the picture's own: pixels that a line gains or loses at each of its edges.
EDGES = (-1, -1, 1, 2)
#: Pixels that a sketch may lie beside its picture, at most, in each direction.
OFFSET = 2


def freehand(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One sketch, less perfect.

    Args:
        ink: `[256, 256]` uint8, 1 where there is ink.
        rng: decides; the same state gives the same drawing.

    Returns:
        `[256, 256]` float32 in 0–1; never without ink where there was some.
    """
    drawn = ink.astype(bool)
    if rng.random() < PENS:
        drawn = _with_pen(drawn, int(rng.choice(EDGES)))
    if rng.random() < GAPS:
        drawn = _erased(drawn, rng, count=int(rng.integers(1, 5)), radius=(3, 8))
    if rng.random() < MISSING:
        drawn = _erased(drawn, rng, count=1, radius=(12, 26))
    if rng.random() < SHIFTED:
        drawn = _shifted(drawn, *rng.integers(-OFFSET, OFFSET + 1, 2))
    if drawn.sum() < 0.4 * ink.sum():  # a small drawing may have vanished: keep it
        drawn = ink.astype(bool)
    soft = rng.random() < SOFT
    return _softened(drawn) if soft else drawn.astype(np.float32)


def _with_pen(drawn: np.ndarray, edge: int) -> np.ndarray:
    """Lines `edge` pixels wider on either side; thinner ones stay unbroken."""
    if edge < 0:
        return thin(drawn, max_num_iter=-edge)
    return ndimage.binary_dilation(drawn, iterations=edge)


def _erased(
    drawn: np.ndarray, rng: np.random.Generator, count: int, radius: tuple[int, int]
) -> np.ndarray:
    """Discs around `count` places of the ink taken away."""
    places = np.argwhere(drawn)
    if not len(places):
        return drawn
    rows, columns = np.ogrid[: drawn.shape[0], : drawn.shape[1]]
    left = drawn.copy()
    for row, column in places[rng.integers(len(places), size=count)]:
        reach = rng.integers(radius[0], radius[1] + 1)
        left &= (rows - row) ** 2 + (columns - column) ** 2 > reach**2
    return left


def _shifted(drawn: np.ndarray, down: int, right: int) -> np.ndarray:
    """Moved by whole pixels; what leaves the paper is gone, what enters is blank."""
    moved = np.zeros_like(drawn)
    height, width = drawn.shape
    source = drawn[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = source
    return moved


def _softened(drawn: np.ndarray) -> np.ndarray:
    """Edges as a resized drawing has them: a 3×3 binomial blur, contrast restored by a half."""
    blurred = ndimage.correlate1d(drawn.astype(np.float32), [0.25, 0.5, 0.25], axis=0)
    blurred = ndimage.correlate1d(blurred, [0.25, 0.5, 0.25], axis=1)
    return np.clip(1.5 * blurred - 0.25, 0, 1)
