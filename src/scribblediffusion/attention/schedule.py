"""Where a denoiser call stands in its run, read from the scheduler that runs it.

A call is placed by the scheduler's own index where it keeps one, not by the timestep's value:
Heun and PNDM repeat timesteps, and FLUX gives its model t/1000. A scheduler without an index (DDIM,
DDPM) repeats none: there calls are counted, from the place of the first call's timestep in the
schedule, and an equal timestep means the same step. Where a loop is written by hand the timestep
given has the last word: it says where a schedule is entered in the middle, and a scheduler that
does not step along (or never held that timestep) places nothing. Noise remaining is b/(a+b) for a
sample a·image + b·noise:

- flow matching, or flow sigmas in any scheduler: a = 1 − σ, b = σ, so it is σ;
- Euler, Heun, DPM-Solver … (σ = b/a): σ/(1 + σ);
- DDPM, DDIM, PNDM, LCM … (ᾱ): a = √ᾱ, b = √(1 − ᾱ);
- any other scheduler: not known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scribblediffusion.attention.records import Step
from scribblediffusion.attention.sight import at_work

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
class Given:
    """The timestep that a denoiser was given.

    Attributes:
        value: The number; of the first row, where each has its own.
        rounding: How far, as a part of it, its dtype may have moved it.
    """

    value: float
    rounding: float = 1e-6

    def fits(self, timestep: float, scale: int = 1) -> bool:
        """Whether this is a scheduler's timestep divided by `scale`, but for rounding."""
        return abs(self.value * scale - timestep) <= self.rounding * abs(timestep)


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


def position(scheduler: Any, seen: int, skipped: int = 0, given: Given | None = None) -> Position:
    """The place of the call that is about to be made.

    Args:
        scheduler: The scheduler of the run, or None.
        seen: Calls that were counted before this one.
        skipped: Timesteps that image-to-image left out, as `offset` found them.
        given: The timestep of the call; by it a scheduler that has not begun will find its index.
    """
    if hasattr(scheduler, "step_index"):
        order = scheduler.step_index
        order = getattr(scheduler, "begin_index", None) if order is None else order
        order = _where(scheduler, given) if order is None else order
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


def _where(scheduler: Any, given: Given | None) -> int | None:
    """Where in the schedule a timestep stands, as it is or (FLUX) as t/1000; None if nowhere.

    Of equal ones it is the second, as with schedulers that begin in the middle.
    """
    listed = _listed(scheduler)
    if given is None or not listed:
        return None
    for scale in (1000, 1) if given.value <= 1 else (1,):
        nearest = min(listed, key=lambda t: abs(t - given.value * scale))
        if given.fits(nearest, scale):
            equal = [i for i, t in enumerate(listed) if t == nearest]
            return equal[:2][-1]
    return None


def _strays(scheduler: Any, place: Position, given: Given | None) -> bool:
    """Whether the denoiser was given another timestep than the scheduler has at this place.

    Up to 1 it may be in another unit (t/1000, 1 − t/1000, log σ), which says nothing.
    """
    listed = _listed(scheduler)
    if given is None or given.value <= 1 or not listed:
        return False
    return place.at >= len(listed) or not given.fits(listed[place.at])


def _listed(scheduler: Any) -> list[float]:
    timesteps = getattr(scheduler, "timesteps", None)
    return [] if timesteps is None else timesteps.tolist()


def offset(scheduler: Any, given: Given | None, count: int | None = None) -> int:
    """Timesteps that image-to-image skips in a schedule without an index; 0 where it has one.

    Args:
        scheduler: The scheduler of the run, or None.
        given: The timestep of the first call.
        count: How many timesteps the pipeline says it will run, which decides between equal ones.
    """
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None or given is None or hasattr(scheduler, "step_index"):
        return 0
    equal = [i for i, t in enumerate(timesteps.tolist()) if t == given.value]
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


def begun_before(scheduler: Any, first: Position, count: int | None = None) -> bool:
    """Whether steps were made before the first call that was seen. Arguments as for `is_last`."""
    begin, length = getattr(scheduler, "begin_index", None), len(_listed(scheduler))
    if begin is not None and first.order is not None and first.order > begin:
        return True
    return bool(count and length and first.at + count > length)


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
        pipe: The pipeline that the scheduler belongs to, or None.

    Attributes:
        first: Where the first call stood; None before it.
        last: Where the latest call stood.
        again: Whether the latest was a further call of the step before it, as guidance by
            perturbation makes. Where no pipeline runs nobody knows what calls at one timestep are
            for: they are numbered as calls of one step.
    """

    def __init__(self, scheduler: Any, pipe: Any = None) -> None:
        self.scheduler = scheduler
        self._pipe = pipe
        self.first: Position | None = None
        self.last: Position | None = None
        self.again = False
        self._timesteps = getattr(scheduler, "timesteps", None)
        self._given: Given | None = None
        self._counted = 0
        self._skipped = 0
        self._fell = False
        self._adrift = False  # calls and scheduler have parted: from here on calls are counted

    @property
    def index(self) -> int:
        """`Step.index` of the latest call."""
        return 0 if self.first is None or self.last is None else self.last.step - self.first.step

    @property
    def by_hand(self) -> bool:
        """Whether the calls are those of a hand-written loop and not of the pipeline."""
        return self._pipe is None or at_work(self._pipe) is None

    def goes_on(self, scheduler: Any, given: Given | None) -> bool:
        """Whether a call can belong to this run: the same timesteps, and no noisier than before.

        Args:
            scheduler: The scheduler as it is now.
            given: The timestep of the call.
        """
        if getattr(scheduler, "timesteps", None) is not self._timesteps:
            return False
        if self.last is None:
            return True
        place = position(scheduler, 0, self._skipped, given)
        if place.order is None or self._timesteps is None or self._parts(place, given):
            return not (self._fell and _below(self._given, given))  # noise fell, and now it rises
        return self.last.order is None or place.order >= self.last.order

    def above(self, given: Given | None) -> bool:
        """Whether the latest call had more noise than one at this timestep."""
        return _below(given, self._given)

    def _parts(self, place: Position, given: Given | None) -> bool:
        """Whether calls go their own way: the scheduler stands still while timesteps change, or a
        hand-written loop gives another one than is in its place.
        """
        still = self.last is not None and place.order == self.last.order and given != self._given
        return self._adrift or still or (self.by_hand and _strays(self.scheduler, place, given))

    def _place(self, given: Given | None) -> Position:
        place = position(self.scheduler, self._counted, self._skipped, given)
        if place.order is None:
            return place
        self._adrift = self._parts(place, given)
        if not self._adrift:
            return place
        at = _where(self.scheduler, given)
        if self.last is None:
            return Position(None, 0, 0) if at is None else _placed(self.scheduler, at)
        return Position(at, self.last.step + 1, 0)

    def tick(self, given: Given | None, count: int | None = None) -> Position:
        """Where the call stands that begins now.

        Args:
            given: The timestep of the call.
            count: How many timesteps the pipeline says it will run.
        """
        if self.last is None:
            self._skipped = offset(self.scheduler, given, count)
        place = self._place(given)
        same = self.last is not None and place.order == self.last.order and given == self._given
        self.again = same and not (given is None and place.order is None)
        if self.again and self.last is not None:
            place = replace(self.last, call=self.last.call + 1)
        self.first = self.first or place
        self._fell = self._fell or _below(given, self._given)
        self._counted += not self.again
        self.last, self._given = place, given
        return place

    def planned(self, count: int | None = None) -> list[int] | None:
        """The steps of the calls from the latest on, as the function `planned` says.

        None before the first call, or if there is no schedule.
        """
        steps = None if self.first is None else planned(self.scheduler, self.first, count)
        return steps and ([s for s in steps if s >= self.index] or [self.index])


def _below(one: Given | None, other: Given | None) -> bool:
    return one is not None and other is not None and one.value < other.value


def number(timestep: Any) -> Given | None:
    """A denoiser's argument `timestep` as a number: the first, where each row has its own."""
    if not isinstance(timestep, Tensor):
        return None if timestep is None else Given(float(timestep))
    value = float(timestep.flatten()[0])
    if not timestep.is_floating_point():
        return Given(value)
    return Given(value, max(Given.rounding, torch.finfo(timestep.dtype).eps))


def describe(scheduler: Any, place: Position, first: Position, given: Given | None) -> Step:
    """The call as a `Step`, counted from the first call of the run.

    Args:
        scheduler: The scheduler of the run, or None.
        place: Where the call stands.
        first: Where the first call of the run stood (image-to-image begins in the middle).
        given: The timestep that the denoiser was given.
    """
    timestep = None if given is None else given.value
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
    # The ancestral KDPM2 keeps the half-way level one place before its second call's.
    order = place.order - (place.call > 0 and hasattr(scheduler, "sigmas_down"))
    return None if sigmas is None or order >= len(sigmas) else float(sigmas[order])


def _noise_remaining(scheduler: Any, sigma: float | None, timestep: float | None) -> float | None:
    names = {cls.__name__ for cls in type(scheduler).__mro__}
    flow = any(name.startswith("FlowMatch") for name in names)
    config = getattr(scheduler, "config", None)
    if sigma is not None and (flow or getattr(config, "use_flow_sigmas", False)):
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
