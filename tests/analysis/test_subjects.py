"""Names, and raw maps, against the trace's own weights."""

import dataclasses

import numpy as np
import pytest
from small_traces import oracle_raw

from scribblediffusion.analysis.subjects import StepMaps, find_subject, words_of
from scribblediffusion.analysis.summary import summarise
from scribblediffusion.errors import (
    NotRecordedError,
    TraceError,
    UnknownWordError,
)
from scribblediffusion.sketch import Region
from scribblediffusion.view.evolution import Evolution


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


def test_a_trace_without_steps_is_named(small):
    empty = dataclasses.replace(small, records={}, steps=(), thinned=("none was kept",))
    for read in (StepMaps.read, summarise, lambda trace: Evolution.of(trace, "cat")):
        with pytest.raises(NotRecordedError, match=r"no step was recorded.*none was kept"):
            read(empty)
