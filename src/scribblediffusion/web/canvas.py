"""The drawing board: Gradio's image editor with limits that hold before anything is decoded."""

from __future__ import annotations

import dataclasses
import io
import warnings
from abc import ABCMeta
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.component_meta import ComponentMeta, updateable
from PIL import Image, ImageChops

from scribblediffusion.errors import SketchError
from scribblediffusion.reading import grey, read
from scribblediffusion.sketch import Sketch
from scribblediffusion.web.limits import Limits

#: Side of the drawing board in pixels: twice that of a prepared sketch.
SIDE = 512
#: What is decoded of what strangers send: other readers of Pillow start programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
#: The paint of the part that counts.
MASK_COLOUR = "#2f7fd0"
#: Tones by which a browser's rounding may change a drawing, of 255.
_ROUNDED = 8
#: How much bluer than red the paint is at least, of 255: 80 where it lies thin, 0 anywhere else.
_PAINTED = 40

_LOST = (
    "The drawing did not come through, as the studio has much to do. It is still on the board: "
    "add a dot to it, then press Generate again."
)


def blank() -> dict[str, Any]:
    """A white sheet. With it the brush is chosen at once, and the first stroke draws."""
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    return {"background": sheet, "layers": [], "composite": sheet}


def sheet_of(sketch: Image.Image) -> dict[str, Any]:
    """A drawing as the board's value."""
    image = sketch.convert("RGB")
    factor = SIDE / max(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    place = ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    sheet.paste(image.resize(size, Image.Resampling.LANCZOS), place)
    return {"background": sheet, "layers": [], "composite": sheet}


def mask_sheet(drawing: Image.Image | None, inside: np.ndarray | None, colour: str) -> Any:
    """The value of the board on which the part that counts is painted.

    Args:
        drawing: what is on the other board; it shines through.
        inside: bool `[H, W]`, the part that counted in the run on the board; None for none.
        colour: of the paint.
    """
    white = Image.new("RGB", (SIDE, SIDE), "white")
    sheet = white if drawing is None else sheet_of(drawing)["composite"]
    faint = Image.blend(sheet.convert("L").convert("RGB"), white, 0.6)
    if inside is not None:  # not on a layer: the editor of the page fails on layers that it is sent
        painted = Image.new("RGB", (SIDE, SIDE), colour)
        half = Image.blend(faint, painted, 0.5)
        faint.paste(half, mask=_like(inside.astype(np.uint8) * 255, (SIDE, SIDE)))
    return {"background": faint, "layers": [], "composite": faint}


class _WithoutStub(ComponentMeta):
    """Gradio writes a stub file beside the source of each component class; not beside ours."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        if "__init__" in attributes:  # what each session's copy of the component is made from
            attributes["__init__"] = updateable(attributes["__init__"])
        return ABCMeta.__new__(cls, name, bases, attributes)


class Canvas(gr.ImageEditor, metaclass=_WithoutStub):
    """An image editor that refuses too many layers, too many pixels, and addresses.

    Args:
        limits: what is refused.
        **kwargs: as `gr.ImageEditor` takes them.
    """

    is_template = True  # the page shows it as the editor that it is

    def __init__(self, limits: Limits | None = None, **kwargs: Any) -> None:
        self._limits = limits or Limits()
        super().__init__(type="pil", image_mode="RGBA", format="png", **kwargs)

    def get_config(self, cls: Any = None) -> dict[str, Any]:
        """What the page needs to know: that of the editor."""
        return super().get_config(gr.ImageEditor if cls is None else cls)

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        """A file that was uploaded here; the server fetches nothing for anybody."""
        if "://" in str(url_or_file_path):
            raise gr.Error(
                "A drawing is uploaded, not named by its address.", print_exception=False
            )
        return await super().async_move_resource_to_block_cache(url_or_file_path)

    def accept_blobs(self, data: Any) -> None:
        """A picture from the page, kept until the event that uses it; the oldest are let go."""
        sent = data.data if isinstance(data.data, dict) else {}
        index = sent.get("index")
        whole = int(index) if str(index).isdecimal() else None  # type: ignore[arg-type]
        known = index in (None, "", "null") or whole is not None
        if not known or not {"type", "id"} <= sent.keys() or not data.files:
            raise gr.Error("That is no part of a drawing.", print_exception=False)
        if whole is not None and whole >= self._limits.layers:
            raise gr.Error(_too_many(self._limits), print_exception=False)
        data.data.setdefault("index", None)
        super().accept_blobs(data)
        held = list(self.blob_storage.items())  # others may put theirs in meanwhile
        weight = sum(_weight(drawing) for _, drawing in held)
        for name, drawing in held:
            if weight <= self._limits.stored:
                return
            self.blob_storage.pop(name, None)
            weight -= _weight(drawing)

    accept_blobs._is_server_fn = True  # type: ignore[attr-defined]

    def convert_and_format_image(self, file: Any, flatten_on_white: bool = False) -> Any:
        """A part as it is seen: upright, with its alpha, deep grey levels brought to 8 bits."""
        if file is None:
            return None
        source = io.BytesIO(file) if isinstance(file, bytes | bytearray) else Path(file.path)
        with Image.open(source, formats=FORMATS) as image:
            upright = read(image)
        deep = upright.mode in ("I", "F") or upright.mode.startswith("I;16")
        return (grey(upright)[0] if deep else upright).convert("RGBA")

    def preprocess(self, payload: Any) -> Any:
        """The parts as images, after their number and sizes were looked at.

        What is refused comes as a value with ``refused``, a sentence, and no pictures.
        """
        held = payload
        if payload is not None and payload.id is not None:
            held = self.blob_storage.get(payload.id)
        if held is not None:
            reason = _why_refused(held, self._limits)
        else:
            reason = _LOST if payload is not None else ""
        if not reason:
            try:
                return super().preprocess(payload)
            except (OSError, SyntaxError, ValueError, EOFError, SketchError):
                reason = "That picture is damaged: it cannot be read to its end."
        if payload is not None and payload.id is not None:
            self.blob_storage.pop(payload.id, None)
        return {"background": None, "layers": [], "composite": None, "refused": reason}


def _weight(held: Any) -> int:
    """Bytes of the pictures of one drawing."""
    return sum(len(p) for p in (held.background, held.composite, *held.layers) if p is not None)


def _too_many(limits: Limits) -> str:
    return f"At most {limits.layers} layers are read; merge some of them."


def _why_refused(held: Any, limits: Limits) -> str:
    """Why these parts are not read, in a sentence; empty if they are fine."""
    layers = [layer for layer in held.layers or [] if layer is not None]
    if len(layers) > limits.layers:
        return _too_many(limits)
    found = (_look_at(part, limits) for part in (held.background, held.composite, *layers))
    return next((reason for reason in found if reason), "")


def _look_at(part: Any, limits: Limits) -> str:
    """Why one picture is not read: judged from its size and its header alone."""
    if part is None:
        return ""
    raw = isinstance(part, bytes | bytearray)
    source = io.BytesIO(part) if raw else Path(part.path)
    size = len(part) if raw else size_of(source)
    if size > limits.upload:
        most = limits.upload / 1e6
        return f"The picture has {size / 1e6:.0f} MB; at most {most:.0f} MB are read."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = limits.pixels + 1
    except (OSError, SyntaxError, ValueError):
        return "That file is no picture that can be read; give a PNG, JPEG or WebP."
    if pixels > limits.pixels:
        most = limits.pixels / 1e6
        return f"The picture is too large: at most {most:.0f} megapixels are read."
    return ""


def size_of(path: Any) -> int:
    """Bytes of a file; 0 for one that is not there."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def drawing_of(value: Mapping[str, Any] | None) -> Image.Image | None:
    """What is drawn, on white, or on black where it would vanish there; None for nothing at all.

    Args:
        value: ``{background, layers, composite}`` of PIL images. The composite is what the page
            shows; where it is None (nothing touched, or a program that gives layers alone) the
            layers are put on the background.
    """
    if not value:
        return None
    parts = [value.get("composite")]
    if parts[0] is None:
        parts = [value.get("background"), *(value.get("layers") or [])]
    images = [part.convert("RGBA") for part in parts if part is not None]
    if not images:
        return None
    drawing = Image.new("RGBA", images[0].size, (0, 0, 0, 0))
    for image in images:
        same = image if image.size == drawing.size else image.resize(drawing.size)
        drawing.alpha_composite(same)
    shown, backdrop = grey(drawing)
    seen = shown.getextrema() != (0, 0)
    sheet = Image.new("RGBA", drawing.size, backdrop if backdrop and seen else "white")
    sheet.alpha_composite(drawing)
    return sheet.convert("RGB")


def painted_in(value: Mapping[str, Any] | None) -> np.ndarray | None:
    """Where the mask's board shows paint, uint8 `[H, W]` (255 there); None for nowhere.

    What is seen counts: the strokes of now, and the part that an opened run came with, which lies
    on the sheet (see `mask_sheet`). Nothing else on that board has a colour.
    """
    shown = drawing_of(value)
    if shown is None:
        return None
    red, _, blue = np.moveaxis(np.asarray(shown).astype(np.int16), -1, 0)
    inside = blue - red > _PAINTED
    return inside.astype(np.uint8) * 255 if inside.any() else None


def sketch_of(
    value: Mapping[str, Any] | None,
    mask: Mapping[str, Any] | None = None,
    before: Sketch | None = None,
) -> Sketch | None:
    """The cleaned sketch of a board; None where nothing is drawn.

    Args:
        value: the board.
        mask: a second board on which the part that counts was painted; None for everywhere.
        before: the sketch of a run that was put on the board: while it is still what is drawn, its
            very ink is taken, as ink that is enlarged and cleaned again differs.

    Raises:
        SketchError: the mask leaves nothing of the drawing.
    """
    drawing = drawing_of(value)
    if drawing is None:
        return None
    inside = painted_in(mask)
    if before is None or not _shows(drawing, before):
        sketch = Sketch.from_image(drawing)
    else:
        sketch = dataclasses.replace(before, mask=None)
    if sketch.is_blank:
        return None
    if inside is None:
        return sketch
    masked = sketch.masked(_like(inside, drawing.size))
    if masked.is_blank:
        raise SketchError(
            "the painted part holds no line of the drawing; paint over the lines that are to count"
        )
    return masked


def _shows(drawing: Image.Image, sketch: Sketch) -> bool:
    """Whether a board shows nothing but this sketch; browsers round, so tones may be a bit off."""
    if drawing.size != (SIDE, SIDE):
        return False
    there = sheet_of(sketch.to_image())["composite"]
    apart = np.asarray(ImageChops.difference(drawing, there))
    return int(apart.max()) <= _ROUNDED


def _like(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)


def drawn(board: Any, mask: Any, before: Sketch | None = None) -> Sketch | None:
    """The cleaned sketch of what a page or a program sent.

    Raises:
        SketchError: it was refused, or the mask leaves nothing of it.
    """
    for sent in (board, mask):
        if isinstance(sent, dict) and sent.get("refused"):
            raise SketchError(sent["refused"])
    return sketch_of(board, mask, before)
