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
from scribblediffusion.attention.sight import at_work, calls_said, is_running
from scribblediffusion.attention.taps import Sighting
from scribblediffusion.errors import CaptureError

_log = logging.getLogger(__name__)

NO_END = "steps that are counted from the end need a schedule: give scheduler="


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
        self._known_rows: tuple[Tensor, int | None, Rows] | None = None
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
            run.identity.conditions.clear()
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
            # A hand-written loop is inside the denoiser alone.
            for other in self._threads - {me}:
                if is_running(self.denoiser, other) or at_work(self.pipe, other) is not None:
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
        scheduler = self._scheduler or getattr(at_work(self.pipe) or self.pipe, "scheduler", None)
        given_time = schedule.number(given.get("timestep"))
        run = self._run_of(scheduler, condition, given_time)
        run.calls += 1
        run.declare(self.sites)  # first of all: whatever fails is then told of each layer
        rows = self._rows(condition)
        if not rows.numbers:
            return None
        count = calls_said(self.pipe)
        place = run.clock.tick(given_time, count)
        if run.clock.again and scheduler is not None and not run.clock.by_hand:
            return None  # guidance by perturbation: no step of its own
        if run.frame is not None and run.frame.prompts != rows.prompts:
            run = self._parted(run)
        first = run.clock.first or place
        step = schedule.describe(scheduler, place, first, given_time)
        run.complete = run.complete or schedule.is_last(scheduler, place, first, count)
        if run.frame is None:
            run.late = self._begun_before(run, first, count)
            run.planned = run.clock.planned(count)
            if run.planned is None and self.wish.from_end:
                self.notice(NO_END)
            picture = Picture(self.pipe, self._layout(), sample, condition.shape[1], given)
            self._lay_out(run, picture, rows)
        total = None if run.planned is None else run.planned[-1] + 1
        if run.frame is None or not self.wish.wants(step.index, total):
            return None
        # If the first sample step was interrupted, the next one takes its place.
        proved = step.index in run.frame.samples or not run.proved
        return Call(step, rows.numbers, condition.shape[0], proved)

    def _parted(self, run: Run) -> Run:
        """The rest of a run whose prompt changed: the words of a trace hold for all its steps."""
        self.notice(
            "the prompt changed while a run went on: from there on its steps are a trace of their "
            "own (traces, in the order run)"
        )
        rest = run.parted(threading.current_thread())
        rest.declare(self.sites)
        self.runs.append(rest)
        return rest

    def _begun_before(self, run: Run, first: schedule.Position, count: int | None) -> bool:
        """Whether the run began before anybody listened, so that it is there in part alone."""
        tells = isinstance(getattr(self.pipe, "observers", None), list)
        unheard = tells and not run.announced and not run.clock.by_hand
        return unheard or schedule.begun_before(run.clock.scheduler, first, count)

    def _lay_out(self, run: Run, picture: Picture, rows: Rows) -> None:
        room = self._limit - sum(r.nbytes for r in self.runs)
        frame, plan = lay_out(
            self.denoiser, self.sites, self.wish, picture, rows, run.planned, room
        )
        run.lay_out(frame, plan)
        _log.info("attention of %d calls will take %d bytes", plan.calls, plan.forecast())
        for sentence in plan.thinned:
            _log.warning("to stay within the memory limit, %s", sentence)

    def _run_of(self, scheduler: Any, condition: Tensor, given: schedule.Given | None) -> Run:
        """The run that goes on, or a new one: announced, with other timesteps than before, or by
        another thread with another condition.
        """
        me = threading.current_thread()
        self._refuse_earlier(scheduler, condition, given)
        run = self.current
        if self._announced is not None:
            run, self._announced = self._announced, None
            self._start(run, scheduler)
        elif run is None or run.closed or not self._belongs(run, scheduler, condition, given):
            run = Run(me)
            self._start(run, scheduler)
        run.identity.joins(me, condition)
        if self.watch is not None:
            self.watch.run_begins()
        return run

    @staticmethod
    def _belongs(run: Run, scheduler: Any, condition: Tensor, given: schedule.Given | None) -> bool:
        """A run may go on in another thread, as that of a generator does, but as the same run."""
        known = threading.current_thread() in run.identity.threads or run.identity.knows(condition)
        return known and run.clock.goes_on(scheduler, given)

    def _start(self, run: Run, scheduler: Any) -> None:
        run.clock = schedule.Clock(scheduler, self.pipe)
        self.runs.append(run)
        self._known_rows = None

    def _refuse_earlier(
        self, scheduler: Any, condition: Tensor, given: schedule.Given | None
    ) -> None:
        """A call that carries on an earlier run means that two runs take turns.

        It is told by its condition: an announced run makes one of its own, and with others the
        noise falls and another thread made the newest run.
        """
        run = self.current
        if run is not None and run.identity.holds(condition):
            return
        foreign = run is not None and threading.current_thread() not in run.identity.threads
        for other in self.runs if run is None else self.runs[:-1]:
            falls = other.clock.above(given) and other.clock.goes_on(scheduler, given)
            carried_on = foreign and falls and other.identity.knows(condition)
            makes_its_own = other.announced and other.identity.holds(condition)
            if not other.closed and (carried_on or makes_its_own):
                raise Mixed

    def _rows(self, condition: Tensor) -> Rows:
        """The wanted rows; told once for each condition tensor, which pipelines make once a run."""
        # Counts what is written into the tensor; those of inference mode do not count.
        version = None if condition.is_inference() else condition._version
        known = self._known_rows
        if known is None or known[0] is not condition or known[1] != version:
            layout = self._layout()
            if layout is not None:
                rows = rows_of_layout(layout, condition.shape[0], self.branch)
            else:
                rows = rows_of_condition(self.pipe, self.watch, condition, self.branch)
            self._known_rows = known = (condition, version, rows)
        return known[2]

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
