"""Loops that people write themselves around a denoiser, and runs that are seen in part."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import pytest
import torch
from scribbles import small_pipeline
from tiny_pipelines import latents_of, stable_diffusion, unet

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.errors import CaptureError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}
TIMES = (900, 500, 100)


def scheduled(name: str, steps: int) -> Any:
    scheduler = getattr(diffusers, f"{name}Scheduler")()
    scheduler.set_timesteps(steps)
    return scheduler


def calls(model: Any, times: Sequence[Any], word: float = 0.5) -> Iterator[Any]:
    """The denoiser alone at these timesteps, each time with a new tensor for its condition."""
    for t in times:
        with torch.no_grad():
            model(torch.randn(1, 4, 16, 12), t, torch.full((1, 77, 32), word))
        yield t


def take_turns(*loops: Iterator[Any]) -> list[CaptureError]:
    """Every loop makes a step in a thread of its own, one after the other, to the end of all."""
    errors: list[CaptureError] = []
    pools = {loop: ThreadPoolExecutor(1) for loop in loops}
    while pools:
        for loop, pool in list(pools.items()):
            try:
                ended = pool.submit(next, loop, None).result() is None
            except CaptureError as error:
                errors.append(error)
                ended = True
            if ended:
                pools.pop(loop).shutdown()
    return errors


@pytest.mark.parametrize("name", [None, "EulerDiscrete", "DDIM"])
def test_two_threads_that_take_turns_are_refused_and_never_mixed(name: str | None) -> None:
    """No two calls overlap; the condition tells the runs, and the overtaken one is stopped."""
    if name is None:
        target = model = unet()
    else:
        target = stable_diffusion(scheduler=scheduled(name, 3))
        model = target.unet
    with RealAttentionExtractor(target) as extractor:
        errors = take_turns(calls(model, TIMES, 0.0), calls(model, TIMES, 1.0))
    assert len(errors) == 1
    assert "two threads" in str(errors[0])
    first, second = extractor.traces
    assert [step.timestep for step in first.steps] == [900]
    assert [(s.index, s.call, s.timestep) for s in second.steps] == [
        (i, 0, t) for i, t in enumerate(TIMES)
    ]
    assert second.audit.passed


def test_threads_one_after_the_other_are_runs_of_their_own() -> None:
    """Also where the noise does not tell, and where a thread comes back to its condition."""
    model = unet()
    with RealAttentionExtractor(model, layers="mid_block.*") as extractor:
        for times, word in ((TIMES, 0.0), ([50], 1.0), (TIMES, 0.0)):
            assert not take_turns(calls(model, times, word))
    assert [len(trace.steps) for trace in extractor.traces] == [3, 1, 3]


def steps_of(scheduler: Any, start: int, give: Callable[[Any], Any]) -> list[Any]:
    model = unet()
    x = torch.randn(1, 4, 16, 12)
    with torch.no_grad(), RealAttentionExtractor(model, scheduler=scheduler) as extractor:
        for t in scheduler.timesteps[start:]:
            y = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(model(y, give(t), torch.randn(1, 7, 32)).sample, t, x).prev_sample
    assert extractor.trace.complete
    return list(extractor.trace.steps)


@pytest.mark.parametrize(
    ("name", "give"),
    [
        ("FlowMatchEulerDiscrete", float),
        ("FlowMatchEulerDiscrete", lambda t: t.bfloat16()),
        ("FlowMatchEulerDiscrete", lambda t: t.bfloat16() / 1000),
        ("DPMSolverMultistep", int),
        ("UniPCMultistep", lambda t: t),
        ("EulerDiscrete", lambda t: t),
        ("DDIM", lambda t: t),
    ],
)
def test_a_loop_that_begins_in_the_middle_is_placed_by_its_timestep(name: str, give: Any) -> None:
    """No `begin_index` was set, and some schedulers have no index before their first step."""
    whole = steps_of(scheduled(name, 10), 0, give)
    half = steps_of(scheduled(name, 10), 5, give)
    assert [step.index for step in half] == [0, 1, 2, 3, 4]
    assert [s.timestep for s in half] == [s.timestep for s in whole[5:]]
    assert [s.noise_remaining for s in half] == [s.noise_remaining for s in whole[5:]]


@pytest.mark.parametrize("name", ["EulerDiscrete", "UniPCMultistep", "PNDM", "DDIM"])
@pytest.mark.parametrize("times", [TIMES, (900, 900, 500), (999, 900, 500, 0)])
def test_calls_that_no_scheduler_follows_are_counted(name: str, times: Sequence[int]) -> None:
    """Nobody calls `scheduler.step`: every call is there, under the timestep it was given."""
    pipe = stable_diffusion(scheduler=scheduled(name, 5))
    with RealAttentionExtractor(pipe) as extractor:
        assert list(calls(pipe.unet, times)) == list(times)
    trace = extractor.trace
    assert [step.timestep for step in trace.steps] == list(times)
    assert [step.index for step in trace.steps] == [sorted({*times})[::-1].index(t) for t in times]
    assert len({(step.index, step.call) for step in trace.steps}) == len(times)
    assert {layer.expected for layer in trace.audit.layers} == {len(times)}
    assert trace.audit.passed


def test_a_schedule_that_is_walked_without_a_scheduler_step_has_its_noise() -> None:
    expected = steps_of(scheduled("EulerDiscrete", 4), 0, lambda t: t)
    pipe = stable_diffusion(scheduler=scheduled("EulerDiscrete", 4))
    with RealAttentionExtractor(pipe) as extractor:
        list(calls(pipe.unet, pipe.scheduler.timesteps))
    assert list(extractor.trace.steps) == expected


def test_a_shipped_run_that_was_begun_before_is_not_complete() -> None:
    pipe = small_pipeline()
    run = pipe.denoise("a red apple", num_inference_steps=4)
    next(run)
    with RealAttentionExtractor(pipe) as extractor:
        *_, last = run
        assert not extractor.trace.complete
        pipe.finish(last.latents)
    assert len(extractor.trace.steps) == 3
    assert not extractor.trace.complete


@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "HeunDiscrete", "UniPCMultistep"])
def test_a_foreign_run_that_was_begun_before_is_not_complete(name: str) -> None:
    pipe = stable_diffusion(scheduler=getattr(diffusers, f"{name}Scheduler")())
    extractor = RealAttentionExtractor(pipe)

    def enter(pipe: Any, step: int, t: Any, values: dict) -> dict:
        if step == 0:
            extractor.__enter__()
        return values

    latents_of(pipe, steps=4, callback_on_step_end=enter, **SIZE)
    extractor.__exit__(None, None, None)
    assert len(extractor.trace.steps) == (6 if name == "HeunDiscrete" else 3)
    assert not extractor.trace.complete
