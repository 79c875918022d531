"""What watching costs: a run with capture alone, and the same run told live to a listener.

Both capture the attention with a picture of every step. The live one also packs maps within its
share of the time, and a listener on another thread turns every snapshot into JSON, as the page's
server does. Interleaved, in one process; medians over the pairs.

    python benchmarks/studio.py [--steps 20] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import threading
import time
from pathlib import Path

import orjson

from scribblediffusion import RealAttentionExtractor, ScribblePipeline, Sketch
from scribblediffusion.settings import seeded
from scribblediffusion.web.limits import Order
from scribblediffusion.web.painter import tell_steps
from scribblediffusion.web.worker import Failed, Finished, Job, Running

_log = logging.getLogger("benchmarks.studio")
SKETCH = Path(__file__).parents[1] / "examples" / "sketches" / "mushroom.png"
PROMPT = "a red mushroom on a green background"


def captured(pipe: ScribblePipeline, order: Order) -> float:
    """Seconds of a run that nobody watches."""
    begun = time.perf_counter()
    with RealAttentionExtractor(pipe):
        pipe(
            order.prompt,
            order.sketch,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance,
            sketch_guidance_scale=order.sketch_guidance,
            generator=seeded(order.seed),
        )
    return time.perf_counter() - begun


def watched(pipe: ScribblePipeline, order: Order) -> tuple[float, int, int]:
    """Seconds of a run that is watched; how many snapshots were heard, and with new maps."""
    job, heard = Job("visitor", order), []
    listener = threading.Thread(target=lambda: asyncio.run(_listen(job, heard)))
    listener.start()
    begun = time.perf_counter()
    with RealAttentionExtractor(pipe) as extractor:
        tell_steps(pipe, job, extractor)
    seconds = time.perf_counter() - begun
    job.tell(Finished(None))
    listener.join()
    return seconds, len(heard), len({id(frame) for frame in heard if frame is not None})


async def _listen(job: Job, heard: list) -> None:
    async for news in job.news():
        if isinstance(news, Running):
            if news.frame is not None and all(news.frame is not old for old in heard):
                orjson.dumps(news.frame)
            heard.append(news.frame)
        if isinstance(news, Finished | Failed):
            return


def main() -> None:
    """Run, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipe = ScribblePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    order = Order(PROMPT, Sketch.from_image(SKETCH), options.steps, 3.0, 1.5, 7)
    captured(pipe, order)
    bare, live, maps = [], [], []
    for _ in range(options.repeats):
        bare.append(captured(pipe, order))
        seconds, snapshots, frames = watched(pipe, order)
        live.append(seconds)
        maps.append((snapshots, frames))
    added = statistics.median(b / a - 1 for a, b in zip(bare, live, strict=True))
    told = {
        "steps": options.steps,
        "captured_s": statistics.median(bare),
        "watched_s": statistics.median(live),
        "added": added,
        "snapshots": statistics.median(s for s, _ in maps),
        "new_maps": statistics.median(f for _, f in maps),
    }
    _log.info("capture alone   %6.2f s", told["captured_s"])
    _log.info("watched live    %6.2f s   (%+.1f %%)", told["watched_s"], 100 * added)
    _log.info("snapshots heard %6d     with new maps %d", told["snapshots"], told["new_maps"])
    if options.json:
        options.json.write_text(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
