"""Where to look, and how to sum up: chosen on one half of the scenes, reported on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scribblediffusion.evaluate.findings import WORDS, Evidence, Found, Record, sums
from scribblediffusion.evaluate.intervals import Interval, share_interval
from scribblediffusion.evaluate.truth import KINDS

#: Today's default of `trace.word`, as a candidate.
DEFAULT = "all layers, all steps"
#: What another aggregation must score more, on the choosing half, to become the default: a rule
#: that was written down before the choice.
MARGIN = 0.05
#: How the names of candidates of a single layer begin: those of no other do.
_SINGLE = ("down_blocks.", "mid_block.", "up_blocks.")
REGIONS = tuple(kind for kind in KINDS if kind.startswith("region"))


@dataclass(frozen=True)
class Choice:
    """The default aggregation chosen on one half of the scenes and reported on the other.

    The score is the mean of pointing and IoU over nouns, colour words and sketch regions (the
    three levels together), with equal weight. Candidates for the default are sets of layers told by
    their size or block, at all steps or some; single layers of this model are not. The sharpest map
    of a word is looked for among single layers as well.

    Attributes:
        default: the name of what the rule makes the default (see `MARGIN`).
        best: the best candidate for the default.
        sharpest: the best of all for words, by IoU.
        margin: score of the best candidate less that of today's default, on the choosing half.
        scenes: how many scenes chose, and how many report.
        reported: on the reporting half, name → kind → what was found: today's default, the best
            candidate and the sharpest.
        ranking: the candidates for the default with their score on the choosing half, best first.
        candidates: how many there were in all.
    """

    default: str
    best: str
    sharpest: str
    margin: float
    scenes: tuple[int, int]
    reported: dict[str, dict[str, Found]]
    ranking: tuple[tuple[str, float], ...]
    candidates: int


@dataclass(frozen=True)
class Look:
    """Where a person should look, chosen on one half of the scenes and reported on the other.

    Attributes:
        noise: noise remaining at the best step.
        layer: the best layer.
        head: the best layer and head.
        found: "noise", "layer", "head" → pointing of nouns and colour words on the reporting half.
    """

    noise: float
    layer: str
    head: tuple[str, int]
    found: dict[str, Interval]


def _halves(evidence: Evidence) -> tuple[list[Record], list[Record]]:
    """The scenes that choose and those that report."""
    return evidence.localisation[::2], evidence.localisation[1::2]


def choice(evidence: Evidence) -> Choice | None:
    """Chooses the default aggregation; None for too few scenes."""
    chooses, reports = halves = _halves(evidence)
    names = [view for view in evidence.views if view.startswith("choice ")]
    if not names or not all(_has(half, WORDS) for half in halves):
        return None
    at = {name.removeprefix("choice "): evidence.views.index(name) for name in names}
    for_all = [name for name in at if not name.startswith(_SINGLE)]
    scored = {name: _score(chooses, at[name]) for name in for_all}
    ranking = sorted(scored.items(), key=lambda item: -item[1])
    best, present = ranking[0][0], scored.get(DEFAULT, 0.0)
    sharpest = max(at, key=lambda name: _mean_of(chooses, WORDS, at[name], (1,)))
    margin = scored[best] - present
    return Choice(
        default=best if margin > MARGIN else DEFAULT,
        best=best,
        sharpest=sharpest,
        margin=margin,
        scenes=(len(chooses), len(reports)),
        reported={
            name: {
                kind: evidence.located(kind, f"choice {name}", reports)
                for kind in evidence.kinds
                if _has(reports, (kind,))
            }
            for name in dict.fromkeys((DEFAULT, best, sharpest))
            if name in at
        },
        ranking=tuple(ranking),
        candidates=len(at),
    )


def look(evidence: Evidence) -> Look | None:
    """Which noise level, layer and head point best; None for too few scenes."""
    chooses, reports = halves = _halves(evidence)
    among = {
        name: [i for i, view in enumerate(evidence.views) if view.startswith(prefix)]
        for name, prefix in (("noise", "step "), ("layer", "layer "), ("head", "head "))
    }
    if not all(among.values()) or not all(_has(half, WORDS) for half in halves):
        return None
    at = {
        name: max(views, key=lambda i: _mean_of(chooses, WORDS, i, (0,)))
        for name, views in among.items()
    }
    layer, head = evidence.views[at["head"]].removeprefix("head ").rsplit(" ", 1)
    return Look(
        noise=evidence.noise[int(evidence.views[at["noise"]].removeprefix("step "))],
        layer=evidence.views[at["layer"]].removeprefix("layer "),
        head=(layer, int(head)),
        found={
            name: found
            for name, view in at.items()
            if (found := _pointing(reports, WORDS, view)) is not None
        },
    )


def _score(records: Sequence[Record], at: int) -> float:
    """Mean of pointing and IoU, nouns, colour words and regions with equal weight."""
    parts = [_mean_of(records, kinds, at, (0, 1)) for kinds in (("noun",), ("colour",), REGIONS)]
    return float(np.mean([part for part in parts if not np.isnan(part)]))


def _mean_of(
    records: Sequence[Record], kinds: Sequence[str], at: int, measures: Sequence[int]
) -> float:
    """Mean of some measures under one view, kinds with equal weight; NaN where there are none."""
    means = []
    for kind in kinds:
        found = [sums(r, kind, "own", at) for r in records]
        if many := sum(n for _, n in found):
            means += [sum(s[i] for s, _ in found) / many for i in measures]
    return float(np.mean(means)) if means else float("nan")


def _pointing(records: Sequence[Record], kinds: Sequence[str], at: int) -> Interval | None:
    """The pointing game under one view, all cases of some kinds together."""
    found = [[sums(r, kind, "own", at) for kind in kinds] for r in records]
    return share_interval(
        np.array([sum(s[0] for s, _ in row) for row in found]),
        np.array([sum(n for _, n in row) for row in found]),
    )


def _has(records: Sequence[Record], kinds: Iterable[str]) -> bool:
    return all(any(kind in r["kinds"] for r in records) for kind in kinds)
