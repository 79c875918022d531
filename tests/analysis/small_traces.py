"""Small traces with weights of one's own, and what to hold their numbers against."""

import numpy as np

from scribblediffusion.attention.trace import AttentionTrace


def plain_trace(weights, tokens, **fields):
    """One layer from `[steps, keys, H, W]`."""
    return AttentionTrace.from_arrays({"layer": weights[:, None, None]}, tokens=tokens, **fields)


def steps_like(*maps):
    """A trace of one word with these raw maps, and the rest of the attention on another."""
    word = np.stack(maps)[:, None] * 0.5
    return plain_trace(np.concatenate([word, 1 - word], axis=1), ["cat", "[SEP]"])


def oracle_raw(trace, keys, step):
    """The mean of heads, then of layers on the larger grid, from the weights alone."""
    maps = []
    for layer in trace.layers:
        raw = trace.weights(layer=layer.name, step=step)[0].mean(axis=0)[list(keys)].sum(axis=0)
        grid = raw.reshape(layer.height, layer.width)
        maps.append(np.kron(grid, np.ones((8 // layer.height, 8 // layer.width))))
    return np.mean(maps, axis=0)
