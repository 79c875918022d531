"""MODEL_CARD.md tells what was measured, of the weights that ship."""

import runpy
from pathlib import Path

import pytest

from scribblediffusion.evaluate.page import filled
from scribblediffusion.evaluate.quality import COUNTS, SETS, figures

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(HERE / "docs" / "model_card.py"))


def test_the_card_holds_the_figures_of_the_kept_scores(script):
    card = (HERE / "MODEL_CARD.md").read_text(encoding="utf-8")
    tables = script["tables"]()
    assert filled(card, tables) == card
    assert all(table in card for table in tables.values())  # none that the card does not ask for


@pytest.mark.parametrize("name", SETS)
def test_every_figure_of_the_card_rests_on_200_scenes(script, name):
    for found in figures(script["_records"](name), script["_further"](name)).values():
        assert found["scenes"] >= 200
        assert min(found[f"scenes_{label}"] for label in COUNTS.values()) >= 200
