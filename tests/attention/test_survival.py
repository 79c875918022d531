"""Whatever goes wrong while looking, the run that is looked at goes on, bit for bit."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from test_acceptance import ScribbleLike
from tiny_pipelines import latents_of, stable_diffusion, unet
from tiny_variants import with_ip_adapter

from scribblediffusion.attention import encoders, recorder, run, taps
from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
from scribblediffusion.errors import CaptureError, UnknownWordError
from scribblediffusion.prompt import read

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}
ERRORS = [
    Exception,
    RuntimeError,
    OSError,
    ImportError,
    AssertionError,
    KeyError,
    UnicodeDecodeError,
]


def raising(kind: type[BaseException]) -> Any:
    arguments = ("utf-8", b"x", 0, 1, "broken") if kind is UnicodeDecodeError else ("broken",)

    def broken(*_: Any, **__: Any) -> Any:
        raise kind(*arguments)

    return broken


@pytest.fixture(scope="module")
def pipe() -> Any:
    return stable_diffusion()


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("part", ["read", "texts_in_sight", "_states"])
def test_an_encoder_that_cannot_be_read_leaves_tokens_without_names(
    pipe: Any, part: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = latents_of(pipe, **SIZE)
    monkeypatch.setattr(encoders, part, raising(kind))
    extractor = RealAttentionExtractor(pipe)
    with pytest.warns(CaptureWarning, match="words of text_encoder could not be read"), extractor:
        assert torch.equal(latents_of(pipe, **SIZE), expected)
    trace = extractor.trace
    assert trace.batch == 1
    assert trace.audit.passed
    assert trace.token(3).sum() == pytest.approx(1, abs=1e-4)
    with pytest.raises(UnknownWordError, match="could not be asked"):
        trace.word("apple")


@pytest.mark.parametrize("kind", ERRORS)
def test_a_layer_that_cannot_be_read_is_named(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = unet()
    given = torch.randn(1, 4, 16, 12), 500, torch.randn(1, 7, 32)
    expected = model(*given).sample
    for part in ("_begins", "_ends"):
        with monkeypatch.context() as patch:
            patch.setattr(taps.Tap, part, raising(kind))
            with (
                pytest.raises(CaptureError, match=r"first reason was: .*broken"),
                RealAttentionExtractor(model),
            ):
                assert torch.equal(model(*given).sample, expected)
        assert not model.mid_block._forward_hooks


@pytest.mark.parametrize("part", ["__init__", "arrival"])
def test_a_step_that_is_lost_on_its_way_shifts_no_other(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for one copy: the other steps keep their own records, and the audit says so."""
    model = unet()
    times = (900, 700, 500, 300)

    def go() -> RealAttentionExtractor:
        with RealAttentionExtractor(model, layers="mid_block.*") as extractor:
            for t in times:
                noise = torch.Generator().manual_seed(t)
                keys = torch.randn(1, 7, 32, generator=noise)
                model(torch.randn(1, 4, 16, 12, generator=noise), t, keys)
        return extractor

    whole = go().trace
    real, calls = getattr(run.Shipment, part), []

    def fails_once(self: Any, *given: Any) -> Any:
        calls.append(None)
        if len(calls) == 2:
            raise MemoryError
        return real(self, *given)

    monkeypatch.setattr(run.Shipment, part, fails_once)
    with pytest.warns(CaptureWarning, match="MemoryError"):
        trace = go().trace
    assert 2 <= len(trace.steps) < 4
    for step in trace.steps:
        same = next(s for s in whole.steps if s.timestep == step.timestep)
        mine, expected = (t.weights(layer=0, step=s) for t, s in ((trace, step), (whole, same)))
        assert np.array_equal(mine, expected)
    assert not trace.audit.passed
    assert trace.audit.missing


def test_an_adapters_record_alone_is_not_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a layer fails after its adapter was recorded, or the other way round, it is missing."""
    pipe = with_ip_adapter()
    pictures = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"ip_adapter_image_embeds": [pictures], **SIZE}
    lost = "mid_block.attentions.0.transformer_blocks.0.attn2"
    real = recorder._keep

    def keep(run: Any, call: Any, site: Any, source: str, record: Any) -> None:
        real(run, call, site, source, record)
        if site.name == lost and source != "condition":
            raise RuntimeError("broken")

    monkeypatch.setattr(recorder, "_keep", keep)
    extractor = RealAttentionExtractor(pipe)
    with pytest.warns(CaptureWarning, match=r"mid_block.*broken"), extractor:
        latents_of(pipe, **options)
    trace = extractor.trace
    assert trace.audit.missing == (lost,)
    assert lost not in {layer.name for layer in trace.layers}


def test_a_picture_that_cannot_be_kept_is_named() -> None:
    """What a pipeline gives its observers may be anything; the run goes on."""
    pipe = ScribbleLike()
    extractor = RealAttentionExtractor(pipe, layers="mid_block.*")

    def broken(*_: Any, **__: Any) -> Any:
        raise MemoryError

    class Unkept(list):
        __array__ = __iter__ = broken

    with pytest.warns(CaptureWarning, match=r"a preview could.*the pictures could"), extractor:  # noqa: PT031
        extractor.run_begins(["red apple"], None, {})
        pipe.unet(torch.randn(3, 4, 32, 32), 500, torch.randn(3, 154, 256))
        extractor.step_ends(Unkept())  # type: ignore[arg-type]
        extractor.run_ends(Unkept())
    assert extractor.trace.complete
    assert extractor.trace.picture is None
    assert extractor.trace.audit.passed


def test_another_pipeline_may_share_the_text_encoder(pipe: Any) -> None:
    """As SDXL's base and refiner do: it runs while this one does, and has words of its own."""
    other = stable_diffusion(text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    expected = latents_of(other, "blue pie", **SIZE)
    found: list[Any] = []

    def meanwhile(pipe: Any, step: int, t: Any, values: dict) -> dict:
        if step == 0:
            work = threading.Thread(
                target=lambda: found.append(latents_of(other, "blue pie", **SIZE))
            )
            work.start()
            work.join()
        return values

    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "a red apple", callback_on_step_end=meanwhile, **SIZE)
    assert torch.equal(found[0], expected)
    assert [word.text for word in extractor.trace.words] == ["a", "red", "apple"]
    assert extractor.trace.complete
    assert extractor.trace.audit.passed


def test_two_threads_in_one_text_encoder_have_their_own_words(pipe: Any) -> None:
    """The other pipeline comes while this one's prompt is being encoded."""
    other = stable_diffusion(text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    once: list[Any] = []

    def meanwhile(*_: Any) -> None:
        if not once:
            once.append(None)
            work = threading.Thread(target=lambda: latents_of(other, "blue pie", **SIZE))
            work.start()
            work.join()

    with RealAttentionExtractor(pipe) as extractor:
        handle = pipe.text_encoder.get_input_embeddings().register_forward_hook(meanwhile)
        latents_of(pipe, "a red apple", **SIZE)
        handle.remove()
    assert once
    assert [word.text for word in extractor.trace.words] == ["a", "red", "apple"]


def test_a_number_outside_the_vocabulary_has_no_name(pipe: Any) -> None:
    reading = read(pipe.tokenizer, [193, 5, 100_000, 194])
    assert len(reading.pieces) == 4
    assert reading.pieces[2].text == ""


class NoConfig:
    """A scheduler of somebody's own: what diffusers' schedulers have, but no config."""

    timesteps = torch.tensor([900.0, 500.0, 100.0])
    sigmas = torch.tensor([0.9, 0.5, 0.1, 0.0])
    step_index = None


def test_a_scheduler_without_a_config_has_levels_that_are_not_known() -> None:
    denoiser, scheduler = unet().eval(), NoConfig()
    with RealAttentionExtractor(denoiser, scheduler=scheduler) as extractor, torch.no_grad():
        for number, time in enumerate(scheduler.timesteps):
            scheduler.step_index = number
            denoiser(torch.zeros(1, 4, 8, 8), time, torch.zeros(1, 5, 32))
    assert [step.noise_remaining for step in extractor.trace.steps] == [None] * 3


def test_the_reason_of_the_first_call_that_could_not_be_looked_at_is_told(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scribblediffusion.attention.schedule.describe", raising(OSError))
    told = pytest.raises(CaptureError, match="the first reason was: broken")
    with told, RealAttentionExtractor(pipe):
        latents_of(pipe, **SIZE)
