"""What ends a training run before it spoils its weights."""

from __future__ import annotations

import math

from torch import Tensor

from scribblediffusion.errors import TrainingError


def refuse_not_finite(step: int, loss: Tensor, norm: Tensor) -> None:
    """Called before the weights are changed: afterwards they, and every later step, would be lost.

    Args:
        step: steps done so far.
        loss: what was differentiated.
        norm: of the gradient.

    Raises:
        TrainingError: one of them is not finite.
    """
    for what, value in (("the loss", float(loss.detach())), ("the gradient's norm", float(norm))):
        if not math.isfinite(value):
            raise TrainingError(
                f"{what} of step {step + 1} is {value}; the weights are left as step {step} made "
                "them; try a lower rate or another seed, as a new leg that begins from them"
            )
