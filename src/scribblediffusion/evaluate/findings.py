"""From the records of `scribble evaluate maps` to figures with intervals (no model needed).

Every figure is a mean over cases with a 95 % bootstrap interval over scenes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scribblediffusion.analysis.change import NO_EFFECT
from scribblediffusion.evaluate.intervals import Interval, mean_interval
from scribblediffusion.evaluate.maps import (
    EFFECTS,
    LOCALISATION,
    MOMENTS_FILE,
    SETTINGS,
    Lines,
    counts,
)
from scribblediffusion.evaluate.truth import KINDS, MEASURES

Array = np.ndarray[Any, np.dtype[Any]]
Record = dict[str, Any]

#: What is aimed at: kind → share of maps whose highest place lies on its object.
AIMS = {"noun": 0.95, "colour": 0.90, "region 8×8": 0.98, "region 3×3": 0.98, "region 2×2": 0.98}
#: Kinds as people read them.
NAMES = {
    "noun": "nouns",
    "colour": "colour words",
    "ground": "ground's colour",
    "other": "other words",
    "stroke": "strokes",
}
#: What is reported: kind of subject, kind of edit.
EDITS = (
    ("noun", "removed"),
    ("noun", "replaced"),
    ("noun", "knocked out"),
    ("colour", "removed"),
    ("colour", "replaced"),
    ("colour", "knocked out"),
    ("ground", "removed"),
    ("other", "removed"),
    ("stroke", "erased"),
)
#: The kinds by which the default aggregation of a word's map is chosen.
WORDS = ("noun", "colour")


@dataclass(frozen=True)
class Found:
    """One kind of map under one view, measured and controlled.

    Attributes:
        own: pointing, IoU and AUC of the maps against their own object.
        chance: of a map in random order, for each of the three.
        wrong: of the same maps against another object; None where no scene has one.
        wrong_chance: of a map in random order there.
        shuffled: of other tokens' maps against the object.
    """

    own: tuple[Interval, ...]
    chance: tuple[float, ...]
    wrong: tuple[Interval, ...] | None
    wrong_chance: tuple[float, ...] | None
    shuffled: tuple[Interval, ...] | None


@dataclass(frozen=True)
class Choice:
    """The default aggregation chosen on one half of the scenes and reported on the other.

    Attributes:
        name: the best on the choosing half.
        scenes: how many scenes chose, and how many report.
        chosen: pointing and IoU of the best on the reporting half, for nouns and colours.
        present: the same of today's default (all layers, all steps).
        gain: IoU of the best less that of today's default, on the reporting half.
        ranking: the candidates with their IoU on the choosing half, best first.
    """

    name: str
    scenes: tuple[int, int]
    chosen: dict[str, Found]
    present: dict[str, Found]
    gain: Interval | None
    ranking: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Evidence:
    """All the records of one evaluation.

    Attributes:
        about: weights, steps, seed.
        scenes: how many scenes were asked for.
        localisation: one record a scene.
        effects: one record a scene.
        moments: one record a scene.
        folder: where the records and pictures are.
    """

    about: Record
    scenes: int
    localisation: list[Record]
    effects: list[Record]
    moments: list[Record]
    folder: Path

    @classmethod
    def read(cls, folder: Path, scenes: int) -> Evidence:
        """Reads what `maps.run` left in a folder."""
        many = counts(scenes)
        names = (LOCALISATION, EFFECTS, MOMENTS_FILE)
        localisation, effects, moments = (
            Lines(folder / name).first(n) for name, n in zip(names, many, strict=True)
        )
        about = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        return cls(about, scenes, localisation, effects, moments, folder)

    # ── localisation ─────────────────────────────────────────────────────────────────────────

    @property
    def views(self) -> list[str]:
        """Names of the views, in order."""
        return self.localisation[0]["views"] if self.localisation else []

    @property
    def noise(self) -> list[float]:
        """Noise remaining at each step."""
        return self.localisation[0]["noise"] if self.localisation else []

    @property
    def kinds(self) -> list[str]:
        """Kinds of subjects that the scenes have."""
        there = {kind for record in self.localisation for kind in record["kinds"]}
        return [kind for kind in KINDS if kind in there]

    def located(
        self, kind: str, view: str = "all", records: Sequence[Record] | None = None
    ) -> Found:
        """One kind under one view."""
        at = self.views.index(view)
        rows = self.localisation if records is None else records

        def intervals(name: str) -> tuple[Interval, ...] | None:
            found = [_sums(r, kind, name, at) for r in rows]
            made = [
                mean_interval(np.array([s[i] for s, _ in found]), np.array([n for _, n in found]))
                for i in range(len(MEASURES))
            ]
            return None if made[0] is None else tuple(m for m in made if m is not None)

        own = intervals("own")
        if own is None:
            raise ValueError(f"no {kind} in these scenes")
        wrong_chance = intervals("wrong_chance")
        return Found(
            own=own,
            chance=tuple(i.value for i in intervals("chance") or ()),
            wrong=intervals("wrong"),
            wrong_chance=None if wrong_chance is None else tuple(i.value for i in wrong_chance),
            shuffled=intervals("shuffled"),
        )

    def choice(self) -> Choice | None:
        """Chooses the default aggregation by IoU of nouns and colours; None for one scene."""
        chooses, reports = self.localisation[::2], self.localisation[1::2]
        names = [view for view in self.views if view.startswith("choice ")]
        if not names or not all(_has(half, WORDS) for half in (chooses, reports)):
            return None
        scored = {name: _iou_of_words(chooses, self.views.index(name)) for name in names}
        ranking = sorted(scored.items(), key=lambda item: -item[1])
        best, at, now = ranking[0][0], self.views.index(ranking[0][0]), self.views.index("all")
        gains = [_scene_gain(record, at, now) for record in reports]
        gain = mean_interval(np.array([g for g, _ in gains]), np.array([n for _, n in gains]))
        return Choice(
            name=best.removeprefix("choice "),
            scenes=(len(chooses), len(reports)),
            chosen={kind: self.located(kind, best, reports) for kind in self.kinds},
            present={kind: self.located(kind, "all", reports) for kind in self.kinds},
            gain=gain,
            ranking=tuple((n.removeprefix("choice "), v) for n, v in ranking),
        )

    # ── causality ────────────────────────────────────────────────────────────────────────────

    def edits(self, kind: str | None = None, edit: str | None = None) -> list[tuple[int, Record]]:
        """(scene, edit) of the causal experiments, all or of one kind."""
        return [
            (record["scene"], e)
            for record in self.effects
            for e in record["edits"]
            if kind in (None, e["kind"]) and edit in (None, e["edit"])
        ]

    def of_edits(
        self, value: Callable[[Record], float | None], kind: str | None, edit: str | None
    ) -> Interval | None:
        """Mean of a value over edits that have one."""
        totals = {record["scene"]: [0.0, 0] for record in self.effects}
        for scene, one in self.edits(kind, edit):
            if (found := value(one)) is not None:
                totals[scene][0] += found
                totals[scene][1] += 1
        return mean_interval(
            np.array([t for t, _ in totals.values()]), np.array([n for _, n in totals.values()])
        )

    def explained(
        self, kind: str | None, edit: str | None, where: str = "picture"
    ) -> dict[str, Interval | None]:
        """How much of the change lies where the map is, of edits that had an effect."""

        def part(at: int) -> Callable[[Record], float | None]:
            return lambda e: e[where][at] if had_effect(e) else None

        names = ("share", "chance", "control", "best")
        return {name: self.of_edits(part(i), kind, edit) for i, name in enumerate(names)}

    # ── over time ────────────────────────────────────────────────────────────────────────────

    def over_time(self, kind: str, after: bool) -> list[tuple[float, Interval]]:
        """(noise remaining, effect of the whole removal = 1) for a removal from or until there."""
        records = [r for r in self.moments if r.get("kind") == kind and _whole(r) > 0]
        steps = sorted({m[0] for r in records for m in r["moments"] if m[1] == after})
        found = []
        for step in steps:
            ratio = [
                next(m[2] for m in r["moments"] if m[0] == step and m[1] == after) for r in records
            ]
            whole = [_whole(r) for r in records]
            made = mean_interval(np.array(ratio), np.array(whole))
            if made is not None:
                found.append((1 - step / self.about["steps"], made))
        return found

    def attention_over_time(self, kind: str) -> list[tuple[float, Interval]]:
        """(noise remaining, a removed word's share of attention) of one kind of word."""
        removed = [e for _, e in self.edits(kind, "removed")]
        if not removed:
            return []
        noise = self.effects[0]["noise"]
        rows = np.array([e["attention_by_step"] for e in removed])
        made = [mean_interval(column, np.ones(len(rows))) for column in rows.T]
        return [(n, m) for n, m in zip(noise, made, strict=True) if m is not None]


def had_effect(edit: Record) -> bool:
    """Whether enough pixels changed noticeably, and there is a share at all."""
    return edit["effect"] >= NO_EFFECT and edit["picture"][0] is not None


def examples(evidence: Evidence, count: int = 3) -> dict[str, list[tuple[int, int]]]:
    """Words that break the rule "much attention, much effect", by search over all scenes.

    Of all removed words the ranks of attention and of effect (change of the picture) are compared.

    Returns:
        "attention without effect" and "effect without attention": (scene, number of the edit),
        the clearest first, no word twice.
    """
    cases = [
        (record["scene"], i, e)
        for record in evidence.effects
        for i, e in enumerate(record["edits"])
        if e["edit"] == "removed"
    ]
    if not cases:
        return {"attention without effect": [], "effect without attention": []}
    attention = _ranks([e["attention"] for _, _, e in cases])
    effect = _ranks([e["delta"] for _, _, e in cases])
    order = np.argsort(attention - effect)
    return {
        "attention without effect": _different(cases, order[::-1], count),
        "effect without attention": _different(cases, order, count),
    }


def typical(evidence: Evidence) -> tuple[int, int] | None:
    """The removed word whose explained share is the median: (scene, number of the edit)."""
    cases = [
        (e["picture"][0], record["scene"], i)
        for record in evidence.effects
        for i, e in enumerate(record["edits"])
        if e["edit"] == "removed" and e["kind"] in WORDS and had_effect(e)
    ]
    return None if not cases else sorted(cases)[len(cases) // 2][1:]


def _different(
    cases: Sequence[tuple[int, int, Record]], order: Iterable[int], count: int
) -> list[tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for i in order:
        scene, number, edit = cases[int(i)]
        found.setdefault(edit["subject"], (scene, number))
        if len(found) == count:
            break
    return list(found.values())


def _ranks(values: Sequence[float]) -> Array:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values)) / len(values)


def _whole(record: Record) -> float:
    """The effect of removing the word for the whole run."""
    return next((m[2] for m in record.get("moments", []) if m[0] == 0 and m[1]), 0.0)


def _sums(record: Record, kind: str, name: str, at: int) -> tuple[Sequence[float], int]:
    found = record["kinds"].get(kind, {}).get(name)
    if found is None:
        return (0.0,) * len(MEASURES), 0
    sums = found["sums"]
    return (sums if "chance" in name else sums[at]), found["count"]


def _has(records: Sequence[Record], kinds: Iterable[str]) -> bool:
    return all(any(kind in r["kinds"] for r in records) for kind in kinds)


def _iou_of_words(records: Sequence[Record], at: int) -> float:
    """Mean IoU, nouns and colours with equal weight."""
    means = []
    for kind in WORDS:
        found = [_sums(r, kind, "own", at) for r in records]
        means.append(sum(s[1] for s, _ in found) / sum(n for _, n in found))
    return float(np.mean(means))


def _scene_gain(record: Record, at: int, now: int) -> tuple[float, int]:
    gain, count = 0.0, 0
    for kind in WORDS:
        (best, n), (present, _) = (_sums(record, kind, "own", view) for view in (at, now))
        gain, count = gain + best[1] - present[1], count + n
    return gain, count


def sentence(edit: dict[str, Any]) -> str:
    """One edit's finding: "the map of *red* explains 81 % of what changed (…)"."""
    share, chance, control, _ = edit["picture"]
    if not had_effect(edit):
        seen = 100 * edit["effect"]
        return f"*{edit['subject']}* {edit['how']}: {seen:.1f} % of the pixels changed noticeably"
    other = "" if control is None else f", control {100 * control:.0f} %"
    return (
        f"the map of *{edit['subject']}* explains {100 * share:.0f} % of what changed "
        f"(chance {100 * chance:.0f} %{other})"
    )


def short_layer(layer: str) -> str:
    """down_blocks.1.attentions.0.transformer_blocks.0.attn2 → down 1.0 attn2."""
    found = re.match(r"(\w+?)_blocks?\.?(\d*)\.?attentions\.(\d+).*\.(\w+)$", layer)
    if not found:
        return layer
    block, number, attention, kind = found.groups()
    return f"{block} {number + '.' if number else ''}{attention} {kind}"


def edit_of(evidence: Evidence, case: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scene's record and the edit's that (scene, number of the edit) means."""
    record = next(r for r in evidence.effects if r["scene"] == case[0])
    return record, record["edits"][case[1]]
