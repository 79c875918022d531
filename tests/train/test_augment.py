import numpy as np
import pytest
from scipy import ndimage

from scribblediffusion.train import augment
from scribblediffusion.train.augment import OFFSET, freehand


@pytest.fixture
def circle():
    rows, columns = np.ogrid[:256, :256]
    distance = np.hypot(rows - 128, columns - 128)
    return (np.abs(distance - 80) < 2).astype(np.uint8)


def only(monkeypatch, name):
    for each in ("PENS", "GAPS", "MISSING", "SHIFTED", "SOFT"):
        monkeypatch.setattr(augment, each, float(each == name))


def test_the_same_state_draws_the_same(circle):
    first = freehand(circle, np.random.default_rng(3))
    assert np.array_equal(first, freehand(circle, np.random.default_rng(3)))
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1


def test_nothing_happens_when_nothing_is_chosen(circle, monkeypatch):
    only(monkeypatch, None)
    assert np.array_equal(freehand(circle, np.random.default_rng(0)), circle)


def test_other_pens_draw_the_same_line(circle, monkeypatch):
    only(monkeypatch, "PENS")
    widths = set()
    for seed in range(40):
        drawn = freehand(circle, np.random.default_rng(seed))
        widths.add(int(drawn[128, 128:].sum()))
        assert ndimage.label(drawn, np.ones((3, 3)))[1] == 1
        assert ndimage.label(drawn == 0)[1] == 2  # closed: an inside and an outside
        reach = ndimage.binary_dilation(circle, np.ones((3, 3)), iterations=2)
        assert not drawn[~reach].any()
    assert len(widths) == 3
    assert circle[128, 128:].sum() not in widths


@pytest.mark.parametrize("name", ["GAPS", "MISSING"])
def test_ink_is_only_taken_away(circle, monkeypatch, name):
    only(monkeypatch, name)
    for seed in range(20):
        drawn = freehand(circle, np.random.default_rng(seed))
        assert (drawn <= circle).all()
        assert 0.4 * circle.sum() <= drawn.sum() < circle.sum()


def test_a_gap_opens_the_circle(circle, monkeypatch):
    only(monkeypatch, "MISSING")
    drawn = freehand(circle, np.random.default_rng(1)) > 0.5
    inside = ndimage.label(~drawn)[0]
    assert inside[128, 128] == inside[0, 0]


def test_a_shift_is_small_and_whole(circle, monkeypatch):
    only(monkeypatch, "SHIFTED")
    found = set()
    for seed in range(60):
        drawn = freehand(circle, np.random.default_rng(seed))
        down, right = np.round(np.argwhere(drawn > 0.5).mean(0) - 128).astype(int)
        assert np.array_equal(np.roll(circle, (down, right), (0, 1)), drawn)
        found.add((down, right))
    assert max(max(abs(a), abs(b)) for a, b in found) == OFFSET


def test_soft_edges_keep_the_line(circle, monkeypatch):
    only(monkeypatch, "SOFT")
    drawn = freehand(circle, np.random.default_rng(0))
    assert ((drawn > 0) & (drawn < 1)).any()
    assert (drawn[circle == 1] > 0.2).all()
    assert drawn.sum() == pytest.approx(circle.sum(), rel=0.1)


def test_a_dot_never_vanishes():
    dot = np.zeros((256, 256), np.uint8)
    dot[100:103, 50:53] = 1
    for seed in range(200):
        assert freehand(dot, np.random.default_rng(seed)).max() > 0.5


def test_a_blank_stays_blank():
    blank = np.zeros((256, 256), np.uint8)
    for seed in range(50):
        assert not freehand(blank, np.random.default_rng(seed)).any()
