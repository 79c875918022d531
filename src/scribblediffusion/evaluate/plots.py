"""The plots of `scribble evaluate maps`, by the name of their files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scribblediffusion.analysis.change import picture_change
from scribblediffusion.evaluate.findings import (
    AIMS,
    EDITS,
    NAMES,
    NEAREST,
    PARTED,
    WORDS,
    Evidence,
    Found,
    edit_of,
    examples,
    nearest,
    sentence,
    short_layer,
    typical,
)
from scribblediffusion.evaluate.intervals import Interval
from scribblediffusion.evaluate.maps import PICTURES
from scribblediffusion.view import evidence as view


def file_of(title: str) -> str:
    """The name of the file of examples of one kind."""
    return title.replace(" ", "-")


#: Files that an evaluation may have or not: where no edit had an effect there is nothing to show.
OPTIONAL = ("causal", "typical", *(file_of(title) for title in (*PARTED, NEAREST)))
_TO_COME = "its attention still to come"


def plots(evidence: Evidence) -> dict[str, Any]:
    """Every plot, by the name of its file."""
    drawn: dict[str, Any] = {
        "localisation": view.bars(_bars(evidence)),
        "time": view.curves(_time_curves(evidence)),
    }
    regions = [kind for kind in evidence.kinds if kind not in WORDS]
    for suffix, kinds in (("", [k for k in WORDS if k in evidence.kinds]), ("-regions", regions)):
        if kinds:
            drawn[f"noise{suffix}"] = view.curves(_noise_curves(evidence, kinds))
            drawn[f"layers{suffix}"] = view.ranked(_layer_rows(evidence, kinds))
            drawn[f"heads{suffix}"] = _heads(evidence, kinds)
    if rows := _causal_rows(evidence):  # none where no edit had an effect
        drawn["causal"] = view.ranked(rows)
    shown = examples(evidence)
    if not shown[PARTED[0]]:
        shown[NEAREST] = nearest(evidence)
    cases = {"typical": [c for c in [typical(evidence)] if c]}
    cases |= {file_of(title): found for title, found in shown.items()}
    for name, chosen in cases.items():
        if chosen:
            drawn[name] = view.pictures([_row(evidence, case) for case in chosen])
    return drawn


def _triple(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _series(found: Found, i: int) -> dict[str, tuple[float, float, float]]:
    series = {"on its own object": _triple(found.own[i])}
    if found.shuffled:
        series["other tokens' maps there"] = _triple(found.shuffled[i])
    if found.wrong:
        series["on another object"] = _triple(found.wrong[i])
    chance = found.chance[i]
    series["chance"] = (chance, chance, chance)
    return series


def _bars(evidence: Evidence) -> list[view.Bars]:
    labels = {kind: NAMES.get(kind, kind).replace(" ", "\n") for kind in evidence.kinds}
    return [
        view.Bars(
            title,
            {labels[k]: _series(evidence.located(k), i) for k in evidence.kinds},
            {labels[k]: AIMS[k] for k in evidence.kinds if k in AIMS} if not i else {},
            "0…1",
        )
        for i, title in enumerate(("pointing game (dotted: aim)", "IoU at equal area", "AUC"))
    ]


def _noise_curves(evidence: Evidence, kinds: Sequence[str]) -> list[view.Curves]:
    steps = [v for v in evidence.views if v.startswith("step ")]
    panels = []
    for kind in kinds:
        found = [evidence.located(kind, s) for s in steps]
        names = list(_series(found[0], 0))
        series = {
            name: [(n, _series(f, 0)[name]) for n, f in zip(evidence.noise, found, strict=True)]
            for name in names
        }
        panels.append(view.Curves(NAMES.get(kind, kind), series, "pointing game", tuple(names[1:])))
    return panels


def _layer_rows(evidence: Evidence, kinds: Sequence[str]) -> list[view.Bars]:
    layers = [v for v in evidence.views if v.startswith("layer ")]
    return [
        view.Bars(
            NAMES.get(kind, kind),
            {
                short_layer(v.removeprefix("layer ")): {
                    n: s
                    for n, s in _series(evidence.located(kind, v), 0).items()
                    if n != "on another object"
                }
                for v in layers
            },
            unit="pointing game",
        )
        for kind in kinds
    ]


def _heads(evidence: Evidence, kinds: Sequence[str]) -> Any:
    layers = [v.removeprefix("layer ") for v in evidence.views if v.startswith("layer ")]
    heads = len([v for v in evidence.views if v.startswith(f"head {layers[0]} ")])
    panels = [
        (
            NAMES.get(kind, kind),
            np.array(
                [
                    [evidence.located(kind, f"head {layer} {h}").own[0].value for h in range(heads)]
                    for layer in layers
                ]
            ),
        )
        for kind in kinds
    ]
    return view.matrix(
        panels, [*map(short_layer, layers)], [*map(str, range(heads))], "pointing, %"
    )


def _causal_rows(evidence: Evidence) -> list[view.Bars]:
    panels = []
    for where, title in (("picture", "change of the picture"), ("latents", "of the latents")):
        groups = {}
        for kind, edit in EDITS:
            found = evidence.explained(kind, edit, where)
            names = {"share": "explained by its map", "control": "other maps of its kind"}
            series = {label: _triple(i) for k, label in names.items() if (i := found[k])}
            if found["chance"] is not None:
                chance = found["chance"].value
                series["chance"] = (chance, chance, chance)
                groups[f"{NAMES[kind]} {edit}"] = series
        panels.append(view.Bars(title, groups, unit="share of the change"))
    return [p for p in panels if p.groups]


def _time_curves(evidence: Evidence) -> list[view.Curves]:
    panels = []
    for kind in WORDS:
        series = {
            name: [(n, _triple(i)) for n, i in evidence.over_time(kind, after)]
            for name, after in (("removed from there on", True), ("removed until there", False))
        }
        series[_TO_COME] = [(n, _triple(i)) for n, i in evidence.attention_to_come(kind)]
        panels.append(view.Curves(NAMES[kind], series, "change, whole removal = 1", (_TO_COME,)))
    return panels


def _row(evidence: Evidence, case: tuple[int, int]) -> view.PictureRow:
    record, edit = edit_of(evidence, case)
    with np.load(evidence.folder / PICTURES / f"{case[0]:04d}.npz") as kept:
        base, after, heat = kept["base"], kept["changed"][case[1]], kept["maps"][case[1]]
    text = f"{record['caption']}\n{sentence(edit).replace('*', '“', 1).replace('*', '”', 1)}"
    how = f"“{edit['subject']}” {edit['how']}"
    return view.change_row(text, how, base, after, picture_change(base, after), heat)
