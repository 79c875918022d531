"""A trace as one safetensors file: written whole or not at all, and never read wrong.

The file holds the tensors ``attention/<step>/<layer>``, ``[batch, heads, columns, places]`` (with
``u8-sqrt`` it is ``deflated/<step>/<layer>``, the same bytes through zlib: half the size), with
float16 ``exponent/<step>/<layer>``, uint8 ``[batch, heads, columns]``, and, if
the trace has them, ``picture/<i>``, ``sketch``, ``sketch/<i>``, ``mask/<i>`` (a bit for each pixel)
and ``previews``. Its metadata hold one entry,
``scribblediffusion.trace``: JSON of everything else, with ``schema`` and ``sha256``, the digest of
the whole file with the digest's own 64 characters written as zeros. A file of which any byte was
lost or changed is refused by name. The same trace gives the same bytes.

Weights are stored as float16 (default), each column's map times a power of two of its own,
2**exponent, which brings its largest weight to ½…1: a relative error of at most 5e-4 down to 1.2e-4
of that largest weight and below it an error of at most 6e-8 of it, so that a map stays what it is
however faint (sums over keys within 5e-4 of 1); float32 (exact); or ``u8-sqrt``: round(255·√p), a
quarter of float32, with an error of at most 0.004, so that weights below 4e-6 become 0.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from scribblediffusion.attention.audit import Audit, LayerAudit
from scribblediffusion.attention.records import Column, Layer, Prompt, Region, Step, Token, Word
from scribblediffusion.attention.trace import AttentionTrace, decode
from scribblediffusion.errors import SettingError, TraceError, TraceFileError
from scribblediffusion.sketch import Sketch

#: Version of the file's layout; a reader refuses those it does not know.
SCHEMA = 3
_READABLE = (1, 2, SCHEMA)
_KIND = "scribblediffusion.trace"
_BLANK = "0" * 64
#: A record of more numbers is not unpacked: a few bytes can stand for any number of zeros.
_LARGEST = 1 << 30

Dtype = Literal["float16", "float32", "u8-sqrt"]
#: What each of them is in the file.
_STORED = ("float16", "float32", "uint8")


def save(trace: AttentionTrace, path: Path, *, dtype: Dtype = "float16") -> Path:
    """Write a trace to a temporary file beside `path`, sync it, and rename it into place.

    Who may read the file is what the process says (its umask), as for any file.

    Args:
        trace: What to keep.
        path: The file; an old one is replaced in one step.
        dtype: How weights are stored; see the module's docstring for the errors.

    Returns:
        The path.

    Raises:
        SettingError: An unknown dtype.
        TraceError: A weight is not a number, which `u8-sqrt` cannot hold.
        OSError: The disk is full, or the folder cannot be written; an old file stays whole.
    """
    data = to_bytes(trace, dtype=dtype)
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def load(path: Path) -> AttentionTrace:
    """Read a trace; needs numpy and safetensors alone.

    Raises:
        TraceFileError: The file is damaged, cut off, not a trace, or of an unknown schema.
        FileNotFoundError: There is no such file.
    """
    return from_bytes(path.read_bytes(), str(path))


def to_bytes(trace: AttentionTrace, *, dtype: Dtype = "float16") -> bytes:
    """The whole file in memory."""
    tensors: dict[str, np.ndarray] = {}
    for (step, layer), array in trace.records.items():
        stored = _encode(decode(array), dtype)
        tensors |= {f"{kind}/{step}/{layer}": part for kind, part in stored.items()}
    tensors |= {f"picture/{i}": picture for i, picture in enumerate(trace.pictures)}
    if trace.sketch is not None:
        tensors["sketch"] = trace.sketch
    for i, sketch in enumerate(trace.sketches):
        tensors |= _of_sketch(i, sketch)
    if trace.previews is not None:
        tensors["previews"] = trace.previews
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    header = {"sha256": _BLANK, "schema": SCHEMA} | _header(trace)
    text = json.dumps(header, allow_nan=False)  # escapes keep any prompt, lone surrogates included
    data = serialise(tensors, {_KIND: text})
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(_field(_BLANK), _field(digest), 1)


def from_bytes(data: bytes, name: str = "trace") -> AttentionTrace:
    """The inverse of `to_bytes`; `name` is for errors."""
    header = _header_of(data, name)
    digest = str(header.get("sha256"))
    blank = data.replace(_field(digest), _field(_BLANK), 1)
    if hashlib.sha256(blank).hexdigest() != digest:
        raise TraceFileError(
            f"{name}: damaged (its content does not fit its sha256); take a copy or run again"
        )
    if header.get("schema") not in _READABLE:
        raise TraceFileError(
            f"{name}: schema {header.get('schema')}, this version reads up to {SCHEMA}; "
            f"update scribblediffusion"
        )
    try:
        trace = _rebuild(header, parse(data))
        _check(trace)
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        zlib.error,
    ) as error:
        raise TraceFileError(
            f"{name}: its digest is right, but it is not readable as a trace: {error!r}"
        ) from error
    return trace


def _check(trace: AttentionTrace) -> None:
    """Refuse records that do not fit the layers and columns that the header tells of."""
    if len(trace.prompts) not in (0, trace.batch):
        raise ValueError(f"{len(trace.prompts)} prompts of {trace.batch} pictures")
    for (step, layer), record in trace.records.items():
        if not (0 <= step < len(trace.steps) and 0 <= layer < len(trace.layers)):
            raise ValueError(f"a record of step {step} and layer {layer}, which are not listed")
        one = trace.layers[layer]
        heads = 1 if trace.heads == "mean" else one.heads
        expected = (trace.batch, heads, len(trace.columns[one.source]), one.places)
        if record.shape != expected or record.dtype not in _STORED:
            raise ValueError(
                f"layer {one.name}, step {step}: {record.dtype} {record.shape} where {expected} "
                f"was expected"
            )


def _header_of(data: bytes, name: str) -> dict[str, Any]:
    """The JSON of a trace's file, read by hand: the digest must be checked before the rest."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise TraceFileError(f"{name}: cut off, or not a safetensors file ({len(data)} bytes)")
    try:
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        if _KIND not in metadata:
            raise TraceFileError(f"{name}: a safetensors file, but not a saved attention trace")
        header = json.loads(metadata[_KIND])
        return dict(header.items())
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TraceFileError(f"{name}: damaged, or not a saved trace: {error}") from error


def _field(digest: str) -> bytes:
    """The digest as it stands in the file; one that is damaged may be no text that has bytes."""
    return rf"\"sha256\": \"{digest}\"".encode(errors="replace")  # JSON within JSON


def _encode(weights: np.ndarray, dtype: Dtype) -> dict[str, np.ndarray]:
    """The tensors of one record by kind."""
    if dtype == "float32":
        return {"attention": weights}
    if dtype == "float16":
        exponents = _exponents(weights)
        scaled = np.ldexp(weights, exponents[..., None].astype(np.int32))
        return {"attention": scaled.astype(np.float16), "exponent": exponents}
    if dtype == "u8-sqrt":
        if not np.isfinite(weights).all():
            raise TraceError(
                "dtype='u8-sqrt': a weight is not a number (NaN or infinite), and bytes have no "
                "such value; see `trace.audit`, and save as 'float16' to keep it as it is"
            )
        roots = np.rint(255 * np.sqrt(np.clip(weights, 0, 1))).astype(np.uint8)
        return {"deflated": _deflated(roots)}
    raise SettingError(f"dtype={dtype!r}: there are 'float16', 'float32' and 'u8-sqrt'")


def _exponents(weights: np.ndarray) -> np.ndarray:
    """Of each column, the power of two that brings its largest weight to ½…1; 0 for no number."""
    largest = weights.max(axis=-1, initial=0)
    halves, powers = np.frexp(np.where(np.isfinite(largest), largest, 0))
    powers += halves.astype(np.float16) == 1  # rounded up: saved again, it is the same
    return np.clip(-powers, 0, 255).astype(np.uint8)


def _deflated(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(zlib.compress(array.tobytes(), 1), dtype=np.uint8)


def _inflated(stream: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array again; a stream of any other size than the shape's is refused, not unpacked."""
    size = math.prod(shape)
    if size > _LARGEST:
        raise ValueError(f"a record of {shape} is larger than any that is written")
    unpack = zlib.decompressobj()
    data = unpack.decompress(stream.tobytes(), size + 1)
    if len(data) != size or not unpack.eof:
        raise ValueError(f"a record does not unpack to {shape}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _header(trace: AttentionTrace) -> dict[str, Any]:
    """Everything but the arrays, as JSON values."""
    return {
        "steps": [asdict(step) for step in trace.steps],
        "layers": [asdict(layer) for layer in trace.layers],
        "columns": {s: [asdict(c) for c in columns] for s, columns in trace.columns.items()},
        "streams": {name: [r.start, r.stop] for name, r in trace.streams.items()},
        "prompts": [asdict(prompt) for prompt in trace.prompts],
        "regions": [[r.level, r.row, r.column, key] for r, key in trace.regions.items()],
        "audit": None if trace.audit is None else _plain(asdict(trace.audit)),
        "branch": trace.branch,
        "heads": trace.heads,
        "thinned": list(trace.thinned),
        "settings": dict(trace.settings),
        "versions": dict(trace.versions),
        "picture_size": trace.picture_size,
        "complete": trace.complete,
        "pictures": len(trace.pictures),
        "sketches": len(trace.sketches),
        "batch": trace.batch,
    }


def _plain(audit: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they are written as text."""
    for layer in audit["layers"]:
        for name in ("row_sum_error", "output_error"):
            value = layer[name]
            if value is not None and not np.isfinite(value):
                layer[name] = str(value)
    return audit


def _rebuild(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> AttentionTrace:
    records = {}
    layers = tuple(_layer(layer) for layer in header["layers"])
    for name, array in tensors.items():
        kind, *place = name.split("/")
        if kind in ("attention", "deflated"):
            step, layer = (int(number) for number in place)
            if kind == "deflated":
                one = layers[layer]
                heads = 1 if header["heads"] == "mean" else one.heads
                columns = len(header["columns"][one.source])
                array = _inflated(array, (header["batch"], heads, columns, one.places))
            if (exponents := tensors.get(f"exponent/{step}/{layer}")) is not None:
                array = np.ldexp(decode(array), -exponents[..., None].astype(np.int32))
            records[step, layer] = array
    pictures = range(header["pictures"])
    return AttentionTrace(
        records=dict(sorted(records.items())),
        steps=tuple(Step(**step) for step in header["steps"]),
        layers=layers,
        columns={s: tuple(Column(**c) for c in cs) for s, cs in header["columns"].items()},
        streams={name: range(*ends) for name, ends in header["streams"].items()},
        prompts=tuple(_prompt(prompt) for prompt in header["prompts"]),
        regions={Region(*place): key for *place, key in header["regions"]},
        branch=header["branch"],
        heads=header["heads"],
        audit=None if header["audit"] is None else _audit(header["audit"]),
        thinned=tuple(header["thinned"]),
        settings=header["settings"],
        versions=header["versions"],
        picture_size=header["picture_size"] and tuple(header["picture_size"]),
        pictures=tuple(tensors[f"picture/{i}"] for i in pictures),
        sketch=tensors.get("sketch"),
        sketches=tuple(_sketch(tensors, i) for i in range(header.get("sketches", 0))),
        previews=tensors.get("previews"),
        complete=header["complete"],
    )


def _of_sketch(number: int, sketch: Sketch | None) -> dict[str, np.ndarray]:
    """The tensors of one picture's sketch."""
    if sketch is None:
        return {}
    tensors = {f"sketch/{number}": np.asarray(sketch.to_image())}
    if sketch.mask is not None:
        tensors[f"mask/{number}"] = np.packbits(sketch.mask)
    return tensors


def _sketch(tensors: dict[str, np.ndarray], number: int) -> Sketch | None:
    drawn, bits = (tensors.get(f"{kind}/{number}") for kind in ("sketch", "mask"))
    if drawn is None:
        return None
    mask = None if bits is None else np.unpackbits(bits).reshape(drawn.shape)
    return Sketch((255 - drawn.astype(np.float32)) / 255, mask=mask)


def _layer(values: dict[str, Any]) -> Layer:
    thinned = values.pop("thinned_from")
    return Layer(**values, thinned_from=None if thinned is None else (thinned[0], thinned[1]))


def _prompt(values: dict[str, Any]) -> Prompt:
    return Prompt(
        values["text"],
        tuple(Token(**token) for token in values["tokens"]),
        tuple(Word(**(word | {"keys": tuple(word["keys"])})) for word in values["words"]),
        tuple(values["truncated"]),
        values["named"],
        values.get("decoded", False),  # older files do not say
        tuple(tuple(text) for text in values.get("texts", ())),
    )


def _audit(values: dict[str, Any]) -> Audit:
    numbers = ("row_sum_error", "output_error")
    layers = []
    for layer in values["layers"]:
        exact = {n: float(layer[n]) if isinstance(layer[n], str) else layer[n] for n in numbers}
        layers.append(LayerAudit(**(layer | exact)))
    names = {field.name for field in fields(Audit)}
    rest = {name: values[name] for name in names - {"layers", "steps"}}
    return Audit(layers=tuple(layers), steps=tuple(values["steps"]), **rest)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be synced."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
