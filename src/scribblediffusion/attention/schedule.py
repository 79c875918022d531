"""Where a denoiser call stands in its run, read from the scheduler that runs it.

A call is placed by the scheduler's own index where it keeps one, not by the timestep's value:
Heun and PNDM repeat timesteps, and FLUX gives its model t/1000. A scheduler without an index (DDIM,
DDPM) repeats none: there calls are counted, from the place of the first call's timestep in the
schedule, and an equal timestep means the same step. Noise remaining is b/(a+b) for a sample
a·image + b·noise:

- flow matching, or flow sigmas in any scheduler: a = 1 − σ, b = σ, so it is σ;
- Euler, Heun, DPM-Solver … (σ = b/a): σ/(1 + σ);
- DDPM, DDIM, PNDM, LCM … (ᾱ): a = √ᾱ, b = √(1 − ᾱ);
- any other scheduler: not known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from scribblediffusion.attention.records import Step

#: Schedulers whose sigma is b/a, variance preserving ones (which keep the ratio) included.
_RATIO_SIGMA = {
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "CMStochasticIterativeScheduler",
}
#: Schedulers that are described by the cumulative product of alphas at the timestep.
_ALPHAS = {
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "LCMScheduler",
    "TCDScheduler",
}


@dataclass(frozen=True)
class Position:
    """A denoiser call's place in its run.

    Attributes:
        order: The scheduler's running number of the call; None if it keeps none.
        step: The sampling step that the call belongs to, from the start of the whole schedule.
        call: Which call of that step.
        skipped: Timesteps before the one that the running number counts from (PNDM counts from 0
            in the middle of a schedule, where image-to-image begins).
    """

    order: int | None
    step: int
    call: int
    skipped: int = 0

    @property
    def at(self) -> int:
        """Where the call stands in the scheduler's list of timesteps."""
        return self.step if self.order is None else self.order + self.skipped


def position(scheduler: Any, seen: int, skipped: int = 0) -> Position:
    """The place of the call that is about to be made.

    Args:
        scheduler: The scheduler of the run, or None.
        seen: Calls that were counted before this one.
        skipped: Timesteps that image-to-image left out, as `offset` found them.
    """
    if hasattr(scheduler, "step_index"):
        order = scheduler.step_index
        order = getattr(scheduler, "begin_index", None) if order is None else order
        return _placed(scheduler, int(order or 0))
    if hasattr(scheduler, "plms_timesteps"):
        return _placed(scheduler, int(scheduler.counter), skipped)
    return Position(None, skipped + seen, 0)


def _placed(scheduler: Any, order: int, skipped: int = 0) -> Position:
    """The step and the call that a scheduler's running number means."""
    if hasattr(scheduler, "plms_timesteps"):
        return _pndm(scheduler, order, skipped)
    if getattr(scheduler, "order", 1) == 2:  # Heun and its kind: 2n − 1 calls for n steps
        return Position(order, order // 2, order % 2)
    return Position(order, order, 0)


def _pndm(scheduler: Any, order: int, skipped: int) -> Position:
    """PNDM: four calls for each Runge-Kutta step, or two for the first linear multistep."""
    if scheduler.config.skip_prk_steps:
        return Position(order, max(order - 1, 0), int(order == 1), skipped)
    warm = len(scheduler.prk_timesteps)
    if order < warm:
        return Position(order, order // 4, order % 4, skipped)
    return Position(order, warm // 4 + order - warm, 0, skipped)


def offset(scheduler: Any, given: float | None, count: int | None = None) -> int:
    """Timesteps that image-to-image skips in a schedule without an index; 0 where it has one.

    Args:
        scheduler: The scheduler of the run, or None.
        given: The timestep of the first call.
        count: How many timesteps the pipeline says it will run, which decides between equal ones.
    """
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None or given is None or hasattr(scheduler, "step_index"):
        return 0
    equal = [i for i, t in enumerate(timesteps.tolist()) if t == given]
    left_out = len(timesteps) - count if count is not None else None
    return left_out if left_out in equal else next(iter(equal), 0)


def is_last(
    scheduler: Any, place: Position, first: Position | None = None, count: int | None = None
) -> bool:
    """Whether the schedule ends with this call; always where there is no schedule.

    Args:
        scheduler: The scheduler of the run, or None.
        place: Where the call stands.
        first: Where the first call of the run stood.
        count: How many timesteps the pipeline says it will run: it may stop before the schedule
            does (`denoising_end`).
    """
    timesteps = getattr(scheduler, "timesteps", None)
    return timesteps is None or place.at + 1 >= _end(len(timesteps), first, count)


def planned(scheduler: Any, first: Position, count: int | None = None) -> list[int] | None:
    """The step of every call of the run, counted from its first; None if there is no schedule.

    Heun's three steps are ``[0, 0, 1, 1, 2]``. Arguments as for `is_last`.
    """
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None:
        return None
    end = _end(len(timesteps), first, count)
    if first.order is None:
        return list(range(end - first.step))
    orders = range(first.order, max(end - first.skipped, first.order + 1))
    return [_placed(scheduler, order, first.skipped).step - first.step for order in orders]


def _end(length: int, first: Position | None, count: int | None) -> int:
    """Where in the list of timesteps a run ends."""
    return length if first is None or not count else min(length, first.at + count)


class Clock:
    """Tells the denoiser calls of one run where they stand, one after the other.

    Args:
        scheduler: The scheduler of the run; None for a bare denoiser, whose calls are counted.

    Attributes:
        first: Where the first call stood; None before it.
        last: Where the latest call stood.
        again: Whether the latest was a further call of the step before it, as guidance by
            perturbation makes. Of a bare denoiser nobody knows what its calls at one timestep are
            for: they are numbered as calls of one step.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.first: Position | None = None
        self.last: Position | None = None
        self.again = False
        self._timesteps = getattr(scheduler, "timesteps", None)
        self._given: float | None = None
        self._counted = 0
        self._skipped = 0
        self._fell = False

    @property
    def index(self) -> int:
        """`Step.index` of the latest call."""
        return 0 if self.first is None or self.last is None else self.last.step - self.first.step

    def goes_on(self, scheduler: Any, given: float | None) -> bool:
        """Whether a call can belong to this run: the same timesteps, and no noisier than before.

        Args:
            scheduler: The scheduler as it is now.
            given: The timestep of the call.
        """
        if getattr(scheduler, "timesteps", None) is not self._timesteps:
            return False
        if self.last is None:
            return True
        order = position(scheduler, 0).order
        if order is None or self._timesteps is None:  # noise went down, and now it goes up
            return not (self._fell and _below(self._given, given))
        return self.last.order is None or order >= self.last.order

    def tick(self, given: float | None, count: int | None = None) -> Position:
        """Where the call stands that begins now.

        Args:
            given: The timestep of the call.
            count: How many timesteps the pipeline says it will run.
        """
        if self.first is None or self.last is None:
            self._skipped = offset(self.scheduler, given, count)
            place = self.first = position(self.scheduler, 0, self._skipped)
        else:
            place = position(self.scheduler, self._counted, self._skipped)
            if place.order is None:
                self.again = given is not None and given == self._given
            else:
                self.again = place.order == self.last.order
            if self.again:
                further = 0 if self.scheduler is not None else 1
                place = replace(self.last, call=self.last.call + further)
        self._fell = self._fell or _below(given, self._given)
        self._counted += not self.again
        self.last, self._given = place, given
        return place

    def planned(self, count: int | None = None) -> list[int] | None:
        """The steps of the run's calls, as the function `planned` says; None before the first."""
        return None if self.first is None else planned(self.scheduler, self.first, count)


def _below(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one < other


def number(timestep: Any) -> float | None:
    """A denoiser's argument `timestep` as a number: the first, where each row has its own."""
    if timestep is None:
        return None
    return float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)


def describe(scheduler: Any, place: Position, first: Position, given: float | None) -> Step:
    """The call as a `Step`, counted from the first call of the run.

    Args:
        scheduler: The scheduler of the run, or None.
        place: Where the call stands.
        first: Where the first call of the run stood (image-to-image begins in the middle).
        given: The timestep that the denoiser was given.
    """
    timestep = given
    timesteps = getattr(scheduler, "timesteps", None)
    if place.order is not None and timesteps is not None and place.at < len(timesteps):
        timestep = float(timesteps[place.at])
    sigma = _sigma(scheduler, place)
    noise = _noise_remaining(scheduler, sigma, timestep)
    return Step(place.step - first.step, place.call, timestep, sigma, noise)


def _sigma(scheduler: Any, place: Position) -> float | None:
    """The scheduler's noise level at a call, the half-way level in a second call."""
    if place.order is None:
        return None
    sigmas = getattr(scheduler, "sigmas", None)
    if place.call:
        halfway = getattr(scheduler, "mid_point_sigma", None)  # DPMSolverSDE, while it steps
        if halfway is not None:
            return float(halfway)
        sigmas = getattr(scheduler, "sigmas_interpol", sigmas)  # KDPM2
    if sigmas is None or place.order >= len(sigmas):
        return None
    return float(sigmas[place.order])


def _noise_remaining(scheduler: Any, sigma: float | None, timestep: float | None) -> float | None:
    names = {cls.__name__ for cls in type(scheduler).__mro__}
    flow = any(name.startswith("FlowMatch") for name in names)
    if sigma is not None and (flow or getattr(scheduler.config, "use_flow_sigmas", False)):
        return min(max(sigma, 0.0), 1.0)
    if sigma is not None and names & _RATIO_SIGMA:
        return sigma / (1 + sigma)
    if timestep is not None and names & _ALPHAS:
        alphas = scheduler.alphas_cumprod
        if 0 <= timestep < len(alphas):
            alpha = float(alphas[int(timestep)])
            image, noise = alpha**0.5, (1 - alpha) ** 0.5
            return noise / (image + noise)
    return None
