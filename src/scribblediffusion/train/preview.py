"""Teach the autoencoder's small preview network to give what its decoder gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from torch.nn import functional as F

from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.train.autoencoder import loss, pictures, psnr, to_tensor
from scribblediffusion.train.devices import share_gradients
from scribblediffusion.train.health import refuse_not_finite
from scribblediffusion.train.scenes import scene

#: Side of the latent crops of a training step.
CROP = 16
#: Pictures that are encoded or decoded at once.
BATCH = 20


def midway(latents: Tensor, rng: np.random.Generator) -> Tensor:
    """Latents as a guided sampler gives them on its way.

    Averages over what may still come: each is moved towards another one and blurred over a width of
    its own. Guidance leads further than any scene: they are stretched and shifted. And there is
    noise.
    """
    others = latents[rng.permutation(len(latents))]
    share = torch.from_numpy(rng.uniform(0, 0.5, (len(latents), 1, 1, 1))).float()
    widths = rng.choice([1, 3, 5, 9], len(latents))
    blurred = [
        F.avg_pool2d(F.pad(one[None], [int(width) // 2] * 4, mode="replicate"), int(width), 1)
        for one, width in zip(torch.lerp(latents, others, share), widths, strict=True)
    ]
    shape = (len(latents), latents.shape[1], 1, 1)
    gain, shift = rng.uniform(0.8, 1.8, (len(latents), 1, 1, 1)), rng.normal(0, 0.3, shape)
    noise = rng.normal(0, 0.1, latents.shape)
    stretched = torch.cat(blurred).double() * torch.from_numpy(gain)
    return (stretched + torch.from_numpy(shift + noise)).float()


@torch.no_grad()
def lessons(
    model: ScribbleAutoencoder,
    count: int,
    tell: Callable[[int], Any] = lambda count: None,
    *,
    seed: int = 0,
) -> tuple[Tensor, np.ndarray]:
    """Latents of `count` scenes, as many midway ones, and what the decoder makes of them all.

    Args:
        model: the autoencoder.
        count: how many scenes.
        tell: hears how many more were decoded.
        seed: which midway latents.

    Returns:
        `[2 count, 4, 32, 32]` standardised latents, and `[2 count, 256, 256, 3]` uint8.
    """
    truth = pictures(count)
    batches = [to_tensor(truth[i : i + BATCH]) for i in range(0, count, BATCH)]
    clean = torch.cat([model.encode(batch.to(model.device)).cpu() for batch in batches])
    latents = torch.cat([clean, midway(clean, np.random.default_rng(seed))])
    decoded = []
    for batch in latents.split(BATCH):
        pixels = (model.decode(batch.to(model.device)).clamp(-1, 1) + 1) * 127.5
        decoded.append(pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy())
        tell(len(batch))
    return latents, np.concatenate(decoded)


class PreviewTrainer:
    """Trains the preview network alone; encoder and decoder stay exactly as they are.

    Several processes (see `devices`) train one network, each on crops of its own.

    Args:
        model: the autoencoder, whose decoder is the teacher, on the device to train on.
        latents: `[N, 4, 32, 32]`, standardised.
        decoded: `[N, 256, 256, 3]` uint8, what the decoder makes of them (see `lessons`).
        seed: which crops.
    """

    def __init__(
        self, model: ScribbleAutoencoder, latents: Tensor, decoded: np.ndarray, *, seed: int = 0
    ) -> None:
        self.model, self.latents, self.decoded = model, latents, decoded
        self.rng = np.random.default_rng([seed, PartialState().process_index])
        self.parameters = [p for n, p in model.named_parameters() if n.startswith("preview_")]

    def run(self, steps: int, *, batch: int = 16, rate: float = 2e-3) -> Iterator[float]:
        """Train for `steps` updates, the rate falling to nothing; the loss of each.

        Raises:
            TrainingError: a loss or gradient that is not finite.
        """
        optimiser = torch.optim.AdamW(self.parameters, lr=rate, betas=(0.9, 0.99))
        warm = max(1, steps // 20)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * min((step + 1) / warm, (steps - step) / steps)
            latents, truth = self._crops(batch)
            value = loss(self.model.preview(latents), truth)
            optimiser.zero_grad()
            value.backward()
            share_gradients(self.parameters)
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            refuse_not_finite(step, value, norm)
            optimiser.step()
            yield float(value.detach())

    def _crops(self, batch: int) -> tuple[Tensor, Tensor]:
        latents, decoded = [], []
        for number in self.rng.integers(len(self.latents), size=batch):
            y, x = self.rng.integers(0, self.latents.shape[-1] - CROP + 1, size=2)
            latents.append(self.latents[number, :, y : y + CROP, x : x + CROP])
            decoded.append(self.decoded[number, 8 * y : 8 * (y + CROP), 8 * x : 8 * (x + CROP)])
        stacked = torch.stack(latents).contiguous(memory_format=torch.channels_last)
        device = self.model.device
        return stacked.to(device), to_tensor(np.stack(decoded)).to(device)


@torch.no_grad()
def likeness(model: ScribbleAutoencoder, count: int = 24) -> float:
    """PSNR in dB of previews against the decoder's pictures, mean over held-out scenes."""
    truth = np.stack([scene(i, split="test", seed=9).picture for i in range(count)])
    latents = model.encode(to_tensor(truth).to(model.device))
    return psnr(model.preview(latents), model.decode(latents).clamp(-1, 1))
