"""Sketch tokens: one for each of the 77 regions, made from that region's ink alone.

No token sees a pixel outside its region, so what a token says is about that place by
construction: erase a stroke, and only the tokens whose regions it crossed change.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (the loader looks here)
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.model.aligned import AlignedModel
from scribblediffusion.model.place import STRENGTH, fourier, orthonormal
from scribblediffusion.model.unet import CONTEXT_SEED
from scribblediffusion.sketch import LEVELS, REGIONS

#: Side to which each region is scaled before it is read, for levels 8, 3 and 2.
PATCH = (32, 32, 32)


class _Reader(nn.Module):
    """Patches `[N, 1, side, side]` to vectors `[N, width]`; N patches never mix."""

    def __init__(self, side: int, channels: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(16, channels, 3, padding=1)
        self.coarse = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.out = nn.Linear(2 * channels * (side // 8) ** 2, width)

    def forward(self, patches: Tensor) -> Tensor:
        x = F.gelu(self.fine(F.pixel_unshuffle(patches, 4)))
        x = F.gelu(self.coarse(x))
        return self.out(x.flatten(1))


def _scaled(patch: Tensor, side: int) -> Tensor:
    """A patch `[B, 1, h, w]` averaged to `[B, 1, side, side]`."""
    if patch.device.type == "mps":  # which refuses sizes that do not divide, as 85 to 32
        return F.adaptive_avg_pool2d(patch.cpu(), side).to(patch)
    return F.adaptive_avg_pool2d(patch, side)


class SketchEncoder(AlignedModel, ConfigMixin):
    """Ink `[B, 1, 256, 256]` in 0…1 (1 is ink) to tokens `[B, 77, width]`.

    Token i is `sketch.REGIONS[i]`. After the last LayerNorm each carries its place.
    """

    @register_to_config
    def __init__(self, width: int = 256, channels: int = 48, hidden: int = 512) -> None:
        super().__init__()
        self.readers = nn.ModuleList(_Reader(side, channels, hidden) for side in PATCH)
        self.mix = nn.ModuleList(
            nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, width))
            for _ in PATCH
        )
        self.norm = nn.LayerNorm(width)
        centres = torch.tensor([r.centre for r in REGIONS], device="cpu")
        place = fourier(centres[:, 0], centres[:, 1]) @ orthonormal(width, CONTEXT_SEED)
        self.register_buffer("place", STRENGTH * place)
        self.level = nn.Parameter(torch.randn(len(LEVELS), width) * 0.3)

    def patches(self, ink: Tensor, level: int) -> Tensor:
        """The regions of one level, each scaled to its patch: `[B·level², 1, side, side]`."""
        side = PATCH[LEVELS.index(level)]
        boxes = [r.box(ink.shape[-1]) for r in REGIONS if r.level == level]
        cut = [ink[..., top:bottom, left:right] for left, top, right, bottom in boxes]
        scaled = [_scaled(patch, side) for patch in cut]
        return torch.stack(scaled, 1).flatten(0, 1)

    def forward(self, ink: Tensor) -> Tensor:
        """Ink `[B, 1, 256, 256]` to tokens `[B, 77, width]`, in the order of `sketch.REGIONS`."""
        batch = ink.shape[0]
        tokens = [
            (mix(reader(self.patches(ink, level))) + self.level[i]).unflatten(0, (batch, -1))
            for i, (level, reader, mix) in enumerate(
                zip(LEVELS, self.readers, self.mix, strict=True)
            )
        ]
        return self.norm(torch.cat(tokens, 1)) + self.place
