"""A trace shows its picture and its sketch in a notebook."""

import base64
import io
import re

import numpy as np
from painted import make_trace
from PIL import Image

from scribblediffusion.attention.inline import SIDE


def test_a_notebook_shows_picture_and_sketch():
    trace = make_trace(steps=1, grid=4)
    html = trace._repr_html_()
    found = re.findall(r'<img alt="the (\w+)"[^>]*base64,([^"]+)"', html)
    assert [name for name, _ in found] == ["picture", "sketch"]
    for (_, data), own in zip(found, (trace.picture, trace.sketch), strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.size == (SIDE, SIDE)
        assert abs(np.asarray(image).mean() - own.mean()) < 2
    assert len(html) < 60_000
    assert "<img" not in make_trace(steps=1, grid=4, with_pictures=False)._repr_html_()
