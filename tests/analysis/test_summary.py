"""Everything of one run."""

import numpy as np
from small_traces import plain_trace

from scribblediffusion.analysis.difference import compare
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
    assert str(wordless).startswith("no prompt\n")
    assert str(compare(wordless.trace, trace)).startswith("no prompt against “a red apple")


def test_results_print_as_their_tables(trace):
    summary = summarise(trace)
    parts = [summary, summary.balance, summary.heard, summary.concentrations]
    for part in [*parts, summary.correlations[0], compare(trace, trace)]:
        assert repr(part) == str(part) == str(part.table())
        assert len(repr(part)) < 20_000


def test_the_leading_word_has_a_map_at_every_step_if_one_has():
    weights = np.full((2, 3, 4, 4), 0.3)
    weights[:, 0, 1, 1] = 0.6
    weights[0, 1] = 0  # "hat" is silent at the first step, and points best at the second
    weights[1, 1] = 0.001
    weights[1, 1, 2, 2] = 0.9
    weights /= weights.sum(axis=1, keepdims=True)
    found = summarise(plain_trace(weights, ["cat", "hat", "[SEP]"]))
    assert found.leading_word is not None
    assert found.leading_word.name == "cat"
