"""Every analysis number against an independent computation."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from scribblediffusion.analysis.balance import weigh_streams
from scribblediffusion.analysis.concentration import Shape, measure_concentration
from scribblediffusion.analysis.correlation import correlate_steps, pearson
from scribblediffusion.analysis.difference import compare
from scribblediffusion.analysis.listening import listen
from scribblediffusion.analysis.localisation import localise, localise_map
from scribblediffusion.analysis.subjects import StepMaps, find_subject, specials_of, words_of
from scribblediffusion.analysis.summary import summarise
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import (
    NoHeatMapError,
    NotRecordedError,
    SettingError,
    SketchError,
    TraceError,
    UnknownWordError,
)
from scribblediffusion.sketch import REGIONS, Region


def plain_trace(weights, tokens, **fields):
    """One layer from `[steps, keys, H, W]`."""
    return AttentionTrace.from_arrays({"layer": weights[:, None, None]}, tokens=tokens, **fields)


@pytest.fixture(scope="module")
def small():
    """Two layers on different grids with random weights, four words, one of them twice."""
    rng = np.random.default_rng(3)
    tokens = ["[CLS]", "a", "cat", "a", "hat"]

    def weights(side):
        w = rng.random((6, 1, 2, 5, side, side))
        return w / w.sum(axis=3, keepdims=True)

    return AttentionTrace.from_arrays({"one": weights(4), "two": weights(8)}, tokens=tokens)


def oracle_raw(trace, keys, step):
    """The mean of heads, then of layers on the larger grid, from the weights alone."""
    maps = []
    for layer in trace.layers:
        raw = trace.weights(layer=layer.name, step=step)[0].mean(axis=0)[list(keys)].sum(axis=0)
        grid = raw.reshape(layer.height, layer.width)
        maps.append(np.kron(grid, np.ones((8 // layer.height, 8 // layer.width))))
    return np.mean(maps, axis=0)


def test_step_maps_are_the_trace_itself(small):
    maps = StepMaps.read(small)
    np.testing.assert_allclose(maps.raw.sum(axis=1), 1, atol=1e-6)
    for name, keys in (("cat", [2]), ("hat", [4])):
        found = maps.of(find_subject(small, name))
        for step in range(6):
            np.testing.assert_allclose(found[step], oracle_raw(small, keys, step), atol=1e-6)
    heat = maps.heat(find_subject(small, "cat"))
    np.testing.assert_allclose(heat.sum(axis=(1, 2)), 1)
    np.testing.assert_allclose(heat[2], small.word("cat", step=2), atol=1e-7)


def test_repeated_words_are_separate_subjects_and_unknown_ones_are_named(small):
    assert [w.name for w in words_of(small)] == ["a (1)", "cat", "a (2)", "hat"]
    assert find_subject(small, "a", occurrence=1).keys == (3,)
    assert find_subject(small, "cat a").keys == (2, 3)
    assert find_subject(small, 0).special
    with pytest.raises(UnknownWordError, match="cat"):
        find_subject(small, "dog")
    with pytest.raises(UnknownWordError, match="2 time"):
        find_subject(small, "a", occurrence=2)
    with pytest.raises(NotRecordedError):
        find_subject(small, 99)
    with pytest.raises(TraceError, match="no regions"):
        find_subject(small, Region(8, 0, 0))


def test_correlation_is_pearsons_between_all_steps(small):
    found = correlate_steps(small, "hat")
    for i in range(6):
        for j in range(6):
            a, b = oracle_raw(small, [4], i).ravel(), oracle_raw(small, [4], j).ravel()
            assert found.matrix[i][j] == pytest.approx(stats.pearsonr(a, b)[0], abs=1e-5)
    assert found.with_last[-1] == pytest.approx(1)
    assert "r with last" in str(found)
    assert "<table" in found._repr_html_()


def steps_like(*maps):
    """A trace of one word with these raw maps, and the rest of the attention on another."""
    word = np.stack(maps)[:, None] * 0.5
    return plain_trace(np.concatenate([word, 1 - word], axis=1), ["cat", "[SEP]"])


def test_settled_is_where_it_stays_above_095():
    rng = np.random.default_rng(0)
    last, other = rng.random((8, 8)), rng.random((8, 8))
    close = 0.9 * last + 0.1 * rng.random((8, 8))
    found = correlate_steps(steps_like(close, other, close, last), "cat")
    assert found.settled == 2
    assert found.verdict == "settled at noise 50 %"
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


def test_stream_shares_sum_to_one_per_step_layer_and_place(trace):
    balance = weigh_streams(trace)
    raw = trace.weights(layer=0, step=3)[0, 0]
    assert balance.by_step["text"][3] == pytest.approx(raw[:9].sum(axis=0).mean(), abs=1e-6)
    assert balance.by_step["sketch"][3] == pytest.approx(raw[9:].sum(axis=0).mean(), abs=1e-6)
    for step in range(20):
        assert sum(s[step] for s in balance.by_step.values()) == pytest.approx(1, abs=1e-5)
    for shares in balance.by_layer.values():
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(sum(balance.by_place.values()), 1, atol=1e-5)
    assert [s.subject.name for s in balance.specials] == ["[CLS]", "[SEP]"]
    assert balance.words[0].share == max(s.share for s in balance.words)
    together = sum(s.share for s in (*balance.words, *balance.regions, *balance.specials))
    assert together == pytest.approx(1, abs=1e-5)
    assert "leading words" in str(balance)


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
    assert flat.measured.auc == pytest.approx(0.5)
    assert flat.measured.pointing == pytest.approx(on.mean())


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


def test_regions_heard_join_the_drawing_and_the_attention(trace, bare_trace):
    heard = listen(trace)
    assert {r.description.region for r in heard.regions} == set(REGIONS)
    shares = [r.share for r in heard.regions]
    assert shares == sorted(shares, reverse=True)
    first = heard.regions[0]
    region = first.description.region
    by_step = [
        trace.region(region.row, region.column, region.level, view="attention", step=s).mean()
        for s in range(20)
    ]
    assert first.share == pytest.approx(np.mean(by_step), abs=1e-6)
    assert first.noise == trace.steps[int(np.argmax(by_step))].noise_remaining
    assert str(first).endswith("listened to most at noise 100 %")
    assert all(r.description.features for r in heard.leading(5))
    with pytest.raises(SketchError):
        listen(bare_trace)
    with pytest.raises(TraceError, match="no sketch regions"):
        listen(plain_trace(np.full((1, 2, 4, 4), 0.5), ["a", "b"]))


def test_the_summary_says_it_all_and_works_without_words(trace):
    summary = summarise(trace)
    assert summary.leading_word is not None
    assert summary.leading_word.name in {"red", "apple"}
    text = str(summary)
    assert "kite" in text
    assert "audit: none" in text
    wordless = summarise(plain_trace(np.full((2, 2, 4, 4), 0.5), ["[CLS]", "[SEP]"]))
    assert wordless.words == ()
    assert wordless.leading_word is None
    assert "<div>" in wordless._repr_html_()
