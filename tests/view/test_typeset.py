"""Text that fits, in letters that the fonts have."""

import io

import pytest
from PIL import Image, ImageDraw

from scribblediffusion.view.typeset import fitted, png, readable, width, wrapped, write


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
    assert readable("e\u0301") == "é"


def test_lines_wrap_by_their_width_and_keep_numbers_with_their_unit():
    lines = wrapped("a curve bending down, 6 % ink and more words than fit", 14, 120)
    assert len(lines) == 3
    assert all(width(line, 14, plain=False) <= 120 for line in lines)
    assert not any(line.startswith("%") for line in wrapped("settled at noise 40 %", 13, 132))
    for room in range(60, 300, 7):
        for line in wrapped(
            "a long curve, 17 % ink; listened to most at noise 5 %", 13, room, most=9
        ):
            assert not line.startswith(("%", "ink", "5 "))
    assert wrapped("", 14, 100) == ("",)
    assert wrapped("x" * 300, 14, 100, most=1)[0].endswith("…")


def test_letters_are_really_drawn_inside_their_room():
    image = Image.new("L", (200, 40))
    write(ImageDraw.Draw(image), (100, 5), "noise " * 20, 20, 255, anchor="la", room=80)  # type: ignore[arg-type]
    left, top, right, bottom = image.getbbox() or (0, 0, 0, 0)
    assert 98 <= left < right <= 181
    assert 5 <= top < bottom <= 32


def test_png_is_a_png():
    with Image.open(io.BytesIO(png(Image.new("RGB", (3, 2), (1, 2, 3))))) as image:
        assert image.getpixel((2, 1)) == (1, 2, 3)
