"""Do maps find their objects? Localisation on held-out scenes whose objects have masks.

A scene's words and sketch regions are measured under many *views*: the whole run, each noise
level, each layer, each head, and every candidate for the default aggregation of `trace.word`.
What is kept of a scene are sums over its cases, so that intervals can be drawn over scenes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from scribblediffusion.analysis.localisation import by_chance, measure, on_grid
from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.trace import AttentionTrace, resize
from scribblediffusion.errors import SettingError
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import seeded
from scribblediffusion.sketch import REGIONS, Sketch
from scribblediffusion.train.latents import spans
from scribblediffusion.train.scenes import Scene, scene

Array = np.ndarray[Any, np.dtype[Any]]

#: Which stream of held-out scenes, and of which split.
SEED, SPLIT = 2026, "test"
#: Kinds of subjects, in the order in which they are reported.
KINDS = ("noun", "colour", "region 8×8", "region 3×3", "region 2×2")
MEASURES = ("pointing", "iou", "auc")
#: At most so many regions of a level, and so many other words as controls, for each subject.
REGIONS_OF_A_LEVEL, OTHERS = {8: 8, 3: 3, 2: 2}, 3


@dataclass(frozen=True)
class Subject:
    """Something with a map and a true place.

    Attributes:
        kind: one of `KINDS`.
        name: as it is written in the prompt; a region by level, row and column.
        keys: its keys.
        place: `[H, W]` bool, where it should be.
        elsewhere: places of other objects, where it should not be.
        others: keys of other tokens, whose maps are its controls.
    """

    kind: str
    name: str
    keys: tuple[int, ...]
    place: Array
    elsewhere: tuple[Array, ...]
    others: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Views:
    """The maps that are measured, as means over steps, layers and heads.

    Attributes:
        steps: sampling steps.
        layers: layer → side of its grid.
        heads: heads of every layer.
    """

    steps: int
    layers: dict[str, int]
    heads: int

    @property
    def names(self) -> list[str]:
        """The views' names in the order of `maps`."""
        heads = [f"head {layer} {h}" for layer in self.layers for h in range(self.heads)]
        return [
            "all",
            *(f"step {i}" for i in range(self.steps)),
            *(f"layer {layer}" for layer in self.layers),
            *heads,
            *(f"choice {name}" for name, _, _ in self.candidates),
        ]

    @property
    def candidates(self) -> list[tuple[str, list[int], list[int]]]:
        """Candidates for the default aggregation: name, layers, steps."""
        sides = list(self.layers.values())
        sets: dict[str, list[int]] = {"all layers": list(range(len(sides)))}
        for side in sorted(set(sides)):
            sets[f"{side}×{side} layers"] = [i for i, s in enumerate(sides) if s == side]
        if len(set(sides)) > 2:
            largest = max(sides)
            sets[f"layers below {largest}×{largest}"] = [
                i for i, s in enumerate(sides) if s < largest
            ]
        sets["up blocks"] = [i for i, n in enumerate(self.layers) if n.startswith("up_blocks")]
        sets |= {name: [i] for i, name in enumerate(self.layers)}
        half, quarter = self.steps // 2, max(1, self.steps // 4)
        spans_: dict[str, list[int]] = {
            "all steps": list(range(self.steps)),
            "first half": list(range(half)),
            "second half": list(range(half, self.steps)),
            "last quarter": list(range(self.steps - quarter, self.steps)),
            "middle half": list(range(quarter, self.steps - quarter)),
        }
        pairs = itertools.product(sets.items(), spans_.items())
        return [(f"{a}, {b}", which, when) for (a, which), (b, when) in pairs if which and when]

    def maps(self, mean: Array, heads: Array) -> Array:
        """All views of one subject.

        Args:
            mean: raw maps `[steps, layers, H, W]`, mean of heads.
            heads: raw maps `[layers, heads, H, W]`, mean of steps.

        Returns:
            `[views, H, W]` in the order of `names`.
        """
        chosen = [mean[np.ix_(when, which)].mean((0, 1)) for _, which, when in self.candidates]
        return np.concatenate(
            [
                mean.mean((0, 1))[None],
                mean.mean(1),
                mean.mean(0),
                heads.reshape(-1, *heads.shape[2:]),
                np.stack(chosen),
            ]
        )


class Maps:
    """The raw maps of one picture of a trace, every layer on the largest grid."""

    def __init__(self, trace: AttentionTrace, picture: int) -> None:
        self.trace = trace
        self.side = max(layer.height for layer in trace.layers)
        steps = [step.index for step in trace.steps]
        self.views = Views(
            len(steps),
            {layer.name: layer.height for layer in trace.layers},
            trace.layers[0].heads,
        )
        self._column = {key: i for i, key in enumerate(trace.keys)}
        alone = {at: batch[picture : picture + 1] for at, batch in trace.records.items()}
        one = replace(trace, records=alone)  # the others of its batch need not be decoded
        mean, heads = [], []
        for layer in trace.layers:
            records = np.stack(
                [one.weights(layer=layer.name, step=i)[0] for i in steps]
            )  # [steps, heads, tokens, places]
            shape = (layer.height, layer.width)
            mean.append(self._resized(records.mean(1), shape))
            heads.append(self._resized(records.mean(0), shape))
        self._mean, self._heads = np.stack(mean, 1), np.stack(heads)

    def _resized(self, maps: Array, shape: tuple[int, int]) -> Array:
        return resize(maps.reshape(*maps.shape[:-1], *shape), self.side, self.side)

    def of(self, keys: Sequence[int]) -> Array:
        """`[views, H, W]` of the sum of some keys."""
        at = [self._column[key] for key in keys]
        return self.views.maps(self._mean[:, :, at].sum(2), self._heads[:, :, at].sum(2))


def scenes_of_several(count: int) -> list[Scene]:
    """The first `count` held-out scenes of two or three objects."""
    found: list[Scene] = []
    for index in itertools.count():
        if len(found) == count:
            return found
        one = scene(index, split=SPLIT, seed=SEED)
        if len(one.objects) > 1:
            found.append(one)
    return found


def captured(
    pipe: ScribblePipeline, part: Sequence[Scene], seed: int, **settings: Any
) -> AttentionTrace:
    """The trace of a batch of scenes, every head, each picture with a seed of its own."""
    prompts = [one.caption for one in part]
    sketches = [Sketch.from_image(255 - one.sketch) for one in part]
    generators = [seeded(seed + i)[0] for i in range(len(part))]
    with RealAttentionExtractor(
        pipe, heads="all", previews=False, memory_limit=4 << 30
    ) as extractor:
        for _ in pipe.denoise(prompts, sketches, generator=generators, **settings):
            pass
    return whole(extractor.trace)


def whole(trace: AttentionTrace) -> AttentionTrace:
    """The trace, of which nothing was given up: figures of other grids or heads do not compare.

    Raises:
        SettingError: something was, to stay within the memory limit.
    """
    if trace.thinned:
        raise SettingError(
            f"the attention of {len(trace.steps)} steps is too large to measure whole "
            f"({'; '.join(trace.thinned)}): ask for fewer with --steps"
        )
    return trace


def measured(one: Scene, maps: Maps, picture: int, seed: int) -> dict[str, Any]:
    """Every subject of a scene under every view, as sums over the scene's subjects.

    Returns:
        kind → "own", "chance", "wrong", "wrong_chance" and "shuffled", each a "count" and "sums":
        `[views, 3]` of the measures, `[3]` of the two chance levels.
    """
    kinds: dict[str, Any] = {}
    of = cache(maps.of)  # one is the subject here and another's control there
    for subject in subjects(one, maps.trace, picture, maps.side, seed):
        into = kinds.setdefault(subject.kind, _nothing())
        views = of(subject.keys)
        _add(into, "own", measure(views, subject.place))
        _add(into, "chance", _numbers(subject.place))
        for place in subject.elsewhere:
            _add(into, "wrong", measure(views, place))
            _add(into, "wrong_chance", _numbers(place))
        for keys in subject.others:
            _add(into, "shuffled", measure(of(keys), subject.place))
    return {kind: _plain(found) for kind, found in kinds.items()}


def _nothing() -> dict[str, Any]:
    return {name: [0, 0.0] for name in ("own", "chance", "wrong", "wrong_chance", "shuffled")}


def _add(into: dict[str, Any], name: str, value: Array) -> None:
    into[name][0] += 1
    into[name][1] = into[name][1] + value


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"count": count, "sums": np.round(total, 4).tolist()}
        for name, (count, total) in found.items()
        if count
    }


def _numbers(place: Array) -> Array:
    chance = by_chance(place)
    return np.array([chance.pointing, chance.iou, chance.auc])


# --- what there is to measure in a scene ---------------------------------------------------------


def subjects(
    one: Scene, trace: AttentionTrace, picture: int, side: int, seed: int
) -> Iterator[Subject]:
    """The nouns and colour words of a scene with their objects, and regions with their places."""
    rng = np.random.default_rng([SEED, seed])
    yield from _words(one, trace, picture, side, rng)
    yield from _regions(one, trace, side, rng)


def keys_between(trace: AttentionTrace, picture: int, start: int, end: int) -> tuple[int, ...]:
    """The keys of the words that begin between two characters of the prompt."""
    words = trace.prompts[picture].words
    return tuple(k for w in words if start <= w.start < end for k in w.keys)


def _words(
    one: Scene, trace: AttentionTrace, picture: int, side: int, rng: np.random.Generator
) -> Iterator[Subject]:
    named = [
        (number, kind, one.caption[a:b], keys_between(trace, picture, a, b))
        for number, kind, a, b in spans(one)
    ]
    places = {
        number: on_grid(one.labels == number + 1, (side, side))
        for number in range(len(one.objects))
        if (one.labels == number + 1).any()
    }
    for number, kind, text, keys in named:
        if number not in places or not keys:
            continue
        own = {k for n, _, _, ks in named if n == number for k in ks}
        others = [w.keys for w in trace.prompts[picture].words if w.keys and not own & set(w.keys)]
        rng.shuffle(others)
        elsewhere = tuple(place for n, place in places.items() if n != number)
        yield Subject(kind, text, keys, places[number], elsewhere, tuple(others[:OTHERS]))


def _regions(
    one: Scene, trace: AttentionTrace, side: int, rng: np.random.Generator
) -> Iterator[Subject]:
    """Regions with ink, each against its own place and that of another one of its level."""
    for level, most in REGIONS_OF_A_LEVEL.items():
        inked = [
            r for r in REGIONS if r.level == level and r in trace.regions and _ink(one, r).any()
        ]
        rng.shuffle(inked)
        for i, region in enumerate(inked[:most]):
            other = inked[i - 1]
            apart = other != region
            yield Subject(
                f"region {level}×{level}",
                f"{level}:{region.row},{region.column}",
                (trace.regions[region],),
                _place(region, side),
                (_place(other, side),) if apart else (),
                ((trace.regions[other],),) if apart else (),
            )


def _ink(one: Scene, region: Any) -> Array:
    left, top, right, bottom = region.box()
    return one.sketch[top:bottom, left:right] > 127


def _place(region: Any, side: int) -> Array:
    mask = np.zeros((256, 256), bool)
    left, top, right, bottom = region.box()
    mask[top:bottom, left:right] = True
    return on_grid(mask, (side, side))
