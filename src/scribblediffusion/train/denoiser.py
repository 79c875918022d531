"""The denoiser with its prompt and sketch encoders, as training sees them.

The sample is x_σ = (1 − σ)·x + σ·ε and the network predicts the velocity ε − x (Lipman et al.
2023; Liu et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.model.strokes import SketchEncoder
from scribblediffusion.model.text import PromptEncoder
from scribblediffusion.model.tokens import EMPTY_PROMPT
from scribblediffusion.model.unet import SHIPPED, ScribbleUNet
from scribblediffusion.train.batches import Batch
from scribblediffusion.train.grounding import Watch, grounding_loss
from scribblediffusion.train.naming import Features, Naming
from scribblediffusion.train.placing import places_said, placing_loss

#: The parts of a `Denoiser` that a pipeline has.
SHIPPED_PARTS = ("unet", "prompt_encoder", "sketch_encoder")


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    `pool` 2 trains on latents averaged over 2×2 cells: four times cheaper, and flat colours keep
    their values, so that words can be learnt there before details are. `alone` is the share of
    the scenes of one object that is used: in them, no word can go to a wrong object.
    """

    batch: int = 16
    rate: float = 1.2e-3
    pool: int = 1
    warm_up: int = 150
    average: float = 0.999
    coarse: float = 4.0
    grounding: float = 0.15
    naming: float = 0.1
    placing: float = 0.5
    alone: float = 0.4
    drop_text: float = 0.10
    drop_sketch: float = 0.07
    drop_both: float = 0.05


#: Noise below which the noised picture itself shows colours, so that naming them teaches nothing.
UNSEEN = 0.6
#: Noise above which a sampler decides which object gets which colour: its first three steps.
DECIDED = 0.85


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """σ for each sample: half uniform, a quarter leaning to much noise, a quarter where colours are
    decided (above `DECIDED`).
    """
    chance = torch.rand(count, generator=generator)
    leaning = torch.rand(count, generator=generator).sqrt()
    kind = torch.randint(4, (count,), generator=generator)
    decided = DECIDED + (1 - DECIDED) * chance
    return torch.where(kind < 2, chance, torch.where(kind == 2, leaning, decided))


class Losses(NamedTuple):
    """What a step is judged by.

    Attributes:
        velocity: `[B]`, mean squared error of the velocity of each sample.
        coarse: the same error averaged over 4×4 cells, where flat colour lives.
        grounding: how far the words' maps are from their objects (see `grounding_loss`).
        naming: `[2]`, how badly nouns and colours are known at their places (see `Naming`).
        placing: how far the words' places are from their objects' (see `placing_loss`).
    """

    velocity: Tensor
    coarse: Tensor
    grounding: Tensor
    naming: Tensor
    placing: Tensor


class Denoiser(nn.Module):
    """The three trained parts that ship, and the heads of the naming loss, which do not."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = ScribbleUNet(**SHIPPED)
        self.prompt_encoder = PromptEncoder()
        self.sketch_encoder = SketchEncoder()
        self.naming = Naming()
        for module in self.unet.modules():  # a new transformer changes nothing, as in LDM
            if isinstance(module, Transformer2DModel):
                for parameter in module.proj_out.parameters():
                    nn.init.zeros_(parameter)

    def context(
        self, batch: Batch, keep_text: Tensor, keep_sketch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keys `[B, T + 77, 256]` and their mask; a dropped text is `[CLS] [SEP]`."""
        empty = torch.zeros_like(batch.ids)
        empty[:, :2] = torch.tensor(EMPTY_PROMPT, device=empty.device)
        ids = torch.where(keep_text[:, None], batch.ids, empty)
        ends = torch.arange(ids.shape[1], device=ids.device)[None] < 2
        mask = torch.where(keep_text[:, None], batch.mask, ends)
        text, sketch = self.prompt_encoder(ids, mask), self.sketch_encoder(batch.ink)
        shown = keep_sketch[:, None].expand(-1, sketch.shape[1])
        return torch.cat([text, sketch], 1), torch.cat([mask, shown], 1)

    def velocity(
        self, batch: Batch, sigma: Tensor, noise: Tensor, keep: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The velocity predicted for a noised batch, and the mask of the keys that it read."""
        level = sigma[:, None, None, None]
        noised = ((1 - level) * batch.latents + level * noise).contiguous(
            memory_format=torch.channels_last
        )
        context, mask = self.context(batch, *keep)
        output: Any = self.unet(noised, sigma * 1000, context, encoder_attention_mask=mask.float())
        return output.sample.float(), mask

    def forward(
        self, batch: Batch, sigma: Tensor, noise: Tensor, keep: tuple[Tensor, Tensor]
    ) -> Losses:
        """Noise a batch, predict its velocity, and compare.

        Args:
            batch: the scenes.
            sigma: `[B]` noise levels.
            noise: like `batch.latents`.
            keep: `[B]` bool each: whose text, and whose sketch, is not dropped.
        """
        with (
            Watch(self.unet) as watch,
            Features(self.unet) as features,
            places_said(self.prompt_encoder) as places,
        ):
            predicted, mask = self.velocity(batch, sigma, noise, keep)
        error = predicted - (noise - batch.latents)
        cell = batch.latents.shape[-1] // 8
        return Losses(
            velocity=error.square().mean((1, 2, 3)),
            coarse=F.avg_pool2d(error, cell).square().mean(),
            grounding=torch.stack([grounding_loss(w, batch) for w in watch.weights(mask)]).mean(),
            naming=self.naming(features, batch, keep[0] & keep[1] & (sigma > UNSEEN)),
            placing=placing_loss(places[0], batch, keep[0]),
        )
