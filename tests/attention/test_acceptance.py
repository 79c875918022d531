"""What other extractors get wrong, each by name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image
from tiny_pipelines import PROMPT, clip_encoder, flux, latents_of, stable_diffusion, unet
from tiny_variants import with_ip_adapter

from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.records import Prompt, Token, Word
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import CaptureError, SeveralRunsError, UnknownWordError
from scribblediffusion.model.unet import SHIPPED, ScribbleUNet
from scribblediffusion.sketch import REGIONS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}


class ScribbleLike:
    """The shipped architecture with random weights, two dials, a key layout and observers."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.unet = ScribbleUNet(**SHIPPED).eval()
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        self.observers: list[Any] = []
        words = (Word("red", (1,)), Word("apple", (2,), start=4))
        self.prompt = Prompt("red apple", self.tokens("[CLS]", "red", "apple", "[SEP]"), words)
        self.empty = Prompt("", self.tokens("[CLS]", "[SEP]"))

    @staticmethod
    def tokens(*words: str) -> tuple[Token, ...]:
        text = [Token(i, t, special=t[0] == "[") for i, t in enumerate(words)]
        rest = range(len(words), 77)
        text += [Token(i, "[PAD]", special=True, padding=True) for i in rest]
        return (*text, *(Token(77 + r.index, f"{r}", "sketch") for r in REGIONS))

    def key_layout(self) -> KeyLayout:
        return KeyLayout(
            {"text": range(77), "sketch": range(77, 154)},
            {
                "unconditional": (self.empty,),
                "sketch_only": (self.empty,),
                "full": (self.prompt,),
            },
            {r: 77 + r.index for r in REGIONS},
            (256, 256),
        )

    @torch.no_grad()
    def __call__(self, steps: int = 2) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        keys = torch.randn(3, 154, 256, generator=generator)
        mask = torch.ones(3, 154, dtype=torch.bool)
        mask[:, 4:77] = False
        mask[:2, 2:77] = False
        mask[0, 77:] = False
        latents = torch.randn(1, 4, 32, 32, generator=generator)
        self.scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
        watching = list(self.observers)
        for observer in watching:
            observer.run_begins(["red apple"], np.zeros((256, 256), np.uint8), {"seed": 0})
        for t in self.scheduler.timesteps:
            v = self.unet(
                latents.expand(3, -1, -1, -1), t, keys, encoder_attention_mask=mask
            ).sample[2:]
            latents = self.scheduler.step(v, t, latents).prev_sample
            for observer in watching:
                observer.step_ends(np.full((8, 8, 3), 7, np.uint8))
        for observer in watching:
            observer.run_ends([np.zeros((256, 256, 3), np.uint8)])
        return latents


@pytest.fixture(scope="module")
def scribble() -> ScribbleLike:
    return ScribbleLike()


@pytest.fixture(scope="module")
def pipe() -> Any:
    return stable_diffusion()


def capture(pipe: Any, *, prompt: Any = PROMPT, options: Any = None, **arguments: Any) -> Any:
    with RealAttentionExtractor(pipe, **arguments) as extractor:
        latents_of(pipe, prompt, **(SIZE | (options or {})))
    return extractor.trace


def test_154_keys_at_256_pixels(scribble: ScribbleLike) -> None:
    without = scribble()
    with RealAttentionExtractor(scribble, heads="all", tokens="all") as extractor:
        assert torch.equal(scribble(), without)
    assert scribble.observers == []
    trace = extractor.trace
    assert trace.audit is not None
    assert trace.audit.passed, str(trace.audit)
    fine = [layer for layer in trace.layers if layer.places == 1024]
    assert {layer.name.rsplit(".", 1)[1] for layer in fine} >= {"attn2"}
    for layer in fine:
        assert trace.weights(layer=layer, step=0).shape == (1, 8, 154, 1024)
    # Padding and what is masked out has a weight of exactly 0, in attn1 of cross-only blocks too.
    for layer in trace.layers:
        weights = trace.weights(layer=layer, step=-1)
        assert not weights[:, :, 4:77].any()
        assert np.abs(weights.sum(axis=2) - 1).max() < 5e-5
    assert any(layer.name.endswith("attn1") for layer in trace.layers)
    assert [step.noise_remaining for step in trace.steps] == pytest.approx([1.0, 0.5])
    assert [str(step) for step in trace.steps] == ["Noise remaining: 100%", "Noise remaining: 50%"]
    assert trace.region(2, 3, level=8).shape == (32, 32)
    assert sum(trace.shares().values()) == pytest.approx(1, abs=1e-4)
    assert trace.picture is not None
    assert trace.picture.shape == (256, 256, 3)
    assert trace.previews is not None
    assert trace.previews.shape == (2, 8, 8, 3)
    assert trace.sketch is not None
    assert trace.settings["seed"] == 0
    assert trace.complete


def test_branches_of_the_shipped_model(scribble: ScribbleLike) -> None:
    traces = {}
    for branch in ("full", "sketch_only", "unconditional"):
        with RealAttentionExtractor(scribble, branch=branch) as extractor:
            scribble(1)
        traces[branch] = extractor.trace
        assert extractor.trace.audit.passed
        assert extractor.trace.branch == branch
        words = ["red", "apple"] if branch == "full" else []
        assert [word.text for word in extractor.trace.words] == words
        assert extractor.trace.prompt == " ".join(words)
    assert traces["unconditional"].stream("sketch").max() == 0  # its mask hides the sketch
    full, sketch = (traces[b].stream("sketch") for b in ("full", "sketch_only"))
    assert not np.allclose(full, sketch)


def test_guidance_off(pipe: Any) -> None:
    trace = capture(pipe, options={"guidance_scale": 1.0})
    assert trace.batch == 1
    assert trace.audit.passed
    assert [w.text for w in trace.words] == ["a", "red", "apple", ",", "red"]


def test_non_square(pipe: Any) -> None:
    trace = capture(pipe, options={"height": 24, "width": 56})
    assert trace.grid == (12, 28)
    assert {(layer.height, layer.width) for layer in trace.layers} == {(12, 28), (6, 14)}
    assert trace.picture_size == (24, 56)
    assert trace.at(55, 23)
    odd = unet()
    with RealAttentionExtractor(odd) as extractor:
        odd(torch.randn(1, 4, 13, 18), 1, torch.randn(1, 7, 32))
    assert {(x.height, x.width) for x in extractor.trace.layers} == {(13, 18), (7, 9)}
    assert extractor.trace.audit.passed


def test_a_repeated_word(pipe: Any) -> None:
    trace = capture(pipe)
    first, second = trace.word("red"), trace.word("red", occurrence=1)
    both = trace.word("red", occurrence=None, view="attention")
    raw = [trace.word("red", occurrence=i, view="attention") for i in (0, 1)]
    assert not np.allclose(first, second)
    assert np.allclose(both, sum(raw) / 2, atol=1e-7)
    names = [share.name for share in trace.at(0, 0)]
    assert "red (1)" in names
    assert "red (2)" in names
    with pytest.raises(UnknownWordError, match=r"2 time\(s\)"):
        trace.word("red", occurrence=2)


def test_a_phrase_and_an_unknown_word(pipe: Any) -> None:
    trace = capture(pipe)
    phrase = trace.word("red apple", view="attention")
    parts = [trace.word(w, view="attention") for w in ("red", "apple")]
    assert np.allclose(phrase, sum(parts), atol=1e-7)
    with pytest.raises(UnknownWordError, match="a, red, apple"):
        trace.word("banana")


def test_words_cut_off_are_named(pipe: Any) -> None:
    trace = capture(pipe, prompt="red " * 74 + "apple banana cherry")
    assert trace.prompts[0].truncated == ("apple", "banana", "cherry")
    with pytest.raises(UnknownWordError, match="cut off by the length limit"):
        trace.word("banana")


def test_50_steps_keep_every_step(pipe: Any) -> None:
    trace = capture(pipe, options={"steps": 50})
    assert [step.index for step in trace.steps] == list(range(50))
    noise = [step.noise_remaining for step in trace.steps]
    assert noise == sorted(noise, reverse=True)
    assert len(trace.records) == 50 * len(trace.layers)


def test_batch_above_one(pipe: Any) -> None:
    prompts = ["a red apple", "apple pie, a"]
    trace = capture(pipe, prompt=prompts, options={"num_images_per_prompt": 2})
    assert trace.batch == 4
    assert [p.text for p in trace.prompts] == [prompts[0]] * 2 + [prompts[1]] * 2
    assert trace.word("pie", picture=2).sum() == pytest.approx(1, abs=1e-4)
    with pytest.raises(UnknownWordError):
        trace.word("pie", picture=0)
    assert trace.audit.passed


def test_two_runs_in_one_context(pipe: Any) -> None:
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "a red apple", **SIZE)
        latents_of(pipe, "blue pie", steps=3, seed=2, negative_prompt="a red apple", **SIZE)
    first, second = extractor.traces
    assert (first.prompt, len(first.steps)) == ("a red apple", 2)
    assert (second.prompt, len(second.steps)) == ("blue pie", 3)
    alone = capture(pipe, prompt="a red apple", options={"seed": 1})
    assert np.array_equal(first.attention(), alone.attention())
    with pytest.raises(SeveralRunsError):
        _ = extractor.trace


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_exception_in_the_middle(pipe: Any, error: type[BaseException]) -> None:
    def stop(pipe: Any, step: int, t: Any, values: dict) -> dict:
        if step == 1:
            raise error("stop")
        return values

    before = {n: list(m._forward_hooks) for n, m in pipe.unet.named_modules()}
    extractor = RealAttentionExtractor(pipe)
    with pytest.raises(error), extractor:
        latents_of(pipe, steps=4, callback_on_step_end=stop, **SIZE)
    assert {n: list(m._forward_hooks) for n, m in pipe.unet.named_modules()} == before
    assert len(extractor.trace.steps) == 2
    assert not extractor.trace.complete
    assert extractor.trace.word("apple").sum() == pytest.approx(1, abs=1e-4)
    with RealAttentionExtractor(pipe):  # and the pipeline is free again
        latents_of(pipe, **SIZE)


def test_failure_half_way_through_attaching(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = stable_diffusion()
    hooks = lambda: {  # noqa: E731
        n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in pipe.unet.named_modules()
    }
    before = hooks()
    calls = 0
    real = torch.nn.Module.register_forward_hook

    def fail(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise RuntimeError("no more hooks")
        return real(self, *args, **options)

    monkeypatch.setattr(torch.nn.Module, "register_forward_hook", fail)
    with pytest.raises(RuntimeError, match="no more hooks"), RealAttentionExtractor(pipe):
        pass
    assert hooks() == before


def test_flux_with_57_blocks_and_none_empty() -> None:
    pipe = flux(double=19, single=38)
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, steps=1, max_sequence_length=16, **SIZE)
    trace = extractor.trace
    assert len(trace.layers) == 57
    assert trace.audit.passed, str(trace.audit)
    for layer in trace.layers:
        assert trace.weights(layer=layer, step=0).max() > 0


class Unknown(AttnProcessor2_0):
    """A processor that nobody has heard of."""


def test_an_unknown_processor_present() -> None:
    pipe = stable_diffusion()
    for module in pipe.unet.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(Unknown())
    expected = latents_of(pipe, **SIZE)
    with RealAttentionExtractor(pipe) as extractor:
        assert torch.equal(latents_of(pipe, **SIZE), expected)
    assert extractor.trace.audit.passed, str(extractor.trace.audit)
    assert all(isinstance(p, Unknown) for p in pipe.unet.attn_processors.values())


def test_ip_adapter_present() -> None:
    """Its own softmax beside the text's; `test_variants` has masks, SDXL, SD3 and FLUX."""
    pipe = with_ip_adapter()
    pictures = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"ip_adapter_image_embeds": [pictures], **SIZE}
    expected = latents_of(pipe, **options)
    with RealAttentionExtractor(pipe) as extractor:
        assert torch.equal(latents_of(pipe, **options), expected)
    trace = extractor.trace
    assert trace.audit.passed, str(trace.audit)
    assert {layer.source for layer in trace.layers} == {"condition", "ip_adapter_0"}
    assert trace.attention().sum(2) == pytest.approx(1, abs=5e-5)


def test_saved_and_loaded_without_a_model(pipe: Any, tmp_path: Path) -> None:
    trace = capture(pipe, heads="all")
    path = trace.save(tmp_path / "run.safetensors")
    code = (
        "import sys, numpy as np\n"
        "from scribblediffusion.attention.trace import AttentionTrace\n"
        f"t = AttentionTrace.load({str(path)!r})\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert t.prompt == 'a red apple, red' and t.audit.passed\n"
        "assert abs(t.attention().sum(2) - 1).max() < 5e-4\n"
        "assert abs(t.word('apple').sum() - 1) < 5e-5\n"
        "print(t.audit)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("passed: 14 of 14 records")
    again = AttentionTrace.load(path)
    assert again.layers == trace.layers
    assert again.steps == trace.steps
    assert again.prompts == trace.prompts
    assert np.allclose(again.attention(), trace.attention(), atol=1e-3)


# ── schedulers, branches, pipelines ──────────────────────────────────────────────────────────


def test_two_calls_a_step_are_labelled() -> None:
    pipe = stable_diffusion(scheduler=HeunDiscreteScheduler())
    trace = capture(pipe, options={"steps": 3})
    assert [(s.index, s.call) for s in trace.steps] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert trace.audit.passed
    assert trace.complete
    pipe = stable_diffusion(scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1))
    trace = capture(pipe, options={"steps": 3})
    assert [(s.index, s.call) for s in trace.steps] == [(0, 0), (0, 1), (1, 0), (2, 0)]
    one = trace.weights(layer=0, step=trace.steps[0])
    mean = trace.weights(layer=0, step=0)
    assert np.allclose(mean, (one + trace.weights(layer=0, step=trace.steps[1])) / 2, atol=1e-7)
    pipe = stable_diffusion(scheduler=PNDMScheduler(steps_offset=1))
    trace = capture(pipe, options={"steps": 5})
    assert [(s.index, s.call) for s in trace.steps[:5]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert [(s.index, s.call) for s in trace.steps[12:]] == [(3, 0), (4, 0)]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (FlowMatchEulerDiscreteScheduler, {}, "sigma"),
        (FlowMatchHeunDiscreteScheduler, {}, "sigma"),
        (EulerDiscreteScheduler, {}, "ratio"),
        (EulerDiscreteScheduler, {"use_karras_sigmas": True}, "ratio"),
        (KDPM2DiscreteScheduler, {}, "ratio"),
        (DDIMScheduler, {}, "alphas"),
        (DDPMScheduler, {}, "alphas"),
    ],
)
def test_noise_remaining_comes_from_the_scheduler(kind: Any, options: dict, expected: str) -> None:
    """Checked by adding noise to a picture with the scheduler itself, where it can."""
    scheduler = kind(**options)
    model = unet()
    with RealAttentionExtractor(model, scheduler=scheduler) as extractor:
        scheduler.set_timesteps(4)
        x = torch.randn(1, 4, 16, 16)
        for t in scheduler.timesteps:
            x = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            model(x, t, torch.randn(1, 7, 32))
            x = scheduler.step(torch.randn_like(x), t, x).prev_sample
    noise = [step.noise_remaining for step in extractor.trace.steps]
    assert noise == sorted(noise, reverse=True)
    step = extractor.trace.steps[0]
    if expected == "sigma":
        assert noise[0] == step.sigma == float(scheduler.sigmas[0])
    elif expected == "ratio":
        assert noise[0] == pytest.approx(step.sigma / (1 + step.sigma))
    else:
        image, pure = torch.ones(1), torch.zeros(1)
        t = scheduler.timesteps[:1]
        a = scheduler.add_noise(image, pure, t).item()
        b = scheduler.add_noise(pure, image, t).item()
        assert noise[0] == pytest.approx(b / (a + b), abs=1e-6)


def test_an_unknown_scheduler_says_not_known() -> None:
    class Strange(DDIMScheduler.__mro__[2]):
        timesteps = torch.arange(2)
        config = type("Config", (), {})()

    model = unet()
    with RealAttentionExtractor(model, scheduler=Strange()) as extractor:
        model(torch.randn(1, 4, 16, 16), 1, torch.randn(1, 7, 32))
    assert str(extractor.trace.steps[0]) == "Noise remaining: not known"


def test_image_to_image_counts_from_its_own_first_step() -> None:
    for scheduler in (DDIMScheduler(steps_offset=1), EulerDiscreteScheduler(steps_offset=1)):
        pipe = stable_diffusion(StableDiffusionImg2ImgPipeline, scheduler=scheduler)
        image = Image.new("RGB", (24, 32), "red")
        with RealAttentionExtractor(pipe, steps=[0, -1]) as extractor:
            latents_of(pipe, steps=10, image=image, strength=0.5)
        assert [step.index for step in extractor.trace.steps] == [0, 4]
        assert extractor.trace.steps[0].noise_remaining < 0.75
        assert extractor.trace.complete


def test_rows_are_told_by_their_embeddings_not_by_order() -> None:
    model = unet(in_channels=8)
    pipe = stable_diffusion(StableDiffusionInstructPix2PixPipeline, unet=model)
    image = Image.new("RGB", (24, 32), "red")
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["encoder_hidden_states"]), with_kwargs=True
    )
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, image=image)
    handle.remove()
    assert seen[0].shape[0] == 3
    assert not torch.equal(seen[0][0], seen[0][1])  # the prompt is the first of three
    trace = extractor.trace
    assert trace.batch == 1
    assert [w.text for w in trace.words][:3] == ["a", "red", "apple"]
    assert trace.audit.passed


def test_unconditional_branch_of_a_foreign_pipeline(pipe: Any) -> None:
    trace = capture(pipe, branch="unconditional", options={"negative_prompt": "blue pie"})
    assert trace.prompt == "blue pie"
    assert trace.audit.passed


def test_precomputed_embeddings_have_numbers_and_no_words(pipe: Any) -> None:
    positive, negative = pipe.encode_prompt("a red apple", "cpu", 1, True)
    options = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    trace = capture(pipe, prompt=None, options=options)
    assert trace.batch == 1
    assert len(trace.tokens) == 77
    assert trace.token(3).sum() == pytest.approx(1, abs=1e-4)
    for asked in (lambda: trace.word("apple"), lambda: trace.at(0, 0)):
        with pytest.raises(UnknownWordError, match="embeddings"):
            asked()


def test_the_same_prompt_on_both_sides(pipe: Any) -> None:
    trace = capture(pipe, prompt="", options={"negative_prompt": ""})
    assert trace.batch == 1
    assert trace.words == ()
    assert trace.audit.passed


def test_skipped_clip_layers_still_have_words() -> None:
    pipe = stable_diffusion(text_encoder=clip_encoder(projection=True))
    trace = capture(pipe, options={"clip_skip": 1, "guidance_scale": 1.0})
    assert [w.text for w in trace.words][:3] == ["a", "red", "apple"]


def test_a_bare_denoiser_is_full_throughout() -> None:
    model = unet()
    with RealAttentionExtractor(model) as extractor:
        for t in (900, 500):
            model(torch.randn(2, 4, 16, 12), t, torch.randn(2, 7, 32))
    trace = extractor.trace
    assert trace.batch == 2
    assert [step.timestep for step in trace.steps] == [900, 500]
    assert trace.audit.passed
    with pytest.raises(UnknownWordError):
        trace.word("apple")


def test_zero_records_everywhere_raises(pipe: Any) -> None:
    with (
        pytest.raises(CaptureError, match="no attention was captured"),
        RealAttentionExtractor(pipe, branch="unconditional"),
    ):
        latents_of(pipe, guidance_scale=1.0, **SIZE)


def test_a_layer_without_records_is_named(pipe: Any) -> None:
    def blind(processor: Any) -> Any:
        class Blind(AttnProcessor2_0):
            def __call__(self, attn: Any, hidden: torch.Tensor, *a: Any, **k: Any) -> Any:
                return hidden

        return Blind()

    other = stable_diffusion()
    other.unet.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(blind(None))
    extractor = RealAttentionExtractor(other)
    with pytest.warns(CaptureWarning, match=r"mid_block.*did not use to_q"), extractor:
        latents_of(other, **SIZE)
    audit = extractor.trace.audit
    assert not audit.passed
    assert audit.missing == ("mid_block.attentions.0.transformer_blocks.0.attn2",)
    assert "12 of 14" in str(audit)
