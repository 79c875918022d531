"""Pearson's r against scipy's; settled; undefined."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from small_traces import oracle_raw, steps_like

from scribblediffusion.analysis.correlation import correlate_steps, pearson


def test_correlation_is_pearsons_between_all_steps(small):
    found = correlate_steps(small, "hat")
    for i in range(6):
        for j in range(6):
            a, b = oracle_raw(small, [4], i).ravel(), oracle_raw(small, [4], j).ravel()
            assert found.matrix[i][j] == pytest.approx(stats.pearsonr(a, b)[0], abs=1e-5)
    assert found.with_last[-1] == pytest.approx(1)
    assert "r with last" in str(found)
    assert "<table" in found._repr_html_()


def test_settled_is_where_it_stays_above_095():
    rng = np.random.default_rng(0)
    last, other = rng.random((8, 8)), rng.random((8, 8))
    close = 0.9 * last + 0.1 * rng.random((8, 8))
    found = correlate_steps(steps_like(close, other, close, last), "cat")
    assert found.settled == 2
    assert found.verdict == "settled at noise 50 %"
    unknown = dataclasses.replace(found, noise=(None,) * 4)
    assert unknown.verdict == "settled at step 3"
    assert correlate_steps(steps_like(last), "cat").verdict == "one step only"
    late = correlate_steps(steps_like(last, close, other, last), "cat")
    assert late.settled == 3
    assert "still changing" in late.verdict


def test_a_constant_map_has_no_correlation_and_says_so():
    rng = np.random.default_rng(0)
    flat, map_ = np.full((8, 8), 0.3), rng.random((8, 8))
    found = correlate_steps(steps_like(flat, map_, map_), "cat")
    assert found.matrix[0] == (None, None, None)
    assert found.matrix[1][2] == pytest.approx(1)
    assert found.constant == (0,)
    assert "undefined" in str(found)
    assert "nan" not in str(found)
    gone = correlate_steps(steps_like(map_, flat), "cat")
    assert gone.settled is None
    assert "undefined" in gone.verdict
    assert pearson(flat, map_) is None


def test_each_step_with_the_last_as_worked_out_by_hand():
    first, half, last = ([0.1, 0.1, 0.1, 0.3], [0.2, 0.1, 0.1, 0.0], [0.4, 0.2, 0.2, 0.0])
    found = correlate_steps(
        steps_like(*(np.reshape(m, (2, 2)) for m in (first, half, last))), "cat"
    )
    # (-1, -1, -1, 3)/20 · (1, 0, 0, -1)/5 = -1/25, over √(3/100) · √(2/25).
    assert found.with_last == pytest.approx((-math.sqrt(2 / 3), 1, 1), abs=1e-5)
    assert found.settled == 1
    assert found.noise[1] == pytest.approx(2 / 3)
