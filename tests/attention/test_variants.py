"""What is built around a denoiser changes neither picture nor record, and is told apart from it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from tiny_pipelines import PROMPT, latents_of, sdxl, stable_diffusion
from tiny_variants import (
    SIZE,
    VARIANTS,
    flux_with_ip_adapter,
    sd3_with_ip_adapter,
    with_ip_adapter,
)

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import SettingError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def captured(pipe: Any, options: dict[str, Any], **arguments: Any) -> AttentionTrace:
    """The trace of a run that is bit for bit the run without capture, before and after it."""
    before = latents_of(pipe, **options)
    with RealAttentionExtractor(pipe, **arguments) as extractor:
        during = latents_of(pipe, **options)
    assert torch.equal(before, during)
    assert torch.equal(before, latents_of(pipe, **options))
    trace = extractor.trace
    assert trace.audit is not None
    assert trace.audit.passed, str(trace.audit)
    return trace


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_variant_is_recorded_like_the_plain_pipeline(name: str) -> None:
    make, options, steps, calls = VARIANTS[name]
    options = dict(options)
    pipe = make()
    trace = captured(pipe, {"steps": options.pop("num_inference_steps", 4)} | options)
    assert [word.text for word in trace.words] == ["a", "red", "apple", ",", "red"]
    assert trace.prompt == PROMPT
    assert trace.batch == 1
    assert trace.complete
    assert sorted({step.index for step in trace.steps}) == list(range(steps))
    assert len(trace.steps) == calls
    assert trace.picture_size == (32, 24)
    noise = [step.noise_remaining for step in trace.steps]
    assert noise == sorted(noise, reverse=True)
    network = getattr(pipe, "unet", None) or pipe.transformer
    assert all(network.get_submodule(layer.name) for layer in trace.layers)
    assert trace.audit is not None
    assert trace.audit.expected == len(trace.layers) * calls


@pytest.mark.parametrize("strength", [0.9, 0.8, 0.7, 0.2])
def test_pndm_counts_right_from_the_middle_of_its_schedule(strength: float) -> None:
    """Its own counter begins at 0 wherever image-to-image does; one timestep comes twice."""
    make, options, _, _ = VARIANTS["sd_img2img_pndm"]
    pipe = make()
    seen: list[float] = []
    hook = pipe.unet.register_forward_pre_hook(lambda m, a: seen.append(float(a[1])))
    options = {"steps": 10, "image": options["image"], "strength": strength}
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    hook.remove()
    trace = extractor.trace
    assert [step.timestep for step in trace.steps] == seen
    assert trace.complete
    with RealAttentionExtractor(pipe, steps=[-1]) as extractor:
        latents_of(pipe, **options)
    assert [step.timestep for step in extractor.trace.steps] == seen[-1:]


# ── IP-Adapters ──────────────────────────────────────────────────────────────────────────────


def reference(seed: int = 3, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 1, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("masked", [False, True])
def test_stable_diffusion_with_an_ip_adapter(masked: bool) -> None:
    options: dict[str, Any] = {"ip_adapter_image_embeds": [reference()], **SIZE}
    if masked:
        mask = torch.zeros(1, 1, 32, 24)
        mask[..., :12] = 1
        options["cross_attention_kwargs"] = {"ip_adapter_masks": [mask]}
    trace = captured(with_ip_adapter(), options)
    adapters = [layer for layer in trace.layers if layer.source == "ip_adapter_0"]
    assert len(adapters) == len(trace.layers) / 2
    assert {layer.adapter_scale for layer in adapters} == {0.7}
    assert {layer.keys for layer in adapters} == {4}
    assert np.allclose(trace.weights(layer=adapters[0], step=0).sum(2), 1, atol=5e-5)
    assert trace.attention().sum(2) == pytest.approx(1, abs=5e-5)  # the condition, on its own
    assert trace.stream("ip_adapter_0") == pytest.approx(1, abs=5e-5)


def test_sdxl_with_an_ip_adapter() -> None:
    trace = captured(with_ip_adapter(sdxl()), {"ip_adapter_image_embeds": [reference()], **SIZE})
    assert {layer.source for layer in trace.layers} == {"condition", "ip_adapter_0"}


def spied_attention(module: Any, seen: list[tuple[Any, ...]], at: int) -> Any:
    """Softmax of queries and keys that a processor gives to torch, at one of its calls."""
    real = torch.nn.functional.scaled_dot_product_attention
    calls = []

    def spy(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == at + 1:
            scores = torch.einsum("bhsd,bhkd->bhsk", q.double(), k.double())
            seen.append((scores / math.sqrt(q.shape[-1])).softmax(-1))
        return real(q, k, v, *rest, **options)

    def begin(*_: Any) -> None:
        calls.clear()
        torch.nn.functional.scaled_dot_product_attention = spy

    def end(*_: Any) -> None:
        torch.nn.functional.scaled_dot_product_attention = real

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]


def test_sd3_with_its_own_ip_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = sd3_with_ip_adapter()
    options = {"ip_adapter_image_embeds": reference(), "max_sequence_length": 24, **SIZE}
    trace = captured(pipe, options, heads="all")
    adapters = [layer for layer in trace.layers if layer.source == "ip_adapter_0"]
    places = trace.layers[0].places
    assert len(adapters) == 3
    assert {(layer.keys, layer.adapter_scale) for layer in adapters} == {(places + 5, 0.6)}
    # An oracle: what the processor itself hands to torch's attention, its second call.
    seen: list[Any] = []
    hooks = spied_attention(pipe.transformer.transformer_blocks[1].attn, seen, 1)
    latents_of(pipe, **options)
    for hook in hooks:
        hook.remove()
    for step, p in zip(trace.steps, seen, strict=True):
        mine = trace.attention(layer=adapters[1], step=step)[0].reshape(4, 6, places)
        tokens = p[-1, :, :, places:].transpose(-1, -2).numpy()
        own = p[-1, :, :, :places].sum(-1).numpy()
        assert np.abs(mine[:, :5] - tokens).max() < 1e-5
        assert np.abs(mine[:, 5] - own).max() < 1e-5
    assert trace.columns["ip_adapter_0"][-1].stream == "image"
    share = trace.stream("ip_adapter_0")
    assert share.min() > 0
    assert share.max() < 1


def test_flux_with_its_own_ip_adapter() -> None:
    pipe = flux_with_ip_adapter()
    options = {
        "ip_adapter_image_embeds": [reference(rows=1)],
        "negative_ip_adapter_image_embeds": [reference(4, rows=1)],
        "max_sequence_length": 24,
        "true_cfg_scale": 2.0,
        "negative_prompt": "dim",
        **SIZE,
    }
    trace = captured(pipe, options)
    adapters = [layer for layer in trace.layers if layer.source == "ip_adapter_0"]
    assert [layer.name for layer in adapters] == [
        f"transformer_blocks.{i}.attn" for i in range(len(adapters))
    ]
    assert {(layer.keys, layer.adapter_scale) for layer in adapters} == {(4, 0.6)}
    assert trace.stream("ip_adapter_0") == pytest.approx(1, abs=5e-5)
    assert captured(pipe, options, branch="unconditional").prompt == "dim"


@pytest.mark.filterwarnings("ignore:these maps are not what the model computed")
@pytest.mark.parametrize("make", [sd3_with_ip_adapter, flux_with_ip_adapter])
def test_a_wrong_adapter_fails_the_audit(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from scribblediffusion.attention import adapters

    monkeypatch.setattr(adapters, "_scale_of", lambda site, number, place: 0.5)
    pipe = make()
    rows = 2 if "sd3" in make.__name__ else 1
    embeds: Any = reference(rows=rows)
    options = {"max_sequence_length": 24, **SIZE}
    options["ip_adapter_image_embeds"] = embeds if rows == 2 else [embeds]
    if rows == 1:
        options["negative_ip_adapter_image_embeds"] = [embeds]
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    assert not extractor.trace.audit.passed
    assert extractor.trace.audit.output_error > 10 * extractor.trace.audit.tolerance


def test_an_adapters_layer_is_read_by_its_own_columns(tmp_path: Any) -> None:
    trace = captured(with_ip_adapter(), {"ip_adapter_image_embeds": [reference()], **SIZE})
    path = trace.save(tmp_path / "x.safetensors")
    for one in (trace, AttentionTrace.load(path)):
        layer = next(layer for layer in one.layers if layer.source == "ip_adapter_0")
        maps = one.heat_map(layer=layer)
        assert maps.shape[2] == 4
        assert np.abs(maps.sum((-2, -1)) - 1).max() < 5e-4
        assert np.allclose(one.token(2, layer=layer), maps[0, 0, 2], atol=1e-6)
        with pytest.raises(SettingError, match="ip_adapter_0"):
            one.word("apple", layer=layer)
        with pytest.raises(SettingError, match="ip_adapter_0"):
            one.attention(layer=[0, layer])
        with pytest.raises(SettingError, match="ip_adapter_0"):
            one.at(3, 3, layer=layer)


def test_an_adapters_layer_as_xarray_has_its_own_tokens() -> None:
    pytest.importorskip("xarray")
    trace = captured(with_ip_adapter(), {"ip_adapter_image_embeds": [reference()], **SIZE})
    layer = next(layer for layer in trace.layers if layer.source == "ip_adapter_0")
    array = trace.to_xarray(layer=layer)
    assert list(array.token.values) == ["#0", "#1", "#2", "#3"]
    assert set(array.stream.values) == {"ip_adapter_0"}
    assert array.attrs["source"] == "ip_adapter_0"
    assert float(abs(array.sum("token") - 1).max()) < 5e-5
    assert np.array_equal(array.sel(step=1)[0], trace.attention(layer=layer, step=1)[0])
    assert trace.to_xarray().attrs["source"] == "condition"


def test_custom_diffusion_brings_its_own_projections() -> None:
    pipe = stable_diffusion()
    torch.manual_seed(5)
    processors = {}
    for name, old in pipe.unet.attn_processors.items():
        module = pipe.unet.get_submodule(name.removesuffix(".processor"))
        processors[name] = old
        if name.endswith("attn2.processor"):
            processors[name] = CustomDiffusionAttnProcessor2_0(
                hidden_size=module.inner_dim, cross_attention_dim=32
            )
    pipe.unet.set_attn_processor(processors)
    pipe.unet.eval()
    captured(pipe, SIZE)
