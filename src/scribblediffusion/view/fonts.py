"""Which font has which sign, and what is written where none has it.

Two fonts are always there: the one that comes with Pillow, which has little more than ASCII, and
the DejaVu Sans that comes with matplotlib (Latin, Greek, Cyrillic, Hebrew, Arabic and many signs).
For Chinese, Japanese, Korean, Indic and Thai letters and for emoji this machine's own fonts are
asked, and those of the extra `fonts`. A sign that no font has is named: 苹 as ‹U+82F9›, 사과 as
‹sa gwa›, 🍎 as ‹red apple›. There are no empty boxes, and nothing is left out.
"""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from PIL import ImageFont

#: What Pillow's own font has besides ASCII.
ALSO_PLAIN = "·‘’“”…°«»±"
#: Fonts that come with other packages: package, file in it.
_PACKAGED = (("noto_cjk_sans_otc", "NotoSansCJK-Regular.ttc"),)
#: Families that systems bring, of plain upright letters, the widest first.
_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "Source Han Sans", "PingFang SC", "Hiragino Sans", "Hiragino Sans GB",
    "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic", "Noto Sans Devanagari",
    "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI",
    "Noto Emoji", "Segoe UI Emoji", "Noto Sans Symbols", "Noto Sans Symbols 2", "Symbola",
    "Segoe UI Symbol", "Arial Unicode MS", "FreeSans", "Unifont",
)  # fmt: skip
#: Signs that only change how the one before them looks.
_JOINERS = {0x200D, *range(0xFE00, 0xFE10), *range(0x1F3FB, 0x1F400), *range(0xE0100, 0xE01F0)}
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.cache
def dejavu() -> Path | None:
    """DejaVu Sans as matplotlib brings it, found without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return path if path.exists() else None


@functools.cache
def others() -> tuple[Path, ...]:
    """The fonts of this machine that may have what DejaVu has not."""
    from matplotlib.font_manager import fontManager

    found = [Path(path) for path in map(_packaged, _PACKAGED) if path is not None]
    there = {entry.name: entry.fname for entry in reversed(fontManager.ttflist)}
    found += [Path(there[name]) for name in _FAMILIES if name in there]
    return tuple(dict.fromkeys(found))


def _packaged(named: tuple[str, str]) -> Path | None:
    package, file = named
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(places)), file) if places else None
    return path if path is not None and path.exists() else None


@functools.cache
def signs_of(path: Path) -> frozenset[int]:
    """The code points that a font draws as outlines; none of a font that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(path))
        return frozenset(font.get_charmap()) if font.num_glyphs and font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.lru_cache(maxsize=4096)
def path_for(sign: str) -> Path | None:
    """The font file in which a sign is set; None where no font has it."""
    first = dejavu()
    if first is None:
        return None
    for path in (first, *(others() if ord(sign) not in signs_of(first) else ())):
        if ord(sign) in signs_of(path):
            return path
    return None


@functools.lru_cache(maxsize=128)
def font(size: int, path: Path | None) -> Font:
    """A font file in a size in pixels; None is Pillow's own."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def is_plain(text: str) -> bool:
    """Whether Pillow's own font has it all."""
    return all(c.isascii() or c in ALSO_PLAIN for c in text)


def runs(text: str, *, plain: bool = True) -> list[tuple[str, Path | None]]:
    """A readable line in pieces, each with the font file that it is set in.

    Args:
        text: from `readable`.
        plain: set a line of plain letters in Pillow's own font; otherwise in DejaVu Sans.
    """
    if plain and is_plain(text):
        return [(text, None)] if text else []
    paths: list[Path | None] = []
    for sign in text:
        before = paths[-1] if paths else None
        stays = before is not None and (sign == " " or unicodedata.combining(sign))
        kept = stays and before is not None and ord(sign) in signs_of(before)
        paths.append(before if kept else path_for(sign))
    pairs = groupby(zip(text, paths, strict=True), key=lambda pair: pair[1])
    return [("".join(sign for sign, _ in group), path) for path, group in pairs]


@functools.lru_cache(maxsize=256)
def families(text: str) -> tuple[str, ...]:
    """The families in which matplotlib sets a readable line: DejaVu Sans, and others it needs."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    named = ["DejaVu Sans"]
    if text.isascii():
        return tuple(named)
    known = {entry.fname for entry in fontManager.ttflist}
    for path in dict.fromkeys(path for _, path in runs(text, plain=False)):
        if path is not None and path != dejavu():
            if str(path) not in known:
                fontManager.addfont(path)
            named.append(FT2Font(str(path)).family_name)
    return tuple(dict.fromkeys(named))


@functools.lru_cache(maxsize=1024)
def readable(text: str) -> str:
    """One line that the fonts can show: no line breaks, no controls, and unknown signs named.

    >>> readable("a red  apple")
    'a red apple'
    """
    line = " ".join(unicodedata.normalize("NFC", text).split())
    if line.isascii() and line.isprintable():
        return line
    kept = "".join(map(_plainer, shown(line)))
    parts = [
        "".join(group) if known else f"‹{' '.join(filter(None, map(_named, group)))}›"
        for known, group in groupby(kept, key=lambda c: path_for(c) is not None)
    ]
    return " ".join("".join(part for part in parts if part != "‹›").split())


def shown(text: str) -> str:
    """One line without controls, halves of characters and signs that turn its direction.

    >>> shown("a red  apple")
    'a red apple'
    """
    return " ".join("".join(c for c in text if c.isspace() or _is_shown(c)).split())


def _plainer(sign: str) -> str:
    """The ordinary form of a wide, raised or mathematical letter that no font has."""
    ordinary = unicodedata.normalize("NFKC", sign)
    known = path_for(sign) is not None or any(path_for(c) is None for c in ordinary)
    return sign if known else ordinary


def _is_shown(sign: str) -> bool:
    """Controls, directions and halves of characters are not; private and new signs are."""
    return unicodedata.category(sign) in ("Cn", "Co") or unicodedata.category(sign)[0] != "C"


def _named(sign: str) -> str:
    """What a person can read instead of a sign: its sound, its name, or its number."""
    if ord(sign) in _JOINERS:
        return ""
    name = unicodedata.name(sign, "")
    if not name or "IDEOGRAPH" in name:
        return f"U+{ord(sign):04X}"
    letter = unicodedata.category(sign)[0] in "LM"
    return (name.rpartition(" ")[2] if letter else name).lower()


def letters(text: str) -> Iterator[str]:
    """The signs of a text together with the marks that belong to them."""
    cluster = ""
    for sign in text:
        if cluster and not unicodedata.combining(sign) and ord(sign) not in _JOINERS:
            yield cluster
            cluster = ""
        cluster += sign
    if cluster:
        yield cluster
