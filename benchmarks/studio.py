"""What watching costs: a run with capture alone, and the same run told live to a listener.

Both capture the attention with a picture of every step. The live one also packs maps within its
share of the time, and a listener on another thread turns every snapshot into JSON, as the page's
server does. Interleaved, in one process; ratios are taken within the pairs.

    python benchmarks/studio.py [--steps 20] [--repeats 9] [--docs]
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import orjson
from measuring import Spread, machine, options, ratios, show, write

from scribblediffusion import RealAttentionExtractor, ScribblePipeline, Sketch
from scribblediffusion.settings import seeded
from scribblediffusion.web.limits import Order
from scribblediffusion.web.painter import tell_steps
from scribblediffusion.web.worker import Failed, Finished, Job, Running

#: A watched run may take this many times one that nobody watches.
LIMIT = 1.05
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


def main() -> int:
    """Measure and report; 1 where the limit is passed."""
    chosen = options(__doc__, steps=(20, "denoising steps"), repeats=(9, "pairs of runs"))
    pipe = ScribblePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    order = Order(PROMPT, Sketch.from_image(SKETCH), chosen.steps, 3.0, 1.5, 7)
    captured(pipe, order)
    alone, live, heard = [], [], []
    for round_ in range(chosen.repeats):
        if round_ % 2:  # each is first in turn: a machine that slows down slows both
            alone.append(captured(pipe, order))
        seconds, *told = watched(pipe, order)
        if not round_ % 2:
            alone.append(captured(pipe, order))
        live.append(seconds)
        heard.append(told)
    times = ratios(live, alone)
    snapshots, maps = (Spread.of(counts) for counts in zip(*heard, strict=True))
    rows = [
        ("capture alone", Spread.of(alone).show(), ""),
        ("watched live", Spread.of(live).show(), times.show(digits=3)),
    ]
    note = f"{snapshots.median:.0f} snapshots were heard, {maps.median:.0f} with new maps."
    show("Watching live", ("", "seconds by the clock", "times capture alone"), rows, note)
    record = {
        "machine": machine(),
        "steps": chosen.steps,
        "seconds": {"capture alone": Spread.of(alone), "watched live": Spread.of(live)},
        "times capture alone": times,
        "snapshots": snapshots,
        "with new maps": maps,
        "limit": LIMIT,
    }
    write("studio", record, None, docs=chosen.docs)
    return int(times.median > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
