"""What the page and the API do: each handler is a generator of updates, and errors are sentences.

A visitor's handler listens to his job and never holds the model. Gradio runs each `next` of a
generator wherever it likes; nothing of torch crosses a `yield`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_file_to_cache
from PIL import Image

from scribblediffusion.errors import ScribbleError, SettingError, SketchError
from scribblediffusion.gallery import Run
from scribblediffusion.settings import SKETCH_GUIDANCE
from scribblediffusion.web.asking import away, field_of, visitor_of
from scribblediffusion.web.canvas import blank, drawing_of, sheet_of, sketch_of
from scribblediffusion.web.comparison import pack_comparison
from scribblediffusion.web.limits import Order, whole
from scribblediffusion.web.painter import Painted
from scribblediffusion.web.shelf import Shelf
from scribblediffusion.web.studio import Studio, new_seed, starters
from scribblediffusion.web.worker import Failed, Finished, Job, News, Running, Waiting

_log = logging.getLogger(__name__)
_PAGES_KNOWN = 2000

Update = dict[Any, Any]


def said(kind: str, text: str, **more: Any) -> dict[str, Any]:
    """The value of the status line."""
    return {"kind": kind, "text": text, "noise": None, "step": 0, "count": 0, **more}


def sentence_of(news: News, order: Order) -> dict[str, Any]:
    """News of a job as the status line shows it."""
    if isinstance(news, Waiting):
        others = "1 picture is" if news.ahead == 1 else f"{news.ahead} pictures are"
        return said("waiting", f"{others} before yours." if news.ahead else "You are next.")
    if isinstance(news, Running):
        if news.noise is None:
            return said("running", "Getting ready", noise=1.0)
        text = f"Noise remaining: {news.noise:.0%}"
        return said("running", text, noise=news.noise, step=news.step, count=news.count)
    if isinstance(news, Failed):
        return said("error", news.message)
    return _ended(news.result)


def _ended(painted: Painted) -> dict[str, Any]:
    trace, order = painted.trace, painted.order
    steps = len({s.index for s in trace.steps})
    without = order.note.get("without")
    if trace.complete:
        what = f"Drawn again without {without}" if without else "Done"
        return said("done", f"{what}. Seed {order.seed}.", noise=0.0, step=steps, count=steps)
    noise = trace.steps[-1].noise_remaining
    left = "" if noise is None else f", with {noise:.0%} of the noise remaining"
    text = f"Stopped after step {steps} of {order.steps}{left}. The picture is what was seen then."
    return said("stopped", text, noise=noise, step=steps, count=order.steps)


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
        self._jobs: dict[str, Job] = {}
        self._shown: OrderedDict[str, str] = OrderedDict()

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
        request: gr.Request,
    ) -> AsyncIterator[Update]:
        """A run from the page: live, then kept, then drawn."""

        def order() -> Order:
            return Order(
                prompt=prompt if prompt is not None else "",
                sketch=_sketch(board, mask if masked else None),
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
        try:
            order = await away(self.studio.packing, make_order)
            job = self.studio.submit(visitor, order)
        except ScribbleError as error:
            yield {parts["status"]: said("error", str(error)), **self._idle()}
            return
        self._jobs[session] = job
        frame = None
        try:
            async for news in job.news():
                update: Update = {parts["status"]: sentence_of(news, order), **self._busy()}
                if isinstance(news, Running) and news.frame is not None and news.frame is not frame:
                    frame = news.frame
                    if compared_with is None:
                        update[parts["explorer"]] = frame
                if isinstance(news, Failed):
                    update |= self._idle()
                if isinstance(news, Finished):
                    self.studio.keep(news.result)
                    ended = self._show(news.result, visitor, session, compared_with)
                    async for last in ended:
                        yield last
                    return
                yield update
        finally:
            if self._jobs.get(session) is job:
                del self._jobs[session]
            self.studio.worker.withdraw(job)

    async def _show(
        self, painted: Painted, visitor: str, session: str, compared_with: str | None
    ) -> AsyncIterator[Update]:
        """A fresh run: its maps at once; evolution and analysis as soon as they are drawn."""
        parts, studio, run = self.parts, self.studio, painted.run
        shown: Update = {parts["status"]: _ended(painted), **self._idle()}
        shown |= {parts["last_seed"]: painted.order.seed}
        shown |= _last_seed_button(parts, painted.order.seed)
        if compared_with is None:
            shown[parts["explorer"]] = await away(studio.packing, studio.packed, run)
            shown |= await away(studio.packing, self._about, run, painted.trace.picture)
            shown |= {parts["comparison_part"]: gr.update(visible="hidden")}
        else:
            shown |= await self._compared(visitor, compared_with, run.id)
        yield shown
        if compared_with is None:
            self._now_shown(session, run)
            views = await self._drawn(run)
            if self._shown.get(session) == run.id:  # not another one by now
                yield views

    async def stop(self, request: gr.Request) -> None:
        """Stop this page's run: within a step, or before it began."""
        job = self._jobs.get(request.session_hash or "")
        if job is not None:
            job.stop.set()
            self.studio.worker.withdraw(job)

    async def generate_image(
        self,
        sketch: Any,
        prompt: str,
        num_inference_steps: float,
        guidance_scale: float,
        seed: float,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Draw a picture of a sketch and a prompt, and keep it with its attention.

        Returns the picture (PNG), the evolution of its leading word (GIF), the analysis (PNG) and
        the gallery entry (JSON). A negative seed means a new one.
        """
        try:
            order = await away(
                self.studio.packing,
                lambda: Order(
                    prompt=prompt if prompt is not None else "",
                    sketch=_sketch(sketch, None),
                    steps=whole("num_inference_steps", num_inference_steps),
                    guidance=guidance_scale,
                    sketch_guidance=SKETCH_GUIDANCE,
                    seed=new_seed() if seed is None or seed == -1 else whole("seed", seed),
                ),
            )
            job = self.studio.submit(visitor_of(request), order)
            painted = await self._ended(job)
            self.studio.keep(painted)
            gif, analysis = await away(self.studio.drawing, self.studio.views, painted.run)
            entry = await away(self.studio.packing, self.studio.entry, painted.run)
        except ScribbleError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None
        pixels = painted.trace.picture
        picture = None if pixels is None else Image.fromarray(pixels)
        return picture, self._cached("gif", gif), self._cached("analysis", analysis), entry

    async def _ended(self, job: Job) -> Painted:
        try:
            async for news in job.news():
                if isinstance(news, Failed):
                    raise ScribbleError(news.message)
                if isinstance(news, Finished):
                    return news.result
        finally:
            self.studio.worker.withdraw(job)
        raise ScribbleError("the run ended without a word")

    # ── looking at runs ──────────────────────────────────────────────────────────────────────

    async def visit(self, link: Any, request: gr.Request) -> AsyncIterator[Update]:
        """The page is opened: the run that its address names, if any, and the gallery."""
        visitor = visitor_of(request)
        yield {self.parts["shelf"]: await away(self.studio.packing, self.shelf.value, visitor)}
        if isinstance(link, str) and link:
            async for update in self._open(request, link, by_link=True):
                yield update

    async def open_run(self, request: gr.Request, event: gr.EventData) -> AsyncIterator[Update]:
        """A run of the gallery: sketch, prompt, settings and explorer as they were."""
        async for update in self._open(request, field_of(event, "id"), by_link=False):
            yield update | {self.parts["tabs"]: gr.update(selected="draw")}

    async def explore(self, run_id: Any, request: gr.Request) -> AsyncIterator[Update]:
        """The second run of a comparison, in the explorer."""
        async for update in self._open(request, run_id, by_link=False):
            yield update

    async def _open(
        self, request: gr.Request, run_id: str, *, by_link: bool
    ) -> AsyncIterator[Update]:
        parts, studio, visitor = self.parts, self.studio, visitor_of(request)
        session = request.session_hash or ""
        try:
            find = studio.visitors.by_link if by_link else studio.visitors.seen
            run = await away(studio.packing, find, visitor, run_id)
            shown = await away(studio.packing, self._restored, run)
            shown[parts["explorer"]] = await away(studio.packing, studio.packed, run)
        except ScribbleError as error:
            yield {parts["status"]: said("error", str(error))}
            return
        yield shown
        self._now_shown(session, run)
        views = await self._drawn(run)
        if self._shown.get(session) == run.id:
            yield views

    def _now_shown(self, session: str, run: Run) -> None:
        """Notes which run a page shows, so that views of an earlier one do not come late."""
        self._shown[session] = run.id
        while len(self._shown) > _PAGES_KNOWN:
            self._shown.popitem(last=False)

    def _restored(self, run: Run) -> Update:
        """Everything on the page as it was when the run was made."""
        parts, studio = self.parts, self.studio
        settings = run.record.get("settings") or {}
        sketch, trace = run.sketch(), studio.trace(run)
        blank = Image.new("L", (256, 256), 255)
        named = [n for n, source in studio.models.items() if source == settings.get("model")]
        where = f"Opened: the run of {run.created:%d %B %Y, %H:%M}."
        shown: Update = {
            parts["board"]: sheet_of(blank if sketch is None else sketch.to_image()),
            parts["masked"]: False,
            parts["prompt"]: run.prompt,
            parts["steps"]: settings.get("num_inference_steps", gr.skip()),
            parts["guidance"]: settings.get("guidance_scale", gr.skip()),
            parts["sketch_guidance"]: settings.get("sketch_guidance_scale", gr.skip()),
            parts["seed"]: "" if run.seed is None else str(run.seed),
            parts["model"]: named[0] if named else gr.skip(),
            parts["comparison_part"]: gr.update(visible="hidden"),
            parts["status"]: said("done" if trace.complete else "stopped", where),
        }
        if run.seed is not None:
            shown |= {parts["last_seed"]: run.seed} | _last_seed_button(parts, run.seed)
        return shown | self._about(run, trace.picture)

    def _about(self, run: Run, picture: np.ndarray | None) -> Update:
        """The four outputs of a run, as far as they are there."""
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

    async def _drawn(self, run: Run) -> Update:
        parts = self.parts
        try:
            gif, analysis = await away(self.studio.drawing, self.studio.views, run)
        except ScribbleError as error:
            _log.info("run %s: %s", run.id, error)
            return {parts["gif"]: None, parts["analysis"]: None}
        return {
            parts["gif"]: self._cached("gif", gif),
            parts["analysis"]: self._cached("analysis", analysis),
        }

    def _cached(self, name: str, file: Path) -> str:
        """A copy under Gradio's temporary folder: nothing of the gallery itself is ever served."""
        return save_file_to_cache(file, self.parts[name].GRADIO_CACHE)

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
        except ScribbleError as error:
            shown = {parts["status"]: said("error", str(error))}
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
        with Image.open(found[number].file) as image:
            return sheet_of(image), found[number].prompt

    def mask_board(self, masked: bool, board: Any) -> Any:
        """Shows the board on which the part that counts is painted, the drawing faintly on it."""
        if not masked:
            return gr.update(visible=False, value=blank())
        drawing = drawing_of(board) if board and not board.get("refused") else None
        sheet = sheet_of(drawing or Image.new("RGB", (256, 256), "white"))
        faint = Image.blend(sheet["background"], Image.new("RGB", (512, 512), "white"), 0.6)
        value = {"background": faint, "layers": [], "composite": faint}
        return gr.update(visible=True, value=value)

    def _busy(self) -> Update:
        parts = self.parts
        return {parts["go"]: _able(False), parts["halt"]: _able(True)}

    def _idle(self) -> Update:
        parts = self.parts
        return {parts["go"]: _able(True), parts["halt"]: _able(False)}


def _sketch(board: Any, mask: Any) -> Any:
    """The cleaned sketch of what was sent."""
    for sent in (board, mask):
        if isinstance(sent, dict) and sent.get("refused"):
            raise SketchError(sent["refused"])
    return sketch_of(board, mask)


def _able(yes: bool) -> Any:
    return gr.update(interactive=yes)


def _seed(typed: Any) -> int:
    """The seed in the field; a new one where it is empty."""
    text = str(typed if typed is not None else "").strip()
    if text and not (text.isascii() and text.isdigit()):
        raise SettingError(f"seed: {text[:40]!r} is not a whole number of 0 or more")
    return int(text) if text else new_seed()


def _last_seed_button(parts: dict[str, Any], seed: int) -> Update:
    return {parts["use_seed"]: gr.update(value=f"Use last seed: {seed}", interactive=True)}
