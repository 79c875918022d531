"""Contexts whose hooks are all there inside and all gone outside, whatever happens."""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar, Self

from scribblediffusion.attention.guard import unbroken
from scribblediffusion.errors import CaptureError


class Attaching:
    """What extractor and knock-out share: coming and going.

    A failure half-way through, or Ctrl-C at any moment, leaves no hook behind. (Python itself may
    be interrupted between `with` and the first instruction here; nobody can hold that back.)
    """

    #: What a second `with` of one that is open is told.
    _open: ClassVar[str]
    _stack: ExitStack | None = None

    def _attach(self, stack: ExitStack) -> None:
        """Register hooks, and tell the stack how each of them goes."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Attach.

        Raises:
            CaptureError: it is attached already.
        """
        if self._stack is not None:
            raise CaptureError(self._open)
        try:
            with unbroken(), ExitStack() as stack:
                self._attach(stack)
                self._stack = stack.pop_all()
            return self
        except BaseException:
            self._close()
            raise

    def _leave(self) -> None:
        try:
            with unbroken():
                self._close()
        finally:
            self._close()  # if Ctrl-C came before it could be held back

    def _close(self) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None
