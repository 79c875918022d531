"""What capture costs on Stable Diffusion 1.5's architecture (random weights, one CPU thread).

Interleaved, in one process, medians: no capture, ours, the naive way (every layer's full
probabilities kept), and attention-map-diffusers where it is installed. Reported: time a step and
what it adds, bytes kept, and whether the latents are bit for bit those without capture.

    python benchmarks/capture.py [--steps 3] [--repeats 3] [--size 256] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.records import Prompt, Token, Word

_log = logging.getLogger("benchmarks.capture")
#: "a red apple on a wooden table", with CLIP's start and end.
WORDS = ("a", "red", "apple", "on", "a", "wooden", "table")


@dataclass(frozen=True)
class Row:
    """One way of capturing: medians over the repeats."""

    name: str
    seconds_a_step: float
    spread: float
    added_ms_a_step: float
    megabytes: float
    identical: bool


class Pipe:
    """Stable Diffusion 1.5's UNet and loop with guidance; the text encoder plays no part here."""

    def __init__(self, size: int) -> None:
        torch.manual_seed(0)
        self.unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        ).eval()
        self.scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
        self.latent = size // 8

    def key_layout(self) -> KeyLayout:
        """77 text keys of which start, words and end are used."""
        tokens = [Token(i, w) for i, w in enumerate(("<start>", *WORDS, "<end>"))]
        tokens += [Token(i, "<pad>", padding=True) for i in range(len(tokens), 77)]
        words = tuple(Word(w, (i + 1,), start=i) for i, w in enumerate(WORDS))
        prompt = Prompt(" ".join(WORDS), tuple(tokens), words)
        return KeyLayout({"text": range(77)}, (prompt,), branches=("unconditional", "full"))

    @torch.no_grad()
    def __call__(self, steps: int) -> torch.Tensor:
        """The final latents."""
        generator = torch.Generator().manual_seed(0)
        condition = torch.randn(2, 77, 768, generator=generator)
        latents = torch.randn(1, 4, self.latent, self.latent, generator=generator)
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            free, full = self.unet(latents.expand(2, -1, -1, -1), t, condition).sample.chunk(2)
            latents = self.scheduler.step(free + 7.5 * (full - free), t, latents).prev_sample
        return latents


@contextmanager
def nothing(pipe: Pipe) -> Iterator[Callable[[], int]]:
    """No capture."""
    yield lambda: 0


@contextmanager
def ours(pipe: Pipe) -> Iterator[Callable[[], int]]:
    """`RealAttentionExtractor` with its defaults."""
    with RealAttentionExtractor(pipe) as extractor:
        yield lambda: extractor.trace.nbytes


@contextmanager
def naive(pipe: Pipe) -> Iterator[Callable[[], int]]:
    """Every `attn2`'s full probabilities, kept for every step, head and branch."""
    kept: list[torch.Tensor] = []
    handles = []
    for name, module in pipe.unet.named_modules():
        if name.endswith("attn2"):
            keep = _naive_hook(kept)
            handles.append(module.register_forward_hook(keep, with_kwargs=True))
    try:
        yield lambda: sum(p.nbytes for p in kept)
    finally:
        for handle in handles:
            handle.remove()


def _naive_hook(kept: list[torch.Tensor]) -> Callable[..., None]:
    def keep(module: Any, args: tuple, kwargs: dict[str, Any], output: torch.Tensor) -> None:
        q = module.head_to_batch_dim(module.to_q(args[0]))
        k = module.head_to_batch_dim(module.to_k(kwargs["encoder_hidden_states"]))
        kept.append(module.get_attention_scores(q, k))

    return keep


@contextmanager
def attention_map_diffusers(pipe: Pipe) -> Iterator[Callable[[], int]]:
    """attention-map-diffusers 1.x: it keeps queries and keys, and computes the maps afterwards."""
    from attention_map_diffusers import AttentionCapture

    with AttentionCapture(pipe, timesteps="all") as capture:
        yield lambda: (capture.compute(), capture.collector.capture_bytes)[1]


def measure(size: int, steps: int, repeats: int) -> list[Row]:
    """Every way in turn, `repeats` times over."""
    ways: dict[str, Callable[[Pipe], Any]] = {"no capture": nothing, "ours": ours, "naive": naive}
    pipe = Pipe(size)
    if importlib.util.find_spec("attention_map_diffusers") is not None:
        ways["attention-map-diffusers"] = attention_map_diffusers
    expected = pipe(steps)
    times: dict[str, list[float]] = {name: [] for name in ways}
    size_of: dict[str, int] = {}
    same: dict[str, bool] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            with way(pipe) as finish:
                begin = time.perf_counter()
                latents = pipe(steps)
                size_of[name] = finish()  # until the maps are there
                times[name].append((time.perf_counter() - begin) / steps)
                same[name] = torch.equal(latents, expected)
    bare = times["no capture"]
    return [
        Row(
            name,
            statistics.median(mine),
            max(mine) - min(mine),
            1000 * statistics.median(a - b for a, b in zip(mine, bare, strict=True)),
            size_of[name] / 1e6,
            same[name],
        )
        for name, mine in times.items()
    ]


def main() -> None:
    """Run, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    rows = measure(options.size, options.steps, options.repeats)
    _log.info("%-26s %9s %9s %10s %9s  same", "", "s/step", "spread", "added ms", "MB kept")
    for row in rows:
        _log.info(
            "%-26s %9.3f %9.3f %10.1f %9.2f  %s",
            row.name, row.seconds_a_step, row.spread, row.added_ms_a_step, row.megabytes,
            "yes" if row.identical else "NO",
        )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
