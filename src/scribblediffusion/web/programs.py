"""What programs call: `/generate_image`, a picture with its attention, from first to last."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from PIL import Image

from scribblediffusion.errors import ScribbleError
from scribblediffusion.settings import SKETCH_GUIDANCE
from scribblediffusion.web.asking import among, away, visitor_of
from scribblediffusion.web.canvas import drawn
from scribblediffusion.web.clearly import clearly
from scribblediffusion.web.limits import Order, whole
from scribblediffusion.web.painter import Painted
from scribblediffusion.web.studio import Studio, new_seed
from scribblediffusion.web.worker import Failed, Finished, Job


def cached(component: Any, file: Path) -> str:
    """A copy under Gradio's temporary folder: nothing of the gallery itself is ever served."""
    return save_file_to_cache(file, component.GRADIO_CACHE)


class Programs:
    """The handler of the API.

    Args:
        studio: what is behind it.
        parts: name → component of the page.
    """

    def __init__(self, studio: Studio, parts: dict[str, Any]) -> None:
        self.studio, self.parts = studio, parts

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
        the gallery entry (JSON). A seed of -1 means a new one.
        """
        try:
            order = await away(
                self.studio.packing,
                lambda: Order(
                    prompt=prompt if prompt is not None else "",
                    sketch=drawn(sketch, None),
                    steps=whole("num_inference_steps", num_inference_steps),
                    guidance=guidance_scale,
                    sketch_guidance=SKETCH_GUIDANCE,
                    seed=new_seed() if seed is None or seed == -1 else whole("seed", seed),
                ),
            )
            job = self.studio.submit(visitor_of(request), order, among(request))
            painted = await self._ended(job)
            self.studio.keep(painted)
            gif, analysis = await away(self.studio.drawing, self.studio.views, painted.run)
            entry = await away(self.studio.packing, self.studio.entry, painted.run)
            pixels = painted.trace.picture
            picture = None if pixels is None else Image.fromarray(pixels)
            files = cached(self.parts["gif"], gif), cached(self.parts["analysis"], analysis)
        except (ScribbleError, OSError) as error:
            told = escape(clearly(error), quote=False)
            raise gr.Error(told, print_exception=False) from None
        return picture, *files, entry

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
