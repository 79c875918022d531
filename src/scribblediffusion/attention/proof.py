"""A layer's output rebuilt from the captured weights, to compare with what it really returned.

All heads, all keys and all places take part. The channels of an output are compared along a few
random directions R (Freivalds' check, "Probabilistic machines can use less running time", 1977):
what differs anywhere differs along almost every direction, in expectation by the same relative
error. So instead of (A·V)·Wₒ·R, which costs as much as the layer, A·(V·(Wₒ·R)) is computed. The
directions are fixed, and torch's random numbers are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from scribblediffusion.attention.families import Site

#: Random directions along which outputs are compared.
DIRECTIONS = 16


@dataclass(frozen=True)
class Projection:
    """What a layer does after its weights met the values, along the directions.

    Attributes:
        matrix: ``[H, D, DIRECTIONS]``: what the values are multiplied with beforehand; None where
            the output projection cannot be read (LoRA, quantised, offloaded) and is asked itself.
        bias: ``[DIRECTIONS]``, or None.
        module: That output projection.
        dtype: What the model runs in.
    """

    matrix: Tensor | None
    bias: Tensor | None
    module: nn.Module | None
    dtype: torch.dtype

    def values(self, v: Tensor) -> Tensor:
        """The values ``[B, H, K, D]`` as they are to be weighted."""
        return v if self.matrix is None else v.float() @ self.matrix

    def finish(self, mixed: Tensor) -> Tensor:
        """Weighted `values` ``[B, H, S, …]`` → ``[B, S, DIRECTIONS]``."""
        if self.matrix is None:
            joined = mixed.transpose(1, 2).flatten(2).to(self.dtype)
            return along(joined if self.module is None else self.module.forward(joined))
        out = mixed.sum(dim=1)
        return out if self.bias is None else out + self.bias


def projection_of(site: Site, like: Tensor, *, bare: bool = False) -> Projection:
    """The output projection of a layer.

    Args:
        site: The layer.
        like: The module's input: where the model runs, and in what.
        bare: Without the projection: FLUX adds what an adapter brings as it is.
    """
    module = None if bare else _out_projection(site.module)
    if module is None:
        directions, bias = _directions(_width(site), like.device), None
    elif _is_plain(module):
        directions = along(module.weight.T)
        bias = None if module.bias is None else along(module.bias)
    else:
        return Projection(None, None, module, like.dtype)
    return Projection(directions.unflatten(0, (site.heads, -1)), bias, module, like.dtype)


def rebuild(site: Site, mixed: Tensor, hidden: Tensor, projection: Projection) -> Tensor:
    """The output of an attention module at its image places, along the fixed directions.

    Args:
        site: The layer.
        mixed: Weights applied to the projection's `values`, those of IP-Adapters that join before
            the projection added; float32 ``[B, H, S, …]``.
        hidden: The module's input for the same rows, for those that add it to their output.
        projection: The output projection.

    Returns:
        float32 ``[B, S, DIRECTIONS]``.
    """
    module: Any = site.module
    out = projection.finish(mixed)
    if getattr(module, "residual_connection", False):
        out = out + along(_places(hidden))
    return out / getattr(module, "rescale_output_factor", 1.0)


def returned(site: Site, output: Any, image: range) -> Tensor:
    """The part of a module's output that belongs to image places, ``[B, S, C]``."""
    if isinstance(output, tuple):  # joint blocks return image, text (and adapters) apart
        return _places(output[0])
    if site.single is not None:
        return output[:, image.start : image.stop]
    return _places(output)


def along(x: Tensor) -> Tensor:
    """``[…, C]`` → ``[…, DIRECTIONS]`` in float32."""
    return x.float() @ _directions(x.shape[-1], x.device)


@lru_cache(maxsize=32)
def _directions(channels: int, device: torch.device) -> Tensor:
    own = torch.Generator("cpu").manual_seed(channels)
    kind = {"dtype": torch.float32, "device": "cpu"}
    return torch.randn(channels, DIRECTIONS, generator=own, **kind).to(device)


def relative_error(rebuilt: Tensor, real: Tensor) -> Tensor:
    """‖rebuilt − real‖ / ‖real‖ over everything, as a tensor on the device: no waiting."""
    return torch.linalg.vector_norm(rebuilt - real) / torch.linalg.vector_norm(real).clamp_min(
        torch.finfo(torch.float32).tiny
    )


@dataclass(frozen=True)
class Codes:
    """A fixed random number for each column, which each of its keys brings as one more value.

    What the weights make of the keys' numbers must be what the record makes of the columns': so a
    record whose columns are those of other keys fails the proof.
    """

    columns: Tensor
    keys: Tensor

    def beside(self, values: Tensor) -> Tensor:
        """Values ``[B, H, K, D]`` → ``[B, H, K, D + 1]``."""
        own = self.keys[:, None].expand(*values.shape[:3], 1)
        return torch.cat([values.float(), own], dim=-1)

    def error(self, record: Tensor, coded: Tensor) -> Tensor:
        """How far a record ``[B, H or 1, C, S]`` is from the weighted numbers ``[B, H, S]``."""
        of_columns = (record * self.columns[:, None]).sum(dim=2)
        heads = coded if record.shape[1] == coded.shape[1] else coded.mean(dim=1, keepdim=True)
        return relative_error(of_columns, heads)


def _out_projection(module: Any) -> nn.Module | None:
    """The module's own, or the one that a custom diffusion processor brings."""
    own = getattr(getattr(module, "processor", None), "to_out_custom_diffusion", None)
    own = getattr(module, "to_out", None) if own is None else own
    return None if own is None else own[0]


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module's weight says all that it does, and is there.

    Offloading (accelerate, diffusers) gives a module a forward of its own, and the weight is there
    while that runs and not before or after it.
    """
    return type(module) is nn.Linear and "forward" not in vars(module)


def _width(site: Site) -> int:
    """Channels of all heads together."""
    values: Any = getattr(site.module, "to_v", None) or site.module
    return int(getattr(values, "out_features", None) or site.module.inner_dim)  # type: ignore[arg-type]


def _places(x: Tensor) -> Tensor:
    """``[B, C, h, w]`` → ``[B, h·w, C]``; sequences stay."""
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
