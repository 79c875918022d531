"""Everything of one run."""

import numpy as np
from small_traces import plain_trace

from scribblediffusion.analysis.summary import summarise


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
