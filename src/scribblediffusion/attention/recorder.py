"""One layer of one denoiser call: its record, its adapters' records, and the proof of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scribblediffusion.attention import folding, proof
from scribblediffusion.attention.families import Site
from scribblediffusion.attention.records import CONDITION
from scribblediffusion.attention.run import Call, Frame, Run
from scribblediffusion.attention.taps import Adapter, Attended, Sighting, put_together
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
    whole = put_together(site, sighting)
    at = _pick(whole, call, frame.grids[site.name], site)
    record, mixed = folding.fold(
        at.q,
        at.k,
        at.scale,
        at.mask,
        _kept(frame, at),
        every_head=plan.every_head,
        v=at.v if call.proved else None,
    )
    _keep(run, call, site, CONDITION, record)
    added = [
        part
        for number, adapter in sighting.adapters.items()
        for part in _record_adapter(run, call, site, sighting, at, number, adapter)
    ]
    if mixed is not None:
        rows = _index(call.rows)
        rebuilt = proof.rebuild(site, mixed, sighting.hidden[rows], added)
        real = proof.returned(site, output, whole.image)[rows][:, : at.q.shape[2]]
        run.checks[site.name].note_output(proof.relative_error(rebuilt, real))


def _keep(run: Run, call: Call, site: Site, source: str, record: Tensor) -> None:
    """Check the row sums and put the record away on the grid that the plan has for it."""
    frame, plan = run.laid_out()
    run.checks[site.name].note_row_sum(record)
    grid = frame.grids[site.name], plan.grids[site.name]
    call.records[site.name, source] = folding.shrink(record, *grid)


def _record_adapter(
    run: Run,
    call: Call,
    site: Site,
    sighting: Sighting,
    at: Attended,
    number: int,
    adapter: Adapter,
) -> list[Tensor]:
    """An IP-Adapter: a softmax of its own for each image; returns what it adds to the output."""
    _, plan = run.laid_out()
    rows, width = _index(call.rows), at.q.shape[-1]
    added = []
    for image, pair in enumerate(zip(adapter.keys, adapter.values, strict=True)):
        k, v = (x.reshape(x.shape[0], -1, site.heads, width).transpose(1, 2)[rows] for x in pair)
        record, mixed = folding.fold(
            at.plain_q,
            k,
            width**-0.5,
            None,
            folding.Kept(torch.arange(k.shape[2], device=k.device)),
            every_head=plan.every_head,
            v=v if call.proved else None,
        )
        source = f"ip_adapter_{number}" + (f".{image}" if len(adapter.keys) > 1 else "")
        scale = _adapter_scale(site, number, image)
        run.adapters[site.name, source] = (k.shape[2], scale)
        _keep(run, call, site, source, record)
        if mixed is not None:
            masks = sighting.arguments.get("ip_adapter_masks")
            added.append(scale * _masked(mixed, masks, number, image))
    return added


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
        v=whole.v[rows],
        scale=whole.scale,
        mask=mask,
        text=whole.text,
        image=whole.image,
        plain_q=whole.plain_q[rows][:, :, :places],
    )


def _kept(frame: Frame, at: Attended) -> folding.Kept:
    """The columns of the trace as positions in one layer's softmax."""
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
            groups.append(torch.tensor(left, device=device))
        elif column.key is None:
            groups.append(torch.tensor(list(at.image), device=device))
    return folding.Kept(torch.tensor([at.text[k] for k in keys], device=device), groups)


def _index(rows: tuple[int, ...]) -> slice | list[int]:
    """Rows as a slice where they are in a row: a view instead of a copy."""
    if rows == tuple(range(rows[0], rows[-1] + 1)):
        return slice(rows[0], rows[-1] + 1)
    return list(rows)


def _adapter_scale(site: Site, number: int, image: int) -> float:
    scales = site.module.processor.scale  # type: ignore[union-attr]
    scale = scales[number] if isinstance(scales, (list, tuple)) else scales
    return float(scale[image] if isinstance(scale, (list, tuple)) else scale)  # type: ignore[arg-type]


def _masked(mixed: Tensor, masks: Any, number: int, image: int) -> Tensor:
    """An adapter's contribution where its mask lets it act."""
    if masks is None:
        return mixed
    masks = masks if isinstance(masks, list) else list(masks.unsqueeze(1))
    if masks[number] is None:
        return mixed
    batch, heads, places, width = mixed.shape
    mask = masks[number][:, image].to(mixed)
    return mixed * proof.adapter_mask(mask, batch, heads, places, width)
