"""Refusals, threads, choices, live reading and bounded memory."""

import gc
import threading
from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import latents_of, stable_diffusion, unet

from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
from scribblediffusion.errors import (
    CaptureError,
    NotRecordedError,
    SettingError,
    UnknownFamilyError,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}


@pytest.fixture(scope="module")
def model() -> Any:
    return unet()


def call(model: Any, timestep: int = 500, keys: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(timestep)
    sample = torch.randn(1, 4, 16, 12, generator=generator)
    return model(sample, timestep, torch.randn(1, keys, 32, generator=generator)).sample


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(UnknownFamilyError, match=r"Linear.*FluxTransformer2DModel \(FLUX"):
        RealAttentionExtractor(torch.nn.Linear(2, 2))
    with pytest.raises(UnknownFamilyError, match="a list"):
        RealAttentionExtractor([])


def test_a_unet_without_known_blocks_is_refused() -> None:
    blocks = {
        "down_block_types": ("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    }
    with pytest.raises(UnknownFamilyError, match="SimpleCrossAttnDownBlock2D"):
        RealAttentionExtractor(unet(**blocks))
    with pytest.raises(UnknownFamilyError, match=r"\(UNetMidBlock2DSimpleCrossAttn\); known are"):
        RealAttentionExtractor(unet(mid_block_type="UNetMidBlock2DSimpleCrossAttn"))


def test_a_compiled_model_is_refused_by_name(model: Any) -> None:
    with pytest.raises(UnknownFamilyError, match="compiled model hides its layers"):
        RealAttentionExtractor(torch.compile(model, backend="eager"))


def test_a_model_without_a_condition_is_refused() -> None:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    with pytest.raises(UnknownFamilyError, match="none that looks at a condition"):
        RealAttentionExtractor(unet(**blocks, mid_block_type=None))


@pytest.mark.parametrize(
    "wrong",
    [
        {"heads": "some"},
        {"tokens": "few"},
        {"branch": "half"},
        {"memory_limit": 0},
        {"memory_limit": None},
        {"memory_limit": "1 GiB"},
        {"memory_limit": True},
        {"layers": None},
        {"layers": []},
        {"layers": 3},
        {"layers": ["mid_block.*", None]},
    ],
)
def test_wrong_settings_are_named(model: Any, wrong: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        RealAttentionExtractor(model, **wrong)


def test_layers_by_glob(model: Any) -> None:
    with RealAttentionExtractor(model, layers=["mid_block.*", "*up_blocks.1*"]) as extractor:
        call(model)
    assert {layer.name.split(".")[0] for layer in extractor.trace.layers} == {
        "mid_block",
        "up_blocks",
    }
    with pytest.raises(CaptureError, match=r"fits none of the 7 layers: down_blocks"):
        RealAttentionExtractor(model, layers="nowhere.*")


def test_steps_by_number_and_by_slice() -> None:
    pipe = stable_diffusion()
    for steps, expected in (([0, -1], [0, 4]), (slice(None, None, 2), [0, 2, 4]), ([3], [3])):
        with RealAttentionExtractor(pipe, steps=steps) as extractor:
            latents_of(pipe, steps=5, **SIZE)
        trace = extractor.trace
        assert [step.index for step in trace.steps] == expected
        assert trace.audit.passed
        assert trace.complete
    with pytest.raises(NotRecordedError, match=r"recorded steps are \[3\]"):
        trace.word("apple", step=0)


def test_nested_and_double_capture_are_refused(model: Any) -> None:
    extractor = RealAttentionExtractor(model)
    with extractor:
        with pytest.raises(CaptureError, match="attached already"), extractor:
            pass
        with (
            pytest.raises(CaptureError, match="captured by another extractor"),
            RealAttentionExtractor(model),
        ):
            pass
        call(model)
    assert extractor.trace.audit.passed
    with RealAttentionExtractor(model) as again:
        call(model)
    assert len(again.trace.steps) == 1


def test_nothing_run_has_no_trace(model: Any) -> None:
    with RealAttentionExtractor(model) as extractor:
        assert extractor.latest is None
    assert extractor.traces == []
    with pytest.raises(CaptureError, match="no run was captured"):
        _ = extractor.trace


def test_latest_is_the_newest_finished_step(model: Any) -> None:
    seen = []
    with RealAttentionExtractor(model) as extractor:
        for t in (900, 500, 100):
            call(model, t)
            thread = threading.Thread(target=lambda: seen.append(extractor.latest))
            thread.start()
            thread.join()
    assert [trace.steps[0].timestep for trace in seen] == [900, 500, 100]
    assert [len(trace.steps) for trace in seen] == [1, 1, 1]
    assert np.array_equal(
        seen[2].weights(layer=0, step=2), extractor.trace.weights(layer=0, step=2)
    )


def test_latest_is_the_newest_step_whatever_the_limit_keeps(model: Any) -> None:
    """Live reading shows the step that ran last, not one of the record, nor of an earlier run."""
    with RealAttentionExtractor(model) as extractor:
        call(model)
        whole = extractor.trace.nbytes
    for limit in (1, whole // 100, whole // 4, 3 * whole):
        seen = []
        limited = RealAttentionExtractor(model, memory_limit=limit)
        with pytest.warns(CaptureWarning, match="memory limit"), limited:  # noqa: PT031
            for t in (900, 700, 500, 300, 100, 950, 450):  # two runs
                call(model, t)
                seen.append(limited.latest)
        assert [trace.steps[0].timestep for trace in seen] == [900, 700, 500, 300, 100, 950, 450]
        assert all(trace.attention().sum(2) == pytest.approx(1, abs=5e-5) for trace in seen)
        assert sum(trace.nbytes for trace in limited.traces) <= limit


def test_eight_threads_with_eight_models_do_not_mix() -> None:
    models = [unet() for _ in range(8)]
    alone = [call(m, 100 + i) for i, m in enumerate(models)]
    traces: dict[int, Any] = {}
    outputs: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        with RealAttentionExtractor(models[i]) as extractor:
            outputs[i] = call(models[i], 100 + i)
        traces[i] = extractor.trace

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        assert torch.equal(outputs[i], alone[i])
        assert traces[i].steps[0].timestep == 100 + i
        assert traces[i].audit.passed


@pytest.mark.parametrize("whole", [False, True])
def test_two_threads_in_one_model_are_refused(model: Any, whole: bool) -> None:
    """Whether the model or its pipeline is captured."""
    errors: list[BaseException] = []
    first = threading.current_thread()

    def intrude(*_: Any) -> None:
        if threading.current_thread() is not first:
            return

        def other() -> None:
            try:
                call(model)
            except CaptureError as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    extractor = RealAttentionExtractor(stable_diffusion(unet=model) if whole else model)
    with extractor:
        handle = model.mid_block.register_forward_hook(intrude)
        call(model)
        handle.remove()
        call(model, 400)
    assert len(errors) == 1
    assert "two threads" in str(errors[0])
    assert len(extractor.trace.steps) == 2
    assert extractor.trace.audit.passed


@pytest.mark.parametrize("anew", [False, True])
def test_a_run_may_go_on_in_another_thread(model: Any, anew: bool) -> None:
    """It brings the same conditions, here two in turns, as tensors of their own or not."""
    prompts = [torch.randn(1, 7, 32) for _ in range(2)]
    with RealAttentionExtractor(model) as extractor:
        for t in (900, 500, 100):
            keys = [prompt.clone() if anew else prompt for prompt in prompts]

            def step(t: int = t, keys: Any = keys) -> None:
                for key in keys:
                    model(torch.randn(1, 4, 16, 12), t, key)

            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
    assert [(s.index, s.call) for s in extractor.trace.steps] == [
        (i, c) for i in range(3) for c in range(2)
    ]


def test_memory_is_thinned_in_the_stated_order() -> None:
    pipe = stable_diffusion()
    with RealAttentionExtractor(pipe, heads="all") as extractor:
        latents_of(pipe, steps=4, **SIZE)
    whole = extractor.trace
    limits = {0.5: "heads", 0.1: "coarser", 0.016: "one step in"}
    for share, sentence in limits.items():
        limit = int(whole.nbytes * share)
        thinned = RealAttentionExtractor(pipe, heads="all", memory_limit=limit)
        with pytest.warns(CaptureWarning, match=sentence), thinned:
            latents_of(pipe, steps=4, **SIZE)
        trace = thinned.trace
        assert trace.nbytes <= limit
        assert trace.heads == "mean"
        assert trace.audit.passed
        assert np.abs(trace.attention().sum(2) - 1).max() < 5e-5
        with pytest.raises(NotRecordedError, match="heads"):
            trace.word("apple", head=0)
    assert len(trace.steps) < 4
    assert trace.layers[0].thinned_from == (16, 12)


def test_of_the_wanted_steps_every_second_is_kept() -> None:
    """Thinning counts the wanted steps: with odd ones alone something is left, too."""
    pipe = stable_diffusion()
    options: dict[str, Any] = {"layers": "mid_block.*"}
    with RealAttentionExtractor(pipe, **options) as extractor:
        latents_of(pipe, steps=8, height=8, width=8)
    room = 2 * extractor.trace.nbytes // 8
    thinned = RealAttentionExtractor(pipe, steps=[1, 3, 5, 7], memory_limit=room, **options)
    with pytest.warns(CaptureWarning, match="one step in 2 was kept"), thinned:
        latents_of(pipe, steps=8, height=8, width=8)
    assert [step.index for step in thinned.trace.steps] == [1, 5]
    assert thinned.trace.nbytes <= room
    assert thinned.trace.audit.expected == 4


def test_a_run_longer_than_foreseen_stays_within_the_limit(model: Any) -> None:
    with RealAttentionExtractor(model) as extractor:
        call(model)
    limit = 60 * extractor.trace.nbytes
    longer = RealAttentionExtractor(model, memory_limit=limit)
    with pytest.warns(CaptureWarning, match="coarser"), longer:
        [call(model, 999 - t) for t in range(80)]
    trace = longer.trace
    assert trace.nbytes <= limit
    assert len(trace.steps) == 80
    assert np.abs(trace.attention().sum(2) - 1).max() < 5e-5


def test_capture_that_goes_wrong_never_stops_a_run(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scribblediffusion.attention import folding

    expected = call(model)

    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(folding, "weights", broken)
    outputs = []
    with (
        pytest.raises(CaptureError, match="out of memory"),
        RealAttentionExtractor(model),
    ):
        outputs.append(call(model))
    assert torch.equal(outputs[0], expected)


def test_nothing_is_left_behind(model: Any) -> None:
    """No tensor of the run lives on in the extractor once its traces are made."""
    with RealAttentionExtractor(model) as extractor:
        call(model)
    _ = extractor.trace
    gc.collect()
    held = [o for o in gc.get_referrers(model) if isinstance(o, RealAttentionExtractor)]
    assert len(held) <= 1
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
