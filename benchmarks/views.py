"""How fast pictures are drawn: GIF and analysis of a 20-step run, one overlay, and a naive rival.

    python benchmarks/views.py [RUNS]

The trace has the shape of the shipped model's (20 steps, 154 keys, nine layers) with random
weights. Limits: GIF and figure 1.5 s together on two cores, one overlay 5 ms with its title,
colour bar and notes. The wall's clock is judged; CPU time tells how busy the machine was besides.
The rival is what the first system did: matplotlib's own animation of the same three panels.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scribblediffusion import AttentionVisualizer
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.sketch import REGIONS
from scribblediffusion.view.heatmap import overlay

LIMIT, OVERLAY_LIMIT = 1.5, 0.005
STEPS = 20
PROMPT = "a red apple above a small blue kite on a white ground"
TOKENS = ["[CLS]", *PROMPT.split(), "[SEP]"]
GRIDS = {32: 4, 16: 3, 8: 2}


def random_trace() -> AttentionTrace:
    """A trace of the shipped model's shape, with pictures."""
    rng = np.random.default_rng(0)
    keys = 77 + len(REGIONS)
    tokens = TOKENS + ["[PAD]"] * (77 - len(TOKENS))
    layers = {}
    for side, count in GRIDS.items():
        for number in range(count):
            weights = rng.random((STEPS, 1, 1, keys, side, side), dtype=np.float32) ** 4
            weights /= weights.sum(axis=3, keepdims=True)
            layers[f"{side}.{number}.attn2"] = weights
    picture = np.repeat(rng.integers(0, 255, (256, 1, 3), dtype=np.uint8), 256, axis=1)
    noisy = rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)
    mixed = [(picture * (1 - n) + noisy * n).astype(np.uint8) for n in np.linspace(1, 0, STEPS)]
    sketch = np.full((256, 256), 255, np.uint8)
    sketch[60:200, 60:64] = sketch[60:64, 60:200] = 0
    return AttentionTrace.from_arrays(
        layers,
        tokens=tokens,
        streams={"text": range(77), "sketch": range(77, keys)},
        regions={region: 77 + i for i, region in enumerate(REGIONS)},
        picture_size=(256, 256),
        pictures=(picture,),
        previews=np.stack(mixed),
        sketch=sketch,
    )


def ours(trace: AttentionTrace, folder: Path) -> None:
    """Everything from the trace on, nothing kept from an earlier run."""
    visualizer = AttentionVisualizer(folder)
    visualizer.create_evolution_gif(trace, "", None, folder, word="apple")
    visualizer.create_comprehensive_analysis(trace, "", None, folder)


def naive(trace: AttentionTrace, folder: Path) -> None:
    """Three panels, redrawn by matplotlib for each frame."""
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.64, 4.88), dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)

    def draw(step: int) -> None:
        shown = (trace.sketch, trace.previews[step], trace.word("apple", step=step))
        for panel, picture in zip(panels, shown, strict=True):
            panel.clear()
            panel.imshow(picture, cmap="inferno")
            panel.axis("off")
        figure.suptitle(str(trace.steps[step]))

    FuncAnimation(figure, draw, frames=STEPS).save(folder / "naive.gif", writer=PillowWriter(fps=5))


def seconds(work: Callable[[], object], times: int) -> tuple[float, float]:
    """The median of the wall's and of the CPU's time."""
    wall, cpu = [], []
    for _ in range(times):
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return sorted(wall)[times // 2], sorted(cpu)[times // 2]


def main(runs: int) -> int:
    """Measure and report; 1 where a limit is passed."""
    trace = random_trace()
    heat = trace.word("apple")
    with tempfile.TemporaryDirectory(prefix="scribble-") as name:
        folder = Path(name)
        ours(trace, folder)  # imports and fonts, once for a process
        rows = {
            f"GIF of {STEPS} steps and analysis": (
                *seconds(lambda: ours(trace, folder), runs),
                LIMIT,
            ),
            "one overlay with title and bar": (
                *seconds(lambda: overlay(heat, trace.picture, title="“apple”"), 21),
                OVERLAY_LIMIT,
            ),
            "the same with the sketch over it": (
                *seconds(
                    lambda: overlay(heat, trace.picture, title="“apple”", sketch=trace.sketch), 21
                ),
                float("inf"),
            ),
            f"matplotlib animation, {STEPS} frames": (
                *seconds(lambda: naive(trace, folder), max(1, runs // 3)),
                float("inf"),
            ),
        }
    for what, (wall, cpu, limit) in rows.items():
        bound = "" if limit == float("inf") else f"  (limit {1000 * limit:.0f} ms)"
        print(f"{what:34} {1000 * wall:8.1f} ms wall {1000 * cpu:8.1f} ms CPU{bound}")
    return int(any(wall > limit for wall, _, limit in rows.values()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
