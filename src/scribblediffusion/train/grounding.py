"""The grounding loss: an object's words should be attended to where the object is.

After TokenCompose (Wang et al. 2024). The scenes come with masks, so that this is ground truth,
used in training only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from scribblediffusion.model.unet import ScribbleUNet
from scribblediffusion.train.batches import Batch
from scribblediffusion.train.latents import object_masks

#: The layers whose maps the grounding loss looks at.
GROUNDED = (
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn2",
)


class Watch:
    """Keeps the queries and keys of the grounded layers during one forward pass."""

    def __init__(self, unet: ScribbleUNet) -> None:
        self.unet = unet
        self.seen: dict[str, dict[str, Tensor]] = {name: {} for name in GROUNDED}

    def __enter__(self) -> Watch:
        with ExitStack() as stack:
            for name in GROUNDED:
                attention = self.unet.get_submodule(name)
                for which in ("to_q", "to_k"):
                    hook = attention.get_submodule(which).register_forward_hook(
                        self._keep(name, which)
                    )
                    stack.callback(hook.remove)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _keep(self, name: str, which: str) -> Any:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            self.seen[name][which] = output

        return hook

    def weights(self, mask: Tensor) -> Iterator[Tensor]:
        """Attention of each layer, mean over heads: `[B, places, keys]`, rows sum to 1."""
        for name, kept in self.seen.items():
            attention: Any = self.unet.get_submodule(name)
            q, k = (kept[w].unflatten(-1, (attention.heads, -1)).transpose(1, 2) for w in kept)
            logits = (q @ k.transpose(-1, -2)).float() * attention.scale
            logits = logits.masked_fill(~mask[:, None, None], -1e4)
            yield logits.softmax(-1).mean(1)


def grounding_loss(weights: Tensor, batch: Batch) -> Tensor:
    """How far the words' maps are from their objects, 0 at best.

    Args:
        weights: `[B, places, keys]`, the text's keys first.
        batch: where the objects are and which tokens name them.
    """
    text = weights[..., : batch.ids.shape[1]]
    side = int(text.shape[1] ** 0.5)
    masks = object_masks(batch.labels, side).flatten(2).to(text.device)  # [B, 3, P]
    named = batch.words.float()  # [B, 3, T]
    per_token = torch.einsum("bop,bpt->bot", masks, text) / (text.sum(1)[:, None] + 1e-6)
    inside = ((1 - per_token).square() * named).sum() / named.sum().clamp_min(1)
    by_object = torch.einsum("bpt,bot->bop", text, named) + 1e-6
    share = by_object / by_object.sum(1, keepdim=True)
    binding = -(share.log() * masks).sum() / masks.sum().clamp_min(1)
    return inside + binding
