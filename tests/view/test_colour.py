"""Colour tables, and the scale that begins at 0."""

import numpy as np
import pytest

from scribblediffusion.errors import SettingError
from scribblediffusion.view.colour import DARK, LIGHT, Scale, table


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


#: Linear RGB as seen without red, green and blue cones (Machado et al. 2009).
SEEN = {
    "all": np.eye(3),
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("cones", SEEN)
def test_colours_of_streams_are_told_apart_and_stand_out(theme, cones):
    rgb = np.array([*theme.streams, theme.ground]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(SEEN[cones]), 0, 1)
    to_xyz = [[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729]]
    x, y, z = np.cbrt(seen @ np.transpose(to_xyz)).T
    lab = np.stack([116 * y, 500 * (x - y), 200 * (y - z)], axis=1)
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1)[np.triu_indices(len(lab), 1)]
    assert len(theme.streams) >= 6
    assert apart.min() > 9
    luminance = linear @ to_xyz[1]
    lighter, darker = (f(luminance[:-1], luminance[-1]) + 0.05 for f in (np.maximum, np.minimum))
    assert (lighter / darker).min() > 3
