"""Other packages' maps of our scenes, by our measures: whose word points at its object?

    python benchmarks/rivals.py rival_maps.py [--scenes 20] [--docs]

First it is tried whether they run on the shipped pipeline as it is, and what they say. Then one
and the same run of each held-out scene is captured by each that can: the shipped model with
diffusers' own attention processors, which attention-map-diffusers asks for, and with two branches
(sketch dial 1), which is what DAAM's halving of the batch takes for granted. Scenes, words, masks
and controls are those of `scribble evaluate maps`, and every map is brought to its 32×32 places
before it is measured, so that the measures and chance are the same for all.

DAAM cannot run on a model with a mask and 154 keys. What is measured under its name is its
arithmetic on our captured weights: layers of the down and up blocks finer than 8×8, each head
summed over the steps, enlarged to 64×64 by bicubic interpolation, cut at 0, and averaged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from measuring import INK, machine, options, panels, show, versions, write
from torch.nn import functional as F

from scribblediffusion import AttentionTrace, RealAttentionExtractor, ScribblePipeline, Sketch
from scribblediffusion.analysis.localisation import Localisation, Measures, localise_map
from scribblediffusion.attention.records import Word
from scribblediffusion.attention.trace import resize
from scribblediffusion.errors import ScribbleError
from scribblediffusion.evaluate import truth
from scribblediffusion.evaluate.findings import INTERVALS, NAMES, WORDS
from scribblediffusion.evaluate.intervals import Interval
from scribblediffusion.evaluate.maps import PLACES
from scribblediffusion.evaluate.records import weights_digest
from scribblediffusion.settings import seeded
from scribblediffusion.train.scenes import Scene

SETTINGS: dict[str, Any] = {"sketch_guidance_scale": 1.0, "output_type": "latent"}
FIELDS = truth.MEASURES
PACKAGES = ("attention-map-diffusers", "daam")
#: What is told of a map → its name in `Localisation`.
ASPECTS = {
    "its own object": "measured",
    "other tokens' maps there": "control",
    "on another object": "elsewhere",
    "chance": "chance",
    "chance on another object": "elsewhere_chance",
}
OURS, LAST, ALL, DAAM = (
    "ours",
    "amd, last step (its default)",
    "amd, all steps",
    "DAAM's arithmetic",
)
#: A word's keys → its map `[H, W]`.
Reader = Callable[[tuple[int, ...]], np.ndarray]
#: A word's kind and the measures of its map.
Found = tuple[str, Localisation]
#: Kind of word → aspect → measure → mean and interval.
Results = dict[str, dict[str, dict[str, Interval]]]


@dataclass(frozen=True)
class Attempt:
    """A package tried on the shipped pipeline: how, and what came of it."""

    package: str
    how: str
    result: str


def attempts(pipe: ScribblePipeline, one: Scene) -> Iterator[Attempt]:
    """Each package on the pipeline as it is; DAAM also with what it asks for put there by hand."""
    for package, enter in (("attention-map-diffusers", _amd), ("DAAM", _daam)):
        yield Attempt(package, "the shipped pipeline as it is", _tried(pipe, one, enter, pipe))
    with stock(pipe):
        how = "with diffusers' own attention processors"
        default = _tried(pipe, one, lambda target: _amd(target, "last"), pipe)
        yield Attempt("attention-map-diffusers", f"{how}, only the last step to be kept", default)
    like = SimpleNamespace(
        unet=pipe.unet,
        tokenizer=pipe.tokenizer,
        vae_scale_factor=16,  # 16 × 32: DAAM knows pictures of 512, 768 and 1024 pixels
        check_inputs=lambda prompt: None,
    )
    how = "with `vae_scale_factor` and `check_inputs` added by hand"
    yield Attempt("DAAM", how, _tried(pipe, one, _daam, like))
    how += ", its constant of 77 keys set to 154"
    yield Attempt("DAAM", how, _tried(pipe, one, lambda target: _daam(target, keys=154), like))


def _amd(target: Any, timesteps: str = "all") -> Any:
    from attention_map_diffusers import AttentionCapture  # pyright: ignore[reportMissingImports]

    return AttentionCapture(target, timesteps=timesteps)


def _daam(target: Any, keys: int = 77) -> Any:
    from daam import trace  # pyright: ignore[reportMissingImports]

    hooker = trace(target)
    for hook in hooker.module:
        hook.context_size = keys
    return hooker


def _tried(pipe: ScribblePipeline, one: Scene, enter: Callable[[Any], Any], target: Any) -> str:
    """What happens; whatever it is that another package raises is the result."""
    try:
        with enter(target) as capture:
            run(pipe, one, 2)
            if hasattr(capture, "compute"):
                records = capture.compute().records
                steps = len({record.timestep for record in records})
                return f"runs, {len(records)} records, {steps} of 2 steps told apart"
            capture.compute_global_heat_map(one.caption)
            return "runs"
    except ImportError as error:
        return f"not installed here: {error}"
    except ScribbleError:
        raise
    except Exception as error:  # noqa: BLE001 (the error is what we ask for)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def run(pipe: ScribblePipeline, one: Scene, steps: int) -> torch.Tensor:
    """The final latents of a scene."""
    sketch = Sketch.from_image(255 - one.sketch)
    output = pipe(
        one.caption, sketch, generator=seeded(truth.SEED), num_inference_steps=steps, **SETTINGS
    )
    return output.images  # type: ignore[union-attr]


@contextmanager
def stock(pipe: ScribblePipeline) -> Iterator[None]:
    """Processors of diffusers' own in place of the shipped model's."""
    before = pipe.unet.attn_processors
    pipe.unet.set_attn_processor(AttnProcessor2_0())
    try:
        yield
    finally:
        pipe.unet.set_attn_processor(before)


def captured(pipe: ScribblePipeline, one: Scene, steps: int) -> dict[str, Any]:
    """One scene under each capture: ours (with all heads) and, where it is there, the other's."""
    expected = run(pipe, one, steps)
    with RealAttentionExtractor(pipe, heads="all", previews=False) as extractor:
        same = torch.equal(run(pipe, one, steps), expected)
    found: dict[str, Any] = {OURS: extractor.trace, "same": same}
    try:
        capture = _amd(pipe)
    except ImportError:
        return found
    with capture:
        found["same"] &= torch.equal(run(pipe, one, steps), expected)
    return found | {ALL: capture.compute()}


def readers(found: dict[str, Any]) -> dict[str, Reader]:
    """Name → how the map of a word is read."""
    trace: AttentionTrace = found[OURS]
    result: dict[str, Reader] = {OURS: lambda keys: trace.word(Word("", keys))}
    if ALL in found:
        records = found[ALL].records
        # It reads the timestep of a class called UNet2DConditionModel alone, and ours is a subclass
        # of that: its records have None. They are in the order run.
        final = records[-len({record.layer_id for record in records}) :]
        result[LAST] = lambda keys: amd_map(final, keys)
        result[ALL] = lambda keys: amd_map(records, keys)
    result[DAAM] = lambda keys: daam_map(trace, keys)
    return result


def amd_map(records: list[Any], keys: tuple[int, ...]) -> np.ndarray:
    """Mean of its records' maps of some keys, on the finest grid, in the row with the prompt."""
    side = max(round(record.data.shape[2] ** 0.5) for record in records)
    maps = []
    for record in records:
        heat = record.data[-1, 0][:, list(keys)].sum(1).float()
        grid = heat.view(1, 1, round(len(heat) ** 0.5), -1)
        maps.append(F.interpolate(grid, (side, side), mode="nearest")[0, 0])
    return torch.stack(maps).mean(0).numpy()


def daam_map(trace: AttentionTrace, keys: tuple[int, ...]) -> np.ndarray:
    """As in DAAM 0.2.0's `compute_global_heat_map` and `compute_word_heat_map`."""
    columns = [trace.keys.index(key) for key in keys]
    maps = []
    for layer in trace.layers:
        if layer.name.endswith("attn1") or "mid_block" in layer.name or layer.height <= 8:
            continue
        steps = [trace.weights(layer=layer.name, step=step.index)[0] for step in trace.steps]
        summed = np.sum([step[:, columns] for step in steps], 0)  # [heads, keys, places]
        grid = torch.from_numpy(summed).float().unflatten(-1, (layer.height, layer.width))
        maps.append(F.interpolate(grid, (64, 64), mode="bicubic").clamp(min=0))
    return torch.cat(maps).mean((0, 1)).numpy()


def localised(one: Scene, found: dict[str, Any], number: int) -> dict[str, list[Found]]:
    """Each way's measures of the scene's nouns and colour words, all on the same places."""
    words = [
        subject
        for subject in truth.subjects(one, found[OURS], 0, PLACES[0], number)
        if subject.kind in WORDS
    ]
    return {
        name: [(word.kind, measured(word, read)) for word in words]
        for name, read in readers(found).items()
    }


def measured(word: truth.Subject, read: Reader) -> Localisation:
    """One word's map, and its controls, as one way reads them."""
    heat, *others = (resize(read(keys), *PLACES) for keys in (word.keys, *word.others))
    return localise_map(heat, word.place, others, elsewhere=word.elsewhere, name=word.name)


def results(scenes: list[list[Found]]) -> Results:
    """One way's measures of all the scenes: kind → aspect → measure → mean and interval."""
    return {
        kind: {
            aspect: made
            for aspect, name in ASPECTS.items()
            if (
                made := summed(
                    [
                        [m for k, one in scene if k == kind and (m := getattr(one, name))]
                        for scene in scenes
                    ]
                )
            )
        }
        for kind in WORDS
    }


def summed(scenes: list[list[Measures]]) -> dict[str, Interval]:
    """Means with 95 % intervals over scenes."""
    counts = np.array([len(one) for one in scenes])
    found = {}
    for name, interval in zip(FIELDS, INTERVALS, strict=True):
        sums = np.array([sum(getattr(measures, name) for measures in one) for one in scenes])
        if (made := interval(sums, counts)) is not None:
            found[name] = made
    return found


def main() -> None:
    """Try, measure, print, write."""
    chosen = options(__doc__, scenes=(10, "scenes"), steps=(20, "denoising steps"))
    pipe = ScribblePipeline.from_pretrained(device="cpu")
    pipe.set_progress_bar_config(disable=True)
    scenes = truth.scenes_of_several(chosen.scenes)
    tried = list(attempts(pipe, scenes[0]))
    rows = [(a.package, a.how, a.result) for a in tried]
    show("On the shipped pipeline", ("package", "how", "what came of it"), rows)
    by_way: dict[str, list[list[Found]]] = {}
    same = True
    with stock(pipe):
        for number, one in enumerate(scenes):
            found = captured(pipe, one, chosen.steps)
            same &= found["same"]
            for name, words in localised(one, found, number).items():
                by_way.setdefault(name, []).append(words)
    ways = {name: results(of_scenes) for name, of_scenes in by_way.items()}
    for kind in WORDS:
        rows = [
            (f"{name}: {aspect}", *(found[field].number() for field in FIELDS))
            for name, kinds in ways.items()
            for aspect, found in kinds[kind].items()
        ]
        title = f"{NAMES[kind]} of {len(scenes)} scenes; amd: attention-map-diffusers"
        note = "mean and 95 % interval over scenes"
        show(title, ("", "pointing", "IoU", "AUC"), rows, note)
    record = {
        "machine": machine(torch.get_num_threads()),
        "of": {
            "weights": weights_digest(None),
            "scenes": len(scenes),
            "split": truth.SPLIT,
            "steps": chosen.steps,
            "seed": truth.SEED,
            "settings": SETTINGS,
            "packages": versions(PACKAGES),
        },
        "attempts": tried,
        "latents the same under each capture": same,
        "ways": ways,
    }
    write("rival-maps", record, draw(ways), docs=chosen.docs)


def draw(ways: dict[str, Results]) -> Any:
    """A panel for each measure: nouns and colour words of each way, controls, chance."""
    figure, axes = panels(len(FIELDS), height=4.2, width=4.0)
    rows = [(name, kind) for name in ways for kind in WORDS if ways[name][kind]]
    shown = list(ASPECTS)[:4]
    for axis, field in zip(axes, FIELDS, strict=True):
        for at, aspect in enumerate(shown):
            there = [
                (i, ways[name][kind][aspect][field])
                for i, (name, kind) in enumerate(rows)
                if aspect in ways[name][kind]
            ]
            values = [f.value for _, f in there]
            error = ([f.value - f.low for _, f in there], [f.high - f.value for _, f in there])
            axis.errorbar(
                values,
                [i + 0.16 * (at - 1.5) for i, _ in there],
                xerr=error,
                fmt="os^|"[at],
                color=INK[at],
                label=aspect,
            )
        labels = [f"{name}, {NAMES[kind]}" for name, kind in rows]
        axis.set_yticks(range(len(rows)), labels if field == FIELDS[0] else [])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.set_xlabel(field)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    sys.exit(main())
