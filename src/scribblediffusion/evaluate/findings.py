"""From the records of `scribble evaluate maps` to figures with intervals (no model needed).

Every figure is a mean over cases with a 95 % bootstrap interval over scenes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scribblediffusion.analysis.change import NO_EFFECT
from scribblediffusion.evaluate.intervals import Interval, mean_interval, share_interval
from scribblediffusion.evaluate.maps import (
    EFFECTS,
    LOCALISATION,
    MOMENTS_FILE,
    SETTINGS,
    counts,
)
from scribblediffusion.evaluate.records import Lines
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
    ("ground", "knocked out"),
    ("other", "removed"),
    ("other", "knocked out"),
    ("stroke", "erased"),
)
#: Kinds of words that name something with a place.
WORDS = ("noun", "colour")
#: How each of `MEASURES` gets its interval: the pointing game is won or lost.
INTERVALS = (share_interval, mean_interval, mean_interval)


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

    @property
    def counted(self) -> dict[str, int]:
        """How many scenes each of the three experiments had."""
        return {
            "localisation_scenes": len(self.localisation),
            "causal_scenes": len(self.effects),
            "time_scenes": len([r for r in self.moments if "moments" in r]),
        }

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
            found = [sums(r, kind, name, at) for r in rows]
            counts = np.array([n for _, n in found])
            made = [
                interval(np.array([s[i] for s, _ in found]), counts)
                for i, interval in enumerate(INTERVALS)
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
        self,
        value: Callable[[Record], float | None],
        kind: str | None,
        edit: str | None,
        interval: Callable[[Array, Array], Interval | None] = mean_interval,
    ) -> Interval | None:
        """Mean of a value over edits that have one."""
        totals = {record["scene"]: [0.0, 0] for record in self.effects}
        for scene, one in self.edits(kind, edit):
            if (found := value(one)) is not None:
                totals[scene][0] += found
                totals[scene][1] += 1
        return interval(
            np.array([t for t, _ in totals.values()]), np.array([n for _, n in totals.values()])
        )

    def explained(
        self, kind: str | None, edit: str | None, where: str = "picture"
    ) -> dict[str, Interval | None]:
        """How much of the change lies where the map is, of edits that had an effect."""

        def part(at: int) -> Callable[[Record], float | None]:
            return lambda e: e[where][at] if had_effect(e) and e[where][0] is not None else None

        names = ("share", "chance", "control", "best")
        return {name: self.of_edits(part(i), kind, edit) for i, name in enumerate(names)}

    def consequences(self, kind: str, edit: str) -> dict[str, Interval | None]:
        """What edits of one kind did: how many had an effect, how large, and where.

        "as removed" is, of words that were knocked out, how much of what their removal changed lies
        where knocking out changed most.
        """

        def where_effective(name: str) -> Callable[[Record], float | None]:
            return lambda e: e.get(name) if had_effect(e) else None

        def as_removed(at: int) -> Callable[[Record], float | None]:
            return lambda e: (
                alike[at]
                if (alike := e.get("as removed")) and alike[0] is not None and had_effect(e)
                else None
            )

        asked: dict[str, tuple[Callable[[Record], float | None], Any]] = {
            "had an effect": (lambda e: float(had_effect(e)), share_interval),
            "pixels": (lambda e: e["effect"], mean_interval),
            "inside its object": (where_effective("inside"), mean_interval),
            "size of its object": (where_effective("area"), mean_interval),
            "as removed": (as_removed(0), mean_interval),
            "as removed, chance": (as_removed(1), mean_interval),
        }
        return {name: self.of_edits(value, kind, edit, by) for name, (value, by) in asked.items()}

    # ── over time ────────────────────────────────────────────────────────────────────────────

    def over_time(self, kind: str, after: bool) -> list[tuple[float, Interval]]:
        """(noise remaining, effect of the whole removal = 1) for a removal from or until there."""
        records = self._timed(kind)
        steps = sorted({m[0] for r in records for m in r["moments"] if m[1] == after})
        return [
            (self._noise_at(step), made)
            for step in steps
            if (made := _ratio([_moment(r, step, after) for r in records], map(_whole, records)))
        ]

    def attention_to_come(self, kind: str) -> list[tuple[float, Interval]]:
        """(noise remaining, share of a word's attention that is still to come there).

        Of the same words and scenes as `over_time`, in their whole runs: what a removal from there
        on would do if every step's effect were as large as its attention. Words weigh as there: by
        the effect of their whole removal.
        """
        records = [r for r in self._timed(kind) if self._attention(r) is not None]
        rows = [np.asarray(self._attention(r)) for r in records]
        wholes = [_whole(r) for r in records]
        steps = sorted({m[0] for r in records for m in r["moments"] if m[1]})
        return [
            (self._noise_at(step), made)
            for step in steps
            if (
                made := _ratio(
                    [w * a[step:].sum() / a.sum() for w, a in zip(wholes, rows, strict=True)],
                    wholes,
                )
            )
        ]

    def _timed(self, kind: str) -> list[Record]:
        return [r for r in self.moments if r.get("kind") == kind and _whole(r) > 0]

    def _attention(self, timed: Record) -> list[float] | None:
        """The attention by step of the word that was removed at moments; None where unmeasured."""
        edits = (
            e
            for record in self.effects
            if record["scene"] == timed["scene"]
            for e in record["edits"]
            if (e["edit"], e["kind"], e["subject"]) == ("removed", timed["kind"], timed["subject"])
        )
        return next((e["attention_by_step"] for e in edits if any(e["attention_by_step"])), None)

    def _noise_at(self, step: int) -> float:
        """What the scheduler said."""
        return (self.noise or self.effects[0]["noise"])[step]


def had_effect(edit: Record) -> bool:
    """Whether enough pixels changed noticeably, and there is a share at all."""
    return edit["effect"] >= NO_EFFECT and edit["picture"][0] is not None


#: What stands in for the first of these where there is none.
NEAREST = "nearest to attention without effect"
#: The two ways in which attention and effect part.
PARTED = ("attention without effect", "effect without attention")


def examples(evidence: Evidence, count: int = 3) -> dict[str, list[tuple[int, int]]]:
    """Words that break the rule "much attention, much effect", by search.

    Among all removed words: those with more attention a token than the median whose removal had no
    effect (see `had_effect`), and those with less whose removal had one; those whose two ranks are
    furthest apart first.

    Returns:
        The two of `PARTED`: (scene, number of the edit), the clearest first, no word twice.
        Where there are fewer than `count`, the list is shorter.
    """
    cases, apart, above = _two_ranks(evidence)
    order = np.argsort(apart)
    loud = [i for i in order[::-1] if above[i] and not had_effect(cases[i][2])]
    quiet = [i for i in order if not above[i] and had_effect(cases[i][2])]
    first, second = PARTED
    return {first: _different(cases, loud, count), second: _different(cases, quiet, count)}


def nearest(evidence: Evidence, count: int = 3) -> list[tuple[int, int]]:
    """The removed words whose rank of attention is furthest above that of their effect."""
    cases, apart, _ = _two_ranks(evidence)
    return _different(cases, np.argsort(apart)[::-1], count)


def _two_ranks(evidence: Evidence) -> tuple[list[tuple[int, int, Record]], Array, Array]:
    """Removed words: rank of attention less that of effect, and whose attention is above median."""
    cases = [
        (record["scene"], i, e)
        for record in evidence.effects
        for i, e in enumerate(record["edits"])
        if e["edit"] == "removed"
    ]
    if not cases:
        return [], np.zeros(0), np.zeros(0, bool)
    attention = np.array([e["attention"] for _, _, e in cases])
    apart = _ranks(attention) - _ranks(np.array([e["delta"] for _, _, e in cases]))
    return cases, apart, attention > np.median(attention)


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
    return list(found.values())[:count]


def _ranks(values: Array) -> Array:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values)) / len(values)


def _whole(record: Record) -> float:
    """The effect of removing the word for the whole run."""
    return next((m[2] for m in record.get("moments", []) if m[0] == 0 and m[1]), 0.0)


def _moment(record: Record, step: int, after: bool) -> float:
    return next(m[2] for m in record["moments"] if m[0] == step and m[1] == after)


def _ratio(values: Iterable[float], wholes: Iterable[float]) -> Interval | None:
    """The sum of values as a share of the sum of their wholes, one pair a scene."""
    wholes = np.array(list(wholes), np.float64)
    made = mean_interval(np.array(list(values), np.float64), wholes)
    return None if made is None else replace(made, count=len(wholes))


def sums(record: Record, kind: str, name: str, at: int) -> tuple[Sequence[float], int]:
    """Sums of the three measures over a scene's cases of one kind, and how many cases."""
    found = record["kinds"].get(kind, {}).get(name)
    if found is None:
        return (0.0,) * len(MEASURES), 0
    return found["sums"] if "chance" in name else found["sums"][at], found["count"]


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
