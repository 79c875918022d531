"""Shares of the streams, from the raw weights."""

import numpy as np
import pytest

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
