"""Scenes: one to three objects on a ground, with a caption and a mask for each object.

A scene is a pure function of `(seed, index, split)`: the same numbers give the same scene on
every machine, so that training data need not be shipped and evaluation can be repeated.

Splits:
    `train`    objects, colours and pairs that training may see.
    `test`     the same population, other scenes.
    `objects`  every object is held out of training.
    `pairs`    every colour × object pair is held out, and so in no training picture; the objects
               are known.
    `wobbly`   `test`, drawn with a shaky hand (picture and sketch move together).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from scribblediffusion.train.objects import (
    FAMILIES,
    Thing,
    dominant_family,
    line,
    natural_family,
    paintable,
    sprite,
    things,
)

SIZE = 256
SPLITS = ("train", "test", "objects", "pairs", "wobbly")

#: Grounds a caption can name. Paler than any fill, so that an object stays visible.
GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "red": (250, 205, 200),
    "blue": (212, 232, 250),
    "green": (221, 240, 206),
    "yellow": (255, 247, 200),
    "brown": (226, 208, 190),
    "pink": (255, 226, 236),
    "purple": (229, 219, 243),
    "orange": (255, 226, 190),
    "grey": (231, 231, 230),
}


@dataclass(frozen=True)
class Placed:
    """One object in a scene.

    Attributes:
        thing: which object.
        colour: the colour family it has been given, None where it has its own colours.
        named: the colour word in the caption, or None.
        noun: what the caption calls it: its name, or another that people use.
        box: left, top, side in pixels of the square it was drawn into.
    """

    thing: Thing
    colour: str | None
    named: str | None
    noun: str
    box: tuple[int, int, int]

    @property
    def phrase(self) -> str:
        """How the caption speaks of it: "a red plug"."""
        return with_article(f"{self.named} {self.noun}" if self.named else self.noun)


#: Nouns without an article, and the endings of singular nouns in "s".
_MASS = re.compile(
    "bacon|beer|bread|broccoli|butter|cash|cheese|corn|garlic|maize|meat|milk|money|popcorn|salad|"
    "salt|soap|soup|spaghetti|stew|sunshine|sushi|wood|yarn"
)
_SINGULAR = ("ss", "us", "os", "is")
#: Words that begin with a vowel letter and yet with the sound of "you" or "w".
_CONSONANT = re.compile(r"(uni|uku|ufo|use|eu|one\b|once)")


def with_article(words: str) -> str:
    """A noun phrase as English says it: "a unicorn", "an orange fish", "scissors", "bread"."""
    last = words.rsplit(" ", 1)[-1]
    plural = last.endswith("s") and not last.endswith(_SINGULAR)
    if (plural and " of " not in words and " with " not in words) or _MASS.fullmatch(last):
        return words
    return f"{article(words)} {words}"


def article(words: str) -> str:
    """The article, a or an, that the first of these words sounds right with."""
    return "an" if words[:1] in set("aeiou") and not _CONSONANT.match(words) else "a"


@dataclass(frozen=True)
class Scene:
    """A training pair with its ground truth.

    Attributes:
        picture: `[256, 256, 3]` uint8.
        sketch: `[256, 256]` uint8, 255 where there is ink (the line drawing alone).
        labels: `[256, 256]` uint8, 0 for ground, i + 1 where object i is seen.
        caption: the prompt.
        objects: what is in it, in the order in which the caption names them.
        ground: the name of the ground's tint.
    """

    picture: np.ndarray
    sketch: np.ndarray
    labels: np.ndarray
    caption: str
    objects: tuple[Placed, ...]
    ground: str


@functools.cache
def _population(held_out: bool) -> tuple[Thing, ...]:
    return tuple(t for t in things() if t.held_out is held_out and not t.known_by_its_lines)


def _colours(thing: Thing, split: str) -> list[str]:
    """Families that may be named for an object: the split decides about held-out pairs.

    Where an object's own colour is held out, training does not name it and yet shows it, and where
    another object has the same lines, it shows those: such a pair is in no split.
    """
    if not paintable(thing.code):
        return []
    if split == "objects":
        return list(FAMILIES)
    if split == "pairs":
        own = natural_family(thing.code)
        held_out = [c for c in FAMILIES if thing.pair_held_out(c) and c != own]
        return [c for c in held_out if not thing.pair_known_by_its_lines(c)]
    return [c for c in FAMILIES if not thing.pair_held_out(c)]


def _choose(rng: np.random.Generator, split: str) -> tuple[Thing, str | None, str | None]:
    """An object, the family to paint it in (None: its own), and the colour word (None: none)."""
    population = _population(split == "objects")
    thing = population[rng.integers(len(population))]
    colours = _colours(thing, split)
    while split in ("objects", "pairs") and not colours:
        thing = population[rng.integers(len(population))]
        colours = _colours(thing, split)
    if split == "pairs" or (colours and rng.random() < 0.72):
        colour = str(rng.choice(colours))
        return thing, colour, colour
    own = natural_family(thing.code)
    named = own if own in colours and rng.random() < 0.5 else None
    return thing, None, named


def _noun(rng: np.random.Generator, thing: Thing) -> str:
    """What the caption calls an object: now and then by another of its names."""
    if thing.also and rng.random() < 0.35:
        return str(rng.choice(thing.also))
    return thing.name


def _boxes(rng: np.random.Generator, count: int) -> tuple[list[tuple[int, int, int]], str]:
    """Squares for the objects, in reading order, and how they lie: "alone", "row", "column"."""
    if count == 1:
        side = int(rng.integers(120, 225))
        left, top = (int(rng.integers(0, SIZE - side + 1)) for _ in range(2))
        return [(left, top, side)], "alone"
    slot = SIZE // count
    lie = "row" if rng.random() < 0.5 else "column"
    boxes = []
    for i in range(count):
        side = int(rng.integers(int(slot * 0.78), int(slot * 1.02)))
        along = i * slot + int(rng.integers(0, max(1, slot - side + 1)))
        along = min(along, SIZE - side)
        middle = (SIZE - side) / 2
        across = int(np.clip(middle + rng.normal() * middle * 0.45, 0, SIZE - side))
        boxes.append((along, across, side) if lie == "row" else (across, along, side))
    return boxes, lie


def _join(rng: np.random.Generator, phrases: list[str], lie: str) -> tuple[str, list[int]]:
    """The caption's first half and the order in which it names the objects."""
    order = list(range(len(phrases)))
    if len(phrases) == 1:
        return phrases[0], order
    if len(phrases) == 2:
        style = rng.random()
        if style < 0.75:
            turned = rng.random() < 0.5
            first, second = order[::-1] if turned else order
            if lie == "row":
                word = "right of" if turned else "left of"
                word = f"to the {word}" if rng.random() < 0.5 else word
            else:
                word = ("below" if rng.random() < 0.6 else "under") if turned else "above"
            return f"{phrases[first]} {word} {phrases[second]}", [first, second]
        rng.shuffle(order)
        word = "and" if style < 0.9 else "next to"
        return f"{phrases[order[0]]} {word} {phrases[order[1]]}", order
    if rng.random() < 0.6:
        how = "from left to right" if lie == "row" else "from top to bottom"
        listed = f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
        return (f"{how}: {listed}" if rng.random() < 0.5 else f"{listed} {how}"), order
    rng.shuffle(order)
    return f"{phrases[order[0]]}, {phrases[order[1]]} and {phrases[order[2]]}", order


def _paste(canvas: Image.Image, layer: np.ndarray, place: tuple) -> Image.Image:
    """`layer` turned, mirrored and scaled as `place` says, on a canvas of its own mode."""
    (left, top, side), angle, mirrored = place
    image = Image.fromarray(layer)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if image.mode == "RGBA":  # premultiplied while resampling: no dark fringe
        image = image.convert("RGBa")
    image = image.rotate(angle, Image.Resampling.BICUBIC).resize(
        (side, side), Image.Resampling.LANCZOS
    )
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    mask = image.getchannel(3) if image.mode == "RGBA" else image
    canvas.paste(image, (left, top), mask)
    return mask


def _mesh(rng: np.random.Generator, strength: float) -> list:
    """A smooth random displacement as a PIL mesh of 8×8 quadrilaterals, still at the border."""
    n = 8
    step = SIZE // n
    shift = rng.normal(size=(n + 1, n + 1, 2)) * strength
    shift[0] = shift[-1] = shift[:, 0] = shift[:, -1] = 0
    y, x = np.mgrid[0 : n + 1, 0 : n + 1] * float(step)
    points = np.stack([x, y], -1) + shift
    mesh = []
    for r in range(n):
        for c in range(n):
            corners = points[[r, r + 1, r + 1, r], [c, c, c + 1, c + 1]]
            mesh.append(
                ((c * step, r * step, (c + 1) * step, (r + 1) * step), tuple(corners.ravel()))
            )
    return mesh


def _weight(rng: np.random.Generator, sketch: Image.Image) -> Image.Image:
    """Another pen now and then: a third of the sketches have thicker or thinner lines."""
    pen = rng.random()
    if pen < 0.15:
        return sketch.filter(ImageFilter.MaxFilter(3))
    if pen < 0.35:
        thin = sketch.filter(ImageFilter.MinFilter(3))
        if np.asarray(thin).mean() > 0.4 * np.asarray(sketch).mean():  # never erased altogether
            return thin
    return sketch


def scene(index: int, *, split: str = "train", seed: int = 0, count: int | None = None) -> Scene:
    """The scene with this number.

    Args:
        index: which scene.
        split: one of `SPLITS`.
        seed: another seed is another, disjoint stream of scenes.
        count: how many objects; None draws 1, 2 or 3 with 45, 43 and 12 %.

    Raises:
        ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    count = count or int(rng.choice([1, 2, 3], p=[0.45, 0.43, 0.12]))
    chosen: list[tuple[Thing, str | None, str | None]] = []
    while len(chosen) < count:
        one = _choose(rng, split)
        if one[0].name not in [c[0].name for c in chosen]:
            chosen.append(one)
    boxes, lie = _boxes(rng, count)
    placed = [Placed(*one, _noun(rng, one[0]), box) for one, box in zip(chosen, boxes, strict=True)]
    text, order = _join(rng, [p.phrase for p in placed], lie)

    ground = "white" if rng.random() < 0.5 else str(rng.choice(list(GROUNDS)))
    if ground != "white" or rng.random() < 0.2:
        text += f" on a{'n' if ground == 'orange' else ''} {ground} background"

    picture = Image.new("RGB", (SIZE, SIZE), GROUNDS[ground])
    sketch = Image.new("L", (SIZE, SIZE), 0)
    labels = Image.new("L", (SIZE, SIZE), 0)
    for number, index_ in enumerate(order, 1):
        it = placed[index_]
        place = (it.box, float(rng.normal() * 6), bool(rng.random() < 0.5))
        mask = _paste(picture, sprite(it.thing.code, it.colour), place)
        labels.paste(number, it.box[:2], mask.point([0] * 128 + [255] * 128))
        _paste(sketch, line(it.thing.code), place)

    strength = 4.5 if split == "wobbly" else abs(rng.normal()) * 2.0
    if split == "wobbly" or rng.random() < 0.6:
        mesh = _mesh(rng, strength)
        how = Image.Transform.MESH
        picture = picture.transform(picture.size, how, mesh, Image.Resampling.BICUBIC)
        sketch = sketch.transform(sketch.size, how, mesh, Image.Resampling.BICUBIC)
        labels = labels.transform(labels.size, how, mesh, Image.Resampling.NEAREST)
    if split == "train":
        sketch = _weight(rng, sketch)
    return Scene(
        picture=np.asarray(picture),
        sketch=np.asarray(sketch),
        labels=np.asarray(labels),
        caption=text,
        objects=tuple(placed[i] for i in order),
        ground=ground,
    )


def true_family(one: Scene, number: int) -> str:
    """The family that most of object `number` (from 0) really has in a scene's picture."""
    return dominant_family(one.picture[one.labels == number + 1])
