"""One layer of one denoiser call: its record, its adapters' records, and the proof of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scribblediffusion.attention import folding, proof
from scribblediffusion.attention.adapters import Adapted, adapted, masked
from scribblediffusion.attention.families import Site
from scribblediffusion.attention.folding import Kept, positions
from scribblediffusion.attention.proof import Codes, Projection
from scribblediffusion.attention.records import CONDITION, Column
from scribblediffusion.attention.run import Call, Frame, Run
from scribblediffusion.attention.taps import Attended, Sighting, put_together
from scribblediffusion.errors import CaptureError


def record_layer(run: Run, call: Call, site: Site, sighting: Sighting, output: Any) -> None:
    """Fold one forward call of a layer into its record, and prove it on sample steps.

    Args:
        run: The run, laid out.
        call: The denoiser call that goes on; takes the record.
        site: The layer.
        sighting: What went by.
        output: What the layer returned.

    Raises:
        CaptureError: What went by is not what the family's layers are made of.
    """
    frame, plan = run.laid_out()
    whole = put_together(site, sighting, values=call.proved)
    at = _pick(whole, call, frame.grids[site.name], site)
    run.note_dtype(at.q.dtype)
    projection = proof.projection_of(site, sighting.hidden) if call.proved else None
    codes = None if projection is None else _codes(run, frame, at)
    record, mixed = folding.fold(
        at.q,
        at.k,
        at.scale,
        at.mask,
        _kept(run, frame, at),
        every_head=plan.every_head,
        v=None
        if at.v is None or projection is None or codes is None
        else codes.beside(projection.values(at.v)),
    )
    if mixed is not None and codes is not None:
        mixed, coded = mixed[..., :-1], mixed[..., -1]
        run.checks[site.name].note_output(codes.error(record, coded))
    _keep(run, call, site, CONDITION, record)
    apart = isinstance(output, tuple) and len(output) == 3  # FLUX with an adapter
    after = proof.projection_of(site, sighting.hidden, bare=True) if apart else projection
    after = after if call.proved else None
    added = [
        _record_adapter(run, call, site, one, at.q.shape[2], after)
        for one in adapted(site, sighting, whole)
    ]
    if mixed is None or projection is None:
        return
    joined = sum((x for x in added if x is not None and not apart), start=mixed)
    rows, places = _index(call.rows), mixed.shape[2]
    rebuilt = proof.rebuild(site, joined, sighting.hidden[rows], projection)
    real = proof.returned(site, output, whole.image)[rows][:, :places]
    check = run.checks[site.name]
    check.note_output(proof.relative_error(rebuilt, proof.along(real)))
    if apart and after is not None:
        brought = sum((x for x in added if x is not None), start=torch.zeros_like(mixed))
        real = proof.along(output[2][rows][:, :places])
        check.note_output(proof.relative_error(after.finish(brought), real))


def _keep(run: Run, call: Call, site: Site, source: str, record: Tensor) -> None:
    """Check the row sums and put the record away on the grid that the plan has for it."""
    frame, plan = run.laid_out()
    run.checks[site.name].note_row_sum(record)
    grid = frame.grids[site.name], plan.grids[site.name]
    call.records[site.name, source] = folding.shrink(record, *grid)


def _record_adapter(
    run: Run, call: Call, site: Site, one: Adapted, places: int, after: Projection | None
) -> Tensor | None:
    """A reference picture's softmax; returns what it adds to the output on sample steps."""
    _, plan = run.laid_out()
    rows = _index(call.rows)
    size = one.k.shape[2]
    kept = Kept(slice(one.own, size), [slice(0, one.own)] if one.own else [])
    record, mixed = folding.fold(
        one.q[rows][:, :, :places],
        one.k[rows],
        one.q.shape[-1] ** -0.5,
        None,
        kept,
        every_head=plan.every_head,
        v=None if after is None else after.values(one.v[rows]),
    )
    tokens = tuple(Column(one.source, key) for key in range(size - one.own))
    run.adapter_columns[one.source] = (*tokens, *([Column("image")] if one.own else []))
    run.adapters[site.name, one.source] = (size, one.scale)
    _keep(run, call, site, one.source, record)
    return None if mixed is None else one.scale * masked(mixed, one.mask)


def _pick(whole: Attended, call: Call, grid: tuple[int, int], site: Site) -> Attended:
    """The wanted rows of a layer and the places of the picture itself."""
    batch, heads, seen = whole.q.shape[:3]
    places = grid[0] * grid[1]
    if batch != call.batch or (seen != places and site.join == "cross") or seen < places:
        raise CaptureError(
            f"{site.name}: queries of {batch} rows and {seen} places where "
            f"{call.batch} rows and {grid[0]}×{grid[1]} places were expected"
        )
    rows = _index(call.rows)
    mask = folding.as_mask(whole.mask, batch, heads)
    if mask is not None:
        mask = mask[rows] if mask.shape[0] == batch else mask
        if mask.shape[2] > places:  # FLUX: the queries of the text are not kept
            begin = whole.image.start
            mask = mask[:, :, begin : begin + places]
    return Attended(
        q=whole.q[rows][:, :, :places],
        k=whole.k[rows],
        v=None if whole.v is None else whole.v[rows],
        scale=whole.scale,
        mask=mask,
        text=whole.text,
        image=whole.image,
        plain_q=whole.plain_q,
    )


def _codes(run: Run, frame: Frame, at: Attended) -> Codes:
    """The numbers of one layer's columns and keys; the same at every step."""
    name = (at.text, at.image, at.k.device)
    if name not in run.codes:
        own = torch.Generator("cpu").manual_seed(len(frame.columns))
        kind = {"dtype": torch.float32, "device": "cpu"}
        columns = torch.randn(len(frame.columns), generator=own, **kind)
        of_key = {c.key: n for n, c in enumerate(frame.columns) if c.key is not None}
        of_rest = {c.stream: n for n, c in enumerate(frame.columns) if c.rest}
        keys = torch.zeros(at.k.shape[2], **kind)
        for stream, numbers in frame.streams.items():
            if stream == "image":
                keys[at.image.start : at.image.stop] = columns[frame.columns.index(Column(stream))]
            elif "." not in stream:
                for key in numbers:
                    keys[at.text[key]] = columns[of_key.get(key, of_rest.get(stream, 0))]
        run.codes[name] = Codes(columns.to(at.k.device), keys.to(at.k.device))
    return run.codes[name]


def _kept(run: Run, frame: Frame, at: Attended) -> Kept:
    """The columns of the trace as positions in one layer's softmax; the same at every step."""
    name = (at.text, at.image, at.k.device)
    if name not in run.kept:
        run.kept[name] = _columns(frame, at)
    return run.kept[name]


def _columns(frame: Frame, at: Attended) -> Kept:
    keys = [c.key for c in frame.columns if c.key is not None]
    taken = set(keys)
    condition = max(r.stop for s, r in frame.streams.items() if s != "image")
    if len(at.text) != condition:
        raise CaptureError(f"a layer has {len(at.text)} condition keys, expected {condition}")
    device = at.k.device
    groups = []
    for column in frame.columns:
        if column.rest:
            left = [at.text[k] for k in frame.streams[column.stream] if k not in taken]
            groups.append(positions(left, device))
        elif column.key is None:
            groups.append(positions(list(at.image), device))
    return Kept(positions([at.text[k] for k in keys], device), groups)


def _index(rows: tuple[int, ...]) -> slice | list[int]:
    """Rows as a slice where they are in a row: a view instead of a copy."""
    if rows == tuple(range(rows[0], rows[-1] + 1)):
        return slice(rows[0], rows[-1] + 1)
    return list(rows)
