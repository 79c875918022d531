"""What one looks at in a trace: a word, a sketch region, a token; and its map at each step.

A `Subject` is a name and its keys. `StepMaps` holds the raw attention of every column at every
sampling step on one grid, read from the trace once and shared by all the analyses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scribblediffusion.attention.naming import word_name
from scribblediffusion.attention.records import region_name
from scribblediffusion.attention.trace import CONDITION, AttentionTrace, Column, Step, Word
from scribblediffusion.errors import (
    NoHeatMapError,
    NotRecordedError,
    TraceError,
    UnknownWordError,
)
from scribblediffusion.sketch import Region

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["word", "region", "token"]


@dataclass(frozen=True)
class Subject:
    """One thing whose maps one looks at.

    Attributes:
        name: as `trace.at` names it: "apple", "apple (2)", "8×8 (2, 3)"; a token by its text.
        keys: the model's keys whose weights are summed.
        kind: a word, a sketch region, or a single token.
        region: the sketch region, where it is one.
        special: a start, end or separator token: it stands for no word.
    """

    name: str
    keys: tuple[int, ...]
    kind: Kind
    region: Region | None = None
    special: bool = False


def words_of(trace: AttentionTrace) -> tuple[Subject, ...]:
    """The words of the prompt that were recorded, in order; repeated words are numbered."""
    kept = set(trace.keys)
    return tuple(_of_word(w, trace) for w in trace.words if kept.issuperset(w.keys) and w.keys)


def regions_of(trace: AttentionTrace) -> tuple[Subject, ...]:
    """The sketch regions that were recorded, in token order; none without a sketch stream."""
    kept = set(trace.keys)
    return tuple(_of_region(r, k) for r, k in trace.regions.items() if k in kept)


def specials_of(trace: AttentionTrace) -> tuple[Subject, ...]:
    """Start, end and separator tokens that were recorded; all padding tokens are one."""
    special = [t for t in trace.tokens if t.special and not t.padding]
    found = [Subject(t.text, (t.key,), "token", special=True) for t in special]
    padding = [t for t in trace.tokens if t.padding]
    if padding:
        name = padding[0].text if len(padding) == 1 else f"padding ({len(padding)} tokens)"
        found.append(Subject(name, tuple(t.key for t in padding), "token", special=True))
    return tuple(found)


def find_subject(
    trace: AttentionTrace, what: str | int | Word | Region | Subject, occurrence: int = 0
) -> Subject:
    """The subject that a person means.

    Args:
        trace: where to look.
        what: a word or phrase of the prompt, a sketch `Region`, a key (0–153 in the shipped
            model), or what is found already.
        occurrence: which one of a repeated word, counted from 0.

    Raises:
        UnknownWordError: the word is not in the prompt, or not that often.
        NotRecordedError: the key has no column of its own.
        TraceError: there is no such sketch region.
    """
    if isinstance(what, Subject):
        return what
    if isinstance(what, Word):
        return _of_word(what, trace)
    if isinstance(what, Region):
        if what not in trace.regions:
            there = sorted({r.level for r in trace.regions}, reverse=True)
            raise TraceError(
                f"region {what}: this trace has {f'levels {there}' if there else 'no regions'}"
            )
        return _of_region(what, trace.regions[what])
    if isinstance(what, str):
        return _of_text(trace, what, occurrence)
    return _of_key(trace, what)


def _of_text(trace: AttentionTrace, text: str, occurrence: int) -> Subject:
    found = trace.find(text)
    if not 0 <= occurrence < len(found):
        raise UnknownWordError(
            f"word {text!r}, occurrence {occurrence}: the prompt has it {len(found)} time(s), "
            "counted from 0"
        )
    keys = found[occurrence]
    for subject in words_of(trace):
        if subject.keys == keys:
            return subject
    return Subject(text, keys, "word")


def _of_key(trace: AttentionTrace, key: int) -> Subject:
    for region, at in trace.regions.items():
        if at == key:
            return _of_region(region, key)
    for token in trace.tokens:
        if token.key == key:
            special = token.special or token.padding
            return Subject(token.text, (key,), "token", special=special)
    raise NotRecordedError(
        f"token {key}: recorded are {len(trace.keys)} tokens from {min(trace.keys, default=0)} to "
        f'{max(trace.keys, default=0)}; padding is left out unless captured with tokens="all"'
    )


def _of_word(word: Word, trace: AttentionTrace) -> Subject:
    return Subject(word_name(word, trace.words), word.keys, "word")


def _of_region(region: Region, key: int) -> Subject:
    return Subject(region_name(region), (key,), "region", region)


@dataclass(frozen=True, eq=False)
class StepMaps:
    """The raw attention of every column at every sampling step: mean of heads and layers.

    Attributes:
        steps: one for each sampling step, in the order run (of several calls, the first).
        columns: what the columns are.
        raw: float32 `[steps, columns, H, W]`; over the columns each place sums to 1.
    """

    steps: tuple[Step, ...]
    columns: tuple[Column, ...]
    raw: Array

    @classmethod
    def read(
        cls, trace: AttentionTrace, *, layer: str | int | None = None, picture: int = 0
    ) -> StepMaps:
        """Reads a trace once.

        Args:
            trace: the trace.
            layer: which layers; all that attend to the condition unless told.
            picture: which picture of the batch.
        """
        steps = sampling_steps(trace)
        maps = [trace.attention(layer=layer, step=s.index)[picture].mean(axis=0) for s in steps]
        return cls(steps, tuple(trace.columns[CONDITION]), np.stack(maps))

    @property
    def noise(self) -> tuple[float | None, ...]:
        """Noise remaining at each step, 0…1, or None where it is not known."""
        return tuple(step.noise_remaining for step in self.steps)

    def of(self, subject: Subject) -> Array:
        """Raw maps `[steps, H, W]`: the share of each place's attention that the subject has."""
        return self.raw[:, self._positions(subject.keys)].sum(axis=1)

    def heat(self, subject: Subject) -> Array:
        """Heat maps `[steps, H, W]`: each step's map sums to 1 over the places.

        Raises:
            NoHeatMapError: at some step the subject has no weight anywhere.
        """
        raw = self.of(subject).astype(np.float64)
        mass = raw.sum(axis=(1, 2), keepdims=True)
        if not mass.all():
            raise NoHeatMapError(
                f"{subject.name!r} has no weight anywhere at some step (padding or masked out), "
                "so it has no heat map there"
            )
        return raw / mass

    def mean_heat(self, subject: Subject) -> Array:
        """The heat map of the whole run `[H, W]`: raw maps averaged, then divided by their sum.

        Raises:
            NoHeatMapError: the subject has no weight anywhere.
        """
        raw = self.of(subject).mean(axis=0, dtype=np.float64)
        if raw.sum() == 0:
            raise NoHeatMapError(f"{subject.name!r} has no weight anywhere: no heat map")
        return raw / raw.sum()

    def stream(self, name: str, members: Iterable[int] = ()) -> Array:
        """Raw share of a stream `[steps, H, W]`, its left-out keys included.

        Args:
            name: the stream.
            members: its keys, where it is a named part of a stream.
        """
        keys = set(members)
        chosen = [
            i
            for i, c in enumerate(self.columns)
            if c.stream == name or (c.key is not None and c.key in keys)
        ]
        return self.raw[:, chosen].sum(axis=1)

    def _positions(self, keys: Iterable[int]) -> list[int]:
        at = {c.key: i for i, c in enumerate(self.columns) if c.key is not None}
        missing = [k for k in keys if k not in at]
        if missing:
            raise NotRecordedError(
                f"tokens {missing} have no column of their own; {len(at)} tokens were recorded: "
                'capture with tokens="all"'
            )
        return [at[k] for k in keys]


def sampling_steps(trace: AttentionTrace) -> tuple[Step, ...]:
    """One `Step` for each sampling step in the order run: where a step has several calls, its
    first, since their maps are averaged.

    Raises:
        NotRecordedError: no step was kept, as where earlier runs had filled the memory limit.
    """
    if not trace.steps:
        why = "; ".join(trace.thinned)
        raise NotRecordedError("no step was recorded" + (f" ({why})" if why else ""))
    first: dict[int, Step] = {}
    for step in trace.steps:
        first.setdefault(step.index, step)
    return tuple(first.values())
