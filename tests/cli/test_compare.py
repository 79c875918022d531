import dataclasses

import numpy as np
import painted
import pytest
from PIL import Image


@pytest.fixture
def moved(small_trace, monkeypatch, tmp_path):
    """The same scene with the apple and the kite in other corners, and another seed."""
    monkeypatch.setattr(painted, "APPLE", (0.7, 0.3, 0.16))
    monkeypatch.setattr(painted, "KITE", (0.3, 0.7, 0.18))
    other = painted.make_trace(steps=3, grid=8)
    other = dataclasses.replace(other, settings={"seed": 8})
    return other.save(tmp_path / "moved.safetensors")


def test_a_run_against_itself_moved_nothing(scribble, run):
    done = scribble("compare", run.id, run.folder)
    rows = [line for line in done.out.splitlines() if line.startswith("  ")][1:]
    assert len(rows) == 7
    assert all(" 0.0 % " in row and "1.000" in row for row in rows)
    assert done.last == "the same settings"


def test_what_moved_is_told_and_drawn(scribble, run, moved, tmp_path):
    done = scribble("compare", run.id, moved, "--output", "change.png")
    assert "seed 7 → 8" in done.out
    kite = next(line.split() for line in done.out.splitlines() if line.startswith("  kite"))
    assert float(kite[1]) > 10
    assert done.last == "change.png"
    with Image.open(tmp_path / "change.png") as image:
        assert image.text == {
            "Prompt": painted.PROMPT, "Seed": "7 → 8", "Software": "ScribbleDiffusion"
        }  # fmt: skip
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red, blue = pixels[..., 0], pixels[..., 2]
    assert (blue - red > 100).any()
    assert (red - blue > 100).any()


@pytest.mark.parametrize("name", ["change.gif", "nowhere/change.png"])
def test_an_output_that_cannot_be(refused, run, name):
    assert name in refused("compare", run.id, run.id, "--output", name)


def test_no_shared_word_is_said(scribble, run, small_trace, tmp_path):
    tokens = ["[CLS]", "seven", "old", "green", "cars", "near", "my", "house", "[SEP]"]
    weights = np.full((2, 1, 1, 9, 4, 4), 1 / 9, np.float32)
    other = type(small_trace).from_arrays({"mid": weights}, tokens=tokens)
    path = other.save(tmp_path / "cars.safetensors")
    done = scribble("compare", run.id, path, "--output", "none.png")
    assert "no word is in both prompts" in done.out
    assert (tmp_path / "none.png").is_file()
