"""Short real runs of the shipped model, saved and opened again: what the browser is to show."""

import functools
import tempfile
from pathlib import Path

from painted import drawn

from scribblediffusion.attention.trace import AttentionTrace

PROMPT = "a red apple above a blue kite"


@functools.cache
def short_run(heads: str = "mean", prompt: str = PROMPT, steps: int = 4) -> AttentionTrace:
    """One run with seed 3, through a file, as the gallery keeps it."""
    from scribblediffusion.attention.extractor import RealAttentionExtractor
    from scribblediffusion.settings import seeded

    pipe = _pipeline()
    with RealAttentionExtractor(pipe, heads=heads) as extractor:
        pipe(prompt, drawn(False), num_inference_steps=steps, generator=seeded(3)[0])
    with tempfile.TemporaryDirectory() as folder:
        path = extractor.trace.save(Path(folder) / "run.safetensors")
        return AttentionTrace.load(path)


@functools.cache
def _pipeline():
    from scribblediffusion.pipeline import ScribblePipeline

    pipe = ScribblePipeline.from_pretrained(device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def live_steps(trace: AttentionTrace):
    """The run as `RealAttentionExtractor.latest` gives it: the newest step alone, each in turn."""
    import dataclasses

    for position, step in enumerate(trace.steps):
        yield dataclasses.replace(
            trace,
            steps=(step,),
            records={(0, k): a for (s, k), a in trace.records.items() if s == position},
            previews=None if trace.previews is None else trace.previews[: step.index + 1],
            pictures=(),
            complete=False,
        )
