"""What a trace is made of, and how its records are found: fields, selectors, means.

The raw weights of a layer are averaged in one order everywhere: heads, then layers on the largest
grid, then steps. What people ask of them is in `maps` and `trace`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from scribblediffusion.attention import naming
from scribblediffusion.attention.audit import Audit
from scribblediffusion.attention.records import (
    CONDITION,
    Column,
    Layer,
    Prompt,
    Region,
    Step,
    Token,
    Word,
)
from scribblediffusion.attention.resample import resize
from scribblediffusion.attention.selecting import (
    LayerSelector,
    StepSelector,
    pick_layers,
    pick_steps,
)
from scribblediffusion.errors import NotRecordedError, SettingError, TraceError
from scribblediffusion.sketch import Sketch


@dataclass(frozen=True, eq=False, repr=False)
class Recorded:
    """The records of one run and what they are made of; `AttentionTrace` is what people use.

    Attributes:
        records: (position in `steps`, position in `layers`) → weights as stored,
            ``[batch, heads or 1, columns, places]`` in float32, float16 or u8-√p (see `storage`).
        steps: The recorded denoiser calls in the order run.
        layers: The recorded layers in the order of the model's modules, which need not be the
            order run: UNets list their up blocks before the middle one.
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
        sketch: uint8 ``[H, W]`` of the first picture, as the model read it, or None.
        sketches: One for each picture (None where it has none), where `sketch` alone does not tell
            them: a mask says where they count, or the pictures have sketches of their own.
        previews: uint8 ``[n, h, w, 3]``: first picture after step index 0, 1, …, or None. A
            pipeline may make them more roughly than pictures; see `picture_after`.
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
    sketches: tuple[Sketch | None, ...] = ()
    previews: np.ndarray | None = None
    complete: bool = True

    def __post_init__(self) -> None:
        for name in ("records", "columns", "streams", "regions", "settings", "versions"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for array in self.records.values():
            array.setflags(write=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """How `copy` and `multiprocessing` make another one: views of mappings have no pickle."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {k: dict(v) if isinstance(v, MappingProxyType) else v for k, v in values.items()}
        return _remade, (type(self), plain)

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

    def picture_after(self, step: int) -> np.ndarray | None:
        """The first picture as it was after a step, uint8 ``[H, W, 3]``.

        Its preview; after the last step of a complete run, and where there are no previews, the
        finished picture. None if there is neither.

        Args:
            step: `Step.index`.
        """
        count = 0 if self.previews is None else len(self.previews)
        finished = self.picture is not None and self.complete and step == count - 1
        if self.previews is None or finished or not 0 <= step < count:
            return self.picture
        return self.previews[step]

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
        named = {t.key: t for t in self._prompt_of(picture).tokens}
        return tuple(
            named.get(c.key) or Token(c.key, f"#{c.key}", c.stream)
            for c in self.columns[CONDITION]
            if c.key is not None
        )

    def source_of(self, layer: LayerSelector = None) -> str:
        """What these layers attend to: `CONDITION`, or the name of one IP-Adapter.

        Raises:
            NotRecordedError: There is no such layer.
            SettingError: They attend to different things.
        """
        return self._source_of(self._layers(layer))

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

    def _source_of(self, positions: Sequence[int]) -> str:
        """What these layers attend to: the condition, or one IP-Adapter."""
        sources = list(dict.fromkeys(self.layers[i].source for i in positions))
        if len(sources) > 1:
            raise SettingError(
                f"layers of {' and '.join(sources)} have different columns: take those of one"
            )
        return sources[0]

    def _column(self, key: int, source: str = CONDITION) -> int:
        """The column of a key."""
        for i, column in enumerate(self.columns[source]):
            if column.key == key:
                return i
        if source != CONDITION:
            there = naming.ranges([c.key for c in self.columns[source] if c.key is not None])
            raise self._missing(f"token {key}: {source} has the tokens {there}")
        raise self._missing(
            f"token {key} has no column of its own: kept are {naming.ranges(self.keys)}; "
            f'padding is left out unless captured with tokens="all"'
        )

    def _prompt_of(self, picture: int) -> Prompt:
        """The prompt of one picture of the batch."""
        self._check_picture(picture)
        return self.prompts[picture] if self.prompts else Prompt(named=False)

    def _check_picture(self, picture: int) -> None:
        if not -self.batch <= picture < self.batch:
            raise SettingError(f"picture {picture}: this trace has pictures 0–{self.batch - 1}")

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
        return self._finite(total / np.float32(len(there)), layer)

    def _finite(self, weights: np.ndarray, layer: int) -> np.ndarray:
        """Weights of a layer as they are; a NaN, which no map survives, is named."""
        if not np.isfinite(weights).all():
            raise TraceError(
                f"layer {self.layers[layer].name}: weights asked for are not numbers (NaN or "
                f"infinite), as the model computed them; see `audit`, try another layer or step"
            )
        return weights

    def _map(
        self,
        keys: Iterable[int],
        step: StepSelector,
        layer: LayerSelector,
        head: int | None,
        picture: int,
        source: str = CONDITION,
    ) -> np.ndarray:
        """Raw sum of some keys, float64 ``[H, W]``, averaged over heads, layers and steps."""
        columns = [self._column(k, source) for k in keys]
        return self._columns_map(columns, step, layer, head, picture, source)

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
        self._check_picture(picture)
        found = self._source_of(positions)
        if found != source:
            raise SettingError(
                f"layer {layer!r} attends to {found}, and what was asked for is in {source}"
            )
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
            one = self._finite(one / len(there), i).reshape(grid.height, grid.width)
            total += resize(one, largest.height, largest.width)
        return total / len(positions)


def _remade(kind: type[Recorded], values: dict[str, Any]) -> Recorded:
    return kind(**values)


def decode(stored: np.ndarray) -> np.ndarray:
    """Stored weights as float32; u8-√p holds round(255·√p)."""
    if stored.dtype == np.uint8:
        root = stored.astype(np.float32) / np.float32(255)
        return root * root
    return stored.astype(np.float32)
