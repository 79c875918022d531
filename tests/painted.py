"""A trace with known maps and pictures, for tests of several rooms. No map in `src` is made up."""

import os

import numpy as np
from PIL import Image, ImageDraw

from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.sketch import REGIONS

os.environ.update(HF_HUB_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False")  # tests fetch nothing

PROMPT = "a red apple above a blue kite"
TOKENS = ["[CLS]", "a", "red", "apple", "above", "a", "blue", "kite", "[SEP]"]
#: Where things are in the picture, in 0…1: (x, y, radius).
APPLE, KITE = (0.32, 0.3, 0.16), (0.68, 0.7, 0.18)


def drawn(fill: bool) -> np.ndarray:
    """An apple (circle) and a kite (square on its corner): sketch, or picture with fills."""
    paper = (255, 247, 230) if fill else (255, 255, 255)
    image = Image.new("RGB", (1024, 1024), paper)
    draw = ImageDraw.Draw(image)
    red, blue = ((210, 47, 39), (97, 178, 228)) if fill else (None, None)
    (ax, ay, ar), (kx, ky, kr) = ([1024 * v for v in one] for one in (APPLE, KITE))
    draw.ellipse([ax - ar, ay - ar, ax + ar, ay + ar], fill=red, outline=(0, 0, 0), width=20)
    draw.line([(ax, ay - ar), (ax + 40, ay - ar - 90)], fill=(0, 0, 0), width=20)
    kite = [(kx, ky - kr), (kx + kr, ky), (kx, ky + kr), (kx - kr, ky)]
    draw.polygon(kite, fill=blue)
    draw.line([*kite, kite[0]], fill=(0, 0, 0), width=20, joint="curve")
    return np.asarray(image.resize((256, 256), Image.Resampling.BOX))


def hill(x: float, y: float, radius: float, grid: int = 32) -> np.ndarray:
    at = (np.arange(grid) + 0.5) / grid
    return np.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * (0.6 * radius) ** 2))


def make_trace(steps: int = 20, grid: int = 32, with_pictures: bool = True) -> AttentionTrace:
    """Known maps: words find their object as the noise goes; regions act where they are."""
    rng = np.random.default_rng(7)
    text = len(TOKENS)
    score = np.zeros((steps, text + 77, grid, grid))
    for step in range(steps):
        sure = step / max(1, steps - 1)
        score[step] = 0.15 * rng.random((text + 77, grid, grid))
        score[step, 0] += 3.0
        for i, (x, y, r) in ((2, APPLE), (3, APPLE), (6, KITE), (7, KITE)):
            score[step, i] += (1 + 4 * sure) * hill(x, y, r, grid)
        for i, region in enumerate(REGIONS):
            near = hill(*region.centre, 0.7 / region.level, grid)
            score[step, text + i] += (3.5 - 1.5 * sure) * near - 1.5
    weights = np.exp(score)
    weights /= weights.sum(axis=1, keepdims=True)
    picture, sketch = drawn(True), drawn(False)[..., 0]
    mixed = [np.clip(picture * (1 - n) + n * rng.normal(128, 60, picture.shape), 0, 255)
             for n in np.linspace(1, 0, steps)]  # fmt: skip
    shown = {
        "pictures": (picture,), "sketch": sketch, "previews": np.stack(mixed).astype(np.uint8),
    } if with_pictures else {}  # fmt: skip
    return AttentionTrace.from_arrays(
        {"mid.attn2": weights[:, None, None].astype(np.float32)},
        tokens=TOKENS,
        streams={"text": range(text), "sketch": range(text, text + 77)},
        regions={region: text + i for i, region in enumerate(REGIONS)},
        prompt=PROMPT,
        picture_size=(256, 256),
        settings={"seed": 7},
        **shown,
    )
