import numpy as np
import pytest
from scipy import stats

from scribblediffusion.evaluate.intervals import Interval, mean_interval, share_interval


def test_the_interval_of_many_scenes_is_that_of_the_normal_distribution():
    rng = np.random.default_rng(1)
    values = rng.normal(0.5, 0.2, 400)
    found = mean_interval(values, np.ones(400))
    assert found is not None
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * stats.sem(values)
    assert found.low == pytest.approx(values.mean() - half, abs=0.003)
    assert found.high == pytest.approx(values.mean() + half, abs=0.003)


def test_it_holds_the_truth_in_nineteen_of_twenty():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        values = (rng.random(60) < 0.7).astype(float)
        found = mean_interval(values, np.ones(60))
        assert found is not None
        held += found.low <= 0.7 <= found.high
    assert 178 <= held <= 200


def test_scenes_are_drawn_whole_and_weigh_by_their_cases():
    """Ten scenes whose cases agree tell no more than ten cases."""
    rng = np.random.default_rng(3)
    values = (rng.random(10) < 0.5).astype(float)
    alone = mean_interval(values, np.ones(10))
    many = mean_interval(50 * values, np.full(10, 50))
    assert alone is not None
    assert many is not None
    assert (alone.low, alone.high) == (many.low, many.high)
    assert many.count == 500
    uneven = mean_interval(np.array([3.0, 0.0]), np.array([3, 1]))
    assert uneven is not None
    assert uneven.value == 0.75


def test_scenes_without_a_case_and_nothing_at_all():
    found = mean_interval(np.array([1.0, 0.0]), np.array([1, 0]))
    assert found is not None
    assert (found.value, found.low, found.high, found.count) == (1, 1, 1, 1)
    assert mean_interval(np.zeros(3), np.zeros(3)) is None


def test_the_same_numbers_give_the_same_interval():
    values = np.arange(9.0)
    assert mean_interval(values, np.ones(9)) == mean_interval(values, np.ones(9))
    assert Interval(0.5, 0.4, 0.6, 3).number() == "0.50 [0.40, 0.60]"


def test_where_all_cases_are_alike_the_interval_has_a_width():
    """Clopper and Pearson's for n of n: the lower end is (α/2)^(1/n)."""
    found = share_interval(np.array([2, 1, 1]), np.array([2, 1, 1]))
    assert found is not None
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / 3))
    none = share_interval(np.zeros(4), np.ones(4))
    assert none is not None
    assert (none.low, none.high) == (0, pytest.approx(1 - 0.025 ** (1 / 4)))
    some = share_interval(np.array([1, 0, 1]), np.ones(3))
    assert some == mean_interval(np.array([1, 0, 1]), np.ones(3))
