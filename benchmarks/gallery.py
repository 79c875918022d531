"""How fast a large gallery answers: one page of 24 runs out of 100,000, in milliseconds.

    python benchmarks/gallery.py [RUNS]

The folders hold their record alone, as listing reads nothing else, and are links to 72 that
exist: making and deleting 200,000 real ones would take most of the time. The limit is 50 ms by the
wall; CPU time tells how busy the machine was besides.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from scribblediffusion.gallery import Gallery
from scribblediffusion.gallery.run import folder_name, new_id

LIMIT = 50.0
DAYS = 365
COLOURS = ("red", "blue", "green", "yellow", "brown", "pink", "purple", "orange", "grey")
THINGS = ("apple", "kite", "plug", "rocket", "teapot", "sailboat", "guitar", "snail")


def fill(root: Path, templates: Path, runs: int) -> None:
    """Write so many runs, spread over a year."""
    prompts = [f"a {colour} {thing} on white" for colour in COLOURS for thing in THINGS]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number, prompt in enumerate(prompts):
        (templates / str(number)).mkdir()
        record = {"created": start.isoformat(), "prompt": prompt, "seed": number}
        (templates / str(number) / "run.json").write_text(json.dumps(record))
    for number in range(runs):
        created = start + timedelta(days=DAYS) * (number / runs)
        which = number * 31 % len(prompts)
        run_id = new_id(created.timestamp())
        folder = root / folder_name(run_id, prompts[which], created)
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(templates / str(which))


def milliseconds(work: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """The median of the wall's and of the CPU's time of some calls."""
    wall, cpu = [], []
    for _ in range(times):
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(1000 * (time.perf_counter() - start[0]))
        cpu.append(1000 * (time.process_time() - start[1]))
    return sorted(wall)[times // 2], sorted(cpu)[times // 2]


def main(runs: int) -> int:
    """Fill, measure, report; 1 where a page takes too long."""
    with tempfile.TemporaryDirectory(prefix="scribble-") as folder:
        root, templates = Path(folder, "gallery"), Path(folder, "t")
        root.mkdir()
        templates.mkdir()
        start = time.perf_counter()
        fill(root, templates, runs)
        print(f"{runs:,} runs written in {time.perf_counter() - start:.1f} s")
        gallery = Gallery(root)
        start = time.perf_counter()
        print(f"index of {gallery.rebuild():,} built in {time.perf_counter() - start:.1f} s")
        time.sleep(2.5)  # until the folders' time stamps have settled
        gallery.list()
        pages: dict[str, dict[str, Any]] = {
            "first page": {"page": 1},
            "page in the middle": {"page": runs // 48},
            "words": {"words": "red apple"},
            "seed": {"seed": 36},
            "one month": {"since": date(2026, 6, 1), "until": date(2026, 6, 30)},
        }
        worst = 0.0
        for name, query in pages.items():
            wall, cpu = milliseconds(lambda query=query: gallery.list(size=24, **query))
            worst = max(worst, wall)
            print(f"{name:20s} {wall:6.1f} ms wall {cpu:6.1f} ms CPU")
        first = gallery.list(size=1).runs[0].id
        wall, cpu = milliseconds(lambda: gallery.get(first))
        print(f"{'one run by its id':20s} {wall:6.1f} ms wall {cpu:6.1f} ms CPU")
        print(f"worst page {worst:.1f} ms, limit {LIMIT:.0f} ms")
        return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
