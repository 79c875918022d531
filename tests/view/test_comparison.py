import dataclasses

import numpy as np
import pytest
from painted import make_trace
from written import Written

from scribblediffusion.analysis.difference import compare
from scribblediffusion.view import comparison as view
from scribblediffusion.view.comparison import WORDS, comparison
from scribblediffusion.view.heatmap import HeatStyle


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


@pytest.mark.parametrize(("smooth", "how"), [(True, "smoothly enlarged"),
                                            (False, "at its true resolution")])  # fmt: skip
def test_the_resolution_of_both_runs_is_told(monkeypatch, small, smooth, how):
    style, large = HeatStyle(smooth=smooth), make_trace(steps=2, grid=16)
    said = {}
    for name, second in (("same", small), ("other", large)):
        written = Written(monkeypatch)
        page = comparison(compare(small, second), small, second, style=style)
        said[name] = written.stands_well(page)
    assert f"8 by 8 map, {how}" in said["same"]
    assert f"16 by 16 map, {how}" in said["other"]
    assert "the 8 by 8 map of the run before is spread over 16 by 16" in said["other"]
    assert not any("differ in shape" in line or "…" in line for line in said["other"])


def test_a_change_at_its_true_resolution_is_squares(small):
    other = dataclasses.replace(
        small, records={k: v[..., ::-1].copy() for k, v in small.records.items()}
    )
    page = comparison(compare(small, other), small, other, style=HeatStyle(smooth=False))
    cell = np.asarray(page)[104 + 2 * 216 :, -228:-28][:200]  # "apple"
    squares = cell.reshape(8, 25, 8, 25, 3)
    assert np.ptp(squares, axis=(1, 3)).max() == 0
    assert np.ptp(cell) > 50


def test_each_run_keeps_its_own_proportions(monkeypatch, small):
    red = np.zeros((96, 160, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    wide = dataclasses.replace(small, pictures=(red,))
    tall = dataclasses.replace(small, pictures=(np.zeros((256, 64, 3), np.uint8),))
    drawn, written = [], Written(monkeypatch)
    blend = view.blended
    monkeypatch.setattr(view, "blended", lambda *a: drawn.append((a[1].shape, a[3])) or blend(*a))
    page = comparison(compare(wide, tall), wide, tall)
    said = written.stands_well(page)
    assert "the pictures differ in shape: the change is drawn in that of the first" in said
    for (height, width, _), size in drawn:
        assert size[0] / size[1] == pytest.approx(width / height, abs=0.05)
    assert {size for _, size in drawn} == {(200, 120), (50, 200)}


def test_many_words_are_cut_to_those_that_moved_most(small):
    found = compare(small, small)
    one = found.words[0]
    many = dataclasses.replace(found, words=tuple(
        dataclasses.replace(one, name=f"word{i}", moved=i / 100) for i in range(WORDS + 3)
    ))  # fmt: skip
    few = dataclasses.replace(many, words=many.words[3:])
    sizes = [comparison(found, small, small).size for found in (many, few)]
    assert sizes[0] == (sizes[1][0], sizes[1][1] + 20)  # a note says how many are left out


def test_no_shared_word_still_makes_a_picture(small):
    none = dataclasses.replace(compare(small, small), words=())
    assert comparison(none, small, small).width > 300
