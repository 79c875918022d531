"""`RealAttentionExtractor`: what a diffusers pipeline attends to while it paints.

    with RealAttentionExtractor(pipe) as extractor:
        image = pipe("a red apple").images[0]
    trace = extractor.trace

It observes and never replaces: processors, kernels, random numbers and outputs are untouched, so
the picture is bit for bit the one without it. While the context is open, hooks note queries and
keys of every attention module that looks at the condition (`taps`); the weights that follow from
them go into a record of bounded size (`folding`, `budget`), and on sample steps the layer's output
is rebuilt from them and compared with the real one (`proof`). On the way out every hook is gone.
"""

from __future__ import annotations

import inspect
import logging
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from scribblediffusion.attention import budget, folding, proof, schedule
from scribblediffusion.attention.branches import Branch, Rows, rows_of_condition, rows_of_layout
from scribblediffusion.attention.encoders import EncoderWatch
from scribblediffusion.attention.families import Site, denoiser_of, find_sites, grids
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.records import CONDITION, Column
from scribblediffusion.attention.run import Call, Check, Frame, Name, Run
from scribblediffusion.attention.taps import Attended, Sighting, Tap, put_together
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import (
    AttentionError,
    CaptureError,
    SettingError,
    SeveralRunsError,
)

_log = logging.getLogger(__name__)

#: What may go wrong while looking, and must not stop the run that is looked at.
_SURVIVABLE = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    AttentionError,
)
#: Calls that are foreseen where no schedule tells how many there will be.
_USUAL_CALLS = 50


class CaptureWarning(UserWarning):
    """A record was thinned to stay within the memory limit, or a layer gave none."""


class RealAttentionExtractor:
    """Captures the attention of every run inside its context; see the module's docstring.

    Args:
        target: A diffusers pipeline, or a UNet or transformer alone.
        heads: ``"mean"`` keeps the mean of each layer's heads, ``"all"`` each of them.
        layers: Glob or globs over module paths, ``"up_blocks.*"``.
        steps: Which steps (`Step.index`; negative from the end where the schedule is known), or a
            slice of them; None for all.
        tokens: ``"used"`` leaves padding out (it goes to the rest), ``"all"`` keeps every key.
        branch: Which part of the guidance: ``"full"``, ``"sketch_only"`` (pipelines that have a
            key layout) or ``"unconditional"``.
        memory_limit: Bytes that all runs of this extractor may keep together.
        scheduler: The scheduler of a bare denoiser, for noise and step numbers.
        previews: Whether a pipeline that can should give a small picture of each step.

    Attributes:
        wants_previews: Read by pipelines that have `observers`.

    Raises:
        UnknownFamilyError: The denoiser's attention cannot be read.
        SettingError: An argument is not one of those named here.
    """

    def __init__(
        self,
        target: Any,
        *,
        heads: Literal["mean", "all"] = "mean",
        layers: str | Sequence[str] = "*",
        steps: Iterable[int] | slice | None = None,
        tokens: Literal["used", "all"] = "used",
        branch: Branch = "full",
        memory_limit: int = 1 << 30,
        scheduler: Any = None,
        previews: bool = True,
    ) -> None:
        _one_of("heads", heads, ("mean", "all"))
        _one_of("tokens", tokens, ("used", "all"))
        _one_of("branch", branch, ("full", "sketch_only", "unconditional"))
        if memory_limit <= 0:
            raise SettingError(f"memory_limit={memory_limit}: give a number of bytes above 0")
        self._denoiser = denoiser_of(target)
        self._pipe = None if isinstance(target, nn.Module) else target
        if branch != "full" and self._pipe is None:
            raise SettingError(f"branch={branch!r}: a bare denoiser has no guidance, only 'full'")
        if branch == "sketch_only" and not hasattr(self._pipe, "key_layout"):
            raise SettingError(f"branch={branch!r}: {type(target).__name__} has no sketch branch")
        self.wants_previews = previews
        self._sites = find_sites(self._denoiser, layers)
        self._every_head = heads == "all"
        self._wanted_steps = steps if isinstance(steps, slice) or steps is None else set(steps)
        self._every_token = tokens == "all"
        self._branch: Branch = branch
        self._limit = memory_limit
        self._scheduler = scheduler
        self._names = list(inspect.signature(self._denoiser.forward).parameters)
        self._watch: EncoderWatch | None = None
        self._stack: ExitStack | None = None
        self._runs: list[Run] = []
        self._closed: dict[int, AttentionTrace] = {}
        self._announced: Run | None = None
        self._call: Call | None = None
        self._busy: int | None = None
        self._known_rows: tuple[Tensor, Rows] | None = None
        self._notices: list[str] = []

    # ── the context ──────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        if self._stack is not None:
            raise CaptureError("this extractor is attached already; leave its context first")
        with ExitStack() as stack:
            begins = self._denoiser.register_forward_pre_hook(self._begins, with_kwargs=True)
            stack.callback(begins.remove)
            self._refuse_a_second()
            for site in self._sites:
                Tap(site, self._seen).attach(stack)
            ends = self._denoiser.register_forward_hook(
                self._ends, with_kwargs=True, always_call=True
            )
            stack.callback(ends.remove)
            self._attach_to_pipe(stack)
            self._stack = stack.pop_all()
        return self

    def _refuse_a_second(self) -> None:
        """The first of our hooks on the denoiser holds it: nobody looks twice at one model."""
        hooks = self._denoiser._forward_pre_hooks.values()
        owners = [getattr(hook, "__self__", None) for hook in hooks]
        holders = [owner for owner in owners if isinstance(owner, RealAttentionExtractor)]
        if holders[0] is not self:
            raise CaptureError(
                f"this {type(self._denoiser).__name__} is being captured by another extractor "
                f"(nested, or in another thread); leave that context first or load a second model"
            )

    def _attach_to_pipe(self, stack: ExitStack) -> None:
        if self._pipe is None:
            return
        self._watch = EncoderWatch(self._pipe)
        self._watch.attach(stack)
        observers = getattr(self._pipe, "observers", None)
        if isinstance(observers, list):
            observers.append(self)
            stack.callback(_take_out, observers, self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()
        self._call = self._busy = self._known_rows = self._announced = None
        if kind is None:
            self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        """After the run: raise if nothing at all was captured, warn of what is incomplete."""
        ran = [run for run in self._runs if run.calls]
        if ran and not any(check.produced for run in ran for check in run.checks.values()):
            raise CaptureError(self._why_nothing(ran))
        for run in ran:
            silent = [(n, c.failure) for n, c in run.checks.items() if c.produced < run.recorded]
            for name, reason in silent:
                self._notices.append(f"layer {name} gave no attention in some step: {reason}")
            self._notices += [f"to stay within the memory limit, {s}" for s in _sentences(run)]
        notices, self._notices = list(dict.fromkeys(self._notices)), []
        for notice in notices:
            warnings.warn(notice, CaptureWarning, stacklevel=3)

    def _why_nothing(self, runs: Sequence[Run]) -> str:
        failures = [c.failure for run in runs for c in run.checks.values() if c.failure]
        calls = sum(run.calls for run in runs)
        if failures:
            why = f"the first reason was: {failures[0]}"
        elif not any(run.recorded for run in runs):
            why = (
                f"no row of its batch was branch {self._branch!r} at the wanted steps "
                f"(guidance may be off)"
            )
        else:
            why = "none of the hooked layers was used"
        return f"the denoiser ran {calls} times and no attention was captured; {why}"

    # ── what was captured ────────────────────────────────────────────────────────────────────

    @property
    def traces(self) -> list[AttentionTrace]:
        """One trace for each run, in the order run; a run that goes on is there as far as it is."""
        return [self._trace_of(run) for run in self._runs if run.frame is not None]

    @property
    def trace(self) -> AttentionTrace:
        """The trace of the only run.

        Raises:
            SeveralRunsError: There were several; take one of `traces`.
            CaptureError: There was none.
        """
        runs = [run for run in self._runs if run.frame is not None]
        if not runs:
            raise CaptureError("no run was captured: call the pipeline inside the context")
        if len(runs) > 1:
            raise SeveralRunsError(
                f"one trace was asked for and {len(runs)} runs were captured; take one of traces"
            )
        return self._trace_of(runs[0])

    @property
    def latest(self) -> AttentionTrace | None:
        """The newest finished step alone, at any time and from any thread; None before it."""
        for run in reversed(self._runs):
            if run.recorded:
                return run.trace(self._branch, self._model_name(), newest=True)
        return None

    def _trace_of(self, run: Run) -> AttentionTrace:
        if self._stack is not None:
            return run.trace(self._branch, self._model_name())
        if id(run) not in self._closed:
            self._closed[id(run)] = run.trace(self._branch, self._model_name())
        return self._closed[id(run)]

    def _model_name(self) -> str:
        owner = self._denoiser if self._pipe is None else self._pipe
        name = getattr(getattr(owner, "config", None), "_name_or_path", "") or ""
        return f"{type(owner).__name__} {name}".strip()

    # ── a pipeline that tells about its runs (layout.RunObserver) ────────────────────────────

    def run_begins(
        self, prompts: list[str], sketch: np.ndarray | None, settings: Mapping[str, Any]
    ) -> None:
        """The pipeline begins a run: the denoiser calls that follow are one."""
        self._refuse_other_thread()
        run = Run(None, threading.get_ident())
        run.asked, run.sketch, run.settings = tuple(prompts), sketch, dict(settings)
        self._announced = run

    def step_ends(self, preview: np.ndarray | None) -> None:
        """The scheduler made a step."""
        if preview is not None and self._runs:
            run = self._runs[-1]
            with run.lock:
                run.previews.append(np.array(preview, dtype=np.uint8))

    def run_ends(self, pictures: Sequence[np.ndarray] | np.ndarray, complete: bool = True) -> None:
        """The pictures are there."""
        if self._runs:
            run = self._runs[-1]
            with run.lock:
                run.pictures = tuple(np.array(p, dtype=np.uint8) for p in pictures)
                run.complete, run.ended = complete, True

    # ── a denoiser call ──────────────────────────────────────────────────────────────────────

    def _begins(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before each denoiser call: whose run it is, which step, which rows."""
        self._refuse_other_thread()
        self._busy = threading.get_ident()
        try:
            with torch.no_grad():
                self._call = self._new_call(dict(zip(self._names, args, strict=False)) | kwargs)
        except _SURVIVABLE as error:
            self._call = None
            self._lost(error)

    def _refuse_other_thread(self) -> None:
        """Two threads in one pipeline would mix their runs, and the pipeline theirs."""
        me = threading.get_ident()
        now = self._runs[-1] if self._runs else None
        mine = [r for r in self._runs[:-1] if me in r.threads and not (r.complete or r.ended)]
        astray = now is not None and me not in now.threads and not now.complete and bool(mine)
        if astray or self._busy not in (None, me):
            self._busy = self._busy if not astray else None
            raise CaptureError(
                "two threads run one pipeline while its attention is captured: their runs would "
                "mix; give each thread a pipeline of its own, or let one wait for the other"
            )

    def _lost(self, error: BaseException) -> None:
        """A whole call could not be looked at; the run goes on."""
        _log.warning("attention of a denoiser call was not captured: %s", error)
        notice = f"attention of a denoiser call was not captured: {error}"
        self._notices.append(notice)
        if self._runs:
            for check in self._runs[-1].checks.values():
                check.failure = check.failure or str(error)

    def _new_call(self, given: dict[str, Any]) -> Call | None:
        sample = given.get("sample", given.get("hidden_states"))
        condition = given.get("encoder_hidden_states")
        if not isinstance(sample, Tensor) or not isinstance(condition, Tensor):
            raise CaptureError("the denoiser was called without sample or encoder_hidden_states")
        scheduler = self._scheduler or getattr(self._pipe, "scheduler", None)
        run = self._run_of(scheduler)
        run.calls += 1
        rows = self._rows(condition)
        if not rows.numbers:
            self._declare(run)
            return None
        given_time = _number(given.get("timestep"))
        place = self._place(run, scheduler, given_time)
        if place is None:
            return None
        step = schedule.describe(scheduler, place, run.first or place, given_time)
        total = schedule.total_calls(scheduler)
        if place.order is not None and total is not None:
            run.complete = run.complete or place.order + 1 >= total
        else:
            run.complete = total is None or run.counted >= total
        if run.frame is None:
            self._lay_out(run, scheduler, sample, condition, given, rows)
        if not self._is_wanted(step.index, total):
            return None
        proved = run.frame is not None and step.index in run.frame.samples
        return Call(step, rows.numbers, condition.shape[0], proved)

    def _run_of(self, scheduler: Any) -> Run:
        """The run that goes on, or a new one: announced, or with other timesteps than before."""
        me = threading.get_ident()
        timesteps = getattr(scheduler, "timesteps", None)
        run = self._runs[-1] if self._runs else None
        if self._announced is not None:
            run, self._announced = self._announced, None
            run.timesteps = timesteps
            self._runs.append(run)
        elif run is None or run.timesteps is not timesteps or self._went_back(run, scheduler):
            run = Run(timesteps, me)
            self._runs.append(run)
            self._known_rows = None
        run.threads.add(me)
        if self._watch is not None:
            self._watch.run_begins()
        return run

    def _went_back(self, run: Run, scheduler: Any) -> bool:
        """The scheduler counts from the start again, on the same timesteps."""
        order = schedule.position(scheduler, 0).order
        last = run.last.order if run.last is not None else None
        return order is not None and last is not None and order < last

    def _rows(self, condition: Tensor) -> Rows:
        """The wanted rows; told once for each condition tensor, which pipelines make once a run."""
        if self._known_rows is None or self._known_rows[0] is not condition:
            layout = self._layout()
            if layout is not None:
                rows = rows_of_layout(layout, condition.shape[0], self._branch)
            else:
                rows = rows_of_condition(self._pipe, self._watch, condition, self._branch)
            self._known_rows = (condition, rows)
        return self._known_rows[1]

    def _layout(self) -> KeyLayout | None:
        give = getattr(self._pipe, "key_layout", None)
        layout = give() if callable(give) else None
        return layout if isinstance(layout, KeyLayout) else None

    def _place(self, run: Run, scheduler: Any, given: float | None) -> schedule.Position | None:
        """Where this call stands; None for a further call of the same step and branch, which
        guidance by perturbation makes and which is no step of its own.
        """
        place = schedule.position(scheduler, run.counted)
        if run.last is not None and scheduler is not None:
            same = (
                place.order == run.last.order
                if place.order is not None
                else (given is not None and given == run.last_given)
            )
            if same:
                return None
        run.first = run.first or place
        run.last, run.last_given = place, given
        run.counted += 1
        return place

    def _is_wanted(self, index: int, total: int | None) -> bool:
        wanted = self._wanted_steps
        if wanted is None:
            return True
        if isinstance(wanted, slice):
            return index in range(*wanted.indices(total if total is not None else index + 1))
        return index in wanted or (total is not None and index - total in wanted)

    def _declare(self, run: Run) -> None:
        """Every hooked layer is in the audit, whether it gives records or not."""
        for site in self._sites:
            run.checks.setdefault(site.name, Check())

    def _lay_out(
        self,
        run: Run,
        scheduler: Any,
        sample: Tensor,
        condition: Tensor,
        given: Mapping[str, Any],
        rows: Rows,
    ) -> None:
        """At the first call of a run: what its layers, keys and pictures are, and what is kept."""
        self._declare(run)
        layout = self._layout()
        grid = grids(self._denoiser, self._sites, sample, given)
        places = max(h * w for h, w in grid.values())
        keys = condition.shape[1]
        streams = {"text": range(keys)} if layout is None else dict(layout.streams)
        if max((r.stop for r in streams.values()), default=0) != keys:
            raise CaptureError(f"key layout has streams {streams} but the condition {keys} keys")
        joint = any(site.join != "cross" for site in self._sites)
        columns = self._columns(streams, rows, keys)
        if joint:
            streams["image"] = range(keys, keys + places)
            columns = (*columns, Column("image"))
        calls = self._calls_to_come(scheduler)
        run.plan = budget.fit(
            budget.Plan(
                self._every_head,
                grid,
                {site.name: site.heads for site in self._sites},
                len(rows.numbers),
                len(columns),
            ),
            calls,
            self._limit - sum(r.nbytes for r in self._runs if r is not run),
        )
        for sentence in run.plan.thinned:
            _log.warning("to stay within the memory limit, %s", sentence)
        steps = -(-calls // int(getattr(scheduler, "order", 1)))
        run.frame = Frame(
            sites=tuple(self._sites),
            grids=grid,
            streams=streams,
            columns=columns,
            prompts=rows.prompts,
            regions={} if layout is None else layout.regions,
            picture_size=self._picture_size(layout, sample, grid),
            dtype=str(next(self._denoiser.parameters()).dtype).removeprefix("torch."),
            samples=self._samples(steps),
        )

    def _calls_to_come(self, scheduler: Any) -> int:
        """Denoiser calls that will be recorded, as far as can be foreseen."""
        total = schedule.total_calls(scheduler)
        if total is None:
            total = _USUAL_CALLS
        if isinstance(self._wanted_steps, slice):
            return len(range(*self._wanted_steps.indices(total)))
        if self._wanted_steps is not None:
            return min(total, len(self._wanted_steps) * int(getattr(scheduler, "order", 1)))
        return total

    def _samples(self, steps: int) -> frozenset[int]:
        """The steps on which outputs are rebuilt: of those wanted, the first and the middle one."""
        wanted = [i for i in range(steps) if self._is_wanted(i, steps)]
        if not wanted:
            return frozenset(self._wanted_steps if isinstance(self._wanted_steps, set) else ())
        return frozenset({wanted[0], wanted[len(wanted) // 2]})

    def _columns(self, streams: Mapping[str, range], rows: Rows, keys: int) -> tuple[Column, ...]:
        """Kept keys first, then the rest of each stream that has left-out keys."""
        used = set(range(keys))
        if not self._every_token and all(p.named for p in rows.prompts):
            padding = [{t.key for t in p.tokens if t.padding} for p in rows.prompts]
            used -= set.intersection(*padding)
        whole = {name: r for name, r in streams.items() if "." not in name}
        kept = [Column(s, k) for s, r in whole.items() for k in r if k in used]
        rests = [Column(s, rest=True) for s, r in whole.items() if any(k not in used for k in r)]
        return (*sorted(kept, key=lambda c: c.key or 0), *rests)

    def _picture_size(
        self, layout: KeyLayout | None, sample: Tensor, grid: Mapping[str, tuple[int, int]]
    ) -> tuple[int, int] | None:
        if layout is not None and layout.picture_size is not None:
            return layout.picture_size
        factor = getattr(self._pipe, "vae_scale_factor", None)
        if factor is None:
            return None
        if sample.ndim == 3:  # FLUX packs 2×2 latents into one place
            height, width = next(iter(grid.values()))
            return 2 * factor * height, 2 * factor * width
        return factor * sample.shape[-2], factor * sample.shape[-1]

    def _ends(self, _: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """After each denoiser call, also one that failed (then it has no output)."""
        self._busy = None
        call, self._call = self._call, None
        if call is None or output is None or not self._runs:
            return
        run = self._runs[-1]
        others = sum(r.nbytes for r in self._runs if r is not run)
        try:
            run.finish(call, self._limit - others)
        except _SURVIVABLE as error:
            self._lost(error)
        if run.recorded == 1:
            silent = [name for name, check in run.checks.items() if not check.produced]
            if silent:
                _log.warning("no attention from %s", ", ".join(silent))

    # ── an attention layer ───────────────────────────────────────────────────────────────────

    def _seen(self, site: Site, sighting: Sighting, output: Any) -> None:
        """After each forward of a hooked layer."""
        call = self._call
        if call is None or not self._runs or self._busy != threading.get_ident():
            return
        run = self._runs[-1]
        try:
            kind = sighting.hidden.device.type
            with torch.no_grad(), torch.autocast(kind, enabled=False):
                self._record(run, call, site, sighting, output)
        except _SURVIVABLE as error:
            run.checks[site.name].failure = str(error)
            call.records.pop((site.name, CONDITION), None)
            _log.debug("layer %s was not captured", site.name, exc_info=True)

    def _record(self, run: Run, call: Call, site: Site, sighting: Sighting, output: Any) -> None:
        frame, plan = run.frame, run.plan
        if frame is None or plan is None:
            return
        whole = put_together(site, sighting)
        grid = frame.grids[site.name]
        at = _pick(whole, call, grid, site)
        kept = _kept(frame, at)
        v = at.v if call.proved else None
        record, mixed = folding.fold(
            at.q, at.k, at.scale, at.mask, kept, every_head=plan.every_head, v=v
        )
        check = run.checks[site.name]
        check.note_row_sum(record)
        call.records[site.name, CONDITION] = folding.shrink(record, grid, plan.grids[site.name])
        extra = self._adapters(run, call, site, sighting, at, plan)
        if mixed is not None:
            rows = _index(call.rows)
            rebuilt = proof.rebuild(site, mixed, sighting.hidden[rows], extra)
            real = proof.returned(site, output, whole.image)[rows][:, : at.q.shape[2]]
            check.note_output(proof.relative_error(rebuilt, real))

    def _adapters(
        self,
        run: Run,
        call: Call,
        site: Site,
        sighting: Sighting,
        at: Attended,
        plan: budget.Plan,
    ) -> list[Tensor]:
        """IP-Adapters: a softmax of its own each; returns what they add to the output."""
        added = []
        rows = _index(call.rows)
        for number, adapter in sighting.adapters.items():
            for image, (key, value) in enumerate(zip(adapter.keys, adapter.values, strict=True)):
                several = len(adapter.keys) > 1
                source = f"ip_adapter_{number}" + (f".{image}" if several else "")
                k, v = (
                    x.reshape(x.shape[0], -1, site.heads, at.q.shape[-1]).transpose(1, 2)[rows]
                    for x in (key, value)
                )
                all_keys = folding.Kept(torch.arange(k.shape[2], device=k.device))
                record, mixed = folding.fold(
                    at.plain_q,
                    k,
                    at.q.shape[-1] ** -0.5,
                    None,
                    all_keys,
                    every_head=plan.every_head,
                    v=v if call.proved else None,
                )
                scale = _adapter_scale(site, number, image)
                name: Name = (site.name, source)
                run.adapters[name] = (k.shape[2], scale)
                run.checks[site.name].note_row_sum(record)
                call.records[name] = folding.shrink(
                    record,
                    run.frame.grids[site.name],
                    plan.grids[site.name],  # type: ignore[union-attr]
                )
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


def _number(timestep: Any) -> float | None:
    if timestep is None:
        return None
    if isinstance(timestep, Tensor):
        return float(timestep.flatten()[0])
    return float(timestep)


def _sentences(run: Run) -> tuple[str, ...]:
    return () if run.plan is None else run.plan.thinned


def _take_out(observers: list[Any], observer: Any) -> None:
    """Remove one observer, whether or not somebody emptied the list."""
    observers[:] = [o for o in observers if o is not observer]


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SettingError(f"{name}={value!r}: there are {', '.join(map(repr, choices))}")
