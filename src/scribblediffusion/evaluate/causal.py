"""What causes what: the same run with one thing changed.

Seed and noise stay; a word is removed or replaced, its tokens are knocked out of the attention, or
a stroke is erased. Every changed run lies in one batch with the unchanged one, so that their bits
can be compared. `SwappedWords` changes the prompt at some steps only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scribblediffusion.analysis.change import (
    Explained,
    explain_change,
    latent_change,
    noticeable,
    picture_change,
)
from scribblediffusion.analysis.subjects import words_of
from scribblediffusion.attention.attaching import Attaching
from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.intervention import KnockOut
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate.edits import Edit
from scribblediffusion.evaluate.truth import whole
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.sketch import Sketch

Array = np.ndarray[Any, np.dtype[Any]]

#: Pictures in one call, the unchanged one included: the edits of a scene (`maps.edits_of`) fit into
#: two calls. The attention of all of them is held at once, half a gigabyte for 20 steps.
ROWS, MEMORY = 10, 2 << 30


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one edit did.

    Attributes:
        edit: what was changed.
        picture: uint8 `[256, 256, 3]`, the changed run's.
        change: ΔE*ab of the two pictures, `[256, 256]`.
        explained: the word's map against the change of the picture.
        in_latents: the same against the change of the latents, `[32, 32]`.
        heat: the word's attention in the unchanged run, `[H, W]`: mean of steps, layers, heads.
    """

    edit: Edit
    picture: Array
    change: Array
    explained: Explained
    in_latents: Explained
    heat: Array

    @property
    def attention(self) -> float:
        """The word's share of all attention in the unchanged run."""
        return float(self.heat.mean())


@dataclass(frozen=True, eq=False)
class Experiment:
    """One run and its edits.

    Attributes:
        trace: of the unchanged run.
        picture: uint8 `[256, 256, 3]`, the unchanged run's.
        outcomes: one for each edit, in order.
    """

    trace: AttentionTrace
    picture: Array
    outcomes: tuple[Outcome, ...]


def experiment(
    pipe: ScribblePipeline,
    prompt: str,
    sketch: Sketch | None,
    edits: Sequence[Edit],
    seed: int,
    *,
    layers: str | Sequence[str] = "*",
    when: slice | None = None,
    **settings: Any,
) -> Experiment:
    """Runs the unchanged prompt and sketch and every edit of them from the same noise.

    Args:
        pipe: the model.
        prompt: the prompt.
        sketch: the sketch, or None.
        edits: the edits; the keys of their maps are those of the prompt.
        seed: of the noise.
        layers: where tokens are knocked out: a glob or globs over the paths of layers.
        when: at which steps they are; None for all.
        **settings: as `ScribblePipeline.denoise` takes them.

    Raises:
        SettingError: there is nothing to change.
    """
    if not edits:
        raise SettingError("no edits: name a word to remove, or ink to erase")
    found: list[Outcome] = []
    trace: AttentionTrace | None = None
    base: Array | None = None
    for start in range(0, len(edits), ROWS - 1):
        part = edits[start : start + ROWS - 1]
        prompts = [prompt, *(edit.prompt for edit in part)]
        sketches = [sketch, *(edit.sketch for edit in part)]
        knocked = [(), *(edit.knocked for edit in part)]
        with ExitStack() as stack:
            extractor = None
            if trace is None:
                extractor = stack.enter_context(
                    RealAttentionExtractor(pipe, previews=False, memory_limit=MEMORY)
                )
            if any(knocked):
                stack.enter_context(KnockOut(pipe, each=knocked, layers=layers, steps=when))
            latents = final_latents(pipe, prompts, sketches, seed, **settings)
        if extractor is not None:
            trace = whole(extractor.trace)
        pictures, flat = pipe.decode(latents), latents.float().cpu().numpy()
        base = pictures[0]
        for i, edit in enumerate(part, 1):
            changes = picture_change(pictures[0], pictures[i]), latent_change(flat[0], flat[i])
            found.append(_outcome(trace, edit, pictures[i], *changes))
    if trace is None or base is None:
        raise SettingError("nothing was run")
    return Experiment(trace, base, tuple(found))


def final_latents(
    pipe: ScribblePipeline,
    prompts: Sequence[str],
    sketches: Sequence[Sketch | None],
    seed: int,
    **settings: Any,
) -> Tensor:
    """The last latents `[B, 4, 32, 32]`; every picture starts from the same noise."""
    generators = [torch.Generator("cpu").manual_seed(seed) for _ in prompts]
    steps = pipe.denoise(list(prompts), list(sketches), generator=generators, **settings)
    *_, last = (step.latents for step in steps)
    return last


def _outcome(
    trace: AttentionTrace | None, edit: Edit, picture: Array, change: Array, latent: Array
) -> Outcome:
    if trace is None:
        raise SettingError("no trace")
    raw = raw_map(trace, edit.keys)
    controls = edit.controls
    if controls is None:
        controls = [w.keys for w in words_of(trace) if not set(w.keys) & set(edit.keys)]
    # A region that a sketch mask leaves out has no weight, and no highest places.
    others = [heat for keys in controls if (heat := raw_map(trace, keys)).any()]
    seen, deep = (
        explain_change(raw, one, others, name=edit.subject, edit=edit.how, is_seen=one is change)
        for one in (change, latent)
    )
    return Outcome(edit, picture, change, seen, deep, raw)


def raw_map(trace: AttentionTrace, keys: Sequence[int]) -> Array:
    """The attention of some keys together, `[H, W]`: mean of steps, layers and heads."""
    maps = [trace.token(key, view="attention").astype(np.float64) for key in keys]
    return np.sum(maps, axis=0)


class SwappedWords(Attaching):
    """Other prompts at some steps of one run, told by a table; undone on the way out.

    A pre-hook on the denoiser exchanges the condition of the rows that the table says.

    Args:
        pipe: the model.
        prompts: the prompts, one for each picture, that take over.
        sketches: the run's sketches.
        when: `[steps, pictures]` bool, True where the other prompt is heard.

    Raises:
        CaptureError: it is open already.
        SettingError: while running: the run has more steps than the table.
    """

    _open = "these swapped words are open already; leave their context first"

    def __init__(
        self,
        pipe: ScribblePipeline,
        prompts: Sequence[str],
        sketches: Sequence[Sketch | None],
        when: Array,
    ) -> None:
        self._pipe = pipe
        self._condition = pipe.condition(list(prompts), list(sketches))
        self._when = torch.from_numpy(np.asarray(when, bool))
        self._other: tuple[Tensor, Tensor] | None = None
        self._step = 0

    def _attach(self, stack: ExitStack) -> None:
        self._step = 0
        hook = self._pipe.unet.register_forward_pre_hook(self._swap, with_kwargs=True)
        stack.callback(hook.remove)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _swap(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        if self._step >= len(self._when):
            raise SettingError(
                f"words swapped by a table of {len(self._when)} steps: the run has more; open a "
                "context for each run"
            )
        branches = list(self._pipe.key_layout().branches)
        if self._other is None:
            self._other = self._pipe.context(self._condition, branches)
        vectors, mask = self._other
        sample, timestep, own, *rest = args
        here = self._when[self._step].repeat(len(branches)).to(own.device)
        self._step += 1
        own_mask = kwargs["encoder_attention_mask"]
        kwargs = kwargs | {
            "encoder_attention_mask": torch.where(here[:, None], mask.to(own_mask), own_mask)
        }
        return (sample, timestep, torch.where(here[:, None, None], vectors, own), *rest), kwargs


@dataclass(frozen=True)
class Moment:
    """A word removed for a part of the run.

    Attributes:
        step: the step at which it is removed, or comes back.
        after: True where it is removed from this step on; False until this step.
        effect: mean ΔE*ab over the picture.
        seen: share of the pixels that changed noticeably.
    """

    step: int
    after: bool
    effect: float
    seen: float


def over_time(
    pipe: ScribblePipeline,
    prompt: str,
    edit: Edit,
    at: Sequence[int],
    seed: int,
    *,
    num_inference_steps: int = 20,
    **settings: Any,
) -> list[Moment]:
    """Removes a word from each step on, and until each step; the sketch stays.

    Args:
        pipe: the model.
        prompt: the prompt.
        edit: the removal.
        at: steps; from step 0 on is the whole run.
        seed: of the noise.
        num_inference_steps: steps of the run.
        **settings: as `ScribblePipeline.denoise` takes them.
    """
    steps = np.arange(num_inference_steps)
    cases = [(k, True) for k in at] + [(k, False) for k in at if k]
    found = []
    for start in range(0, len(cases), ROWS - 1):
        part = cases[start : start + ROWS - 1]
        when = np.stack(
            [np.zeros(len(steps), bool), *((steps >= k) == after for k, after in part)], 1
        )
        rows = len(part) + 1
        with SwappedWords(pipe, [edit.prompt] * rows, [edit.sketch] * rows, when):
            latents = final_latents(
                pipe,
                [prompt] * rows,
                [edit.sketch] * rows,
                seed,
                num_inference_steps=num_inference_steps,
                **settings,
            )
        pictures = pipe.decode(latents)
        for (k, after), picture in zip(part, pictures[1:], strict=True):
            change = picture_change(pictures[0], picture)
            found.append(Moment(k, after, float(change.mean()), noticeable(change)))
    return found
