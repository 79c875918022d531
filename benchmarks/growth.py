"""How the cost of capture grows: with steps, resolution, words and pictures in a batch.

    python benchmarks/growth.py [--rounds 2] [--docs]

On SD 1.5's UNet at a quarter of its width (the same 16 layers and 8 heads, so the record has the
same size), 256×256, 4 steps, 9 of 77 keys used, one picture, with guidance; one of these at a time
is varied, and last comes the model at its whole width. What capture adds is a few parts in a
hundred, less than one run differs from the next on a shared machine; so it is timed where it
happens, as the time inside its own hooks.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from architectures import KEYS, QUARTER, SD15, WORDS, Loop, build
from measuring import INK, Spread, machine, options, panels, show, write

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.recording import Recording

STEPS = 4
#: The last point: the model at its own width.
WHOLE = "pixels of a side, whole model"
#: What is varied → its values. Words count without start and end.
VARIED: dict[str, tuple[int, ...]] = {
    "steps": (2, 4, 8),
    "pixels of a side": (128, 256, 384),
    "keys used": (9, 40, 77),
    "pictures": (1, 2, 4),
}


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        varied, value: what was varied, and its value.
        step: seconds of a step without capture.
        added: seconds that a step spends in the hooks of capture.
        nbytes: kept of the run.
    """

    varied: str
    value: int
    step: Spread
    added: Spread
    nbytes: int


def case(loop: Loop, varied: str, value: int) -> tuple[Loop, int]:
    """The loop and its steps."""
    if varied == "steps":
        return loop, value
    if varied in ("pixels of a side", WHOLE):
        return replace(loop, height=value // 8, width=value // 8), STEPS
    if varied == "keys used":
        return replace(loop, words=tuple(WORDS[i % len(WORDS)] for i in range(value - 2))), STEPS
    return replace(loop, batch=value), STEPS


@contextmanager
def hooks_timed() -> Iterator[list[float]]:
    """Seconds that each denoiser call spends in the hooks of extractors made meanwhile."""
    steps: list[float] = []

    def timed(name: str, real: Any) -> Any:
        @functools.wraps(real)
        def hook(*args: Any) -> Any:
            if name == "begins":
                steps.append(0.0)
            start = time.process_time()
            try:
                return real(*args)
            finally:
                steps[-1] += time.process_time() - start

        return hook

    hooks = {name: getattr(Recording, name) for name in ("begins", "seen", "ends")}
    for name, real in hooks.items():
        setattr(Recording, name, timed(name, real))
    try:
        yield steps
    finally:
        for name, real in hooks.items():
            setattr(Recording, name, real)


def measure(loop: Loop, varied: str, value: int, rounds: int) -> Point:
    """One point; runs with and without capture take turns, and so does who begins; both must make
    the same latents.
    """
    chosen, steps = case(loop, varied, value)
    bare: list[float] = []
    mine: list[float] = []
    kept: list[int] = []

    def without() -> torch.Tensor:
        latents = chosen(steps)
        bare.extend(chosen.seconds)
        return latents

    def captured() -> torch.Tensor:
        with hooks_timed() as added, RealAttentionExtractor(chosen) as extractor:
            latents = chosen(steps)
        mine.extend(added)
        kept.append(extractor.trace.nbytes)
        return latents

    chosen(1)
    for number in range(rounds):
        ways = (captured, without) if number % 2 else (without, captured)
        first, second = (way() for way in ways)
        if not torch.equal(first, second):
            raise SystemExit(f"{varied} {value}: capture changed the latents")
    return Point(varied, value, Spread.of(bare), Spread.of(mine), kept[-1])


def draw(points: list[Point]) -> Any:
    """A panel for each thing that is varied: time on the left scale, bytes on the right one.

    Bars are from the least to the most of all steps.
    """
    figure, axes = panels(len(VARIED), width=3.6)
    for axis, varied in zip(axes, VARIED, strict=True):
        chosen = [p for p in points if p.varied == varied]
        values = [p.value for p in chosen]
        added = [p.added for p in chosen]
        middle = [1000 * a.median for a in added]
        less = [1000 * (a.median - a.low) for a in added]
        more = [1000 * (a.high - a.median) for a in added]
        axis.errorbar(values, middle, (less, more), fmt="o-", color=INK[0], capsize=3)
        axis.set_ylim(0, 1.1 * max(1000 * a.high for a in added))
        axis.set_xlabel(varied)
        axis.set_ylabel("added to a step, ms", color=INK[0])
        right = axis.twinx()
        kept = [p.nbytes / 1e6 for p in chosen]
        right.plot(values, kept, "s--", color=INK[1])
        right.set_ylim(0, 1.25 * max(kept))
        right.set_ylabel("kept of the run, MB", color=INK[1])
        right.spines["top"].set_visible(False)
    return figure


def main() -> None:
    """Measure, print, write."""
    chosen = options(__doc__, rounds=(2, "runs of each"), threads=(1, "threads"))
    torch.set_num_threads(chosen.threads)
    loop = Loop(build(QUARTER))
    points = [
        measure(loop, varied, value, chosen.rounds)
        for varied, values in VARIED.items()
        for value in values
    ]
    del loop
    points.append(measure(Loop(build(SD15)), WHOLE, 256, chosen.rounds))
    rows = [
        (
            f"{p.varied}: {p.value}",
            p.step.show(1000, 0),
            p.added.show(1000, 0),
            f"{p.nbytes / 1e6:.2f}",
        )
        for p in points
    ]
    columns = ("varied", "a step without, ms", "capture adds, ms", "kept, MB")
    note = f"otherwise 4 steps, 256 pixels, 9 of {KEYS} keys, 1 picture; medians of steps"
    note += " (least to most)"
    show("Growth of the cost of capture", columns, rows, note)
    record = {"machine": machine(chosen.threads), "points": points}
    write("growth", record, draw(points), docs=chosen.docs)


if __name__ == "__main__":
    sys.exit(main())
