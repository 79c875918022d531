"""Train the autoencoder: on 128-pixel crops of scenes."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.model.weights import FILE
from scribblediffusion.train import checkpoint
from scribblediffusion.train.health import refuse_not_finite
from scribblediffusion.train.precision import autocast
from scribblediffusion.train.scenes import SIZE, scene

CROP = 128
#: Standard deviation of the noise added to latents in training, so that near ones decode alike.
LATENT_NOISE = 0.08


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


@dataclass(frozen=True)
class Report:
    """How a run is getting on.

    Attributes:
        step: steps done, since the run's first.
        done: share of the leg's time, 0–1.
        rate: crops a second, all devices together.
        loss: of the last step.
    """

    step: int
    done: float
    rate: float
    loss: float

    def __str__(self) -> str:
        return f"step {self.step}: loss {self.loss:.4f}, {self.rate:.1f} crops/s"


def autoencoder_of(folder: Path | str) -> str:
    """Stands for the encoder and decoder of a folder of weights, whatever its previews are."""
    found = hashlib.sha256()
    with safe_open(Path(folder) / FILE, "np") as tensors:
        for name in sorted(tensors.keys()):
            if not name.startswith("preview_"):
                found.update(name.encode() + tensors.get_tensor(name).tobytes())
    return found.hexdigest()


class AutoencoderTrainer:
    """A run that can be killed and goes on from its last checkpoint, to the bit.

    On as many devices as `accelerate` finds; one of them writes what there is to write.

    Attributes:
        devices: this process's device, and its place among the others.
        model: what is trained.
        average: its exponential moving average: what is exported.
        step: steps done.
        minutes: wall time that the steps took, in this call and in those it goes on from.
        whole: whether model, average and step belong together: not in the middle of an update.
    """

    def __init__(
        self,
        data: np.ndarray,
        *,
        batch: int = 12,
        rate: float = 1.5e-3,
        decoder_only: bool = False,
        seed: int = 0,
        cpu: bool = False,
    ) -> None:
        """Begin from nothing.

        Args:
            data: `[N, 256, 256, 3]` uint8 pictures (see `pictures`).
            batch: crops a step, on each device.
            rate: peak learning rate (AdamW, warm-up over 100 steps).
            decoder_only: leave the encoder, and so the latents, exactly as they are.
            seed: which crops and which noise.
            cpu: leave other devices alone.
        """
        from accelerate import PartialState  # evaluation needs this file, but not that

        self.devices = PartialState(cpu=cpu)
        torch.manual_seed(seed)
        self.data, self.batch, self.rate = data, batch, rate
        self.decoder_only, self.seed, self.step = decoder_only, seed, 0
        self.minutes, self.whole = 0.0, True
        model: Any = ScribbleAutoencoder()
        device = self.devices.device
        self.model = model.to(device, memory_format=torch.channels_last).train()
        average: Any = ScribbleAutoencoder()
        self.average = average.to(device)
        self.average.load_state_dict(model.state_dict())
        self.parameters = [
            p for n, p in self.model.named_parameters() if not decoder_only or "decode" in n
        ]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4
        )

    def begin(self, folder: Path) -> None:
        """Start from exported weights, without their optimiser."""
        found = ScribbleAutoencoder.from_pretrained(folder, low_cpu_mem_usage=False)
        self.model.load_state_dict(found.state_dict())
        self.average.load_state_dict(found.state_dict())

    def run_step(self, scale: float = 1.0) -> float:
        """One update, with the learning rate times `scale`; the loss."""
        from scribblediffusion.train.devices import share_gradients

        device: Any = self.devices.device
        rng = np.random.default_rng([self.seed, self.step, self.devices.process_index])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * scale * min(1, (self.step + 1) / 100)
        truth = to_tensor(crops(rng, self.data, self.batch)).to(device)
        with autocast(device):
            latents = self.model.encode_raw(truth)
            noise = torch.randn(latents.shape, generator=generator).to(device)
            rebuilt = self.model.decode_raw(latents + LATENT_NOISE * noise)
        value = loss(rebuilt.float(), truth)
        self.optimiser.zero_grad()
        value.backward()
        share_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        refuse_not_finite(self.step, value, norm)
        self.whole = False
        self.optimiser.step()
        self.step += 1
        keep = min(0.999, self.step / (self.step + 20))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        self.whole = True
        return float(value.detach())

    def run(self, *, minutes: float, fall: float = 0.5) -> Iterator[Report]:
        """Train for `minutes` of wall time, a report after each step; leave the loop to stop.

        Args:
            minutes: wall time of the whole leg; a call that goes on does what is left of it.
            fall: share of the time, at its end, over which the learning rate falls to nothing.
        """
        from scribblediffusion.train.devices import agreed

        start, before, first = time.monotonic(), self.minutes, self.step
        while (done := agreed(self.minutes / minutes)) < 1:
            value = self.run_step(min(1.0, (1 - done) / fall) if fall else 1.0)
            seconds = time.monotonic() - start
            self.minutes = before + seconds / 60
            count = (self.step - first) * self.batch * self.devices.num_processes
            yield Report(self.step, done, count / seconds, value)

    def save(self, folder: Path) -> None:
        """Write a checkpoint (see `checkpoint.save`)."""
        if self.devices.is_main_process:
            parts = {"model": self.model.state_dict(), "average": self.average.state_dict()}
            about = {"step": self.step, "minutes": self.minutes, "seed": self.seed}
            checkpoint.save(folder, parts, self.optimiser, about | {"recipe": self._recipe})

    @property
    def _recipe(self) -> dict[str, Any]:
        return {"batch": self.batch, "rate": self.rate, "decoder_only": self.decoder_only}

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint, to the bit.

        Raises:
            SettingError: it was trained with other settings.
        """
        about = checkpoint.facts(folder)
        checkpoint.refuse_other(folder, about, {"seed": self.seed} | self._recipe)
        parts, _ = checkpoint.load(folder, self.optimiser)
        self.model.load_state_dict(parts["model"])
        self.average.load_state_dict(parts["average"])
        self.step, self.minutes = about["step"], about.get("minutes", 0.0)

    def export(self, folder: Path) -> None:
        """Leave the averaged weights in `folder`, in diffusers' layout, as safetensors.

        Where encoder and decoder are there already nothing is written: their previews may have been
        taught since.
        """
        if not self.devices.is_main_process:
            return
        if not self.decoder_only:
            standardise(self.average, self.data)
        with tempfile.TemporaryDirectory() as new:
            self.average.save_pretrained(new)
            if not (folder / FILE).is_file() or autoencoder_of(folder) != autoencoder_of(new):
                shutil.copytree(new, folder, dirs_exist_ok=True)

    @torch.no_grad()
    def quality(self, count: int = 48) -> tuple[float, np.ndarray]:
        """PSNR in dB over held-out scenes, and the first six as drawn above as rebuilt."""
        truth = np.stack([scene(i, split="test", seed=9).picture for i in range(count)])
        rebuilt = self.average(to_tensor(truth).to(self.average.device)).cpu()
        pixels = ((rebuilt[:6].clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        rows = [np.concatenate(list(row), 1) for row in (truth[:6], pixels.numpy())]
        return psnr(rebuilt, to_tensor(truth)), np.concatenate(rows)


@torch.no_grad()
def standardise(model: ScribbleAutoencoder, data: np.ndarray) -> None:
    """Set the latents' mean and standard deviation, per channel, from up to 512 pictures."""
    data = data[:512]
    parts = [to_tensor(data[i : i + 32]).to(model.device) for i in range(0, len(data), 32)]
    latents = torch.cat([model.encode_raw(part) for part in parts])
    model.latent_mean.copy_(latents.mean((0, 2, 3), keepdim=True))
    model.latent_std.copy_(latents.std((0, 2, 3), keepdim=True))
