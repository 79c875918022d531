"""The measured tables of MODEL_CARD.md, from the scores that `scribble evaluate quality` kept.

    scribble evaluate quality --output docs/quality
    python docs/model_card.py

docs/quality then holds what was asked (`settings.json`) and the scores of every held-out scene:
`<set>.jsonl` and, of further scenes for colour, `<set>-one.jsonl` and so on.
"""

import json
from pathlib import Path
from typing import Any

from scribblediffusion.evaluate.page import filled
from scribblediffusion.evaluate.quality import COUNTS, QUESTIONS, SETS, by_place, figures
from scribblediffusion.evaluate.records import Lines, weights_digest
from scribblediffusion.evaluate.report import places, set_table

HERE = Path(__file__).parent
CARD, SCORES = HERE.parent / "MODEL_CARD.md", HERE / "quality"


def tables() -> dict[str, str]:
    """Name of a set of scenes → its table; and "places", of all of them together."""
    about = json.loads((SCORES / "settings.json").read_text(encoding="utf-8"))
    wanted = {"questions": QUESTIONS, "weights": weights_digest(None)}
    if {name: about.get(name) for name in wanted} != wanted:
        raise SystemExit(f"{SCORES} is of {about}, and the card is of {wanted}: measure again")
    scores = {name: (_records(name), _further(name)) for name in SETS}
    every = [one for both in scores.values() for records in both for one in records]
    made = {name: set_table(name, figures(*both)) for name, both in scores.items()}
    return made | {"places": places(by_place(every))}


def _records(part: str) -> list[dict[str, Any]]:
    found = Lines(SCORES / f"{part}.jsonl").found
    if not found:
        raise SystemExit(f"{SCORES} has no scores of {part}: measure them")
    return [*found.values()]


def _further(name: str) -> list[dict[str, Any]]:
    parts = (f"{name}-{label}" for label in COUNTS.values())
    there = (part for part in parts if (SCORES / f"{part}.jsonl").exists())
    return [one for part in there for one in _records(part)]


if __name__ == "__main__":
    CARD.write_text(filled(CARD.read_text(encoding="utf-8"), tables()), encoding="utf-8")
