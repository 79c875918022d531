"""How fast a large gallery answers: one page of 24 runs out of 100,000, in milliseconds.

    python benchmarks/gallery.py [--runs 100000] [--docs]

The folders hold their record alone, as listing reads nothing else, and are links to 72 that
exist: making and deleting 200,000 real ones would take most of the time. The limit is 50 ms by the
wall; CPU time tells how busy the machine was besides.
"""

import json
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from measuring import Timed, options, report

from scribblediffusion.gallery import Gallery
from scribblediffusion.gallery.run import folder_name, new_id

#: Seconds.
LIMIT = 0.05
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


def main() -> int:
    """Fill, measure, report; 1 where a page takes too long."""
    chosen = options(__doc__, runs=(100_000, "how many there are"))
    with tempfile.TemporaryDirectory(prefix="scribble-") as folder:
        root, templates = Path(folder, "gallery"), Path(folder, "t")
        root.mkdir()
        templates.mkdir()
        fill(root, templates, chosen.runs)
        gallery = Gallery(root)
        start = time.perf_counter()
        gallery.rebuild()
        built = time.perf_counter() - start
        time.sleep(2.5)  # until the folders' time stamps have settled
        pages: dict[str, dict[str, Any]] = {
            "first page": {"page": 1},
            "page in the middle": {"page": chosen.runs // 48},
            "words": {"words": "red apple"},
            "seed": {"seed": 36},
            "one month": {"since": date(2026, 6, 1), "until": date(2026, 6, 30)},
        }
        found = [
            Timed.of(name, lambda query=query: gallery.list(size=24, **query), 9, LIMIT)
            for name, query in pages.items()
        ]
        found.append(
            Timed.of("first page, a run just added", lambda: added(root, gallery), 9, LIMIT)
        )
        first = gallery.list(size=1).runs[0].id
        found.append(Timed.of("one run by its id", lambda: gallery.get(first), 9))
    print(f"index of {chosen.runs:,} built in {built:.1f} s")
    return report("gallery", f"A gallery of {chosen.runs:,} runs", found, 1, docs=chosen.docs)


def added(root: Path, gallery: Gallery) -> None:
    """One run more on the last day, and the first page."""
    day = max(path for path in root.iterdir() if path.is_dir() and path.name[0].isdigit())
    last = max(day.iterdir())
    created = datetime.fromisoformat(f"{day.name}T23:59:00+00:00")
    run = folder_name(new_id(created.timestamp()), "a run more", created)
    (root / run).symlink_to(last.readlink())
    gallery.list(size=24, page=1)


if __name__ == "__main__":
    sys.exit(main())
