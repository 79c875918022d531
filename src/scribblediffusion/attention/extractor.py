"""`RealAttentionExtractor`: what a diffusers pipeline attends to while it paints.

    with RealAttentionExtractor(pipe) as extractor:
        image = pipe("a red apple").images[0]
    trace = extractor.trace

It observes and never replaces: processors, kernels, random numbers and outputs are untouched, so
the picture is bit for bit the one without it. While the context is open, hooks note queries and
keys of every attention module that looks at the condition (`taps`, `recording`); the weights that
follow from them go into a record of bounded size (`folding`, `budget`), and on sample steps the
layer's output is rebuilt from them and compared with the real one (`proof`). On the way out every
hook is gone.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Real
from types import TracebackType
from typing import Any, Literal

import numpy as np
from torch import nn

from scribblediffusion.attention.attaching import Attaching
from scribblediffusion.attention.branches import Branch
from scribblediffusion.attention.encoders import EncoderWatch
from scribblediffusion.attention.families import denoiser_of, find_sites
from scribblediffusion.attention.frames import Wish, wanted_steps
from scribblediffusion.attention.guard import SURVIVABLE, reason
from scribblediffusion.attention.recording import NO_END, Recording
from scribblediffusion.attention.run import Run
from scribblediffusion.attention.taps import Tap
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import CaptureError, SettingError, SeveralRunsError
from scribblediffusion.sketch import Sketch


class CaptureWarning(UserWarning):
    """A record was thinned to stay within the memory limit, or a layer gave none."""


class RealAttentionExtractor(Attaching):
    """Captures the attention of every run inside its context; see the module's docstring.

    Args:
        target: A diffusers pipeline, or a UNet or transformer alone.
        heads: ``"mean"`` keeps the mean of each layer's heads, ``"all"`` each of them.
        layers: Glob or globs over module paths, ``"up_blocks.*"``.
        steps: Which steps (`Step.index`; negative from the end where the schedule is known): one,
            several, or a slice of them; None for all.
        tokens: ``"used"`` leaves padding out (it goes to the rest), ``"all"`` keeps every key.
        branch: Which part of the guidance: ``"full"``, ``"sketch_only"`` (pipelines that have a
            key layout) or ``"unconditional"``.
        memory_limit: Bytes that the attention of all runs of this extractor may take together, as
            `forecast` and a trace's `nbytes` count them. Pictures and previews come on top: 3 bytes
            a pixel, and a preview for each step.
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
        steps: int | Iterable[int] | slice | None = None,
        tokens: Literal["used", "all"] = "used",
        branch: Branch = "full",
        memory_limit: int = 1 << 30,
        scheduler: Any = None,
        previews: bool = True,
    ) -> None:
        _one_of("heads", heads, ("mean", "all"))
        _one_of("tokens", tokens, ("used", "all"))
        _one_of("branch", branch, ("full", "sketch_only", "unconditional"))
        if not isinstance(memory_limit, Real) or isinstance(memory_limit, bool):
            raise SettingError(f"memory_limit={memory_limit!r}: give a number of bytes, 1 << 30")
        if not memory_limit > 0:
            raise SettingError(f"memory_limit={memory_limit}: give a number of bytes above 0")
        self._denoiser = denoiser_of(target)
        self._pipe = None if isinstance(target, nn.Module) else target
        if branch != "full" and self._pipe is None:
            raise SettingError(f"branch={branch!r}: a bare denoiser has no guidance, only 'full'")
        if branch == "sketch_only" and not hasattr(self._pipe, "key_layout"):
            raise SettingError(f"branch={branch!r}: {type(target).__name__} has no sketch branch")
        self.wants_previews = previews
        wish = Wish(heads == "all", tokens == "all", wanted_steps(steps))
        sites = find_sites(self._denoiser, layers)
        self._recording = Recording(
            self._denoiser, self._pipe, sites, wish, branch, memory_limit, scheduler
        )
        self._closed: dict[int, AttentionTrace] = {}

    # ── the context ──────────────────────────────────────────────────────────────────────────

    _open = "this extractor is attached already; leave its context first"

    def _attach(self, stack: ExitStack) -> None:
        recording = self._recording
        begins = self._denoiser.register_forward_pre_hook(recording.begins, with_kwargs=True)
        stack.callback(begins.remove)
        self._refuse_a_second()
        for site in recording.sites:
            Tap(site, recording.seen, recording.missed).attach(stack)
        ends = self._denoiser.register_forward_hook(
            recording.ends, with_kwargs=True, always_call=True
        )
        stack.callback(ends.remove)
        self._attach_to_pipe(stack)

    def _refuse_a_second(self) -> None:
        """The first of our hooks on the denoiser holds it: nobody looks twice at one model."""
        hooks = list(self._denoiser._forward_pre_hooks.values())  # others attach meanwhile
        owners = [getattr(hook, "__self__", None) for hook in hooks]
        holders = [owner for owner in owners if isinstance(owner, Recording)]
        if holders[0] is not self._recording:
            raise CaptureError(
                f"this {type(self._denoiser).__name__} is being captured by another extractor "
                f"(nested, or in another thread); leave that context first or load a second model"
            )

    def _attach_to_pipe(self, stack: ExitStack) -> None:
        if self._pipe is None:
            return
        watch = EncoderWatch(self._pipe, self._recording.admit, self._recording.notice)
        watch.attach(stack)
        self._recording.watch = watch
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
        self._leave()
        self._recording.close()
        if kind is None:
            self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        """After the run: raise if nothing at all was captured, warn of what is incomplete."""
        ran = [run for run in self._recording.runs if run.calls]
        if ran and not any(check.produced for run in ran for check in run.checks.values()):
            raise CaptureError(self._why_nothing(ran))
        notices, self._recording.notices = self._recording.notices, []
        for run in ran:
            silent = [(n, c.failure) for n, c in run.checks.items() if c.produced < run.recorded]
            for name, failure in silent:
                why = failure or "it was not called"
                notices.append(f"layer {name} gave no attention in some step: {why}")
            audit = run.audit()
            if audit is not None and audit.wrong:
                notices.append(f"these maps are not what the model computed: audit {audit}")
            notices += [f"to stay within the memory limit, {s}" for s in run.thinned]
        if notices:
            warnings.warn("; ".join(dict.fromkeys(notices)), CaptureWarning, stacklevel=3)

    def _why_nothing(self, runs: Sequence[Run]) -> str:
        failures = [c.failure for run in runs for c in run.checks.values() if c.failure]
        calls = sum(run.calls for run in runs)
        wish = self._recording.wish
        laid_out = [run for run in runs if run.frame is not None]
        if failures:
            why = f"the first reason was: {failures[0]}"
        elif not laid_out:
            why = f"no row of its batch was branch {self._recording.branch!r}"
            if self._recording.branch != "full":
                why += ": guidance may be off; try branch='full'"
        elif not any(run.recorded for run in laid_out):
            there = max(run.clock.index for run in laid_out)
            asked = wish.steps if isinstance(wish.steps, slice) else sorted(wish.steps or ())
            why = f"steps={asked} fits none of the steps 0–{there} that ran"
            if wish.from_end and any(run.planned is None for run in laid_out):
                why += f"; {NO_END}"
        else:
            why = (
                "none of the hooked layers was used (a model that was compiled before hides them: "
                "capture the one that is not compiled)"
            )
        return f"the denoiser ran {calls} times and no attention was captured; {why}"

    # ── what was captured ────────────────────────────────────────────────────────────────────

    @property
    def traces(self) -> list[AttentionTrace]:
        """One trace for each run, in the order run; a run that goes on is there as far as it is.

        A run whose prompt changes on the way has one for each part: a trace has one set of words.
        """
        return [self._trace_of(run) for run in self._recording.runs if run.frame is not None]

    @property
    def trace(self) -> AttentionTrace:
        """The trace of the only run.

        Raises:
            SeveralRunsError: There were several; take one of `traces`.
            CaptureError: There was none.
        """
        runs = [run for run in self._recording.runs if run.frame is not None]
        if not runs:
            raise CaptureError("no run was captured: call the pipeline inside the context")
        if len(runs) > 1:
            raise SeveralRunsError(
                f"one trace was asked for and {len(runs)} runs were captured; take one of traces"
            )
        return self._trace_of(runs[0])

    @property
    def latest(self) -> AttentionTrace | None:
        """The newest finished step alone, at any time and from any thread; None before it.

        Also where the memory limit keeps it out of the trace: it is at hand until the next one.
        """
        for run in reversed(self._recording.runs):
            if run.newest is not None:
                return run.trace(self._recording.branch, self._model_name(), newest=True)
        return None

    @property
    def forecast(self) -> int:
        """Bytes that the weights of all runs so far will take, as foreseen at their first call."""
        return sum(run.plan.forecast() for run in self._recording.runs if run.plan is not None)

    def _trace_of(self, run: Run) -> AttentionTrace:
        if self._stack is not None:
            return run.trace(self._recording.branch, self._model_name())
        if id(run) not in self._closed:
            self._closed[id(run)] = run.trace(self._recording.branch, self._model_name())
        return self._closed[id(run)]

    def _model_name(self) -> str:
        owner = self._denoiser if self._pipe is None else self._pipe
        name = getattr(getattr(owner, "config", None), "_name_or_path", "") or ""
        return f"{type(owner).__name__} {name}".strip()

    # ── a pipeline that tells about its runs (layout.RunObserver) ────────────────────────────

    def run_begins(
        self,
        prompts: list[str],
        sketch: np.ndarray | None,
        settings: Mapping[str, Any],
        *,
        sketches: Sequence[Sketch | None] = (),
    ) -> None:
        """The pipeline begins a run: the denoiser calls that follow are one."""
        run = Run(threading.current_thread())
        run.asked, run.sketch, run.settings = tuple(prompts), sketch, dict(settings)
        run.sketches = tuple(sketches)
        self._recording.announce(run)

    def step_ends(self, preview: np.ndarray | None) -> None:
        """The scheduler made a step."""
        run = self._recording.current
        if preview is not None and run is not None:
            with self._surviving("a preview"), run.lock:
                run.previews.append(np.array(preview, dtype=np.uint8))

    def run_ends(self, pictures: Sequence[np.ndarray] | np.ndarray, complete: bool = True) -> None:
        """The pictures are there."""
        run = self._recording.current
        if run is not None:
            with self._surviving("the pictures"), run.lock:
                run.complete = complete
                run.pictures = tuple(np.array(p, dtype=np.uint8) for p in pictures)

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """Say what could not be kept instead of stopping the pipeline that gave it."""
        try:
            yield
        except SURVIVABLE as error:
            self._recording.notice(f"{what} could not be kept: {reason(error)}")


def _take_out(observers: list[Any], observer: Any) -> None:
    """Remove one observer, whether or not somebody emptied the list."""
    observers[:] = [o for o in observers if o is not observer]


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SettingError(f"{name}={value!r}: there are {', '.join(map(repr, choices))}")
