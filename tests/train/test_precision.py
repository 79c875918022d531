import pytest
import torch

from scribblediffusion.train.precision import autocast, half_is_faster


@pytest.mark.parametrize(("capability", "faster"), [("AVX512", True), ("AVX2", False)])
def test_half_precision_is_left_alone_where_it_is_emulated(monkeypatch, capability, faster):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert half_is_faster("cpu") == faster
    with autocast("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if faster else torch.float32)
    assert half_is_faster("cuda")
