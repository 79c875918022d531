"""How several processes train one model: each sees its own examples, and all make the same step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import nn


def agreed(number: float) -> float:
    """The first process's number, on all: clocks differ, and who stops alone is waited for."""
    state = PartialState()
    if state.num_processes == 1:
        return number
    told: Any = broadcast(torch.tensor([number], device=state.device), from_process=0)
    return float(told)


def share_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make each gradient its mean over all processes."""
    if PartialState().num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            shared: Any = reduce(parameter.grad, "mean")
            parameter.grad = shared
