"""Small traces with weights of one's own, and what to hold their numbers against."""

import numpy as np

from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.sketch import REGIONS


def plain_trace(weights, tokens, **fields):
    """One layer from `[steps, keys, H, W]`."""
    return AttentionTrace.from_arrays({"layer": weights[:, None, None]}, tokens=tokens, **fields)


def steps_like(*maps):
    """A trace of one word with these raw maps, and the rest of the attention on another."""
    word = np.stack(maps)[:, None] * 0.5
    return plain_trace(np.concatenate([word, 1 - word], axis=1), ["cat", "[SEP]"])


TOKENS = ["[CLS]", "a", "cat", "[SEP]"]


def two_streams(steps=3):
    """A trace of four text tokens and two sketch regions in two layers, and its raw weights.

    The weights are {layer: float64 [steps, heads, keys, side, side]}, on grids of 4 and 8.
    """
    rng = np.random.default_rng(11)
    weights = {"small": rng.random((steps, 2, 6, 4, 4)) ** 3,
               "large": rng.random((steps, 3, 6, 8, 8)) ** 2}  # fmt: skip
    weights = {name: w / w.sum(axis=2, keepdims=True) for name, w in weights.items()}
    trace = AttentionTrace.from_arrays(
        {name: w[:, None] for name, w in weights.items()},
        tokens=TOKENS,
        streams={"text": range(4), "sketch": range(4, 6)},
        regions={REGIONS[0]: 4, REGIONS[64]: 5},
    )
    return trace, weights


def raw_of(weights, keys):
    """`[steps, 8, 8]` of these keys, one place after the other: mean of heads, then of layers."""
    steps = len(weights["small"])
    raw = np.zeros((steps, 8, 8))
    for step, y, x in np.ndindex(raw.shape):
        small = sum(head[k][y // 2, x // 2] for head in weights["small"][step] for k in keys) / 2
        large = sum(head[k][y, x] for head in weights["large"][step] for k in keys) / 3
        raw[step, y, x] = (small + large) / 2
    return raw


def oracle_raw(trace, keys, step):
    """The mean of heads, then of layers on the larger grid, from the weights alone."""
    maps = []
    for layer in trace.layers:
        raw = trace.weights(layer=layer.name, step=step)[0].mean(axis=0)[list(keys)].sum(axis=0)
        grid = raw.reshape(layer.height, layer.width)
        maps.append(np.kron(grid, np.ones((8 // layer.height, 8 // layer.width))))
    return np.mean(maps, axis=0)
