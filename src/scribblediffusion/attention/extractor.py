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

from scribblediffusion.attention import schedule
from scribblediffusion.attention.branches import Branch, Rows, rows_of_condition, rows_of_layout
from scribblediffusion.attention.encoders import EncoderWatch
from scribblediffusion.attention.families import Site, denoiser_of, find_sites
from scribblediffusion.attention.frames import Picture, Wish, lay_out
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.recorder import record_layer
from scribblediffusion.attention.records import CONDITION
from scribblediffusion.attention.run import Call, Run
from scribblediffusion.attention.taps import Sighting, Tap
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
    Warning,  # where warnings are made errors
)


class CaptureWarning(UserWarning):
    """A record was thinned to stay within the memory limit, or a layer gave none."""


class _Mixed(CaptureError):
    """The one error that stops a denoiser call: going on would mix two runs."""

    def __init__(self) -> None:
        super().__init__(
            "two threads run one pipeline while its attention is captured: their runs would mix; "
            "give each thread a pipeline of its own, or let one wait for the other"
        )


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
        chosen = steps if isinstance(steps, slice) or steps is None else frozenset(steps)
        self._wish = Wish(heads == "all", tokens == "all", chosen)
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
        for run in self._runs:
            run.condition = None
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
        if notices:
            warnings.warn("; ".join(notices), CaptureWarning, stacklevel=3)

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
        if self._runs and self._announced is None:
            run = self._runs[-1]
            with run.lock:
                run.pictures = tuple(np.array(p, dtype=np.uint8) for p in pictures)
                run.complete = complete

    # ── a denoiser call ──────────────────────────────────────────────────────────────────────

    def _begins(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before each denoiser call: whose run it is, which step, which rows."""
        self._refuse_other_thread()
        self._busy = threading.get_ident()
        try:
            with torch.no_grad():
                self._call = self._new_call(dict(zip(self._names, args, strict=False)) | kwargs)
        except _Mixed:
            self._call = self._busy = None
            raise
        except _SURVIVABLE as error:
            self._call = None
            self._lost(error)

    def _refuse_other_thread(self) -> None:
        """Two threads in one denoiser at once would mix their runs, and the pipeline theirs."""
        if self._busy not in (None, threading.get_ident()):
            raise _Mixed

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
        run = self._run_of(scheduler, condition)
        run.calls += 1
        rows = self._rows(condition)
        if not rows.numbers:
            run.declare(self._sites)
            return None
        given_time = _number(given.get("timestep"))
        place = self._place(run, scheduler, given_time)
        if place is None:
            return None
        first = run.first or place
        step = schedule.describe(scheduler, place, first, given_time)
        total = schedule.total_steps(scheduler, first)
        run.complete = run.complete or schedule.is_last(scheduler, place)
        if run.frame is None:
            run.declare(self._sites)
            room = self._limit - sum(r.nbytes for r in self._runs)
            picture = Picture(self._pipe, self._layout(), sample, condition.shape[1], given)
            run.frame, run.plan = lay_out(
                self._denoiser, self._sites, self._wish, picture, rows, scheduler, first, room
            )
            for sentence in run.plan.thinned:
                _log.warning("to stay within the memory limit, %s", sentence)
        if not self._wish.wants(step.index, total):
            return None
        proved = run.frame is not None and step.index in run.frame.samples
        return Call(step, rows.numbers, condition.shape[0], proved)

    def _run_of(self, scheduler: Any, condition: Tensor) -> Run:
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
        elif me not in run.threads and self._is_of_earlier_run(run, condition):
            raise _Mixed
        run.threads.add(me)
        run.condition = condition
        if self._watch is not None:
            self._watch.run_begins()
        return run

    def _is_of_earlier_run(self, now: Run, condition: Tensor) -> bool:
        """Whether a call brings the condition of an earlier run to the schedule of this one."""
        earlier = any(run.condition is condition for run in self._runs[:-1])
        return earlier and now.condition is not condition

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
        if run.first is None:
            run.offset = schedule.offset(scheduler, given)
        place = schedule.position(scheduler, run.offset + run.counted)
        if run.last is not None and scheduler is not None:
            by_value = given is not None and given == run.last_given
            if place.order == run.last.order if place.order is not None else by_value:
                return None
        run.first = run.first or place
        run.last, run.last_given = place, given
        run.counted += 1
        return place

    def _ends(self, _: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """After each denoiser call, also one that failed (then it has no output)."""
        if self._busy != threading.get_ident():
            return  # a call that was refused
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
                record_layer(run, call, site, sighting, output)
        except _SURVIVABLE as error:
            run.checks[site.name].failure = str(error)
            call.records.pop((site.name, CONDITION), None)
            _log.debug("layer %s was not captured", site.name, exc_info=True)


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
