"""`scribble explain`: what a run's attention says, in words and as a picture."""

from __future__ import annotations

import enum
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from scribblediffusion.cli.source import RUN_HELP, GalleryRoot, open_source
from scribblediffusion.cli.terminal import say, show
from scribblediffusion.errors import InputError

if TYPE_CHECKING:
    from scribblediffusion.analysis.subjects import Subject
    from scribblediffusion.analysis.summary import RunSummary
    from scribblediffusion.attention.trace import AttentionTrace
    from scribblediffusion.cli.source import Source
    from scribblediffusion.visualizer import AttentionVisualizer

#: How `--region` names one: level, row and column.
REGION = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*")
_NUMBERED = re.compile(r"(.+?)\s*\((\d+)\)")


class View(enum.StrEnum):
    """What `--format` can ask for."""

    text = "text"
    json = "json"
    png = "png"
    svg = "svg"
    html = "html"
    gif = "gif"
    webp = "webp"
    mp4 = "mp4"


#: What `--causal` can make.
CAUSAL = (View.text, View.json, View.png, View.svg)


class Ground(enum.StrEnum):
    """What a view is drawn on."""

    light = "light"
    dark = "dark"


def explain(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN|TRACE", help=f"{RUN_HELP} Or a .safetensors file.")
    ],
    word: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help='One word or phrase of the prompt; "a (2)" is the second "a".'
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL:ROW,COLUMN", help="One sketch region: 8:0,3 is row 0, column 3 of 8×8."
        ),
    ] = None,
    view: Annotated[
        View | None,
        typer.Option(
            "--format",
            help="The view to make: png, svg and html show the whole run, or the word or region "
            "that was named; gif, webp and mp4 show it step by step; text and json tell alone.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="File or folder for the view; else it is kept with its run."
        ),
    ] = None,
    ground: Annotated[Ground, typer.Option(help="What the view is drawn on.")] = Ground.dark,
    causal: Annotated[
        bool,
        typer.Option(
            "--causal",
            help="Run it again without the word or the region's ink (else without each word, and "
            "without the longest stroke): what changed, and was it where the map said? As text, "
            "json, png or svg.",
        ),
    ] = False,
    replace_by: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="With --causal and --word: put this in its place, too."),
    ] = None,
    gallery: GalleryRoot = None,
) -> None:
    """Tell what a run's attention says, and draw it.

    Prints the words with their shares, the sketch regions that were heard most, text against
    sketch, and the audit. The view that --format asks for is kept with its run, or lies beside
    its trace; its path is the last line.
    """
    if word is not None and region is not None:
        raise InputError("--word and --region: name one of the two")
    if causal:
        kind = _causal_kind(context, view, output)
        from scribblediffusion.cli.causal import tell_causes

        told = tell_causes(run, gallery, word, region, replace_by, kind.value, output)
        if told is not None:
            tell(told, kind, output, "causal")
        return
    if replace_by is not None:
        raise InputError("--replace-by: runs it again with other words: give --causal, too")
    kind = _kind(view, output)

    from scribblediffusion.visualizer import AttentionVisualizer

    source = open_source(run, gallery)
    subject = _subject(source.trace, word, region)
    visualizer = AttentionVisualizer(ground=ground.value)
    summary = visualizer.summary(source.trace, source.drawing)
    if subject is not None:
        from scribblediffusion.cli.account import focused

        summary = focused(summary, subject)
    if kind is View.json or (kind is View.text and output is not None):
        tell(_json(summary) if kind is View.json else _text(summary, subject), kind, output)
        return
    _print(summary, subject)
    if kind is not View.text:
        with tempfile.TemporaryDirectory() as folder:
            made = _draw(visualizer, source, summary, subject, kind, Path(folder))
            say(_keep(made, source, output))


# --- what was asked for ----------------------------------------------------------------------


def _causal_kind(context: typer.Context, view: View | None, output: Path | None) -> View:
    """What `--causal` is to make; refuses what does not go with it, before anything is run."""
    ground = context.get_parameter_source("ground")
    if ground is not None and ground.name == "COMMANDLINE":
        raise InputError("--ground: the picture of --causal is drawn on light; leave it out")
    if view not in (None, *CAUSAL):
        raise InputError(f"--format {view}: with --causal there are {', '.join(CAUSAL)}")
    return _kind(view, output, CAUSAL, View.png)


def _kind(
    view: View | None,
    output: Path | None,
    known: Sequence[View] = tuple(View),
    usual: View = View.text,
) -> View:
    """The view: as asked for, or as the file's name ends."""
    if output is None or output.is_dir():
        return view or usual
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}")
    ending = output.suffix.lower().removeprefix(".")
    ending = "text" if ending == "txt" else ending
    if view is None and ending not in known:
        endings = ", ".join(map(_ending, known))
        raise InputError(f"--output {output}: the name must end in {endings}")
    if view not in (None, View.text, View.json) and ending != view:
        raise InputError(f"--output {output}: --format {view} needs a name that ends in .{view}")
    return view or View(ending)


def _ending(view: View) -> str:
    return ".txt" if view is View.text else f".{view}"


def _subject(trace: AttentionTrace, word: str | None, region: str | None) -> Subject | None:
    """The word or region that was named, or None."""
    from scribblediffusion.analysis.subjects import find_subject, words_of

    if region is not None:
        return find_subject(trace, _region(trace, region))
    if word is None:
        return None
    for subject in words_of(trace):
        if subject.name.casefold() == word.strip().casefold():
            return subject
    numbered = _NUMBERED.fullmatch(word.strip())
    if numbered and int(numbered[2]) > 0:
        return find_subject(trace, numbered[1], int(numbered[2]) - 1)
    return find_subject(trace, word)


def _region(trace: AttentionTrace, text: str) -> Any:
    from scribblediffusion.sketch import Region

    found = REGION.fullmatch(text)
    if found is None:
        raise InputError(
            f"--region {text!r}: write level:row,column, for instance 8:0,3 for row 0, column 3 "
            "of the 8×8 regions"
        )
    if not trace.regions:
        raise InputError(
            f"--region {text}: this trace has no sketch regions; its streams are "
            f"{', '.join(trace.streams)}"
        )
    region = Region(*map(int, found.groups()))
    if region not in trace.regions:
        levels = sorted({r.level for r in trace.regions}, reverse=True)
        raise InputError(
            f"--region {text}: levels are {', '.join(map(str, levels))}; rows and columns count "
            "from 0 up to the level less 1"
        )
    return region


# --- the account -----------------------------------------------------------------------------


def _print(summary: RunSummary, subject: Subject | None) -> None:
    from scribblediffusion.cli.account import tables

    for number, table in enumerate(tables(summary, subject)):
        if number:
            say()
        show(table)


def _text(summary: RunSummary, subject: Subject | None) -> str:
    from scribblediffusion.cli.account import tables
    from scribblediffusion.cli.terminal import aligned

    return "\n\n".join(aligned(table) for table in tables(summary, subject)) + "\n"


def _json(summary: RunSummary) -> str:
    from scribblediffusion.cli.account import record

    return as_json(record(summary))


def as_json(told: dict[str, Any]) -> str:
    """A record as JSON text."""
    from scribblediffusion.gallery.content import plain

    return json.dumps(plain(told), indent=1, allow_nan=False) + "\n"


def tell(told: str, kind: View, output: Path | None, name: str = "explanation") -> None:
    """The account into a file (of this name in a folder), or on standard output."""
    if output is None:
        typer.echo(told, nl=False)
        return
    path = output / f"{name}{_ending(kind)}" if output.is_dir() else output
    path.write_text(told, encoding="utf-8")
    say(path)


# --- the view --------------------------------------------------------------------------------


def _draw(
    visualizer: AttentionVisualizer,
    source: Source,
    summary: RunSummary,
    subject: Subject | None,
    kind: View,
    folder: Path,
) -> Path:
    """Draws a view into a folder."""
    from scribblediffusion.attention.trace import Word
    from scribblediffusion.view.figure import FigureStyle, analysis_figure, save_figure
    from scribblediffusion.view.report import save_report

    trace, drawing, suffix = source.trace, source.drawing, cast(Any, kind.value)
    what = None
    if subject is not None:
        what = subject.region or Word(subject.name, subject.keys)
    if kind in (View.gif, View.webp, View.mp4):
        return visualizer.create_evolution_gif(trace, "", drawing, folder, word=what, suffix=suffix)
    if subject is None:
        return visualizer.create_comprehensive_analysis(
            trace, "", drawing, folder, formats=(suffix,)
        )
    if kind is View.png:
        path = folder / f"map-{_name(subject)}.png"
        visualizer.heat_map(trace, what).save(path)
        return path
    style = FigureStyle(ground=visualizer.ground)
    path = folder / f"analysis-{_name(subject)}.{kind}"
    if kind is View.html:
        return save_report(summary, path, style)
    return save_figure(analysis_figure(summary, style), path)[0]


def _name(subject: Subject) -> str:
    """A file name of a word or region that no other of the same trace has."""
    from scribblediffusion.gallery.run import slug

    if subject.region is not None:
        return f"region-{subject.region.level}-{subject.region.row}-{subject.region.column}"
    return f"{slug(subject.name)}-{'-'.join(map(str, subject.keys[:4]))}"


def _keep(made: Path, source: Source, output: Path | None) -> Path:
    """Puts a view where it belongs: as asked, with its run, or beside its trace."""
    from scribblediffusion.gallery import manifest
    from scribblediffusion.gallery.content import label_png

    if made.suffix == ".png":
        label_png(made, source.trace.prompt, source.trace.settings.get("seed"))
    if output is not None:
        target = output / made.name if output.is_dir() else output
    elif source.gallery is not None and source.run is not None:
        return source.gallery.attach(source.run.id, made)
    elif (source.file.parent / manifest.NAME).is_file():  # a run that lies outside its gallery
        target = source.file.parent / "views" / made.name
    else:
        target = source.file.with_name(f"{source.file.stem}-{made.name}")
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(made, target)
    return target
