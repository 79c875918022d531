"""Fills the tables of `docs/costs.md` from the JSON files in `docs/costs/`.

    python benchmarks/page.py

Text between `<!-- measured: NAME -->` and `<!-- end -->` is written anew; all else stays.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from measuring import DOCS, ROOT, Spread

from scribblediffusion.evaluate.page import filled

PAGE = ROOT / "docs" / "costs.md"
Record = dict[str, Any]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    ruler = ["---", *["---:"] * (len(columns) - 1)]
    lines = [columns, ruler, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def spread(record: Record, scale: float = 1, digits: int = 2) -> str:
    """The median and, where there was more than one measurement, the extremes."""
    found = Spread(**record)
    return f"{scale * found.median:.{digits}f}" if found.count == 1 else found.show(scale, digits)


def capture(record: Record) -> str:
    """What each way of capturing costs."""
    rows = []
    for row in record["rows"]:
        bare = row["name"] == "no capture"
        cells = [row["name"], spread(row["step"])]
        cells += [""] * 6 if bare else _capture_cells(row)
        rows.append(cells)
    columns = ("", "s a step", "adds to a step, ms", "to the last step, ms")
    columns += ("after the run, ms", "kept, MB", "memory, MB", "same bits")
    return f"{record['what']}; {_rounds(record['rows'][0]['step'])}.\n\n" + table(columns, rows)


def _capture_cells(row: Record) -> list[str]:
    times = [spread(row[name], 1000, 0) for name in ("added", "last", "after")]
    memory = "" if row["memory"] is None else f"{row['memory'] / 1e6:.0f}"
    kept = f"{row['nbytes'] / 1e6:.2f}"
    return [*times, kept, memory, "yes" if row["identical"] else "**no**"]


def _rounds(record: Record) -> str:
    count = record["count"]
    return "one run of each" if count == 1 else f"medians of {count} rounds (least to most)"


def growth(record: Record) -> str:
    """What varies, and what capture then costs."""
    rows = [
        (
            f"{point['varied']}: {point['value']}",
            spread(point["step"], 1000, 0),
            spread(point["added"], 1000, 0),
            f"{100 * point['added']['median'] / point['step']['median']:.1f} %",
            f"{point['nbytes'] / 1e6:.2f}",
        )
        for point in record["points"]
    ]
    columns = ("", "a step without, ms", "capture adds, ms", "that is", "kept of the run, MB")
    return table(columns, rows) + "\nMedians of all steps (least to most).\n"


def pipeline(record: Record) -> str:
    """The pipeline against a bare loop."""
    rows = [
        (name, spread(seconds), spread(record["times the bare loop"][name], digits=3))
        for name, seconds in record["seconds"].items()
    ]
    rows.append(("cold `scribble draw`, capture included", spread(record["cold command"]), ""))
    memory = record["peak memory of the command, GB"]
    said = ", ".join(record["missed"])
    return (
        table(("", "seconds by the clock", "times the bare loop"), rows)
        + f"\n{record['machine']['threads']} thread(s), load {record['machine']['load']} on "
        f"{record['machine']['cores']} cores at the end; peak memory of the cold command "
        f"{memory:.2f} GB. " + (f"Missed: {said}.\n" if said else "Every aim is met.\n")
    )


def startup(record: Record) -> str:
    """Imports and help."""
    rows = [
        (name, spread(seconds), ", ".join(record["loads"][name]))
        for name, seconds in record["seconds"].items()
    ]
    return table(("", "seconds", "heavy packages loaded"), rows)


def studio(record: Record) -> str:
    """A run that is watched against one that is not."""
    seconds = record["seconds"]
    rows = [
        ("capture alone", spread(seconds["capture alone"]), ""),
        (
            "watched live",
            spread(seconds["watched live"]),
            spread(record["times capture alone"], digits=3),
        ),
    ]
    count, maps = (record[name]["median"] for name in ("snapshots", "with new maps"))
    return (
        table(("", "seconds by the clock", "times capture alone"), rows)
        + f"\n{count:.0f} snapshots were heard, {maps:.0f} with new maps; "
        f"the limit is {record['limit']:.2f}.\n"
    )


def timed(record: Record) -> str:
    """What things took, against their limits."""
    rows = [
        (
            one["what"],
            spread(one["clock"], 1000, 1),
            spread(one["processor"], 1000, 1),
            "" if one["limit"] is None else f"{1000 * one['limit']:.0f}",
        )
        for one in record["timed"]
    ]
    return table(("", "ms by the clock", "ms of the processor", "limit, ms"), rows)


def rival_maps(record: Record) -> str:
    """What came of trying, and the measures."""
    tried = [(a["package"], a["how"], f"`{a['result']}`") for a in record["attempts"]]
    first = table(("", "tried", "what came of it"), tried).replace("---:", "---")
    if "ways" not in record:
        return f"{first}\nThe maps themselves are not measured yet.\n"
    first_way = next(iter(record["ways"].values()))
    tables = "\n".join(
        _words(record["ways"], kind, name) for kind, name in WORDS.items() if first_way[kind]
    )
    same = "the same bits" if record["latents the same under each capture"] else "NOT the same bits"
    told = f"Under each capture the latents had {same}."
    of = record["of"]
    told += f" {of['scenes']} scenes, {of['steps']} steps, seed {of['seed']}, "
    told += f"weights `{of['weights']}`; "
    told += ", ".join(f"{name} {number}" for name, number in of["packages"].items()) + "."
    return f"{first}\n{tables}\n{told}\n"


#: Kinds of words, as the record and as the page names them.
WORDS = {"noun": "nouns", "colour": "colour words"}


def _words(ways: Record, kind: str, name: str) -> str:
    """A table of one kind of word: each way, its controls, and chance, which all have in common."""
    rows = []
    for way, kinds in ways.items():
        rows += [
            (f"{way}: {aspect}", *_measures(found))
            for aspect, found in kinds[kind].items()
            if not aspect.startswith("chance")
        ]
    common = next(iter(ways.values()))[kind]
    rows += [(a, *_measures(f)) for a, f in common.items() if a.startswith("chance")]
    count = common["chance"]["auc"]["count"]
    return table((f"{count} {name}", "pointing game", "IoU at equal area", "AUC"), rows)


def _measures(found: Record) -> list[str]:
    each = [found[name] for name in ("pointing", "iou", "auc")]
    return [f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]" for m in each]


def about() -> str:
    """The machine and the versions, of every file that there is."""
    lines = []
    for name in TABLES:
        file = DOCS / f"{name}.json"
        if file.exists():
            found = json.loads(file.read_text())["machine"]
            threads = f", {found['threads']} thread(s)" if found["threads"] else ""
            lines.append((name, f"{found['when']}{threads}", f"{found['load']}"))
            machine = found
    if not lines:
        return ""
    versions = ", ".join(f"{n} {v}" for n, v in machine["packages"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}; Python {machine['python']}, {versions}.\n\n"
        + table(("", "measured", "load of the machine at the end"), lines)
    )


TABLES: dict[str, Callable[[Record], str]] = {
    "capture-sd15": capture,
    "capture-quarter": capture,
    "capture-sdxl": capture,
    "growth": growth,
    "pipeline": pipeline,
    "startup": startup,
    "studio": studio,
    "views": timed,
    "gallery": timed,
    "rival-maps": rival_maps,
}


def part(name: str) -> str:
    """The table of a benchmark; one that was not measured says so."""
    file = DOCS / f"{name}.json"
    if not file.exists():
        return "Not measured yet.\n"
    record = json.loads(file.read_text())
    text = TABLES[name](record)
    if "note" in record:
        text += f"\n{record['note']}\n"
    if file.with_suffix(".png").exists():
        text += f"\n![{name}](costs/{name}.png)\n"
    return text


def main() -> None:
    """Fill the page."""
    parts = {"about": about()} | {name: part(name) for name in TABLES}
    PAGE.write_text(filled(PAGE.read_text(), parts))
    print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
