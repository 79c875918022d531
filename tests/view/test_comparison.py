import dataclasses

import numpy as np
import pytest
from painted import make_trace
from written import Written

from scribblediffusion.analysis.difference import compare
from scribblediffusion.view.comparison import WORDS, comparison


@pytest.fixture(scope="module")
def small():
    return make_trace(steps=2, grid=8)


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_a_run_against_itself_has_no_blue_and_no_orange(small, ground):
    bare = dataclasses.replace(small, pictures=())
    image = comparison(compare(bare, bare), bare, bare, ground=ground)
    left = image.width - 220
    pixels = np.asarray(image).astype(int)[100:-120, left:]
    assert np.ptp(pixels[..., 2] - pixels[..., 0]) < 10


def test_the_scale_of_changes_is_that_of_the_maps_where_nothing_changed(monkeypatch, small):
    written = Written(monkeypatch)
    said = written.stands_well(comparison(compare(small, small), small, small))
    ends = [text for text in said if text.startswith("+")]
    assert len(ends) == 1
    assert 0.5 < float(ends[0]) < 20


def test_a_slight_change_is_no_zero_on_the_scale(monkeypatch, small):
    written = Written(monkeypatch)
    found = compare(small, small)
    slight = [dataclasses.replace(w, change=w.before * 1e-3) for w in found.words]
    found = dataclasses.replace(found, words=type(found.words)(slight))
    said = written.stands_well(comparison(found, small, small))
    assert any(text.startswith("+0.00") for text in said)


def test_the_maps_are_those_of_the_words(small):
    found = compare(small, small)
    for word in found.words:
        assert word.before.sum() == pytest.approx(1)
        assert np.allclose(word.after - word.before, word.change)


@pytest.mark.parametrize("shape", [(256, 256), (60, 256), (256, 60)])
def test_the_text_of_every_shape_stands_well(monkeypatch, small, shape):
    written = Written(monkeypatch)
    one = dataclasses.replace(small, pictures=(np.zeros((*shape, 3), np.uint8),))
    said = written.stands_well(comparison(compare(one, one), one, one))
    assert "change" in said


def test_many_words_are_cut_to_those_that_moved_most(small):
    found = compare(small, small)
    one = found.words[0]
    many = dataclasses.replace(found, words=tuple(
        dataclasses.replace(one, name=f"word{i}", moved=i / 100) for i in range(WORDS + 3)
    ))  # fmt: skip
    few = dataclasses.replace(many, words=many.words[3:])
    assert comparison(many, small, small).size == comparison(few, small, small).size


def test_no_shared_word_still_makes_a_picture(small):
    none = dataclasses.replace(compare(small, small), words=())
    assert comparison(none, small, small).width > 300
