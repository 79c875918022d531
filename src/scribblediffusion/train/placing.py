"""The placing loss: a word should say where the prompt puts its object.

"A red plug above a rocket" settles which drawing is the red one without recognising either. The
denoiser finds that out slowly: it must read the place from the words and look there, and either
skill is worthless alone. So the first is taught directly, from the scenes' object masks, in the
code that queries and sketch tokens use for places (`model.place`), which heads compare from the
start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scribblediffusion.model.place import grid
from scribblediffusion.model.text import PromptEncoder
from scribblediffusion.train.batches import Words
from scribblediffusion.train.latents import object_masks

#: Cells a side at which objects are located.
SIDE = 32
#: Captions a step, and the share of the steps over which the rate falls, in `teach_places`.
CAPTIONS, FALL = 32, 0.3


@contextmanager
def places_said(encoder: PromptEncoder) -> Iterator[list[Tensor]]:
    """Keeps what the encoder's forward passes say of places, `[B, T, 16]` each."""
    said: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
        said.append(output)

    hook = encoder.place.register_forward_hook(keep)
    try:
        yield said
    finally:
        hook.remove()


def placing_loss(places: Tensor, batch: Words, told: Tensor) -> Tensor:
    """Mean squared error of the words' places; at best they are what the prompt lets one expect.

    Args:
        places: `[B, T, 16]`, what each token says (`PromptEncoder.place`).
        batch: where the objects are and which tokens name them. An object's place is the mean of
            `place.fourier` over the cells that it covers.
        told: `[B]` bool: whose prompt is not dropped.
    """
    masks = object_masks(batch.labels, SIDE).flatten(2).to(places.device)  # [B, 3, P]
    covered = masks.sum(-1, keepdim=True)
    true = masks @ grid(SIDE, masks) / covered.clamp_min(1e-6)  # [B, 3, 16]
    error = (places.float()[:, None] - true[:, :, None]).square().mean(-1)  # [B, 3, T]
    counted = batch.words & (covered > 0) & told[:, None, None]
    return (error * counted).sum() / counted.sum().clamp_min(1)


def teach_places(
    encoder: PromptEncoder, captions: Callable[[int], Words], *, steps: int, rate: float
) -> Iterator[float]:
    """Teach the prompt encoder alone where captions put their objects; the loss of each step.

    Captions are ten times as fast to read as scenes are to draw, and the skill comes late and at
    once: it needs some two thousand steps.

    Args:
        encoder: is changed in place.
        captions: gives the captions of a step, `CAPTIONS` of them.
        steps: how many.
        rate: learning rate, which falls to nothing over the last steps.
    """
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98))
    for step in range(steps):
        batch = captions(step).to(parameters[0].device)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100, (1 - step / steps) / FALL)
        told = torch.ones(len(batch.ids), dtype=torch.bool, device=batch.ids.device)
        loss = placing_loss(encoder.place(encoder.read(batch.ids, batch.mask)), batch, told)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        yield float(loss.detach())
