"""Text that fits, in letters that the fonts have."""

import io

import pytest
from PIL import Image, ImageDraw

from scribblediffusion.view.typeset import fitted, font_for, png, readable, width, write


@pytest.mark.parametrize("room", [20, 60, 150, 1000])
@pytest.mark.parametrize("text", ["a red apple above a blue kite", "яблоко и змей", "i" * 300])
def test_fitted_text_is_as_long_as_the_room_allows(text, room):
    found = fitted(text, 16, room)
    assert width(found, 16) <= room
    if found != text:
        assert found.endswith("…")
        longer = text[: len(found)] + "…"
        assert width(longer, 16) > room or longer.rstrip("… ") == found.rstrip("… ")


def test_one_line_without_controls_or_empty_boxes():
    assert readable("a\n b\t\x00c\u202e") == "a b c"
    assert readable("Привет ×") == "Привет ×"
    assert readable("漢") == "\N{REPLACEMENT CHARACTER}"
    assert readable("e\u0301") == "é"


def test_plain_text_and_other_scripts_each_have_a_font():
    assert font_for("apple “x”", 14).getname()[0] == "Aileron"
    assert font_for("яблоко", 14).getname()[0] == "DejaVu Sans"


def test_letters_are_really_drawn_inside_their_room():
    image = Image.new("L", (200, 40))
    write(ImageDraw.Draw(image), (100, 5), "noise " * 20, 20, 255, anchor="la", room=80)  # type: ignore[arg-type]
    left, top, right, bottom = image.getbbox() or (0, 0, 0, 0)
    assert 98 <= left < right <= 181
    assert 5 <= top < bottom <= 32


def test_png_is_a_png():
    with Image.open(io.BytesIO(png(Image.new("RGB", (3, 2), (1, 2, 3))))) as image:
        assert image.getpixel((2, 1)) == (1, 2, 3)
