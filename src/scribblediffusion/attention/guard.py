"""What must not stop a run that is looked at, and the one thing that must."""

from __future__ import annotations

from scribblediffusion.errors import CaptureError

#: What may go wrong while looking: anything, since tokenizers raise `Exception` itself. Hooks catch
#: it, say so, and the run goes on.
SURVIVABLE = Exception


class Mixed(CaptureError):
    """The one error that stops a denoiser call: going on would mix two runs.

    Whoever catches `SURVIVABLE` lets it through first.
    """

    def __init__(self) -> None:
        super().__init__(
            "two threads run one pipeline while its attention is captured: their runs would mix; "
            "give each thread a pipeline of its own, or let one wait for the other"
        )


def reason(error: BaseException) -> str:
    """An error in a few words; some have none but their name."""
    return str(error) or type(error).__name__
