"""Against sets, scipy's U, and many random maps."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from small_traces import plain_trace

from scribblediffusion.analysis.localisation import localise, localise_map, measure
from scribblediffusion.errors import (
    SettingError,
)


def test_localisation_of_a_perfect_and_of_a_random_map():
    mask = np.zeros((64, 64), bool)
    mask[8:24, 16:40] = True
    heat = np.where(mask.reshape(16, 4, 16, 4).mean(axis=(1, 3)) >= 0.5, 0.9, 0.1)
    perfect = localise_map(heat, mask)
    assert dataclasses.astuple(perfect.measured) == pytest.approx((1, 1, 1))
    assert perfect.control is None
    assert perfect.area == pytest.approx(mask.mean())
    rng = np.random.default_rng(0)
    found = [localise_map(rng.random((16, 16)), mask).measured for _ in range(400)]
    chance = perfect.chance
    assert np.mean([m.pointing for m in found]) == pytest.approx(chance.pointing, abs=0.04)
    assert np.mean([m.iou for m in found]) == pytest.approx(chance.iou, abs=0.01)
    assert np.mean([m.auc for m in found]) == pytest.approx(chance.auc, abs=0.02)


def test_localisation_against_sets_and_the_mann_whitney_statistic():
    rng = np.random.default_rng(5)
    heat, on = rng.random((8, 8)), rng.random((8, 8)) < 0.3
    found = localise_map(heat, on).measured
    top = set(np.argsort(heat.ravel())[-on.sum() :])
    object_ = set(np.flatnonzero(on))
    assert found.iou == pytest.approx(len(top & object_) / len(top | object_))
    u = stats.mannwhitneyu(heat[on], heat[~on]).statistic
    assert found.auc == pytest.approx(u / (on.sum() * (~on).sum()))
    assert found.pointing == float(on.ravel()[heat.argmax()])
    flat = localise_map(np.ones((8, 8)), on)
    assert flat.measured == flat.chance


def test_the_iou_of_a_map_with_ties_is_the_mean_over_all_ways_to_break_them():
    """One place is sure; of the four that tie for two seats one is on the object."""
    heat = np.array([[3, 2, 2, 0], [2, 2, 1, 0], [0, 0, 0, 0]])
    on = np.zeros((3, 4), bool)
    on[0, :2] = on[2, 3] = True
    found = localise_map(heat, on).measured
    assert found.iou == pytest.approx((1 / 5 + 2 / 4) / 2)


def test_localisation_of_a_word_beats_chance_and_the_other_words(trace):
    y, x = np.mgrid[:256, :256]
    mask = np.hypot(x - 0.32 * 256, y - 0.3 * 256) < 41
    found = localise(trace, "apple", mask)
    assert found.measured.pointing == 1
    assert found.measured.iou > 0.9 > 0.5 > found.chance.iou
    assert found.controls == 6
    assert found.control is not None
    assert found.control.iou < found.measured.iou
    assert "chance" in str(found)
    for bad in (np.zeros((8, 8)), np.ones((8, 8)), np.ones(8)):
        with pytest.raises(SettingError):
            localise(trace, "apple", bad)


def test_many_maps_at_once_are_the_maps_one_by_one_ties_included():
    rng = np.random.default_rng(8)
    maps = rng.integers(0, 4, (2, 3, 6, 5)).astype(float)
    on = rng.random((6, 5)) < 0.4
    together = measure(maps, on)
    assert together.shape == (2, 3, 3)
    for index in np.ndindex(2, 3):
        one = localise_map(maps[index], on).measured
        assert together[index] == pytest.approx(dataclasses.astuple(one))
    assert measure(7 * maps, on) == pytest.approx(together)


def test_the_wrong_object_is_where_a_good_map_is_not():
    left, right = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    left[2:8, 1:7] = right[8:14, 9:15] = True
    found = localise_map(left + 0.01, left, elsewhere=[right])
    assert found.elsewhere is not None
    assert found.elsewhere_chance is not None
    assert found.elsewhere.pointing == found.elsewhere.iou == 0
    assert found.elsewhere.auc < 0.5
    assert found.elsewhere_chance.pointing == pytest.approx(36 / 256)
    assert "on another object" in str(found)
    assert localise_map(left, left).elsewhere is None


def test_the_control_is_the_mean_of_the_other_words_each_measured_by_hand():
    on = np.array([[True, False], [False, False]])
    controls = [
        np.array([[9.0, 1.0], [2.0, 3.0]]),  # 1, 1, 1
        np.array([[0.2, 0.5], [0.1, 0.2]]),  # 0, 0, (0 + 1 + 1/2) / 3
        np.ones((2, 2)),  # 1/4, the right one of four places, 1/2
    ]
    found = localise_map(np.array([[1.0, 0.0], [0.0, 0.0]]), on, controls)
    assert found.controls == 3
    assert found.control is not None
    means = ((1 + 0 + 1 / 4) / 3, (1 + 0 + 1 / 4) / 3, (1 + 1 / 2 + 1 / 2) / 3)
    assert dataclasses.astuple(found.control) == pytest.approx(means)
    assert dataclasses.astuple(found.chance) == pytest.approx((1 / 4, 1 / 4, 1 / 2))


def test_controls_are_other_words_with_a_map_and_no_start_or_end():
    maps = {"[CLS]": [0.1] * 4, "cat": [0.6, 0.1, 0.1, 0.1], "dog": [0.1, 0.5, 0.1, 0.1],
            "gone": [0.0] * 4}  # fmt: skip
    words = np.array([list(maps.values())], float).reshape(1, 4, 2, 2)
    weights = np.concatenate([words, 1 - words.sum(axis=1, keepdims=True)], axis=1)
    mask = np.array([[1, 0], [0, 0]])
    found = localise(plain_trace(weights, [*maps, "[SEP]"]), "cat", mask)
    assert found.controls == 1
    assert found.control is not None
    # "dog" is highest beside the object, and ties with two of three places there.
    assert dataclasses.astuple(found.control) == pytest.approx((0, 0, (0 + 1 / 2 + 1 / 2) / 3))
    assert dataclasses.astuple(found.measured) == pytest.approx((1, 1, 1))
