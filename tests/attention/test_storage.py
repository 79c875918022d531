"""Saved whole or not at all; a damaged file is refused by name and never read as zeros."""

import json
import math
import os
import stat
import zlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trace_views import made, with_nan

from scribblediffusion.attention import storage
from scribblediffusion.attention.audit import Audit, LayerAudit
from scribblediffusion.attention.records import CONDITION, Column
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import SettingError, TraceError, TraceFileError
from scribblediffusion.sketch import Sketch

AUDIT = Audit((LayerAudit("down.attn2", 1e-7, 3e-7, 3, 3),), "float32", 1e-4, (0, 1))


@pytest.fixture(scope="module")
def trace() -> AttentionTrace:
    rng = np.random.default_rng(0)
    return made(
        prompt='a "red" \\ äpple\n☃',
        audit=AUDIT,
        settings={"seed": 3, "guidance": 2.5},
        versions={"torch": "9"},
        thinned=("the heads of each layer were averaged",),
        pictures=(rng.integers(0, 255, (64, 48, 3), dtype=np.uint8),) * 2,
        sketch=rng.integers(0, 255, (64, 48), dtype=np.uint8),
        previews=rng.integers(0, 255, (3, 8, 6, 3), dtype=np.uint8),
        complete=False,
        branch="sketch_only",
    )


@pytest.fixture(scope="module")
def data(trace: AttentionTrace) -> bytes:
    small = made(steps=1, batch=1, heads=1, audit=AUDIT)
    return storage.to_bytes(small)


@pytest.mark.parametrize("dtype", ["float16", "float32", "u8-sqrt"])
def test_everything_comes_back(trace: AttentionTrace, tmp_path: Path, dtype: str) -> None:
    path = trace.save(tmp_path / "a trace.safetensors", dtype=dtype)
    again = AttentionTrace.load(path)
    arrays = {"records", "pictures", "sketch", "previews"}
    for name in {field.name for field in fields(trace)} - arrays:
        assert getattr(again, name) == getattr(trace, name), name
    assert all(np.array_equal(a, b) for a, b in zip(again.pictures, trace.pictures, strict=True))
    assert np.array_equal(again.sketch, trace.sketch)
    assert np.array_equal(again.previews, trace.previews)
    limit = {"float16": 5e-4, "float32": 0.0, "u8-sqrt": 0.004}[dtype]
    for layer in trace.layers:
        for step in trace.steps:
            mine, theirs = (t.weights(layer=layer, step=step) for t in (again, trace))
            assert np.abs(mine - theirs).max() <= limit
    if dtype != "u8-sqrt":
        assert np.abs(again.attention().sum(2) - 1).max() < 5e-4
    assert np.abs(again.heat_map().sum((-2, -1)) - 1).max() < 5e-5
    assert list(tmp_path.iterdir()) == [path]


def test_sketches_and_masks_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    ink, mask = rng.random((256, 256)), rng.random((256, 256)) < 0.5
    sketches = (Sketch(ink, mask=mask), None, Sketch(ink))
    trace = made(batch=3, sketch=np.asarray(sketches[0].to_image()), sketches=sketches)
    again = AttentionTrace.load(trace.save(tmp_path / "trace.safetensors"))
    assert [s is None for s in again.sketches] == [False, True, False]
    for one in (0, 2):
        assert np.array_equal(again.sketches[one].ink, sketches[one].ink)
    assert np.array_equal(again.sketches[0].mask, mask)
    assert again.sketches[2].mask is None
    assert storage.to_bytes(again) == storage.to_bytes(trace)


def test_u8_has_its_stated_error_everywhere() -> None:
    weights = np.linspace(0, 1, 4001, dtype=np.float32).reshape(1, 1, 1, 1, 1, -1)
    trace = AttentionTrace.from_arrays({"x": np.concatenate([weights, 1 - weights], 3)})
    again = storage.from_bytes(storage.to_bytes(trace, dtype="u8-sqrt"))
    assert np.abs(again.attention() - trace.attention()).max() <= 0.004


@pytest.mark.parametrize("faint", [1e-3, 1e-7, 1e-20, 1e-38])
def test_a_faint_map_keeps_its_shape(faint: float) -> None:
    """A float16 of a weight below 3e-8 alone would be 0, and the map with it."""
    cells = np.random.default_rng(3).random((1, 1, 1, 1, 16, 16)).astype(np.float32) * faint
    trace = AttentionTrace.from_arrays({"x": np.concatenate([cells, 1 - cells], 3)})
    again = storage.from_bytes(storage.to_bytes(trace))
    assert again.live_keys() == trace.live_keys() == (0, 1)
    moved = np.abs(again.token(0) - trace.token(0)).sum() / 2
    assert moved < 5e-4
    assert np.abs(again.attention().sum(2) - 1).max() < 5e-4
    assert storage.to_bytes(again) == storage.to_bytes(trace)


def test_files_of_the_schema_before_are_read(trace: AttentionTrace, monkeypatch) -> None:
    """There float16 stood alone."""
    plain = lambda weights, dtype: {"attention": weights.astype(np.float16)}  # noqa: E731
    monkeypatch.setattr(storage, "_encode", plain)
    monkeypatch.setattr(storage, "SCHEMA", 2)
    again = storage.from_bytes(storage.to_bytes(trace))
    assert np.abs(again.attention() - trace.attention()).max() < 5e-4


def smooth(cells: int = 16) -> AttentionTrace:
    """Maps as models make them: neighbouring places look at nearly the same."""
    x = np.linspace(0, 1, cells)
    centres = np.random.default_rng(0).random((20, 2))
    score = [-20 * ((x[:, None] - a) ** 2 + (x - b) ** 2) for a, b in centres]
    weights = np.exp(score)[None, None, None]
    return AttentionTrace.from_arrays({"x": weights / weights.sum(3, keepdims=True)})


def test_the_compact_form_is_a_third_of_float16() -> None:
    trace = smooth(32)
    sizes = {d: len(storage.to_bytes(trace, dtype=d)) for d in ("float32", "float16", "u8-sqrt")}
    assert sizes["u8-sqrt"] < 0.4 * sizes["float16"] < 0.25 * sizes["float32"]
    again = storage.from_bytes(storage.to_bytes(trace, dtype="u8-sqrt"))
    assert np.abs(again.attention() - trace.attention()).max() <= 0.004


def test_a_packed_record_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bomb: a stream that holds more than its layer is not unpacked."""
    bomb = np.frombuffer(zlib.compress(bytes(50_000_000)), dtype=np.uint8)
    for stream in (bomb, np.zeros(9, np.uint8), bomb[:50]):
        monkeypatch.setattr(storage, "_deflated", lambda array, s=stream: s)
        data = storage.to_bytes(smooth(), dtype="u8-sqrt")
        with pytest.raises(TraceFileError, match="not readable as a trace"):
            storage.from_bytes(data)


def test_a_file_is_small_and_a_second_save_is_the_same(data: bytes) -> None:
    again = storage.to_bytes(storage.from_bytes(data))
    assert again == data


def test_cut_off_at_any_length_is_refused(data: bytes) -> None:
    header = 8 + int.from_bytes(data[:8], "little")
    lengths = [*range(64), *range(64, len(data), max(1, len(data) // 150)), header, header - 1]
    for length in lengths:
        with pytest.raises(TraceFileError):
            storage.from_bytes(data[:length], "cut")
    with pytest.raises(TraceFileError):
        storage.from_bytes(data + b"\0", "longer")


def test_a_flipped_byte_anywhere_is_refused(data: bytes) -> None:
    header = 8 + int.from_bytes(data[:8], "little")
    places = {*range(200), *range(0, header, 97), *range(header, len(data), len(data) // 80)}
    places |= {len(data) - 1, header - 1}
    for place in sorted(places):
        for flip in (0x01, 0x80, 0x2A):
            wrong = bytearray(data)
            wrong[place] ^= flip
            with pytest.raises(TraceFileError):
                storage.from_bytes(bytes(wrong), "flipped")


@pytest.mark.parametrize("run", [rb"\ud8ab", rb"\\ud8ab", b"\xff\xfe", b'"}]', b"\0" * 40], ids=str)
def test_several_bytes_in_a_row_anywhere_are_refused(data: bytes, run: bytes) -> None:
    """In the digest above all: as JSON escapes they are text that has no bytes."""
    header = 8 + int.from_bytes(data[:8], "little")
    digest = data.index(b"sha256") + len(rb"sha256\": \"")
    places = {*range(64), *range(digest - 20, digest + 70), *range(64, header, 61)}
    for place in sorted(places | {header - 3, header, len(data) - len(run)}):
        wrong = data[:place] + run + data[place + len(run) :]
        with pytest.raises(TraceFileError):
            storage.from_bytes(wrong, "overwritten")


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.numpy import save

    other = {
        "empty": b"",
        "text": b"not a trace at all, only a sentence",
        "pickle": b"\x80\x04N.",
        "weights": save({"x": np.zeros(3)}),
        "foreign": save({"x": np.zeros(3)}, {"scribblediffusion.trace": "[1]"}),
    }
    for name, content in other.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(TraceFileError, match=name):
            AttentionTrace.load(path)
    with pytest.raises(FileNotFoundError):
        AttentionTrace.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("steps", []),
        ("steps", [7]),
        ("steps", [{"nothing": 1}]),
        ("layers", []),
        ("layers", [[]]),
        ("columns", []),
        ("columns", {"condition": [{"stream": "text", "key": 0}]}),
        ("columns", {}),
        ("streams", {"text": "ab"}),
        ("prompts", None),
        ("regions", [[1]]),
        ("audit", {"layers": 3}),
        ("heads", "mean"),
        ("pictures", 3),
        ("thinned", 4),
        ("picture_size", 4),
    ],
)
def test_a_header_that_lies_is_refused_by_name(
    field: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest fits, as in a file that somebody made on purpose."""
    real = storage._header
    monkeypatch.setattr(storage, "_header", lambda trace: real(trace) | {field: wrong})
    lying = storage.to_bytes(made(steps=1, heads=4, audit=AUDIT))
    with pytest.raises(TraceFileError, match=r"lie: .*not readable as a trace"):
        storage.from_bytes(lying, "lie")


def test_an_unknown_schema_is_named(trace: AttentionTrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SCHEMA", 99)
    future = storage.to_bytes(trace)
    monkeypatch.undo()
    with pytest.raises(TraceFileError, match="schema 99, this version reads up to 3"):
        storage.from_bytes(future)


def test_older_files_have_one_text_for_all_encoders(
    trace: AttentionTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which words belong to which prompt was not written then."""
    real = storage._header

    def older(trace: AttentionTrace) -> dict[str, Any]:
        header = json.loads(json.dumps(real(trace)))
        for prompt in header["prompts"]:
            del prompt["texts"], prompt["decoded"]
        return header

    monkeypatch.setattr(storage, "_header", older)
    again = storage.from_bytes(storage.to_bytes(trace))
    assert again.prompts == trace.prompts
    assert again.find("red apple") == trace.find("red apple")


def test_a_save_that_fails_leaves_the_old_file_whole(
    trace: AttentionTrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trace.save(tmp_path / "run.safetensors")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        made(steps=1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_who_may_read_a_file_is_as_for_any_file(trace: AttentionTrace, tmp_path: Path) -> None:
    for umask in (0o022, 0o077, 0o007):
        before = os.umask(umask)
        try:
            path = trace.save(tmp_path / f"{'x' * 240}.{umask}")  # as long a name as there may be
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_weights_that_are_no_numbers_are_kept_or_named(tmp_path: Path) -> None:
    trace = with_nan()
    again = AttentionTrace.load(trace.save(tmp_path / "x"))
    assert np.isnan(again.records[1, 1]).sum() == np.isnan(trace.records[1, 1]).sum() > 0
    with pytest.raises(TraceError, match=r"'u8-sqrt'.*not a number.*'float16'"):
        trace.save(tmp_path / "y", dtype="u8-sqrt")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_wrong_dtype_is_named(trace: AttentionTrace, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="u8-sqrt"):
        trace.save(tmp_path / "x", dtype="int4")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_has_not_come_back(trace: AttentionTrace) -> None:
    bad = Audit((LayerAudit("x", math.inf, math.nan, 0, 3),), "float32", 1e-4, ())
    text = storage.to_bytes(replace(trace, audit=bad))
    again = storage.from_bytes(text).audit
    assert again is not None
    assert again.layers[0].row_sum_error == math.inf
    assert math.isnan(again.layers[0].output_error or 0)
    assert not again.passed


def test_the_header_is_plain_json(data: bytes) -> None:
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    header = json.loads(metadata["scribblediffusion.trace"])
    assert header["schema"] == 3
    assert header["steps"][0]["noise_remaining"] == 1.0
    assert header["prompts"][0]["words"][0]["text"] == "a"


def test_columns_that_are_sums_come_back() -> None:
    trace = made(steps=1)
    columns = (*trace.columns[CONDITION][:-2], Column("sketch", rest=True), Column("image"))
    odd = replace(trace, columns={CONDITION: columns})
    assert storage.from_bytes(storage.to_bytes(odd)).columns == odd.columns


def test_a_record_larger_than_any_is_not_unpacked() -> None:
    for side in (10**6, 10**30):
        with pytest.raises(ValueError, match="larger than any"):
            storage._inflated(np.zeros(4, np.uint8), (1, 1, 1, side * side))


def test_every_picture_of_a_file_has_a_prompt() -> None:
    one = np.full((1, 2, 1, 3, 4, 4), 1 / 3)
    trace = AttentionTrace.from_arrays({"x": one}, tokens=["a", "b", "c"])
    data = storage.to_bytes(replace(trace, prompts=trace.prompts[:1]))
    with pytest.raises(TraceFileError, match="1 prompts of 2 pictures"):
        storage.from_bytes(data)
