"""A trace's picture and sketch as small images inside a notebook's HTML."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import numpy as np

#: Longest side in pixels: to recognise a run by, not to study it.
SIDE = 160


def inline_image(picture: np.ndarray[Any, np.dtype[Any]], label: str) -> str:
    """An `<img>` that holds the picture, reduced to `SIDE`.

    Args:
        picture: uint8 `[H, W]` or `[H, W, 3]`.
        label: what it is, for people who do not see it.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(label)}" style="margin:4px" src="data:image/png;base64,{data}">'
