"""Any source as an upright PIL image: paths, arrays and images, checked before they are decoded."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from scribblediffusion.errors import SketchError

#: The largest image that is read, in pixels; checked before anything is decoded.
MAX_PIXELS = 40_000_000
#: A drawing with less contrast than this on white, of 255, is put on black.
FAINTEST_ON_WHITE = 51

#: What Pillow's decoders raise for damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError)
_DAMAGE = (*_DAMAGE, struct.error, zlib.error, AssertionError, RuntimeError)


def read(source: object, what: str = "sketch") -> Image.Image:
    """Any image as an upright PIL image with at most `MAX_PIXELS` pixels, decoded.

    Args:
        source: a path, a PIL image, or an array `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or
            `[H, W, 4]` of uint8 (0–255), uint16 (0–65535), bool or floats in 0…1. True is white.
            Integers of only 0 and 1, with both of them, are read as bool.
        what: what it is to be, for the errors.

    Raises:
        SketchError: not an image, too large, empty, of a wrong shape, or not finite.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, f"cannot read the array given as a {what}")
    if isinstance(source, Image.Image):
        return _decoded(source, f"cannot read the image given as a {what}")
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(os.fspath(source))
        return _from_path(name, f"cannot read {name!r} as a {what}")
    kinds = "a path, a PIL image, a numpy array" + (" or a Sketch" if what == "sketch" else "")
    raise SketchError(f"a {what} was asked for from a {type(source).__name__}; give {kinds}")


def _from_path(name: str, failed: str) -> Image.Image:
    """The image of a file; `failed` begins every error."""
    if "\0" in name:
        raise SketchError(f"{failed}: a path cannot hold a NUL character")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name) as image:
                return _decoded(image, failed)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(failed, int(found[1]) if found else None) from None
    except SketchError:
        raise
    except FileNotFoundError:
        raise SketchError(f"{failed}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise SketchError(f"{failed}: it is a folder; name an image file in it") from None
    except Image.UnidentifiedImageError:
        why = "not an image" if os.path.getsize(name) else "the file is empty"
        raise SketchError(f"{failed}: {why}; give a PNG, JPEG, WebP, GIF, BMP or TIFF") from None
    except _DAMAGE as error:
        raise _unreadable(failed, error) from error


def _too_large(failed: str, pixels: int | None) -> SketchError:
    found = f"{pixels / 1e6:.0f} megapixels" if pixels else "even more"
    most = MAX_PIXELS // 1_000_000
    return SketchError(
        f"{failed}: at most {most} megapixels are read, it has {found}; make it smaller first"
    )


def _unreadable(failed: str, error: Exception) -> SketchError:
    why = (str(error) or type(error).__name__).splitlines()[0]
    return SketchError(f"{failed}: {why}; save it again as a PNG and try that")


def _decoded(image: Image.Image, failed: str) -> Image.Image:
    """The image upright and loaded; its size is looked at before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(failed, width * height)
    if not width or not height:
        raise SketchError(f"{failed}: it is {width}×{height} pixels, which is empty")
    try:
        image.load()
        image = image.convert("LA") if image.mode == "La" else image  # Pillow's only way from there
        return ImageOps.exif_transpose(image)
    except _DAMAGE as error:
        raise _unreadable(failed, error) from error


def _from_array(array: np.ndarray, failed: str) -> Image.Image:
    planes = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or planes not in (1, 3, 4) or array.size == 0:
        raise SketchError(
            f"an array of shape {list(array.shape)} is no image; give [H, W], [H, W, 3] or "
            "[H, W, 4] with at least one pixel (channels last)"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large(failed, array.shape[0] * array.shape[1])
    pixels = _eight_bits(array)
    return Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and planes == 1 else pixels)
    )


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """Any dtype that holds grey levels, as uint8."""
    kind = array.dtype.kind
    if kind == "b" or (kind in "ui" and array.min() == 0 and array.max() == 1):
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint8:
        return array
    if kind not in "uif":
        raise SketchError(f"an array of {array.dtype} is no image; give uint8, or floats in 0…1")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise SketchError(
            f"the array holds {count} values that are not finite (NaN or infinite); "
            "replace them, for instance with numpy.nan_to_num"
        )
    top = 1 if kind == "f" else 65535 if array.dtype == np.uint16 else 255
    low, high = float(array.min()), float(array.max())
    slack = 0.01 if kind == "f" else 0  # resampling overshoots a little
    if low < -slack or high > top + slack:
        raise SketchError(
            f"an array of {array.dtype} must hold values in 0…{top}; found {low:g}…{high:g}; "
            "scale it, or give uint8"
        )
    return np.clip(array.astype(np.float32) * np.float32(255 / top) + 0.5, 0, 255).astype(np.uint8)


def opacity(image: Image.Image) -> Image.Image | None:
    """The alpha channel (255 is opaque), or None where every pixel is opaque."""
    if not image.has_transparency_data:
        return None
    if _is_deep(image):  # Pillow would cut its levels off at 255 first
        seen = np.not_equal(np.asarray(image), image.info["transparency"])
        alpha = Image.fromarray(np.where(seen, 255, 0).astype(np.uint8))
    else:
        alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def grey(image: Image.Image) -> tuple[Image.Image, Literal["white", "black"] | None]:
    """Luma (ITU-R 601) as mode "L", and the backdrop that transparent pixels were put on.

    White, unless the drawing would vanish there: then black.
    """
    alpha = opacity(image)
    if alpha is None:
        return _luma(image), None
    drawn = image
    if _is_deep(image):
        drawn = _luma(image)
        drawn.putalpha(alpha)
    on_white = _flat(drawn, "white")
    low, high = on_white.getextrema()
    if float(high) - float(low) >= FAINTEST_ON_WHITE:  # type: ignore[arg-type]
        return on_white, "white"
    return _flat(drawn, "black"), "black"


def _flat(image: Image.Image, colour: str) -> Image.Image:
    drawn = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, colour), drawn).convert("L")


def _is_deep(image: Image.Image) -> bool:
    """Whether its grey levels may go beyond 255."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _luma(image: Image.Image) -> Image.Image:
    if _is_deep(image):
        levels = np.asarray(image).astype(np.float32)
        levels = np.nan_to_num(levels, nan=0.0, posinf=0.0, neginf=0.0)
        top = next((t for t in (1, 255, 65535) if levels.max() <= t), float(levels.max()))
        top = max(top, 255) if image.mode == "I" else 65535 if image.mode != "F" else top
        return Image.fromarray(np.clip(levels * (255 / top) + 0.5, 0, 255).astype(np.uint8))
    return image.convert("RGB").convert("L") if image.mode != "L" else image
