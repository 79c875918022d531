"""Edits of one run: a word removed or replaced, a word's tokens knocked out, a stroke erased."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from scribblediffusion.analysis.strokes import THRESHOLD, read_strokes
from scribblediffusion.attention.records import Region, Word
from scribblediffusion.errors import SettingError
from scribblediffusion.sketch import REGIONS, Sketch

#: An article right before what is edited.
_ARTICLE = re.compile(r"\b(an?) +$", re.IGNORECASE)


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
    """

    subject: str
    how: str
    keys: tuple[int, ...]
    prompt: str
    sketch: Sketch | None
    knocked: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """`how` without its object: "replaced by blue" is "replaced"."""
        return self.how.partition(" by ")[0]


def without(prompt: str, start: int, end: int) -> str:
    """A prompt without the characters from `start` to `end`; its article fits the next word.

    >>> without("an orange fish above a kite", 3, 9)
    'a fish above a kite'
    """
    return replaced(prompt, start, end, "")


def replaced(prompt: str, start: int, end: int, by: str) -> str:
    """A prompt with other words in place of the characters from `start` to `end`.

    >>> replaced("a red plug", 2, 5, "orange")
    'an orange plug'
    """
    before, after = prompt[:start], prompt[end:]
    following = (by or after).lstrip()
    if article := _ARTICLE.search(before):
        fitting = article[1][0] + ("n" if following[:1].lower() in set("aeiou") else "")
        before = f"{before[: article.start()]}{fitting} "
    text = " ".join(f"{before} {by} {after}".split())
    return re.sub(r" +([,.;:])", r"\1", text)


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


def erasure(prompt: str, sketch: Sketch | None, ink: np.ndarray, first_key: int) -> Edit:
    """The run without some ink; its map is that of the 8×8 regions that the ink runs through.

    Args:
        prompt: the prompt, which stays.
        sketch: the sketch.
        ink: `[256, 256]` bool, what is erased.
        first_key: the key of the first region.

    Raises:
        SettingError: there is no sketch, or no ink there.
    """
    if sketch is None or not ink.any():
        raise SettingError("there is no ink to erase: draw a sketch, or name a word")
    keys = tuple(first_key + region.index for region in regions_of(ink))
    return Edit("the stroke", "erased", keys, prompt, erased(sketch, ink))
