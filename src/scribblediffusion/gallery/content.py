"""What a save writes: trace, pictures, sketch, and the record that lets a run be repeated."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, PngImagePlugin

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import manifest
from scribblediffusion.gallery.run import IMAGE, MASK, RECORD, SKETCH, TRACE, numbered, read_record
from scribblediffusion.sketch import Sketch

if TYPE_CHECKING:
    from scribblediffusion.attention.trace import AttentionTrace

Drawing: TypeAlias = "Sketch | Image.Image | np.ndarray"
#: The pictures of a run, their sketches and masks.
IMAGES = re.compile(r"(image|sketch|mask)(-\d+)?\.png")
#: How every PNG file begins.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def check(trace: object, picture: object, sketch: object, folder: Path | None) -> None:
    """Nothing, where a run can be made of what was given.

    Raises:
        GalleryError: it cannot; says what was expected.
    """
    from scribblediffusion.attention.trace import AttentionTrace

    if trace is None and folder is None:
        raise GalleryError("nothing to add: give a trace, or a folder as `stage` makes one")
    if not isinstance(trace, AttentionTrace | None):
        raise GalleryError(f"cannot add a {type(trace).__name__}: give a trace or a folder")
    if folder is not None and not folder.is_dir():
        raise GalleryError(f"cannot add {folder}: it is no folder; use `stage` to make one")
    if trace is None and folder is not None and not any(folder.iterdir()):
        raise GalleryError(f"cannot add {folder}: there is nothing in it")
    drawings = (Image.Image, np.ndarray)
    for name, image, kinds in (
        ("picture", picture, drawings),
        ("sketch", sketch, (*drawings, Sketch)),
    ):
        if image is not None and not isinstance(image, kinds):
            raise GalleryError(f"{name}: an image was expected, found {type(image).__name__}")
        if isinstance(image, np.ndarray) and not _is_pixels(image):
            found = f"{image.dtype} of shape {image.shape}"
            raise GalleryError(f"{name}: uint8 [H, W], [H, W, 3] or [H, W, 4], found {found}")


def _is_pixels(array: np.ndarray) -> bool:
    colours = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    return array.dtype in (np.uint8, np.bool_) and colours and array.size > 0


def fill(
    place: Path,
    trace: AttentionTrace | None,
    picture: Image.Image | np.ndarray | None,
    sketch: Drawing | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write trace, picture and sketch into a folder, and put together what `run.json` will say."""
    said = read_record(place) if (place / RECORD).is_file() else {}
    if trace is not None:
        trace.save(place / TRACE)
    elif (place / TRACE).is_file():
        from scribblediffusion.attention.trace import AttentionTrace

        trace = AttentionTrace.load(place / TRACE)
    record = _merged(said, trace, plain(settings))
    label = record["prompt"], record["seed"]
    for path in sorted(place.glob("*.png")):
        if IMAGES.fullmatch(path.name):
            label_png(path, *label)
    pictures = trace.pictures if trace is not None and picture is None else (picture,)
    for number, image in enumerate(pictures, 1):
        name = numbered(IMAGE, number)
        if image is not None and not (place / name).is_file():
            write_png(place / name, image, *label)
    drawings = _drawings(sketch, trace)
    for number, drawn in enumerate(drawings, 1):
        if drawn is not None and not (place / numbered(SKETCH, number)).is_file():
            record |= _write_sketch(place, number, drawn, *label)
    return record | ({"sketches": len(drawings)} if len(drawings) > 1 else {})


def _drawings(sketch: Drawing | None, trace: AttentionTrace | None) -> list[Drawing | None]:
    """The sketches of the pictures, or one for all; the first is the one given, if any."""
    found: list[Drawing | None] = [sketch]
    if trace is not None:
        own = trace.sketches
        found = list(own) if len({_bits(one) for one in own}) > 1 else [*own[:1]] or [trace.sketch]
        if sketch is not None:
            found[0] = sketch
    return found


def _bits(sketch: Sketch | None) -> object:
    """Tells sketches apart."""
    if sketch is None:
        return None
    return sketch.ink.tobytes(), None if sketch.mask is None else sketch.mask.tobytes()


def _merged(
    said: dict[str, Any], trace: AttentionTrace | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """What a staged record, the trace and the settings say: the later of two where both do."""
    if not said.get("prompt"):  # staged without one: the trace's own counts
        said.pop("prompt", None)
    record = record_of(trace) if trace is not None else {"prompt": "", "seed": None, "settings": {}}
    own = said.pop("settings", None)
    merged = {**record["settings"], **(own if isinstance(own, dict) else {}), **settings}
    record = {**record, **said, "settings": merged}
    for name in ("prompt", "seed"):  # None says nothing
        record[name] = record[name] if merged.get(name) is None else merged[name]
    return {**record, "prompt": str(record["prompt"])}


def _write_sketch(
    place: Path, number: int, sketch: Drawing, prompt: str, seed: object
) -> dict[str, Any]:
    """Write the sketch of one picture and its mask; what the record says of the first."""
    path = place / numbered(SKETCH, number)
    if not isinstance(sketch, Sketch):
        write_png(path, sketch, prompt, seed)
        return {}
    write_png(path, sketch.to_image(), prompt, seed)
    if sketch.mask is not None:
        mask = Image.fromarray(sketch.mask)
        write_png(place / numbered(MASK, number), mask, prompt, seed)
    if number > 1:
        return {}
    cleaning = None if sketch.cleaning is None else plain(sketch.cleaning)
    return {"sketch": {"cleaning": cleaning, "masked": sketch.mask is not None}}


def copy(source: Path, place: Path) -> None:
    """Copy the files of a folder, hidden ones and links not."""
    for name, path in manifest.files(source):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / name)


def plain(value: Any) -> Any:
    """Any value as JSON has them; what JSON cannot hold becomes its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(v) for v in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    return str(value)


def record_of(trace: AttentionTrace) -> dict[str, Any]:
    """What `run.json` keeps of a trace, so that a run can be found and repeated without it."""
    settings = plain(trace.settings)
    audit = trace.audit
    return {
        "prompt": trace.prompt,
        "seed": settings.get("seed"),
        "settings": settings,
        "steps": plain(trace.steps),
        "complete": trace.complete,
        "picture_size": plain(trace.picture_size),
        "versions": plain(trace.versions),
        "audit": {"passed": audit.passed, "says": str(audit), **plain(audit)} if audit else None,
    }


def write_png(path: Path, image: Image.Image | np.ndarray, prompt: str, seed: object) -> None:
    """An image as PNG that carries the prompt and the seed as text."""
    drawn = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    drawn.save(path, "PNG", pnginfo=_label(prompt, seed))


def label_png(path: Path, prompt: str, seed: object) -> None:
    """Put the prompt and the seed into a PNG that carries none; not a bit of its picture changes.

    A file that is no PNG stays as it is.
    """
    whole = path.read_bytes()
    before, head = whole.partition(b"IDAT")[0], 33  # signature and IHDR, which must come first
    if not before.startswith(PNG) or re.search(rb"(iTXt|tEXt|zTXt)Prompt\0", before):
        return
    text = io.BytesIO()
    for kind, data, _ in _label(prompt, seed).chunks:
        PngImagePlugin.putchunk(text, kind, data)
    path.write_bytes(whole[:head] + text.getvalue() + whole[head:])


def _label(prompt: str, seed: object) -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    told = {"Prompt": prompt, "Seed": "" if seed is None else str(seed)}
    for key, value in {**told, "Software": "ScribbleDiffusion"}.items():
        if value:
            readable = value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
            text.add_itxt(key, readable)
    return text


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`; escapes keep any prompt, lone surrogates included."""
    text = json.dumps(plain(record), indent=1, ensure_ascii=True)
    (folder / RECORD).write_text(text + "\n", encoding="ascii")
