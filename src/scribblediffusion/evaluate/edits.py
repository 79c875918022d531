"""Edits of one run: a word removed or replaced, a word's tokens knocked out, a stroke erased."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from scribblediffusion.analysis.strokes import THRESHOLD, read_strokes
from scribblediffusion.attention.records import Region, Word
from scribblediffusion.errors import SettingError
from scribblediffusion.sketch import REGIONS, Sketch
from scribblediffusion.train.scenes import article, with_article

#: An article right before what is edited.
_ARTICLE = re.compile(r"\b(an?) +$", re.IGNORECASE)
#: Words that an article is not of: where one comes next, the article is left as it is.
_JOINING = frozenset(
    {"and", "or", "but", "above", "below", "under", "over", "on", "in", "at", "of", "with"}
    | {"without", "next", "left", "right", "to", "from", "by", "beside", "between", "behind"}
    | {"near", "into", "for"}
)
#: At most so many groups of regions are controls of an erased one.
_GROUPS = 3


@dataclass(frozen=True)
class Edit:
    """One change of a run; seed, noise and everything else stay as they are.

    Attributes:
        subject: whose map is held against the change: a word's name or a stroke's.
        how: "removed", "replaced by blue", "knocked out", "erased".
        keys: the keys whose map it is.
        prompt: the prompt of the changed run.
        sketch: its sketch.
        knocked: keys that have no attention in it.
        controls: keys of other maps of the same kind, each held against the change as well; None
            for those of all words that share no key.
    """

    subject: str
    how: str
    keys: tuple[int, ...]
    prompt: str
    sketch: Sketch | None
    knocked: tuple[int, ...] = ()
    controls: tuple[tuple[int, ...], ...] | None = None

    @property
    def kind(self) -> str:
        """`how` without its object: "replaced by blue" is "replaced"."""
        return self.how.partition(" by ")[0]


def without(prompt: str, start: int, end: int) -> str:
    """A prompt without the characters from `start` to `end`; its article fits the next word.

    >>> without("an orange fish above a kite", 3, 9)
    'a fish above a kite'
    >>> without("a cat and an owl", 2, 5)
    'a and an owl'
    """
    return replaced(prompt, start, end, "")


def replaced(prompt: str, start: int, end: int, by: str) -> str:
    """A prompt with other words in place of the characters from `start` to `end`.

    An article before them is made to fit what follows, and nothing else is changed.

    >>> replaced("a red plug", 2, 5, "orange")
    'an orange plug'
    >>> replaced("a red plug", 6, 10, "scissors")
    'a red scissors'
    """
    before, after = prompt[:start], prompt[end:]
    if found := _ARTICLE.search(before):
        before = f"{before[: found.start()]}{_fitting(found[1], by, after)} "
    text = " ".join(f"{before} {by} {after}".split())
    return re.sub(r" +([,.;:])", r"\1", text)


def _fitting(was: str, by: str, after: str) -> str:
    """The article that fits what now follows it; none before a plural that was put there."""
    following = (by or after).strip().lower()
    if not by and re.split(r"\W", following)[0] in (_JOINING | {""}):
        return was
    if by and with_article(following) == following:
        return ""
    return was[0] + article(following)[1:]


def removal(prompt: str, word: Word, name: str, sketch: Sketch | None) -> Edit:
    """The run without one word."""
    text = without(prompt, word.start, word.start + len(word.text))
    return Edit(name, "removed", word.keys, text, sketch)


def longest_stroke(sketch: Sketch) -> np.ndarray | None:
    """The ink of a sketch's longest stroke, `[256, 256]` bool; None where there is none.

    Every pixel of ink belongs to the stroke whose middle line is nearest.
    """
    found = read_strokes(sketch.ink)
    if not found.paths:
        return None
    owner = np.full(sketch.ink.shape, -1)
    for number, path in enumerate(found.paths):
        x, y = np.clip(np.rint(path.points).astype(int), 0, len(owner) - 1).T
        owner[y, x] = number
    nearest: Any = ndimage.distance_transform_edt(
        owner < 0, return_distances=False, return_indices=True
    )
    longest = int(np.argmax([len(path.points) for path in found.paths]))
    return (sketch.ink > THRESHOLD) & (owner[tuple(nearest)] == longest)


def erased(sketch: Sketch, ink: np.ndarray) -> Sketch:
    """The sketch without this ink and its soft edge."""
    gone = np.asarray(ndimage.binary_dilation(ink, iterations=2), bool) & ~(
        (sketch.ink > THRESHOLD) & ~ink  # the other strokes stay
    )
    return Sketch(np.where(gone, 0, sketch.ink), sketch.cleaning, sketch.mask)


def regions_of(ink: np.ndarray, level: int = 8) -> tuple[Region, ...]:
    """The regions of one level that ink runs through."""
    chosen = []
    for region in REGIONS:
        left, top, right, bottom = region.box()
        if region.level == level and ink[top:bottom, left:right].any():
            chosen.append(region)
    return tuple(chosen)


def other_regions(sketch: Sketch, taken: Sequence[Region]) -> list[tuple[Region, ...]]:
    """Groups of other regions of the same level with ink, each as many as these are.

    Where fewer are left, they are one group.
    """
    inked = set(regions_of(sketch.ink > THRESHOLD, taken[0].level)) - set(taken)
    left = sorted(inked, key=lambda region: region.index)
    np.random.default_rng(len(left)).shuffle(left)
    size = min(len(taken), len(left))
    groups = [tuple(left[i : i + size]) for i in range(0, len(left) - size + 1, size or 1)]
    return [group for group in groups if group][:_GROUPS]


def erasure(
    prompt: str,
    sketch: Sketch | None,
    ink: np.ndarray,
    first_key: int,
    region: Region | None = None,
) -> Edit:
    """The run without some ink; its map is that of the 8×8 regions that the ink runs through.

    Its controls are other regions with ink, as many.

    Args:
        prompt: the prompt, which stays.
        sketch: the sketch.
        ink: `[256, 256]` bool, what is erased.
        first_key: the key of the first region.
        region: the region whose ink it is: its map is held against the change.

    Raises:
        SettingError: there is no sketch, or no ink there.
    """
    if sketch is None or not ink.any():
        raise SettingError("there is no ink to erase: draw a sketch, or name a word")
    regions = regions_of(ink) if region is None else (region,)
    name = f"region {region.level}:{region.row},{region.column}" if region else "the stroke"

    def keys(of: Sequence[Region]) -> tuple[int, ...]:
        return tuple(first_key + one.index for one in of)

    controls = tuple(map(keys, other_regions(sketch, regions)))
    return Edit(name, "erased", keys(regions), prompt, erased(sketch, ink), controls=controls)
