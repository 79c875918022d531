"""Colour tables, and the scale that begins at 0."""

import numpy as np
import pytest

from scribblediffusion.errors import SettingError
from scribblediffusion.view.colour import Scale, table


def test_tables_are_matplotlibs_and_luminance_rises():
    from matplotlib import colormaps

    for name in ("inferno", "cividis"):
        found = table(name)
        assert found.shape == (256, 3)
        np.testing.assert_allclose(found / 255, colormaps[name].colors, atol=0.003)
        luminance = found @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(luminance) > -0.8).all()
    with pytest.raises(SettingError, match="inferno, cividis"):
        table("jet")


def test_the_scale_begins_at_zero_is_shared_and_prints_its_unit():
    a, b = np.full((4, 8), 1 / 32), np.eye(4, 8) / 4
    scale = Scale.of_heat(a, b)
    assert scale.top == 0.25
    np.testing.assert_allclose(scale.fraction(a), 0.125)
    assert scale.ticks() == ((0.0, "0"), (0.25, "2"), (0.5, "4"), (0.75, "6"), (1.0, "8"))
    raw = Scale.of_attention(np.array([[0.0, 0.4]]))
    assert [text for _, text in raw.ticks()] == ["0%", "10%", "20%", "30%", "40%"]
    assert Scale.of_heat(np.zeros((2, 2))).top == 1.0
    with pytest.raises(SettingError):
        Scale.of_heat(np.array([[np.inf]]))


@pytest.mark.parametrize("top", [1e-6, 0.003, 0.0299, 0.7, 1.0, 3.33, 12.5, 99, 1e5])
def test_ticks_are_few_round_and_truthful(top):
    ticks = Scale(top).ticks()
    assert 2 <= len(ticks) <= 5
    for place, text in ticks:
        assert float(text) == pytest.approx(place * top, rel=1e-3, abs=1e-9)
