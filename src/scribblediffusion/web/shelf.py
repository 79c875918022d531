"""The gallery of the page: a shelf of one's runs, its pages and search, delete and undo."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from scribblediffusion.errors import GalleryError, ScribbleError
from scribblediffusion.gallery import Run
from scribblediffusion.web.asking import away, field_of, visitor_of
from scribblediffusion.web.clearly import clearly
from scribblediffusion.web.studio import Studio, noise_left

_log = logging.getLogger(__name__)
#: Runs of a page; and the seconds for which a page that is opened again offers to undo.
_PAGE, _LATELY = 24, 3600


class Shelf:
    """The handlers of the shelf.

    Args:
        studio: what is behind the page.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def value(
        self, visitor: str, page: int = 1, words: str = "", undo: Any = None, message: str = ""
    ) -> dict[str, Any]:
        """The value of the shelf.

        Args:
            visitor: whose runs.
            page: which page of them, from 1.
            words: only those with all of these words.
            undo: the id of the run that was deleted last: it is offered as long as it can be had.
                None: that of the last hour, if any, as a page that is opened again does not know.
            message: what went wrong, in a sentence.
        """
        found = self.studio.visitors.runs(visitor, words)
        pages = max(1, -(-len(found) // _PAGE))
        page = min(max(1, page), pages)
        some = found[(page - 1) * _PAGE : page * _PAGE]
        gone = self._binned(visitor, undo) if undo else self._lately_binned(visitor)
        return {
            "runs": [card for card in map(_card, some) if card is not None],
            "page": page,
            "pages": pages,
            "total": len(found),
            "words": words,
            "undo": None if gone is None else {"id": gone.id, "prompt": gone.prompt},
            "message": message,
        }

    def _binned(self, visitor: str, run_id: Any) -> Run | None:
        """A run of one's own in the bin; None where it is not there."""
        if not isinstance(run_id, str) or not run_id:
            return None
        binned = (run for run in self.studio.gallery.bin() if run.id == run_id)
        return next((run for run in binned if self.studio.visitors.owns(visitor, run)), None)

    def _lately_binned(self, visitor: str) -> Run | None:
        """Of one's own runs that were deleted within the last hour the last one."""
        since = {run: _moved(run) for run in self.studio.gallery.bin()}
        late = (run for run, moved in since.items() if time.time() - moved < _LATELY)
        own = (run for run in late if self.studio.visitors.owns(visitor, run))
        return max(own, key=since.__getitem__, default=None)

    async def show_shelf(self, value: Any, request: gr.Request) -> Any:
        """The gallery as it is now, at the page and search where it was."""
        page, words = _where(value)
        return await self._shown(value, request, page, words)

    async def turn(self, value: Any, request: gr.Request, event: gr.EventData) -> Any:
        """Another page, or a search."""
        page, words = field_of(event, "page"), field_of(event, "words")
        page = page if isinstance(page, int) else 1
        return await self._shown(value, request, page, _text(words))

    async def _shown(self, value: Any, request: gr.Request, page: int, words: str) -> Any:
        studio, given = self.studio, (visitor_of(request), page, words, _undo(value))
        try:
            return await away(studio.packing, self.value, *given)
        except (ScribbleError, OSError) as error:
            return _with(value, clearly(error))

    async def remove(self, value: Any, request: gr.Request, event: gr.EventData) -> Any:
        """Move a run of one's own to the bin."""
        return await self._change(value, request, field_of(event, "id"), self._bin)

    async def restore(self, value: Any, request: gr.Request, event: gr.EventData) -> Any:
        """Take it out of the bin again."""
        return await self._change(value, request, field_of(event, "id"), self._unbin)

    def _bin(self, visitor: str, run_id: Any) -> None:
        self.studio.gallery.delete(self.studio.visitors.own(visitor, run_id).id)

    def _unbin(self, visitor: str, run_id: Any) -> None:
        if self._binned(visitor, run_id) is None:
            raise GalleryError("this run is not in the bin any more: it cannot be brought back")
        self.studio.gallery.restore(run_id)

    async def _change(
        self, value: Any, request: gr.Request, run_id: Any, do: Callable[[str, Any], None]
    ) -> Any:
        visitor, (page, words) = visitor_of(request), _where(value)

        def change() -> dict[str, Any]:
            try:
                do(visitor, run_id)
            except (ScribbleError, OSError) as error:
                return self.value(visitor, page, words, _undo(value), clearly(error))
            return self.value(visitor, page, words, run_id)

        try:
            return await away(self.studio.packing, change)
        except (ScribbleError, OSError) as error:
            return _with(value, clearly(error))


def _with(value: Any, message: str) -> dict[str, Any]:
    """The shelf as it was, and what went wrong."""
    nothing = {"runs": [], "page": 1, "pages": 1, "total": 0, "words": "", "undo": None}
    return nothing | (value if isinstance(value, dict) else {}) | {"message": message}


def _undo(value: Any) -> Any:
    """The id of the run that the shelf offers to bring back."""
    undo = value.get("undo") if isinstance(value, dict) else None
    return undo.get("id") if isinstance(undo, dict) else None


def _where(value: Any) -> tuple[int, str]:
    """Page and words of the shelf's value, whatever a page sends for it."""
    value = value if isinstance(value, dict) else {}
    page, words = value.get("page"), value.get("words")
    return (page if isinstance(page, int) else 1), _text(words)


def _text(words: Any) -> str:
    """What is searched for, whatever a page sends for it."""
    return words[:200].encode(errors="ignore").decode() if isinstance(words, str) else ""


def _moved(run: Run) -> float:
    """When a run was moved to where it is, in seconds of the clock; long ago if it is gone."""
    try:
        return run.folder.stat().st_ctime
    except OSError:
        return 0.0


def _stopped(run: Run) -> str:
    """That a run was stopped, and at what noise; "" for one that went to its end."""
    if run.record.get("complete", True):
        return ""
    noise = noise_left(run)
    return " · stopped" + ("" if noise is None else f" at {noise:.0%} noise")


def _card(run: Run) -> dict[str, Any] | None:
    """A run on the shelf; None for one that cannot be read."""
    try:
        seed = "" if run.seed is None else f" · seed {run.seed}"
        facts = f"{run.created:%d %b %Y, %H:%M}{seed}{_stopped(run)}"
    except Exception as error:  # noqa: BLE001 (a record may be anybody's: the others are shown)
        _log.warning("run %s is not shown: %r", run.id, error)
        return None
    return {"id": run.id, "prompt": run.prompt[:300], "facts": facts, "own": True}
