"""Signs that the fonts have are set; those that they have not are named, and never lost."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from scribblediffusion.view import fonts
from scribblediffusion.view.typeset import fitted, width, write


@pytest.fixture
def bare(monkeypatch):
    """A machine that has no fonts of its own."""
    _forget()
    monkeypatch.setattr(fonts, "others", lambda: ())
    yield
    _forget()


def _forget():
    for cached in (fonts.path_for, fonts.readable, fonts.families):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a 苹果 on a table", "a ‹U+82F9 U+679C› on a table"),
        ("사과", "‹sa gwa›"),
        ("りんご", "‹ri n go›"),
        ("सेब", "‹sa e ba›"),
        ("🍎 apple", "‹red apple› apple"),
        ("👩🏽\u200d🚀", "‹woman rocket›"),
        ("ＡＢ 𝔘", "AB U"),
        ("\ue000", "‹U+E000›"),
        ("تفاحة حمراء", "تفاحة حمراء"),
        ("תפוח", "תפוח"),
        ("яблоко ½", "яблоко ½"),
        ("\ud800a\u202eb\u200b", "ab"),
    ],
)
def test_what_no_font_has_is_named(bare, text, shown):
    assert fonts.readable(text) == shown


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=40), st.integers(20, 200))
def test_any_text_is_drawn_inside_its_room(text, room):
    line = fitted(text, 15, room)
    assert all(fonts.path_for(c) is not None for c in line)
    assert not {unicodedata.category(c) for c in line} & {"Cc", "Cf", "Cs"}
    image = Image.new("L", (240, 48))
    write(ImageDraw.Draw(image), (20, 12), text, 15, 255, room=room)  # type: ignore[arg-type]
    if width(line, 15) <= room:
        assert not np.asarray(image)[:, 20 + room + 4 :].any()


def test_letters_that_dejavu_has_not_come_from_another_font(monkeypatch):
    """STIX lies beside DejaVu, and has signs that DejaVu has not."""
    first = fonts.dejavu()
    assert first is not None
    other = first.with_name("STIXGeneral.ttf")
    sign = chr(min(fonts.signs_of(other) - fonts.signs_of(first) - {0xFFFF}))
    _forget()
    monkeypatch.setattr(fonts, "others", lambda: (other,))
    try:
        text = f"яблоко {sign} kite"
        assert fonts.readable(text) == text
        assert [path for _, path in fonts.runs(text)] == [first, other, first]
        assert fonts.families(text) == ("DejaVu Sans", "STIXGeneral")
        assert fonts.families("plain") == ("DejaVu Sans",)
    finally:
        _forget()


def test_plain_text_has_pillows_own_font_and_other_scripts_dejavu():
    assert fonts.runs("apple “x”") == [("apple “x”", None)]
    assert fonts.runs("яблоко") == [("яблоко", fonts.dejavu())]
    assert fonts.runs("apple", plain=False) == [("apple", fonts.dejavu())]
    assert fonts.font(14, None).getname()[0] == "Aileron"


def test_a_file_that_is_no_font_has_no_signs(tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    assert fonts.signs_of(tmp_path / "broken.ttf") == frozenset()
    assert all(path.exists() for path in fonts.others())
