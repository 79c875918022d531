"""Text in pictures: measured, cut to fit its room, set once and kept.

Which font a sign comes from, and what is written where none has it, is `fonts.py`'s business.
"""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scribblediffusion.view.colour import Colour
from scribblediffusion.view.fonts import font, letters, readable, runs, shown

__all__ = ["fitted", "png", "readable", "shown", "width", "wrapped", "write"]


@functools.lru_cache(maxsize=4096)
def width(text: str, size: int, *, plain: bool = True) -> float:
    """How wide a line of text is in pixels.

    Args:
        text: a readable line.
        size: in pixels.
        plain: as frames are set; False measures the line as figures set it, in DejaVu Sans.
    """
    return sum(font(size, path).getlength(part) for part, path in runs(text, plain=plain))


def fitted(text: str, size: int, room: float, *, plain: bool = True) -> str:
    """The text, cut with an ellipsis where it is wider than `room` pixels.

    >>> fitted("short", 12, 500)
    'short'
    """
    text = readable(text)
    if width(text, size, plain=plain) <= room:
        return text
    clusters = list(letters(text[:2000]))
    low, high = 0, len(clusters)
    while low < high:
        middle = (low + high + 1) // 2
        cut = "".join(clusters[:middle]).rstrip() + "…"
        if width(cut, size, plain=plain) <= room:
            low = middle
        else:
            high = middle - 1
    return "".join(clusters[:low]).rstrip() + "…"


#: Where a line may end: "17 % ink" and "noise 5 %" stay together.
_BREAK = re.compile(r"(?<!\bnoise)(?<!\bstep) (?!%|ink\b)")


def wrapped(
    text: str, size: int, room: float, most: int = 3, *, plain: bool = False
) -> tuple[str, ...]:
    """The text in at most `most` lines of `room` pixels; the last one is cut.

    Args:
        text: the line.
        size: in pixels.
        room: in pixels.
        most: lines.
        plain: as for `width`: figures' setting unless told.
    """
    lines, words = [], _BREAK.split(readable(text))
    while words and len(lines) < most - 1:
        count = 1
        while count < len(words) and _fits(words[: count + 1], size, room, plain):
            count += 1
        lines.append(fitted(" ".join(words[:count]), size, room, plain=plain))
        words = words[count:]
    rest = [fitted(" ".join(words), size, room, plain=plain)] if words else []
    return (*lines, *rest)


def _fits(words: list[str], size: int, room: float, plain: bool) -> bool:
    return width(" ".join(words), size, plain=plain) <= room


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour,
    *,
    anchor: str = "la",
    room: float | None = None,
) -> None:
    """Writes a line of text; a line written before is not set anew.

    Args:
        draw: where to.
        at: (x, y) of the anchor.
        text: the line.
        size: in pixels.
        colour: of the letters.
        anchor: Pillow's two letters: "la" is the upper left, "ma" the top middle, "ra" the
            upper right.
        room: cut the text to this many pixels.
    """
    line = readable(text) if room is None else fitted(text, size, room)
    if not line:
        return
    letters_, rise = _set(line, size)
    share = {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
    left = at[0] - share * width(line, size) - _PAD
    draw.bitmap((round(left), round(at[1]) - rise), letters_, fill=colour)


#: Room around a line for slanting and accented letters, in pixels.
_PAD = 3


@functools.lru_cache(maxsize=512)
def _set(line: str, size: int) -> tuple[Image.Image, int]:
    """The letters of a line as a mask, and how far its upper edge is above the ascender's."""
    pieces = runs(line)
    ascent = _ascent(size, pieces[0][1])
    above = max(_ascent(size, path) for _, path in pieces) - ascent + size // 3
    mask = Image.new("L", (int(width(line, size)) + 2 * _PAD + 1, above + ascent + size), 0)
    draw, x = ImageDraw.Draw(mask), float(_PAD)
    for part, path in pieces:
        draw.text((x, above + ascent), part, fill=255, font=font(size, path), anchor="ls")
        x += font(size, path).getlength(part)
    return mask, above


def _ascent(size: int, path: Path | None) -> int:
    found = font(size, path)
    return found.getmetrics()[0] if isinstance(found, ImageFont.FreeTypeFont) else size


def png(image: Image.Image) -> bytes:
    """The image as PNG; fast rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
