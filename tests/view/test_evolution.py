"""Frames, labels, one scale, and the files they go into."""

import dataclasses

import numpy as np
import pytest
from painted import make_trace
from PIL import Image
from written import Written

from scribblediffusion.attention.trace import AttentionTrace, Step
from scribblediffusion.errors import NoHeatMapError, SettingError, UnknownWordError
from scribblediffusion.sketch import Region
from scribblediffusion.view.colour import DARK, table
from scribblediffusion.view.evolution import Evolution, EvolutionStyle, subject_title
from scribblediffusion.view.heatmap import HeatStyle


@pytest.fixture(scope="module")
def evolution(trace):
    return Evolution.of(trace, "apple")


def test_maps_are_the_traces_own_and_share_one_scale(trace, evolution):
    for i in (0, 7, 19):
        np.testing.assert_array_equal(evolution.maps[i], trace.word("apple", step=i))
    assert evolution.scale.top == pytest.approx(float(evolution.maps.max()))
    raw = Evolution.of(trace, Region(8, 2, 3), style=EvolutionStyle(view="attention"))
    expected = trace.region(2, 3, view="attention", step=4)
    np.testing.assert_array_equal(raw.maps[4], expected)
    assert subject_title(raw.subject) == "sketch, top middle (row 2, column 3 of 8 by 8)"


def test_the_map_panel_shows_the_map_on_that_scale(trace):
    style = EvolutionStyle(heat=HeatStyle(opacity=1, smooth=False))
    evolution = Evolution.of(trace, "kite", style=style)
    panel = np.asarray(evolution.frame(10))[96 : 96 + 256, -28 - 256 : -28]
    levels = np.minimum(evolution.maps[10] / evolution.maps.max() * 255, 255).astype(np.uint8)
    expected = np.kron(table("inferno")[levels], np.ones((8, 8, 1), np.uint8))
    assert (
        np.abs(panel.astype(int) - expected).max()
        <= 2 * np.abs(np.diff(table("inferno"), axis=0).astype(int)).max()
    )
    assert (panel == expected).mean() > 0.95


def test_every_frame_of_the_gif_differs_and_the_last_stays_longer(evolution, tmp_path):
    path = evolution.save(tmp_path / "new" / "apple.gif")
    with Image.open(path) as gif:
        stays = []
        for i in range(gif.n_frames):
            gif.seek(i)
            stays.append(gif.info["duration"])
            frame = np.asarray(gif.convert("RGB"), int)
            assert tuple(frame[0, 0]) == DARK.ground
            assert np.abs(frame - np.asarray(evolution.frame(i), int)).mean() < 6
        assert gif.info["loop"] == 0
    assert stays == [180] * 19 + [2400]
    assert not [p for p in path.parent.iterdir() if p != path]


def test_noise_is_read_from_the_steps_and_not_known_is_said(evolution):
    labels = [str(s) for s in evolution.steps]
    assert labels[0] == "Noise remaining: 100%"
    assert labels[5] == "Noise remaining: 75%"
    footer = [np.asarray(evolution.frame(i))[96 + 256 + 30 :] for i in (5, 6)]
    assert (footer[0] != footer[1]).any()
    unknown = dataclasses.replace(evolution, steps=tuple(Step(i) for i in range(20)))
    assert str(unknown.steps[0]) == "Noise remaining: not known"
    assert unknown.frame(3).size == evolution.frame(3).size


def test_without_pictures_the_maps_alone_are_drawn_and_it_says_so(bare_trace, trace):
    bare = Evolution.of(bare_trace, "apple")
    assert "no picture" in bare.missing
    assert bare.frame(0).size[0] < Evolution.of(trace, "apple").frame(0).size[0]
    finished = dataclasses.replace(trace, previews=None)
    assert "finished picture" in Evolution.of(finished, "apple").missing
    assert Evolution.of(trace, "apple").missing == ""


def test_non_square_pictures_and_several_calls_a_step(trace):
    wide = np.tile(trace.picture, (1, 2, 1))
    steps = [Step(i // 2, i % 2, noise_remaining=1 - i / 20) for i in range(20)]
    doubled = dataclasses.replace(
        trace, pictures=(wide,), previews=None, picture_size=(256, 512), steps=tuple(steps)
    )
    evolution = Evolution.of(doubled, "red")
    assert [s.index for s in evolution.steps] == list(range(10))
    assert evolution.frame(0).size[0] > evolution.frame(0).size[1]
    np.testing.assert_array_equal(evolution.maps[1], doubled.word("red", step=1))


@pytest.mark.parametrize("shape", [(256, 256), (144, 256), (256, 144), (60, 256), (256, 60)])
@pytest.mark.parametrize("held", ["everything", "no previews", "no sketch", "neither", "maps"])
@pytest.mark.parametrize("panel", [None, 96])
def test_the_text_of_every_shape_stands_well(monkeypatch, shape, held, panel):
    steps = 12
    weights = np.random.default_rng(0).random((steps, 1, 1, 2, 4, 4))
    picture = np.zeros((*shape, 3), np.uint8)
    trace = AttentionTrace.from_arrays(
        {"l": weights / weights.sum(axis=3, keepdims=True)},
        tokens=["cat", "[SEP]"],
        prompt="a cat of many words " * 9,
        picture_size=shape,
        noise_remaining=[None] * steps,
        sketch=None if held in ("no sketch", "neither", "maps") else picture[..., 0],
        pictures=() if held == "maps" else (picture,),
        previews=np.stack([picture] * steps) if held in ("everything", "no sketch") else None,
    )
    written = Written(monkeypatch)
    evolution = Evolution.of(trace, "cat", style=EvolutionStyle(panel=panel))
    said = written.stands_well(evolution.frame(steps - 1))
    assert "Noise remaining: not known" in said
    assert evolution.missing == "" or evolution.missing in said


def test_what_cannot_be_drawn_is_named(trace, evolution):
    with pytest.raises(UnknownWordError, match="apple"):
        Evolution.of(trace, "pear")
    with pytest.raises(SettingError, match="there are 20"):
        evolution.frame(20)
    for wrong in ({"panel": 5}, {"view": "x"}, {"frame_ms": 0}, {"ground": "grey"}):
        with pytest.raises(SettingError):
            EvolutionStyle(**wrong)
    silent = make_trace(steps=2, grid=8)
    records = {k: np.where(np.arange(86)[None, None, :, None] == 3, 0, v)
               for k, v in silent.records.items()}  # fmt: skip
    with pytest.raises(NoHeatMapError):
        Evolution.of(dataclasses.replace(silent, records=records), "apple")


def test_a_step_without_weight_is_a_frame_that_says_so():
    whole = make_trace(steps=2, grid=8)
    records = {k: v.copy() for k, v in whole.records.items()}
    next(iter(records.values()))[..., 3, :] = 0
    evolution = Evolution.of(dataclasses.replace(whole, records=records), "apple")
    assert not evolution.maps[0].any()
    assert evolution.maps[1].sum() == pytest.approx(1)
    panel = np.asarray(evolution.frame(0))[96 : 96 + 256, -28 - 256 : -28]
    assert (panel == DARK.panel).all(axis=2).mean() > 0.95
    letters = (panel != DARK.panel).any(axis=2)
    assert letters[100:150].any()
    assert not letters[:100].any()


def test_long_prompts_and_every_script_stay_on_the_page(trace):
    long = "a very long word " * 40 + "苹果 😀 яблоко $x^2$ <b>\n\x00"
    prompts = (dataclasses.replace(trace.prompts[0], text=long),)
    frame = Evolution.of(dataclasses.replace(trace, prompts=prompts), "apple").frame(0)
    margin = np.asarray(frame)[:, -26:]
    assert (margin == DARK.ground).all()


def test_it_shows_itself_in_a_notebook(bare_trace):
    html = Evolution.of(bare_trace, "apple")._repr_html_()
    assert html.startswith('<img alt="“apple”, step by step" src="data:image/gif;base64,R0lG')
