"""The README's own figures are those that were measured."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def test_what_the_maps_are_said_to_tell_is_what_was_measured():
    measured = json.loads((ROOT / "docs/images/maps/maps.json").read_text("utf-8"))
    noun = measured["localisation"]["all"]["noun"]
    colour = measured["causal"]["colour, removed"]["picture"]
    sentence = (
        f"On {measured['about']['localisation_scenes']} held-out scenes the map of a noun points "
        f"at its object in {percent(noun['own'][0]['value'])} "
        f"(chance {percent(noun['chance'][0])}), and where a colour word is left out "
        f"(in {measured['about']['causal_scenes']} of them), its map holds "
        f"{percent(colour['share']['value'])} of what changes "
        f"(chance {percent(colour['chance']['value'])}, "
        f"other words' maps {percent(colour['control']['value'])})."
    )
    assert sentence in " ".join((ROOT / "README.md").read_text("utf-8").split())
