"""The studio behind the page: gallery, visitors, the worker with the model, and what is drawn.

Nothing here knows Gradio: the page and the API call these few methods.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scribblediffusion.errors import GalleryError, InputError
from scribblediffusion.gallery import Gallery, Run
from scribblediffusion.settings import GUIDANCE, SKETCH_GUIDANCE
from scribblediffusion.sketch import Region, Sketch
from scribblediffusion.visualizer import AttentionVisualizer
from scribblediffusion.web import payload
from scribblediffusion.web.limits import Limits, Order, checked
from scribblediffusion.web.painter import Painted, Painter
from scribblediffusion.web.visitors import Visitors
from scribblediffusion.web.worker import Job, Worker

if TYPE_CHECKING:
    from scribblediffusion.attention.trace import AttentionTrace

#: The name under which the shipped model is offered.
SHIPPED = "shipped model"
GIF, ANALYSIS = "evolution.gif", "analysis.png"
#: Folders in which views are drawn: named so that `server.left_behind` finds those of the killed.
VIEWS = "scribble-app-views-"
_OURS = "ScribblePipeline"
_TRACES = 4


@dataclass(frozen=True)
class Starter:
    """A drawing to begin with, and a prompt that suits it."""

    file: Path
    prompt: str


def starters() -> tuple[Starter, ...]:
    """The sketches that come with the package (`examples/sketches` in the repository)."""
    here = Path(__file__).parent
    places = (here / "sketches", here.parents[2] / "examples" / "sketches")
    folder = next((place for place in places if (place / "prompts.json").is_file()), None)
    if folder is None:
        return ()
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    return tuple(Starter(folder / name, prompt) for name, prompt in prompts.items())


class Studio:
    """One gallery, one worker, many visitors.

    Args:
        root: the gallery's folder; None for its default place.
        models: name → folder or hub id (None: the shipped model), the first one is chosen.
        limits: what may be asked for.
        local: whether the server answers this machine alone.
        load: makes a pipeline of a folder or hub id.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        models: Mapping[str, str | None] | None = None,
        limits: Limits | None = None,
        local: bool = True,
        load: Any = None,
    ) -> None:
        self.limits = limits or Limits()
        self.models = _labelled(models or {SHIPPED: None})
        self.gallery = Gallery(root)
        self.visitors = Visitors(self.gallery, local=local)
        painter = Painter(self.models, self.gallery, load, memory=self.limits.attention)
        self.worker = Worker(
            painter, most=self.limits.waiting, mine=self.limits.mine, prepare=painter.prepare
        )
        self.packing = ThreadPoolExecutor(2, "scribble-pack")
        self.drawing = ThreadPoolExecutor(1, "scribble-draw")
        self._visualizer = AttentionVisualizer(self.gallery.root, ground="light")
        self._traces: OrderedDict[str, AttentionTrace] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop the worker and what draws."""
        self.worker.close()
        self.packing.shutdown(wait=False, cancel_futures=True)
        self.drawing.shutdown(wait=False, cancel_futures=True)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────

    def submit(self, visitor: str, order: Order, among: str = "") -> Job:
        """Queue a run of a visitor, counted among what he, or `among`, has under way.

        Raises:
            InputError: the order is out of the limits.
            Busy: there is no room.
        """
        if not isinstance(order.model, str):
            raise InputError("the model must be named by its name, as text")
        if order.model not in self.models:
            order = dataclasses.replace(order, model=self._known(order.model))
        return self.worker.submit(visitor, checked(order, self.limits), among)

    def _known(self, model: str) -> str:
        if model:
            offered = ", ".join(self.models)
            raise InputError(f"the model {model[:60]!r} is not offered here; there is: {offered}")
        return next(iter(self.models))

    def without(self, visitor: str, run_id: str, what: Mapping[str, Any]) -> Order:
        """The order of a run once more, at the same seed, without one word or one stroke.

        Args:
            visitor: who asks.
            run_id: the run.
            what: ``{"word": i}``, a position in the trace's words, or
                ``{"region": [level, row, column]}``.

        Raises:
            GalleryError: no such run.
            InputError: it has no seed, or there is no such word or stroke.
        """
        run = self.visitors.seen(visitor, run_id)
        order = self.order_of(run)
        if "word" in what:
            prompt, word = _without_word(self.trace(run), what["word"])
            note = {"without": f"the word “{word}”", "from": run.id}
            return dataclasses.replace(order, prompt=prompt, note=note)
        sketch, place = _without_region(order.sketch, what.get("region"))
        note = {"without": f"the stroke {place}", "from": run.id}
        return dataclasses.replace(order, sketch=sketch, note=note)

    def sketch_seen(self, visitor: str, run_id: Any) -> Sketch | None:
        """The sketch of a run that the visitor may see; None without one."""
        try:
            return self.visitors.seen(visitor, run_id).sketch()
        except GalleryError:
            return None

    def order_of(self, run: Run) -> Order:
        """What it takes to make a run again.

        Raises:
            InputError: it was made without a seed, or with a model that is not offered.
        """
        settings, model = run.part("settings", dict), self.model_of(run)
        if run.seed is None:
            raise InputError("this run was made without a seed: it cannot be made again")
        if model is None:
            raise InputError("this run was made with a model that is not offered here")
        return Order(
            prompt=run.prompt,
            sketch=run.sketch(),
            steps=int(settings.get("num_inference_steps", 20)),
            guidance=float(settings.get("guidance_scale", GUIDANCE)),
            sketch_guidance=float(settings.get("sketch_guidance_scale", SKETCH_GUIDANCE)),
            seed=run.seed,
            model=model,
            each_head=bool(settings.get("each_head", False)),
            stop_after=run.stopped_after,
        )

    def model_of(self, run: Run) -> str | None:
        """The offered model that made a run; None where that is not offered, or none of ours."""
        settings = run.part("settings", dict)
        told = run.part("versions", dict).get("model")
        maker, _, folder = str(told or (_OURS if "model" in settings else "")).partition(" ")
        if (settings.get("pipeline") or maker) != _OURS:
            return None
        source = settings["model"] if "model" in settings else _source(folder)
        return next((name for name, there in self.models.items() if there == source), None)

    # ── what is shown ────────────────────────────────────────────────────────────────────────

    def keep(self, painted: Painted) -> None:
        """Remember a fresh trace, so that it need not be read again."""
        self._remember(painted.run.id, painted.trace)

    def trace(self, run: Run) -> AttentionTrace:
        """A run's attention, from memory if it was used lately.

        Raises:
            GalleryError: the run has none, or it is damaged.
        """
        with self._lock:
            found = self._traces.get(run.id)
            if found is not None:
                self._traces.move_to_end(run.id)
                return found
        trace = run.open()
        self._remember(run.id, trace)
        return trace

    def _remember(self, run_id: str, trace: AttentionTrace) -> None:
        with self._lock:
            self._traces[run_id] = trace
            self._traces.move_to_end(run_id)
            while len(self._traces) > 1 and self._too_many():
                self._traces.popitem(last=False)

    def _too_many(self) -> bool:
        held = sum(trace.nbytes for trace in self._traces.values())
        return len(self._traces) > _TRACES or held > self.limits.attention

    def packed(self, run: Run) -> dict[str, Any]:
        """The explorer's value of a run, and whether it can be made again."""
        redo = run.seed is not None and self.model_of(run) is not None
        return payload.pack(self.trace(run), run=run.id) | {"redo": redo}

    def maps(
        self, visitor: str, run_id: str, layer: str | None, head: int | None
    ) -> dict[str, Any]:
        """Maps of one layer and head of a run that the visitor may see.

        Raises:
            GalleryError: no such run.
            NotRecordedError: no such layer or head.
        """
        run = self.visitors.seen(visitor, run_id)
        return payload.pack_maps(self.trace(run), layer, head)

    def views(self, run: Run) -> tuple[Path, Path]:
        """Evolution (GIF) and analysis (PNG) of a run, drawn once and kept with it.

        Raises:
            ScribbleError: there is nothing to draw, or no room to keep it.
        """
        kept = [run.folder / "views" / name for name in (GIF, ANALYSIS)]
        if not all(path.is_file() for path in kept):
            trace, sketch = self.trace(run), run.sketch()
            with tempfile.TemporaryDirectory(prefix=VIEWS) as place:
                folder = Path(place)
                gif = self._visualizer.create_evolution_gif(trace, "", sketch, folder)
                png = self._visualizer.create_comprehensive_analysis(trace, "", sketch, folder)
                kept = [
                    self.gallery.attach(run.id, gif, GIF),
                    self.gallery.attach(run.id, png, ANALYSIS),
                ]
        return kept[0], kept[1]

    def entry(self, run: Run) -> dict[str, Any]:
        """What the gallery says of a run: plain values, no path of this machine."""
        settings = run.part("settings", dict)
        shown = ("num_inference_steps", "guidance_scale", "sketch_guidance_scale", "without")
        told = {name: settings.get(name) for name in shown}
        kept = {name: it for name, it in told.items() if isinstance(it, int | float | str)}
        return {
            "id": run.id,
            "prompt": run.prompt,
            "seed": run.seed,
            "created": run.created.isoformat(timespec="seconds"),
            "complete": bool(run.record.get("complete", True)),
            "steps_run": len(run.part("steps", list)),
            "noise_remaining_at_last_step": noise_left(run),
            "settings": kept,
            "audit": str(self.trace(run).audit or "not captured"),
            "permalink": f"/?run={run.id}",
            "zip": f"/runs/{run.id}/run.zip",
        }


def noise_left(run: Run) -> float | None:
    """The share of noise at a run's last step, 0…1; None where its record tells none."""
    steps = run.part("steps", list)
    told = steps[-1].get("noise_remaining") if steps and isinstance(steps[-1], dict) else None
    return told if isinstance(told, int | float) and 0 <= told <= 1 else None


def _labelled(models: Mapping[str, str | None]) -> dict[str, str | None]:
    """The models by names that say nothing of this machine: of a folder its own name alone."""
    found: dict[str, str | None] = {}
    for name, source in models.items():
        label = Path(source).name if source and Path(source).is_dir() else name
        while label in found:
            label += " (another)"
        found[label] = source
    return found


def _source(folder: str) -> str | None:
    """What a trace noted of its model; None for the weights that come with a package, anywhere."""
    from scribblediffusion.model.weights import shipped

    ours = shipped().parts[-3:]
    return None if not folder or Path(folder).parts[-3:] == ours else folder


def new_seed() -> int:
    """A seed that a person can type."""
    return secrets.randbelow(10**9)


def _without_word(trace: AttentionTrace, position: Any) -> tuple[str, str]:
    """The prompt without a word, and the word."""
    words = trace.words
    if isinstance(position, bool) or not isinstance(position, int) or position < 0:
        raise InputError("no word was named")
    if position >= len(words):
        raise InputError(f"the prompt has {len(words)} words, and not one of number {position}")
    word, prompt = words[position], trace.prompt
    if prompt[word.start : word.start + len(word.text)] != word.text:
        raise InputError(f"the word {word.text!r} is not found in the prompt as it stands")
    rest = prompt[: word.start] + prompt[word.start + len(word.text) :]
    return " ".join(rest.split()), word.text


def _without_region(sketch: Sketch | None, at: Any) -> tuple[Sketch | None, str]:
    """The sketch with a region's ink erased, and where that was."""
    from scribblediffusion.analysis.regions import place_in_words

    if sketch is None:
        raise InputError("this run had no sketch, so there is no stroke to leave out")
    numbers = isinstance(at, list | tuple) and len(at) == 3 and all(type(n) is int for n in at)
    if not numbers or at[0] not in (8, 3, 2) or not all(0 <= n < at[0] for n in at[1:]):
        raise InputError("no stroke was named")
    region = Region(*at)
    left, top, right, bottom = region.box()
    ink = sketch.ink.copy()
    if not (ink[top:bottom, left:right] > 0.25).any():
        raise InputError("there is no ink in that place: leaving it out would change nothing")
    ink[top:bottom, left:right] = 0
    erased = dataclasses.replace(sketch, ink=ink)
    return (None if erased.is_blank else erased), place_in_words(region)
