import numpy as np

from scribblediffusion.view.evidence import (
    Bars,
    Curves,
    bars,
    change_rows,
    coloured,
    curves,
    matrix,
    ranked,
)
from scribblediffusion.view.figure import figure_image

GROUPS = {"nouns": {"own": (0.8, 0.7, 0.9), "chance": (0.1, 0.1, 0.1)}, "x": {"own": (1, 1, 1)}}


def texts(figure):
    found = [t.get_text() for axis in figure.axes for t in axis.texts]
    for axis in figure.axes:
        found += [axis.get_title(), *(t.get_text() for t in axis.get_yticklabels())]
    legends = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    return found + legends


def test_bars_are_as_high_as_their_values_and_have_their_intervals():
    figure = bars([Bars("pointing", GROUPS, {"nouns": 0.95})])
    heights = sorted(patch.get_height() for patch in figure.axes[0].patches)
    assert heights == [0.1, 0.8, 1]
    assert {"own", "chance"} <= set(texts(figure))
    assert np.asarray(figure_image(figure)).std() > 5


def test_curves_run_from_much_noise_to_little():
    series = {"own": [(0.1, (0.9, 0.8, 1.0)), (1.0, (0.2, 0.1, 0.3))]}
    axis = curves([Curves("nouns", series, "share")]).axes[0]
    assert list(axis.lines[0].get_xdata()) == [100, 10]
    assert list(axis.lines[0].get_ydata()) == [0.2, 0.9]
    assert axis.get_xlim()[0] > axis.get_xlim()[1]


def test_ranked_and_matrix_name_their_rows_and_numbers():
    figure = ranked([Bars("nouns", GROUPS)])
    assert {"nouns", "x"} <= set(texts(figure))
    shown = texts(matrix([("nouns", np.array([[0.5, 1.0]]))], ["up"], ["0", "1"], "%"))
    assert {"50", "100"} <= set(shown)


def test_change_rows_show_the_map_on_a_stated_scale():
    picture = np.zeros((8, 8, 3), np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    figure = change_rows(picture, [("it $5", "removed", picture, np.zeros((8, 8)), heat)] * 2)
    assert "its map (brightest: 16.0× even)" in texts(figure)
    assert texts(figure).count("it $5") == 2
    shown = coloured(np.array([[0.0, 50.0]]), 40)
    assert shown[0, 0].sum() < 10
    assert shown[0, 1].sum() > 600
