"""Which file shows what, so that a picture asked for twice is drawn once, and never another's."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scribblediffusion.attention.trace import AttentionTrace

#: So many files are remembered; what is forgotten is drawn again.
_MOST = 1000


class Drawn:
    """The files that were drawn, each with what it shows. No trace is kept alive."""

    def __init__(self) -> None:
        self._files: dict[Path, _File] = {}

    def once(self, path: Path, trace: AttentionTrace, how: Any, draw: Callable[[], object]) -> Path:
        """Draws a file unless it lies there as it was drawn here last, of this and so.

        Args:
            path: the file.
            trace: what it shows.
            how: everything else that decides how it looks; compared with `==`.
            draw: writes the file.

        Returns:
            The path.
        """
        place = path.absolute()
        file = self._files.pop(place, None)
        if file is None or not file.shows(trace, how) or file.state != _state(place):
            draw()
            file = _File(weakref.ref(trace), how, _state(place))
        while len(self._files) >= _MOST:
            self._files.pop(next(iter(self._files)))
        self._files[place] = file
        return path


@dataclass(frozen=True, eq=False)
class _File:
    trace: weakref.ref[AttentionTrace]
    how: Any
    state: tuple[int, int, int] | None

    def shows(self, trace: AttentionTrace, how: Any) -> bool:
        return self.state is not None and self.trace() is trace and self.how == how


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from one written later in its place; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
