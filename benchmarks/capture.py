"""What capture costs: nothing, ours, the naive way and two other packages, side by side.

    python benchmarks/capture.py [--steps 3] [--rounds 3] [--size 256] [--docs]
    python benchmarks/capture.py --sdxl 1 --steps 2          # SDXL's UNet: 11 GB
    python benchmarks/capture.py --quarter 1 --size 128      # in a minute, to try it out

On Stable Diffusion 1.5's UNet, SDXL's, or the former at a quarter of its width, random weights, one
CPU thread, with guidance. All ways take turns in one process. Times are of the processor: on one
thread that is what the clock shows on a free machine, and on a busy one it is disturbed less.
Reported: what each adds to a step while the run goes on, what it takes afterwards until the map of
a word is there, bytes kept, how much further resident memory rises, and whether the latents are bit
for bit those without capture.

The other packages are measured where they are installed: `benchmarks/rivals.py` installs them and
runs this file with them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from architectures import ARCHITECTURES, WORD, Loop, build
from diffusers.models.attention_processor import AttnProcessor
from measuring import (
    Spread,
    bars,
    differences,
    machine,
    options,
    panels,
    rise_of_memory,
    show,
    write,
)

from scribblediffusion.attention.extractor import RealAttentionExtractor

FILES = {
    "SD 1.5": "capture-sd15",
    "SDXL": "capture-sdxl",
    "SD 1.5, quarter width": "capture-quarter",
}


@dataclass(frozen=True)
class Kept:
    """What one way has after a run: the map of a word, and the bytes it kept for all of them."""

    map: np.ndarray | None
    nbytes: int


Finish = Callable[[], Kept]
Way = Callable[[Loop], AbstractContextManager[Finish]]


@dataclass(frozen=True)
class Row:
    """One way of capturing.

    Attributes:
        name: what it is.
        step: seconds a step of the run, capture going on.
        added: seconds that capture adds to a step, round by round.
        last: the same for the last step alone: ours is audited on the first and the middle one,
            which are two of a run's three steps here and two of twenty in most runs.
        after: seconds after the run until the map of a word is there.
        nbytes: kept for the run.
        memory: bytes by which resident memory rises above that of a run without capture.
        identical: whether the final latents have the same bits.
        shape: of the map of the word.
        apart: largest difference of that map from ours, as a share of its highest value, each
            divided by its sum; None where it has another shape.
    """

    name: str
    step: Spread
    added: Spread
    last: Spread
    after: Spread
    nbytes: int
    memory: int | None
    identical: bool
    shape: tuple[int, ...] | None
    apart: float | None


@contextmanager
def nothing(loop: Loop) -> Iterator[Finish]:
    """No capture."""
    yield lambda: Kept(None, 0)


def ours(heads: Any) -> Way:
    """`RealAttentionExtractor`: every step and layer, in memory that is bounded beforehand."""

    @contextmanager
    def way(loop: Loop) -> Iterator[Finish]:
        with RealAttentionExtractor(loop, heads=heads) as extractor:
            yield lambda: _finished(extractor)

    return way


def _finished(extractor: RealAttentionExtractor) -> Kept:
    trace = extractor.trace
    if trace.audit is None or not trace.audit.passed:
        raise SystemExit(
            f"the capture failed its audit, so its cost is worth nothing: {trace.audit}"
        )
    return Kept(trace.word(WORD), trace.nbytes)


class KeepEverything(AttnProcessor):
    """What most notebooks do: attention without the fused kernel, its probabilities put aside."""

    def __init__(self, kept: list[torch.Tensor]) -> None:
        self.kept = kept

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Places `[B, S, C]` and condition `[B, K, width]` to `[B, S, C]`."""
        q = attn.head_to_batch_dim(attn.to_q(hidden_states))
        k = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        v = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(q, k, attention_mask)
        self.kept.append(probabilities)
        mixed = attn.batch_to_head_dim(probabilities @ v)
        return attn.to_out[1](attn.to_out[0](mixed))


@contextmanager
def naive(loop: Loop) -> Iterator[Finish]:
    """Full probabilities of every `attn2`, for every step, head and branch."""
    kept: list[torch.Tensor] = []
    layers = [m for name, m in loop.unet.named_modules() if name.endswith("attn2")]
    before = [layer.processor for layer in layers]
    for layer in layers:
        layer.set_processor(KeepEverything(kept))
    try:
        yield lambda: Kept(_naive_map(loop, kept), sum(p.nbytes for p in kept))
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


def _naive_map(loop: Loop, kept: list[torch.Tensor]) -> np.ndarray:
    """The word's column in the half with the prompt; mean of heads, layers and steps."""
    column = 1 + loop.words.index(WORD)
    return _mean_of_maps([p[len(p) // 2 :, :, column].mean(0) for p in kept], loop)


def _mean_of_maps(maps: list[torch.Tensor], loop: Loop) -> np.ndarray:
    """Maps of single layers, `[places]` each, on the finest of their grids."""
    most = max(one.numel() for one in maps)
    shape = (round((most * loop.height / loop.width) ** 0.5), -1)
    finest = torch.empty(most).view(shape).shape
    grids = []
    for one in maps:
        coarser = round((most / one.numel()) ** 0.5)
        grid = one.float().view(1, 1, finest[0] // coarser, -1)
        grids.append(torch.nn.functional.interpolate(grid, finest, mode="area")[0, 0])
    return torch.stack(grids).mean(0).numpy()


@contextmanager
def attention_map_diffusers(loop: Loop) -> Iterator[Finish]:
    """attention-map-diffusers: it keeps queries and keys, and computes the maps afterwards."""
    from attention_map_diffusers import AttentionCapture  # pyright: ignore[reportMissingImports]

    with AttentionCapture(loop, timesteps="all") as capture:

        def finish() -> Kept:
            held = capture.collector.capture_bytes
            maps = capture.compute()
            column = 1 + loop.words.index(WORD)
            layers = [record.data[-1, 0, :, column] for record in maps.records]
            return Kept(_mean_of_maps(layers, loop), held)

        yield finish


@contextmanager
def daam(loop: Loop) -> Iterator[Finish]:
    """DAAM: it sums the maps of each head over the steps while the run goes on."""
    from daam import trace  # pyright: ignore[reportMissingImports]

    with trace(loop) as tracer:

        def finish() -> Kept:
            held = sum(one.nbytes for _, one in tracer.all_heat_maps)
            heat = tracer.compute_global_heat_map().compute_word_heat_map(WORD)
            return Kept(heat.heatmap.numpy(), held)

        yield finish


def ways() -> dict[str, Way]:
    """Those that can be measured here."""
    found: dict[str, Way] = {
        "no capture": nothing,
        "ours, mean of heads": ours("mean"),
        "ours, all heads": ours("all"),
        "naive, full probabilities": naive,
    }
    for package, way in (("attention-map-diffusers", attention_map_diffusers), ("daam", daam)):
        try:
            found[f"{package} {version(package)}"] = way
        except PackageNotFoundError:
            print(f"{package} is not installed here, so it is left out (see benchmarks/rivals.py)")
            continue
        import_module(package.replace("-", "_"))  # now, or the first run would be charged with it
    return found


def once(way: Way, loop: Loop, steps: int) -> tuple[float, float, float, torch.Tensor, Kept]:
    """Seconds a step, of the last step and afterwards; the latents; what was kept."""
    with way(loop) as finish:
        begin = time.process_time()
        latents = loop(steps)
        end = time.process_time()
        kept = finish()
        after = time.process_time() - end
        return (end - begin) / steps, loop.seconds[-1], after, latents, kept


def measure(loop: Loop, steps: int, rounds: int, *, memory: bool = True) -> Iterator[list[Row]]:
    """Every way in turn, who begins taking turns; after each round what is known so far."""
    chosen = ways()
    names = list(chosen)
    rise = {n: rise_of_memory(lambda n=n: once(chosen[n], loop, steps)) for n in names * memory}
    loop(1)  # warms up
    expected = None
    run: dict[str, list[float]] = {name: [] for name in names}
    last: dict[str, list[float]] = {name: [] for name in names}
    after: dict[str, list[float]] = {name: [] for name in names}
    kept: dict[str, Kept] = {}
    same = dict.fromkeys(names, True)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds, final, later, latents, kept[name] = once(chosen[name], loop, steps)
            run[name].append(seconds)
            last[name].append(final)
            after[name].append(later)
            if expected is None:  # of the first run, which is without capture
                expected = latents
            if not bool(torch.isfinite(latents).all()):
                raise SystemExit("latents are not finite: nothing can be said of their bits")
            same[name] &= torch.equal(latents, expected)
            print(f"round {number + 1}, {name}: {seconds:.2f} s a step", flush=True)
        yield [
            Row(
                name,
                Spread.of(run[name]),
                differences(run[name], run["no capture"]),
                differences(last[name], last["no capture"]),
                Spread.of(after[name]),
                kept[name].nbytes,
                _above(rise, name),
                same[name],
                None if kept[name].map is None else kept[name].map.shape,
                _apart(kept[name].map, kept["ours, mean of heads"].map),
            )
            for name in names
        ]


def _apart(map_: np.ndarray | None, ours: np.ndarray | None) -> float | None:
    if map_ is None or ours is None or map_.shape != ours.shape:
        return None
    mine, theirs = map_ / map_.sum(), ours / ours.sum()
    return float(np.abs(mine - theirs).max() / theirs.max())


def _above(rise: dict[str, int | None], name: str) -> int | None:
    mine, bare = rise.get(name), rise.get("no capture")
    return None if mine is None or bare is None else mine - bare


def main() -> None:
    """Measure, print, write."""
    chosen = options(
        __doc__,
        size=(256, "pixels of a side"),
        steps=(3, "denoising steps of a run"),
        rounds=(3, "runs of each way"),
        sdxl=(0, "1 for SDXL's UNet, which needs 11 GB"),
        quarter=(0, "1 for SD 1.5's UNet at a quarter of its width"),
        memory=(1, "0 to leave out the memory, which takes one more run of each way"),
    )
    torch.set_num_threads(1)
    which = "SDXL" if chosen.sdxl else "SD 1.5, quarter width" if chosen.quarter else "SD 1.5"
    loop = Loop(build(ARCHITECTURES[which]), chosen.size // 8, chosen.size // 8)
    title = f"UNet of {which}: {chosen.size}×{chosen.size}, {chosen.steps} steps, one thread"
    rows: list[Row] = []
    for rows in measure(loop, chosen.steps, chosen.rounds, memory=bool(chosen.memory)):
        # Written after each round: a round takes minutes.
        publish(rows, title, FILES[which], docs=chosen.docs)
    columns = ("", "s a step", "adds, ms a step", "last step", "after, ms", "kept, MB")
    columns += ("memory, MB", "same bits")
    apart = [f"{row.name} {row.apart:.0e}" for row in rows if row.apart]
    note = "medians of rounds (least to most)"
    note += f"; maps of the word differ from ours by: {', '.join(apart)}" if apart else ""
    show(title, columns, map(_cells, rows), note)


def publish(rows: list[Row], title: str, name: str, *, docs: bool) -> None:
    """Write what is known."""
    figure, axes = panels(3)
    names = [row.name for row in rows[1:]]
    milliseconds = [_times(row.added, 1000) for row in rows[1:]]
    bars(axes[0], names, milliseconds, "added to a step, ms")
    bars(axes[1], names, [_times(row.after, 1000) for row in rows[1:]], "after the run, ms")
    bars(axes[2], names, [Spread.of([row.nbytes / 1e6]) for row in rows[1:]], "kept, MB")
    axes[2].set_xscale("log")
    for axis in axes[1:]:
        axis.set_yticklabels([])
    figure.suptitle(title)
    record = {"machine": machine(1), "what": title, "rows": rows}
    write(name, record, figure, docs=docs)


def _times(spread: Spread, factor: float) -> Spread:
    values = (factor * x for x in (spread.median, spread.low, spread.high))
    return Spread(*values, spread.count)


def _cells(row: Row) -> tuple[str, ...]:
    bare = row.name == "no capture"
    return (
        row.name,
        row.step.show(),
        "" if bare else row.added.show(1000, 0),
        "" if bare else row.last.show(1000, 0),
        "" if bare else row.after.show(1000, 0),
        "" if bare else f"{row.nbytes / 1e6:.2f}",
        "" if bare or row.memory is None else f"{row.memory / 1e6:.0f}",
        "" if bare else "yes" if row.identical else "NO",
    )


if __name__ == "__main__":
    sys.exit(main())
