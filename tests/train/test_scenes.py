import numpy as np
import pytest
from PIL import Image
from skimage.morphology import dilation

from scribblediffusion.train.latents import object_masks, spans
from scribblediffusion.train.objects import (
    FAMILIES,
    dominant_family,
    family_of,
    line,
    natural_family,
    paintable,
    rgb,
    sprite,
    things,
)
from scribblediffusion.train.scenes import SPLITS, scene, true_family

NUMBERS = range(40)


def test_a_scene_is_a_function_of_its_number():
    first, again, other = scene(5), scene(5), scene(6)
    assert np.array_equal(first.picture, again.picture)
    assert first.caption == again.caption
    assert not np.array_equal(first.picture, other.picture)


@pytest.mark.long
@pytest.mark.parametrize("split", SPLITS)
def test_what_each_split_may_show(split):
    for number in range(25):
        one = scene(number, split=split, seed=3)
        assert all(p.thing.held_out is (split == "objects") for p in one.objects)
        assert not any(p.thing.known_by_its_lines for p in one.objects)
        named = [p for p in one.objects if p.named]
        if split == "pairs":
            assert all(p.named and p.thing.pair_held_out(p.named) for p in one.objects)
            assert all(p.named != natural_family(p.thing.code) for p in one.objects)
            assert not any(p.thing.pair_known_by_its_lines(p.named) for p in one.objects)
        elif split != "objects":
            assert not any(p.thing.pair_held_out(p.named) for p in named)


@pytest.mark.long
@pytest.mark.slow
def test_no_held_out_drawing_is_shown_as_another_object():
    """The list names each held-out drawing whose lines another object has within a pixel in 96."""
    every = things()
    small = [Image.fromarray(line(t.code)).resize((96, 96), Image.Resampling.BOX) for t in every]
    ink = [np.asarray(image) > 90 for image in small]
    wide = np.stack([dilation(one, np.ones((3, 3))).ravel() for one in ink]).astype(np.float32)
    thin = np.stack([one.ravel() for one in ink]).astype(np.float32)
    found = thin @ wide.T / np.maximum(thin.sum(1), 1)[:, None]  # share of row's ink in column's
    same = (np.minimum(found, found.T) > 0.95) & ~np.eye(len(every), dtype=bool)
    for thing, row in zip(every, same, strict=True):
        others = [other for other, alike in zip(every, row, strict=True) if alike]
        shown = [other for other in others if not other.held_out]
        assert thing.known_by_its_lines is (thing.held_out and bool(shown)), thing.name
        own = natural_family(thing.code)
        for colour in FAMILIES:
            asked = thing.pair_held_out(colour) and colour != own and not thing.held_out
            known = any(not other.pair_held_out(colour) for other in shown)
            if asked and paintable(thing.code):
                assert thing.pair_known_by_its_lines(colour) is known, (thing.name, colour)


def test_captions_are_true():
    """The named colour is the family that most of the object's fill has."""
    right = total = 0
    for number in NUMBERS:
        one = scene(number, split="test")
        for i, placed in enumerate(one.objects):
            assert placed.phrase in one.caption
            if placed.named:
                total += 1
                right += true_family(one, i) == placed.named
    assert total > 30
    assert right / total >= 0.95


def test_relations_are_true():
    for number in range(300):
        one = scene(number, split="test", count=2)
        centres = [np.argwhere(one.labels == i + 1).mean(0) for i in range(2)]
        (ay, ax), (by, bx) = centres
        middle = one.caption.removeprefix(one.objects[0].phrase)
        for words, holds in (
            (("above",), ay < by), (("below", "under"), ay > by),
            (("left of",), ax < bx), (("right of",), ax > bx),
        ):  # fmt: skip
            if any(f" {word} " in middle for word in words):
                assert holds, one.caption
        if number > 60:
            break


def test_sketch_and_picture_are_the_same_drawing():
    for number in range(10):
        one = scene(number, split="test")
        ink = one.sketch > 200
        assert ink.any()
        assert np.median(one.picture[ink]) < 40


def test_masks_cover_the_objects():
    one = scene(1, split="test", count=3)
    masks = object_masks(one.labels[None, 4::8, 4::8], 16)
    assert masks.shape == (1, 3, 16, 16)
    assert (masks.sum((2, 3)) > 0).all()
    assert masks.sum(1).max() <= 1


def test_spans_find_colour_and_noun():
    for number in NUMBERS:
        one = scene(number, split="test")
        for i, kind, start, end in spans(one):
            word = one.caption[start:end]
            placed = one.objects[i]
            assert word == (placed.named if kind == "colour" else placed.noun)


def test_families_are_told_apart():
    for name, shades in FAMILIES.items():
        assert set(family_of(np.array([rgb(s) for s in shades]))) == {name}


@pytest.mark.long
def test_another_colour_is_that_colour():
    chosen = [t for t in things() if paintable(t.code)][:40:4]
    for thing in chosen:
        for colour in ("blue", "red", "brown"):
            whole = sprite(thing.code, colour)
            assert dominant_family(whole[whole[..., 3] > 200][:, :3]) == colour, thing.name


def test_an_unknown_split():
    with pytest.raises(ValueError, match="split"):
        scene(0, split="nope")
