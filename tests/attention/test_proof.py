"""The audit must fail whenever the capture is wrong: each sabotage, one at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from tiny_pipelines import FAMILIES, latents_of, unet
from torch import Tensor

from scribblediffusion.attention import folding, proof, recorder, taps
from scribblediffusion.attention.audit import Audit
from scribblediffusion.attention.extractor import RealAttentionExtractor

pytestmark = pytest.mark.filterwarnings("ignore")


def audit_of(name: str) -> Audit:
    make, options = FAMILIES[name]
    pipe = make()
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, steps=1, **options)
    assert extractor.trace.audit is not None
    return extractor.trace.audit


def wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    real = taps.scale_of
    monkeypatch.setattr(taps, "scale_of", lambda site, q: 1.1 * real(site, q))


def wrong_head_order(monkeypatch: pytest.MonkeyPatch) -> None:
    real = taps.by_head
    monkeypatch.setattr(taps, "by_head", lambda site, x: real(site, x).flip(1))


def swapped_query_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    real = folding.weights
    monkeypatch.setattr(folding, "weights", lambda q, *rest: real(q.roll(1, dims=1), *rest))


def heads_last_instead_of_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(site: Any, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, site.heads)).movedim(-1, 1)

    monkeypatch.setattr(taps, "by_head", wrong)


def no_rotary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taps, "rotated", lambda x, rotary: x)


def wrong_join(monkeypatch: pytest.MonkeyPatch) -> None:
    real = taps._joined
    monkeypatch.setattr(taps, "_joined", lambda site, text, image: real(site, image, text))


def no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "as_mask", lambda mask, batch, heads: None)


def shifted_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key's weights in the column of the next one: rows still sum to 1."""
    real = recorder._columns

    def shifted(frame: Any, at: Any) -> folding.Kept:
        kept = real(frame, at)
        numbers = torch.arange(at.k.shape[2])[kept.single]
        return folding.Kept(numbers.roll(1), kept.summed)

    monkeypatch.setattr(recorder, "_columns", shifted)


def swapped_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of the padding in place of a word's, and the other way round."""
    real = recorder._columns

    def swapped(frame: Any, at: Any) -> folding.Kept:
        kept = real(frame, at)
        every = torch.arange(at.k.shape[2])
        single, rest = every[kept.single].clone(), every[kept.summed[0]].clone()
        single[1], rest[0] = rest[0].item(), single[1].item()
        return folding.Kept(single, [rest, *kept.summed[1:]])

    monkeypatch.setattr(recorder, "_columns", swapped)


@pytest.mark.parametrize(
    ("name", "sabotage"),
    [
        ("stable_diffusion", wrong_scale),
        ("stable_diffusion", wrong_head_order),
        ("stable_diffusion", swapped_query_heads),
        ("stable_diffusion", heads_last_instead_of_first),
        ("pixart", no_mask),
        ("sana", no_mask),
        ("stable_diffusion", shifted_columns),
        ("stable_diffusion", swapped_rest),
        ("sana", shifted_columns),
        ("sd3", shifted_columns),
        ("sd3", swapped_rest),
        ("flux", shifted_columns),
        ("sd3", wrong_scale),
        ("sd3", wrong_join),
        ("flux", no_rotary),
        ("flux", wrong_join),
        ("flux", swapped_query_heads),
    ],
)
def test_sabotage_fails_the_audit(
    name: str, sabotage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    audit = audit_of(name)
    assert not audit.passed
    assert audit.output_error is None or audit.output_error > 10 * audit.tolerance
    assert str(audit).startswith("FAILED")


def test_a_record_that_does_not_sum_to_1_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = folding._take
    monkeypatch.setattr(folding, "_take", lambda p, at: 0.999 * real(p, at))
    audit = audit_of("stable_diffusion")
    assert not audit.passed
    assert audit.row_sum_error == pytest.approx(1e-3, rel=1e-2)


def test_a_mask_is_used_as_the_module_receives_it() -> None:
    """Masks of every shape that diffusers gives, and -inf as well as -10000."""
    model = unet()
    keys = torch.randn(1, 6, 32)
    for masked in (torch.tensor([[1, 1, 1, 0, 0, 0]]).bool(), torch.tensor([[1, 0, 1, 1, 0, 1]])):
        with RealAttentionExtractor(model) as extractor:
            model(torch.randn(1, 4, 16, 16), 1, keys, encoder_attention_mask=masked)
        weights = extractor.trace.weights(layer=0, step=0)
        hidden = masked[0] == 0
        assert not weights[:, :, hidden.numpy()].any()
        assert extractor.trace.audit is not None
        assert extractor.trace.audit.passed


def test_half_precision_has_its_own_tolerance() -> None:
    model = unet().to(torch.bfloat16)
    with RealAttentionExtractor(model) as extractor:
        half = {"dtype": torch.bfloat16}
        model(torch.randn(1, 4, 16, 16, **half), 1, torch.randn(1, 6, 32, **half))
    audit = extractor.trace.audit
    assert audit is not None
    assert (audit.dtype, audit.passed) == ("bfloat16", True)
    assert audit.row_sum_error < 5e-5


class AdaptedLinear(torch.nn.Linear):
    """As LoRA and quantisation bring one: its weight alone does not say what it does."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def with_adapted_output(model: torch.nn.Module, folder: Path) -> None:
    for name, module in model.named_modules():
        if name.endswith("attn2.to_out.0"):
            module.__class__ = AdaptedLinear


def offloaded(model: torch.nn.Module, folder: Path) -> None:
    """Weights are on the meta device but while their own module runs."""
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))


def offloaded_in_groups(model: torch.nn.Module, folder: Path) -> None:
    """Weights are in files but while their own module runs."""
    cpu, kind = torch.device("cpu"), "leaf_level"
    apply_group_offloading(model, cpu, cpu, offload_type=kind, offload_to_disk_path=str(folder))


@pytest.mark.parametrize("change", [with_adapted_output, offloaded, offloaded_in_groups])
def test_an_output_projection_that_cannot_be_read_is_asked(change: Any, tmp_path: Path) -> None:
    model, noise, keys = unet(), torch.randn(1, 4, 16, 12), torch.randn(1, 7, 32)
    change(model, tmp_path)

    def call() -> list[Tensor]:
        with torch.no_grad():
            return [model(noise, t, keys).sample for t in (900, 500)]

    expected = call()
    with RealAttentionExtractor(model) as extractor:
        assert all(map(torch.equal, call(), expected))
    audit = extractor.trace.audit
    assert audit is not None
    assert audit.passed, str(audit)
    assert all(layer.output_error is not None for layer in audit.layers)


@pytest.fixture(params=[torch.float64, torch.bfloat16, torch.device("meta")], ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[None]:
    """Another dtype, or another device, for tensors that name none."""
    proof._directions.cache_clear()
    usual = torch.get_default_dtype(), torch.get_default_device()
    if isinstance(request.param, torch.dtype):
        torch.set_default_dtype(request.param)
    else:
        torch.set_default_device(request.param)
    yield
    torch.set_default_dtype(usual[0])
    torch.set_default_device(usual[1])
    proof._directions.cache_clear()


@pytest.mark.parametrize("capture", [{}, {"memory_limit": 20_000}, {"heads": "all"}], ids=str)
def test_defaults_of_torch_make_no_difference(default: None, capture: dict) -> None:
    """Whatever a person's program has set: the masked softmax, the thinned record, the proof."""
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    with torch.device("cpu"):
        model = unet().float()
    given = torch.randn(1, 4, 16, 12, **kind), 500, torch.randn(1, 7, 32, **kind)
    mask = torch.tensor([[1, 1, 0, 1, 1, 0, 0]], **kind)
    with torch.no_grad():
        expected = model(*given, encoder_attention_mask=mask).sample
        with RealAttentionExtractor(model, **capture) as extractor:
            output = model(*given, encoder_attention_mask=mask).sample
    assert torch.equal(output, expected)
    audit = extractor.trace.audit
    assert audit is not None
    assert (audit.dtype, audit.passed) == ("float32", True), str(audit)
