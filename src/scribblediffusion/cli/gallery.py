"""`scribble gallery`: list, look after and carry the runs that were kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scribblediffusion.cli.progress import progress
from scribblediffusion.cli.rerun import rerun
from scribblediffusion.cli.source import RUN_HELP, GalleryRoot, find_run
from scribblediffusion.cli.terminal import on_terminal, readable, say, shortened, show
from scribblediffusion.errors import GalleryError, InputError

if TYPE_CHECKING:
    from scribblediffusion.gallery import Damage, Gallery, Page, Run

RunName = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)]
RunNames = Annotated[list[str], typer.Argument(metavar="RUN", help=RUN_HELP)]

app = typer.Typer(
    help="List, check, repeat and carry the runs that were kept.", rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context, gallery: GalleryRoot = None) -> None:
    if context.invoked_subcommand is None:
        raise InputError(
            "say what to do, for instance: scribble gallery list "
            "(scribble gallery --help lists every command)"
        )


@app.command("list")
def list_runs(
    words: Annotated[
        str,
        typer.Option(
            metavar="WORDS", help="Only runs whose prompt has all these words, or their beginnings."
        ),
    ] = "",
    seed: Annotated[int | None, typer.Option(metavar="N", help="Only runs with this seed.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="Only runs from this day on: 2026-11-23.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="Only runs up to the end of this day.")
    ] = None,
    page: Annotated[
        int, typer.Option(metavar="N", help="Which page, newest runs first.", min=1)
    ] = 1,
    size: Annotated[int, typer.Option(metavar="N", help="Runs on a page.", min=1, max=1000)] = 24,
    deleted: Annotated[bool, typer.Option("--bin", help="The runs in the bin instead.")] = False,
    gallery: GalleryRoot = None,
) -> None:
    """List the runs, newest first."""
    kept = _gallery(gallery)
    asked = {"words": words, "seed": seed, "since": _day(since, "--since"),
             "until": _day(until, "--until")}  # fmt: skip
    chosen = [f"--{name}" for name, value in asked.items() if value not in ("", None)]
    if deleted:
        if chosen:
            raise InputError(f"{chosen[0]} does not go with --bin: the bin is listed whole")
        _show_bin(kept)
        return
    found = kept.list(page=page, size=size, **asked)
    if not found.runs:
        say(_nothing(kept, found, bool(chosen)))
        return
    _show(list(found), str(kept.root), _where(found))


@app.command("show")
def show_run(run: RunName, gallery: GalleryRoot = None) -> None:
    """Show all that is known of a run."""
    from scribblediffusion.analysis.printing import Table

    kept_in, kept = find_run(run, gallery)
    rows = [("prompt", kept.prompt or "none"), ("id", kept.id), *_known(kept)]
    rows += [("folder", str(kept.folder))]
    show(Table("", ("", ""), rows))
    damages = kept_in.verify(kept.id)
    for damage in damages:
        say(f"damaged: {damage.file}: {damage.what}")
    files = Table("files", ("file", "size"), list(_files(kept)))
    typer.echo()
    show(files)
    if damages:
        raise typer.Exit(1)


@app.command()
def verify(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="These runs; else every one.")
    ] = None,
    gallery: GalleryRoot = None,
) -> None:
    """Check every file against what was saved.

    Names each file that is missing, strange, or differs in a single bit. Exit status 1 where
    something is damaged.
    """
    checked, damages = 0, list[Any]()
    for found in _verified(runs, gallery):
        checked += 1
        for damage in found:
            say(damage)
        damages += found
    if damages:
        broken = len({damage.run for damage in damages})
        say(f"{broken} of {_count(checked)} damaged")
        raise typer.Exit(1)
    say(f"{_count(checked)}: every file is as it was saved")


@app.command()
def rebuild(gallery: GalleryRoot = None) -> None:
    """Make the index anew from the folders, which are the truth."""
    kept = _gallery(gallery)
    say(f"{_count(kept.rebuild())} in the index of {kept.root}")


@app.command()
def export(
    run: RunName,
    output: Annotated[
        Path, typer.Option(metavar="PATH", help="The ZIP file, or the folder to put it in.")
    ] = Path("."),
    gallery: GalleryRoot = None,
) -> None:
    """Write a run as a ZIP file that `import` reads again."""
    if not output.is_dir() and not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}")
    kept_in, kept = find_run(run, gallery)
    say(kept_in.export(kept.id, output))


@app.command("import")
def import_runs(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="ZIP files that `export` wrote.")
    ],
    gallery: GalleryRoot = None,
) -> None:
    """Add runs from ZIP files, under the ids that they had."""
    kept = _gallery(gallery)
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: there is no such file")
        run = kept.import_zip(file)
        say(f"run {run.id} in {run.folder}")


@app.command()
def delete(runs: RunNames, gallery: GalleryRoot = None) -> None:
    """Move runs to the bin; `restore` takes them out again."""
    for kept_in, kept in [find_run(run, gallery) for run in runs]:
        kept_in.delete(kept.id)
        say(f"run {kept.id} is in the bin; scribble gallery restore {kept.id} takes it out")


@app.command()
def restore(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Ids; `list --bin` shows them.")],
    gallery: GalleryRoot = None,
) -> None:
    """Take runs out of the bin."""
    kept = _gallery(gallery)
    for name in runs:
        try:
            run = kept.restore(name)
        except GalleryError as error:
            raise InputError(f"{error}; `scribble gallery list --bin` shows what is") from None
        say(f"run {run.id} in {run.folder}")


app.command()(rerun)


# --- inside ----------------------------------------------------------------------------------


def _gallery(root: Path | None) -> Gallery:
    from scribblediffusion.gallery import Gallery

    return Gallery(root)


def _day(text: str | None, option: str) -> date | datetime | None:
    """A day, or a moment where a time is given too."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option} {text!r}: write a day as 2026-11-23, or a moment as 2026-11-23T15:30"
        ) from None


def _nothing(kept: Gallery, found: Page, searched: bool) -> str:
    """Why a page is empty."""
    if found.total:
        return f"page {found.number}: there are only {found.pages}"
    if searched:
        return f"no run of {kept.root} fits"
    return f"no run in {kept.root} yet; `scribble draw` makes one"


def _where(found: Page) -> str:
    """Which runs these are, of how many."""
    if found.pages == 1:
        return _count(found.total)
    first = (found.number - 1) * found.size + 1
    more = f"; --page {found.number + 1} for more" if found.number < found.pages else ""
    last = first + len(found) - 1
    return f"{first} to {last} of {found.total} runs, page {found.number} of {found.pages}{more}"


def _show(runs: list[Run], title: str, note: str) -> None:
    """Runs as a table: on a terminal with the last part of their ids, which is enough."""
    from scribblediffusion.analysis.printing import Table

    short = on_terminal()
    rows = [
        (
            run.id[-8:] if short else run.id,
            f"{run.created:%Y-%m-%d %H:%M}",
            "" if run.seed is None else str(run.seed),
            "(damaged)" if run.damaged else shortened(run.prompt),
        )
        for run in runs
    ]
    show(Table(title, ("run", "made", "seed", "prompt"), rows, [note]))


def _show_bin(kept: Gallery) -> None:
    runs = list(kept.bin())
    if not runs:
        say(f"the bin of {kept.root} is empty")
        return
    _show(runs, f"bin of {kept.root}", _count(len(runs)))


def _known(run: Run) -> Iterator[tuple[str, str]]:
    """What `run.json` says, a line for each thing."""
    yield "made", f"{run.created:%Y-%m-%d %H:%M:%S %z}"
    try:
        record = run.record
    except GalleryError as error:
        yield "record", str(error)
        return
    for name, value in run.part("settings", dict).items():
        if value is not None:
            yield str(name).replace("_", " "), readable(value)
    steps = run.part("steps", list)
    if steps:
        known = [f"{100 * n:.0f} %" for n in map(_noise, (steps[0], steps[-1])) if n is not None]
        noise = f", noise remaining {' to '.join(known)}" if known else ""
        early = "" if record.get("complete", True) else ", ended early"
        yield "steps", f"{len(steps)}{noise}{early}"
    for name, value in run.part("versions", dict).items():
        yield str(name), readable(value)
    yield "audit", readable(run.part("audit", dict).get("says", "none was made"))


def _noise(step: object) -> float | None:
    """The noise remaining that a step's record tells."""
    noise = step.get("noise_remaining") if isinstance(step, dict) else None
    return float(noise) if isinstance(noise, int | float) and 0 <= noise <= 1 else None


def _files(run: Run) -> Iterator[tuple[str, str]]:
    from scribblediffusion.gallery import manifest

    try:
        entries = manifest.read(run.folder)
    except GalleryError:
        return
    for name, entry in entries.items():
        yield name, f"{entry.size / 1000:,.1f} kB"


def _verified(runs: list[str] | None, root: Path | None) -> Iterator[tuple[Damage, ...]]:
    """The damages of each run, with a progress bar."""
    named = [find_run(run, root) for run in runs or []]
    kept = _gallery(root)
    chosen = iter(named) if named else ((kept, run) for run in kept)
    with progress() as bar:
        task = bar.add_task("Verifying", total=len(named) or len(kept))
        for kept_in, run in chosen:
            found = kept_in.verify(run.id)
            bar.advance(task)
            yield found


def _count(runs: int) -> str:
    return f"{runs} run{'' if runs == 1 else 's'}"
