"""One run of a `ScribblePipeline`, with the progress bar that says how much noise remains."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from scribblediffusion.cli.progress import progress, quarterly, quiet_loading
from scribblediffusion.settings import seeded

if TYPE_CHECKING:
    import numpy as np

    from scribblediffusion.attention.trace import AttentionTrace


def paint(
    model: str | None,
    prompts: Sequence[str],
    sketch: Any,
    seeds: Sequence[int],
    settings: dict[str, Any],
    *,
    capture: bool = True,
    stop_after: int | None = None,
) -> tuple[np.ndarray, AttentionTrace | None]:
    """Draws pictures and, unless told otherwise, captures the attention.

    Args:
        model: a folder or hub id; None for the shipped model.
        prompts: one for each picture.
        sketch: one for all pictures, or None.
        seeds: one for each picture; otherwise the first makes the noise of all of them together.
        settings: steps and guidance, as `ScribblePipeline.denoise` takes them.
        capture: whether to capture the attention.
        stop_after: leave after so many steps; the picture is then what the model saw last.

    Returns:
        The pictures uint8 `[B, 256, 256, 3]`, and the trace or None.
    """
    with progress() as bar:
        task = bar.add_task("Loading the model", total=None)
        with _lasting():
            from scribblediffusion import RealAttentionExtractor, ScribblePipeline  # seconds

            with quiet_loading():
                pipe = ScribblePipeline.from_pretrained(model)
        generators = [seeded(seed)[0] for seed in seeds]
        generator = generators if len(seeds) == len(prompts) else generators[0]
        extractor = RealAttentionExtractor(pipe) if capture else None
        with extractor or nullcontext():
            steps = pipe.denoise(list(prompts), sketch, generator=generator, **settings)
            step: Any = None
            with closing(steps):
                for step in steps:
                    text = f"Noise remaining: {step.noise_remaining:.0%}"
                    bar.update(task, description=text, total=step.count, completed=step.index + 1)
                    quarterly(bar, text, step.index + 1, step.count)
                    if step.index + 1 == stop_after:
                        break
            complete = step.index + 1 == step.count
            pictures = pipe.finish(step.latents if complete else step.denoised, complete=complete)
    return pictures, None if extractor is None else extractor.trace


@contextmanager
def _lasting() -> Iterator[None]:
    """What is imported and loaded here stays, so that no garbage is looked for in it, now or later.

    Looking takes a twelfth of the time of a first picture.
    """
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # once in a process: what is garbage by now stays too
            gc.freeze()
        if searched:
            gc.enable()
