"""A trace, and a run, that are small enough to be saved hundreds of times in a test."""

import json

import numpy as np

from scribblediffusion.attention.trace import AttentionTrace


def tiny_trace(prompt="a red apple", seed=7, **fields):
    """Two steps, one layer, five tokens on a 4×4 grid."""
    weights = np.random.default_rng(0).random((2, 1, 2, 5, 4, 4)).astype(np.float32)
    return AttentionTrace.from_arrays(
        {"mid.attn2": weights / weights.sum(axis=3, keepdims=True)},
        tokens=["[CLS]", "a", "red", "apple", "[SEP]"],
        prompt=prompt,
        settings={"seed": seed, "num_inference_steps": 2},
        pictures=(np.full((8, 8, 3), 200, np.uint8),),
        sketch=np.full((256, 256), 255, np.uint8),
        picture_size=(8, 8),
        **fields,
    )


def stage(gallery, prompt="a red apple", seed=None):
    """A run without trace or pictures: quick to save."""
    folder = gallery.stage(prompt)
    record = {"prompt": prompt, "seed": seed}
    (folder / "run.json").write_text(json.dumps(record), encoding="ascii")
    return gallery.add(folder)
