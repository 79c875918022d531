"""How fast pictures are drawn: GIF and analysis of a 20-step run, one overlay, and a naive rival.

    python benchmarks/views.py [--runs 5] [--docs]

The trace has the shape of the shipped model's (20 steps, 154 keys) with random weights. Limits:
GIF and figure 1.5 s together on two cores, one overlay 5 ms with its title, colour bar and notes,
with the sketch over it or without, smoothly enlarged or at its true resolution; and a map asked of
the visualizer again. The wall's clock is judged; CPU time tells how busy the machine
was besides.
The rival is what the first system did: matplotlib's own animation of the same three panels. It
takes turns with ours, and so do the overlays with each other.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import Timed, options, report

from scribblediffusion import AttentionVisualizer
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.sketch import REGIONS
from scribblediffusion.view.heatmap import HeatStyle, overlay

LIMIT, OVERLAY_LIMIT = 1.5, 0.005
#: Rounds of the slow ones at least, and of the quick ones.
LEAST, QUICK = 3, 41
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


def main() -> int:
    """Measure and report; 1 where a limit is passed."""
    chosen = options(__doc__, runs=(5, "runs of the slow ones"))
    trace = random_trace()
    heat, picture = trace.word("apple"), trace.picture
    squares = HeatStyle(smooth=False)
    with tempfile.TemporaryDirectory(prefix="scribble-") as name:
        folder = Path(name)
        visualizer = AttentionVisualizer(folder)
        slow = {
            f"GIF of {STEPS} steps and analysis": (lambda: ours(trace, folder), LIMIT),
            f"matplotlib animation of {STEPS} frames, without analysis": (
                lambda: naive(trace, folder),
                None,
            ),
        }
        quick = {
            "one overlay with title and bar": (
                lambda: overlay(heat, picture, title="“apple”"),
                OVERLAY_LIMIT,
            ),
            "the same with the sketch over it": (
                lambda: overlay(heat, picture, title="“apple”", sketch=trace.sketch),
                OVERLAY_LIMIT,
            ),
            "the same at its true resolution": (
                lambda: overlay(heat, picture, title="“apple”", sketch=trace.sketch, style=squares),
                OVERLAY_LIMIT,
            ),
            "a map asked of the visualizer again": (
                lambda: visualizer.heat_map(trace, "apple"),
                None,
            ),
        }
        found = Timed.in_turns(slow, max(LEAST, chosen.runs)) + Timed.in_turns(quick, QUICK)
    return report("views", "Views", found, 1, docs=chosen.docs)


if __name__ == "__main__":
    sys.exit(main())
