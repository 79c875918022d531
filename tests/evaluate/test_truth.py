"""Localisation on synthetic maps whose answer is known before."""

import dataclasses
import itertools

import numpy as np
import pytest

from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate import truth
from scribblediffusion.sketch import REGIONS, Region
from scribblediffusion.train.scenes import scene

NAMES = [f"up_blocks.{i}.attn2" for i in range(2)]


@pytest.fixture(scope="module")
def one():
    return truth.scenes_of_several(1)[0]


def tokens_of(caption):
    """One token a word, as a person reads it, between a start and an end."""
    pieces = caption.replace(",", " ,").replace(":", " :").split()
    return ["[CLS]", *pieces, "[SEP]"]


def trace_of(one, paint, steps=3, heads=2):
    """A trace whose maps of a token are `paint(its text, side)`, `[side, side]` or `[steps, heads,
    side, side]`; those of regions are their places.
    """
    tokens = tokens_of(one.caption)
    keys = len(tokens) + len(REGIONS)
    weights = {}
    for name, side in zip(NAMES, (16, 32), strict=True):
        raw = np.full((steps, heads, keys, side, side), 1e-3)
        for i, text in enumerate(tokens):
            raw[:, :, i] += paint(text, side)
        for i, region in enumerate(REGIONS):
            raw[:, :, len(tokens) + i] += resized(truth._place(region, 32), side)
        raw /= raw.sum(2, keepdims=True)
        weights[name] = raw[:, None].astype(np.float32)
    text = range(len(tokens))
    return AttentionTrace.from_arrays(
        weights,
        tokens=tokens,
        streams={"text": text, "sketch": range(len(tokens), keys)},
        regions={r: len(tokens) + i for i, r in enumerate(REGIONS)},
        prompt=one.caption,
        heads="all",
    )


def resized(mask, side):
    step = mask.shape[-1] // side
    return mask.reshape(*mask.shape[:-2], side, step, side, step).mean((-3, -1))


def object_of(one, word):
    for number, placed in enumerate(one.objects):
        if word in placed.phrase.split() and word not in ("a", "an"):
            return number
    return None


def test_words_that_lie_on_their_objects_are_found_there(one):
    def paint(text, side):
        number = object_of(one, text)
        return resized(one.labels == number + 1, side) if number is not None else np.zeros((1, 1))

    maps = truth.Maps(trace_of(one, paint), 0)
    found = truth.measured(one, maps, 0, 0)
    at = maps.views.names.index("all")
    for kind in ("noun", "colour"):
        if kind in found:
            own, count = np.array(found[kind]["own"]["sums"]), found[kind]["own"]["count"]
            assert own[at, 0] == count
            assert (own[at, 1:] / count > 0.8).all()
            wrong = found[kind]["wrong"]
            assert wrong["sums"][at][0] == 0
            assert wrong["sums"][at][2] / wrong["count"] < 0.5
    level = found["region 8×8"]
    assert level["own"]["sums"][at] == [level["own"]["count"]] * 3
    assert level["wrong"]["sums"][at][:2] == [0, 0]
    assert level["shuffled"]["sums"][at][:2] == [0, 0]


def test_words_that_lie_on_the_other_object_are_found_on_the_wrong_one(one):
    assert len(one.objects) == 2

    def paint(text, side):
        number = object_of(one, text)
        return resized(one.labels == 2 - number, side) if number is not None else np.zeros((1, 1))

    maps = truth.Maps(trace_of(one, paint), 0)
    noun = truth.measured(one, maps, 0, 0)["noun"]
    at = maps.views.names.index("all")
    assert noun["own"]["sums"][at][0] == 0
    assert noun["wrong"]["sums"][at][0] == noun["wrong"]["count"]


def test_the_controls_of_a_word_are_maps_of_words_that_are_not_its_object_s(one):
    """All words lie on the first object: so do the controls of its words, and of no others."""

    def paint(text, side):
        return resized(one.labels == 1, side)

    maps = truth.Maps(trace_of(one, paint), 0)
    at = maps.views.names.index("layer up_blocks.1.attn2")
    shuffled = truth.measured(one, maps, 0, 0)["noun"]["shuffled"]
    assert shuffled["count"] == len(one.objects) * truth.OTHERS
    assert shuffled["sums"][at][0] == truth.OTHERS

    def apart(text, side):
        number = object_of(one, text)
        return resized(one.labels == number + 1, side) if number is not None else np.zeros((1, 1))

    found = truth.measured(one, truth.Maps(trace_of(one, apart), 0), 0, 0)
    for kind in {"noun", "colour"} & set(found):
        assert found[kind]["shuffled"]["sums"][at][0] == 0


@pytest.mark.long
def test_random_maps_are_at_chance():
    steps, heads = 12, 2
    totals = {"own": np.zeros(3), "chance": np.zeros(3)}
    cases = 0
    for i, one in enumerate(truth.scenes_of_several(12)):
        rng = np.random.default_rng(i)
        cache = {}

        def paint(text, side, rng=rng, cache=cache):
            fine = cache.setdefault(text, rng.random((steps, heads, 32, 32)))
            return resized(fine, side)

        maps = truth.Maps(trace_of(one, paint, steps, heads), 0)
        noun = truth.measured(one, maps, 0, i)["noun"]
        at = [maps.views.names.index(f"step {step}") for step in range(steps)]
        totals["own"] += np.array(noun["own"]["sums"])[at].sum(0)
        totals["chance"] += steps * np.array(noun["chance"]["sums"])
        cases += steps * noun["own"]["count"]
    own, chance = totals["own"] / cases, totals["chance"] / cases
    assert cases > 250
    assert own[0] == pytest.approx(chance[0], abs=0.04)
    assert own[1] == pytest.approx(chance[1], abs=0.01)
    assert own[2] == pytest.approx(0.5, abs=0.02)


def test_a_picture_of_a_batch_has_the_bits_that_the_whole_batch_has(one, monkeypatch):
    """Only its own rows are decoded, and each map is made once."""
    rng = np.random.default_rng(0)
    single = trace_of(one, lambda text, side: resized(rng.random((3, 2, 32, 32)), side))
    pair = {
        at: np.concatenate([rng.random(a.shape).astype(np.float32), a]).astype(np.float16)
        for at, a in single.records.items()
    }
    trace = dataclasses.replace(single, records=pair, prompts=single.prompts * 2)
    maps = truth.Maps(trace, 1)
    for number, layer in enumerate(trace.layers):
        whole = np.stack([trace.weights(layer=layer.name, step=i)[1] for i in range(3)])
        shape = (layer.height, layer.width)
        assert np.array_equal(maps._mean[:, number], maps._resized(whole.mean(1), shape))
        assert np.array_equal(maps._heads[number], maps._resized(whole.mean(0), shape))
    found, asked = truth.measured(one, maps, 1, 0), []
    of = maps.of
    monkeypatch.setattr(maps, "of", lambda keys: asked.append(keys) or of(keys))
    truth.measured(one, maps, 1, 0)
    assert len(asked) == len(set(asked))
    monkeypatch.setattr(truth, "cache", lambda function: function)
    asked.clear()
    assert truth.measured(one, maps, 1, 0) == found
    assert len(asked) > len(set(asked))


def test_a_view_is_the_mean_of_its_steps_layers_and_heads():
    views = truth.Views(4, {"down_blocks.0.attn2": 8, "up_blocks.0.attn2": 32}, 2)
    rng = np.random.default_rng(0)
    raw = rng.random((4, 2, 2, 8, 8))  # steps, layers, heads
    found = views.maps(raw.mean(2), raw.mean(0))
    named = dict(zip(views.names, found, strict=True))
    assert len(found) == len(views.names)
    assert np.allclose(named["all"], raw.mean((0, 1, 2)))
    assert np.allclose(named["step 3"], raw[3].mean((0, 1)))
    assert np.allclose(named["layer up_blocks.0.attn2"], raw[:, 1].mean((0, 1)))
    assert np.allclose(named["head up_blocks.0.attn2 1"], raw[:, 1, 1].mean(0))
    assert np.allclose(named["choice 32×32 layers, second half"], raw[2:, 1].mean((0, 1)))
    assert np.allclose(named["choice all layers, all steps"], named["all"])


def test_scenes_are_held_out_repeatable_and_of_several_objects():
    first, again = truth.scenes_of_several(6), truth.scenes_of_several(6)
    assert [s.caption for s in first] == [s.caption for s in again]
    assert {len(s.objects) for s in first} <= {2, 3}
    train = {scene(i, split="train", seed=truth.SEED).caption for i in range(20)}
    assert not train & {s.caption for s in first}


def test_a_region_s_place_is_its_box():
    assert np.argwhere(truth._place(Region(8, 2, 1), 32)).tolist() == [
        list(p) for p in itertools.product(range(8, 12), range(4, 8))
    ]


def test_a_trace_of_which_something_was_given_up_is_refused():
    trace = AttentionTrace.from_arrays({"x": np.full((2, 1, 1, 4, 4, 4), 0.25)})
    assert truth.whole(trace) is trace
    with pytest.raises(SettingError, match=r"2 steps .*averaged.*--steps"):
        truth.whole(dataclasses.replace(trace, thinned=("the heads of each layer were averaged",)))
