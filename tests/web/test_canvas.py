"""From what a page or a program sends to a sketch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scribblediffusion.errors import SketchError
from scribblediffusion.sketch import Sketch
from scribblediffusion.web.canvas import (
    MASK_COLOUR,
    SIDE,
    Canvas,
    blank,
    drawing_of,
    drawn,
    mask_sheet,
    painted_in,
    sheet_of,
    sketch_of,
)
from scribblediffusion.web.limits import Limits


def stroke(box: tuple[int, int, int, int], colour: str = "black", ground=(0, 0, 0, 0)):
    image = Image.new("RGBA", (SIDE, SIDE), ground)
    ImageDraw.Draw(image).line(box, fill=colour, width=10)
    return image


def test_nothing_drawn_is_no_sketch() -> None:
    assert sketch_of(None) is None
    assert sketch_of({"background": None, "layers": [], "composite": None}) is None
    assert sketch_of(blank()) is None


def test_the_composite_counts_and_layers_stand_in_for_it() -> None:
    line = stroke((100, 100, 400, 400))
    flat = Image.new("RGBA", line.size, "white")
    flat.alpha_composite(line)
    whole = sketch_of({"background": None, "layers": [], "composite": flat})
    layered = sketch_of({"background": None, "layers": [line], "composite": None})
    assert whole is not None
    assert layered is not None
    assert np.array_equal(whole.ink, layered.ink)
    assert whole.ink[128, 128] > 0.9
    assert whole.ink[20, 200] == 0


def test_layers_of_other_sizes_are_laid_over() -> None:
    small = stroke((100, 100, 400, 400)).resize((128, 128))
    value = {"background": blank()["background"], "layers": [small], "composite": None}
    drawing = drawing_of(value)
    assert drawing is not None
    assert drawing.size == (SIDE, SIDE)
    assert np.asarray(drawing.convert("L"))[250, 250] < 80


def test_a_painted_part_masks_the_drawing() -> None:
    two = stroke((60, 100, 450, 100), ground=(255, 255, 255, 255))
    ImageDraw.Draw(two).line((60, 400, 450, 400), fill="black", width=10)
    paint = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    ImageDraw.Draw(paint).rectangle((0, 0, SIDE, 200), fill=(47, 127, 208, 255))
    board = {"background": None, "layers": [], "composite": two}
    mask = {"background": None, "layers": [paint], "composite": None}
    sketch = sketch_of(board, mask)
    assert sketch is not None
    assert sketch.ink[50].max() > 0.9
    assert sketch.ink[200].max() == 0
    assert 0 < sketch.active.sum() < 77
    nowhere = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    ImageDraw.Draw(nowhere).rectangle((0, 230, SIDE, 270), fill=MASK_COLOUR)
    with pytest.raises(SketchError, match="holds no line"):
        sketch_of(board, {"background": None, "layers": [nowhere], "composite": None})


def test_a_sketch_put_on_the_board_is_taken_as_it_is() -> None:
    line = stroke((60, 100, 450, 130), ground=(255, 255, 255, 255)).resize((300, 300))
    before = Sketch.from_image(line)
    sheet = sheet_of(before.to_image())
    again = sketch_of(sheet, None, before)
    assert again is not None
    assert np.array_equal(again.ink, before.ink)
    rounded = np.asarray(sheet["composite"]).astype(int) + 3
    shown = {"composite": Image.fromarray(np.clip(rounded, 0, 255).astype(np.uint8)), "layers": []}
    assert np.array_equal(sketch_of(shown, None, before).ink, before.ink)
    more = sheet["composite"].copy()
    ImageDraw.Draw(more).line((100, 400, 130, 400), fill="black", width=8)
    drawn_on = sketch_of({"composite": more, "layers": []}, None, before)
    assert drawn_on.ink[200, 50:65].max() > 0.9


def test_a_mask_put_on_its_board_is_taken_as_it_is() -> None:
    line = Sketch.from_image(stroke((60, 100, 450, 400), ground=(255, 255, 255, 255)))
    half = np.zeros((256, 256), bool)
    half[:, 31:97] = True
    before = line.masked(half)
    board, mask = sheet_of(before.to_image()), mask_sheet(before.to_image(), half, MASK_COLOUR)
    again = sketch_of(board, mask, before)
    assert np.array_equal(again.ink, before.ink)
    assert np.array_equal(again.mask, before.mask)
    assert np.array_equal(again.active, before.active)
    more = board["composite"].copy()
    ImageDraw.Draw(more).line((20, 300, 20, 400), fill="black", width=8)
    assert np.array_equal(sketch_of({"composite": more}, mask, before).mask, before.mask)
    wider = mask["composite"].copy()
    ImageDraw.Draw(wider).rectangle((300, 0, 400, SIDE), fill=MASK_COLOUR)
    both = sketch_of(board, {"composite": wider}, before).mask
    assert both[:, 31:97].all()
    assert both[:, 155:195].all()
    assert not both[:, 110:140].any()


def test_a_drawing_that_did_not_come_through_is_told() -> None:
    from gradio.components.image_editor import EditorData

    gone = EditorData(background=None, layers=[], composite=None, id="gone")
    value = Canvas().preprocess(gone)
    assert "did not come through" in value["refused"]
    with pytest.raises(SketchError, match="still on the board"):
        drawn(value, None)


def test_an_unpainted_mask_is_none() -> None:
    assert painted_in(None) is None
    assert painted_in(blank()) is None
    empty = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    assert painted_in({"background": None, "layers": [empty], "composite": None}) is None


def test_a_sheet_is_square_and_keeps_proportions() -> None:
    sheet = sheet_of(Image.new("L", (100, 50), 0))["composite"]
    dark = np.asarray(sheet.convert("L")) < 128
    assert sheet.size == (SIDE, SIDE)
    assert dark.any(axis=0).sum() == SIDE
    assert dark.any(axis=1).sum() == SIDE // 2


@pytest.mark.parametrize(("name", "read"), [("a.png", True), ("a.webp", True), ("a.eps", False)])
def test_few_kinds_of_files_are_decoded(tmp_path, name: str, read: bool) -> None:
    from gradio.components.image_editor import EditorData
    from gradio.data_classes import FileData

    stroke((100, 100, 400, 400), ground="white").convert("RGB").save(tmp_path / name)
    sent = FileData(path=str(tmp_path / name))
    value = Canvas().preprocess(EditorData(background=sent, layers=[], composite=None, id=None))
    assert (value["background"] is not None) == read
    assert ("no picture that can be read" in value.get("refused", "")) != read


def sent(path) -> Image.Image | None:
    from gradio.components.image_editor import EditorData
    from gradio.data_classes import FileData

    file = FileData(path=str(path))
    return drawing_of(Canvas().preprocess(EditorData(background=file, layers=[], composite=file)))


def test_deep_grey_levels_are_a_drawing(tmp_path) -> None:
    levels = np.full((SIDE, SIDE), 65535, np.uint16)
    levels[100:110, 50:450] = 0
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.asarray(sent(tmp_path / "deep.png"))[105, 200].max() == 0
    assert np.asarray(sent(tmp_path / "deep.png"))[300, 200].min() == 255
    assert sketch_of({"composite": sent(tmp_path / "deep.png")}) is not None


def test_white_lines_on_nothing_are_a_drawing(tmp_path) -> None:
    stroke((60, 100, 450, 130), "white").save(tmp_path / "white.png")
    sketch = sketch_of({"composite": sent(tmp_path / "white.png")})
    assert sketch is not None
    assert sketch.ink[57, 128] > 0.9
    assert sketch.ink[200].max() == 0


def test_a_photo_stands_as_its_camera_was_held(tmp_path) -> None:
    lying = stroke((60, 100, 450, 100), ground="white").convert("RGB").crop((0, 0, SIDE, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    lying.save(tmp_path / "held.jpg", exif=exif)
    assert sent(tmp_path / "held.jpg").size == (300, SIDE)


@pytest.mark.parametrize("given", [{}, {"index": "x", "type": "layer", "id": "a"}, {"index": -1}])
def test_parts_that_are_none_are_a_sentence(given: dict) -> None:
    import gradio as gr

    with pytest.raises(gr.Error, match="no part of a drawing"):
        Canvas().accept_blobs(SimpleNamespace(data=given, files=[("file", b"x")]))


def test_the_oldest_of_what_was_sent_in_parts_goes_first() -> None:
    board = Canvas(Limits(stored=100))
    for name in ("first", "second", "third"):
        sent = {"type": "composite", "id": name, "index": None}
        board.accept_blobs(SimpleNamespace(data=sent, files=[("a.png", b"x" * 45)]))
    assert list(board.blob_storage) == ["second", "third"]
