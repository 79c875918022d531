"""What the page does: handlers that take long are generators of updates; errors are sentences.

A visitor's handler listens to his job and never holds the model. Gradio runs each `next` of a
generator wherever it likes; nothing of torch crosses a `yield`.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from scribblediffusion.errors import ScribbleError, SettingError
from scribblediffusion.gallery import Run
from scribblediffusion.sketch import Sketch
from scribblediffusion.web.asking import among, away, field_of, visitor_of
from scribblediffusion.web.canvas import MASK_COLOUR, blank, drawing_of, drawn, mask_sheet, sheet_of
from scribblediffusion.web.clearly import clearly
from scribblediffusion.web.comparison import pack_comparison
from scribblediffusion.web.limits import Order, whole
from scribblediffusion.web.painter import Painted
from scribblediffusion.web.programs import cached
from scribblediffusion.web.sentences import ended, said, sentence_of
from scribblediffusion.web.shelf import Shelf
from scribblediffusion.web.studio import Studio, new_seed, starters
from scribblediffusion.web.worker import Failed, Finished, News, Running

_log = logging.getLogger(__name__)
_PAGES_KNOWN = 2000
_ONE_AT_A_TIME = "One picture at a time: wait for this one, or stop it, then ask again."

Update = dict[Any, Any]


class Handlers:
    """The handlers of one page.

    Args:
        studio: what is behind the page.

    Attributes:
        parts: name → component; updates are given by component.
        shelf: the handlers of the gallery.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio, self.shelf = studio, Shelf(studio)
        self.parts: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        self._turns: OrderedDict[str, int] = OrderedDict()
        #: Pages with a picture under way → what they are told beside how it goes.
        self._asking: dict[str, str] = {}

    # ── making pictures ──────────────────────────────────────────────────────────────────────

    async def generate(
        self,
        board: Any,
        masked: bool,
        mask: Any,
        prompt: Any,
        steps: Any,
        guidance: Any,
        sketch_guidance: Any,
        seed: Any,
        model: Any,
        each_head: Any,
        shown: Any,
        request: gr.Request,
    ) -> AsyncIterator[Update]:
        """A run from the page: live, then kept, then drawn."""
        visitor = visitor_of(request)

        def order() -> Order:
            before = self.studio.sketch_seen(visitor, shown)
            return Order(
                prompt=prompt if prompt is not None else "",
                sketch=drawn(board, mask if masked else None, before),
                steps=whole("steps", steps),
                guidance=guidance,
                sketch_guidance=sketch_guidance,
                seed=_seed(seed),
                model=model or "",
                each_head=bool(each_head),
            )

        async for update in self._run(order, request):
            yield update

    async def without(self, request: gr.Request, event: gr.EventData) -> AsyncIterator[Update]:
        """The run in the explorer once more without a word or a stroke, then both compared."""
        visitor = visitor_of(request)
        run_id, what = field_of(event, "run"), field_of(event, "without")

        def order() -> Order:
            return self.studio.without(visitor, run_id, what if isinstance(what, dict) else {})

        async for update in self._run(order, request, compared_with=run_id):
            yield update

    async def _run(
        self,
        make_order: Callable[[], Order],
        request: gr.Request,
        compared_with: str | None = None,
    ) -> AsyncIterator[Update]:
        parts, visitor = self.parts, visitor_of(request)
        session = request.session_hash or ""
        if session in self._asking:
            self._asking[session] = _ONE_AT_A_TIME
            yield {parts["status"]: said("waiting", _ONE_AT_A_TIME), **self._busy()}
            return
        self._asking[session] = ""
        job, painted, turn, frame = None, None, 0, None
        try:
            order = await away(self.studio.packing, make_order)
            job = self.studio.submit(visitor, order, among(request))
            turn = self._turn(session) if compared_with is None else 0
            async for news in job.news():
                if isinstance(news, Finished):
                    painted = news.result
                    continue
                update: Update = {parts["status"]: self._told(news, order, session), **self._busy()}
                if isinstance(news, Failed):
                    update |= self._idle(visitor) | self._over(session, turn, frame)
                fresh = news.frame if isinstance(news, Running) else None
                if turn and fresh is not None and fresh is not frame:
                    frame = fresh
                    update |= {parts["explorer"]: frame} if self._is_newest(session, turn) else {}
                yield update
        except (ScribbleError, OSError) as error:
            over = self._over(session, turn, frame)
            yield {parts["status"]: said("error", clearly(error)), **self._idle(visitor), **over}
        finally:
            self._asking.pop(session, None)
            if job is not None:
                self.studio.worker.withdraw(job)
        if painted is None:
            return
        self.studio.keep(painted)
        if compared_with is None:
            shown = self._show(painted, visitor, session, turn)
        else:
            shown = self._show_beside(painted, visitor, compared_with)
        try:
            async for last in shown:
                yield last
        except (ScribbleError, OSError) as error:  # such as: what to compare with was deleted
            over = self._over(session, turn, frame)
            yield {parts["status"]: said("error", clearly(error)), **self._idle(visitor), **over}

    def _over(self, session: str, turn: int, frame: Any) -> Update:
        """An explorer that showed a run as it went on, and that is not going to be its record."""
        is_shown = frame is not None and self._is_newest(session, turn)
        return {self.parts["explorer"]: None} if is_shown else {}

    def _told(self, news: News, order: Order, session: str) -> dict[str, Any]:
        """How a run goes; and what its page asked for meanwhile, and cannot have yet."""
        told, more = sentence_of(news, order), self._asking.get(session)
        return told | {"text": f"{told['text']} · {more}"} if more else told

    async def _show(
        self, painted: Painted, visitor: str, session: str, turn: int
    ) -> AsyncIterator[Update]:
        """A fresh run: its maps at once; evolution and analysis as soon as they are drawn."""
        parts, studio, run = self.parts, self.studio, painted.run
        packed = await away(studio.packing, studio.packed, run)
        about = await away(studio.packing, self._about, run, painted.trace.picture)
        told = ended(painted)
        if not self._is_newest(session, turn):
            kept = f"{told['text']} It is in the gallery; what you opened meanwhile stays here."
            yield {parts["status"]: told | {"text": kept}, **self._idle(visitor)}
            return
        picture = {parts["picture"]: about.pop(parts["picture"])}
        shown: Update = {parts["status"]: told, **self._idle(visitor), **about}
        shown |= {parts["explorer"]: packed, parts["last_seed"]: painted.order.seed}
        shown |= _last_seed_button(parts, painted.order.seed)
        yield shown | {parts["comparison_part"]: gr.update(visible="hidden")}
        if self._is_newest(session, turn):
            yield picture  # by itself, as its file may find no room
        views = await self._drawn(run, told)
        if self._is_newest(session, turn):
            yield views

    async def _show_beside(
        self, painted: Painted, visitor: str, before: str
    ) -> AsyncIterator[Update]:
        """A fresh run, compared with the one that it was made from; the explorer stays."""
        parts, seed = self.parts, painted.order.seed
        shown: Update = {parts["status"]: ended(painted), **self._idle(visitor)}
        shown |= {parts["last_seed"]: seed} | _last_seed_button(parts, seed)
        yield shown | await self._compared(visitor, before, painted.run.id)

    async def stop(self, request: gr.Request) -> Any:
        """Stop what this visitor has under way, whichever page asked for it."""
        self.studio.worker.stop(visitor_of(request))
        return _able(False)

    # ── looking at runs ──────────────────────────────────────────────────────────────────────

    async def visit(self, link: Any, request: gr.Request) -> AsyncIterator[Update]:
        """The page is opened: the run that its address names, if any, and the gallery."""
        shelf = await self.shelf.show_shelf(None, request)
        yield {self.parts["shelf"]: shelf, **self._idle(visitor_of(request))}
        if isinstance(link, str) and link:
            async for update in self._open(request, link, by_link=True):
                yield update

    async def open_run(self, request: gr.Request, event: gr.EventData) -> AsyncIterator[Update]:
        """A run of the gallery: sketch, prompt, settings and explorer as they were."""
        tab = {self.parts["tabs"]: gr.update(selected="draw")}
        async for update in self._open(request, field_of(event, "id"), by_link=False):
            yield update | tab
            tab = {}  # whoever went on to the gallery meanwhile stays there

    async def explore(self, run_id: Any, request: gr.Request) -> AsyncIterator[Update]:
        """The second run of a comparison, in the explorer."""
        async for update in self._open(request, run_id, by_link=False):
            yield update

    async def _open(
        self, request: gr.Request, run_id: str, *, by_link: bool
    ) -> AsyncIterator[Update]:
        parts, studio, visitor = self.parts, self.studio, visitor_of(request)
        session = request.session_hash or ""
        before, turn = self._turns.get(session, 0), self._turn(session)
        try:
            find = studio.visitors.by_link if by_link else studio.visitors.seen
            run = await away(studio.packing, find, visitor, run_id)
            shown = await away(studio.packing, self._restored, run)
            shown[parts["explorer"]] = await away(studio.packing, studio.packed, run)
        except Exception as error:  # noqa: BLE001 (a record may be anybody's)
            if self._is_newest(session, turn):
                self._turns[session] = before  # what is under way goes on being shown
                yield {parts["status"]: said("error", _why_unopened(error))}
            return
        if not self._is_newest(session, turn):
            return
        yield shown
        views = await self._drawn(run, shown[parts["status"]])
        if self._is_newest(session, turn):
            yield views

    def _turn(self, session: str) -> int:
        """The number of what a page asks for now: the explorer is set by the last one alone."""
        self._turns.pop(session, None)
        turn = self._turns[session] = next(self._numbers)
        while len(self._turns) > _PAGES_KNOWN:
            self._turns.popitem(last=False)
        return turn

    def _is_newest(self, session: str, turn: int) -> bool:
        return self._turns.get(session, turn) == turn

    def _restored(self, run: Run) -> Update:
        """Everything on the page as it was when the run was made."""
        parts, studio = self.parts, self.studio
        settings = run.part("settings", dict)
        sketch, trace = run.sketch(), studio.trace(run)
        drawing = None if sketch is None else sketch.to_image()
        inside = None if sketch is None else sketch.mask
        model = studio.model_of(run)
        where = f"Opened: the run of {run.created:%d %B %Y, %H:%M}."
        chosen = model or next(iter(studio.models))
        if model is None:
            where += f" It was made with a model that is not offered here: the {chosen} is chosen."
        shown: Update = {
            parts["board"]: blank() if drawing is None else sheet_of(drawing),
            parts["masked"]: inside is not None,
            parts["mask"]: _mask(drawing, inside, visible=inside is not None),
            parts["each_head"]: bool(settings.get("each_head", False)),
            parts["prompt"]: run.prompt,
            parts["steps"]: settings.get("num_inference_steps", gr.skip()),
            parts["guidance"]: settings.get("guidance_scale", gr.skip()),
            parts["sketch_guidance"]: settings.get("sketch_guidance_scale", gr.skip()),
            parts["seed"]: "" if run.seed is None else str(run.seed),
            parts["model"]: chosen,
            parts["comparison_part"]: gr.update(visible="hidden"),
            parts["status"]: said("done" if trace.complete else "stopped", where),
        }
        if run.seed is not None:
            shown |= {parts["last_seed"]: run.seed} | _last_seed_button(parts, run.seed)
        return shown | self._about(run, trace.picture)

    def _about(self, run: Run, picture: np.ndarray | None) -> Update:
        """The outputs of a run, as far as they are there yet."""
        parts = self.parts
        shown: Update = {
            parts["run_id"]: run.id,
            parts["picture"]: None if picture is None else Image.fromarray(picture),
            parts["gif"]: None,
            parts["analysis"]: None,
            parts["entry"]: self.studio.entry(run),
            parts["outputs_part"]: gr.update(visible=True),
        }
        return shown

    async def _drawn(self, run: Run, told: dict[str, Any]) -> Update:
        """Evolution and analysis; or, beside what the status line told, why there are none."""
        parts = self.parts
        try:
            gif, analysis = await away(self.studio.drawing, self.studio.views, run)
            return {
                parts["gif"]: cached(parts["gif"], gif),
                parts["analysis"]: cached(parts["analysis"], analysis),
            }
        except (ScribbleError, OSError) as error:
            _log.info("run %s: %s", run.id, error)
            text = f"{told['text']} No evolution and no analysis: {clearly(error)}."
            return {
                parts["gif"]: None,
                parts["analysis"]: None,
                parts["status"]: told | {"text": text},
            }

    async def compare(
        self, current: str, request: gr.Request, event: gr.EventData
    ) -> AsyncIterator[Update]:
        """The run in the explorer beside one of the gallery."""
        parts, visitor = self.parts, visitor_of(request)
        if not current:
            yield {parts["status"]: said("error", "Open or make a picture first, to compare with."),
                   parts["tabs"]: gr.update(selected="draw")}  # fmt: skip
            return
        try:
            shown = await self._compared(visitor, current, field_of(event, "id"))
            told = "Compared: the run that was here is before, the one of the gallery after."
            shown |= {parts["status"]: said("done", told)}
        except (ScribbleError, OSError) as error:
            shown = {parts["status"]: said("error", clearly(error))}
        yield shown | {parts["tabs"]: gr.update(selected="draw")}

    async def _compared(self, visitor: str, first: str, second: str) -> Update:
        studio = self.studio

        def packed() -> dict[str, Any]:
            seen = [studio.visitors.seen(visitor, one) for one in (first, second)]
            return pack_comparison(*(studio.trace(run) for run in seen))

        value = await away(studio.packing, packed)
        parts = self.parts
        return {
            parts["comparison"]: value,
            parts["comparison_part"]: gr.update(visible=True),
            parts["other_id"]: second,
        }

    # ── small ────────────────────────────────────────────────────────────────────────────────

    def pick(self, event: gr.EventData) -> tuple[Any, Any]:
        """A drawing to begin with, and its prompt."""
        found, number = starters(), field_of(event, "number")
        if not isinstance(number, int) or not 0 <= number < len(found):
            return gr.skip(), gr.skip()
        sketch = Sketch.from_image(found[number].file)  # black on white, whatever its paper is
        return sheet_of(sketch.to_image()), found[number].prompt

    def mask_board(self, masked: bool, board: Any) -> Any:
        """Shows the board on which the part that counts is painted, the drawing faintly on it."""
        if not masked:
            return _mask(None, None, visible=False)
        drawing = drawing_of(board) if board and not board.get("refused") else None
        return _mask(drawing, None, visible=True)

    def _busy(self) -> Update:
        parts = self.parts
        return {parts["go"]: _able(False), parts["halt"]: _able(True)}

    def _idle(self, visitor: str) -> Update:
        """One may ask again, and stop what else is still under way."""
        parts, others = self.parts, self.studio.worker.jobs_of(visitor)
        return {parts["go"]: _able(True), parts["halt"]: _able(bool(others))}


def _why_unopened(error: Exception) -> str:
    """Why a run is not shown: what is wrong with it may be anything, where it is not our own."""
    if isinstance(error, ScribbleError | OSError):
        return clearly(error)
    _log.warning("a run cannot be opened: %r", error)
    return "This run cannot be opened: its record is not as the studio writes it."


def _able(yes: bool) -> Any:
    return gr.update(interactive=yes)


def _mask(drawing: Image.Image | None, inside: np.ndarray | None, *, visible: bool) -> Any:
    if not visible:
        return gr.update(visible=False)
    return gr.update(visible=True, value=mask_sheet(drawing, inside, MASK_COLOUR))


def _seed(typed: Any) -> int:
    """The seed in the field; a new one where it is empty."""
    text = str(typed if typed is not None else "").strip()
    if text and not (len(text) < 20 and text.isascii() and text.isdigit()):
        raise SettingError(f"seed: {text[:40]!r} is not a whole number of 0 or more")
    return int(text) if text else new_seed()


def _last_seed_button(parts: dict[str, Any], seed: int) -> Update:
    return {parts["use_seed"]: gr.update(value=f"Use last seed: {seed}", interactive=True)}
