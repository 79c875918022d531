"""All benchmarks, one after another.

    make bench
    python benchmarks [NAME ...] [--docs]

Each prints a table and writes JSON and a plot into `build/benchmarks/` (`--docs`: `docs/costs/`).
Other packages take part where `python benchmarks/rivals.py` has installed them. The exit status is
1 where one passed a limit of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import page
import rivals
from measuring import show

HERE = Path(__file__).parent
#: Run by the others, or not without other packages.
HELPERS = ("__main__", "architectures", "measuring", "page", "rival_maps", "rivals")
#: Those that take `--docs`; quick ones first.
DOCUMENTED = ("startup", "pipeline", "studio", "views", "gallery", "growth", "capture")


def scripts() -> list[str]:
    """Names of the benchmarks: ours in their order, then whatever else is in the folder."""
    there = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in HELPERS)
    return [*DOCUMENTED, *(name for name in there if name not in DOCUMENTED)]


def run(name: str, arguments: list[str], *, with_rivals: bool) -> int:
    """One benchmark in a process of its own."""
    if with_rivals:
        return rivals.run(f"{name}.py", arguments)
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Run them, and say how long each took."""
    known = scripts()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--docs", action="store_true", help="write to docs/costs/")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.names if name not in known]:
        parser.error(f"{', '.join(unknown)}: there are {', '.join(known)}")
    rows, failed = [], False
    for name in chosen.names or known:
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        documented = chosen.docs and name in DOCUMENTED
        there = name == "capture" and rivals.installed()
        status = run(name, ["--docs"] * documented, with_rivals=bool(there))
        failed |= bool(status)
        taken = f"{time.perf_counter() - start:.0f}"
        rows.append((name, taken, "past a limit, or failed" if status else "fine"))
    if chosen.docs:
        page.main()
    print()
    show("Benchmarks", ("", "seconds", ""), rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
