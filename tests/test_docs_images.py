"""The script behind the documentation's pictures, with a painted trace instead of the model."""

import runpy
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[1] / "docs" / "make_images.py"


def test_the_first_picture_shows_sketch_picture_and_words(trace):
    made = runpy.run_path(str(SCRIPT))
    pages = [made["hero"]([(trace, ("apple", "kite"))] * 2, ground) for ground in ("light", "dark")]
    assert pages[0].size == pages[1].size
    assert pages[0].width > 4 * 280
    light, dark = (np.asarray(page).mean() for page in pages)
    assert light > dark
    assert not np.asarray(pages[1])[:, -20:].astype(int).std(axis=(0, 1)).any()


def test_sketches_and_prompts_that_it_names_are_there():
    made = runpy.run_path(str(SCRIPT))
    for name, words in made["HERO"]:
        assert (made["EXAMPLES"] / "sketches" / f"{name}.png").is_file()
        assert len(words) == 3
