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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from scribblediffusion.attention import naming
from scribblediffusion.attention.audit import Audit, LayerAudit
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
from scribblediffusion.attention.selecting import (
    LayerSelector,
    StepSelector,
    pick_layers,
    pick_steps,
)
from scribblediffusion.errors import (
    NoHeatMapError,
    NotRecordedError,
    SettingError,
    TraceError,
    UnknownWordError,
)

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
    "Word",
    "resize",
]

View = Literal["heat_map", "attention"]


class Share(NamedTuple):
    """How much of its attention a place paid to a word or a region: 0…1 of all keys."""

    name: str
    share: float


@dataclass(frozen=True, eq=False, repr=False)
class AttentionTrace:
    """The attention of one run; see the module's docstring for the views and the selectors.

    Build one from plain arrays with `from_arrays`, from a file with `load`.

    Attributes:
        records: (position in `steps`, position in `layers`) → weights as stored,
            ``[batch, heads or 1, columns, places]`` in float32, float16 or u8-√p (see `storage`).
        steps: The recorded denoiser calls in the order run.
        layers: The recorded layers in the order run.
        columns: Of each source (`CONDITION`, or an IP-Adapter's name): what the columns are.
        streams: Name → range of keys. ``text`` and ``sketch`` in the shipped model; joint layers
            have ``image``. Finer names for parts of a stream have a dot: ``text.clip``.
        prompts: One for each picture of the batch.
        regions: Sketch region → key; empty without a sketch stream.
        branch: Which part of the guidance: ``full``, ``sketch_only`` or ``unconditional``.
        heads: ``"mean"`` (one map a layer) or ``"all"``.
        audit: The proof, or None for arrays that no extractor captured.
        thinned: What the memory limit took away, in sentences; empty if nothing.
        settings: What the run was asked for (seed, steps, guidance …), plain JSON values.
        versions: Name → version of model and libraries.
        picture_size: (height, width) in pixels of the pictures; None if not known.
        pictures: uint8 ``[H, W, 3]``, one for each picture of the batch, or none.
        sketch: uint8 ``[H, W]`` as the model read it, or None.
        previews: uint8 ``[n, h, w, 3]``: first picture after step index 0, 1, …, or None.
        complete: False for a run that ended before its last step.
    """

    records: Mapping[tuple[int, int], np.ndarray]
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    columns: Mapping[str, tuple[Column, ...]]
    streams: Mapping[str, range]
    prompts: tuple[Prompt, ...]
    regions: Mapping[Region, int] = field(default_factory=dict)
    branch: str = "full"
    heads: Literal["mean", "all"] = "mean"
    audit: Audit | None = None
    thinned: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    picture_size: tuple[int, int] | None = None
    pictures: tuple[np.ndarray, ...] = ()
    sketch: np.ndarray | None = None
    previews: np.ndarray | None = None
    complete: bool = True

    def __post_init__(self) -> None:
        for name in ("records", "columns", "streams", "regions", "settings", "versions"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for array in self.records.values():
            array.setflags(write=False)

    # ── what is there ────────────────────────────────────────────────────────────────────────

    @property
    def prompt(self) -> str:
        """The prompt of the first picture."""
        return self.prompts[0].text if self.prompts else ""

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens that were kept, in column order, as the first picture names them."""
        return self.tokens_of(0)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of the first picture's prompt, in their order."""
        return self.prompts[0].words if self.prompts else ()

    @property
    def picture(self) -> np.ndarray | None:
        """The first picture, uint8 ``[H, W, 3]``, or None."""
        return self.pictures[0] if self.pictures else None

    @property
    def keys(self) -> tuple[int, ...]:
        """The model's keys that have a column of their own, in column order."""
        return tuple(c.key for c in self.columns[CONDITION] if c.key is not None)

    @property
    def batch(self) -> int:
        """How many pictures were made at once."""
        return next(iter(self.records.values())).shape[0] if self.records else len(self.prompts)

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take in memory."""
        return sum(array.nbytes for array in self.records.values())

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the largest layer: the grid that layers are averaged on."""
        largest = max(self._layers(None), key=lambda i: self.layers[i].places)
        return self.layers[largest].height, self.layers[largest].width

    def tokens_of(self, picture: int = 0) -> tuple[Token, ...]:
        """The tokens that were kept, in column order, as this picture names them."""
        named = {t.key: t for t in self.prompts[picture].tokens} if self.prompts else {}
        return tuple(
            named.get(c.key) or Token(c.key, f"#{c.key}", c.stream)
            for c in self.columns[CONDITION]
            if c.key is not None
        )

    def __repr__(self) -> str:
        grid = "×".join(map(str, self.grid)) if self.records else "no"
        return (
            f"AttentionTrace({self.prompt!r}, {len(self.steps)} steps, {len(self.layers)} layers, "
            f"{len(self.keys)} tokens, {grid} grid, branch {self.branch})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the run, its words and its proof."""
        words = ", ".join(word.text for word in self.words) or "no words"
        noise = " → ".join(str(step) for step in (self.steps[:1] + self.steps[-1:]))
        proof = "no proof: these arrays were not captured" if self.audit is None else self.audit
        lines = (repr(self), f"words: {words}", noise, str(proof), *self.thinned)
        return "<div>" + "<br>".join(html.escape(line) for line in lines) + "</div>"

    # ── the two views ────────────────────────────────────────────────────────────────────────

    def weights(self, *, layer: int | str | Layer, step: int | Step) -> np.ndarray:
        """The raw weights of one layer at one step, kept tokens only.

        Args:
            layer: One layer.
            step: One step; where it has several calls (Heun, PNDM), an index gives their mean and
                a `Step` that call alone.

        Returns:
            float32 ``[batch, heads, tokens, spatial]``; heads is 1 with ``heads="mean"``; tokens in
            the order of `trace.tokens`; spatial row by row. Sums over tokens are 1 only if every
            key was kept (``tokens="all"``, no `image` stream); else see `attention`.

        Raises:
            NotRecordedError: That step or layer is not in the trace.
        """
        position = self._one_layer(layer)
        kept = [i for i, c in enumerate(self._columns(position)) if c.key is not None]
        return self._record(position, self._steps(step))[:, :, kept]

    def attention(self, *, layer: LayerSelector = None, step: StepSelector = None) -> np.ndarray:
        """Raw attention: for each place and head the columns sum to 1.

        Returns:
            float32 ``[batch, heads, columns, H, W]``; columns as in ``trace.columns[CONDITION]``
            (kept tokens, whole streams, rests). One layer keeps its own grid; several are averaged
            on the largest of theirs, over heads too where layers differ in their number.
        """
        positions = self._layers(layer)
        steps = self._steps(step)
        grids = [self.layers[i] for i in positions]
        largest = max(grids, key=lambda x: x.places)
        same = len({self._head_count(i) for i in positions}) == 1
        total = 0.0
        for i, grid in zip(positions, grids, strict=True):
            record = self._record(i, steps)
            record = record if same else record.mean(axis=1, keepdims=True)
            record = record.reshape(*record.shape[:3], grid.height, grid.width)
            total = total + resize(record, largest.height, largest.width)
        return np.asarray(total / len(positions), dtype=np.float32)

    def heat_map(
        self,
        *,
        layer: LayerSelector = None,
        step: StepSelector = None,
        tokens: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Heat maps: each token's map sums to 1 over the places.

        Args:
            layer: Which layers; averaged raw before the division.
            step: Which steps; averaged raw before the division.
            tokens: Keys, in the order wanted. None: every kept token that has weight somewhere
                (`live_keys` says which; all of them unless padding was kept or keys were masked).

        Returns:
            float32 ``[batch, heads, tokens, H, W]``.

        Raises:
            NoHeatMapError: A token asked for has no weight anywhere in some picture and head.
            NotRecordedError: A token asked for was left out.
        """
        raw = self.attention(layer=layer, step=step)
        wanted = self.live_keys(layer=layer, step=step) if tokens is None else tuple(tokens)
        raw = raw[:, :, [self._column(k) for k in wanted]].astype(np.float64)
        mass = raw.sum(axis=(-2, -1), keepdims=True)
        if not mass.all():
            dead = np.unique(np.argwhere(mass[..., 0, 0] == 0)[:, 2])
            raise _no_heat_map(", ".join(f"token {wanted[i]}" for i in dead))
        return (raw / mass).astype(np.float32)

    def live_keys(
        self, *, layer: LayerSelector = None, step: StepSelector = None
    ) -> tuple[int, ...]:
        """Kept keys with weight somewhere in every picture and head: those with a heat map."""
        mass = self.attention(layer=layer, step=step).sum(axis=(-2, -1))
        alive = mass.min(axis=(0, 1)) > 0
        columns = enumerate(self.columns[CONDITION])
        return tuple(c.key for i, c in columns if c.key is not None and alive[i])

    # ── words, tokens, regions, streams ──────────────────────────────────────────────────────

    def word(
        self,
        word: str | Word,
        occurrence: int | None = 0,
        view: View = "heat_map",
        step: StepSelector = None,
        layer: LayerSelector = None,
        *,
        head: int | None = None,
        picture: int = 0,
    ) -> np.ndarray:
        """The map of a word or a phrase: the sum of its sub-tokens.

        Args:
            word: A word or several in a row, as in the prompt; capitals matter only where that
                tells two words apart. Or one of `trace.words`.
            occurrence: Which one, counted in the prompt from 0; None averages over all of them.
            view: ``"heat_map"`` (sums to 1 over places) or ``"attention"`` (raw share of a place).
            step: Which steps.
            layer: Which layers.
            head: One head, or None for their mean.
            picture: Which picture of the batch.

        Returns:
            float32 ``[H, W]``.

        Raises:
            UnknownWordError: The word is not in the prompt; the message names those that are.
            NoHeatMapError: The word has no weight anywhere.
            NotRecordedError: Its tokens were left out.
        """
        found = [word.keys] if isinstance(word, Word) else self.find(word, picture=picture)
        if occurrence is not None and not isinstance(word, Word):
            if not 0 <= occurrence < len(found):
                raise UnknownWordError(
                    f"word {word!r}, occurrence {occurrence}: it is in the prompt {len(found)} "
                    f"time(s); occurrences count from 0"
                )
            found = [found[occurrence]]
        raw = self._map([k for keys in found for k in keys], step, layer, head, picture)
        return _as_view(raw / len(found), view, f"word {word!r}")

    def token(
        self,
        key: int,
        view: View = "heat_map",
        step: StepSelector = None,
        layer: LayerSelector = None,
        *,
        head: int | None = None,
        picture: int = 0,
    ) -> np.ndarray:
        """The map of one key, float32 ``[H, W]``; arguments and errors as for `word`."""
        return _as_view(self._map([key], step, layer, head, picture), view, f"token {key}")

    def region(
        self,
        row: int,
        column: int,
        level: int = 8,
        view: View = "heat_map",
        step: StepSelector = None,
        layer: LayerSelector = None,
        *,
        head: int | None = None,
        picture: int = 0,
    ) -> np.ndarray:
        """The map of one sketch region, float32 ``[H, W]``; arguments and errors as for `word`.

        Args:
            row: 0 is the top.
            column: 0 is the left.
            level: The grid that row and column count in: 8, 3 or 2 in the shipped model.
            view: As for `word`.
            step: Which steps.
            layer: Which layers.
            head: One head, or None for their mean.
            picture: Which picture of the batch.

        Raises:
            TraceError: There is no such region, or no sketch stream at all.
        """
        key = self.regions.get(Region(level, row, column))
        if key is None:
            levels = sorted({r.level for r in self.regions}, reverse=True)
            what = f"levels {levels}, rows and columns from 0" if levels else "no sketch regions"
            raise TraceError(f"region row {row}, column {column}, level {level}: there are {what}")
        name = f"region {region_name(Region(level, row, column))}"
        return _as_view(self._map([key], step, layer, head, picture), view, name)

    def stream(
        self,
        name: str,
        view: View = "attention",
        step: StepSelector = None,
        layer: LayerSelector = None,
        *,
        head: int | None = None,
        picture: int = 0,
    ) -> np.ndarray:
        """The share of a whole stream at each place, its left-out keys included.

        Returns:
            float32 ``[H, W]``: 0…1 of each place's attention (``"attention"``), or its heat map.

        Raises:
            TraceError: There is no such stream; the message names those that are.
        """
        if name not in self.streams and name not in self.columns:
            there = ", ".join([*self.streams, *(s for s in self.columns if s != CONDITION)])
            raise TraceError(f"stream {name!r}: this trace has {there or 'none'}")
        source = name if name in self.columns and name not in self.streams else CONDITION
        columns = [i for i, c in enumerate(self.columns[source]) if self._is_in(c, name)]
        raw = self._columns_map(columns, step, layer, head, picture, source)
        return _as_view(raw, view, f"stream {name!r}")

    def shares(
        self, step: StepSelector = None, layer: LayerSelector = None, *, picture: int = 0
    ) -> dict[str, float]:
        """Each stream's mean share over all places; the values of undotted names sum to 1."""
        names = [name for name in self.streams if "." not in name]
        maps = {n: self.stream(n, step=step, layer=layer, picture=picture) for n in names}
        return {name: float(m.mean()) for name, m in maps.items()}

    def find(self, text: str, *, picture: int = 0) -> list[tuple[int, ...]]:
        """The keys of each place in the prompt where this word or phrase is.

        Raises:
            UnknownWordError: It is nowhere; the message names the words that are there.
        """
        prompt = self.prompts[picture] if self.prompts else Prompt(named=False)
        return naming.find(text, prompt)

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
            x: Pixels from the left of the picture.
            y: Pixels from its top.
            step: Which steps.
            layer: Which layers.
            picture: Which picture of the batch.

        Returns:
            (name, share) of every word and region; share is the raw attention that this place
            paid, so all together are at most 1 (start tokens, rests and `image` make up the 1).

        Raises:
            SettingError: The pixel lies outside the picture.
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
        shares = self._weighted(weight, step, layer, picture)
        column = {c.key: i for i, c in enumerate(self.columns[CONDITION]) if c.key is not None}
        words = self.prompts[picture].words if self.prompts else ()
        named = [(naming.word_name(w, words), w.keys) for w in words]
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
            layer: Which layers; averaged on the largest of their grids (see `attention`).
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
            **fields: Any other field of `AttentionTrace` (picture_size, pictures, sketch …).
        """
        from scribblediffusion.attention import plain

        given = plain.fields_of(weights, tokens, streams, regions, noise_remaining, prompt)
        return cls(**(given | fields))

    # ── inside ───────────────────────────────────────────────────────────────────────────────

    def _layers(self, layer: LayerSelector, source: str = CONDITION) -> list[int]:
        """Positions of the layers that a selector means."""
        found = pick_layers(self.layers, layer, source)
        if not found:
            names = ", ".join(x.name for x in self.layers) or "none"
            raise self._missing(f"layer {layer!r}: recorded layers are {names}")
        return found

    def _one_layer(self, layer: int | str | Layer) -> int:
        """The position of one layer."""
        found = self._layers(layer)
        if len(found) > 1:
            names = ", ".join(self.layers[i].name for i in found)
            raise SettingError(f"layer {layer!r} means several ({names}): name one")
        return found[0]

    def _steps(self, step: StepSelector) -> list[int]:
        """Positions of the steps that a selector means."""
        found = pick_steps(self.steps, step)
        if not found:
            there = sorted({x.index for x in self.steps})
            raise self._missing(f"step {step!r}: recorded steps are {there}")
        return found

    def _missing(self, sentence: str) -> NotRecordedError:
        """The error for what is not there, with what was given up for the memory limit."""
        if self.thinned:
            sentence += f" (to stay within the memory limit, {'; '.join(self.thinned)})"
        return NotRecordedError(sentence)

    def _columns(self, layer: int) -> tuple[Column, ...]:
        return self.columns[self.layers[layer].source]

    def _column(self, key: int) -> int:
        """The column of a key."""
        for i, column in enumerate(self.columns[CONDITION]):
            if column.key == key:
                return i
        raise self._missing(
            f"token {key} has no column of its own: kept are {naming.ranges(self.keys)}; "
            f'padding is left out unless captured with tokens="all"'
        )

    def _is_in(self, column: Column, stream: str) -> bool:
        """Whether a column belongs to a stream or to a named part of one."""
        if column.stream == stream:
            return True
        return column.key is not None and column.key in self.streams.get(stream, ())

    def _head_count(self, layer: int) -> int:
        return 1 if self.heads == "mean" else self.layers[layer].heads

    def _record(self, layer: int, steps: Sequence[int]) -> np.ndarray:
        """Mean over steps of one layer's record, a fresh float32 ``[batch, heads, C, places]``."""
        there = [self.records[s, layer] for s in steps if (s, layer) in self.records]
        if not there:
            raise self._missing(f"layer {self.layers[layer].name}: no record at those steps")
        total = decode(there[0])
        for array in there[1:]:
            total = total + decode(array)
        return total / np.float32(len(there))

    def _map(
        self,
        keys: Iterable[int],
        step: StepSelector,
        layer: LayerSelector,
        head: int | None,
        picture: int,
    ) -> np.ndarray:
        """Raw sum of some keys, float64 ``[H, W]``, averaged over heads, layers and steps."""
        columns = [self._column(k) for k in keys]
        return self._columns_map(columns, step, layer, head, picture, CONDITION)

    def _columns_map(
        self,
        columns: Sequence[int],
        step: StepSelector,
        layer: LayerSelector,
        head: int | None,
        picture: int,
        source: str,
    ) -> np.ndarray:
        positions, steps = self._layers(layer, source), self._steps(step)
        if head is not None and self.heads == "mean":
            raise self._missing(f'head {head}: only the mean was kept; capture with heads="all"')
        largest = max((self.layers[i] for i in positions), key=lambda x: x.places)
        total = np.zeros((largest.height, largest.width))
        for i in positions:
            grid = self.layers[i]
            there = [self.records[s, i] for s in steps if (s, i) in self.records]
            if not there:
                raise self._missing(f"layer {grid.name}: no record at those steps")
            if head is not None and not 0 <= head < grid.heads:
                raise self._missing(f"head {head}: layer {grid.name} has heads 0–{grid.heads - 1}")
            one = np.zeros(grid.places)
            for a in there:
                heads = a[picture] if head is None else a[picture, head : head + 1]
                one += decode(heads[:, columns]).sum(axis=1, dtype=np.float64).mean(axis=0)
            one = (one / len(there)).reshape(grid.height, grid.width)
            total += resize(one, largest.height, largest.width)
        return total / len(positions)


def decode(stored: np.ndarray) -> np.ndarray:
    """Stored weights as float32; u8-√p holds round(255·√p)."""
    if stored.dtype == np.uint8:
        root = stored.astype(np.float32) / np.float32(255)
        return root * root
    return stored.astype(np.float32)


def _as_view(raw: np.ndarray, view: str, what: str) -> np.ndarray:
    """Raw weights, or divided by their sum over space."""
    if view == "attention":
        return raw.astype(np.float32)
    if view != "heat_map":
        raise SettingError(f'view {view!r}: there are "heat_map" and "attention"')
    mass = raw.sum()
    if mass == 0:
        raise _no_heat_map(what)
    return (raw / mass).astype(np.float32)


def _no_heat_map(what: str) -> NoHeatMapError:
    return NoHeatMapError(
        f"{what} has no weight anywhere (padding or masked out), so it has no heat map; "
        f'view="attention" gives its zeros'
    )
