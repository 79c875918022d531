"""The maps of a trace: its two views, and words, tokens, regions and streams in either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np

from scribblediffusion.attention import naming
from scribblediffusion.attention.recorded import Recorded
from scribblediffusion.attention.records import (
    CONDITION,
    Layer,
    Region,
    Step,
    Word,
    region_name,
)
from scribblediffusion.attention.resample import resize
from scribblediffusion.attention.selecting import LayerSelector, StepSelector
from scribblediffusion.errors import (
    NoHeatMapError,
    SettingError,
    TraceError,
    UnknownWordError,
)

View = Literal["heat_map", "attention"]


@dataclass(frozen=True, eq=False, repr=False)
class Maps(Recorded):
    """A trace's maps; `AttentionTrace` is what people use."""

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
            TraceError: A weight is not a number, here and in all maps: the model's fault.
        """
        position = self._one_layer(layer)
        kept = [i for i, c in enumerate(self._columns(position)) if c.key is not None]
        return self._record(position, self._steps(step))[:, :, kept]

    def attention(self, *, layer: LayerSelector = None, step: StepSelector = None) -> np.ndarray:
        """Raw attention: for each place and head the columns sum to 1.

        Returns:
            float32 ``[batch, heads, columns, H, W]``; columns as in ``trace.columns[CONDITION]``
            (kept tokens, whole streams, rests), or those of the IP-Adapter that was chosen. One
            layer keeps its own grid; several are averaged on the largest of theirs, over heads
            too where layers differ in their number.

        Raises:
            NotRecordedError: That step or layer is not in the trace.
            SettingError: The layers attend to different things (an IP-Adapter and the condition).
        """
        positions = self._layers(layer)
        self._source_of(positions)
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
                (`live_keys` says which; all of them unless padding was kept, keys were masked, or
                a head gave a token less than float32 can hold).

        Returns:
            float32 ``[batch, heads, tokens, H, W]``.

        Raises:
            NoHeatMapError: A token asked for has no weight anywhere in some picture and head.
            NotRecordedError: A token asked for was left out.
        """
        raw = self.attention(layer=layer, step=step)
        source = self._source_of(self._layers(layer))
        wanted = self._live(raw, source) if tokens is None else tuple(tokens)
        raw = raw[:, :, [self._column(k, source) for k in wanted]].astype(np.float64)
        mass = raw.sum(axis=(-2, -1), keepdims=True)
        if not mass.all():
            dead = np.unique(np.argwhere(mass[..., 0, 0] == 0)[:, 2])
            raise _no_heat_map(", ".join(f"token {wanted[i]}" for i in dead))
        return (raw / mass).astype(np.float32)

    def live_keys(
        self, *, layer: LayerSelector = None, step: StepSelector = None
    ) -> tuple[int, ...]:
        """Kept keys with weight somewhere in every picture and head: those with a heat map."""
        raw = self.attention(layer=layer, step=step)
        return self._live(raw, self._source_of(self._layers(layer)))

    def _live(self, raw: np.ndarray, source: str) -> tuple[int, ...]:
        alive = raw.sum(axis=(-2, -1)).min(axis=(0, 1)) > 0
        columns = enumerate(self.columns[source])
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
            word: A word or several in a row, as in the prompt, whatever the capitals. Or one of
                `trace.words`.
            occurrence: Which one, counted in the prompt from 0 as `Word.occurrence` is, whatever
                the capitals; None averages over all of them. A `Word` is itself.
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
            SettingError: What was given is no word, or no number of an occurrence.
        """
        if occurrence is not None and not isinstance(occurrence, Integral):
            raise SettingError(f"occurrence={occurrence!r}: give 0 for the first, 1, …, or None")
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
        source = self._source_of(self._layers(layer))
        raw = self._map([key], step, layer, head, picture, source)
        return _as_view(raw, view, f"token {key}")

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
        return naming.find(text, self._prompt_of(picture), self.branch)


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
        f"{what} has no weight anywhere (padding, masked out, or too small for the numbers that "
        f"hold it: float32, or `u8-sqrt` of a saved trace), so it has no heat map; "
        f'view="attention" gives its zeros'
    )
