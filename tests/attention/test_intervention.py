"""Knock-outs: exactly 0, shared among the rest, really used by the model, and undone."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from scribbles import small_pipeline
from tiny_pipelines import FAMILIES, latents_of, sdxl, stable_diffusion, unet

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.intervention import KnockOut
from scribblediffusion.errors import (
    CaptureError,
    SettingError,
    TraceError,
    UnknownFamilyError,
    UnknownWordError,
)
from scribblediffusion.settings import seeded
from scribblediffusion.sketch import Region

pytestmark = pytest.mark.filterwarnings("ignore")


def hooks(module: torch.nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in module.modules())


def denoiser(pipe: Any) -> torch.nn.Module:
    return getattr(pipe, "unet", None) or pipe.transformer


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "sd3"])
@pytest.mark.parametrize("extractor_first", [True, False])
def test_weight_is_exactly_0_and_the_audit_of_the_changed_run_passes(name, extractor_first):
    """The audit rebuilds what each layer returned from the weights: the model really used them."""
    make, options = FAMILIES[name]
    pipe = make()
    before = hooks(denoiser(pipe))
    free = latents_of(pipe, **options)
    contexts = [RealAttentionExtractor(pipe), KnockOut(pipe, "apple")]
    extractor = contexts[0]
    first, second = contexts if extractor_first else contexts[::-1]
    with first, second:
        changed = latents_of(pipe, **options)
    trace = extractor.trace
    assert not trace.word("apple", view="attention").any()
    assert trace.word("red", view="attention").min() > 0
    assert np.allclose(trace.attention().sum(2), 1, atol=1e-4)
    assert trace.audit.passed, str(trace.audit)
    assert not torch.equal(free, changed)
    assert hooks(denoiser(pipe)) == before
    assert torch.equal(free, latents_of(pipe, **options))


def test_the_rest_shares_the_weight_in_its_old_proportions():
    """In a layer that nothing before it has changed: softmax over the rest."""
    pipe = stable_diffusion()
    options = {"height": 32, "width": 24}
    with RealAttentionExtractor(pipe, tokens="all") as free:
        latents_of(pipe, steps=1, **options)
    with KnockOut(pipe, "apple"), RealAttentionExtractor(pipe, tokens="all", heads="all") as after:
        latents_of(pipe, steps=1, **options)
    with RealAttentionExtractor(pipe, tokens="all", heads="all") as free:
        latents_of(pipe, steps=1, **options)
    old, new = (x.trace.weights(layer=0, step=0) for x in (free, after))
    keys = list(free.trace.find("apple")[0])
    expected = old.copy()
    expected[:, :, keys] = 0
    expected /= expected.sum(axis=2, keepdims=True)
    assert np.allclose(new, expected, atol=1e-6)
    assert (new[:, :, keys] == 0).all()


def test_only_the_chosen_layers_and_steps():
    pipe = stable_diffusion()
    options = {"height": 32, "width": 24, "steps": 4}
    with (
        KnockOut(pipe, "apple", layers="mid_block.*", steps=[1, -1]) as knock,
        RealAttentionExtractor(pipe) as extractor,
    ):
        latents_of(pipe, **options)
    trace = extractor.trace
    for layer in trace.layers:
        for step in range(4):
            weight = trace.word("apple", view="attention", layer=layer.name, step=step)
            silent = layer.name.startswith("mid_block") and step in (1, 3)
            assert (not weight.any()) == silent
    assert knock.applied == 2
    with KnockOut(pipe, "apple", steps=slice(2, None)), RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    weights = [extractor.trace.word("apple", view="attention", step=i).max() for i in range(4)]
    assert [w == 0 for w in weights] == [False, False, True, True]


def test_a_default_device_of_torch_makes_no_difference():
    model, given = unet(), (torch.randn(1, 4, 16, 12), 500, torch.randn(1, 7, 32))
    with torch.no_grad(), KnockOut(model, 3):
        expected = model(*given).sample
    with torch.no_grad(), KnockOut(model, 3), torch.device("meta"):
        assert torch.equal(model(*given).sample, expected)


def test_the_unconditional_rows_are_left_alone():
    pipe = stable_diffusion()
    with (
        KnockOut(pipe, "apple"),
        RealAttentionExtractor(pipe, branch="unconditional", tokens="all") as extractor,
    ):
        latents_of(pipe, height=32, width=24)
    assert extractor.trace.attention().min() > 0


def drawn(pipe, prompts, **settings):
    ink = np.full((256, 256), 255, np.uint8)
    ink[60:190, 60:66] = ink[60:190, 180:186] = 0
    return pipe(
        prompts,
        ink,
        generator=[g for _ in prompts for g in seeded(3)],
        num_inference_steps=2,
        output_type="np",
        **settings,
    ).images


def test_each_picture_of_a_batch_has_its_own_and_an_empty_one_keeps_its_bits():
    pipe = small_pipeline()
    prompts = ["a red apple"] * 3
    free = drawn(pipe, prompts)
    with (
        KnockOut(pipe, each=[(), ("red",), ("red", "apple")]) as knock,
        RealAttentionExtractor(pipe) as extractor,
    ):
        changed = drawn(pipe, prompts)
    assert knock.applied == 2 * len(extractor.trace.layers)
    silent = [
        [not extractor.trace.word(w, view="attention", picture=i).any() for w in ("red", "apple")]
        for i in range(3)
    ]
    assert silent == [[False, False], [True, False], [True, True]]
    assert extractor.trace.audit.passed
    assert np.array_equal(changed[0], free[0])
    assert not np.array_equal(changed[1], free[1])


@pytest.mark.parametrize("branch", ["full", "sketch_only"])
def test_a_sketch_region_is_out_of_every_row_that_has_the_sketch(branch):
    pipe = small_pipeline()
    with (
        KnockOut(pipe, Region(8, 2, 1)),
        RealAttentionExtractor(pipe, branch=branch) as extractor,
    ):
        drawn(pipe, ["a red apple"])
    assert not extractor.trace.region(2, 1, view="attention").any()
    assert extractor.trace.region(2, 2, view="attention").any()
    assert extractor.trace.audit.passed


def test_processors_that_do_not_heed_a_mask_are_refused_by_name():
    make, _ = FAMILIES["sd3"]
    with pytest.raises(UnknownFamilyError, match="JointAttnProcessor2_0"):
        KnockOut(make(), "apple")

    class Own:
        def __call__(self, attn, hidden_states, *args, **kwargs):
            return hidden_states

    model = unet()
    model.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(Own())
    with pytest.raises(UnknownFamilyError, match=r"mid_block.*Own"):
        KnockOut(model, 3)
    KnockOut(model, 3, layers="up_blocks.*")


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_undone_after_an_error_and_when_its_generator_is_closed(stop):
    pipe = stable_diffusion()
    before = hooks(pipe.unet), list(pipe.unet.attn_processors.values())

    def fail(*_):
        raise stop

    broken = pipe.unet.mid_block.register_forward_hook(fail)
    with pytest.raises(stop), KnockOut(pipe, "apple"):
        latents_of(pipe, height=32, width=24)
    broken.remove()
    assert (hooks(pipe.unet), list(pipe.unet.attn_processors.values())) == before

    def pictures():
        with KnockOut(pipe, "apple"):
            yield latents_of(pipe, height=32, width=24)

    loop = pictures()
    next(loop)
    assert hooks(pipe.unet) > before[0]
    loop.close()
    assert (hooks(pipe.unet), list(pipe.unet.attn_processors.values())) == before


def test_what_cannot_be_done_is_said():
    pipe = stable_diffusion()
    options = {"height": 32, "width": 24}
    with pytest.raises(SettingError):
        KnockOut(pipe)
    with pytest.raises(UnknownWordError, match="pear"), KnockOut(pipe, "pear"):
        latents_of(pipe, **options)
    with pytest.raises(TraceError, match="999"), KnockOut(pipe, 999):
        latents_of(pipe, **options)
    with pytest.raises(CaptureError, match="nothing was knocked out"), KnockOut(pipe, 3, steps=[9]):
        latents_of(pipe, **options)
    with pytest.raises(SettingError, match="2 pictures"), KnockOut(pipe, each=[(3,), (4,)]):
        latents_of(pipe, **options)
    with pytest.raises(SettingError, match="no key left"), KnockOut(pipe, *range(77)):
        latents_of(pipe, **options)
    knock = KnockOut(pipe, 3)
    with pytest.raises(CaptureError, match="open already"), knock, knock:
        pass
    assert hooks(pipe.unet) == hooks(stable_diffusion().unet)


def test_a_bare_denoiser_takes_keys_and_has_steps_from_its_scheduler():
    model = unet()
    sample, keys = torch.randn(2, 4, 16, 16), torch.randn(2, 6, 32)
    masked = torch.tensor([[1, 1, 1, 0, 1, 0]] * 2)
    with KnockOut(model, 1, 4), RealAttentionExtractor(model) as extractor:
        model(sample, 1, keys, encoder_attention_mask=masked)
    weights = extractor.trace.weights(layer=0, step=0)
    alive = [bool(weights[:, :, k].any()) for k in range(6)]
    assert alive == [True, False, True, False, False, False]
    assert extractor.trace.audit.passed
    with pytest.raises(SettingError, match="no key left"), KnockOut(model, 0, 1, 2, 4):
        model(sample, 1, keys, encoder_attention_mask=masked)


@pytest.mark.parametrize("name", ["AttnProcessor", "SlicedAttnProcessor", "fused", "adapter"])
def test_every_processor_that_is_accepted_heeds_the_mask(name):
    from diffusers.models import attention_processor as processors
    from tiny_variants import with_ip_adapter

    options: dict[str, Any] = {"height": 32, "width": 24}
    pipe = stable_diffusion()
    if name == "adapter":
        pipe = with_ip_adapter()
        options["ip_adapter_image_embeds"] = [torch.randn(2, 1, 16)]
    elif name == "fused":
        pipe.unet.fuse_qkv_projections()
    else:
        arguments = (2,) if name.startswith("Sliced") else ()
        pipe.unet.set_attn_processor(getattr(processors, name)(*arguments))
    with KnockOut(pipe, "apple", steps=0), RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    trace = extractor.trace
    assert not trace.word("apple", view="attention", step=0).any()
    assert trace.word("apple", view="attention", step=1).min() > 0
    assert trace.audit.passed, str(trace.audit)


def test_each_run_of_a_loop_by_hand_has_its_own_steps():
    """One `set_timesteps` and no index: the noise goes up again where the second run begins."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(3)
    model, keys = unet(), torch.randn(1, 7, 32)
    with (
        KnockOut(model, 3, steps=[0], scheduler=scheduler) as knock,
        RealAttentionExtractor(model, scheduler=scheduler) as extractor,
    ):
        for _ in range(2):
            for t in scheduler.timesteps:
                model(torch.randn(1, 4, 16, 12), t, keys)
    assert knock.applied == 2 * len(extractor.traces[0].layers)
    assert len(extractor.traces) == 2
    for trace in extractor.traces:
        dark = [not trace.token(3, view="attention", step=step).any() for step in trace.steps]
        assert dark == [True, False, False]


def test_the_last_step_is_the_last_one_that_runs():
    pipe = sdxl()
    options = {"steps": 10, "denoising_end": 0.5, "height": 32, "width": 24}
    with KnockOut(pipe, "apple", steps=[-1]), RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    trace = extractor.trace
    dark = [not trace.word("apple", view="attention", step=step).any() for step in trace.steps]
    assert dark == [False] * (len(trace.steps) - 1) + [True]


def test_a_picture_of_its_own_may_have_one_word_or_a_number_of_numpys():
    pipe = stable_diffusion()
    knock_out = KnockOut(pipe, each=["apple", ["a", np.int64(3)]])
    assert knock_out._each == (("apple",), ("a", 3))
    assert KnockOut(pipe, np.int64(3))._what == (3,)
    with pytest.raises(SettingError, match="layers=3"):
        KnockOut(pipe, "apple", layers=3)
