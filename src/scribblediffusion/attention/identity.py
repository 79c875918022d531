"""By what a denoiser call is known to be of a run: its thread, and the condition that it brings."""

from __future__ import annotations

import threading
from collections import deque

import torch
from torch import Tensor

#: Conditions that are remembered: guidance has up to so many calls in a step.
_CONDITIONS = 4


class Identity:
    """Threads and conditions of a run.

    Args:
        thread: The thread that began it. Not its number, which is given again when it ends.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self.threads = {thread}
        self.conditions: deque[Tensor] = deque(maxlen=_CONDITIONS)

    def joins(self, thread: threading.Thread, condition: Tensor) -> None:
        """A call of the run begins."""
        self.threads.add(thread)
        if not self.holds(condition):
            self.conditions.append(condition)

    def holds(self, condition: Tensor) -> bool:
        """Whether one of the latest calls brought this very tensor."""
        return any(known is condition for known in self.conditions)

    def knows(self, condition: Tensor) -> bool:
        """Whether one of the latest calls brought this condition, maybe in another tensor."""
        return self.holds(condition) or any(_equal(one, condition) for one in self.conditions)


def _equal(one: Tensor, other: Tensor) -> bool:
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(one, other)
