"""Any image becomes a sketch, and the caller can see how."""

import io
import os
import tracemalloc
import zlib

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from scribblediffusion.errors import InputError, SketchError
from scribblediffusion.sketch import LEVELS, REGIONS, SIZE, Sketch
from scribblediffusion.train.scenes import scene


def drawing(width=SIZE, height=SIZE, pen=4, ink=0, paper=255, mode="L"):
    """An ellipse, a line through it and a filled box, in the given tones."""
    image = Image.new(mode, (width, height), paper)
    draw = ImageDraw.Draw(image)
    draw.ellipse((width * 0.1, height * 0.1, width * 0.6, height * 0.7), outline=ink, width=pen)
    draw.line((width * 0.05, height * 0.95, width * 0.95, height * 0.2), fill=ink, width=pen)
    draw.rectangle((width * 0.65, height * 0.65, width * 0.9, height * 0.9), fill=ink)
    return image


def ink_f1(found, truth, within=0):
    """F1 of two ink masks, a pixel counting as met within so many pixels."""
    reach = np.ones((2 * within + 1,) * 2, bool)
    near_truth = ndimage.binary_dilation(truth, reach)
    near_found = ndimage.binary_dilation(found, reach)
    precision = (found & near_truth).sum() / max(1, found.sum())
    recall = (truth & near_found).sum() / max(1, truth.sum())
    return 2 * precision * recall / max(1e-9, precision + recall)


def ink_of(source, **options):
    return Sketch.from_image(source, **options).ink > 0.5


TRUTH = np.asarray(drawing()) < 128


def test_regions_tile_the_sketch_level_by_level():
    assert len(REGIONS) == 77
    assert [r.index for r in REGIONS] == list(range(77))
    for level in LEVELS:
        seen = np.zeros((SIZE, SIZE), int)
        for region in REGIONS:
            if region.level == level:
                left, top, right, bottom = region.box()
                seen[top:bottom, left:right] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("split", ["train", "test", "wobbly"])
def test_clean_line_art_comes_through_unchanged(split):
    for index in range(4):
        drawn = scene(index, split=split).sketch
        sketch = Sketch.from_image(255 - drawn)
        assert ink_f1(sketch.ink > 0.5, drawn > 127) > 0.99
        assert np.abs(sketch.ink - drawn / 255).max() < 0.1
        assert not sketch.cleaning.flattened
        assert sketch.cleaning.box == (0, 0, SIZE, SIZE)


def test_light_on_dark_gives_the_same_ink():
    dark, light = Sketch.from_image(drawing()), Sketch.from_image(drawing(ink=255, paper=0))
    assert dark.cleaning.polarity == "dark-on-light"
    assert light.cleaning.polarity == "light-on-dark"
    np.testing.assert_allclose(dark.ink, light.ink, atol=0.01)


def test_polarity_can_be_overruled():
    sketch = Sketch.from_image(drawing(), polarity="light-on-dark")
    assert sketch.cleaning.polarity == "light-on-dark"
    assert sketch.ink.mean() > 0.5


def test_a_frame_round_the_paper_does_not_turn_the_polarity():
    image = drawing()
    ImageDraw.Draw(image).rectangle((0, 0, SIZE - 1, SIZE - 1), outline=0, width=8)
    assert Sketch.from_image(image).cleaning.polarity == "dark-on-light"


@pytest.mark.parametrize(
    ("ink", "paper"), [(0, 255), (255, 0), (90, 200), (170, 255), (30, 90), (220, 120)]
)
def test_any_two_tones(ink, paper):
    assert ink_f1(ink_of(drawing(ink=ink, paper=paper)), TRUTH) > 0.99


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, bool])
def test_an_array_of_only_0_and_1_is_black_and_white(kind):
    """As bool: True is white, and which of the two is ink is found as for any drawing."""
    paper = (np.asarray(drawing()) > 127).astype(kind)
    for array, polarity in ((paper, "dark-on-light"), (1 - paper.astype(int), "light-on-dark")):
        sketch = Sketch.from_image(array.astype(kind))
        assert sketch.cleaning.polarity == polarity
        assert ink_f1(sketch.ink > 0.5, TRUTH) > 0.99
    assert ink_f1(ink_of(np.repeat(paper[..., None], 3, 2)), TRUTH) > 0.99


@pytest.mark.parametrize("kind", [np.uint8, np.int32, bool])
def test_a_mask_of_only_0_and_1_counts_where_it_is_1(kind):
    mask = np.zeros((256, 256), kind)
    mask[:, :128] = 1
    plain = Sketch.from_image(drawing(), mask=half(256, 256))
    np.testing.assert_array_equal(Sketch.from_image(drawing(), mask=mask).mask, plain.mask)


@pytest.mark.parametrize("level", [0, 1])
def test_an_array_of_one_level_is_no_black_and_white(level):
    page = np.full((256, 256), level, np.uint8)
    assert Sketch.from_image(page).is_blank
    active = Sketch.from_image(drawing(), mask=page).active
    assert active.all() if level else not active.any()


def test_a_deep_png_with_a_transparent_level_keeps_its_greys():
    levels = np.full((256, 256), 65535, np.uint16)
    levels[40:48, 40:200] = 20000
    levels[100:108, 40:200] = 0
    opaque, clear = io.BytesIO(), io.BytesIO()
    Image.fromarray(levels).save(opaque, "PNG")
    Image.fromarray(levels).save(clear, "PNG", transparency=65535)
    inks = [Sketch.from_image(Image.open(file)).ink for file in (opaque, clear)]
    np.testing.assert_array_equal(*inks)
    assert inks[0][42:46, 60:180].all()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]
)
def test_every_mode(mode):
    image = drawing()
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        image = image if mode == "I;16" else image.convert("I")
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert ink_f1(ink_of(image), TRUTH) > 0.99


@pytest.mark.parametrize(
    "array",
    [
        np.asarray(drawing()),
        np.asarray(drawing()) > 127,
        np.asarray(drawing()) / 255.0,
        (np.asarray(drawing()) / 255.0).astype(np.float16),
        np.asarray(drawing()).astype(np.uint16) * 257,
        np.asarray(drawing()).astype(np.int64),
        np.asarray(drawing())[..., None],
        np.asarray(drawing(mode="RGB", ink=(0, 0, 0), paper=(255, 255, 255))),
        np.asarray(drawing(mode="RGBA", ink=(0, 0, 0, 255), paper=(0, 0, 0, 0))),
        np.asarray(drawing())[::-1][::-1],
    ],
    ids=lambda a: f"{a.dtype}{list(a.shape)}",
)
def test_every_array(array):
    assert ink_f1(ink_of(array), TRUTH) > 0.99


@pytest.mark.parametrize("tone", [0, 60, 255])
def test_strokes_in_alpha_alone(tone):
    image = drawing(mode="RGBA", ink=(tone, tone, tone, 255), paper=(tone, tone, tone, 0))
    sketch = Sketch.from_image(image)
    assert ink_f1(sketch.ink > 0.5, TRUTH) > 0.99
    assert sketch.cleaning.backdrop == ("black" if tone == 255 else "white")


def test_transparent_paper_with_black_lines_round_white_fills_is_on_white():
    image = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((40, 40, 160, 160), (255,) * 4, (0, 0, 0, 255), 5)
    sketch = Sketch.from_image(image)
    assert sketch.cleaning.backdrop == "white"
    assert 0.01 < sketch.ink.mean() < 0.1


@pytest.mark.parametrize(("size", "pen"), [((6000, 6000), 1), ((5000, 3000), 2), ((900, 1400), 1)])
def test_thin_lines_of_a_huge_drawing_do_not_vanish(size, pen):
    width, height = size
    sketch = Sketch.from_image(drawing(width, height, pen))
    left, top, right, bottom = sketch.cleaning.box
    x = np.linspace(0.06, 0.62, 200)  # along the straight line, up to the box
    column = left + x * (right - left)
    row = top + (0.95 - (x - 0.05) * 0.75 / 0.9) * (bottom - top)
    darkest = ndimage.maximum_filter(sketch.ink, 3)
    assert darkest[row.astype(int), column.astype(int)].min() > 0.7


@pytest.mark.parametrize("shape", [(1, 400_000), (400_000, 1), (3, 100_000)])
def test_a_long_strip_takes_no_more_memory_than_its_pixels(shape):
    strip = np.full(shape, 255, np.uint8)
    strip[:, : shape[1] // 3 + 1] = 0
    tracemalloc.start()
    Sketch.from_image(strip)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20e6


def test_thick_lines_keep_their_width():
    big = Sketch.from_image(drawing(2048, 2048, 48)).ink.sum()
    small = Sketch.from_image(drawing(256, 256, 6)).ink.sum()
    assert big == pytest.approx(small, rel=0.05)


def test_width_of_thin_lines():
    image = Image.new("L", (4096, 4096), 255)
    ImageDraw.Draw(image).line((0, 2048, 4096, 2048), fill=0, width=2)
    profile = Sketch.from_image(image).ink[:, 100]
    assert 1.5 < profile.sum() < 3


def test_padding_is_paper_and_the_middle_is_kept():
    sketch = Sketch.from_image(drawing(600, 150, 4))
    left, top, right, bottom = sketch.cleaning.box
    assert (left, top, right, bottom) == (0, 96, 256, 160)
    assert sketch.ink[:top].max() == sketch.ink[bottom:].max() == 0
    assert sketch.ink[top:bottom].max() > 0.9
    assert sketch.cleaning.original_size == (600, 150)


def test_uneven_light_is_evened_out():
    drawn = scene(1, split="test").sketch
    page = Image.fromarray(255 - drawn).resize((900, 900), Image.Resampling.BICUBIC)
    y, x = np.mgrid[0:900, 0:900] / 900
    light = 0.4 + 0.5 * np.exp(-1.5 * ((x - 0.2) ** 2 + (y - 0.3) ** 2))
    rng = np.random.default_rng(0)
    photo = (0.25 + 0.75 * np.asarray(page) / 255) * light + rng.normal(size=(900, 900)) * 0.02
    sketch = Sketch.from_image(np.clip(photo, 0, 1))
    assert sketch.cleaning.method == "threshold"
    assert sketch.cleaning.flattened
    assert ink_f1(sketch.ink > 0.5, drawn > 127) > 0.9


def test_an_empty_page_in_uneven_light_is_blank():
    rng = np.random.default_rng(0)
    page = np.linspace(0.3, 0.9, 500)[None] + rng.normal(size=(400, 500)) * 0.02
    assert Sketch.from_image(np.clip(page, 0, 1)).is_blank


@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "coffee", "rocket"])
def test_a_photo_becomes_its_edges(name):
    sketch = Sketch.from_image(getattr(skimage.data, name)())
    assert sketch.cleaning.method == "edges"
    assert sketch.cleaning.threshold is None
    assert 0.01 < sketch.ink.mean() < 0.2
    assert not sketch.is_blank


def test_method_can_be_overruled():
    assert Sketch.from_image(drawing(), method="edges").cleaning.method == "edges"
    forced = Sketch.from_image(skimage.data.camera(), method="threshold")
    assert forced.cleaning.method == "threshold"
    assert not forced.is_blank


def test_coloured_fills_are_left_out():
    one = scene(1, split="test")
    assert ink_f1(ink_of(one.picture), one.sketch > 127, within=2) > 0.9


def test_jpeg_grain_is_not_ink():
    buffer = io.BytesIO()
    drawing().save(buffer, "JPEG", quality=40)
    assert ink_f1(ink_of(Image.open(buffer)), TRUTH) > 0.97


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_one_tone_is_blank(tone):
    sketch = Sketch.from_image(np.full((300, 200), tone, np.uint8))
    assert sketch.is_blank
    assert sketch.ink.max() == 0
    assert "no ink" in str(sketch.cleaning)


def test_orientation_is_applied(tmp_path):
    upright = drawing(300, 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    sketch = Sketch.from_image(tmp_path / "turned.png")
    assert sketch.cleaning.original_size == (300, 200)
    np.testing.assert_allclose(sketch.ink, Sketch.from_image(upright).ink, atol=0.01)


def test_animation_gives_its_first_frame(tmp_path):
    drawing().save(tmp_path / "a.gif", save_all=True, append_images=[drawing(ink=255, paper=0)])
    sketch = Sketch.from_image(str(tmp_path / "a.gif"))
    assert sketch.cleaning.polarity == "dark-on-light"
    assert ink_f1(sketch.ink > 0.5, TRUTH) > 0.99


def test_the_source_is_left_as_it_was():
    image, array = drawing(mode="LA", ink=(0, 255), paper=(255, 0)), np.asarray(drawing()).copy()
    before = image.tobytes(), array.tobytes()
    Sketch.from_image(image)
    Sketch.from_image(array)
    assert (image.tobytes(), array.tobytes()) == before


def test_a_sketch_is_a_sketch_and_cleaning_twice_changes_nothing():
    once = Sketch.from_image(drawing())
    assert Sketch.from_image(once) is once
    twice = Sketch.from_image(once.to_image())
    np.testing.assert_allclose(once.ink, twice.ink, atol=0.05)


def test_ink_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        Sketch.from_image(drawing()).ink[0, 0] = 1


# --- masks --------------------------------------------------------------------------------------


def half(width, height, left=255, right=0):
    mask = Image.new("L", (width, height), right)
    mask.paste(left, (0, 0, width // 2, height))
    return mask


def test_without_a_mask_every_region_is_active():
    assert Sketch.from_image(drawing()).active.all()
    assert Sketch.blank().active.all()
    assert Sketch.blank().is_blank


def test_a_mask_erases_ink_and_silences_regions():
    sketch = Sketch.from_image(drawing(), mask=half(256, 256))
    assert sketch.ink[:, 128:].max() == 0
    assert sketch.ink[:, :128].max() > 0.9
    for region, active in zip(REGIONS, sketch.active, strict=True):
        assert active == (region.box()[0] < 128)


@pytest.mark.parametrize("pixel", [(0, 0), (255, 255), (31, 32), (200, 17)])
def test_one_pixel_of_mask_keeps_exactly_its_three_regions(pixel):
    mask = np.zeros((256, 256), np.uint8)
    mask[pixel[1], pixel[0]] = 255
    active = Sketch.from_image(drawing(), mask=mask).active
    inside = [
        b[0] <= pixel[0] < b[2] and b[1] <= pixel[1] < b[3] for b in (r.box() for r in REGIONS)
    ]
    assert active.tolist() == inside
    assert active.sum() == 3


def test_masks_narrow_each_other_and_may_leave_nothing():
    sketch = Sketch.from_image(drawing(), mask=half(256, 256))
    nothing = sketch.masked(half(256, 256, left=0, right=255))
    assert not nothing.active.any()
    assert nothing.is_blank


def test_a_mask_of_the_drawings_own_shape_lies_over_it():
    sketch = Sketch.from_image(drawing(600, 300), mask=half(600, 300))
    assert sketch.ink[:, 128:].max() == 0
    assert sketch.active.tolist() == [r.box()[0] < 128 for r in REGIONS]
    full = Sketch.from_image(drawing(600, 300), mask=half(300, 150, right=255))
    assert full.active.all()


def test_a_square_mask_lies_over_the_whole_sketch():
    sketch = Sketch.from_image(drawing(600, 300), mask=half(64, 64))
    assert sketch.active.tolist() == [r.box()[0] < 128 for r in REGIONS]


def test_a_sketch_made_by_hand_has_no_ink_outside_its_mask():
    ink, left = np.ones((256, 256), np.float32), np.arange(256)[None] < 128
    sketch = Sketch(ink, mask=np.repeat(left, 256, 0))
    assert sketch.ink[:, :128].min() == 1
    assert sketch.ink[:, 128:].max() == 0
    assert ink.min() == 1
    for shape in ((128, 256), (256,), (256, 256, 1)):
        with pytest.raises(SketchError, match=r"mask must be \[256, 256\].*Sketch.masked"):
            Sketch(ink, mask=np.ones(shape, bool))


def test_a_painted_layer_is_a_mask_whatever_its_colour():
    layer = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    layer.paste((0, 0, 0, 255), (0, 0, 128, 256))
    plain = Sketch.from_image(drawing(), mask=half(256, 256))
    np.testing.assert_array_equal(Sketch.from_image(drawing(), mask=layer).mask, plain.mask)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(SketchError, match=r"mask is 100×300, the drawing 600×300.*square"):
        Sketch.from_image(drawing(600, 300), mask=half(100, 300))


# --- refusals -----------------------------------------------------------------------------------


def _write(path, data):
    path.write_bytes(data)
    return path


def _huge(path):
    """A PNG header of 20,000 × 20,000 with no pixels behind it: decoding it would fail."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    return _write(path, data + struct.pack(">I", zlib.crc32(b"IDAT")))


def _truncated(path):
    buffer = io.BytesIO()
    drawing(800, 800).save(buffer, "PNG")
    return _write(path, buffer.getvalue()[:700])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "none.png", "no such file"),
        (lambda p: p, "folder"),
        (lambda p: _write(p / "a.txt", b"hello, I am a text"), "not an image"),
        (lambda p: _write(p / "a.png", b""), "file is empty"),
        (lambda p: _huge(p / "a.png"), "40 megapixels.*400 megapixels"),
        (lambda p: _truncated(p / "a.png"), "save it again"),
        (lambda p: "a\0b.png", "NUL"),
        (lambda p: Image.new("1", (6500, 6500)), "40 megapixels"),
        (lambda p: Image.new("L", (0, 5)), "empty"),
        (lambda p: np.zeros((0, 10)), "shape"),
        (lambda p: np.zeros(10), "shape"),
        (lambda p: np.zeros((3, 20, 30)), "channels last"),
        (lambda p: np.zeros((2, 20, 30, 3)), "shape"),
        (lambda p: np.full((20, 30), np.nan), "600 values"),
        (lambda p: np.full((20, 30), np.inf), "not finite"),
        (lambda p: np.full((20, 30), 200.0), "0…1.*200"),
        (lambda p: np.full((20, 30), -1), "0…255"),
        (lambda p: np.zeros((20, 30), complex), "complex"),
        (lambda p: np.array([["a", "b"]]), "array of"),
        (lambda p: None, "NoneType"),
        (lambda p: [[0, 1], [1, 0]], "list"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(tmp_path, make, says):
    with pytest.raises(SketchError, match=says) as caught:
        Sketch.from_image(make(tmp_path))
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(SketchError, match="Permission denied"):
        Sketch.from_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "error", [AssertionError(), RuntimeError("broken data"), zlib.error("incorrect header")]
)
def test_whatever_a_decoder_raises_is_named(monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(SketchError, match="save it again"):
        Sketch.from_image(Image.new("L", (9, 9)))


def test_a_damaged_texture(tmp_path):
    with pytest.raises(SketchError, match="save it again"):
        Sketch.from_image(_write(tmp_path / "a.png", b"FTEX" + bytes(200)))


def test_premultiplied_alpha():
    plain = drawing(mode="LA", ink=(0, 255), paper=(255, 0))
    assert ink_f1(ink_of(plain.convert("La")), ink_of(plain)) == 1


def test_options_are_checked():
    with pytest.raises(SketchError, match="polarity 'black' is unknown"):
        Sketch.from_image(drawing(), polarity="black")
    with pytest.raises(SketchError, match="method 'otsu' is unknown"):
        Sketch.from_image(drawing(), method="otsu")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_never_worse(tmp_path, name):
    rng = np.random.default_rng(3)
    drawing(64, 64).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for _ in range(25):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 400), 4):
            data[place] = rng.integers(256)
        path = _write(tmp_path / f"x{name}", bytes(data[: rng.integers(1, len(data) + 1)]))
        try:
            sketch = Sketch.from_image(os.fspath(path))
        except SketchError:
            continue
        assert np.isfinite(sketch.ink).all()


# --- properties ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    pen=st.integers(1, 20),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]),
    inverted=st.booleans(),
)
def test_any_size_shape_and_mode(width, height, pen, mode, inverted):
    ink, paper = (255, 0) if inverted else (0, 255)
    image = drawing(width, height, pen, ink, paper).convert(mode)
    sketch = Sketch.from_image(image)
    assert sketch.ink.shape == (SIZE, SIZE)
    assert sketch.ink.dtype == np.float32
    assert 0 <= sketch.ink.min() <= sketch.ink.max() <= 1
    left, top, right, bottom = sketch.cleaning.box
    assert max(right - left, bottom - top) == SIZE
    assert abs((left + right) - SIZE) <= 1
    assert abs((top + bottom) - SIZE) <= 1
    outside = sketch.ink.copy()
    outside[top:bottom, left:right] = 0
    assert outside.max() == 0
    if min(width, height) > 60 and pen < min(width, height) // 12:
        assert not sketch.is_blank
        expected = "light-on-dark" if inverted else "dark-on-light"
        assert sketch.cleaning.polarity == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 80))
def test_noise_is_never_worse_than_strange_ink(seed, width, height):
    noise = np.random.default_rng(seed).random((height, width))
    sketch = Sketch.from_image(noise)
    assert np.isfinite(sketch.ink).all()
    assert sketch.cleaning.original_size == (width, height)


def test_the_model_reads_ink_or_none():
    """Half ink counts, less does not; a drawing of fainter marks alone is blank."""
    ink = np.zeros((256, 256), np.float32)
    ink[10], ink[20], ink[30] = 1, 0.5, 0.4
    sketch = Sketch(ink)
    assert sketch.strokes.dtype == bool
    assert [bool(sketch.strokes[row].all()) for row in (10, 20, 30)] == [True, True, False]
    assert not sketch.is_blank
    assert Sketch(np.full((256, 256), 0.4)).is_blank


def test_every_kind_of_drawing_comes_to_the_same_strokes():
    """Black on white, white on black, transparent, chalk grey, on a photo's paper: one circle."""
    image = Image.new("L", (512, 512), 255)
    ImageDraw.Draw(image).ellipse((120, 120, 390, 390), outline=0, width=12)
    dark = np.asarray(image, np.float32) / 255
    drawn = (1 - dark)[..., None]
    shade = np.linspace(0.95, 0.7, 512)[None, :, None]
    clear = np.concatenate([np.zeros((512, 512, 3)), drawn], -1)
    white = np.concatenate([np.ones((512, 512, 3)), drawn], -1)
    kinds = [1 - dark, shade * (1 - 0.8 * drawn).repeat(3, -1), clear, white,
             np.dstack([0.2 + 0.6 * drawn] * 3)]  # fmt: skip
    plain = Sketch.from_image(image).strokes
    for kind in kinds:
        found = Sketch.from_image(np.clip(kind, 0, 1)).strokes
        assert (found & plain).sum() > 0.93 * (found | plain).sum()
