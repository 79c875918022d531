"""A trace as JSON for the browser: all that the explorer shows, so that looking costs no request.

The maps travel as bytes. Of each step and column the raw attention `[H, W]` is divided by its
largest value, `top`, and rounded to 0…255, so that a value is off by at most ``top / 510``. The
mean over the places, `mass`, travels exactly: stream shares and heat maps are made from it.

    value = code / 255 · top            raw: share of what a place listens to, all columns sum to 1
    value / mass                        heat map, in multiples of the even share

A block is the maps of one choice of layer and head. `pack` holds the mean of all layers, and
single layers and heads as far as `inline` bytes reach; `pack_maps` makes any other on demand.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from scribblediffusion.analysis.subjects import (
    regions_of,
    sampling_steps,
    specials_of,
)
from scribblediffusion.attention.naming import word_name
from scribblediffusion.attention.trace import CONDITION, AttentionTrace, Layer, Step, Word
from scribblediffusion.errors import NotRecordedError

Array = np.ndarray[Any, np.dtype[Any]]
#: Previews are at most this wide and high, in pixels.
PREVIEW = 256
#: Pictures larger than this, in pixels, travel as JPEG.
LOSSLESS = 512 * 512


def pack(trace: AttentionTrace, *, run: str | None = None, inline: int = 0) -> dict[str, Any]:
    """Everything that the explorer needs of one run, first picture of the batch.

    Args:
        trace: The run.
        run: An opaque name of the run, by which the page asks for blocks that are not inside.
        inline: Bytes that the maps of single layers and heads may take together, for a page without
            a server to ask; the mean of all is always there.

    Returns:
        Plain JSON values; the module's docstring says how the maps are coded. `error` is the
        largest rounding error of any raw value in the mean block, 0…1 of a place's attention.
    """
    steps = sampling_steps(trace)
    packed = _about(trace, run) | {
        "count": len(steps),
        "steps": [_step(trace, step) for step in steps],
        "regions": _regions(trace, describe=True),
        "layers": [_layer(x) for x in trace.layers if x.source == CONDITION],
        "picture": _picture(trace),
        "complete": trace.complete,
        "stopped": _stopped(trace, steps),
    }
    mean = pack_maps(trace)
    packed["blocks"] = [mean, *_inline_blocks(trace, len(steps), inline)]
    packed["error"] = mean["error"]
    packed["lead"] = _leading_word(trace, mean)
    return packed


def pack_live(trace: AttentionTrace, *, run: str, count: int) -> dict[str, Any]:
    """One step of a run that goes on, as the explorer's value.

    Steps that were left out, to save time, leave a gap and do no harm; when the run has ended,
    `pack` gives the value that replaces them all.

    Args:
        trace: `RealAttentionExtractor.latest`: the newest finished step alone.
        run: A name of the run; a new one starts afresh.
        count: How many steps the run is to have.

    Returns:
        ``{"live": …}``, of the same shape as `pack`.
    """
    step = trace.steps[-1]
    frame = _about(trace, run) | {
        "count": count,
        "steps": [_step(trace, step)],
        "regions": _regions(trace, describe=False),
        "layers": [],
        "picture": None,
        "complete": False,
        "stopped": "",
        "lead": None,
    }
    block = pack_maps(trace, steps=(step,))
    return {"live": frame | {"blocks": [block], "error": block["error"]}}


def pack_maps(
    trace: AttentionTrace,
    layer: str | None = None,
    head: int | None = None,
    *,
    steps: tuple[Step, ...] | None = None,
) -> dict[str, Any]:
    """The maps of one layer and head at every step.

    Args:
        trace: The run.
        layer: Name of a layer; None for the mean of all on the largest grid.
        head: Number of a head; None for their mean.
        steps: Which sampling steps; all.

    Returns:
        layer, head, grid (rows, columns), codes (base64 uint8 ``[steps, columns, H, W]``), top and
        mass (base64 little-endian float32 ``[steps, columns]``), gaps (positions of steps at which
        nothing was captured: their maps are not zero but absent), and error.

    Raises:
        NotRecordedError: There is no such layer or head, or nothing at any step.
    """
    steps = sampling_steps(trace) if steps is None else steps
    maps, gaps = [], []
    for position, step in enumerate(steps):
        try:
            maps.append(_raw(trace, layer, head, step))
        except NotRecordedError:
            if len(gaps) + 1 == len(steps):
                raise
            gaps.append(position)
            maps.append(None)
    like = next(m for m in maps if m is not None)
    raw = np.stack([np.zeros_like(like) if m is None else m for m in maps])
    top = raw.max(axis=(-2, -1)).astype(np.float32)
    safe = np.where(top > 0, top, 1)[..., None, None]
    codes = np.rint(raw / safe * 255).astype(np.uint8)
    return {
        "layer": layer,
        "head": head,
        "grid": list(raw.shape[-2:]),
        "codes": base64_of(codes),
        "top": base64_of(top),
        "mass": base64_of(raw.mean(axis=(-2, -1), dtype=np.float64).astype(np.float32)),
        "gaps": gaps,
        "error": float(top.max()) / 510,
    }


def data_uri(array: Array, *, lossless: bool = True, longest: int | None = None) -> str:
    """A picture, uint8 ``[H, W]`` or ``[H, W, 3]``, as a data URI (PNG, or JPEG).

    Args:
        array: The picture.
        lossless: PNG; otherwise JPEG.
        longest: Reduce it so that neither side is longer, in pixels.
    """
    image = Image.fromarray(np.ascontiguousarray(array))
    if longest is not None and max(image.size) > longest:
        image.thumbnail((longest, longest), Image.Resampling.BOX)
    file = io.BytesIO()
    if lossless:
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=86)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


# ── what is in the trace ─────────────────────────────────────────────────────────────────────────


def _about(trace: AttentionTrace, run: str | None) -> dict[str, Any]:
    """What does not change while a run goes on."""
    columns = _columns_of(trace)
    streams = [name for name in trace.streams if "." not in name]
    audit = trace.audit
    return {
        "run": run,
        "prompt": trace.prompt,
        "words": _words(trace, columns),
        "specials": [
            {"name": s.name, "columns": [columns[k] for k in s.keys], "padding": len(s.keys) > 1}
            for s in specials_of(trace)
        ],
        "lost": list(trace.prompts[0].truncated) if trace.prompts else [],
        "streams": streams,
        "columns": [streams.index(c.stream) if c.stream in streams else -1
                    for c in trace.columns[CONDITION]],
        "sketch": None if trace.sketch is None else data_uri(trace.sketch),
        "sketch_size": None if trace.sketch is None else list(trace.sketch.shape),
        "size": list(trace.picture_size or trace.grid),
        "grid": list(trace.grid),
        "heads": trace.heads,
        "branch": trace.branch,
        "thinned": list(trace.thinned),
        "settings": plain_settings(trace.settings),
        "audit": None if audit is None else {"line": str(audit), "passed": audit.passed},
    }  # fmt: skip


def _columns_of(trace: AttentionTrace) -> dict[int, int]:
    """Key → position of its column."""
    return {c.key: i for i, c in enumerate(trace.columns[CONDITION]) if c.key is not None}


def _words(trace: AttentionTrace, columns: Mapping[int, int]) -> list[dict[str, Any]]:
    """Every word of the prompt in order; those that were not recorded have no columns."""
    pieces = {t.key: t.text for t in trace.tokens}
    return [
        {
            "text": word.text,
            "name": word_name(word, trace.words),
            "start": _start(word, trace.prompt),
            "columns": [columns[k] for k in word.keys] if columns.keys() >= {*word.keys} else [],
            "pieces": [pieces[k] for k in word.keys if k in pieces],
        }
        for word in trace.words
    ]


def _start(word: Word, prompt: str) -> int | None:
    """Where the word is in the prompt, counted as the browser does (UTF-16); None if not there."""
    if prompt[word.start : word.start + len(word.text)] != word.text:
        return None
    return len(prompt[: word.start].encode("utf-16-le")) // 2


def _regions(trace: AttentionTrace, *, describe: bool) -> list[dict[str, Any]]:
    """The recorded sketch regions with their boxes, and what is drawn there."""
    columns, found = _columns_of(trace), regions_of(trace)
    regions = [s.region for s in found if s.region is not None]
    told: list[str | None] = [None] * len(found)
    if describe and trace.sketch is not None and found:
        from scribblediffusion.analysis.listening import ink_of
        from scribblediffusion.analysis.regions import describe_regions

        told = [str(d) for d in describe_regions(ink_of(trace), regions)]
    side = 256 if trace.sketch is None else trace.sketch.shape[0]
    return [
        {
            "name": subject.name,
            "at": [region.level, region.row, region.column],
            "column": columns[subject.keys[0]],
            "box": list(region.box(side)),
            "told": text,
        }
        for subject, region, text in zip(found, regions, told, strict=True)
    ]


def _layer(layer: Layer) -> dict[str, Any]:
    """One layer, with a short name for people."""
    return {
        "name": layer.name,
        "label": f"{short_name(layer.name)}, {layer.height}×{layer.width}",
        "heads": layer.heads,
        "grid": [layer.height, layer.width],
        "thinned_from": None if layer.thinned_from is None else list(layer.thinned_from),
    }


def short_name(name: str) -> str:
    """A layer's path as a person reads it.

    >>> short_name("up_blocks.1.attentions.0.transformer_blocks.0.attn2")
    'up 1.0 attn2'
    >>> short_name("single_transformer_blocks.3.attn")
    'single_transformer 3 attn'
    """
    path = name.replace(".attentions.", ".").replace(".transformer_blocks.0.", ".")
    words: list[str] = []
    for part in path.replace("_blocks", "").replace("_block", "").split("."):
        if part.isdigit() and words and words[-1][-1].isdigit():
            words[-1] += f".{part}"
        else:
            words.append(part)
    return " ".join(words)


def _step(trace: AttentionTrace, step: Step) -> dict[str, Any]:
    """One step and the picture as the model saw it then."""
    seen = None if trace.previews is None else trace.picture_after(step.index)
    return {
        "index": step.index,
        "noise": step.noise_remaining,
        "label": str(step),
        "preview": None if seen is None else data_uri(seen, lossless=False, longest=PREVIEW),
    }


def _picture(trace: AttentionTrace) -> str | None:
    if trace.picture is None:
        return None
    height, width = trace.picture.shape[:2]
    return data_uri(trace.picture, lossless=height * width <= LOSSLESS)


def _stopped(trace: AttentionTrace, steps: tuple[Step, ...]) -> str:
    """Where a run ended that did not reach its end."""
    if trace.complete or not steps:
        return ""
    noise = steps[-1].noise_remaining
    where = "" if noise is None else f", with {100 * noise:.0f}% noise remaining at its last step"
    asked = trace.settings.get("num_inference_steps")
    of = f" of {asked}" if isinstance(asked, int) else ""
    return f"Stopped after step {steps[-1].index + 1}{of}{where}"


def plain_settings(settings: Mapping[str, object]) -> dict[str, Any]:
    """The settings that JSON can hold."""
    kinds = (str, int, float, bool, type(None))
    return {k: v for k, v in settings.items() if isinstance(v, kinds)}


# ── the maps ─────────────────────────────────────────────────────────────────────────────────────


def _raw(trace: AttentionTrace, layer: str | None, head: int | None, step: Step) -> Array:
    """Raw attention of the first picture at one step, ``[columns, H, W]``."""
    if head is not None and trace.heads == "mean":
        raise NotRecordedError(
            f'head {head}: only the mean was kept; capture with heads="all" to tell heads apart'
        )
    heads = trace.attention(layer=layer, step=step.index)[0]
    if head is None:
        return heads.mean(axis=0, dtype=np.float64)
    counts = {x.heads for x in trace.layers if x.source == CONDITION and layer in (None, x.name)}
    if len(counts) > 1 or not 0 <= head < len(heads):
        raise NotRecordedError(f"head {head}: the layers asked for have {sorted(counts)} heads")
    return heads[head].astype(np.float64)


def _inline_blocks(trace: AttentionTrace, steps: int, room: int) -> Iterator[dict[str, Any]]:
    """Blocks of single layers, then of single heads, as long as there is room for them all."""
    for layer, head in choices(trace):
        if layer is None and head is None:
            continue
        height, width = trace.grid if layer is None else _grid(trace, layer)
        size = steps * len(trace.columns[CONDITION]) * height * width
        if size <= room:
            room -= size
            yield pack_maps(trace, layer, head)


def choices(trace: AttentionTrace) -> list[tuple[str | None, int | None]]:
    """Every (layer, head) that the trace can tell apart: None is the mean of all."""
    layers = [x for x in trace.layers if x.source == CONDITION]
    several = [x.name for x in layers] if len(layers) > 1 else []
    found: list[tuple[str | None, int | None]] = [(None, None), *((n, None) for n in several)]
    if trace.heads == "all":
        counts = {x.heads for x in layers}
        if len(counts) == 1:
            found += [(None, h) for h in range(counts.pop())]
        found += [(x.name, h) for x in layers if x.name in several for h in range(x.heads)]
    return found


def _grid(trace: AttentionTrace, name: str) -> tuple[int, int]:
    layer = next(x for x in trace.layers if x.name == name and x.source == CONDITION)
    return layer.height, layer.width


def _leading_word(trace: AttentionTrace, mean: Mapping[str, Any]) -> int | None:
    """Position of the word whose map of the whole run is the most pointed; None without words."""
    rows, columns = mean["grid"]
    shape = (-1, len(trace.columns[CONDITION]), rows * columns)
    top = np.frombuffer(base64.b64decode(mean["top"]), np.float32).reshape(shape[0], shape[1])
    codes = np.frombuffer(base64.b64decode(mean["codes"]), np.uint8).reshape(shape)
    run = np.einsum("scp,sc->cp", codes, top, dtype=np.float64)
    words = [w["columns"] for w in _words(trace, _columns_of(trace))]
    maps = [run[c].sum(axis=0) for c in words]
    peaks = [
        m.max() / m.mean() if len(c) and m.any() else 0.0 for c, m in zip(words, maps, strict=True)
    ]
    return int(np.argmax(peaks)) if any(peaks) else None


def base64_of(array: Array) -> str:
    """An array's bytes, little-endian, as text."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()
