"""From one grid of places to another by overlapping areas: nothing is invented or lost.

Every output cell is the mean of the input it covers, weighted by area. The weights of a cell sum
to 1, so a sum over keys stays 1; the mean over places is kept exactly. Enlarging by a whole
number repeats cells; smooth enlargement for the eye belongs to `view`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def area_matrix(source: int, target: int) -> np.ndarray:
    """Rows of area weights: float64 ``[target, source]``, each row sums to 1.

    >>> area_matrix(4, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    edges = np.arange(target + 1) * (source / target)
    cells = np.arange(source)
    top = np.minimum(edges[1:, None], cells + 1)
    overlap = np.clip(top - np.maximum(edges[:-1, None], cells), 0, None)
    matrix = overlap / overlap.sum(axis=1, keepdims=True)
    matrix.setflags(write=False)
    return matrix


def resize(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area-resize ``[..., h, w]`` to ``[..., height, width]``; the dtype is kept."""
    h, w = maps.shape[-2:]
    if (h, w) == (height, width):
        return maps
    rows = area_matrix(h, height).astype(maps.dtype)
    columns = area_matrix(w, width).astype(maps.dtype)
    return rows @ maps @ columns.T
