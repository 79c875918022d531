"""What the pipeline and the capture cost, against a bare loop of the same UNet calls.

Rounds are interleaved, so that a noisy machine is noisy for all of them; medians are compared.

    python benchmarks/pipeline.py [ROUNDS]
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from scribblediffusion import RealAttentionExtractor, ScribblePipeline, Sketch
from scribblediffusion.pipeline import GUIDANCE, SKETCH_GUIDANCE, branch_weights, seeded

SKETCH = Path(__file__).parents[1] / "examples" / "sketches" / "mushroom.png"
PROMPT = "a red mushroom"


@torch.no_grad()
def bare(pipe: ScribblePipeline, sketch: Sketch) -> torch.Tensor:
    """Twenty UNet calls and one decoding: nothing else that could be left out."""
    condition = pipe.condition(PROMPT, sketch)
    weights = branch_weights(condition, GUIDANCE, SKETCH_GUIDANCE)
    vectors, mask = pipe.context(condition, list(weights))
    sample = torch.randn(1, 4, 32, 32, generator=seeded(7)[0])
    pipe.scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 20, 20).tolist())
    shares = torch.tensor(list(weights.values()))[:, None, None, None]
    for timestep in pipe.scheduler.timesteps:
        stacked = sample.repeat(len(weights), 1, 1, 1)
        stacked = stacked.contiguous(memory_format=torch.channels_last)
        output = pipe.unet(stacked, timestep, vectors, encoder_attention_mask=mask.float()).sample
        velocity = (shares * output).sum(0, keepdim=True)
        sample = pipe.scheduler.step(velocity, timestep, sample, return_dict=False)[0]
    return pipe.autoencoder.decode(sample)


def with_capture(pipe: ScribblePipeline, sketch: Sketch, *, previews: bool) -> None:
    """A run as a user captures it; one that fails its audit counts for nothing."""
    with RealAttentionExtractor(pipe, previews=previews) as extractor:
        pipe(PROMPT, sketch, generator=seeded(7))
    if extractor.trace.audit is None or not extractor.trace.audit.passed:
        raise SystemExit(f"the capture failed its audit: {extractor.trace.audit}")


def main(rounds: int) -> None:
    """Measure and print."""
    pipe = ScribblePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    sketch = Sketch.from_image(SKETCH)
    ways = {
        "bare loop of UNet calls": lambda: bare(pipe, sketch),
        "pipeline": lambda: pipe(PROMPT, sketch, generator=seeded(7)),
        "pipeline, capture": lambda: with_capture(pipe, sketch, previews=False),
        "pipeline, capture, previews": lambda: with_capture(pipe, sketch, previews=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    base = median(times["bare loop of UNet calls"])
    for name, found in times.items():
        spread = f"{min(found):.2f}–{max(found):.2f}"
        print(f"{name:30s} {median(found):6.2f} s  ({spread})  × {median(found) / base:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "scribblediffusion.cli", "draw", str(SKETCH), PROMPT]
        places = ["--output", f"{folder}/picture.png", "--gallery", f"{folder}/gallery"]
        start = time.perf_counter()
        subprocess.run(command + places, check=True, capture_output=True)
        print(f"cold command, capture included: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
