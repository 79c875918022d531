"""What is fixed at the first denoiser call of a run: layers, keys, pictures, and what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from scribblediffusion.attention.branches import Rows
from scribblediffusion.attention.budget import Plan, fit
from scribblediffusion.attention.families import Site, grids
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.records import Column
from scribblediffusion.attention.run import Frame
from scribblediffusion.errors import CaptureError, SettingError

#: Steps that are foreseen where no schedule tells how many there will be.
_USUAL_STEPS = 50


@dataclass(frozen=True)
class Wish:
    """What was asked to be kept.

    Attributes:
        every_head: Each head, or their mean.
        every_token: Each key, or those that are not padding.
        steps: `Step.index` of the wanted ones, negative from the end; a slice; None for all.
    """

    every_head: bool
    every_token: bool
    steps: frozenset[int] | slice | None

    @property
    def from_end(self) -> bool:
        """Whether some step is counted from the end, which takes a schedule."""
        steps = self.steps
        if isinstance(steps, slice):
            return any(n is not None and n < 0 for n in (steps.start, steps.stop))
        return steps is not None and min(steps) < 0

    def wants(self, index: int, total: int | None) -> bool:
        """Whether a step is to be recorded, of so many (None: not known)."""
        if self.steps is None:
            return True
        if isinstance(self.steps, slice):
            if total is None and self.from_end:
                return False
            return index in range(*self.steps.indices(index + 1 if total is None else total))
        return index in self.steps or (total is not None and index - total in self.steps)

    def among(self, total: int) -> list[int]:
        """The wanted steps of so many."""
        return [i for i in range(total) if self.wants(i, total)]


def wanted_steps(steps: Any) -> frozenset[int] | slice | None:
    """What people say of steps (a number, several, a slice, None for all), as `Wish` has it.

    Raises:
        SettingError: it is none of these.
    """
    if steps is None:
        return None
    if isinstance(steps, slice):
        try:
            steps.indices(0)
        except (TypeError, ValueError) as error:
            raise SettingError(f"steps={steps!r}: {error}") from error
        return steps
    numbers = list(steps) if isinstance(steps, Iterable) else [steps]
    whole = [n for n in numbers if isinstance(n, (int, np.integer)) and not isinstance(n, bool)]
    if len(whole) < len(numbers) or not whole:
        raise SettingError(
            f"steps={steps!r}: give None for all, a slice, or whole numbers from 0 "
            f"(negative from the end)"
        )
    return frozenset(int(n) for n in whole)


@dataclass(frozen=True)
class Picture:
    """What the first denoiser call of a run shows.

    Attributes:
        pipe: The pipeline, or None for a bare denoiser.
        layout: What the pipeline says of its keys, or None.
        sample: The noisy input.
        keys: Keys of the condition.
        arguments: The denoiser's arguments by name.
    """

    pipe: Any
    layout: KeyLayout | None
    sample: Tensor
    keys: int
    arguments: Mapping[str, Any]

    def streams(self) -> dict[str, range]:
        """The condition's streams; one called ``text`` if nobody says otherwise."""
        if self.layout is None:
            return {"text": range(self.keys)}
        streams = dict(self.layout.streams)
        if max((r.stop for r in streams.values()), default=0) != self.keys:
            raise CaptureError(
                f"the pipeline's key layout has the streams {streams}, "
                f"but its denoiser was given {self.keys} keys"
            )
        return streams

    def size(self, grid: Mapping[str, tuple[int, int]]) -> tuple[int, int] | None:
        """(height, width) of the pictures in pixels, if the pipeline tells its factor."""
        if self.layout is not None and self.layout.picture_size is not None:
            return self.layout.picture_size
        factor = getattr(self.pipe, "vae_scale_factor", None)
        if factor is None:
            return None
        if self.sample.ndim == 3:  # FLUX packs 2×2 latents into one place
            height, width = next(iter(grid.values()))
            return 2 * factor * height, 2 * factor * width
        height, width = self.sample.shape[-2:]
        return factor * height, factor * width


def lay_out(
    denoiser: nn.Module,
    sites: Sequence[Site],
    wish: Wish,
    picture: Picture,
    rows: Rows,
    planned: Sequence[int] | None,
    room: int,
) -> tuple[Frame, Plan]:
    """The frame of a run, and the plan whose forecast stays within `room` bytes.

    Args:
        denoiser: The denoiser.
        sites: Its layers that are observed.
        wish: What was asked for.
        picture: What the first call shows.
        rows: The wanted rows of its batch.
        planned: The step of each call from this one on; None if no schedule tells.
        room: Bytes that may be kept.
    """
    grid = grids(denoiser, sites, picture.sample, picture.arguments)
    streams = picture.streams()
    columns = _columns(streams, wish, rows, picture.keys)
    if any(site.join != "cross" for site in sites):
        places = max(h * w for h, w in grid.values())
        if picture.sample.ndim == 3:  # FLUX: reference pictures come after the picture's places
            places = picture.sample.shape[1]
        streams["image"] = range(picture.keys, picture.keys + places)
        columns = (*columns, Column("image"))
    calls = range(_USUAL_STEPS) if planned is None else planned
    wanted = [step for step in wish.among(calls[-1] + 1) if step >= calls[0]]
    heads = {site.name: site.heads for site in sites}
    recorded = sum(step in set(wanted) for step in calls)
    plan = Plan(wish.every_head, grid, heads, len(rows.numbers), len(columns), calls=recorded)
    frame = Frame(
        sites=tuple(sites),
        grids=grid,
        streams=streams,
        columns=columns,
        prompts=rows.prompts,
        regions={} if picture.layout is None else picture.layout.regions,
        picture_size=picture.size(grid),
        # Of the wanted steps the first and the middle one.
        samples=frozenset({wanted[0], wanted[len(wanted) // 2]} if wanted else ()),
    )
    return frame, fit(plan, room)


def _columns(streams: Mapping[str, range], wish: Wish, rows: Rows, keys: int) -> tuple[Column, ...]:
    """Kept keys first, then the rest of each stream that has left-out keys."""
    used = set(range(keys))
    if not wish.every_token and all(prompt.named for prompt in rows.prompts):
        padding = [{t.key for t in prompt.tokens if t.padding} for prompt in rows.prompts]
        used -= set.intersection(*padding)
    whole = {name: r for name, r in streams.items() if "." not in name}
    kept = [Column(s, key) for s, r in whole.items() for key in r if key in used]
    rests = [Column(s, rest=True) for s, r in whole.items() if not used.issuperset(r)]
    return (*sorted(kept, key=lambda c: c.key or 0), *rests)
