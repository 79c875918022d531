"""Whose run a denoiser call belongs to: threads, generators, interruptions, bare denoisers."""

import gc
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler
from test_acceptance import ScribbleLike
from tiny_pipelines import FAMILIES, flux, latents_of, sdxl, stable_diffusion, unet

from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
from scribblediffusion.errors import CaptureError, NotRecordedError, SettingError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}


def hooks_of(*models: torch.nn.Module) -> list[tuple[int, ...]]:
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks_with_kwargs",
        "_forward_hooks_always_called",
    )
    return [tuple(len(getattr(m, k)) for k in kinds) for x in models for m in x.modules()]


# ── threads ──────────────────────────────────────────────────────────────────────────────────


def test_eight_threads_with_eight_pipelines_do_not_mix() -> None:
    pipes = [stable_diffusion() for _ in range(8)]
    prompts = [f"a red {letter}" for letter in "abcdefgh"]
    alone = [latents_of(p, t, seed=i, **SIZE) for i, (p, t) in enumerate(zip(pipes, prompts))]  # noqa: B905
    traces: dict[int, Any] = {}
    latents: dict[int, torch.Tensor] = {}
    start = threading.Barrier(8)

    def work(i: int) -> None:
        start.wait()
        with RealAttentionExtractor(pipes[i]) as extractor:
            latents[i] = latents_of(pipes[i], prompts[i], seed=i, **SIZE)
        traces[i] = extractor.trace

    with warnings.catch_warnings():  # filters are not a thread's own: set them once, out here
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i in range(8):
        assert torch.equal(latents[i], alone[i])
        assert traces[i].prompt == prompts[i]
        assert traces[i].complete
        assert traces[i].audit.passed


@pytest.mark.parametrize("embedded", [False, True])
def test_two_threads_on_one_pipeline_are_refused_and_never_mixed(embedded: bool) -> None:
    """The second one comes while the first is between two denoiser calls."""
    pipe = stable_diffusion()
    expected = latents_of(pipe, "a red apple", steps=4, **SIZE)
    given = pipe.encode_prompt("blue pie", "cpu", 1, True)
    names = ("prompt_embeds", "negative_prompt_embeds")
    intruder: dict[str, Any] = dict(zip(names, given, strict=True)) if embedded else {}
    errors: list[BaseException] = []

    def intrude(pipe: Any, step: int, t: Any, values: dict) -> dict:
        def other() -> None:
            try:
                latents_of(pipe, None if embedded else "blue pie", steps=3, **intruder, **SIZE)
            except CaptureError as error:
                errors.append(error)

        if step == 1:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        return values

    extractor = RealAttentionExtractor(pipe)
    first: Any = None
    try:
        with extractor:
            first = latents_of(pipe, "a red apple", steps=4, callback_on_step_end=intrude, **SIZE)
    except (CaptureError, IndexError):
        assert embedded  # only then the scheduler was reset before anybody could refuse
    assert len(errors) == 1
    assert "two threads" in str(errors[0])
    assert extractor.traces[0].prompt == "a red apple"
    if not embedded:
        assert torch.equal(first, expected)
        assert len(extractor.traces) == 1
        assert extractor.trace.complete
        assert extractor.trace.audit.passed


def test_two_runs_that_take_turns_are_refused() -> None:
    """Two generators of one pipeline, in one thread: the older one is stopped by name."""
    pipe = ScribbleLike()

    def run() -> Iterator[torch.Tensor]:
        keys = torch.randn(3, 154, 256)
        pipe.scheduler.set_timesteps(sigmas=np.linspace(1, 0.5, 2))
        for observer in list(pipe.observers):
            observer.run_begins(["red apple"], None, {})
        for t in pipe.scheduler.timesteps:
            with torch.no_grad():  # left before the yield: the two generators take turns
                sample = pipe.unet(torch.randn(3, 4, 32, 32), t, keys).sample
            yield sample

    extractor = RealAttentionExtractor(pipe, layers="mid_block.*")
    with extractor:
        first, second = run(), run()
        next(first)
        next(second)
        with pytest.raises(CaptureError, match="would mix"):
            next(first)
    assert [len(trace.steps) for trace in extractor.traces] == [1, 1]


def test_an_interrupted_thread_does_not_keep_the_model() -> None:
    """After a KeyboardInterrupt inside the denoiser another thread may go on."""
    model = unet()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    done: list[bool] = []
    keys = torch.randn(1, 7, 32)
    with RealAttentionExtractor(model) as extractor:
        handle = model.mid_block.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            model(torch.randn(1, 4, 16, 12), 500, keys)
        handle.remove()

        def work() -> None:
            model(torch.randn(1, 4, 16, 12), 400, keys)
            done.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert done == [True]
    assert [step.timestep for step in extractor.trace.steps] == [400]
    assert extractor.trace.audit.passed


# ── undo ─────────────────────────────────────────────────────────────────────────────────────


def test_a_closed_generator_leaves_nothing_behind() -> None:
    pipe = ScribbleLike()
    before = hooks_of(pipe.unet)

    def steps() -> Iterator[Any]:
        with RealAttentionExtractor(pipe, layers="mid_block.*") as extractor:
            x, keys = torch.randn(1, 4, 32, 32), torch.randn(3, 154, 256)
            pipe.scheduler.set_timesteps(sigmas=np.linspace(1, 0.25, 4))
            for t in pipe.scheduler.timesteps:
                with torch.no_grad():
                    v = pipe.unet(x.expand(3, -1, -1, -1), t, keys).sample[2:]
                x = pipe.scheduler.step(v, t, x).prev_sample
                yield extractor

    run = steps()
    extractor = next(run)
    next(run)
    run.close()
    assert hooks_of(pipe.unet) == before
    assert pipe.observers == []
    assert len(extractor.trace.steps) == 2


@contextmanager
def control_c(delay: float) -> Iterator[None]:
    """Strikes after `delay` seconds, also where the tests run in the background: there a shell
    has SIGINT ignored. Never within a garbage collection: what is raised in callbacks of that (a
    testing tool's) is not passed on.
    """
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(delay, signal.pthread_kill, (main, signal.SIGINT))
    gc.disable()
    timer.start()
    try:
        yield
    finally:
        timer.join()
        gc.enable()
        signal.signal(signal.SIGINT, before)


def test_control_c_in_the_middle_of_a_run_leaves_nothing_behind() -> None:
    """A real signal, wherever it strikes."""
    pipe = stable_diffusion()
    latents_of(pipe, **SIZE)
    models = (pipe.unet, pipe.text_encoder)
    before, processors = hooks_of(*models), dict(pipe.unet.attn_processors)
    for delay in (0.01, 0.05, 0.12):
        with pytest.raises(KeyboardInterrupt), RealAttentionExtractor(pipe), control_c(delay):
            latents_of(pipe, steps=400, **SIZE)
        assert hooks_of(*models) == before
        assert pipe.unet.attn_processors == processors


@pytest.mark.parametrize("family", list(FAMILIES))
def test_failing_at_any_point_of_attaching_leaves_nothing_behind(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = FAMILIES[family][0]()
    models = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    before = hooks_of(*models)
    calls, limit = 0, 0
    for name in ("register_forward_hook", "register_forward_pre_hook"):
        real = getattr(torch.nn.Module, name)

        def fail(self: Any, *args: Any, _real: Any = real, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == limit:
                raise KeyboardInterrupt
            return _real(self, *args, **options)

        monkeypatch.setattr(torch.nn.Module, name, fail)
    with RealAttentionExtractor(pipe):
        whole = calls
    for limit in {1, 2, 3, whole // 2, whole - 1, whole}:  # noqa: B007
        calls = 0
        with pytest.raises(KeyboardInterrupt), RealAttentionExtractor(pipe):
            pass
        assert hooks_of(*models) == before


# ── runs ─────────────────────────────────────────────────────────────────────────────────────


def test_two_pipeline_calls_seen_from_the_bare_denoiser_are_two_runs() -> None:
    """It has no schedule; but the noise went down, and then it goes up again."""
    for scheduler in (None, PNDMScheduler(skip_prk_steps=True, steps_offset=1)):
        pipe = stable_diffusion(**({} if scheduler is None else {"scheduler": scheduler}))
        with RealAttentionExtractor(pipe.unet) as extractor:
            latents_of(pipe, steps=3, **SIZE)
            latents_of(pipe, steps=4, **SIZE)
        extra = 0 if scheduler is None else 1
        assert [len(trace.steps) for trace in extractor.traces] == [3 + extra, 4 + extra]
        assert all(trace.batch == 2 for trace in extractor.traces)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDPMScheduler"])
def test_a_loop_by_hand_that_runs_twice_is_two_runs(kind: str) -> None:
    """One `set_timesteps`, and a scheduler that keeps no index: only the noise tells."""
    import diffusers

    scheduler = getattr(diffusers, kind)()
    scheduler.set_timesteps(3)
    model = unet()
    keys = torch.randn(1, 7, 32)
    with RealAttentionExtractor(model, scheduler=scheduler) as extractor:
        for _ in range(2):
            x = torch.randn(1, 4, 16, 12)
            for t in scheduler.timesteps:
                with torch.no_grad():
                    x = scheduler.step(model(x, t, keys).sample, t, x).prev_sample
    expected = scheduler.timesteps.tolist()
    assert [[s.timestep for s in trace.steps] for trace in extractor.traces] == [expected] * 2
    assert [[s.index for s in trace.steps] for trace in extractor.traces] == [[0, 1, 2]] * 2
    assert all(trace.complete for trace in extractor.traces)


def test_calls_of_a_bare_denoiser_at_one_timestep_are_one_step() -> None:
    """As guidance in two calls makes them."""
    model = unet()
    with RealAttentionExtractor(model) as extractor:
        for t in (900, 500, 100):
            for _ in range(2):
                model(torch.randn(1, 4, 16, 12), t, torch.randn(1, 7, 32))
    steps = extractor.trace.steps
    assert [(s.index, s.call) for s in steps] == [(i, c) for i in range(3) for c in range(2)]
    assert [s.timestep for s in steps] == [900, 900, 500, 500, 100, 100]
    assert extractor.trace.audit.passed


def test_one_extractor_twice_keeps_its_runs_apart() -> None:
    model = unet()
    extractor = RealAttentionExtractor(model)
    for t in (900, 500):
        with extractor:
            model(torch.randn(1, 4, 16, 12), t, torch.randn(1, 7, 32))
    assert [[s.timestep for s in trace.steps] for trace in extractor.traces] == [[900], [500]]


def test_true_guidance_has_an_unconditional_branch_of_its_own() -> None:
    pipe = flux()
    options = FAMILIES["flux"][1]
    with RealAttentionExtractor(pipe, branch="unconditional") as extractor:
        latents_of(pipe, steps=3, **options)
    trace = extractor.trace
    assert trace.prompt == "dim"
    assert [step.index for step in trace.steps] == [0, 1, 2]
    assert trace.audit.passed


@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "HeunDiscrete"])
def test_a_run_that_stops_before_its_schedule_is_complete(name: str) -> None:
    """SDXL's base model hands over to a refiner at `denoising_end`."""
    import diffusers

    pipe = sdxl()
    pipe.scheduler = getattr(diffusers, f"{name}Scheduler")()
    options: dict[str, Any] = {"steps": 10, "denoising_end": 0.5, **SIZE}
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    trace = extractor.trace
    assert trace.complete
    assert trace.steps[-1].index < 9
    assert extractor.forecast == trace.nbytes
    with RealAttentionExtractor(pipe, steps=[-1]) as extractor:
        latents_of(pipe, **options)
    last = [s for s in trace.steps if s.index == trace.steps[-1].index]
    assert list(extractor.trace.steps) == last


def test_a_loop_by_hand_is_not_told_by_an_earlier_call_of_the_pipeline() -> None:
    pipe = stable_diffusion()
    latents_of(pipe, steps=2, **SIZE)
    pipe.scheduler.set_timesteps(5)
    keys = torch.randn(1, 77, 32)
    with RealAttentionExtractor(pipe, steps=[-1]) as extractor:
        for t in pipe.scheduler.timesteps:
            pipe.unet(torch.randn(1, 4, 16, 12), t, keys)
    assert [step.index for step in extractor.trace.steps] == [4]


def test_steps_that_never_ran_are_named() -> None:
    pipe = stable_diffusion()
    with (
        pytest.raises(CaptureError, match=r"fits none of the steps 0–1 that ran"),
        RealAttentionExtractor(pipe, steps=[7]),
    ):
        latents_of(pipe, **SIZE)
    with RealAttentionExtractor(pipe, steps=1) as extractor:
        latents_of(pipe, **SIZE)
    assert [step.index for step in extractor.trace.steps] == [1]
    for wrong in ("all", [], [1.5], [True]):
        with pytest.raises(SettingError, match="steps="):
            RealAttentionExtractor(pipe, steps=wrong)


def test_half_precision_by_autocast_has_its_own_tolerance() -> None:
    model = unet()
    with (
        RealAttentionExtractor(model) as extractor,
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.no_grad(),
    ):
        model(torch.randn(1, 4, 16, 12), 500, torch.randn(1, 7, 32))
    audit = extractor.trace.audit
    assert audit is not None
    assert (audit.dtype, audit.passed) == ("bfloat16", True), str(audit)


@pytest.mark.parametrize("options", [{}, {"heads": "all"}, {"tokens": "all"}, {"steps": [0, -1]}])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_forecast_is_what_is_kept(family: str, options: dict[str, Any]) -> None:
    make, call = FAMILIES[family]
    pipe = make()
    with RealAttentionExtractor(pipe, **options) as extractor:
        latents_of(pipe, steps=3, **call)
    assert extractor.forecast == extractor.trace.nbytes


@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "PNDMScheduler"])
def test_the_forecast_counts_second_calls(scheduler: str) -> None:
    import diffusers

    pipe = stable_diffusion(scheduler=getattr(diffusers, scheduler)())
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, steps=5, **SIZE)
    assert extractor.forecast == extractor.trace.nbytes


def test_the_limit_holds_for_several_runs_and_for_adapters() -> None:
    from tiny_variants import with_ip_adapter

    pipe = with_ip_adapter()
    embeds = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"ip_adapter_image_embeds": [embeds], "steps": 4, **SIZE}
    with RealAttentionExtractor(pipe, heads="all") as extractor:
        latents_of(pipe, **options)
    whole = extractor.trace.nbytes
    assert extractor.forecast == whole
    limited = RealAttentionExtractor(pipe, heads="all", memory_limit=whole)
    with pytest.warns(CaptureWarning, match="none was kept"), limited:  # noqa: PT031
        latents_of(pipe, **options)
        latents_of(pipe, **options)
    first, second = limited.traces
    assert first.nbytes == whole
    assert second.steps == ()
    assert limited.latest is not None
    with pytest.raises(NotRecordedError, match="none was kept"):
        second.word("apple")
    half = RealAttentionExtractor(pipe, heads="all", memory_limit=whole // 2)
    with pytest.warns(CaptureWarning, match="heads"), half:
        latents_of(pipe, **options)
    assert half.trace.nbytes <= whole // 2
