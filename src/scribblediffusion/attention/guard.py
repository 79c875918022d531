"""What must not stop a run that is looked at, the one thing that must, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from scribblediffusion.errors import CaptureError

#: What may go wrong while looking: anything, since tokenizers raise `Exception` itself. Hooks catch
#: it, say so, and the run goes on.
SURVIVABLE = Exception


class Mixed(CaptureError):
    """The one error that stops a denoiser call: going on would mix two runs.

    Whoever catches `SURVIVABLE` around what may raise it lets it through first.
    """

    def __init__(self) -> None:
        super().__init__(
            "two threads run one pipeline while its attention is captured: their runs would mix; "
            "give each thread a pipeline of its own, or let one wait for the other"
        )


def reason(error: BaseException) -> str:
    """An error in a few words; some have none but their name."""
    return str(error) or type(error).__name__


@contextmanager
def unbroken() -> Iterator[None]:
    """Ctrl-C waits for the end of this block: hooks are all there, or all gone.

    Signals come to the main thread alone, so that elsewhere there is nothing to hold back.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(came[0])
