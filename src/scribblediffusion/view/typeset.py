"""Text in pictures: fonts that come with the package's own dependencies, measured and cut to fit.

Plain text is set in the font that comes with Pillow, which has little more than ASCII, any other
line in matplotlib's DejaVu Sans; signs that neither has are shown as U+FFFD, not as empty boxes.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import unicodedata
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scribblediffusion.view.colour import Colour

#: What Pillow's own font has besides ASCII.
_ALSO_PLAIN = "·‘’“”…°«»±"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.cache
def _dejavu(bold: bool = False) -> Path | None:
    """DejaVu Sans as matplotlib brings it, found without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    return path if path.exists() else None


@functools.lru_cache(maxsize=64)
def _font(size: int, plain: bool) -> Font:
    path = None if plain else _dejavu()
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@functools.cache
def _drawable() -> frozenset[int]:
    """The code points that DejaVu Sans has."""
    path = _dejavu()
    if path is None:
        return frozenset(range(32, 127))
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(path)).get_charmap())


def readable(text: str) -> str:
    """One line of text that the fonts can show: no line breaks, controls or unknown signs."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    if line.isascii() and line.isprintable():
        return line
    kept = (c for c in line if unicodedata.category(c)[0] != "C")
    return "".join(c if ord(c) in _drawable() else "\N{REPLACEMENT CHARACTER}" for c in kept)


def font_for(text: str, size: int) -> Font:
    """The font in which to set this text."""
    return _font(size, all(c.isascii() or c in _ALSO_PLAIN for c in text))


def width(text: str, size: int) -> float:
    """How wide a line of text is in pixels."""
    return font_for(text, size).getlength(text)


def fitted(text: str, size: int, room: float) -> str:
    """The text, cut with an ellipsis where it is wider than `room` pixels.

    >>> fitted("short", 12, 500)
    'short'
    """
    text = readable(text)
    if width(text, size) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle].rstrip() + "…", size) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


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
    """Writes a line of text.

    Args:
        draw: where to.
        at: (x, y) of the anchor.
        text: the line.
        size: in pixels.
        colour: of the letters.
        anchor: Pillow's two letters; "la" is the upper left, "ra" the upper right.
        room: cut the text to this many pixels.
    """
    line = readable(text) if room is None else fitted(text, size, room)
    draw.text(at, line, fill=colour, font=font_for(line, size), anchor=anchor)


def png(image: Image.Image) -> bytes:
    """The image as PNG; fast rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
