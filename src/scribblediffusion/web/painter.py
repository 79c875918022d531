"""One run on the model: steps told as they come, kept with its attention, stopped on request."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scribblediffusion.web.limits import Order
from scribblediffusion.web.payload import pack_live
from scribblediffusion.web.worker import Job, Running

if TYPE_CHECKING:
    from scribblediffusion.attention.extractor import RealAttentionExtractor
    from scribblediffusion.attention.trace import AttentionTrace
    from scribblediffusion.gallery import Gallery, Run
    from scribblediffusion.pipeline import ScribblePipeline

#: What the live maps may take of a run's time.
LIVE_SHARE = 0.03


@dataclass(frozen=True)
class Painted:
    """A run that has ended and is in the gallery."""

    run: Run
    trace: AttentionTrace
    order: Order


class LiveBudget:
    """Says when a live frame may be made, so that all of them stay below a share of the time.

    The first is always made. Later ones wait until the time spent on frames, the next one
    included, is within the share.
    """

    def __init__(self, share: float = LIVE_SHARE, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.perf_counter
        self._share = share
        self._begun = self._clock()
        self._spent = self._longest = 0.0

    def due(self) -> bool:
        """Whether there is time for one more."""
        elapsed = self._clock() - self._begun
        return self._spent == 0 or self._spent + self._longest <= self._share * elapsed

    def make(self, frame: Callable[[], Any]) -> Any:
        """Make a frame and note what it cost."""
        begun = self._clock()
        made = frame()
        cost = max(self._clock() - begun, 1e-9)
        self._spent += cost
        self._longest = max(self._longest, cost)
        return made


class Painter:
    """Runs orders on the models that the operator offers; used by one thread alone.

    Args:
        models: name → folder or hub id, None for the shipped model. One is in memory at a time.
        gallery: where runs are kept.
        load: makes a pipeline of a folder or hub id; `ScribblePipeline.from_pretrained`.
        memory: bytes that a run's attention may take; of a larger one the heads are averaged.
    """

    def __init__(
        self,
        models: Mapping[str, str | None],
        gallery: Gallery,
        load: Callable[[str | None], ScribblePipeline] | None = None,
        *,
        memory: int = 1 << 30,
    ) -> None:
        self._models = dict(models)
        self._gallery = gallery
        self._load, self._memory = load or _loaded, memory
        self._pipe: tuple[str, ScribblePipeline] | None = None

    def prepare(self) -> None:
        """Load the first model, so that nobody waits for it later."""
        self._pipe_of(next(iter(self._models)))

    def __call__(self, job: Job) -> Painted:
        """Run one job: tell every step, keep what came of it.

        A run that was stopped keeps the picture as the model saw it last, and its attention.
        """
        from scribblediffusion.attention.extractor import RealAttentionExtractor

        order: Order = job.order
        job.tell(Running(0, order.steps))
        pipe = self._pipe_of(order.model)
        heads = "all" if order.each_head else "mean"
        with RealAttentionExtractor(pipe, heads=heads, memory_limit=self._memory) as extractor:
            tell_steps(pipe, job, extractor)
        trace = extractor.trace
        kept = {"model": self._models[order.model], "visitor": job.visitor or None}
        kept |= {"each_head": order.each_head, **order.note}
        run = self._gallery.add(trace, sketch=order.sketch, settings=kept)
        return Painted(run, trace, order)

    def _pipe_of(self, name: str) -> ScribblePipeline:
        if self._pipe is None or self._pipe[0] != name:
            self._pipe = None  # let go of the old one first
            pipe = self._load(self._models[name])
            pipe.set_progress_bar_config(disable=True)
            self._pipe = (name, pipe)
        return self._pipe[1]


#: Names of runs that go on, each used once.
_NUMBERS = itertools.count(1)


def tell_steps(pipe: ScribblePipeline, job: Job, extractor: RealAttentionExtractor) -> None:
    """Sample and decode one run inside the extractor's context, telling the job every step."""
    from scribblediffusion.settings import seeded

    order: Order = job.order
    budget, name, frame = LiveBudget(), f"live-{next(_NUMBERS)}", None
    steps = pipe.denoise(
        order.prompt,
        order.sketch,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance,
        sketch_guidance_scale=order.sketch_guidance,
        generator=seeded(order.seed),
    )

    def newest() -> dict[str, Any] | None:
        latest = extractor.latest  # gathering it is part of what a frame costs
        return None if latest is None else pack_live(latest, run=name, count=order.steps)

    step: Any = None
    with closing(steps):
        for step in steps:
            if budget.due():  # otherwise the last frame is told again, for slow listeners
                frame = budget.make(newest) or frame
            job.tell(Running(step.index + 1, step.count, step.noise_remaining, frame))
            if job.stop.is_set() or step.index + 1 == order.stop_after:
                break
    complete = step.index + 1 == step.count
    pipe.finish(step.latents if complete else step.denoised, complete=complete)


def _loaded(source: str | None) -> ScribblePipeline:
    from diffusers.utils import logging as diffusers_logging

    from scribblediffusion import ScribblePipeline

    diffusers_logging.disable_progress_bar()
    return ScribblePipeline.from_pretrained(source)
