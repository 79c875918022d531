"""The trace as people read it: views, selectors, words, regions, places."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scribblediffusion.attention.records import Prompt, region_name
from scribblediffusion.attention.resample import area_matrix, resize
from scribblediffusion.attention.trace import AttentionTrace, Region, Step
from scribblediffusion.errors import (
    NoHeatMapError,
    NotRecordedError,
    SettingError,
    TraceError,
    UnknownWordError,
)
from scribblediffusion.sketch import REGIONS, Sketch

TOKENS = ["[CLS]", "a", "red", "app", "##le", ",", "Red", "[SEP]", "[PAD]"]


def softmax(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    score = np.exp(np.random.default_rng(seed).normal(size=shape))
    return score / score.sum(axis=3, keepdims=True)


def made(steps: int = 3, batch: int = 2, heads: int = 4, **fields: Any) -> AttentionTrace:
    keys = len(TOKENS) + 77
    weights = {
        "down.attn2": softmax((steps, batch, heads, keys, 8, 6)),
        "mid.attn2": softmax((steps, batch, heads, keys, 4, 3), 1),
    }
    return AttentionTrace.from_arrays(
        weights,
        tokens=TOKENS,
        streams={"text": range(9), "sketch": range(9, keys)},
        regions={r: 9 + r.index for r in REGIONS},
        **({"picture_size": (64, 48)} | fields),
    )


@pytest.fixture(scope="module")
def trace() -> AttentionTrace:
    return made()


def test_weights_have_the_promised_shape(trace: AttentionTrace) -> None:
    weights = trace.weights(layer="down.attn2", step=1)
    assert weights.shape == (2, 4, 86, 48)
    assert weights.dtype == np.float32
    weights[:] = 0  # a copy: the trace stays
    assert trace.weights(layer="down.attn2", step=1).any()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_trace_can_be_copied_and_sent_to_another_process(again: Callable) -> None:
    trace = made(settings={"seed": 3}, sketches=(Sketch.blank(), None))
    other = again(trace)
    assert type(other) is AttentionTrace
    assert (other.words, other.regions, other.settings) == (
        trace.words,
        trace.regions,
        trace.settings,
    )
    assert np.array_equal(other.word("apple"), trace.word("apple"))
    for place, array in other.records.items():
        assert array is not trace.records[place]
        assert not array.flags.writeable  # as in any trace
    with pytest.raises(TypeError):
        other.settings["seed"] = 4


def test_a_place_that_listened_to_words_unknown_is_an_error() -> None:
    """An empty prompt has no words, and that is known."""
    weights = {"mid.attn2": softmax((1, 1, 1, 4, 4, 3))}
    mask = np.ones((4, 3))
    trace = AttentionTrace.from_arrays(weights)
    assert trace.at(0, 0) == trace.within(mask) == []
    unknown = replace(trace, prompts=(Prompt(named=False),))
    for asked in (lambda: unknown.at(0, 0), lambda: unknown.within(mask)):
        with pytest.raises(UnknownWordError, match="embeddings"):
            asked()
    drawn = replace(unknown, regions={REGIONS[0]: 2})
    assert [share.name for share in drawn.at(0, 0)] == [region_name(REGIONS[0])]


def test_the_two_views_are_two_things(trace: AttentionTrace) -> None:
    raw, maps = trace.attention(), trace.heat_map()
    assert raw.shape == maps.shape == (2, 4, 86, 8, 6)
    assert np.abs(raw.sum(axis=2) - 1).max() < 5e-5
    assert np.abs(maps.sum(axis=(-2, -1)) - 1).max() < 5e-5
    expected = raw / raw.sum(axis=(-2, -1), keepdims=True)
    assert np.allclose(maps, expected, atol=1e-6)


def test_a_word_is_the_sum_of_its_sub_tokens(trace: AttentionTrace) -> None:
    raw = trace.word("apple", view="attention")
    parts = [trace.token(key, view="attention") for key in (3, 4)]
    assert np.allclose(raw, sum(parts), atol=1e-7)
    by_hand = np.mean(
        [
            resize(trace.attention(layer=i, step=s)[0, :, 3:5].sum(1).mean(0), 8, 6)
            for i in (0, 1)
            for s in range(3)
        ],
        axis=0,
    )
    assert np.allclose(raw, by_hand, atol=1e-6)
    assert np.allclose(trace.word("apple"), raw / raw.sum(), atol=1e-7)


def test_words_are_found_whatever_their_capitals(trace: AttentionTrace) -> None:
    for spelling in ("red", "Red", "RED"):  # occurrences count in the prompt
        assert np.array_equal(trace.word(spelling), trace.token(2))
        assert np.array_equal(trace.word(spelling, occurrence=1), trace.token(6))
    assert np.array_equal(trace.word(trace.words[4]), trace.token(6))
    assert np.array_equal(trace.word(trace.words[2]), trace.word("apple"))
    with pytest.raises(UnknownWordError, match="words are: a, red, apple, ,, Red"):
        trace.word("pear")


def test_heads_pictures_and_layers(trace: AttentionTrace) -> None:
    one = trace.word("red", view="attention", head=2, picture=1, layer="mid.*", step=0)
    expected = trace.attention(layer=1, step=0)[1, 2, 2]
    assert np.allclose(one, expected, atol=1e-7)
    with pytest.raises(NotRecordedError, match="head 9"):
        trace.word("red", head=9)
    with pytest.raises(NotRecordedError, match=r"down\.attn2"):
        trace.word("red", layer="up.*")
    with pytest.raises(SettingError, match="several"):
        trace.weights(layer="*", step=0)
    with pytest.raises(SettingError, match="view"):
        trace.word("red", view="hot")


def test_steps_by_index_from_the_end_and_as_records(trace: AttentionTrace) -> None:
    last = trace.word("red", step=-1)
    assert np.array_equal(last, trace.word("red", step=2))
    assert np.array_equal(last, trace.word("red", step=trace.steps[2]))
    two = trace.word("red", view="attention", step=[0, 2])
    ends = [trace.word("red", view="attention", step=i) for i in (0, 2)]
    assert np.allclose(two, sum(ends) / 2, atol=1e-7)
    for missing in (7, -4, Step(9)):
        with pytest.raises(NotRecordedError, match=r"recorded steps are \[0, 1, 2\]"):
            trace.word("red", step=missing)


def test_regions_and_streams(trace: AttentionTrace) -> None:
    assert np.array_equal(trace.region(2, 3), trace.token(9 + 19))
    assert np.array_equal(trace.region(1, 0, level=2), trace.token(9 + 75))
    with pytest.raises(TraceError, match=r"levels \[8, 3, 2\]"):
        trace.region(8, 0)
    text, sketch = trace.stream("text"), trace.stream("sketch")
    assert np.allclose(text + sketch, 1, atol=5e-5)
    assert trace.shares() == pytest.approx({"text": text.mean(), "sketch": sketch.mean()})
    with pytest.raises(TraceError, match="text, sketch"):
        trace.stream("audio")


def test_a_place_ranks_words_and_regions(trace: AttentionTrace) -> None:
    ranked = trace.at(20, 10, step=0, layer="down.attn2")
    cell = trace.attention(layer="down.attn2", step=0)[0].mean(0)[:, 1, 2]
    shares = dict(ranked)
    assert len(ranked) == 5 + 77
    assert shares["apple"] == pytest.approx(cell[3] + cell[4], abs=1e-6)
    assert shares["red (1)"] == pytest.approx(cell[2], abs=1e-6)
    assert shares["8×8 (2, 3)"] == pytest.approx(cell[9 + 19], abs=1e-6)
    assert [s.share for s in ranked] == sorted(shares.values(), reverse=True)
    for outside in ((48, 0), (0, 64), (-1, 0)):
        with pytest.raises(SettingError, match="48 wide and 64 high"):
            trace.at(*outside)


def test_a_shape_is_the_mean_of_its_places(trace: AttentionTrace) -> None:
    mask = np.zeros((64, 48))
    mask[8:16, 16:24] = 1
    assert dict(trace.within(mask)) == pytest.approx(dict(trace.at(20, 10)))
    everywhere = dict(trace.within(np.ones((5, 7))))
    raw = trace.word("apple", view="attention").mean()
    assert everywhere["apple"] == pytest.approx(raw, abs=1e-6)
    for wrong in (np.zeros((4, 4)), np.ones(5)):
        with pytest.raises(SettingError, match="mask of shape"):
            trace.within(wrong)


def test_a_token_without_weight_has_no_heat_map() -> None:
    weights = softmax((1, 1, 2, 6, 4, 4))
    weights[:, :, :, 5] = 0
    weights /= weights.sum(3, keepdims=True)
    trace = AttentionTrace.from_arrays({"x": weights}, tokens=["[CLS]", "a", "red"])
    with pytest.raises(NoHeatMapError, match="token 5 has no weight anywhere"):
        trace.token(5)
    with pytest.raises(NoHeatMapError, match="token 5"):
        trace.heat_map(tokens=[1, 5])
    assert not trace.token(5, view="attention").any()
    assert trace.live_keys() == (0, 1, 2, 3, 4)
    assert trace.heat_map().shape[2] == 5


def with_nan() -> AttentionTrace:
    """As a model leaves it whose queries overflowed: one layer of the first picture, one step."""
    weights = {"fine": softmax((2, 2, 1, 9, 4, 4)), "lost": softmax((2, 2, 1, 9, 2, 2))}
    weights["lost"][1, 0, :, :, 0, 1] = np.nan
    return AttentionTrace.from_arrays(weights, tokens=TOKENS)


@pytest.mark.parametrize("view", ["heat_map", "attention"])
def test_weights_that_are_no_numbers_are_named(view: Any) -> None:
    trace = with_nan()
    asked: list[Callable[..., object]] = [
        lambda **at: trace.word("red", view=view, **at),
        lambda **at: trace.token(2, view=view, **at),
        lambda **at: trace.stream("text", view=view, **at),
        lambda **at: getattr(trace, view)(**at),
        lambda **at: trace.at(1, 1, **at),
    ]
    for ask in asked:
        for at in ({}, {"layer": "lost"}, {"step": 1}):
            with pytest.raises(TraceError, match=r"layer lost: .*not numbers"):
                ask(**at)
        ask(layer="fine")
        ask(step=0)
    with pytest.raises(TraceError, match="not numbers"):
        trace.weights(layer="lost", step=1)
    assert trace.word("red", picture=1).sum() == pytest.approx(1)


@pytest.mark.parametrize("wrong", [1.0, slice(0, 2), "1", np.array(1), [0, 1.5], object()])
def test_a_selector_that_is_none_is_named(trace: AttentionTrace, wrong: Any) -> None:
    for ask in (trace.word, lambda _, **at: trace.weights(**({"layer": 0, "step": 0} | at))):
        with pytest.raises(SettingError, match=r"step=.*give None for all, a `Step.index`"):
            ask("red", step=wrong)
        if not isinstance(wrong, str):  # a name that fits no layer
            with pytest.raises(SettingError, match=r"layer=.*give None for all, a position"):
                ask("red", layer=wrong)
    assert np.array_equal(trace.word("red", step=range(2)), trace.word("red", step=[0, 1]))


def test_to_xarray_names_its_dimensions(trace: AttentionTrace) -> None:
    xarray = pytest.importorskip("xarray")
    array = trace.to_xarray()
    assert isinstance(array, xarray.DataArray)
    assert array.dims == ("step", "picture", "head", "token", "row", "column")
    assert array.shape == (3, 2, 4, 86, 8, 6)
    assert float(abs(array.sum("token") - 1).max()) < 5e-5
    assert list(array.token.values[:4]) == ["[CLS]", "a", "red", "app"]
    assert list(array.noise_remaining.values) == pytest.approx([1, 2 / 3, 1 / 3])
    sketch = array.sel(step=1).isel(token=array.stream == "sketch").sum("token").mean("head")
    assert np.allclose(sketch[0], resize(trace.stream("sketch", step=1), 8, 6), atol=1e-6)


def test_records_are_frozen(trace: AttentionTrace) -> None:
    with pytest.raises(ValueError, match="read-only"):
        trace.records[0, 0][:] = 0
    with pytest.raises(AttributeError):
        trace.branch = "unconditional"  # type: ignore[misc]
    with pytest.raises(TypeError):
        trace.streams["more"] = range(3)  # type: ignore[index]


sizes = st.integers(1, 17)


@settings(deadline=None, max_examples=40)
@given(sizes, sizes)
def test_area_weights_are_means_and_lose_nothing(source: int, target: int) -> None:
    matrix = area_matrix(source, target)
    assert matrix.shape == (target, source)
    assert np.allclose(matrix.sum(1), 1)
    assert np.allclose(matrix.mean(0), 1 / source)  # every place counts the same


@settings(deadline=None, max_examples=40)
@given(sizes, sizes, sizes, sizes, st.integers(0, 99))
def test_sums_survive_any_resizing(h: int, w: int, height: int, width: int, seed: int) -> None:
    weights = softmax((1, 1, 2, 5, h, w), seed)
    bigger = resize(weights, height, width)
    assert np.allclose(bigger.sum(3), 1)
    assert np.allclose(bigger.mean((-2, -1)), weights.mean((-2, -1)))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), sizes, sizes)
def test_both_sums_hold_at_every_size(
    steps: int, batch: int, heads: int, keys: int, h: int, w: int
) -> None:
    trace = AttentionTrace.from_arrays({"x": softmax((steps, batch, heads, keys, h, w))})
    assert np.abs(trace.attention().sum(2) - 1).max() < 5e-5
    assert np.abs(trace.heat_map().sum((-2, -1)) - 1).max() < 5e-5


def test_regions_are_the_sketch_ones(trace: AttentionTrace) -> None:
    assert set(trace.regions) == set(REGIONS)
    assert trace.regions[Region(3, 1, 1)] == 9 + 64 + 4


def test_the_last_step_of_a_complete_run_shows_the_finished_picture() -> None:
    """Previews may be rougher; a run that was stopped has only those."""
    shade = lambda value: np.full((8, 8, 3), value, np.uint8)  # noqa: E731
    weights = np.full((3, 1, 1, 2, 4, 4), 0.5, np.float32)
    some = {"pictures": (shade(9),), "previews": np.stack([shade(v) for v in (1, 2, 3)])}
    trace = AttentionTrace.from_arrays({"x": weights}, **some)
    seen = [trace.picture_after(step) for step in (0, 1, 2, 3, -1)]
    assert [None if one is None else int(one[0, 0, 0]) for one in seen] == [1, 2, 9, 9, 9]
    assert replace(trace, complete=False).picture_after(2)[0, 0, 0] == 3
    assert replace(trace, pictures=()).picture_after(2)[0, 0, 0] == 3
    assert replace(trace, previews=None).picture_after(0)[0, 0, 0] == 9
    assert replace(trace, previews=None, pictures=()).picture_after(0) is None


def test_arrays_that_make_no_trace_are_named() -> None:
    one = np.full((2, 1, 1, 3, 4, 4), 1 / 3)
    wrong = [
        {},
        {"x": one[0]},
        {"x": one[:, :, :, :0]},
        {"x": one, "y": one[:1]},
        {"x": one, "y": one[:, :, :, :2]},
    ]
    for weights in wrong:
        with pytest.raises(SettingError, match="the same steps, batch and keys"):
            AttentionTrace.from_arrays(weights)
    with pytest.raises(SettingError, match="4 tokens, but the arrays have 3 keys"):
        AttentionTrace.from_arrays({"x": one}, tokens=list("abcd"))
    with pytest.raises(SettingError, match="noise_remaining of 3 steps"):
        AttentionTrace.from_arrays({"x": one}, noise_remaining=[1, 0.5, 0.2])
    given = AttentionTrace.from_arrays({"x": one}, noise_remaining=np.array([0.9, 0.4]))
    assert [step.noise_remaining for step in given.steps] == [0.9, 0.4]


def test_layers_of_one_and_of_several_heads_keep_them(tmp_path) -> None:
    one, two = (np.full((1, 1, heads, 3, 4, 4), 1 / 3) for heads in (1, 2))
    trace = AttentionTrace.from_arrays({"one": one, "two": two}, tokens=["a", "b", "c"])
    again = AttentionTrace.load(trace.save(tmp_path / "two.safetensors"))
    assert again.word("a", layer="two", head=1).shape == (4, 4)
