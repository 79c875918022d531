"""Two traces whose difference is known."""

import math

import numpy as np
import pytest
from small_traces import plain_trace

from scribblediffusion.analysis.difference import compare


def test_difference_of_a_trace_with_itself_and_with_a_shifted_one(small):
    same = compare(small, small)
    assert [w.name for w in same.words] == ["a (1)", "cat", "a (2)", "hat"]
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


def test_a_word_that_only_one_of_them_repeats_is_the_same_word_in_both():
    maps = np.full((1, 4, 2, 2), 0.25)
    once = plain_trace(maps, ["a", "cat", "hat", "[SEP]"])
    twice = plain_trace(maps, ["A", "cat", "a", "[SEP]"])
    for first, second in ((once, twice), (twice, once)):
        assert [w.name for w in compare(first, second).words] == ["a (1)", "cat"]
    assert compare(once, twice).only_second == ("a (2)",)
    assert compare(twice, once).only_first == ("a (2)",)
    assert [w.name for w in compare(once, once).words] == ["a", "cat", "hat"]


def by_hand(cat, dog):
    """One step of 2 × 2 places: these maps of two words, and the rest on the end token."""
    words = np.array([[cat, dog]], float).reshape(1, 2, 2, 2)
    rest = 1 - words.sum(axis=1, keepdims=True)
    return plain_trace(np.concatenate([words, rest], axis=1), ["cat", "dog", "[SEP]"])


def test_every_number_of_a_word_is_as_worked_out_by_hand():
    found = compare(
        by_hand([0.4, 0.2, 0.2, 0.0], [0.1] * 4), by_hand([0.1, 0.1, 0.1, 0.3], [0.2] * 4)
    )
    cat, dog = found.words
    # Heat maps: 1/2, 1/4, 1/4, 0 and 1/6, 1/6, 1/6, 1/2.
    assert cat.before.ravel() == pytest.approx([1 / 2, 1 / 4, 1 / 4, 0], abs=1e-6)
    assert cat.after.ravel() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2], abs=1e-6)
    assert cat.change.ravel() == pytest.approx([-1 / 3, -1 / 12, -1 / 12, 1 / 2], abs=1e-6)
    assert cat.moved == pytest.approx((1 / 3 + 1 / 12 + 1 / 12 + 1 / 2) / 2, abs=1e-6)
    # (1/4, 0, 0, -1/4) · (-1, -1, -1, 3)/12 = -1/12, over √(1/8) · √(1/12).
    assert cat.correlation == pytest.approx(-math.sqrt(2 / 3), abs=1e-6)
    assert cat.shift == pytest.approx((5 / 24, 5 / 24), abs=1e-6)  # 5/12 goes half a width
    assert cat.shares == pytest.approx((0.8 / 4, 0.6 / 4), abs=1e-6)
    assert dog.correlation is None  # constant in both
    assert dog.moved == pytest.approx(0, abs=1e-6)
    assert dog.shares == pytest.approx((0.1, 0.2), abs=1e-6)
    assert found.without_map == ()


@pytest.mark.parametrize("silent", [0, 1])
def test_a_word_that_one_of_them_did_not_hear_is_named_and_has_no_numbers(silent):
    traces = [by_hand([0.4, 0.2, 0.2, 0.0], [0.0 if i == silent else 0.1] * 4) for i in (0, 1)]
    found = compare(*traces)
    assert [word.name for word in found.words] == ["cat"]
    assert found.without_map == ("dog",)
    assert "no weight in one of them: dog" in str(found)
