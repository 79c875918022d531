"""What happens between two denoiser calls: whose run it is, which step, which rows, which layers.

A generation is never stopped by what goes wrong in here. One thing is refused by name: two threads
that run one pipeline at the same time, whose runs would mix.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scribblediffusion.attention import schedule
from scribblediffusion.attention.branches import Branch, Rows, rows_of_condition, rows_of_layout
from scribblediffusion.attention.encoders import EncoderWatch
from scribblediffusion.attention.families import Site
from scribblediffusion.attention.frames import Picture, Wish, lay_out
from scribblediffusion.attention.guard import SURVIVABLE, Mixed, reason
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.recorder import record_layer
from scribblediffusion.attention.run import Call, Run
from scribblediffusion.attention.sight import calls_said, is_running
from scribblediffusion.attention.taps import Sighting
from scribblediffusion.errors import CaptureError

_log = logging.getLogger(__name__)


class Recording:
    """The runs of one extractor as they happen; its methods are hooks.

    Args:
        denoiser: The model.
        pipe: The pipeline around it, or None.
        sites: The layers to record.
        wish: What is to be kept.
        branch: Which part of the guidance.
        limit: Bytes that all runs may keep together.
        scheduler: The scheduler of a bare denoiser, or None.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        pipe: Any,
        sites: Sequence[Site],
        wish: Wish,
        branch: Branch,
        limit: int,
        scheduler: Any,
    ) -> None:
        self.denoiser, self.pipe, self.sites = denoiser, pipe, tuple(sites)
        self.wish = wish
        self.branch: Branch = branch
        self.runs: list[Run] = []
        self.notices: list[str] = []
        self.watch: EncoderWatch | None = None
        self._limit = limit
        self._scheduler = scheduler
        self._names = list(inspect.signature(denoiser.forward).parameters)
        self._announced: Run | None = None
        self._call: Call | None = None
        self._busy: int | None = None
        self._known_rows: tuple[Tensor, Rows] | None = None
        self._threads: set[int] = set()
        self._gate = threading.Lock()

    @property
    def current(self) -> Run | None:
        """The run that goes on, unless a newer one is announced."""
        return self.runs[-1] if self.runs and self._announced is None else None

    def announce(self, run: Run) -> None:
        """The denoiser calls that follow belong to this run."""
        self.admit()
        run.announced = True
        self._announced = run

    def close(self) -> None:
        """Let go of everything that belongs to the model; no run goes on after this."""
        self._call = self._busy = self._known_rows = self._announced = None
        self._threads.clear()
        self.watch = None
        for run in self.runs:
            run.condition = None
            run.closed = True

    # ── threads ──────────────────────────────────────────────────────────────────────────────

    def admit(self) -> None:
        """Let this thread go on if no other one is inside the pipeline (or the bare denoiser).

        A run may go on in another thread, as that of a generator does; two at a time may not.

        Raises:
            Mixed: Another thread is at work.
        """
        me = threading.get_ident()
        if self._threads == {me}:
            return
        with self._gate:
            target = self.denoiser if self.pipe is None else self.pipe
            if any(is_running(target, other) for other in self._threads - {me}):
                raise Mixed
            self._threads = {me}

    # ── a denoiser call ──────────────────────────────────────────────────────────────────────

    def begins(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before each denoiser call."""
        self.admit()
        self._busy = threading.get_ident()
        try:
            with torch.no_grad():
                self._call = self._new_call(dict(zip(self._names, args, strict=False)) | kwargs)
        except Mixed:
            self._call = self._busy = None
            raise
        except SURVIVABLE as error:
            self._call = None
            self._lost(error)

    def _lost(self, error: BaseException) -> None:
        """A whole call could not be looked at; the run goes on."""
        self.notice(f"attention of a denoiser call was not captured: {reason(error)}")
        if self.runs:
            for check in self.runs[-1].checks.values():
                check.failure = check.failure or reason(error)

    def notice(self, sentence: str) -> None:
        """Keep something that people must be told when the context ends."""
        _log.warning("%s", sentence)
        self.notices.append(sentence)

    def _new_call(self, given: dict[str, Any]) -> Call | None:
        sample = given.get("sample", given.get("hidden_states"))
        condition = given.get("encoder_hidden_states")
        if not isinstance(sample, Tensor) or not isinstance(condition, Tensor):
            raise CaptureError("the denoiser was called without sample or encoder_hidden_states")
        scheduler = self._scheduler or getattr(self.pipe, "scheduler", None)
        given_time = schedule.number(given.get("timestep"))
        run = self._run_of(scheduler, condition, given_time)
        run.calls += 1
        rows = self._rows(condition)
        if not rows.numbers:
            run.declare(self.sites)
            return None
        count = calls_said(self.pipe)
        place = run.clock.tick(given_time, count)
        if run.clock.again and scheduler is not None:
            return None  # guidance by perturbation: no step of its own
        first = run.clock.first or place
        step = schedule.describe(scheduler, place, first, given_time)
        run.complete = run.complete or schedule.is_last(scheduler, place, first, count)
        if run.frame is None:
            run.declare(self.sites)
            run.planned = run.clock.planned(count)
            picture = Picture(self.pipe, self._layout(), sample, condition.shape[1], given)
            self._lay_out(run, picture, rows)
        total = None if run.planned is None else run.planned[-1] + 1
        if run.frame is None or not self.wish.wants(step.index, total):
            return None
        # If the first sample step was interrupted, the next one takes its place.
        proved = step.index in run.frame.samples or not run.proved
        return Call(step, rows.numbers, condition.shape[0], proved)

    def _lay_out(self, run: Run, picture: Picture, rows: Rows) -> None:
        room = self._limit - sum(r.nbytes for r in self.runs)
        frame, plan = lay_out(
            self.denoiser, self.sites, self.wish, picture, rows, run.planned, room
        )
        run.lay_out(frame, plan)
        _log.info("attention of %d calls will take %d bytes", plan.calls, plan.forecast())
        for sentence in plan.thinned:
            _log.warning("to stay within the memory limit, %s", sentence)

    def _run_of(self, scheduler: Any, condition: Tensor, given: float | None) -> Run:
        """The run that goes on, or a new one: announced, or with other timesteps than before."""
        me = threading.get_ident()
        run = self.runs[-1] if self.runs else None
        if self._announced is not None:
            self._refuse_earlier(condition, me)
            run, self._announced = self._announced, None
            self._start(run, scheduler)
        elif run is None or run.closed or not run.clock.goes_on(scheduler, given):
            run = Run(me)
            self._start(run, scheduler)
        elif run.condition is not condition:
            self._refuse_earlier(condition, me)
        run.threads.add(me)
        run.condition = condition
        if self.watch is not None:
            self.watch.run_begins()
        return run

    def _start(self, run: Run, scheduler: Any) -> None:
        run.clock = schedule.Clock(scheduler)
        self.runs.append(run)
        self._known_rows = None

    def _refuse_earlier(self, condition: Tensor, me: int) -> None:
        """A condition of an earlier run, brought by another thread or by a run that was announced
        once and makes its own, means that two runs take turns.
        """
        run = self.runs[-1] if self.runs else None
        earlier = [r for r in (self.runs if self._announced else self.runs[:-1]) if not r.closed]
        for other in earlier:
            foreign = run is None or me not in run.threads
            if other.condition is condition and (foreign or other.announced):
                raise Mixed

    def _rows(self, condition: Tensor) -> Rows:
        """The wanted rows; told once for each condition tensor, which pipelines make once a run."""
        if self._known_rows is None or self._known_rows[0] is not condition:
            layout = self._layout()
            if layout is not None:
                rows = rows_of_layout(layout, condition.shape[0], self.branch)
            else:
                rows = rows_of_condition(self.pipe, self.watch, condition, self.branch)
            self._known_rows = (condition, rows)
        return self._known_rows[1]

    def _layout(self) -> KeyLayout | None:
        give = getattr(self.pipe, "key_layout", None)
        layout = give() if callable(give) else None
        return layout if isinstance(layout, KeyLayout) else None

    def ends(self, _: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """After each denoiser call, also one that failed (then it has no output)."""
        if self._busy != threading.get_ident():
            return  # a call that was refused
        self._busy = None
        call, self._call = self._call, None
        if call is None or output is None or not self.runs:
            return
        run = self.runs[-1]
        others = sum(r.nbytes for r in self.runs if r is not run)
        try:
            run.finish(call, self._limit - others)
            for earlier in self.runs[:-1]:
                earlier.newest = None
        except SURVIVABLE as error:
            self._lost(error)
        if run.recorded == 1:
            silent = [name for name, check in run.checks.items() if not check.produced]
            if silent:
                _log.warning("no attention from %s", ", ".join(silent))

    def seen(self, site: Site, sighting: Sighting, output: Any) -> None:
        """After each forward of a hooked layer."""
        call = self._call
        if call is None or not self.runs or self._busy != threading.get_ident():
            return
        run = self.runs[-1]
        try:
            kind = sighting.hidden.device.type
            with torch.no_grad(), torch.autocast(kind, enabled=False):
                record_layer(run, call, site, sighting, output)
        except SURVIVABLE as error:
            self.missed(site, error)

    def missed(self, site: Site, error: BaseException) -> None:
        """A layer could not be looked at in this call, its adapters neither; the run goes on."""
        if self._busy != threading.get_ident():
            return
        for run in self.runs[-1:]:
            run.declare([site])
            run.checks[site.name].failure = reason(error)
        if self._call is not None:
            for name in [n for n in self._call.records if n[0] == site.name]:
                del self._call.records[name]
        _log.debug("layer %s was not captured", site.name, exc_info=error)
