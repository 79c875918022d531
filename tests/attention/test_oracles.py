"""More independent oracles: the shipped model's masked `attn1`, and IP-Adapters.

Each is a plain softmax of the module's own weights and inputs; it shares no code with the
extractor. `test_extractor` has those of the families, `test_variants` that of SD3's adapter.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from test_acceptance import ScribbleLike
from tiny_pipelines import FAMILIES, latents_of, sdxl
from tiny_variants import SIZE, flux_with_ip_adapter, with_ip_adapter
from torch import Tensor

from scribblediffusion.attention import folding
from scribblediffusion.attention.extractor import RealAttentionExtractor

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@contextmanager
def inputs_of(model: torch.nn.Module, *ends: str) -> Iterator[list[tuple[str, Any, dict]]]:
    """(path, module, arguments) of every call of the modules whose path ends so."""
    seen: list[tuple[str, Any, dict]] = []
    handles = []
    for path, module in model.named_modules():
        if path.rsplit(".", 1)[-1] in ends:

            def note(module: Any, args: tuple, kwargs: dict, path: str = path) -> None:
                given = dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False))
                seen.append((path, module, given | kwargs))

            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    yield seen
    for handle in handles:
        handle.remove()


def softmax(q: Tensor, k: Tensor, heads: int, bias: Tensor | None = None) -> np.ndarray:
    """``[heads, keys, places]`` of one row: q ``[S, C]``, k ``[K, C]``, bias ``[K]``."""
    q, k = (x.double().reshape(len(x), heads, -1) for x in (q, k))
    scores = torch.einsum("shd,khd->hks", q, k) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias.double()[None, :, None]
    e = (scores - scores.amax(1, keepdim=True)).exp()
    return (e / e.sum(1, keepdim=True)).numpy()


def test_every_layer_of_the_shipped_model_with_its_masks() -> None:
    """Also `attn1` where it only cross-attends, which diffusers itself does not mask."""
    pipe = ScribbleLike()
    with (
        inputs_of(pipe.unet, "attn1", "attn2") as seen,
        RealAttentionExtractor(pipe, heads="all", tokens="all") as extractor,
    ):
        pipe(1)
    trace = extractor.trace
    checked = set()
    for path, module, given in seen:
        if given.get("encoder_hidden_states") is None:
            continue  # attention among the picture's places
        q = module.to_q(given["hidden_states"][2]).detach()
        k = module.to_k(given["encoder_hidden_states"][2]).detach()
        mine = trace.weights(layer=path, step=0)[0]
        hidden = given["attention_mask"][2].flatten() < -1
        expected = softmax(q, k, module.heads, given["attention_mask"][2].flatten())
        assert hidden.nonzero().flatten().tolist() == list(range(4, 77))
        assert np.abs(mine - expected).max() < 1e-5
        assert not mine[:, hidden.numpy()].any()
        checked.add(path)
    assert checked == {layer.name for layer in trace.layers}
    assert {path.rsplit(".", 1)[-1] for path in checked} == {"attn1", "attn2"}


@pytest.mark.filterwarnings("ignore:these maps are not what the model computed")
def test_a_mask_that_is_overlooked_fails_the_shipped_models_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folding, "as_mask", lambda mask, batch, heads: None)
    pipe = ScribbleLike()
    with RealAttentionExtractor(pipe) as extractor:
        pipe(1)
    audit = extractor.trace.audit
    assert audit is not None
    assert not audit.passed
    assert all((x.output_error or 0) > 10 * audit.tolerance for x in audit.layers)


def reference(seed: int, rows: int) -> Tensor:
    return torch.randn(rows, 1, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", [with_ip_adapter, lambda: with_ip_adapter(sdxl())])
def test_the_ip_adapter_of_stable_diffusion(make: Any) -> None:
    pipe = make()
    options: dict[str, Any] = {"ip_adapter_image_embeds": [reference(3, 2)], **SIZE}
    with (
        inputs_of(pipe.unet, "attn2") as seen,
        RealAttentionExtractor(pipe, heads="all", tokens="all") as extractor,
    ):
        latents_of(pipe, steps=1, **options)
    trace = extractor.trace
    layers = {(layer.name, layer.source): layer for layer in trace.layers}
    assert len(layers) == 2 * len(seen)
    for path, module, given in seen:
        text, (tokens,) = given["encoder_hidden_states"]
        q = module.to_q(given["hidden_states"][1]).detach()
        own = tokens[1].reshape(-1, tokens.shape[-1])
        for source, k in (
            ("condition", module.to_k(text[1])),
            ("ip_adapter_0", module.processor.to_k_ip[0](own)),
        ):
            mine = trace.weights(layer=layers[path, source], step=0)[0]
            assert np.abs(mine - softmax(q, k.detach(), module.heads)).max() < 1e-5


def test_the_ip_adapter_of_flux() -> None:
    pipe = flux_with_ip_adapter()
    embeds = [reference(3, 1)]
    options: dict[str, Any] = {
        "ip_adapter_image_embeds": embeds,
        "negative_ip_adapter_image_embeds": embeds,
        "max_sequence_length": 24,
        **SIZE,
    }
    with (
        inputs_of(pipe.transformer, "attn") as seen,
        RealAttentionExtractor(pipe, heads="all", tokens="all") as extractor,
    ):
        latents_of(pipe, steps=1, **options)
    trace = extractor.trace
    layers = {layer.name: layer for layer in trace.layers if layer.source == "ip_adapter_0"}
    double = [(path, module, given) for path, module, given in seen if path in layers]
    assert len(double) == len(layers) == len(pipe.transformer.transformer_blocks)
    for path, module, given in double:
        q = module.to_q(given["hidden_states"][0]).reshape(-1, module.heads, module.head_dim)
        size = torch.sqrt((q * q).mean(-1, keepdim=True) + module.norm_q.eps)
        q = (q / size * module.norm_q.weight).flatten(1).detach()
        tokens = given["ip_hidden_states"][0][0]
        k = module.processor.to_k_ip[0](tokens.reshape(-1, tokens.shape[-1])).detach()
        mine = trace.weights(layer=layers[path], step=0)[0]
        assert np.abs(mine - softmax(q, k, module.heads)).max() < 1e-5


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_pictures_of_sliced_attention_are_bit_identical(name: str) -> None:
    make, options = FAMILIES[name]
    pipe = make()
    pipe.enable_attention_slicing(1)
    before = latents_of(pipe, **options)
    with RealAttentionExtractor(pipe, heads="all", tokens="all") as extractor:
        assert torch.equal(latents_of(pipe, **options), before)
    assert torch.equal(latents_of(pipe, **options), before)
    assert extractor.trace.audit is not None
    assert extractor.trace.audit.passed, str(extractor.trace.audit)
