"""The comprehensive analysis and the report."""

import dataclasses
import re
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from scribblediffusion.analysis.summary import summarise
from scribblediffusion.attention.trace import AttentionTrace, Audit, LayerAudit
from scribblediffusion.errors import SettingError
from scribblediffusion.view.evidence import Bars, bars
from scribblediffusion.view.figure import (
    FigureStyle,
    analysis_figure,
    figure_image,
    save_figure,
)
from scribblediffusion.view.layout import AnalysisPage


@pytest.fixture(scope="module")
def summary(trace):
    audit = Audit((LayerAudit("mid.attn2", 1e-7, 2e-6, 20, 20),), "float32", 1e-4, (0, 19))
    return summarise(dataclasses.replace(trace, audit=audit))


def one_bar():
    return bars([Bars("one", {"a": {"b": (0.5, 0.4, 0.6)}})])


def texts(figure):
    return [t for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]


def stands_well(figure):
    """No text is clipped, and none lies over another."""
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [(t.get_window_extent(), t.get_text()) for t in texts(figure) if t.get_visible()]
    for box, text in boxes:
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text
    for i, (a, one) in enumerate(boxes):
        for b, other in boxes[:i]:
            inside = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
            assert not inside, (one, other)


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_everything_is_there_nothing_is_clipped_and_no_texts_overlap(summary, ground):
    figure = analysis_figure(summary, FigureStyle(ground))
    shown = texts(figure)
    figure_image(figure)
    said = "\n".join(t.get_text() for t in shown)
    for part in ("a red apple above a blue kite", "seed 7", "noise 100 %", "noise 5 %", "kite",
                 "closed round shape", "text", "sketch", "Pearson", "audit passed", "2.7 % of all",
                 "times the even share"):  # fmt: skip
        assert part in said
    stands_well(figure)


def test_long_prompts_many_words_and_dollars_fit():
    rng = np.random.default_rng(0)
    words = ["[CLS]", *(f"extraordinarily{i}$x" for i in range(12)), "[SEP]"]
    weights = rng.random((3, 1, 1, 14, 8, 12)) ** 3
    trace = AttentionTrace.from_arrays(
        {f"l{i}": weights / weights.sum(axis=3, keepdims=True) for i in range(2)},
        tokens=words,
        prompt="word " * 80,
        noise_remaining=[None] * 3,
    )
    figure = analysis_figure(summarise(trace))
    figure_image(figure)
    said = "\n".join(t.get_text() for t in texts(figure))
    assert "without a row" in said
    assert "step 1" in said
    assert "no picture in this trace" in said
    assert "no sketch in this trace" in said
    for text in texts(figure):
        assert text.get_window_extent().x1 <= figure.bbox.width


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (40, 160)])
def test_every_shape_and_any_number_of_steps_stand_well(steps, known, shape):
    names = ["[CLS]", *(f"word{i}" for i in range(7)), "[SEP]"]
    weights = np.random.default_rng(0).random((steps, 1, 1, 9, 8, 8)) ** 3
    weights[0, ..., 7, :, :] = 0
    trace = AttentionTrace.from_arrays(
        {"l": weights / weights.sum(axis=3, keepdims=True)},
        tokens=names,
        pictures=(np.zeros((*shape, 3), np.uint8),),
        sketch=np.full((256, 256), 255, np.uint8),
        noise_remaining=None if known else [None] * steps,
    )
    figure = analysis_figure(summarise(trace))
    figure_image(figure)
    stands_well(figure)
    said = [t.get_text() for t in texts(figure)]
    assert ("one step only" in said) == (steps == 1)
    assert ("Pearson's r" in said) == (steps > 1)
    assert not any("not known" in text for text in said)


def test_no_outline_of_a_region_runs_through_a_number(summary):
    shapes = [p for p in analysis_figure(summary).axes[0].patches if isinstance(p, Rectangle)]
    outlines = [i for i, p in enumerate(shapes) if not p.get_fill()]
    tags = [i for i, p in enumerate(shapes) if p.get_fill() and p.get_width() == 17]
    assert (len(outlines), len(tags)) == (5, 10)
    assert max(outlines) < min(tags)  # what comes later lies above


STYLES = {
    "text.usetex": True, "image.origin": "lower", "savefig.bbox": "tight", "axes.grid": True,
    "axes.spines.left": False, "lines.linestyle": ":", "font.size": 30, "xtick.labelsize": 40,
    "image.interpolation": "bicubic", "patch.force_edgecolor": True, "figure.autolayout": True,
    "savefig.dpi": 30, "axes.xmargin": 0.4, "path.sketch": (5, 50, 2),
}  # fmt: skip


def test_a_persons_own_style_changes_nothing(summary, tmp_path):
    plain = np.asarray(figure_image(analysis_figure(summary)))
    save_figure(analysis_figure(summary), tmp_path / "plain.svg")
    bars_plain = np.asarray(figure_image(one_bar()))
    with matplotlib.rc_context(STYLES):
        np.testing.assert_array_equal(np.asarray(figure_image(analysis_figure(summary))), plain)
        np.testing.assert_array_equal(np.asarray(figure_image(one_bar())), bars_plain)
        save_figure(analysis_figure(summary), tmp_path / "own.svg")
        assert matplotlib.rcParams["font.size"] == 30
    sizes = [re.search(r'<svg [^>]*viewBox="[^"]*"', p.read_text(encoding="utf-8"))[0]
             for p in (tmp_path / "plain.svg", tmp_path / "own.svg")]  # fmt: skip
    assert sizes[0] == sizes[1]


def test_names_of_streams_are_no_formulas():
    half = np.full((2, 1, 1, 2, 4, 4), 0.5)
    streams = {"text": range(1), "x$^$y": range(1, 2)}
    trace = AttentionTrace.from_arrays({"l": half}, tokens=["cat", "hat"], streams=streams)
    figure = analysis_figure(summarise(trace))
    figure_image(figure)
    assert "x$^$y" in [t.get_text() for t in texts(figure)]


def of_streams(shares, steps=3, keys=30):
    """A run whose streams have these shares throughout; one word, and maps that are not even."""
    names, share = list(shares), np.array(list(shares.values()))
    share = np.concatenate([share[:1], np.repeat(share[1:] / keys, keys)])
    weights = np.random.default_rng(0).random((steps, 1, 1, len(share), 4, 4)) * 0.02 + 1
    weights *= share[:, None, None]
    return AttentionTrace.from_arrays(
        {"l": weights / weights.sum(axis=3, keepdims=True)},
        tokens=["cat"],
        streams={names[0]: range(1)}
        | {name: range(1 + i * keys, 1 + (i + 1) * keys) for i, name in enumerate(names[1:])},
        noise_remaining=list(np.linspace(1, 0.1, steps)),
    )


@pytest.mark.parametrize("high", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["sketch", "ip_adapter", "extra_condition_x", "苹果" * 9])
def test_names_of_streams_keep_their_distance_from_the_matrix(name, high):
    trace = of_streams({"text": 1 - high, name: high})
    figure = analysis_figure(summarise(trace))
    figure_image(figure)
    stands_well(figure)
    shares, matrix = figure.axes[1:3]
    assert len(shares.texts) == 2
    left = min(t.get_window_extent().x0 for t in matrix.get_yticklabels())
    for text in shares.texts:
        assert text.get_window_extent().x1 + 8 <= left, text.get_text()
        assert text.get_window_extent().x0 >= shares.bbox.x1 + 4
    assert name not in ("sketch", "ip_adapter") or name in [t.get_text() for t in shares.texts]


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_no_two_of_many_streams_look_alike(ground):
    names = ["text", "sketch", *(f"s{i}" for i in range(7))]
    figure = analysis_figure(summarise(of_streams(dict.fromkeys(names, 1))), FigureStyle(ground))
    lines = figure.axes[1].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9
    assert len({line.get_color() for line in lines[:6]}) == 6


def test_the_sketch_keeps_its_own_proportions(trace):
    wide = dataclasses.replace(trace, pictures=(np.zeros((90, 160, 3), np.uint8),), previews=None)
    page = AnalysisPage.of(summarise(wide), FigureStyle())
    assert page.sketch[2] == page.sketch[3]
    assert page.picture[2] / page.picture[3] == pytest.approx(16 / 9, abs=0.02)


def test_png_svg_and_pdf_are_written_whole(summary, tmp_path):
    figure = analysis_figure(summary)
    paths = save_figure(figure, *(tmp_path / "deep" / f"a.{s}" for s in ("png", "svg", "pdf")))
    with Image.open(paths[0]) as image:
        assert image.size == (round(figure.bbox.width), round(figure.bbox.height))
    assert "<svg" in paths[1].read_text(encoding="utf-8")
    assert paths[2].read_bytes().startswith(b"%PDF")
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["a.pdf", "a.png", "a.svg"]
    with pytest.raises(SettingError, match="png"):
        save_figure(figure, tmp_path / "a.gif")
    with pytest.raises(SettingError):
        FigureStyle(words=0)


def test_pyplot_is_never_touched(summary, monkeypatch):
    # Another test of this process may have brought it in.
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    analysis_figure(summary)
    assert "matplotlib.pyplot" not in sys.modules
