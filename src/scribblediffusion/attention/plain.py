"""To and from plain arrays: `AttentionTrace.from_arrays` and `to_xarray`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scribblediffusion.attention.naming import column_name
from scribblediffusion.attention.records import (
    CONDITION,
    Column,
    Layer,
    Prompt,
    Region,
    Step,
    Token,
    Word,
    region_name,
)
from scribblediffusion.attention.selecting import LayerSelector
from scribblediffusion.errors import SettingError

if TYPE_CHECKING:
    from scribblediffusion.attention.trace import AttentionTrace


def fields_of(
    weights: Mapping[str, np.ndarray],
    tokens: Sequence[str],
    streams: Mapping[str, range] | None,
    regions: Mapping[Region, int] | None,
    noise_remaining: Sequence[float | None] | None,
    prompt: str | None,
) -> dict[str, Any]:
    """The fields of a trace; arguments as for `AttentionTrace.from_arrays`."""
    arrays = {name: np.asarray(a, dtype=np.float32) for name, a in weights.items()}
    n, batch, keys = _shape_of(arrays)
    if len(tokens) > keys:
        raise SettingError(f"{len(tokens)} tokens, but the arrays have {keys} keys")
    streams = dict(streams or {"text": range(keys)})
    noise = [1 - i / n for i in range(n)] if noise_remaining is None else list(noise_remaining)
    if len(noise) != n:
        raise SettingError(f"noise_remaining of {len(noise)} steps, but the arrays have {n}")
    named = _named_prompt(tokens, streams, regions or {}, prompt)
    stream_of = {k: s for s, r in streams.items() if "." not in s for k in r}
    return {
        "records": {
            (i, j): np.ascontiguousarray(a[i].reshape(batch, a.shape[2], keys, -1))
            for i in range(n)
            for j, a in enumerate(arrays.values())
        },
        "steps": tuple(
            Step(i, timestep=None if x is None else 1000 * x, sigma=x, noise_remaining=x)
            for i, x in enumerate(noise)
        ),
        "layers": tuple(
            Layer(name, a.shape[2], a.shape[4], a.shape[5], keys) for name, a in arrays.items()
        ),
        "columns": {CONDITION: tuple(Column(stream_of[k], k) for k in range(keys))},
        "streams": streams,
        "prompts": (named,) * batch,
        "regions": regions or {},
        "heads": "all" if any(a.shape[2] > 1 for a in arrays.values()) else "mean",
    }


def _shape_of(arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Steps, batch and keys, which all layers share."""
    shapes = {name: a.shape for name, a in arrays.items()}
    wrong = {name: shape for name, shape in shapes.items() if len(shape) != 6 or 0 in shape}
    if wrong or not shapes or len({(s[0], s[1], s[3]) for s in shapes.values()}) > 1:
        raise SettingError(
            f"weights of shapes {wrong or shapes}: give at least one layer, each [steps, batch, "
            "heads, keys, height, width], all with the same steps, batch and keys"
        )
    first = next(iter(shapes.values()))
    return first[0], first[1], first[3]


def _named_prompt(
    tokens: Sequence[str],
    streams: Mapping[str, range],
    regions: Mapping[Region, int],
    prompt: str | None,
) -> Prompt:
    """Tokens and words for `from_arrays`."""
    words: list[tuple[str, tuple[int, ...]]] = []
    made: list[Token] = []
    stream_of = {k: s for s, r in streams.items() if "." not in s for k in r}
    for key, text in enumerate(tokens):
        special = bool(re.fullmatch(r"\[\w+\]|<.+>", text))
        made.append(
            Token(key, text, stream_of[key], special=special, padding=text in ("[PAD]", "<pad>"))
        )
        if text.startswith("##") and words:
            words[-1] = (words[-1][0] + text[2:], (*words[-1][1], key))
        elif not special:
            words.append((text, (key,)))
    made += [Token(key, region_name(r), stream_of[key]) for r, key in regions.items()]
    seen: dict[str, int] = {}
    numbered, start = [], 0
    for text, keys in words:
        occurrence = seen.get(text.casefold(), 0)
        seen[text.casefold()] = occurrence + 1
        numbered.append(Word(text, keys, occurrence, start))
        start += len(text) + 1
    joined = " ".join(text for text, _ in words)
    return Prompt(joined if prompt is None else prompt, tuple(made), tuple(numbered))


def to_xarray(trace: AttentionTrace, layer: LayerSelector, steps: Sequence[Step]) -> Any:
    """See `AttentionTrace.to_xarray`."""
    import xarray

    values = np.stack([trace.attention(layer=layer, step=one) for one in steps])
    source = trace.source_of(layer)
    columns = trace.columns[source]
    # The tokens of an adapter's reference picture have numbers and no text.
    named = {c.key: f"#{c.key}" for c in columns if c.key is not None}
    if source == CONDITION:
        named = {token.key: token.text for token in trace.tokens}
    noise = [np.nan if s.noise_remaining is None else s.noise_remaining for s in steps]
    texts = [column_name(c, named) for c in columns]
    return xarray.DataArray(
        values,
        dims=("step", "picture", "head", "token", "row", "column"),
        coords={
            "step": [s.index for s in steps],
            "call": ("step", [s.call for s in steps]),
            "noise_remaining": ("step", noise),
            "token": texts,
            "key": ("token", [-1 if c.key is None else c.key for c in columns]),
            "stream": ("token", [c.stream for c in columns]),
        },
        name="attention",
        attrs={
            "prompt": trace.prompt,
            "branch": trace.branch,
            "view": "attention",
            "source": source,
        },
    )
