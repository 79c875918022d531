"""How the benchmarks measure: interleaved rounds, peak memory, the machine, and what is written.

Every benchmark prints a table and writes `NAME.json` and, where it has one, a plot into
`build/benchmarks/`; with `--docs` they go to `docs/costs/`, where `docs/costs.md` shows them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCS = ROOT / "build" / "benchmarks", ROOT / "docs" / "costs"
#: Colours that people with colour-blindness tell apart (Okabe and Ito 2008).
INK = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True)
class Spread:
    """Some measurements of one thing.

    Attributes:
        median, low, high: of all of them; `low` and `high` are the extremes.
        count: how many.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """From the measurements."""
        found = sorted(values)
        return cls(median(found), found[0], found[-1], len(found))

    def show(self, scale: float = 1, digits: int = 2) -> str:
        """The median, and in brackets the extremes."""
        middle, low, high = (scale * x for x in (self.median, self.low, self.high))
        return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def machine(threads: int | None = None) -> dict[str, Any]:
    """What the numbers were measured on; `threads` are those that torch may use."""
    names = ("torch", "diffusers", "transformers", "numpy", "scribblediffusion")
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(int(_line("/proc/meminfo", "MemTotal").split()[0] or 0) / 1e6, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions(names),
        "load": round(os.getloadavg()[0], 2),
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
    }


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of packages; one that is not there is said not to be installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _line(file: str, name: str) -> str:
    """A value of a `/proc` file; "0" where there is no such file."""
    if not Path(file).exists():
        return "0"
    lines = (line.split(":", 1) for line in Path(file).read_text().splitlines() if ":" in line)
    return next((value.strip() for key, value in lines if key.strip() == name), "0")


def interleaved(
    ways: Mapping[str, Callable[[], Any]], rounds: int, *, warm: bool = True
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each way in each round; the rounds take turns in who begins.

    A machine that is slow for a while is then slow for all of them, and differences are taken
    within a round. With `warm` each way runs once before, unmeasured.

    Returns:
        By the clock, and of the processor (all threads; not of child processes).
    """
    names = list(ways)
    if warm:
        for name in names:
            ways[name]()
    clock: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start, spent = time.perf_counter(), time.process_time()
            ways[name]()
            clock[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - spent)
    return clock, processor


def differences(mine: Sequence[float], base: Sequence[float]) -> Spread:
    """How much more one way took than the other, round by round."""
    return Spread.of(a - b for a, b in zip(mine, base, strict=True))


def ratios(mine: Sequence[float], base: Sequence[float]) -> Spread:
    """How many times as long one way took as the other, round by round."""
    return Spread.of(a / b for a, b in zip(mine, base, strict=True))


@dataclass(frozen=True)
class Timed:
    """What something took, and the most that it may take.

    Attributes:
        what: what was done.
        clock, processor: seconds by the clock, and of the processor on all threads.
        limit: seconds by the clock, or None.
    """

    what: str
    clock: Spread
    processor: Spread
    limit: float | None = None

    @classmethod
    def of(
        cls, what: str, work: Callable[[], Any], times: int, limit: float | None = None
    ) -> Timed:
        """So many calls, after one that is not counted."""
        return cls.in_turns({what: (work, limit)}, times)[0]

    @classmethod
    def in_turns(
        cls, ways: Mapping[str, tuple[Callable[[], Any], float | None]], times: int
    ) -> list[Timed]:
        """Several ways, each with its limit, that take turns: so many rounds, after one of each
        that is not counted.
        """
        clock, processor = interleaved({what: work for what, (work, _) in ways.items()}, times)
        return [
            cls(what, Spread.of(clock[what]), Spread.of(processor[what]), limit)
            for what, (_, limit) in ways.items()
        ]

    @property
    def kept(self) -> bool:
        """Whether the median is within the limit."""
        return self.limit is None or self.clock.median <= self.limit


def report(name: str, title: str, found: Sequence[Timed], threads: int, *, docs: bool) -> int:
    """Print and write what was timed; the exit status, 1 where a limit was passed."""
    rows = [
        (
            one.what,
            one.clock.show(1000, 1),
            one.processor.show(1000, 1),
            "" if one.limit is None else f"{1000 * one.limit:.0f}",
        )
        for one in found
    ]
    show(title, ("", "ms by the clock", "ms of the processor", "limit, ms"), rows)
    record = {"machine": machine(threads), "timed": found}
    write(name, record, None, docs=docs)
    return int(not all(one.kept for one in found))


def rise_of_memory(work: Callable[[], Any]) -> int | None:
    """By how many bytes the resident memory rises at most while `work` runs; None off Linux.

    In a forked child, so that what earlier work left in the allocator plays no part. Call it
    before torch has started threads (they do not survive a fork): with one thread it has none.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_watch, args=(work, theirs))
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise SystemExit("the forked measurement of memory died") from None
    finally:
        child.join()


def _watch(work: Callable[[], Any], answer: Any) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    kept = work()
    answer.send(1024 * (_kilobytes("VmHWM") - before))
    del kept


def _kilobytes(name: str) -> int:
    return int(_line("/proc/self/status", name).split()[0])


def options(about: str | None, **numbers: tuple[int, str]) -> argparse.Namespace:
    """The command line that all benchmarks share, and whole numbers of its own."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", action="store_true", help="write to docs/costs/")
    for name, (default, text) in numbers.items():
        label = f"--{name.replace('_', '-')}"
        parser.add_argument(label, type=int, default=default, metavar="N", help=text)
    return parser.parse_args()


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if os.isatty(1) else 118).print(table)


def write(name: str, record: Mapping[str, Any], figure: Figure | None, *, docs: bool) -> None:
    """Write the record (dataclasses allowed inside) and the figure, and say where."""
    folder = DOCS if docs else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, default=asdict, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n")
    written = [f"{name}.json"]
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=110)
        written.append(f"{name}.png")
    print(f"written to {folder.relative_to(ROOT)}: {', '.join(written)}")


def panels(count: int, height: float = 3.4, width: float = 4.6) -> tuple[Figure, list[Any]]:
    """A figure of so many panels in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, count, 1 + i) for i in range(count)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def bars(
    axis: Any, names: Sequence[str], values: Sequence[Spread], unit: str, limit: float | None = None
) -> None:
    """Bars of medians with their extremes, the first on top; a dashed line for a limit."""
    middle = [v.median for v in values]
    less = [v.median - v.low for v in values]
    more = [v.high - v.median for v in values]
    places = range(len(names))
    axis.barh(places, middle, xerr=(less, more), color=INK[0], ecolor="#555555", height=0.6)
    axis.set_yticks(list(places), names)
    axis.invert_yaxis()
    axis.set_xlabel(unit)
    if limit is not None:
        axis.axvline(limit, color=INK[1], linestyle="--", linewidth=1)
