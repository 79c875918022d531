"""One run as it grows: steps, records and checks, and the trace that they make."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scribblediffusion.attention import budget
from scribblediffusion.attention.audit import TOLERANCES, Audit, LayerAudit
from scribblediffusion.attention.branches import Branch
from scribblediffusion.attention.budget import Plan
from scribblediffusion.attention.families import Site
from scribblediffusion.attention.folding import Kept
from scribblediffusion.attention.identity import Identity
from scribblediffusion.attention.proof import Codes
from scribblediffusion.attention.records import CONDITION, Column, Layer, Prompt, Region, Step
from scribblediffusion.attention.schedule import Clock
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.sketch import Sketch

#: (layer, source): a layer has a record for the condition and one for each IP-Adapter.
Name = tuple[str, str]


@dataclass(frozen=True)
class Frame:
    """What is fixed at the first denoiser call of a run.

    Attributes:
        sites: The layers, in the model's order.
        grids: Layer → (height, width) of the model's places.
        streams: Name → range of keys, as the trace numbers them: condition first.
        columns: What is kept of the condition's softmax.
        prompts: One for each picture.
        regions: Sketch region → key.
        picture_size: (height, width) in pixels, or None.
        samples: `Step.index` of the steps on which outputs are rebuilt.
    """

    sites: tuple[Site, ...]
    grids: Mapping[str, tuple[int, int]]
    streams: Mapping[str, range]
    columns: tuple[Column, ...]
    prompts: tuple[Prompt, ...]
    regions: Mapping[Region, int]
    picture_size: tuple[int, int] | None
    samples: frozenset[int]


@dataclass
class Check:
    """What was found wrong with one layer so far; tensors stay on the device."""

    row_sum: Tensor | None = None
    output: Tensor | None = None
    produced: int = 0
    failure: str = ""

    def note_row_sum(self, record: Tensor) -> None:
        """Keep the largest distance of a sum over columns from 1."""
        worst = (record.sum(dim=2) - 1).abs().amax()
        self.row_sum = worst if self.row_sum is None else torch.maximum(self.row_sum, worst)

    def note_output(self, error: Tensor) -> None:
        """Keep the largest relative error; a NaN stays."""
        self.output = error if self.output is None else torch.maximum(self.output, error)


class Shipment:
    """The records of one step on their way to the host: one copy, and nobody waits for it."""

    def __init__(self, records: Mapping[Name, Tensor]) -> None:
        self._shapes = {name: record.shape for name, record in records.items()}
        self._event = None
        self._flat: Tensor | None = None
        self._arrived: dict[Name, np.ndarray] | None = None
        if not records:
            self._arrived = {}
        elif next(iter(records.values())).device.type == "cpu":
            self._arrived = {name: record.numpy() for name, record in records.items()}
        else:
            self._send(torch.cat([record.flatten() for record in records.values()]))

    def _send(self, flat: Tensor) -> None:
        if flat.device.type == "cuda":
            self._flat = torch.empty(flat.shape, dtype=flat.dtype, device="cpu", pin_memory=True)
            self._flat.copy_(flat, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._flat = flat.cpu()

    def arrival(self) -> dict[Name, np.ndarray]:
        """The records as arrays; waits for the copy if it has to."""
        if self._arrived is None and self._flat is not None:
            if self._event is not None:
                self._event.synchronize()
            # A copy out of pinned memory, which is scarce.
            host, found, start = self._flat.numpy().copy(), {}, 0
            for name, shape in self._shapes.items():
                found[name] = host[start : start + shape.numel()].reshape(tuple(shape))
                start += shape.numel()
            self._arrived, self._flat = found, None
        return self._arrived or {}


@dataclass
class Call:
    """One recorded denoiser call while it goes on."""

    step: Step
    rows: tuple[int, ...]
    batch: int
    proved: bool
    records: dict[Name, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Newest:
    """The step that finished last, kept or not, and the plan that its records are of."""

    step: Step
    shipment: Shipment
    plan: Plan


class Run:
    """Everything that one run of the denoiser left behind."""

    def __init__(self, thread: threading.Thread) -> None:
        self.clock = Clock(None)
        self.identity = Identity(thread)
        self.calls = 0
        self.complete = False
        self.late = False
        self.closed = False
        self.announced = False
        self.planned: list[int] | None = None
        self.frame: Frame | None = None
        self.plan: Plan | None = None
        self._planned: Plan | None = None
        self.checks: dict[str, Check] = {}
        self.adapters: dict[Name, tuple[int, float]] = {}
        self.adapter_columns: dict[str, tuple[Column, ...]] = {}
        self.kept: dict[tuple[range, range, torch.device], Kept] = {}
        self.codes: dict[tuple[range, range, torch.device], Codes] = {}
        self.dtype = ""
        self.settings: Mapping[str, Any] = {}
        self.asked: tuple[str, ...] = ()
        self.pictures: tuple[np.ndarray, ...] = ()
        self.sketch: np.ndarray | None = None
        self.sketches: tuple[Sketch | None, ...] = ()
        self.previews: list[np.ndarray] = []
        self.proved: list[int] = []
        self._steps: list[Step] = []
        self._records: list[dict[Name, np.ndarray]] = []
        self._pending: tuple[Step, Shipment] | None = None
        self._numbers: dict[int, int] = {}
        self.newest: Newest | None = None
        self._kept_calls = 0
        self._nbytes = 0
        self.lock = threading.RLock()

    def parted(self, thread: threading.Thread) -> Run:
        """A run of its own for the rest of this one, from the call that goes on: same clock."""
        rest = Run(thread)
        rest.clock, rest.announced = self.clock, self.announced
        rest.settings, rest.sketch, rest.sketches = self.settings, self.sketch, self.sketches
        # What is the rest's now may come back to this run's condition: they do not take turns.
        rest.identity, self.identity = self.identity, rest.identity
        rest.calls, self.calls = 1, self.calls - 1
        return rest

    def declare(self, sites: Iterable[Site]) -> None:
        """Every hooked layer is in the audit, whether it gives records or not."""
        for site in sites:
            self.checks.setdefault(site.name, Check())

    def lay_out(self, frame: Frame, plan: Plan) -> None:
        """Fix what the first call decided; records of this plan follow."""
        self.frame, self.plan, self._planned = frame, plan, plan

    def laid_out(self) -> tuple[Frame, Plan]:
        """What was fixed at the first call; raises before it."""
        if self.frame is None or self.plan is None:
            raise RuntimeError("the run has had no first call yet")
        return self.frame, self.plan

    def note_dtype(self, dtype: torch.dtype) -> None:
        """What a layer computed in; the coarsest decides how exact a rebuilt output can be."""
        name = str(dtype).removeprefix("torch.")
        if not self.dtype or _tolerance(name) > self.tolerance:
            self.dtype = name

    @property
    def tolerance(self) -> float:
        """Largest relative error of a rebuilt output that passes."""
        return _tolerance(self.dtype)

    @property
    def thinned(self) -> tuple[str, ...]:
        """What was given up to stay within the memory limit, in sentences."""
        return () if self.plan is None else self.plan.thinned

    @property
    def recorded(self) -> int:
        """Denoiser calls that were recorded."""
        return self._kept_calls

    @property
    def nbytes(self) -> int:
        """Bytes of all records so far, those on their way included."""
        with self.lock:
            return self._nbytes

    def finish(self, call: Call, room: int) -> None:
        """Take over the records of a call that ended."""
        with self.lock:
            self._kept_calls += 1
            _, captured = self.laid_out()
            self._settle()
            size = sum(r.nelement() * r.element_size() for r in call.records.values())
            if self._kept_calls == 1:
                self._foresee(size, room)
            keeps = self._keeps(call.step)
            # First what may fail: a step without its records would shift those of later ones.
            shipment = Shipment(call.records)
            for name, source in call.records:
                self.checks[name].produced += source == CONDITION
            if call.proved:
                self.proved.append(call.step.index)
            if call.records:
                self.newest = Newest(call.step, shipment, captured)
            if keeps:
                self._pending = call.step, shipment
                self._nbytes += size
                self._make_room(room)

    def _keeps(self, step: Step, plan: Plan | None = None) -> bool:
        """Whether a step is kept, by its number among the wanted steps that ran."""
        plan = plan or self.plan
        return plan is None or plan.keeps(self._numbers.setdefault(step.index, len(self._numbers)))

    def _foresee(self, size: int, room: int) -> None:
        """After the first call the size is known, IP-Adapters' records included: plan anew."""
        if self.plan is not None and size > self.plan.step_bytes() > 0:
            columns = -(-size * self.plan.columns // self.plan.step_bytes())
            self.plan = budget.fit(replace(self.plan, columns=columns), room)

    def _make_room(self, room: int) -> None:
        """Thin what is there already if a plan changed, or the run is longer than was foreseen."""
        while self.plan is not None:
            if self.plan != self._planned:
                self._settle()
                self._thin(self._planned or self.plan, self.plan)
                self._planned = self.plan
            thinner = self.plan.thinner() if self._nbytes > room else None
            if thinner is None:
                return
            self.plan = thinner

    def _thin(self, old: Plan, new: Plan) -> None:
        """Bring every stored record down to a thinner plan."""
        kept = [i for i, step in enumerate(self._steps) if self._keeps(step, new)]
        mean = old.every_head and not new.every_head
        self._steps = [self._steps[i] for i in kept]
        self._records = [
            {
                name: budget.thin(record, old.grids[name[0]], new.grids[name[0]], mean)
                for name, record in self._records[i].items()
            }
            for i in kept
        ]
        self._nbytes = sum(a.nbytes for step in self._records for a in step.values())

    def _settle(self) -> None:
        """Let the step that is on its way arrive."""
        if self._pending is not None:
            (step, shipment), self._pending = self._pending, None
            self._records.append(shipment.arrival())
            self._steps.append(step)

    def trace(self, branch: Branch, model: str, *, newest: bool = False) -> AttentionTrace:
        """All that there is, or the newest finished step alone."""
        with self.lock:
            self._settle()
            some = slice(-1, None) if newest else slice(None)
            steps, records = self._steps[some], self._records[some]
            frame, plan = self.laid_out()
            if newest and self.newest is not None:
                plan = self.newest.plan
                steps, records = [self.newest.step], [self.newest.shipment.arrival()]
            layers = self._layers(frame, plan, records)
            number = {name: i for i, name in enumerate(layers)}
            pictures, previews = self.pictures, list(self.previews)
        prompts = frame.prompts
        # What was asked is what the full rows hold; those of other branches have their own.
        if branch == "full" and len(self.asked) == len(prompts):
            prompts = tuple(
                replace(p, text=text) for p, text in zip(prompts, self.asked, strict=True)
            )
        return AttentionTrace(
            records={
                (i, number[name]): record
                for i, step in enumerate(records)
                for name, record in step.items()
            },
            steps=tuple(steps),
            layers=tuple(layers.values()),
            columns={CONDITION: frame.columns} | self.adapter_columns,
            streams=frame.streams,
            prompts=prompts,
            regions=frame.regions,
            branch=branch,
            heads="all" if plan.every_head else "mean",
            audit=self.audit(),
            thinned=plan.thinned,
            settings=self.settings,
            versions=versions(model),
            picture_size=pictures[0].shape[:2] if pictures else frame.picture_size,
            pictures=pictures,
            sketch=self.sketch,
            sketches=self.sketches,
            previews=np.stack(previews) if previews else None,
            complete=self.complete and not self.late,
        )

    def _layers(
        self, frame: Frame, plan: Plan, records: list[dict[Name, np.ndarray]]
    ) -> dict[Name, Layer]:
        """The layers that gave records, in the model's order, adapters behind their layer."""
        there = {name for step in records for name in step}
        keys = max((r.stop for r in frame.streams.values()), default=0)
        made: dict[Name, Layer] = {}
        for site in frame.sites:
            height, width = plan.grids[site.name]
            own = frame.grids[site.name]
            thinned = None if own == (height, width) else own
            layer = Layer(site.name, site.heads, height, width, keys, thinned_from=thinned)
            for name in sorted(n for n in there if n[0] == site.name and n[1] != CONDITION):
                size, scale = self.adapters[name]
                made[name] = replace(layer, keys=size, source=name[1], adapter_scale=scale)
            if (site.name, CONDITION) in there:
                made[site.name, CONDITION] = layer
        order = {site.name: i for i, site in enumerate(frame.sites)}
        ranked = sorted(made, key=lambda n: (order[n[0]], n[1] != CONDITION, n[1]))
        return {name: made[name] for name in ranked}

    def audit(self) -> Audit | None:
        """The checks so far; None before the first call."""
        if self.frame is None:
            return None
        expected = self.recorded
        layers = tuple(
            LayerAudit(
                name,
                row_sum_error=0.0 if check.row_sum is None else check.row_sum.item(),
                output_error=None if check.output is None else check.output.item(),
                produced=check.produced,
                expected=expected,
            )
            for name, check in self.checks.items()
        )
        return Audit(layers, self.dtype, self.tolerance, tuple(sorted(set(self.proved))))


def _tolerance(dtype: str) -> float:
    """What is allowed for a dtype; narrower ones than we know are allowed most."""
    return TOLERANCES.get(dtype, max(TOLERANCES.values()))


@lru_cache(maxsize=16)
def versions(model: str) -> dict[str, str]:
    """Names and versions of what made a trace."""
    found = {"model": model}
    for name in ("scribblediffusion", "diffusers", "transformers", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
