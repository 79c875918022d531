import inspect
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scribbles import small_pipeline

from scribblediffusion.errors import PromptError, SamplingError, SettingError, SketchError
from scribblediffusion.guidance import branch_weights
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import seeded
from scribblediffusion.sketch import REGIONS, Sketch


@pytest.fixture(scope="module")
def pipe():
    return small_pipeline()


def drawing():
    image = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(image).ellipse((60, 60, 190, 190), outline=0, width=5)
    return image


def draw(pipe, prompt="a red apple", sketch=None, seed=0, **settings):
    settings = {"num_inference_steps": 2, "output_type": "np"} | settings
    count = len(prompt) if isinstance(prompt, list) else 1
    return pipe(prompt, sketch, generator=seeded(seed, count), **settings).images


def calls(pipe, *args, **settings):
    """The batch size of each call of the denoiser."""
    seen = []
    hook = pipe.unet.register_forward_pre_hook(lambda m, a: seen.append(len(a[0])))
    try:
        draw(pipe, *args, **settings)
    finally:
        hook.remove()
    return seen


def test_the_call_is_the_documented_one():
    names = list(inspect.signature(ScribblePipeline.__call__).parameters)[1:]
    assert names[:7] == [
        "prompt", "sketch", "sketch_mask", "num_inference_steps", "guidance_scale",
        "sketch_guidance_scale", "num_images_per_prompt",
    ]  # fmt: skip
    kinds = inspect.signature(ScribblePipeline.__call__).parameters
    assert kinds["sketch_mask"].kind is inspect.Parameter.KEYWORD_ONLY
    assert kinds["num_inference_steps"].default == 20


def test_same_seed_same_bits_and_another_seed_another_picture(pipe):
    first, again = draw(pipe, sketch=drawing()), draw(pipe, sketch=drawing())
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw(pipe, sketch=drawing(), seed=1))


def test_same_bits_at_any_position_and_nearly_so_in_any_batch(pipe):
    prompts, sketches = ["a", "a red apple", "b"], [None, drawing(), None]
    order = [1, 2, 0]

    def batch(rows):
        generators = [seeded(row)[0] for row in rows]
        return pipe([prompts[r] for r in rows], [sketches[r] for r in rows], generator=generators,
                    num_inference_steps=2, output_type="np").images  # fmt: skip

    straight, turned = batch([0, 1, 2]), batch(order)
    for place, row in enumerate(order):
        assert np.array_equal(turned[place], straight[row])
    alone = draw(pipe, "a red apple", drawing(), seed=1).astype(int)
    assert np.abs(alone[0] - straight[1]).max() <= 1


def test_dials_save_calls(pipe):
    assert calls(pipe, sketch=drawing()) == [3, 3]
    assert calls(pipe, sketch=drawing(), sketch_guidance_scale=1.0) == [2, 2]
    both = calls(pipe, sketch=drawing(), guidance_scale=1.0, sketch_guidance_scale=1.0)
    assert both == [1, 1]
    assert calls(pipe, "", drawing()) == calls(pipe, "a cat", None) == [2, 2]
    assert calls(pipe, "", None) == [1, 1]


def test_guidance_is_the_equation_of_the_docstring(pipe):
    """One step with three branches equals the dials' formula on three single runs."""
    sketch, dials = drawing(), {"guidance_scale": 2.5, "sketch_guidance_scale": 1.7}
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(4))
    condition = pipe.condition("a red apple", sketch)
    names = ["unconditional", "sketch_only", "full"]
    vectors, mask = pipe.context(condition, names)
    with torch.no_grad():
        v0, vs, vf = (
            pipe.unet(noise, torch.tensor(1000.0), vectors[i : i + 1],
                      encoder_attention_mask=mask[i : i + 1].float()).sample
            for i in range(3)
        )  # fmt: skip
    expected = v0 + 1.7 * (vs - v0) + 2.5 * (vf - vs)
    step = next(pipe.denoise("a red apple", sketch, latents=noise, **dials))
    assert torch.allclose(noise - step.denoised, expected, atol=1e-4)
    weights = branch_weights(condition, 2.5, 1.7)
    assert list(weights) == names
    assert sum(weights.values()) == pytest.approx(1)


def test_steps_are_euler_steps_from_all_noise_to_none(pipe):
    steps = list(pipe.denoise("a cat", generator=seeded(1), num_inference_steps=20))
    noise = [step.noise_remaining for step in steps]
    assert noise == pytest.approx(np.linspace(1, 0.05, 20).tolist(), abs=1e-6)
    assert [step.index for step in steps] == list(range(20))
    for before, after in itertools.pairwise(steps):
        velocity = (before.latents - after.denoised) / after.sigma
        again = before.latents - velocity * 0.05
        assert torch.allclose(after.latents, again, atol=1e-4)
    assert torch.allclose(steps[-1].latents, steps[-1].denoised, atol=1e-4)
    assert steps[0].preview().shape == (1, 256, 256, 3)


def test_the_generator_can_be_left_and_checks_its_arguments_at_once(pipe):
    run = pipe.denoise("a cat", num_inference_steps=5)
    next(run)
    run.close()
    with pytest.raises(SettingError):
        pipe.denoise("a cat", num_inference_steps=0)


def test_two_runs_at_once_are_refused_and_one_after_another_are_not(pipe):
    first, second = (pipe.denoise("a cat", num_inference_steps=3) for _ in range(2))
    next(first)
    next(second)
    with pytest.raises(SettingError, match="another run"):
        next(first)
    assert [step.index for step in second] == [1, 2]


def test_mask_silences_regions_and_erases_ink(pipe):
    mask = Image.new("L", (256, 256), 0)
    mask.paste(255, (0, 0, 128, 256))
    condition = pipe.condition("a cat", drawing(), mask)
    boxes = [region.box() for region in REGIONS]
    assert condition.regions[0].tolist() == [left < 128 for left, *_ in boxes]
    assert not condition.ink[..., 128:].any()
    assert condition.ink[..., :128].any()
    other = drawing()
    ImageDraw.Draw(other).line((140, 20, 250, 240), fill=0, width=9)
    a = draw(pipe, sketch=drawing(), sketch_mask=mask)
    assert np.array_equal(a, draw(pipe, sketch=other, sketch_mask=mask))
    assert not np.array_equal(a, draw(pipe, sketch=drawing()))


def test_each_prompt_may_have_a_mask_of_its_own(pipe):
    left = Image.new("L", (256, 256), 0)
    left.paste(255, (0, 0, 128, 256))
    settings = {"num_inference_steps": 2, "output_type": "np"}
    both = pipe(["a", "a"], drawing(), sketch_mask=[left, None], generator=seeded(3, 2), **settings)
    same = pipe(["a", "a"], drawing(), sketch_mask=left, generator=seeded(3, 2), **settings)
    assert np.array_equal(both.images[0], same.images[0])
    assert not np.array_equal(both.images[1], same.images[1])
    assert both.sketches[0].mask is not None
    assert both.sketches[1].mask is None


def test_a_mask_that_leaves_no_ink_leaves_the_text_alone(pipe):
    nowhere = Image.new("L", (256, 256), 0)
    with pytest.warns(UserWarning, match="no ink was found where the mask lets"):
        masked = draw(pipe, sketch=drawing(), sketch_mask=nowhere)
    assert np.array_equal(masked, draw(pipe, sketch=None))


def test_companions_do_not_change_a_picture(pipe):
    """Same bits beside other pictures, with longer prompts and other sketches."""
    settings = {"num_inference_steps": 2, "output_type": "np"}
    prompts = ["a red apple", "a cat", "two words and many more, so that others are padded"]
    empty = Sketch.from_image(drawing()).masked(np.pad(np.ones((9, 9), bool), ((0, 247),) * 2))
    assert empty.is_blank
    one = pipe(prompts[:2], [drawing()] * 2, generator=seeded(5, 2), **settings).images[0]
    other = pipe([prompts[2], prompts[0]], [np.asarray(drawing())[::-1], drawing()],
                 generator=seeded(4, 2), **settings).images[1]  # fmt: skip
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "dials",
    [(3.0, 1.5)]
    + [
        pytest.param(dials, marks=pytest.mark.long)
        for dials in ((3.0, 1.0), (1.0, 1.5), (1.0, 1.0), (2.0, 2.0), (0.0, 0.7))
    ],
)
def test_companions_of_any_kind_do_not_change_a_picture(pipe, dials):
    """With words, ink, both or neither: the same bits as beside one of its own kind."""
    settings = {"guidance_scale": dials[0], "sketch_guidance_scale": dials[1]}
    settings |= {"num_inference_steps": 2, "output_type": "latent"}
    noise = torch.randn(2, 4, 32, 32, generator=seeded(6)[0])
    kinds = list(itertools.product(["", "a cat"], [None, drawing()]))

    def first(*pictures):
        prompts, sketches = zip(*pictures, strict=True)
        return pipe(list(prompts), list(sketches), latents=noise, **settings).images[0]

    for kind in kinds:
        alike = first(kind, kind)
        for companion in kinds:
            assert torch.equal(first(kind, companion), alike), (kind[0], companion[0])


def test_pictures_of_all_kinds_take_no_call_more(pipe):
    for prompts, sketches, expected in (
        (["", "a cat"], drawing(), 6),
        (["", ""], drawing(), 4),
        (["a cat", "a red apple"], None, 4),
        (["", ""], None, 2),
    ):
        assert calls(pipe, prompts, sketches) == [expected] * 2


def test_several_pictures_for_each_prompt(pipe):
    settings = {"num_inference_steps": 2, "output_type": "np"}
    output = pipe(["a cat", "a red apple"], [None, drawing()], num_images_per_prompt=2,
                  generator=tuple(seeded(1, 4)), **settings)  # fmt: skip
    assert output.images.shape == (4, 256, 256, 3)
    assert [one is None for one in output.sketches] == [True, True, False, False]
    prompts, sketches = ["a cat"] * 2 + ["a red apple"] * 2, [None] * 2 + [drawing()] * 2
    apart = pipe(prompts, sketches, generator=seeded(1, 4), **settings)
    assert np.array_equal(output.images, apart.images)


def test_numbers_of_numpy_are_numbers(pipe):
    settings = {"num_inference_steps": np.int64(2), "guidance_scale": np.float32(3.0)}
    assert np.array_equal(draw(pipe, **settings), draw(pipe, guidance_scale=3.0))


def test_a_preview_is_nearly_the_decoded_picture():
    shipped = ScribblePipeline.from_pretrained()
    for step in shipped.denoise("a red cat", generator=seeded(1), num_inference_steps=3):
        preview, picture = step.preview().astype(int), shipped.decode(step.denoised).astype(int)
        assert np.abs(preview - picture).mean() < 12


def test_padding_and_silent_regions_have_weight_exactly_zero(pipe):
    """Their keys may hold anything: the latents stay the same bits."""
    condition = pipe.condition("a red apple", drawing())
    vectors, mask = pipe.context(condition, ["unconditional", "sketch_only", "full"])
    assert mask.sum(1).tolist() == [2, 79, 82]
    spoilt = torch.where(mask[..., None], vectors, torch.tensor(1e3))
    sample = torch.randn(3, 4, 32, 32)
    with torch.no_grad():
        a, b = (
            pipe.unet(sample, torch.tensor(500.0), v, encoder_attention_mask=mask.float()).sample
            for v in (vectors, spoilt)
        )
    assert torch.equal(a, b)


def test_any_kind_of_sketch(pipe, tmp_path):
    drawing().save(tmp_path / "s.png")
    kinds = [tmp_path / "s.png", str(tmp_path / "s.png"), drawing(), np.asarray(drawing()),
             Sketch.from_image(drawing())]  # fmt: skip
    pictures = [draw(pipe, sketch=kind) for kind in kinds]
    assert all(np.array_equal(pictures[0], other) for other in pictures[1:])
    output = pipe("a", drawing(), num_inference_steps=1)
    assert isinstance(output.sketches[0], Sketch)
    assert output.sketches[0].cleaning is not None
    assert output.images[0].size == (256, 256)


def test_a_blank_sketch_is_no_sketch(pipe):
    blank = Image.new("L", (256, 256), 255)
    with pytest.warns(UserWarning, match="no ink was found in the sketch") as said:
        output = pipe("a red apple", blank, num_inference_steps=1)
    assert len(said) == 1
    assert output.sketches[0].is_blank
    assert output.sketches[0].cleaning.original_size == (256, 256)
    assert np.array_equal(draw(pipe, sketch=output.sketches[0]), draw(pipe, sketch=None))


def test_a_mask_without_a_sketch_is_refused(pipe):
    for sketch in (None, [None]):
        with pytest.raises(SettingError, match="no sketch to mask"):
            pipe(["a cat"], sketch, sketch_mask=drawing())
    with pytest.raises(SketchError, match=r"'nowhere.png' as a mask"):
        pipe("a cat", drawing(), sketch_mask="nowhere.png")


def test_settings_out_of_range(pipe):
    for wrong in (0, -1, 2.5, "20", None, 1001, True):
        with pytest.raises(SettingError, match="num_inference_steps"):
            draw(pipe, num_inference_steps=wrong)
    for wrong in (-1, float("nan"), float("inf"), "3", 31):
        with pytest.raises(SettingError, match="guidance_scale"):
            draw(pipe, guidance_scale=wrong)
        with pytest.raises(SettingError, match="sketch_guidance_scale"):
            draw(pipe, sketch_guidance_scale=wrong)
    with pytest.raises(SettingError, match="output_type"):
        draw(pipe, output_type="jpeg")
    with pytest.raises(SettingError, match="generators"):
        pipe(["a", "b"], generator=seeded(1), num_inference_steps=1)
    for wrong in (torch.zeros(1, 4, 8, 8), np.zeros((1, 4, 32, 32)), "noise"):
        with pytest.raises(SettingError, match="latents"):
            draw(pipe, latents=wrong)
    with pytest.raises(SettingError, match="finite"):
        draw(pipe, latents=torch.full((1, 4, 32, 32), float("nan")))
    for wrong in (3, [3], [None], "seed"):
        with pytest.raises(SettingError, match="generator"):
            pipe("a", generator=wrong, num_inference_steps=1)


def test_prompts_and_sketches_that_cannot_be_used(pipe, tmp_path):
    with pytest.raises(PromptError, match="10000"):
        draw(pipe, "a" * 10_000)
    for wrong in ([3], None, 3, b"a cat", {"a": 1}, ["a", None]):
        with pytest.raises(PromptError, match="text"):
            draw(pipe, wrong)
    for wrong in ([], ["a"] * 65):
        with pytest.raises(PromptError, match="from 1 to 64"):
            draw(pipe, wrong)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(SettingError, match="num_images_per_prompt"):
            draw(pipe, num_images_per_prompt=wrong)
    with pytest.raises(PromptError, match="2 prompts but 3 masks"):
        pipe(["a", "b"], drawing(), sketch_mask=[None] * 3, num_inference_steps=1)
    with pytest.raises(PromptError, match="2 prompts but 3 sketches"):
        pipe(["a", "b"], [None] * 3, num_inference_steps=1)
    with pytest.raises(SketchError):
        draw(pipe, sketch=tmp_path / "none.png")


def test_words_cut_off_are_named(pipe):
    with pytest.warns(UserWarning, match="left out:.*zebra"):
        draw(pipe, "apple " * 80 + "zebra")


def test_a_value_that_is_not_finite_ends_the_run(pipe):
    calls = 0

    def spoil(module, args, output):
        nonlocal calls
        calls += 1
        if calls == 3:
            output.sample[0, 0, 0, 0] = float("nan")
        return output

    hook = pipe.unet.register_forward_hook(spoil)
    try:
        with pytest.raises(SamplingError, match="step 3 of 5"):
            draw(pipe, num_inference_steps=5)
    finally:
        hook.remove()


def test_a_decoder_that_is_not_finite_gives_no_picture(pipe):
    bias = pipe.autoencoder.decode_out.bias
    kept = bias.detach().clone()
    with torch.no_grad():
        bias[0] = float("inf")
    try:
        with pytest.raises(SamplingError, match="decoder"):
            draw(pipe)
    finally:
        with torch.no_grad():
            bias.copy_(kept)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_too(dtype):
    pipe = small_pipeline().to(dtype)
    assert draw(pipe, sketch=drawing()).shape == (1, 256, 256, 3)


@pytest.mark.long
def test_saved_and_loaded_in_a_new_process_draws_the_same_bits(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    drawing().save(tmp_path / "sketch.png")
    script = f"""
import numpy, torch
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import seeded
pipe = ScribblePipeline.from_pretrained({str(tmp_path / "saved")!r}, device="cpu")
pipe.set_progress_bar_config(disable=True)
torch.set_num_threads({torch.get_num_threads()})
images = pipe("a red apple", {str(tmp_path / "sketch.png")!r}, generator=seeded(0),
              num_inference_steps=2, output_type="np").images
numpy.save({str(tmp_path / "out.npy")!r}, images)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)
    loaded = ScribblePipeline.from_pretrained(tmp_path / "saved", device="cpu")
    loaded.set_progress_bar_config(disable=True)
    here = draw(loaded, sketch=drawing())
    assert np.array_equal(here, np.load(tmp_path / "out.npy"))


def test_pushing_to_a_hub_uploads_what_was_saved(pipe, monkeypatch):
    """Offline: what would be uploaded is a folder that loads."""
    from diffusers.pipelines import pipeline_utils
    from diffusers.utils import hub_utils

    seen = []

    def upload(self, folder, repo, **kwargs):
        seen.append(repo)
        assert ScribblePipeline.from_pretrained(str(folder), device="cpu") is not None

    class Repo:
        def __init__(self, name, **_):
            self.repo_id = name

    monkeypatch.setattr(hub_utils, "create_repo", Repo)
    monkeypatch.setattr(hub_utils, "load_or_create_model_card", lambda *a, **k: Card())
    monkeypatch.setattr(hub_utils, "populate_model_card", lambda card: card)
    monkeypatch.setattr(pipeline_utils.PushToHubMixin, "_upload_folder", upload)
    pipe.push_to_hub("me/my-scribbles")
    assert seen == ["me/my-scribbles"]


class Card:
    def save(self, path):
        pass


def test_key_layout_tells_what_the_keys_are(pipe):
    draw(pipe, "a red apple", drawing())
    layout = pipe.key_layout()
    assert layout.streams == {"text": range(77), "sketch": range(77, 154)}
    assert list(layout.branches) == ["unconditional", "sketch_only", "full"]
    prompt = layout.branches["full"][0]
    assert [word.text for word in prompt.words] == ["a", "red", "apple"]
    assert prompt.words[2].keys == (3,)
    assert layout.regions[REGIONS[5]] == 82


def test_observers_hear_of_the_run(pipe):
    class Listener:
        wants_previews = True
        heard: list

        def __init__(self):
            self.heard = []

        def run_begins(self, prompts, sketch, settings):
            self.heard.append(("begins", prompts, sketch.shape, settings["seed"]))

        def step_ends(self, preview):
            self.heard.append(("step", preview.shape))

        def run_ends(self, pictures, complete=True):
            self.heard.append(("ends", pictures.shape, complete))

    listener = Listener()
    pipe.observers.append(listener)
    try:
        draw(pipe, "a cat", drawing(), seed=9)
    finally:
        pipe.observers.remove(listener)
    preview = ("step", (256, 256, 3))
    assert listener.heard == [
        ("begins", ["a cat"], (256, 256), 9), preview, preview, ("ends", (1, 256, 256, 3), True),
    ]  # fmt: skip
