"""Training the denoiser: a run that can be killed and goes on from its last checkpoint.

What a step sees (scenes, noise, dropped conditions) is a function of the seed and the step's
number, so that a run that was killed and goes on is the run that was not.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.errors import SettingError, WeightsError
from scribblediffusion.model.weights import FILE
from scribblediffusion.train import checkpoint, placing
from scribblediffusion.train.batches import Words, chosen, collate, read, rows_of
from scribblediffusion.train.denoiser import SHIPPED_PARTS, Denoiser, Losses, Recipe, noise_levels
from scribblediffusion.train.devices import agreed
from scribblediffusion.train.health import refuse_not_finite
from scribblediffusion.train.latents import Shard
from scribblediffusion.train.precision import half_is_faster
from scribblediffusion.train.words import word_table, word_tokenizer

log = logging.getLogger(__name__)
#: Seconds over which the figures of a `Report` are averaged.
RECENT = 60.0


@dataclass(frozen=True)
class Report:
    """How a run is getting on; the figures are means over the last minute.

    Attributes:
        step: steps done, since the run's first.
        done: share of the leg's time, 0–1.
        rate: images a second, all devices together.
        bands: velocity loss by noise quarter (0–¼, ¼–½, ½–¾, ¾–1); NaN where no sample fell.
        grounding: grounding loss.
        naming: naming loss of nouns and of colours.
        placing: placing loss.
    """

    step: int
    done: float
    rate: float
    bands: tuple[float, float, float, float]
    grounding: float
    naming: tuple[float, float]
    placing: float

    def __str__(self) -> str:
        bands = " ".join(f"{band:.3f}" for band in self.bands)
        return (
            f"step {self.step}: loss by noise {bands}, grounding {self.grounding:.3f}, "
            f"nouns {self.naming[0]:.2f}, colours {self.naming[1]:.2f}, "
            f"placing {self.placing:.3f}, {self.rate:.1f} images/s"
        )


class Trainer:
    """Model, its running average, and optimiser, on as many devices as `accelerate` finds.

    Attributes:
        recipe: the settings.
        step: steps done.
        minutes: wall time that the steps took, in this call and in those it goes on from.
        model: the trained parts.
        average: the exponential moving average of the model's state: what is exported.
        whole: whether model, average and step belong together: not in the middle of an update.
    """

    def __init__(self, recipe: Recipe, data: Shard, *, seed: int = 0, cpu: bool = False) -> None:
        """Make the model, not yet trained.

        Args:
            recipe: the settings.
            data: the scenes.
            seed: order of scenes and noise.
            cpu: leave other devices alone.

        Raises:
            SettingError: there are fewer scenes than a step takes.
        """
        self.scenes = chosen(data, recipe.alone, seed)
        if len(self.scenes) < recipe.batch:
            raise SettingError(
                f"{len(self.scenes)} scenes are used, a step takes {recipe.batch}: make more with "
                "scribble train scenes, or give a smaller --batch"
            )
        half = half_is_faster(PartialState(cpu=cpu).device or "cpu")
        self.accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=cpu)
        torch.manual_seed(seed)
        self.recipe, self.data, self.seed, self.step = recipe, data, seed, 0
        self.minutes, self.whole = 0.0, True
        self.tokenizer = word_tokenizer()
        model: Any = Denoiser()
        if half:
            # Plain products: their backward pass in bfloat16 is twice as fast as the fused one.
            model.unet.set_attn_processor(AttnProcessor())
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, betas=(0.9, 0.98))
        prepared = self.accelerator.prepare(model.to(memory_format=torch.channels_last), optimiser)
        self._wrapped, self.optimiser = prepared
        self.model: Denoiser = self.accelerator.unwrap_model(self._wrapped)
        self.average = self._state()

    def _state(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def run_step(self, scale: float = 1.0) -> tuple[Tensor, Losses]:
        """One update, with the learning rate times `scale`; the noise levels and the losses.

        Raises:
            TrainingError: the loss or its gradient is not finite; nothing was changed.
        """
        recipe, device = self.recipe, self.accelerator.device
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        rng = np.random.default_rng([self.seed, self.step, rank])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        number = self.step * ranks + rank
        rows = rows_of(number, scenes=len(self.scenes), batch=recipe.batch, seed=self.seed)
        batch = collate(self.data, self.scenes[rows], self.tokenizer, rng)
        if recipe.pool > 1:
            batch.latents = F.avg_pool2d(batch.latents, recipe.pool)
        sigma = noise_levels(recipe.batch, generator)
        noise = torch.randn(batch.latents.shape, generator=generator)
        keep = dropped(recipe, torch.rand(recipe.batch, generator=generator))
        warm = min(1.0, (self.step + 1) / recipe.warm_up) * scale
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * warm
        losses = self._wrapped(
            batch.to(device), sigma.to(device), noise.to(device), tuple(k.to(device) for k in keep)
        )
        total = losses.velocity.mean() + recipe.coarse * losses.coarse
        self.optimiser.zero_grad()
        words = (
            recipe.grounding * losses.grounding
            + recipe.naming * losses.naming.sum()
            + recipe.placing * losses.placing
        )
        self.accelerator.backward(total + words)
        norm: Any = self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        refuse_not_finite(self.step, total + words, norm)
        self.whole = False
        self.optimiser.step()
        self.step += 1
        self._follow()
        self.whole = True
        return sigma, losses

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.recipe.average, self.step / (self.step + 20))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)

    # ------------------------------------------------------------- checkpoints

    def save(self, folder: Path) -> None:
        """Write a checkpoint (see `checkpoint.save`)."""
        if self.accelerator.is_main_process:
            about = {"step": self.step, "minutes": self.minutes, "seed": self.seed}
            about |= {"recipe": asdict(self.recipe)}
            parts = {"model": self.model.state_dict(), "average": self.average}
            checkpoint.save(folder, parts, self.optimiser, about)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint, to the bit.

        Raises:
            SettingError: it was trained with other settings.
            WeightsError: there is no checkpoint, or it cannot be read.
        """
        about = checkpoint.facts(folder)
        checkpoint.refuse_other(folder, about, {"seed": self.seed} | asdict(self.recipe))
        parts, _ = checkpoint.load(folder, self.optimiser)
        self.model.load_state_dict(parts["model"])
        self.average, self.step = parts["average"], about["step"]
        self.minutes = about.get("minutes", 0.0)

    def begin(self, folder: Path | None) -> None:
        """Start from a checkpoint, from exported weights (as those that ship), or from nothing.

        A new leg begins from the averaged weights of the last one, without its optimiser. Layers
        that the folder does not know begin as they are made: its model may have been smaller.

        Raises:
            WeightsError: the folder knows layers that the model does not have.
        """
        if folder is None:
            self.model.prompt_encoder.set_table(word_table())
        elif checkpoint.exists(folder):
            _take(self.model, checkpoint.load(folder)[0]["average"], folder / checkpoint.CHECKPOINT)
        else:
            for name in SHIPPED_PARTS:
                path = folder / name / FILE
                _take(self.model.get_submodule(name), load_file(path), path)
        self.average = self._state()

    def teach_places(self, steps: int) -> Iterator[float]:
        """Before the first step: teach the prompt encoder on captions alone (see `placing`)."""

        def captions(step: int) -> Words:
            order = [self.seed, step]
            rows = np.random.default_rng(order).choice(self.scenes, placing.CAPTIONS)
            return read(self.data, rows, self.tokenizer)

        encoder = self.model.prompt_encoder
        yield from placing.teach_places(encoder, captions, steps=steps, rate=self.recipe.rate)
        self.average = self._state()

    # -------------------------------------------------------------------- runs

    def run(self, *, minutes: float, fall: float = 0.0) -> Iterator[Report]:
        """Train for `minutes` of wall time, a report after each step; leave the loop to stop.

        Args:
            minutes: wall time of the whole leg; a call that goes on does what is left of it.
            fall: share of the time, at its end, over which the learning rate falls to nothing.
        """
        start, before = time.monotonic(), self.minutes
        recent: deque[tuple[float, Tensor, Losses]] = deque()
        while (done := agreed(self.minutes / minutes)) < 1:
            sigma, losses = self.run_step(min(1.0, (1 - done) / fall) if fall else 1.0)
            now = time.monotonic()
            self.minutes = before + (now - start) / 60
            recent.append((now, sigma, Losses(*(value.detach().cpu() for value in losses))))
            while len(recent) > 2 and now - recent[0][0] > RECENT:
                recent.popleft()
            seconds = now - (recent[0][0] if len(recent) > 1 else start)
            images = self.recipe.batch * max(1, len(recent) - 1) * self.accelerator.num_processes
            yield _report(self.step, done, images / seconds, recent)


def _take(part: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load weights that may lack layers, but know none that the part does not have."""
    found = part.load_state_dict(state, strict=False)
    if found.unexpected_keys:
        raise WeightsError(
            f"{path}: {found.unexpected_keys[0]} has no place in the model that is trained; begin "
            "from weights of the same design"
        )
    if found.missing_keys:
        log.info("%s: %d tensors begin anew", path, len(found.missing_keys))


def dropped(recipe: Recipe, chance: Tensor) -> tuple[Tensor, Tensor]:
    """Whose text and whose sketch is kept, `[B]` bool each, from `[B]` uniform numbers."""
    both, text = recipe.drop_both, recipe.drop_both + recipe.drop_text
    keep_text = chance >= text
    keep_sketch = ~((chance < both) | ((chance >= text) & (chance < text + recipe.drop_sketch)))
    return keep_text, keep_sketch


def _report(step: int, done: float, rate: float, recent: deque) -> Report:
    quarter = torch.cat([(sigma * 4).long().clamp(0, 3) for _, sigma, _ in recent])
    velocity = torch.cat([losses.velocity for _, _, losses in recent])
    bands = [float(velocity[quarter == number].mean()) for number in range(4)]
    grounding = float(torch.stack([losses.grounding for _, _, losses in recent]).mean())
    naming = torch.stack([losses.naming for _, _, losses in recent]).mean(0)
    placing = float(torch.stack([losses.placing for _, _, losses in recent]).mean())
    named = float(naming[0]), float(naming[1])
    return Report(
        step, done, rate, (bands[0], bands[1], bands[2], bands[3]), grounding, named, placing
    )
