"""The gallery of the page: a shelf of one's runs, its pages and search, delete and undo."""

from __future__ import annotations

from typing import Any

import gradio as gr

from scribblediffusion.errors import ScribbleError
from scribblediffusion.gallery import Run
from scribblediffusion.web.asking import away, field_of, visitor_of
from scribblediffusion.web.studio import Studio

_PAGE = 24


class Shelf:
    """The handlers of the shelf.

    Args:
        studio: what is behind the page.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def value(
        self, visitor: str, page: int = 1, words: str = "", undo: Run | None = None
    ) -> dict[str, Any]:
        """The value of the shelf."""
        found = self.studio.visitors.runs(visitor, words)
        pages = max(1, -(-len(found) // _PAGE))
        page = min(max(1, page), pages)
        some = found[(page - 1) * _PAGE : page * _PAGE]
        return {
            "runs": [_card(run) for run in some],
            "page": page,
            "pages": pages,
            "total": len(found),
            "words": words,
            "undo": None if undo is None else {"id": undo.id, "prompt": undo.prompt},
        }

    async def show_shelf(self, value: Any, request: gr.Request) -> Any:
        """The gallery as it is now, at the page and search where it was."""
        page, words = _where(value)
        return await away(self.studio.packing, self.value, visitor_of(request), page, words)

    async def turn(self, request: gr.Request, event: gr.EventData) -> Any:
        """Another page, or a search."""
        page, words = field_of(event, "page"), field_of(event, "words")
        page = page if isinstance(page, int) else 1
        words = str(words or "")[:200]
        try:
            visitor = visitor_of(request)
            return await away(self.studio.packing, self.value, visitor, page, words)
        except ScribbleError:
            return gr.skip()

    async def remove(self, value: Any, request: gr.Request, event: gr.EventData) -> Any:
        """Move a run of one's own to the bin."""
        return await self._change(value, request, field_of(event, "id"), restore=False)

    async def restore(self, value: Any, request: gr.Request, event: gr.EventData) -> Any:
        """Take it out of the bin again."""
        return await self._change(value, request, field_of(event, "id"), restore=True)

    async def _change(self, value: Any, request: gr.Request, run_id: str, *, restore: bool) -> Any:
        visitor, studio = visitor_of(request), self.studio
        page, words = _where(value)

        def change() -> dict[str, Any]:
            undo = None
            if restore:
                binned = [run for run in studio.gallery.bin() if run.id == run_id]
                if binned and studio.visitors.owns(visitor, binned[0]):
                    studio.gallery.restore(run_id)
            else:
                undo = studio.visitors.own(visitor, run_id)
                studio.gallery.delete(run_id)
            return self.value(visitor, page, words, undo)

        try:
            return await away(studio.packing, change)
        except ScribbleError:
            return await away(studio.packing, self.value, visitor, page, words)


def _where(value: Any) -> tuple[int, str]:
    """Page and words of the shelf's value, whatever a page sends for it."""
    value = value if isinstance(value, dict) else {}
    page, words = value.get("page"), value.get("words")
    return (page if isinstance(page, int) else 1), (words if isinstance(words, str) else "")[:200]


def _stopped(run: Run) -> str:
    """That a run was stopped, and at what noise; "" for one that went to its end."""
    record = run.record
    if record.get("complete", True):
        return ""
    steps = record.get("steps") or []
    noise = steps[-1].get("noise_remaining") if steps else None
    return " · stopped" + ("" if noise is None else f" at {noise:.0%} noise")


def _card(run: Run) -> dict[str, Any]:
    seed = "" if run.seed is None else f" · seed {run.seed}"
    return {
        "id": run.id,
        "prompt": run.prompt[:300],
        "facts": f"{run.created:%d %b %Y, %H:%M}{seed}{_stopped(run)}",
        "own": True,
    }
