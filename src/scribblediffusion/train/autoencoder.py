"""Train the autoencoder: on 128-pixel crops of scenes, for a given number of minutes."""

from __future__ import annotations

import copy
import logging
import math
import time
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.train.scenes import SIZE, scene

log = logging.getLogger(__name__)
CROP = 128


def _picture(number: int) -> np.ndarray:
    return scene(number, seed=1).picture


def pictures(count: int, processes: int = 2) -> np.ndarray:
    """`[count, 256, 256, 3]` uint8 training pictures."""
    with Pool(processes) as pool:
        return np.stack(list(pool.imap(_picture, range(count), chunksize=32)))


def to_tensor(images: np.ndarray) -> Tensor:
    """`[B, H, W, 3]` uint8 to `[B, 3, H, W]` float in −1…1, channels last in memory."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def crops(rng: np.random.Generator, data: np.ndarray, batch: int) -> np.ndarray:
    """Random 128-pixel crops; of two candidates the one with more in it."""
    chosen = []
    for _ in range(batch):
        image = data[rng.integers(len(data))]
        corners = rng.integers(0, SIZE - CROP + 1, size=(2, 2))
        pair = [image[y : y + CROP, x : x + CROP] for y, x in corners]
        chosen.append(max(pair, key=lambda crop: crop[::4, ::4].std()))
    return np.stack(chosen)


def loss(rebuilt: Tensor, truth: Tensor) -> Tensor:
    """Flat colours flat (L1), no gross error (L2), lines crisp (L1 of the differences)."""
    across = (rebuilt.diff(dim=3) - truth.diff(dim=3)).abs().mean()
    down = (rebuilt.diff(dim=2) - truth.diff(dim=2)).abs().mean()
    return F.l1_loss(rebuilt, truth) + 4 * F.mse_loss(rebuilt, truth) + 0.5 * (across + down)


def psnr(rebuilt: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB for images in −1…1, mean over images."""
    errors = ((rebuilt.clamp(-1, 1) - truth) / 2).square().mean((1, 2, 3))
    return float((-10 * torch.log10(errors)).mean())


def train(
    folder: Path,
    *,
    minutes: float,
    scenes: int = 4000,
    batch: int = 12,
    rate: float = 1.5e-3,
    noise: float = 0.08,
    decoder_only: bool = False,
) -> ScribbleAutoencoder:
    """Train for `minutes` and leave the averaged weights in `folder`, as safetensors.

    Args:
        folder: the result, in diffusers' layout; existing weights there are gone on from.
        minutes: wall time; the learning rate falls to nothing at its end.
        scenes: how many pictures to make beforehand.
        batch: crops a step.
        rate: peak learning rate (AdamW, warm-up over 100 steps, then half a cosine).
        noise: standard deviation of the noise added to latents, so that near ones decode alike.
        decoder_only: leave the encoder, and so the latents, exactly as they are.
    """
    rng = np.random.default_rng(int(time.time()))
    exists = (folder / "config.json").exists()
    model: Any = ScribbleAutoencoder()
    if exists:
        model = ScribbleAutoencoder.from_pretrained(folder, low_cpu_mem_usage=False)
    model = model.to(memory_format=torch.channels_last).train()
    names = [n for n, _ in model.named_parameters() if not decoder_only or "decode" in n]
    parameters = [p for n, p in model.named_parameters() if n in names]
    average = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    data = pictures(scenes)
    check = to_tensor(np.stack([scene(i, split="test", seed=9).picture for i in range(48)]))
    start, step, saved = time.time(), 0, time.time()
    while (done := (time.time() - start) / (minutes * 60)) < 1:
        scale = min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = rate * scale
        truth = to_tensor(crops(rng, data, batch))
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encode_raw(truth)
            rebuilt = model.decode_raw(latents + noise * torch.randn_like(latents))
        value = loss(rebuilt.float(), truth)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        keep = min(0.999, step / (step + 20))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        if step % 200 == 0 or time.time() - saved > 240:
            with torch.no_grad():
                quality = psnr(average(check), check)
            log.info("step %d, %.0f %%: loss %.4f, %.2f dB", step, done * 100, value, quality)
        if time.time() - saved > 240:
            saved = time.time()
            average.save_pretrained(folder)
    if not decoder_only:
        _standardise(average, data)
    average.save_pretrained(folder)
    return average


@torch.no_grad()
def _standardise(model: ScribbleAutoencoder, data: np.ndarray) -> None:
    """Set the latents' mean and standard deviation, per channel, from 512 scenes."""
    batches = [model.encode_raw(to_tensor(data[i : i + 32])) for i in range(0, 512, 32)]
    latents = torch.cat(batches)
    model.latent_mean.copy_(latents.mean((0, 2, 3), keepdim=True))
    model.latent_std.copy_(latents.std((0, 2, 3), keepdim=True))
