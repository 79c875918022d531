"""Two traces whose difference is known."""

import numpy as np
import pytest
from small_traces import plain_trace

from scribblediffusion.analysis.difference import compare


def test_difference_of_a_trace_with_itself_and_with_a_shifted_one(small):
    same = compare(small, small)
    assert [w.name for w in same.words] == ["a", "cat", "a (2)", "hat"]
    assert all(w.moved == 0 and w.correlation == pytest.approx(1) for w in same.words)
    left, right = np.zeros((1, 2, 4, 4)), np.zeros((1, 2, 8, 8))
    left[:, 0, 1, 0] = right[:, 0, 2:4, 6:8] = 1
    left[:, 1] = 1 - left[:, 0]
    right[:, 1] = 1 - right[:, 0]
    found = compare(plain_trace(left, ["cat", "sat"]), plain_trace(right, ["Cat", "mat"]))
    (cat,) = found.words
    assert cat.moved == pytest.approx(1)
    assert cat.shift == pytest.approx((0.75, 0.0))
    assert cat.change.shape == (8, 8)
    assert cat.change.sum() == pytest.approx(0, abs=1e-12)
    assert (found.only_first, found.only_second) == (("sat",), ("mat",))
    assert "only in the first: sat" in str(found)
    apart = compare(plain_trace(left, ["cat", "sat"]), plain_trace(right, ["dog", "mat"]))
    assert apart.words == ()
    assert "no word is in both" in str(apart)
