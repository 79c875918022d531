"""`AttentionVisualizer`: the one front door to analysis, pictures and gallery.

    visualizer = AttentionVisualizer("gallery")
    folder = visualizer.create_prompt_folder("a red apple")
    visualizer.create_evolution_gif(trace, "a red apple", "apple.png", folder, word="apple")
    visualizer.create_comprehensive_analysis(trace, "a red apple", "apple.png", folder)

`attention_data` is a trace, or the path of one that `trace.save` wrote, or a run of the gallery or
its folder: no model is needed. Where there is no such file, every method raises
`FileNotFoundError`; anything else is a `SettingError` that says what to give.
Nothing is drawn until it is asked for, and what is asked for twice is drawn once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import operator
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from scribblediffusion.attention.trace import AttentionTrace, Prompt, Word
from scribblediffusion.errors import (
    GalleryError,
    NoHeatMapError,
    SettingError,
    SketchError,
)
from scribblediffusion.sketch import REGIONS, Region, Sketch, Source
from scribblediffusion.view.drawn import Drawn

if TYPE_CHECKING:
    from PIL import Image

    from scribblediffusion.analysis.subjects import Subject
    from scribblediffusion.analysis.summary import RunSummary
    from scribblediffusion.gallery import Gallery, Run
    from scribblediffusion.view.colour import Ground
    from scribblediffusion.view.evolution import EvolutionStyle
    from scribblediffusion.view.figure import FigureStyle
    from scribblediffusion.view.heatmap import HeatStyle

Array = np.ndarray[Any, np.dtype[Any]]
PathLike: TypeAlias = "str | os.PathLike[str]"
#: A trace, or the path of a saved one, or a run in the gallery, or the path of its folder.
AttentionData: TypeAlias = "AttentionTrace | Run | PathLike"
#: What to look at: a word or phrase of the prompt, a sketch region, or a key (0–153).
What: TypeAlias = "str | int | Word | Region"

#: Keys before this one are text tokens, from it on sketch regions (the shipped model).
FIRST_SKETCH_TOKEN = 77

_log = logging.getLogger(__name__)


class WebView(NamedTuple):
    """What the web app shows of one run.

    Attributes:
        image: the map of the leading word, else of the region heard most, over the picture.
        gif_path: the evolution of that word.
        analysis_path: the comprehensive analysis, PNG.
        gallery: id, name, folder, prompt, created and seed of the run in the gallery.
    """

    image: Image.Image
    gif_path: Path
    analysis_path: Path
    gallery: dict[str, Any]


class AttentionVisualizer:
    """Draws what a trace holds, and keeps it in a gallery.

    Args:
        root: the gallery's folder; its default place unless given. Nothing is made there until
            a run is staged or kept.
        ground: "light" or "dark", for everything that is drawn.
    """

    def __init__(self, root: PathLike | None = None, *, ground: Ground = "dark") -> None:
        if ground not in ("light", "dark"):
            raise SettingError(f'ground {ground!r}: there are "light" and "dark"')
        self.root = None if root is None else Path(root)
        self.ground: Ground = ground
        self._gallery: Gallery | None = None
        self._opened: dict[Any, AttentionTrace] = {}
        self._runs: dict[int, _Made] = {}
        self._kept: dict[Any, str] = {}
        self._drawn = Drawn()

    @property
    def gallery(self) -> Gallery:
        """The gallery behind this visualizer."""
        if self._gallery is None:
            from scribblediffusion.gallery import Gallery

            self._gallery = Gallery(self.root)
        return self._gallery

    # ── names that users of the first system know ────────────────────────────────────────────

    def create_prompt_folder(self, prompt: str, sketch_info: str = "") -> Path:
        """Makes a staging folder for a prompt; `gallery.add` publishes it.

        Args:
            prompt: names the folder safely, whatever it holds.
            sketch_info: words about the sketch, kept with it.

        Raises:
            GalleryError: the folder cannot be made.
        """
        return self.gallery.stage(prompt, sketch_info)

    def get_sketch_feature_description(
        self,
        token_idx: int,
        attention_map: Array | None = None,
        sketch_image: Source | None = None,
    ) -> str:
        """Describes what one token stands for: a sketch token from the drawing itself.

        Args:
            token_idx: 0–153, a key of the shipped model: 0–76 are text tokens, of which only the
                map tells something, 77–153 sketch tokens.
            attention_map: `[H, W]` of that token, an array or tensor: adds where in the picture it
                acted most.
            sketch_image: anything that `Sketch.from_image` reads; None for a blank sheet.

        Returns:
            For example "upper right: a curve bending down, 6 % ink; acted most in the centre of
            the picture, 8.1 times the even share".

        Raises:
            SettingError: no token has this number, or the map is not one map of finite numbers,
                0 or more.
            SketchError: the drawing cannot be read.
        """
        from scribblediffusion.analysis.concentration import acted_in_words
        from scribblediffusion.analysis.regions import describe_regions

        number = _token(token_idx) - FIRST_SKETCH_TOKEN
        sketch = Sketch.blank() if sketch_image is None else Sketch.from_image(sketch_image)
        if number < 0:
            text = f"token {token_idx}: a text token, with no place in the sketch"
        else:
            text = str(describe_regions(sketch.ink, [REGIONS[number]])[0])
        return text if attention_map is None else f"{text}; {acted_in_words(attention_map)}"

    def create_evolution_gif(
        self,
        attention_data: AttentionData,
        prompt: str,
        sketch_image: Source | None,
        folder_path: PathLike,
        *,
        word: What | None = None,
        occurrence: int = 0,
        style: EvolutionStyle | None = None,
        suffix: Literal["gif", "webp", "mp4"] = "gif",
    ) -> Path:
        """Draws a run step by step: picture, map of one word, sketch.

        Args:
            attention_data: a trace, or the path of one.
            prompt: shown where the trace does not hold its own.
            sketch_image: the drawing; None takes the trace's own.
            folder_path: where to put the file.
            word: word, phrase, region or key; the word with the most pointed map unless given.
            occurrence: which one of a repeated word, from 0.
            style: how it is drawn.
            suffix: "gif", "webp" or "mp4".

        Returns:
            The path of the file.

        Raises:
            UnknownWordError: the word is not in the prompt.
            NoHeatMapError: the word, or every word, has no weight.
            TraceFileError: the path holds no sound trace.
            SettingError: another suffix, MP4 without ffmpeg, or a folder that is a file.
        """
        trace, drawing = self._open(attention_data, prompt), _drawing(sketch_image)
        what = self._subject(trace, word, occurrence)
        style = style or self._evolution_style()
        path = _folder(folder_path) / f"evolution-{_name(what)}.{suffix}"
        how = (what.keys, style, _mark(drawing))
        draw = functools.partial(_draw_evolution, trace, what, style, drawing, path)
        return self._drawn.once(path, trace, how, draw)

    def create_comprehensive_analysis(
        self,
        attention_data: AttentionData,
        prompt: str,
        sketch_image: Source | None,
        folder_path: PathLike,
        *,
        formats: Sequence[Literal["png", "svg", "pdf", "html"]] = ("png",),
        style: FigureStyle | None = None,
    ) -> Path:
        """Draws the comprehensive analysis of a run as one figure.

        Args:
            attention_data: a trace, or the path of one.
            prompt: shown where the trace does not hold its own.
            sketch_image: the drawing; None takes the trace's own.
            folder_path: where to put `analysis.png` and the other formats.
            formats: "png", "svg", "pdf"; "html" is the report with a step scrubber.
            style: how it is drawn.

        Returns:
            The path of the first format; the others lie beside it.

        Raises:
            TraceFileError: the path holds no sound trace.
            SettingError: another format, or none; or a folder that is a file.
        """
        from scribblediffusion.view.figure import FigureStyle

        if not formats or not set(formats) <= {"png", "svg", "pdf", "html"}:
            raise SettingError(f"formats {list(formats)}: there are png, svg, pdf and html")
        trace, drawing = self._open(attention_data, prompt), _drawing(sketch_image)
        style = style or FigureStyle(ground=self.ground)
        folder = _folder(folder_path)
        paths = [folder / f"analysis.{suffix}" for suffix in formats]
        for path in paths:
            draw = functools.partial(self._draw_analysis, trace, drawing, style, path)
            self._drawn.once(path, trace, (style, _mark(drawing)), draw)
        return paths[0]

    def process_attention_for_web(
        self, attention_maps: AttentionData, prompt: str, sketch_image: Source | None
    ) -> WebView:
        """Keeps a run in the gallery and draws what the web app shows of it.

        Args:
            attention_maps: a trace, or the path of one.
            prompt: shown where the trace does not hold its own.
            sketch_image: the drawing; None takes the trace's own.

        Returns:
            Image, GIF path, analysis path and gallery information. A run that lies in this
            gallery already gets its views there, and what this visualizer kept before is not kept
            a second time; another visualizer keeps the same trace or file as a run of its own.

        Raises:
            GalleryError: the run cannot be kept.
            NoHeatMapError: no word and no region has a map.
            TraceFileError: the path holds no sound trace.
        """
        trace, drawing = self._open(attention_maps, prompt), _drawing(sketch_image)
        views, mark = self._made(trace).views, _mark(drawing)
        if mark not in views or not all(path.exists() for path in views[mark][1:3]):
            key = _source(attention_maps), trace.prompt, mark
            self._recognise(attention_maps, trace, drawing, key)
            views[mark] = self._web_view(trace, drawing, key)
        return views[mark]

    # ── more ─────────────────────────────────────────────────────────────────────────────────

    def heat_map(
        self,
        attention_data: AttentionData,
        word: What | None = None,
        *,
        occurrence: int = 0,
        step: int | None = None,
        view: Literal["heat_map", "attention"] = "heat_map",
        style: HeatStyle | None = None,
        size: int = 512,
        sketch: bool | Source = False,
    ) -> Image.Image:
        """The map of a word or region over the picture, with a colour bar.

        Args:
            attention_data: a trace, or the path of one.
            word: word, phrase, region or key; the word with the most pointed map unless given, and
                without words the region heard most.
            occurrence: which one of a repeated word, from 0.
            step: one sampling step, negative from the end; the whole run unless given.
            view: "heat_map" or "attention".
            style: colours, opacity, enlargement.
            size: the longer side in pixels, 96 to 4096.
            sketch: True draws the trace's own sketch over it; or the drawing to draw.

        Raises:
            SketchError: True, and the trace holds no sketch; or a drawing that cannot be read.
            UnknownWordError: the word is not in the prompt.
            NoHeatMapError: it has no weight anywhere.
            NotRecordedError: that step or token was not recorded.
            SettingError: another size.
        """
        from scribblediffusion.attention.selecting import pick_steps
        from scribblediffusion.view.evolution import subject_title
        from scribblediffusion.view.heatmap import overlay

        trace = self._open(attention_data, "")
        what = self._subject(trace, word, occurrence)
        values = self._map(trace, what, step, view)
        when = "whole run" if step is None else str(trace.steps[pick_steps(trace.steps, step)[0]])
        return overlay(
            values,
            trace.picture,
            view=view,
            title=f"{subject_title(what)} · {when}",
            style=style,
            sketch=_lines(trace, sketch),
            size=size,
            ground=self.ground,
        )

    def summary(
        self, attention_data: AttentionData, sketch_image: Source | None = None
    ) -> RunSummary:
        """Every number of a run: shares, peaks, correlations, regions heard; it prints well."""
        trace = self._open(attention_data, "")
        return self._summary(trace, _drawing(sketch_image))

    # ── inside ───────────────────────────────────────────────────────────────────────────────

    def _open(self, data: AttentionData, prompt: str) -> AttentionTrace:
        """The trace, read from its file once as long as the file stays the same."""
        if isinstance(data, AttentionTrace):
            return self._titled(data, prompt)
        key = _source(data)
        if key not in self._opened:
            _make_room(self._opened)
            self._opened[key] = AttentionTrace.load(_file(data))
        return self._titled(self._opened[key], prompt)

    def _titled(self, trace: AttentionTrace, prompt: str) -> AttentionTrace:
        """The trace with a prompt to show: its own where it has one."""
        if trace.prompt or not prompt:
            if prompt and " ".join(prompt.split()) != " ".join(trace.prompt.split()):
                _log.warning("this trace was made of %r, not of %r", trace.prompt, prompt)
            return trace
        titled = self._made(trace).titled
        if prompt not in titled:
            first = trace.prompts[0] if trace.prompts else Prompt(named=False)
            prompts = (dataclasses.replace(first, text=prompt), *trace.prompts[1:])
            titled[prompt] = dataclasses.replace(trace, prompts=prompts)
        return titled[prompt]

    def _made(self, trace: AttentionTrace) -> _Made:
        """What was made of a trace so far; of the last few traces only."""
        if id(trace) not in self._runs:
            _make_room(self._runs)
            self._runs[id(trace)] = _Made(trace)
        return self._runs[id(trace)]

    def _summary(self, trace: AttentionTrace, drawing: Sketch | None) -> RunSummary:
        from scribblediffusion.analysis.summary import summarise

        summaries, key = self._made(trace).summaries, _mark(drawing)
        if key not in summaries:
            summaries[key] = summarise(trace, None if drawing is None else drawing.ink)
        return summaries[key]

    def _subject(self, trace: AttentionTrace, what: What | None, occurrence: int) -> Subject:
        from scribblediffusion.analysis.subjects import find_subject

        if what is not None:
            return find_subject(trace, what, occurrence)
        summary = self._summary(trace, None)
        if summary.leading_word is not None:
            return summary.leading_word
        for share in summary.balance.regions[:1]:
            return share.subject
        raise NoHeatMapError(
            "no word and no region of this trace has a map to show: name a key that it recorded "
            f"({len(trace.keys)} tokens), or capture with the text encoder inside the context"
        )

    def _map(
        self,
        trace: AttentionTrace,
        what: Subject,
        step: int | None,
        view: Literal["heat_map", "attention"],
    ) -> Array:
        """The map of a subject, read from the trace once: drawing it takes less time."""
        from scribblediffusion.view.evolution import subject_map

        maps, key = self._made(trace).maps, (what.keys, step, view)
        if key not in maps:
            _make_room(maps, 64)
            maps[key] = subject_map(trace, what, step, view)
        return maps[key]

    def _draw_analysis(
        self, trace: AttentionTrace, drawing: Sketch | None, style: FigureStyle, path: Path
    ) -> Path:
        from scribblediffusion.gallery.content import label_png
        from scribblediffusion.view.figure import analysis_figure, save_figure
        from scribblediffusion.view.files import whole
        from scribblediffusion.view.report import save_report

        summary = self._summary(trace, drawing)
        if path.suffix == ".html":
            return save_report(summary, path, style)
        figure = analysis_figure(summary, style)
        if path.suffix != ".png":
            return save_figure(figure, path)[0]
        with whole(path) as made:
            save_figure(figure, made)
            label_png(made, trace.prompt, trace.settings.get("seed"))
        return path

    def _evolution_style(self) -> EvolutionStyle:
        from scribblediffusion.view.evolution import EvolutionStyle

        return EvolutionStyle(ground=self.ground)

    def _web_view(self, trace: AttentionTrace, drawing: Sketch | None, key: Any) -> WebView:
        """The view of a run that is in the gallery already, or that is put there now."""
        gif = f"evolution-{_name(self._subject(trace, None, 0))}.gif"
        run = self._kept_run(key)
        if run is None:
            staged = self.create_prompt_folder(trace.prompt)
            self._draw_views(trace, drawing, staged / "views")
            run = self.gallery.add(trace, sketch=drawing, folder=staged)
            _make_room(self._kept, 1000)
            self._kept[key] = run.id
        views = run.folder / "views"
        missing = [name for name in (gif, "analysis.png") if not (views / name).is_file()]
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                self._draw_views(trace, drawing, Path(folder))
                for name in missing:
                    self.gallery.attach(run.id, Path(folder) / name)
        return WebView(self.heat_map(trace), views / gif, views / "analysis.png", _about(run))

    def _draw_views(self, trace: AttentionTrace, drawing: Sketch | None, folder: Path) -> None:
        self.create_evolution_gif(trace, "", drawing, folder)
        self.create_comprehensive_analysis(trace, "", drawing, folder)

    def _recognise(
        self, data: AttentionData, trace: AttentionTrace, drawing: Sketch | None, key: Any
    ) -> None:
        """A run of this gallery, with its own drawing, is kept already."""
        if isinstance(data, AttentionTrace) or not _same_drawing(trace, drawing):
            return
        from scribblediffusion.gallery import Run

        folder = _file(data).parent.resolve()
        if folder.parent.parent == self.gallery.root.resolve():
            with contextlib.suppress(GalleryError, FileNotFoundError):
                self._kept.setdefault(key, Run.read(folder).id)

    def _kept_run(self, key: Any) -> Run | None:
        """The run that was kept of this trace and drawing, if it is still in the gallery."""
        if key not in self._kept:
            return None
        try:
            return self.gallery.get(self._kept[key])
        except GalleryError:  # deleted since
            return None


@dataclasses.dataclass(eq=False)
class _Made:
    """What was made of one trace, so that it is made once."""

    trace: AttentionTrace
    summaries: dict[str, RunSummary] = dataclasses.field(default_factory=dict)
    titled: dict[str, AttentionTrace] = dataclasses.field(default_factory=dict)
    views: dict[str, WebView] = dataclasses.field(default_factory=dict)
    maps: dict[Any, Array] = dataclasses.field(default_factory=dict)


def _make_room(kept: dict[Any, Any], most: int = 4) -> None:
    """Forgets the oldest entries, so that one more fits."""
    while len(kept) >= most:
        kept.pop(next(iter(kept)))


def _draw_evolution(
    trace: AttentionTrace, what: Subject, style: EvolutionStyle, drawing: Sketch | None, path: Path
) -> Path:
    from scribblediffusion.view.evolution import Evolution

    sketch = None if drawing is None else drawing.to_image()
    return Evolution.of(trace, what, style=style, sketch=sketch).save(path)


def _folder(path: PathLike) -> Path:
    """Where to put files: a folder, or what can become one."""
    folder = Path(path)
    for place in (folder, *folder.parents):
        if place.is_dir():
            break
        if place.exists():
            raise SettingError(f"folder_path {str(folder)!r}: {place} is a file; give a folder")
    return folder


def _drawing(source: Source | None) -> Sketch | None:
    return None if source is None else Sketch.from_image(source)


def _mark(drawing: Sketch | None) -> str:
    """Tells drawings apart by their ink."""
    return "" if drawing is None else hashlib.sha256(drawing.ink.tobytes()).hexdigest()


def _name(subject: Subject) -> str:
    """A file name of a word or region that no other of the same trace has: the keys tell it."""
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in subject.name.casefold())
    plain = "-".join(part for part in letters.split("-") if part)[:40]
    keys = "-".join(map(str, subject.keys[:4]))
    if len(subject.keys) > 4:
        keys += "-" + hashlib.sha256(repr(subject.keys).encode()).hexdigest()[:10]
    return f"{plain or subject.kind}-{keys}"


def _token(number: Any) -> int:
    """A token's number, 0 to 153."""
    last = FIRST_SKETCH_TOKEN + len(REGIONS) - 1
    try:
        found = -1 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        found = -1
    if not 0 <= found <= last:
        raise SettingError(
            f"token {number!r}: give a whole number from 0 to {last}; those before "
            f"{FIRST_SKETCH_TOKEN} are text tokens, the others sketch tokens"
        )
    return found


def _lines(trace: AttentionTrace, sketch: bool | Source) -> Array | Image.Image | None:
    """The drawing to draw over a map."""
    if isinstance(sketch, bool):
        if sketch and trace.sketch is None:
            raise SketchError(
                "sketch=True, but this trace holds no sketch: give the drawing, sketch=…"
            )
        return trace.sketch if sketch else None
    return Sketch.from_image(sketch).to_image()


def _same_drawing(trace: AttentionTrace, drawing: Sketch | None) -> bool:
    if drawing is None or trace.sketch is None:
        return drawing is None
    return np.array_equal(np.asarray(drawing.to_image().convert("L")), trace.sketch)


def _source(data: AttentionData) -> Any:
    """Tells traces apart, and files of traces with their states; keeps no trace alive."""
    if isinstance(data, AttentionTrace):
        return weakref.ref(data)
    path = _file(data)
    state = path.stat()
    return str(path.absolute()), state.st_mtime_ns, state.st_size


def _file(data: AttentionData) -> Path:
    """A trace's file: itself, or the one in a run's folder."""
    from scribblediffusion.gallery.run import TRACE, Run

    path = data.folder if isinstance(data, Run) else data
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise SettingError(
            f"attention_data {path!r:.60} is {type(path).__name__}: give an AttentionTrace, the "
            "path of a saved one, or a run of the gallery; arrays become a trace with "
            "AttentionTrace.from_arrays({layer: [steps, batch, heads, tokens, H, W]}, tokens=[…])"
        )
    try:
        path = Path(path) / TRACE if Path(path).is_dir() else Path(path)
        path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # too long, or with a character that no path has
        raise SettingError(f"attention_data {str(path)!r:.60} cannot be a path: {error}") from error
    return path


def _about(run: Run) -> dict[str, Any]:
    """What the web app is told of a run."""
    return {
        "id": run.id,
        "name": run.name,
        "folder": str(run.folder),
        "prompt": run.prompt,
        "created": run.created.isoformat(),
        "seed": run.seed,
    }
