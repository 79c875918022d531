"""Colours, scales and overlays."""

import numpy as np
import pytest
from PIL import Image
from written import Written

from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import SettingError
from scribblediffusion.view.colour import DARK, LIGHT, Scale, table, theme
from scribblediffusion.view.evolution import Evolution, EvolutionStyle
from scribblediffusion.view.heatmap import (
    HeatStyle,
    as_image,
    blended,
    coloured,
    enlarged,
    fitted_box,
    overlay,
)


def test_true_resolution_repeats_places_and_smooth_stays_in_range():
    rng = np.random.default_rng(0)
    values = rng.random((4, 4)).astype(np.float32)
    squares = enlarged(values, (32, 64), smooth=False)
    np.testing.assert_array_equal(squares, np.kron(values, np.ones((16, 8), np.float32)))
    smooth = enlarged(values, (32, 64))
    assert smooth.shape == (64, 32)
    assert values.min() <= smooth.min()
    assert smooth.max() <= values.max()
    np.testing.assert_allclose(enlarged(np.full((3, 3), 0.5), (9, 9)), 0.5, atol=1e-6)
    reduced = enlarged(values, (2, 2))
    np.testing.assert_allclose(reduced, values.reshape(2, 2, 2, 2).mean(axis=(1, 3)), atol=1e-6)


def test_each_place_has_its_colour():
    values = np.array([[0.0, 0.5], [1.0, 2.0]])
    image = np.asarray(coloured(values, (2, 2), Scale(1.0), HeatStyle(smooth=False)))
    expected = table("inferno")[[[0, 127], [255, 255]]]
    np.testing.assert_array_equal(image, expected)


def test_opacity_runs_from_picture_to_map():
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    values, scale = np.eye(8) / 8, Scale(0.125)
    clear = blended(values, picture, scale, (8, 8), HeatStyle(opacity=0))
    np.testing.assert_array_equal(np.asarray(clear), picture)
    solid = blended(values, picture, scale, (8, 8), HeatStyle(opacity=1))
    np.testing.assert_array_equal(np.asarray(solid), np.asarray(coloured(values, (8, 8), scale)))
    lines = np.full((8, 8), 255, np.uint8)
    lines[4] = 0
    drawn = np.asarray(blended(values, picture, scale, (8, 8), HeatStyle(opacity=0), lines))
    assert (drawn[4] >= 200).all()
    np.testing.assert_array_equal(drawn[0], picture[0])


@pytest.mark.parametrize("sketch", [False, True])
def test_squares_of_a_map_stay_where_they_are_when_the_picture_is_doubled(sketch):
    rng = np.random.default_rng(0)
    picture = np.full((64, 64, 3), 120, np.uint8)
    lines = np.full((64, 64), 255, np.uint8)
    lines[30:34] = 0
    values, style = rng.random((8, 8)), HeatStyle(smooth=False)
    drawn = lines if sketch else None
    small, large = (
        np.asarray(blended(values, picture, Scale(1.0), size, style, drawn), int)
        for size in ((64, 64), (128, 128))
    )
    inside = np.arange(128) % 16
    inside = (inside > 0) & (inside < 15)
    inside[56:72] &= not sketch
    whole = small.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(large[inside][:, inside], whole[inside][:, inside])
    assert (large[62:66].min() >= 200) == sketch


def test_ink_darkens_the_map_and_paper_hardly_pales_it():
    """The formula that the docstring gives, computed with floats."""
    rng = np.random.default_rng(0)
    picture = np.repeat(rng.integers(0, 256, (16, 16, 1), dtype=np.uint8), 3, axis=2)
    values, style = rng.random((16, 16)), HeatStyle(opacity=0.72, smooth=False)
    drawn = np.asarray(blended(values, picture, Scale(1.0), (16, 16), style)) / 255
    heat = table("inferno")[(values * 255).astype(np.uint8)] / 255
    grey, ink, paper = picture / 255, 0.28, 0.28**1.5
    expected = heat * (1 - ink + ink * grey) + paper * grey * (1 - heat)
    np.testing.assert_allclose(drawn, expected, atol=2 / 255)
    usual = 0.72 * heat + 0.28 * grey
    assert np.abs(drawn - heat).mean() < np.abs(usual - heat).mean()


def test_an_overlay_has_the_pictures_proportions_and_says_how_it_was_enlarged():
    picture = Image.new("RGB", (300, 200))
    plain = overlay(np.ones((4, 6)) / 24, picture, size=150, bar=False)
    assert plain.size == (150, 100)
    assert overlay(np.ones((4, 6)) / 24, size=120, bar=False).size == (120, 80)
    assert HeatStyle().note((32, 48), (48, 32)) == "48 by 32 map, smoothly enlarged"
    assert HeatStyle(smooth=False).note((8, 8), (64, 64)) == "8 by 8 map, at its true resolution"
    light, dark = (overlay(np.eye(4), title="x", ground=g) for g in ("light", "dark"))
    assert light.getpixel((0, 0)) == LIGHT.ground
    assert dark.getpixel((0, 0)) == DARK.ground


@pytest.mark.parametrize("smooth", [True, False])
def test_a_map_larger_than_its_panel_is_said_to_be_reduced(smooth, monkeypatch):
    style = HeatStyle(smooth=smooth)
    page = Written(monkeypatch)
    overlay(np.ones((128, 128)), style=style, size=96)
    weights = np.full((2, 2, 128, 128), 0.5)
    weights[:, 0, 3, 3], weights[:, 1, 3, 3] = 0.9, 0.1
    trace = AttentionTrace.from_arrays({"l": weights[:, None, None]}, tokens=["cat", "[SEP]"])
    Evolution.of(trace, "cat", style=EvolutionStyle(panel=96, heat=style)).frame(0)
    said = [line[4] for line in page.lines if "128 by 128 map" in line[4]]
    assert said == ["128 by 128 map, reduced"] * 2


@pytest.mark.parametrize("size", [96, 200, 512])
@pytest.mark.parametrize("shape", [(256, 256), (256, 64)])
def test_title_and_notes_are_whole_from_the_smallest_size_on(size, shape, monkeypatch):
    picture = np.zeros((*shape, 3), np.uint8)
    said = "sketch, middle of the lower edge (row 7, column 4 of 8 by 8) · Noise remaining: 75%"
    for title in ("“mushroom” · whole run", said):
        page = Written(monkeypatch)
        written = page.stands_well(overlay(np.eye(32), picture, title=title, size=size))
        assert title.split() == " ".join(written).split()[: len(title.split())]
        assert "32 by 32 map, smoothly enlarged" in written or size < 256
        assert not [line for line in written if "…" in line]


@pytest.mark.parametrize("size", [0, -4, 10, 95, 4097, float("nan")])
def test_a_size_that_nothing_can_be_seen_in_is_refused(size):
    for bar in (True, False):
        with pytest.raises(SettingError, match="from 96 to 4096 pixels"):
            overlay(np.eye(4), size=size, bar=bar)


def test_wrong_options_are_named():
    with pytest.raises(SettingError, match="opacity"):
        HeatStyle(opacity=1.2)
    with pytest.raises(SettingError, match="map of shape"):
        overlay(np.zeros((2, 2, 2)))
    with pytest.raises(SettingError, match="float64"):
        as_image(np.zeros((4, 4)))
    with pytest.raises(SettingError, match="light"):
        theme("grey")  # type: ignore[arg-type]
    assert fitted_box((1, 1000), 100) == (1, 100)
