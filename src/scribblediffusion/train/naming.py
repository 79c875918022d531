"""The naming loss: the features of a place should tell what lies there, and in which colour.

A colour word can only reach its object once the network knows which of the objects in the drawing
is meant. The velocity loss teaches that slowly, as it is a small part of the error. So heads that
exist in training alone read two levels of the denoiser, place by place, and say which object
is there and which colour the caption gives it. After REPA (Yu et al. 2025), with the
caption's words in place of another network's features.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from scribblediffusion.model.unet import SHIPPED, ScribbleUNet
from scribblediffusion.train.batches import Batch
from scribblediffusion.train.latents import object_masks
from scribblediffusion.train.objects import FAMILIES, known

#: The modules whose outputs are read, and their channels: 8×8 and 16×16 places.
READ = {
    "mid_block": SHIPPED["block_out_channels"][2],
    "up_blocks.1.attentions.1": SHIPPED["block_out_channels"][1],
}


class Features:
    """Keeps the outputs of the modules in `READ` during one forward pass."""

    def __init__(self, unet: ScribbleUNet) -> None:
        self.unet = unet
        self.seen: dict[str, Tensor] = {}

    def __enter__(self) -> Features:
        with ExitStack() as stack:
            for name in READ:
                keep = functools.partial(self._keep, name)
                stack.callback(self.unet.get_submodule(name).register_forward_hook(keep).remove)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _keep(self, name: str, module: nn.Module, args: tuple, output: Any) -> None:
        self.seen[name] = output if isinstance(output, Tensor) else output[0]


class _Head(nn.Module):
    """Features `[B, C, side, side]` to what is said at each place: nouns and colours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.noun = nn.Linear(channels, len(known()))
        self.colour = nn.Linear(channels, len(FAMILIES))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, places, objects]` and `[B, places, colours]`."""
        x = self.norm(features.flatten(2).transpose(1, 2))
        return self.noun(x), self.colour(x)


class Naming(nn.Module):
    """The heads of all levels, and the loss by which they and the denoiser learn."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_Head(channels) for channels in READ.values())

    def forward(self, features: Features, batch: Batch, known: Tensor) -> Tensor:
        """Mean cross-entropy `[2]` of nouns and of colours over the objects that have a word.

        Each object counts the same, each of its places by how much of it the object covers.

        Args:
            features: what a forward pass left.
            batch: its scenes.
            known: `[B]` bool: scenes that count, where the words can be known and must be inferred:
                neither condition is dropped, and noise hides the picture.
        """
        words = batch.nouns, batch.colours
        losses = [
            torch.stack([said(*pair, batch, known) for pair in zip(head(seen), words, strict=True)])
            for head, seen in zip(self.heads, features.seen.values(), strict=True)
        ]
        return torch.stack(losses).mean(0)


def said(logits: Tensor, words: Tensor, batch: Batch, known: Tensor) -> Tensor:
    """Cross-entropy of `[B, places, classes]` against the words `[B, 3]` (−1: none)."""
    side = int(logits.shape[1] ** 0.5)
    masks = object_masks(batch.labels, side).flatten(2).to(logits.device)  # [B, 3, P]
    spoken = (words >= 0) & known[:, None]
    chance = logits.float().log_softmax(-1)
    index = words.clamp_min(0)[:, None].expand(-1, chance.shape[1], -1)
    right = chance.gather(-1, index).transpose(1, 2)  # [B, 3, P]
    each = -(right * masks).sum(-1) / masks.sum(-1).clamp_min(1e-6)
    return (each * spoken).sum() / spoken.sum().clamp_min(1)
