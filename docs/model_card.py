"""The measured tables of MODEL_CARD.md, from the scores that `scribble evaluate quality` kept.

    .venv/bin/python docs/model_card.py

docs/quality holds the scores of every held-out scene, `<set>.jsonl` and, of further scenes for
colour, `<set>-one.jsonl` and so on. The tables stand in the card between a comment that names them
and the next one.
"""

import re
from pathlib import Path
from typing import Any

from scribblediffusion.evaluate.quality import COUNTS, SETS, by_place, figures
from scribblediffusion.evaluate.records import Lines
from scribblediffusion.evaluate.report import places, set_table

HERE = Path(__file__).parent
CARD, SCORES = HERE.parent / "MODEL_CARD.md", HERE / "quality"


def scores(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of a set's scenes as they came, and of the further ones for colour."""
    parts = [name, *(f"{name}-{label}" for label in COUNTS.values())]
    first, *more = ([*Lines(SCORES / f"{part}.jsonl").found.values()] for part in parts)
    return first, [one for records in more for one in records]


def tables() -> dict[str, str]:
    """Name → table: one of each set of scenes, and "places"."""
    found = {name: scores(name) for name in SETS}
    made = {name: set_table(name, figures(*both)) for name, both in found.items()}
    every = [one for both in found.values() for records in both for one in records]
    return made | {"places": places(by_place(every))}


def written(card: str) -> str:
    """The card with every table as the scores have it."""
    for name, table in tables().items():
        between = re.compile(f"(<!-- {name} -->\n\n).*?(\n<!-- end -->)", re.DOTALL)
        card, count = between.subn(lambda m, t=table: m[1] + t + m[2], card)
        if count != 1:
            raise SystemExit(f"{CARD.name}: {count} places for the table of {name}, 1 wanted")
    return card


if __name__ == "__main__":
    CARD.write_text(written(CARD.read_text(encoding="utf-8")), encoding="utf-8")
