import numpy as np
import pytest

from scribblediffusion.evaluate.metrics import fidelity, fill_family
from scribblediffusion.evaluate.quality import score, summary
from scribblediffusion.train.objects import FAMILIES, rgb
from scribblediffusion.train.scenes import scene


def square(offset=0, width=4):
    ink = np.zeros((256, 256), bool)
    a, b = 60 + offset, 190 + offset
    ink[a:b, a : a + width] = ink[a:b, b : b + width] = True
    ink[a : a + width, a:b] = ink[b : b + width, a : b + width] = True
    return ink


def painted(ink, fill=(255, 255, 255)):
    picture = np.full((256, 256, 3), 255, np.uint8)
    picture[64:190, 64:190] = fill
    picture[ink] = 0
    return picture


def test_the_same_lines_are_followed_whole():
    assert fidelity(painted(square()), square()).f1 == 1
    assert fidelity(painted(square()), square(2)).f1 == 1


def test_lines_that_lie_elsewhere_are_not():
    assert fidelity(painted(square()), square(30)).f1 < 0.35
    assert fidelity(painted(np.zeros((256, 256), bool)), square()).f1 == 0


def test_half_of_the_ink_is_half_of_the_recall():
    half = square()
    half[128:] = False
    found = fidelity(painted(half), square())
    assert found.precision == 1
    assert found.recall == pytest.approx(0.5, abs=0.05)


def test_a_dark_fill_is_no_line():
    picture = painted(square(), fill=(30, 30, 30))
    assert fidelity(picture, square()).precision > 0.95


@pytest.mark.parametrize("name", list(FAMILIES))
def test_fill_is_the_family_of_most_pixels(name):
    mask = np.zeros((256, 256), bool)
    mask[60:194, 60:194] = True
    assert fill_family(painted(square(), rgb(FAMILIES[name][0])), mask) == name


def test_the_true_picture_scores_best_and_another_worst():
    scenes = [scene(i, split="test", count=2) for i in range(12)]
    truth = summary([score(s.picture, s) for s in scenes])
    wrong = summary(
        [score(o.picture, s) for s, o in zip(scenes, scenes[1:] + scenes[:1], strict=True)]
    )
    assert truth["fidelity"] > 0.97
    assert truth["colour_two"] >= 0.9
    assert wrong["fidelity"] < 0.5
    assert wrong["colour_two"] < 0.6
    assert truth["named_two"] == wrong["named_two"]


def test_taking_the_others_colour_is_counted():
    one = next(
        s for s in (scene(i, split="test", count=2) for i in range(50))
        if all(p.named for p in s.objects) and s.objects[0].named != s.objects[1].named
    )  # fmt: skip
    picture = np.full((256, 256, 3), 255, np.uint8)
    for i in range(2):
        picture[one.labels == i + 1] = rgb(FAMILIES[one.objects[1 - i].named or ""][0])
    found = score(picture, one)
    assert (found.named, found.right, found.swapped) == (2, 0, 2)
