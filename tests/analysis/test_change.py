"""Explained change on maps and changes with known answers."""

import numpy as np
import pytest

from scribblediffusion.analysis.change import (
    explain_change,
    latent_change,
    noticeable,
    picture_change,
    top_places,
)
from scribblediffusion.errors import SettingError


def blob(rows, columns, side=32):
    heat = np.full((side, side), 1e-9)
    heat[rows, columns] = 1
    return heat


def test_change_in_lab_is_a_distance_that_people_see():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert np.allclose(picture_change(black, white), 100, atol=0.1)
    assert not picture_change(white, white).any()
    half = white.copy()
    half[0] = (255, 60, 60)
    assert noticeable(picture_change(white, half)) == 0.5
    hardly = np.full((2, 2, 3), 254, np.uint8)
    assert noticeable(picture_change(white, hardly)) == 0
    with pytest.raises(SettingError):
        picture_change(white, white[:1])


def test_latent_change_is_the_length_over_channels():
    before, after = np.zeros((4, 2, 2)), np.zeros((4, 2, 2))
    after[:2, 0, 0] = 3, 4
    assert latent_change(before, after).tolist() == [[5, 0], [0, 0]]


def test_a_map_on_the_change_explains_the_most_and_others_what_they_hold():
    heat = blob(slice(0, 16), slice(0, 16))
    change = np.zeros((256, 256))
    change[:128, :128] = 10
    elsewhere = blob(slice(16, 32), slice(16, 32))
    found = explain_change(heat, change, [elsewhere, heat], name="red")
    assert found.chance == pytest.approx(0.9 / 4, abs=0.001)
    assert found.share == found.best == pytest.approx(0.9, abs=0.005)
    assert found.control == pytest.approx(0.45, abs=0.005)
    assert found.effect == 0.25
    assert found.sentence == (
        "the map of red explains 90 % of what changed (chance 23 %, control 45 %)"
    )
    assert "best possible" in str(found)
    assert "other maps of its kind (2)" in str(found)


def test_a_map_that_meets_a_part_of_the_change_explains_that_part():
    heat, change = np.full((32, 32), 1e-3), np.zeros((32, 32))
    heat[4, 4], heat[20, 20] = 0.6, 0.4
    change[4, 4], change[9, 9] = 3, 2
    found = explain_change(heat, change, name="dot")
    assert found.share == pytest.approx(0.6)
    assert found.chance == 2 / 1024
    assert found.best == 1
    assert found.control is None


def test_a_change_all_over_is_explained_to_the_chance_level():
    rng = np.random.default_rng(3)
    for _ in range(5):
        heat = rng.gamma(0.3, size=(32, 32))
        found = explain_change(heat, np.ones((256, 256)), [rng.random((32, 32))], name="x")
        assert found.share == pytest.approx(found.chance)
        assert found.control == pytest.approx(found.chance)
        assert found.chance == pytest.approx(0.9, abs=0.001)


def test_random_maps_and_changes_meet_at_chance():
    rng = np.random.default_rng(4)
    found = [
        explain_change(rng.gamma(0.3, size=(16, 16)), rng.gamma(0.3, size=(16, 16)), name="x")
        for _ in range(300)
    ]
    apart = [f.share - f.chance for f in found if f.share is not None]
    assert np.mean(apart) == pytest.approx(0, abs=0.01)


def test_no_change_is_no_share():
    found = explain_change(np.ones((8, 8)), np.zeros((64, 64)), name="the")
    assert found.share is None
    assert found.sentence == (
        "the, removed: hardly any effect (0.0 % of the pixels changed noticeably)"
    )
    assert "undefined" in str(found)


def test_top_places_hold_so_much_and_ties_share():
    heat = np.array([[4.0, 2.0], [1.0, 1.0]])
    assert top_places(heat, 0.5).tolist() == [[1, 0], [0, 0]]
    assert top_places(heat, 0.8).tolist() == [[1, 1], [0.5, 0.5]]
    assert top_places(np.ones((4, 5))).sum() == pytest.approx(18)
    with pytest.raises(SettingError):
        top_places(np.zeros((2, 2)))


def test_a_change_of_latents_has_no_pixels_that_people_see():
    change = np.zeros((8, 8))
    change[:4] = 1.5
    found = explain_change(change, change, name="red", is_seen=False)
    assert found.effect is None
    assert found.sentence.startswith("the map of red explains 91 %")
