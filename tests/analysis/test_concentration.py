"""Entropy, peak, centre, spread, and who did nothing."""

import numpy as np
import pytest
from scipy import stats
from small_traces import plain_trace, raw_of, two_streams

from scribblediffusion.analysis.concentration import Shape, measure_concentration
from scribblediffusion.analysis.subjects import specials_of
from scribblediffusion.errors import (
    NoHeatMapError,
)


def test_shape_of_known_maps():
    even = Shape.of(np.ones((4, 8)))
    assert (even.entropy, even.evenness, even.peak) == pytest.approx((5.0, 1.0, 1.0))
    assert even.centre == pytest.approx((0.5, 0.5))
    one = np.zeros((4, 8))
    one[1, 6] = 3.0
    point = Shape.of(one)
    assert (point.entropy, point.peak, point.spread) == (0.0, 32.0, 0.0)
    assert point.centre == point.peak_at == pytest.approx((6.5 / 8, 1.5 / 4))
    rng = np.random.default_rng(1)
    heat = rng.random((5, 5))
    p = heat.ravel() / heat.sum()
    assert Shape.of(heat).entropy == pytest.approx(stats.entropy(p, base=2))
    x, y = np.meshgrid((np.arange(5) + 0.5) / 5, (np.arange(5) + 0.5) / 5)
    variance = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=p, ddof=0).trace()
    assert Shape.of(heat).spread == pytest.approx(np.sqrt(variance))
    with pytest.raises(NoHeatMapError):
        Shape.of(np.zeros((3, 3)))


def test_words_that_did_nothing_are_named_and_special_tokens_shown_for_what_they_are():
    weights = np.zeros((2, 5, 4, 4))
    weights[:, 0] = 0.55
    weights[:, 1] = 0.3
    weights[:, 2] = 0.15  # below the even share of 1/5 everywhere
    found = measure_concentration(plain_trace(weights, ["[CLS]", "cat", "of", "zzz", "[PAD]"]))
    assert {e.subject.name: e.role for e in found.entries} == {
        "cat": "word", "of": "idle", "zzz": "silent", "[CLS]": "special", "[PAD]": "special",
    }  # fmt: skip
    assert found.idle == ("of", "zzz")
    assert found["zzz"].shape is None
    assert "did nothing: of, zzz" in str(found)
    assert "no word: start, end or padding" in str(found)
    padded = np.full((1, 4, 2, 2), 0.25)
    names = [s.name for s in specials_of(plain_trace(padded, ["[CLS]", "[PAD]", "[PAD]", "[PAD]"]))]
    assert names == ["[CLS]", "padding (3 tokens)"]


def test_share_and_most_are_as_by_hand():
    trace, weights = two_streams()
    found = measure_concentration(trace)
    assert {e.subject.name for e in found.entries} == {"a", "cat", "[CLS]", "[SEP]"}
    for entry in found.entries:
        raw = raw_of(weights, entry.subject.keys)
        assert entry.share == pytest.approx(raw.mean(), abs=1e-6)
        assert entry.most == pytest.approx(raw.max(), abs=1e-6)
        mean = raw.mean(axis=0)
        assert entry.shape is not None
        assert entry.shape.peak == pytest.approx(mean.max() / mean.mean(), abs=1e-4)
        for shape, one in zip(entry.by_step, raw, strict=True):
            assert shape is not None
            assert shape.peak == pytest.approx(one.max() / one.mean(), abs=1e-4)
