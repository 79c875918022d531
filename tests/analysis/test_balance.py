"""Shares of the streams, from the raw weights."""

import numpy as np
import pytest
from small_traces import raw_of, two_streams

from scribblediffusion.analysis.balance import weigh_streams


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


STREAMS = {"text": range(4), "sketch": range(4, 6)}


def test_streams_are_weighed_per_step_layer_and_place_as_by_hand():
    trace, weights = two_streams()
    balance = weigh_streams(trace)
    assert set(balance.by_step) == set(balance.by_place) == set(STREAMS)
    for name, keys in STREAMS.items():
        raw = raw_of(weights, keys)
        expected = [raw[step].mean() for step in range(3)]
        assert balance.by_step[name] == pytest.approx(expected, abs=1e-6)
        assert balance.mean[name] == pytest.approx(raw.mean(), abs=1e-6)
        np.testing.assert_allclose(balance.by_place[name], raw.mean(axis=0), atol=1e-6)
        for layer, w in weights.items():
            alone = np.mean([w[:, :, k].mean() for k in keys]) * len(keys)
            assert balance.by_layer[layer][name] == pytest.approx(alone, abs=1e-6)
    assert set(balance.by_layer) == {"small", "large"}
    assert balance.by_layer["small"]["text"] != pytest.approx(
        balance.by_layer["large"]["text"], abs=1e-3
    )


def test_shares_of_words_regions_and_specials_are_as_by_hand():
    trace, weights = two_streams()
    balance = weigh_streams(trace)
    for ranked, expected in (
        (balance.words, {(1,), (2,)}),
        (balance.regions, {(4,), (5,)}),
        (balance.specials, {(0,), (3,)}),
    ):
        assert {s.subject.keys for s in ranked} == expected
        assert [s.share for s in ranked] == sorted((s.share for s in ranked), reverse=True)
        for share in ranked:
            by_step = raw_of(weights, share.subject.keys).mean(axis=(1, 2))
            assert share.by_step == pytest.approx(by_step.tolist(), abs=1e-6)
            assert share.share == pytest.approx(by_step.mean(), abs=1e-6)
            assert share.top_step == by_step.argmax()
