"""`AttentionTrace`: the attention of one run, opened and read with numpy alone.

A trace is what `RealAttentionExtractor` captured of one run and one branch of the guidance: for
every step and layer the real ``softmax(q·kᵀ·scale + mask)``. It says two different things under
two different names:

- **attention** (raw): how one place shares itself among the keys. For each place and head the
  columns sum to 1, `rest` (keys that were left out) and whole streams such as `image` included.
- **heat map**: where one token acted. Its weights divided by their sum over space, so that each
  token's map sums to 1 over the places.

Neither is ever scaled by minimum and maximum. Where several records meet, raw weights are averaged
first (heads, then layers after `resize` to the largest grid, then steps); the heat map is that
average divided by its sum over space.

    trace = AttentionTrace.load("run.safetensors")
    trace.prompt, trace.words, trace.tokens, trace.streams, trace.steps, trace.layers, trace.audit
    trace.weights(layer=0, step=0)            # [batch, heads, tokens, spatial], raw
    trace.attention(layer=0, step=0)          # [batch, heads, columns, H, W], Σ columns = 1
    trace.heat_map(layer=0, step=0)           # [batch, heads, tokens, H, W],  Σ places  = 1
    trace.word("apple")                       # [H, W]; occurrence=, view=, step=, layer=, head=
    trace.region(2, 3, level=8)               # [H, W] of a sketch region
    trace.stream("sketch")                    # [H, W] share of a stream
    trace.at(120, 80)                         # [Share(name, share), …] of a pixel
    trace.within(mask)                        # the same for a shape

Selectors, the same everywhere. `layer`: None (all that attend to the condition), a position in
`trace.layers`, a name, a glob, a `Layer`, or several of them. `step`: None (all), a `Step.index`
(negative counts from the last one recorded; all calls of that step), a `Step`, or several.
`head`: None (mean) or a number. `picture`: position in the batch.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from scribblediffusion.attention import naming
from scribblediffusion.attention.audit import Audit, LayerAudit
from scribblediffusion.attention.inline import inline_image
from scribblediffusion.attention.maps import Maps, View
from scribblediffusion.attention.recorded import decode
from scribblediffusion.attention.records import (
    CONDITION,
    Column,
    Layer,
    Prompt,
    Region,
    Step,
    Token,
    Word,
    region_name,
)
from scribblediffusion.attention.resample import area_matrix, resize
from scribblediffusion.attention.selecting import LayerSelector, StepSelector
from scribblediffusion.errors import SettingError

__all__ = [
    "CONDITION",
    "AttentionTrace",
    "Audit",
    "Column",
    "Layer",
    "LayerAudit",
    "Prompt",
    "Region",
    "Share",
    "Step",
    "Token",
    "View",
    "Word",
    "decode",
    "resize",
]


class Share(NamedTuple):
    """How much of its attention a place paid to a word or a region: 0…1 of all keys."""

    name: str
    share: float


@dataclass(frozen=True, eq=False, repr=False)
class AttentionTrace(Maps):
    """The attention of one run; see the module's docstring for the views and the selectors.

    Build one from plain arrays with `from_arrays`, from a file with `load`. Its fields are those of
    `recorded.Recorded`, its maps those of `maps.Maps`.
    """

    def __repr__(self) -> str:
        grid = "×".join(map(str, self.grid)) if self.records else "no"
        return (
            f"AttentionTrace({self.prompt!r}, {len(self.steps)} steps, {len(self.layers)} layers, "
            f"{len(self.keys)} tokens, {grid} grid, branch {self.branch})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the run, its words and its proof, its picture and its sketch."""
        words = ", ".join(word.text for word in self.words) or "no words"
        noise = " → ".join(str(step) for step in (self.steps[:1] + self.steps[-1:]))
        proof = "no proof: these arrays were not captured" if self.audit is None else self.audit
        lines = (repr(self), f"words: {words}", noise, str(proof), *self.thinned)
        shown = {"picture": self.picture, "sketch": self.sketch}
        images = [inline_image(i, f"the {name}") for name, i in shown.items() if i is not None]
        text = "<br>".join(html.escape(line) for line in lines)
        return f"<div>{text}<div>{''.join(images)}</div></div>"

    # ── the other way round ──────────────────────────────────────────────────────────────────

    def at(
        self,
        x: float,
        y: float,
        step: StepSelector = None,
        layer: LayerSelector = None,
        *,
        picture: int = 0,
    ) -> list[Share]:
        """What one pixel of the picture listened to: words and sketch regions, most first.

        Args:
            x: Pixels from the left of the picture (cells of `grid` if its size is not known).
            y: Pixels from its top.
            step: Which steps.
            layer: Which layers.
            picture: Which picture of the batch.

        Returns:
            (name, share) of every word and region; share is the raw attention that this place
            paid, so all together are at most 1 (start tokens, rests and `image` make up the 1).
            Only where two prompts share keys, as SDXL's do, a key counts for a word of each.

        Raises:
            SettingError: The pixel lies outside the picture.
            UnknownWordError: No words are known, as with embeddings made beforehand, nor regions.
        """
        height, width = self.picture_size or self.grid
        if not (0 <= x < width and 0 <= y < height):
            raise SettingError(f"pixel ({x}, {y}): the picture is {width} wide and {height} high")
        rows, columns = self.grid
        spot = np.zeros((rows, columns))
        spot[int(y * rows / height), int(x * columns / width)] = 1.0
        return self._rank(spot, step, layer, picture)

    def within(
        self,
        mask: np.ndarray,
        step: StepSelector = None,
        layer: LayerSelector = None,
        *,
        picture: int = 0,
    ) -> list[Share]:
        """What a shape listened to: like `at`, averaged over the shape by area.

        Args:
            mask: ``[h, w]`` over the whole picture, any size; true or non-zero is inside.
            step: Which steps.
            layer: Which layers.
            picture: Which picture of the batch.

        Raises:
            SettingError: The mask has not two dimensions, or nothing is inside it.
            UnknownWordError: No words are known, nor regions.
        """
        inside = np.asarray(mask)
        if inside.ndim != 2 or not inside.any():
            raise SettingError(
                f"mask of shape {inside.shape} with {int((inside != 0).sum())} pixels inside: "
                f"give [height, width] with at least one non-zero"
            )
        cover = resize((inside != 0).astype(np.float64), *self.grid)
        return self._rank(cover / cover.sum(), step, layer, picture)

    def _rank(
        self, weight: np.ndarray, step: StepSelector, layer: LayerSelector, picture: int
    ) -> list[Share]:
        """Every word's and region's raw attention, averaged with `weight` (sums to 1)."""
        prompt = self._prompt_of(picture)
        if not prompt.named and not self.regions:
            raise naming.no_words("what a place listened to")
        shares = self._weighted(weight, step, layer, picture)
        column = {c.key: i for i, c in enumerate(self.columns[CONDITION]) if c.key is not None}
        named = [(naming.word_name(w, prompt.words), w.keys) for w in prompt.words]
        named += [(region_name(r), (key,)) for r, key in self.regions.items()]
        ranked = [
            Share(name, float(sum(shares[column[k]] for k in keys)))
            for name, keys in named
            if all(k in column for k in keys)
        ]
        return sorted(ranked, key=lambda s: -s.share)

    def _weighted(
        self, weight: np.ndarray, step: StepSelector, layer: LayerSelector, picture: int
    ) -> np.ndarray:
        """Σ over places of weight · attention, for each column; mean of steps, layers, heads."""
        positions, steps = self._layers(layer), self._steps(step)
        source = self._source_of(positions)
        if source != CONDITION:
            raise SettingError(f"layer {layer!r} attends to {source}, not to words or the sketch")
        total = np.zeros(len(self.columns[CONDITION]))
        for i in positions:
            grid = self.layers[i]
            rows = area_matrix(grid.height, weight.shape[0])
            columns = area_matrix(grid.width, weight.shape[1])
            place = (rows.T @ weight @ columns).ravel()
            total += self._record(i, steps)[picture].mean(axis=0) @ place
        return total / len(positions)

    # ── keeping it ───────────────────────────────────────────────────────────────────────────

    def save(
        self, path: str | Path, *, dtype: Literal["float16", "float32", "u8-sqrt"] = "float16"
    ) -> Path:
        """Write one safetensors file, whole or not at all; see `storage.save`."""
        from scribblediffusion.attention import storage

        return storage.save(self, Path(path), dtype=dtype)

    @classmethod
    def load(cls, path: str | Path) -> AttentionTrace:
        """Open a saved trace; needs no model. See `storage.load` for what it refuses."""
        from scribblediffusion.attention import storage

        return storage.load(Path(path))

    def to_xarray(self, layer: LayerSelector = None, step: StepSelector = None) -> Any:
        """Raw attention with named dimensions; needs the extra ``scribblediffusion[xarray]``.

        Args:
            layer: Which layers; averaged on the largest of their grids (see `attention`). Those of
                an IP-Adapter have its tokens.
            step: Which steps.

        Returns:
            `xarray.DataArray`, float32, of dimensions step, picture, head, token, row, column.
            Coordinates: step (index), call, noise_remaining, token (its text; ``rest`` and the
            names of whole streams too), key (−1 for sums) and stream. Sums over token are 1.

        Raises:
            ImportError: xarray is not installed.
        """
        from scribblediffusion.attention import plain

        return plain.to_xarray(self, layer, [self.steps[i] for i in self._steps(step)])

    @classmethod
    def from_arrays(
        cls,
        weights: Mapping[str, np.ndarray],
        *,
        tokens: Sequence[str] = (),
        streams: Mapping[str, range] | None = None,
        regions: Mapping[Region, int] | None = None,
        noise_remaining: Sequence[float | None] | None = None,
        prompt: str | None = None,
        **fields: Any,
    ) -> AttentionTrace:
        """A trace from plain arrays, every key kept: for tests and for figures of one's own.

        Args:
            weights: Layer name → ``[steps, batch, heads, keys, height, width]``, raw: sums over
                keys are 1. All layers have the same steps, batch and keys.
            tokens: Text of the keys from 0 on; ``##x`` joins the piece before it, ``[X]`` and
                ``<X>`` are special, ``[PAD]`` is padding. Every other one begins a word.
            streams: Name → range of keys; by default all of them are ``text``.
            regions: Sketch region → key.
            noise_remaining: Of each step; by default evenly from 1 down.
            prompt: By default the words in a row.
            **fields: Any other field of `AttentionTrace` (picture_size, pictures, sketch …);
                pictures may be one array, ``[H, W, 3]`` or ``[n, H, W, 3]``.

        Raises:
            SettingError: Arrays of other shapes, or more tokens or noise levels than they have.
        """
        from scribblediffusion.attention import plain

        given = plain.fields_of(weights, tokens, streams, regions, noise_remaining, prompt)
        pictures = fields.get("pictures")
        if isinstance(pictures, np.ndarray):
            fields["pictures"] = (pictures,) if pictures.ndim == 3 else tuple(pictures)
        return cls(**(given | fields))
