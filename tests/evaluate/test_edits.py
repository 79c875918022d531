import numpy as np
import pytest

from scribblediffusion.attention.records import Word
from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate.edits import (
    erased,
    erasure,
    longest_stroke,
    regions_of,
    removal,
    replaced,
    without,
)
from scribblediffusion.sketch import REGIONS, Sketch


@pytest.mark.parametrize(
    ("prompt", "gone", "left"),
    [
        ("a red apple", "red", "an apple"),
        ("an orange fish", "orange", "a fish"),
        ("a red apple, a kite", "apple", "a red, a kite"),
        ("scissors above a kite", "scissors", "above a kite"),
        ("a cat", "a", "cat"),
        ("red", "red", ""),
        ("A red apple", "red", "An apple"),
        ("a cat on an orange background", "cat", "a on an orange background"),
        ("a cat and a dog", "cat", "a and a dog"),
        ("an owl", "owl", "an"),
        ("a red unicorn", "red", "a unicorn"),
    ],
)
def test_removal_leaves_a_prompt_whose_article_fits(prompt, gone, left):
    start = prompt.index(gone)
    assert without(prompt, start, start + len(gone)) == left


def test_replacement():
    assert replaced("a red plug above a cat", 2, 5, "orange") == "an orange plug above a cat"
    assert replaced("a red plug", 6, 10, "fire engine") == "a red fire engine"
    assert replaced("a cat above a dog", 2, 5, "scissors") == "scissors above a dog"
    assert replaced("an owl", 3, 6, "unicorn") == "a unicorn"


def test_a_repeated_word_goes_where_it_stands():
    edit = removal("a red cat, a red dog", Word("red", (5,), 1, 13), "red (2)", None)
    assert edit.prompt == "a red cat, a dog"
    assert (edit.subject, edit.kind, edit.keys) == ("red (2)", "removed", (5,))


def two_strokes():
    ink = np.zeros((256, 256), np.float32)
    ink[40:44, 30:220] = 1
    ink[150:200, 100:104] = 1
    return Sketch(ink)


def test_the_longest_stroke_goes_and_the_other_stays():
    sketch = two_strokes()
    stroke = longest_stroke(sketch)
    assert stroke is not None
    assert stroke[42, 100]
    assert not stroke[160:].any()
    left = erased(sketch, stroke)
    assert not left.ink[:100].any()
    assert np.array_equal(left.ink[100:], sketch.ink[100:])
    assert longest_stroke(Sketch(np.zeros((256, 256), np.float32))) is None


def test_a_stroke_s_map_is_that_of_the_regions_it_runs_through():
    sketch = two_strokes()
    stroke = longest_stroke(sketch)
    assert stroke is not None
    regions = regions_of(stroke)
    assert {r.row for r in regions} == {1}
    assert [r.column for r in regions] == list(range(7))
    edit = erasure("a line", sketch, stroke, 77)
    assert edit.keys == tuple(77 + 8 + c for c in range(7))
    with pytest.raises(SettingError):
        erasure("a line", None, stroke, 77)
    with pytest.raises(SettingError):
        erasure("a line", sketch, np.zeros((256, 256), bool), 77)


def test_the_controls_of_erased_ink_are_as_many_other_regions_with_ink():
    sketch = two_strokes()  # its second stroke runs through 8:4,3 to 8:6,3
    short = np.zeros((256, 256), bool)
    short[150:200, 90:110] = sketch.ink[150:200, 90:110] > 0
    edit = erasure("a line", sketch, short, 77)
    assert edit.controls
    inked = {77 + r.index for r in regions_of(sketch.ink > 0)}
    for keys in edit.controls:
        assert len(keys) == len(edit.keys)
        assert set(keys) <= inked - set(edit.keys)
    assert len({k for keys in edit.controls for k in keys}) == sum(map(len, edit.controls))
    long = longest_stroke(sketch)  # seven regions, and only three others have ink: one group
    assert [len(keys) for keys in erasure("a line", sketch, long, 77).controls] == [3]


def test_one_region_is_held_against_others_of_its_level():
    region = next(r for r in REGIONS if (r.level, r.row, r.column) == (3, 0, 1))
    edit = erasure("a line", two_strokes(), np.ones((256, 256), bool), 77, region)
    assert (edit.subject, edit.keys) == ("region 3:0,1", (77 + region.index,))
    levels = {REGIONS[k - 77].level for keys in edit.controls for k in keys}
    assert levels == {3}
