"""What a pipeline says of itself holds while it runs; other callers of its denoiser say their own.

Every expectation is what the caller did: how many pictures it asked for, with which prompts.
"""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    KDPM2AncestralDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
)
from PIL import Image
from tiny_pipelines import latents_of, stable_diffusion, unet

from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
from scribblediffusion.attention.intervention import KnockOut
from scribblediffusion.errors import CaptureError, SettingError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}
PROMPTS = ["a red apple", "sky"]


def texts(extractor: RealAttentionExtractor) -> list[str]:
    return [prompt.text for prompt in extractor.trace.prompts]


@pytest.mark.parametrize("earlier", [None, 1.0, 7.5])
def test_a_loop_by_hand_owes_nothing_to_an_earlier_call(earlier: float | None) -> None:
    pipe = stable_diffusion()
    if earlier is not None:
        latents_of(pipe, "x", steps=1, guidance_scale=earlier, **SIZE)
    with RealAttentionExtractor(pipe) as extractor, torch.no_grad():
        condition, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
        pipe.scheduler.set_timesteps(2)
        for t in pipe.scheduler.timesteps:
            pipe.unet(torch.randn(2, 4, 16, 12), t, condition)
    assert texts(extractor) == PROMPTS


@pytest.mark.parametrize("earlier", [None, 1.0, 7.5])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_another_pipeline_with_the_same_denoiser(earlier: float | None, scale: float) -> None:
    """It is the one that runs, so that its guidance and its scheduler are the run's."""
    pipe = stable_diffusion()
    parts = pipe.components | {"scheduler": DDIMScheduler()}
    other: Any = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    if earlier is not None:
        latents_of(pipe, "x", steps=1, guidance_scale=earlier, **SIZE)
    images = [Image.new("RGB", (24, 32), c) for c in ("red", "blue")]
    with RealAttentionExtractor(pipe) as extractor:
        other(
            PROMPTS,
            images,
            strength=0.5,
            num_inference_steps=4,
            guidance_scale=scale,
            output_type="latent",
        )
    assert texts(extractor) == PROMPTS
    assert extractor.trace.complete
    assert [s.timestep for s in extractor.trace.steps] == other.scheduler.timesteps[2:].tolist()


@pytest.mark.parametrize("betas", [{}, {"beta_start": 0.00085, "beta_end": 0.012}])
def test_noise_of_both_calls_of_the_ancestral_kdpm2(betas: dict[str, Any]) -> None:
    """What is remaining is σ/(1 + σ) of the σ by which the scheduler itself scales the input."""
    pipe = stable_diffusion(scheduler=KDPM2AncestralDiscreteScheduler(**betas))
    scaled: list[float] = []
    scale = pipe.scheduler.scale_model_input

    def noted(sample: Any, timestep: Any) -> Any:
        given = scale(sample, timestep)
        ratio = float((sample / given).median())  # √(σ² + 1)
        scaled.append((ratio**2 - 1) ** 0.5 if ratio > 1 else 0.0)
        return given

    pipe.scheduler.scale_model_input = noted
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, steps=4, **SIZE)
    steps = extractor.trace.steps
    assert len(steps) == len(scaled) == 7
    said = [step.noise_remaining for step in steps]
    assert said == pytest.approx([s / (1 + s) for s in scaled], abs=2e-3)
    assert min(said) > 0


def loop(target: Any, steps: Any, scheduler: Any = None) -> list[int]:
    with RealAttentionExtractor(target, steps=steps, scheduler=scheduler) as extractor:
        for t in (800, 600, 400):
            with torch.no_grad():
                target(torch.randn(1, 4, 16, 12), torch.tensor(t), torch.zeros(1, 77, 32))
    return [step.index for step in extractor.trace.steps]


@pytest.mark.parametrize("steps", [slice(-1, None), slice(None, -1), slice(-2, 3), -1, [-1, -2]])
def test_steps_from_the_end_need_a_schedule(steps: Any) -> None:
    with pytest.raises(CaptureError, match="need a schedule: give scheduler="):
        loop(unet(), steps)
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(3)
    scheduler.timesteps = torch.tensor([800, 600, 400])
    last = {-1: 2, -2: 1}
    numbers = [steps] if isinstance(steps, int) else steps
    whole = isinstance(steps, slice)
    wanted = list(range(3)[steps]) if whole else sorted(last[n] for n in numbers)
    assert loop(unet(), steps, scheduler) == wanted


def test_some_steps_from_the_end_are_missed_by_name() -> None:
    with pytest.warns(CaptureWarning, match="need a schedule"):
        assert loop(unet(), [0, -1]) == [0]


@pytest.mark.parametrize("steps", [slice(1.5, None), slice("a"), slice(0, 3, 0)])
def test_slices_that_are_none_are_refused_at_once(steps: Any) -> None:
    with pytest.raises(SettingError, match="steps=slice"):
        RealAttentionExtractor(unet(), steps=steps)


def test_maps_that_do_not_fit_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that nobody prints helps nobody: a failed proof says so by itself."""
    pipe = stable_diffusion()

    def wrong(self: Any, error: torch.Tensor) -> None:
        self.output = error + 1

    monkeypatch.setattr("scribblediffusion.attention.run.Check.note_output", wrong)
    with pytest.warns(CaptureWarning, match="not what the model computed: audit FAILED"):  # noqa: SIM117
        with RealAttentionExtractor(pipe) as extractor:
            latents_of(pipe, steps=1, **SIZE)
    assert not extractor.trace.audit.passed


@pytest.mark.parametrize("steps", [slice(1.5, None), "first", [0.5], []])
def test_a_knock_out_reads_steps_as_the_extractor_does(steps: Any) -> None:
    for made in (
        lambda: KnockOut(unet(), 3, steps=steps),
        lambda: RealAttentionExtractor(unet(), steps=steps),
    ):
        with pytest.raises(SettingError, match="steps="):
            made()
