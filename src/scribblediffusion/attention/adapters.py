"""IP-Adapters: a softmax of their own beside the condition's, at every layer that has one.

In Stable Diffusion and FLUX a place shares itself among the tokens of a reference picture alone.
In SD3 the picture's own places are keys of that softmax too: there they are one column, ``image``,
as in the layer itself. FLUX adds what an adapter brings after its block, so it is returned apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scribblediffusion.attention.families import Site
from scribblediffusion.attention.taps import Attended, Sighting, by_head


@dataclass(frozen=True)
class Adapted:
    """What one reference picture's softmax in one layer was made of.

    Attributes:
        source: Name of the records, ``ip_adapter_0``; with a mask for each of several pictures,
            ``ip_adapter_0.1`` is the second picture.
        q: ``[B, H, S, D]``.
        k: ``[B, H, K, D]``: the picture's own places if they are keys, then the reference's tokens.
        v: ``[B, H, K, D]``.
        own: How many of the keys are the picture's own places.
        scale: Factor on what the adapter adds.
        mask: Where it acts, as given; None for everywhere.
    """

    source: str
    q: Tensor
    k: Tensor
    v: Tensor
    own: int
    scale: float
    mask: Tensor | None


def adapted(site: Site, seen: Sighting, at: Attended) -> Iterator[Adapted]:
    """Every reference picture that a layer looked at in one call.

    Args:
        site: The layer.
        seen: What went by.
        at: The same, put together, all rows.
    """
    width = at.q.shape[-1]
    for number, adapter in seen.adapters.items():
        for place, pair in enumerate(zip(adapter.keys, adapter.values, strict=True)):
            k, v = (x.reshape(x.shape[0], -1, site.heads, width).transpose(1, 2) for x in pair)
            q, own = at.plain_q, 0
            if "adapter_k" in seen.parts:
                q, own = seen.parts["adapter_q"], seen.parts["adapter_image_k"].shape[2]
                k = torch.cat([seen.parts["adapter_image_k"], seen.parts["adapter_k"]], dim=2)
                v = torch.cat([by_head(site, seen.parts["v"]), v], dim=2)
            source = f"ip_adapter_{number}" + (f".{place}" if len(adapter.keys) > 1 else "")
            mask = _mask_of(site, seen.arguments.get("ip_adapter_masks"), number, place)
            yield Adapted(source, q, k, v, own, _scale_of(site, number, place), mask)


def _scale_of(site: Site, number: int, place: int) -> float:
    scales: Any = site.module.processor.scale  # type: ignore[union-attr]
    scale = scales[number] if isinstance(scales, (list, tuple)) else scales
    return float(scale[place] if isinstance(scale, (list, tuple)) else scale)


def _mask_of(site: Site, masks: Any, number: int, place: int) -> Tensor | None:
    """An adapter's mask; FLUX's and SD3's processors take masks and do not use them."""
    if masks is None or site.join != "cross":
        return None
    masks = masks if isinstance(masks, list) else list(masks.unsqueeze(1))
    return None if masks[number] is None else masks[number][:, place]


def masked(added: Tensor, mask: Tensor | None) -> Tensor:
    """What an adapter adds, ``[B, H, S, …]``, where its mask lets it: diffusers' own shrinking."""
    if mask is None:
        return added
    from diffusers.image_processor import IPAdapterMaskProcessor

    batch, heads, places, width = added.shape
    small = IPAdapterMaskProcessor.downsample(mask.to(added), batch, places, width * heads)
    return added * small[..., :1][:, None]  # the same for every channel
