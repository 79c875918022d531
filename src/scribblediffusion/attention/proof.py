"""A layer's output rebuilt from the captured weights, to compare with what it really returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.attention.families import Site


def rebuild(site: Site, mixed: Tensor, hidden: Tensor, extra: Sequence[Tensor] = ()) -> Tensor:
    """The output of an attention module at its image places.

    Args:
        site: The layer.
        mixed: Weights applied to the values, ``[B, H, S, D]`` in float32.
        hidden: The module's input for the same rows, for those that add it to their output.
        extra: Scaled contributions of IP-Adapters, in the same shape.

    Returns:
        float32 ``[B, S, C]``.
    """
    module: Any = site.module
    total = mixed
    if site.join == "cross":  # FLUX returns its adapters' part apart
        for one in extra:
            total = total + one
    out = total.transpose(1, 2).flatten(2)
    projection = getattr(module, "to_out", None)
    if projection is not None:
        out = _project(projection[0], out)
    if getattr(module, "residual_connection", False):
        out = out + _places(hidden).float()
    return out / getattr(module, "rescale_output_factor", 1.0)


def returned(site: Site, output: Any, image: range) -> Tensor:
    """The part of a module's output that belongs to image places, float32 ``[B, S, C]``."""
    if isinstance(output, tuple):  # joint blocks return image, text (and adapters) apart
        return _places(output[0]).float()
    if site.single is not None:
        return output[:, image.start : image.stop].float()
    return _places(output).float()


def relative_error(rebuilt: Tensor, real: Tensor) -> Tensor:
    """‖rebuilt − real‖ / ‖real‖ over everything, as a tensor on the device: no waiting."""
    return torch.linalg.vector_norm(rebuilt - real) / torch.linalg.vector_norm(real).clamp_min(
        torch.finfo(torch.float32).tiny
    )


def adapter_mask(mask: Tensor, batch: int, heads: int, places: int, width: int) -> Tensor:
    """An IP-Adapter's mask at a layer's places, ``[B, 1, S, 1]``: diffusers' own shrinking."""
    from diffusers.image_processor import IPAdapterMaskProcessor

    small = IPAdapterMaskProcessor.downsample(mask, batch, places, width * heads)
    return small[..., :1][:, None]


def _project(module: nn.Module, x: Tensor) -> Tensor:
    """A projection in float32; anything but a plain Linear (LoRA) in its own dtype."""
    if type(module) is nn.Linear:
        bias = None if module.bias is None else module.bias.float()
        return F.linear(x, module.weight.float(), bias)
    dtype = next(module.parameters()).dtype
    return module(x.to(dtype)).float()


def _places(x: Tensor) -> Tensor:
    """``[B, C, h, w]`` → ``[B, h·w, C]``; sequences stay."""
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
