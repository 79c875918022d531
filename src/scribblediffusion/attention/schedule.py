"""Where a denoiser call stands in its run, read from the scheduler that runs it.

A call is placed by the scheduler's own index, never by the timestep's value: Heun and PNDM
repeat timesteps, and FLUX gives its model t/1000. Noise remaining is b/(a+b) for a sample
a·image + b·noise:

- flow matching, or flow sigmas in any scheduler: a = 1 − σ, b = σ, so it is σ;
- Euler, Heun, DPM-Solver … (σ = b/a): σ/(1 + σ);
- DDPM, DDIM, PNDM, LCM … (ᾱ): a = √ᾱ, b = √(1 − ᾱ);
- any other scheduler: not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    """

    order: int | None
    step: int
    call: int


def position(scheduler: Any, seen: int) -> Position:
    """The place of the call that is about to be made.

    Args:
        scheduler: The scheduler of the run, or None.
        seen: Steps of the schedule that went before; used where the scheduler keeps no index of
            its own (DDIM, DDPM).
    """
    if hasattr(scheduler, "step_index"):
        order = scheduler.step_index
        order = getattr(scheduler, "begin_index", None) if order is None else order
        return _placed(scheduler, int(order or 0))
    if hasattr(scheduler, "plms_timesteps"):
        return _placed(scheduler, int(scheduler.counter))
    return Position(None, seen, 0)


def _placed(scheduler: Any, order: int) -> Position:
    """The step and the call that a scheduler's running number means."""
    if hasattr(scheduler, "plms_timesteps"):
        return _pndm(scheduler, order)
    if getattr(scheduler, "order", 1) == 2:  # Heun and its kind: 2n − 1 calls for n steps
        return Position(order, order // 2, order % 2)
    return Position(order, order, 0)


def _pndm(scheduler: Any, order: int) -> Position:
    """PNDM: four calls for each Runge-Kutta step, or two for the first linear multistep."""
    if scheduler.config.skip_prk_steps:
        return Position(order, max(order - 1, 0), int(order == 1))
    warm = len(scheduler.prk_timesteps)
    if order < warm:
        return Position(order, order // 4, order % 4)
    return Position(order, warm // 4 + order - warm, 0)


def offset(scheduler: Any, given: float | None) -> int:
    """Steps that image-to-image skips in a schedule without an index; 0 where it has one."""
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None or given is None or hasattr(scheduler, "step_index"):
        return 0
    return next((i for i, t in enumerate(timesteps.tolist()) if t == given), 0)


def is_last(scheduler: Any, place: Position) -> bool:
    """Whether the schedule ends with this call; always where there is no schedule."""
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None:
        return True
    return (place.step if place.order is None else place.order) + 1 >= len(timesteps)


def total_steps(scheduler: Any, first: Position) -> int | None:
    """Steps that the run will have, or None if there is no schedule."""
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None:
        return None
    if first.order is None:
        return len(timesteps) - first.step
    return _placed(scheduler, len(timesteps) - 1).step - first.step + 1


def most_calls(scheduler: Any) -> int:
    """Denoiser calls that a step may have."""
    return 2 if getattr(scheduler, "order", 1) == 2 or hasattr(scheduler, "plms_timesteps") else 1


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
    if place.order is not None and timesteps is not None and place.order < len(timesteps):
        timestep = float(timesteps[place.order])
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
