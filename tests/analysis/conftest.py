"""Fixtures of the analysis tests."""

import numpy as np
import pytest

from scribblediffusion.attention.trace import AttentionTrace


@pytest.fixture(scope="session")
def small():
    """Two layers on different grids with random weights, four words, one of them twice."""
    rng = np.random.default_rng(3)
    tokens = ["[CLS]", "a", "cat", "a", "hat"]

    def weights(side):
        w = rng.random((6, 1, 2, 5, side, side))
        return w / w.sum(axis=3, keepdims=True)

    return AttentionTrace.from_arrays({"one": weights(4), "two": weights(8)}, tokens=tokens)
