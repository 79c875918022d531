"""The autoencoder: a 256×256 picture to a 32×32×4 latent and back, cheap on a CPU.

Convolutions at full resolution are what is slow on a CPU. Here pixels are folded into channels
first (pixel-unshuffle by 4, then by 2), so that every convolution runs at 64×64 or 32×32.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (the loader looks here)
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.model.aligned import AlignedModel


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a skip; starts as the identity, so it needs no norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        self.conv2.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class ScribbleAutoencoder(AlignedModel, ConfigMixin):
    """Pictures `[B, 3, H, W]` in −1…1 to latents `[B, 4, H/8, W/8]` and back.

    The latent is bounded to ±`bound` by a scaled tanh and standardised with the channel
    statistics of the training scenes, so that a denoiser sees unit variance.

    Where the weights are offloaded, what is called of it brings them back, as `forward` does.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        encoder_fine: int = 64,
        encoder_coarse: int = 160,
        decoder_coarse: int = 192,
        decoder_fine: int = 96,
        preview_width: int = 96,
        bound: float = 3.0,
    ) -> None:
        super().__init__()
        self.encode_in = nn.Conv2d(48, encoder_fine, 3, padding=1)
        self.encode_fine = _blocks(encoder_fine, 1)
        self.encode_fold = nn.Conv2d(encoder_fine * 4, encoder_coarse, 3, padding=1)
        self.encode_coarse = _blocks(encoder_coarse, 2)
        self.encode_out = nn.Conv2d(encoder_coarse, latent_channels, 3, padding=1)
        self.decode_in = nn.Conv2d(latent_channels, decoder_coarse, 3, padding=1)
        self.decode_coarse = _blocks(decoder_coarse, 3)
        self.decode_unfold = nn.Conv2d(decoder_coarse, decoder_fine * 4, 3, padding=1)
        self.decode_fine = _blocks(decoder_fine, 2)
        self.decode_out = nn.Conv2d(decoder_fine, 48, 3, padding=1)
        self.preview_in = nn.Conv2d(latent_channels, preview_width, 3, padding=1)
        self.preview_blocks = _blocks(preview_width, 1)
        self.preview_out = nn.Conv2d(preview_width, 192, 3, padding=1)
        self.register_buffer("latent_mean", torch.zeros(1, latent_channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, latent_channels, 1, 1))

    def encode_raw(self, pictures: Tensor) -> Tensor:
        """Bounded latents before standardisation, `[B, 4, H/8, W/8]` in ±`bound`."""
        x = self.encode_fine(self.encode_in(F.pixel_unshuffle(pictures, 4)))
        x = self.encode_coarse(self.encode_fold(F.pixel_unshuffle(x, 2)))
        bound: float = self.config["bound"]
        return bound * torch.tanh(self.encode_out(F.silu(x)) / bound)

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Pictures from latents that are not standardised."""
        x = self.decode_unfold(F.silu(self.decode_coarse(self.decode_in(latents))))
        x = self.decode_fine(F.pixel_shuffle(x, 2))
        return F.pixel_shuffle(self.decode_out(F.silu(x)), 4)

    @apply_forward_hook
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` in −1…1 to standardised latents `[B, 4, H/8, W/8]`."""
        return (self.encode_raw(pictures) - self.latent_mean) / self.latent_std

    @apply_forward_hook
    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents `[B, 4, h, w]` to pictures `[B, 3, 8h, 8w]`, about −1…1."""
        return self.decode_raw(latents * self.latent_std + self.latent_mean)

    @apply_forward_hook
    def preview(self, latents: Tensor) -> Tensor:
        """As `decode`, softer and in a tenth of the time: every convolution at 1/8 size.

        A small network of its own, taught to give what `decode` gives. For looking on while a
        picture is made; the picture itself comes from `decode`.
        """
        x = self.preview_blocks(self.preview_in(latents))
        return F.pixel_shuffle(self.preview_out(F.silu(x)), 8)

    def forward(self, pictures: Tensor) -> Tensor:
        """The picture as the autoencoder can tell it: `decode(encode(x))`."""
        return self.decode(self.encode(pictures))
