"""The regions heard, against the trace."""

import numpy as np
import pytest
from small_traces import plain_trace

from scribblediffusion.analysis.listening import listen
from scribblediffusion.errors import (
    SketchError,
    TraceError,
)
from scribblediffusion.sketch import REGIONS


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
