"""Two runs side by side: the pictures under a slider, and each word's map in both.

view = comparison()
view.value = pack_comparison(before, after)      # or None
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from scribblediffusion.analysis.difference import WordDifference, compare
from scribblediffusion.analysis.subjects import StepMaps, words_of
from scribblediffusion.attention.trace import AttentionTrace, resize
from scribblediffusion.view.comparison import STRONGER, WEAKER
from scribblediffusion.view.heatmap import as_image
from scribblediffusion.web.explorer import built
from scribblediffusion.web.payload import base64_of, data_uri, plain_settings

Array = np.ndarray[Any, np.dtype[Any]]
#: The comparison's scripts in the order in which they are joined.
SCRIPTS = ("maps.js", "paint.js", "dom.js", "comparison.js")


def pack_comparison(trace_a: AttentionTrace, trace_b: AttentionTrace) -> dict[str, Any]:
    """Two runs as JSON for `comparison`: whole-run heat maps of every word, and what changed.

    Args:
        trace_a: The run before.
        trace_b: The run after.

    Returns:
        Plain JSON values. Maps are heat maps in multiples of the even share, rounded to 8 bits:
        ``code / 255 · top`` (off by at most ``top / 510``), a change ``(code - 128) / 127 · top``.
        `pictures` says how much of the pictures changed: `mean` of ``|after - before|`` over
        pixels and colours, 0…1, and the same by place; None unless both have a picture. `ends` is a
        sentence where one run was stopped and the other was not, or elsewhere. `silent` are words
        that both have, without weight in one of them.
    """
    found = compare(trace_a, trace_b)
    grid = _grid(found.words, trace_a, trace_b)
    return {
        "a": _side(trace_a),
        "b": _side(trace_b),
        "size": list(trace_a.picture_size or grid),
        "grid": list(grid),
        "words": [_word(word, grid) for word in found.words],
        "only_a": _alone(trace_a, found.only_first, grid),
        "only_b": _alone(trace_b, found.only_second, grid),
        "silent": list(found.without_map),
        "settings": _differing(trace_a, trace_b),
        "ends": _ends(trace_a, trace_b),
        "pictures": _pictures(trace_a, trace_b),
    }


def comparison(**kwargs: Any) -> gr.HTML:
    """Two runs under a slider; its value is `pack_comparison`'s, or None.

    Args:
        **kwargs: As `gr.HTML` takes them.
    """
    colours = {"weaker": list(WEAKER), "stronger": list(STRONGER)}
    return built("comparison", SCRIPTS, (), **colours, **kwargs)


def _side(trace: AttentionTrace) -> dict[str, Any]:
    return {
        "prompt": trace.prompt,
        "picture": None if trace.picture is None else data_uri(trace.picture),
        "sketch": None if trace.sketch is None else data_uri(trace.sketch),
        "complete": trace.complete,
    }


def _grid(
    words: Sequence[WordDifference], first: AttentionTrace, second: AttentionTrace
) -> tuple[int, int]:
    """The grid that `compare` chose: the larger of the two."""
    if words:
        return words[0].change.shape
    return max(first.grid, second.grid, key=lambda g: g[0] * g[1])


def _word(word: WordDifference, grid: tuple[int, int]) -> dict[str, Any]:
    places = grid[0] * grid[1]
    change = word.change * places
    top = float(np.abs(change).max())
    return {
        "name": word.name,
        "moved": word.moved,
        "r": word.correlation,
        "shares": list(word.shares),
        "before": _coded(word.before * places),
        "after": _coded(word.after * places),
        "change": {
            "codes": base64_of(np.rint(change / (top or 1) * 127 + 128).astype(np.uint8)),
            "top": top,
        },
    }


def _coded(heat: Array) -> dict[str, Any]:
    top = float(heat.max())
    return {"codes": base64_of(np.rint(heat / (top or 1) * 255).astype(np.uint8)), "top": top}


def _alone(
    trace: AttentionTrace, names: Sequence[str], grid: tuple[int, int]
) -> list[dict[str, Any]]:
    """Words that only one run has, with their maps; those with no weight have none."""
    maps, alone, wanted = StepMaps.read(trace), [], set(map(_key, names))
    subjects = [s for s in words_of(trace) if _key(s.name) in wanted]
    for subject in subjects:
        raw = maps.of(subject).mean(axis=0, dtype=np.float64)
        heat = None
        if raw.sum() > 0:
            even = resize(raw / raw.mean(), *grid)
            heat = _coded(even)
        alone.append({"name": subject.name, "map": heat})
    return alone


def _key(name: str) -> str:
    """A word's name whatever its capitals; the first one may be repeated in one run alone."""
    return name.casefold().removesuffix(" (1)")


def _differing(first: AttentionTrace, second: AttentionTrace) -> list[list[Any]]:
    """[name, before, after] of every setting that is not the same."""
    a, b = plain_settings(first.settings), plain_settings(second.settings)
    names = dict.fromkeys([*a, *b])
    return [[n, a.get(n), b.get(n)] for n in names if a.get(n) != b.get(n)]


def _ends(first: AttentionTrace, second: AttentionTrace) -> str:
    """In a sentence, where each run was stopped; "" where both went equally far."""
    last = [None if t.complete or not t.steps else t.steps[-1].index + 1 for t in (first, second)]
    if last[0] == last[1]:
        return ""
    told = ["went to its end" if n is None else f"was stopped after step {n}" for n in last]
    return f"The run before {told[0]}, the run after {told[1]}."


def _pictures(first: AttentionTrace, second: AttentionTrace) -> dict[str, Any] | None:
    if first.picture is None or second.picture is None:
        return None
    height, width = first.picture.shape[:2]
    a, b = (
        np.asarray(as_image(t.picture, (width, height)), np.float32)
        for t in (first, second)
        if t.picture is not None
    )
    by_place = np.abs(a - b).mean(axis=-1) / 255
    return {
        "mean": float(by_place.mean()),
        "codes": base64_of(np.rint(by_place * 255).astype(np.uint8)),
        "top": 1.0,
        "grid": [height, width],
    }
