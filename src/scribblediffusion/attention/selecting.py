"""Which layers and steps a person means."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from scribblediffusion.attention.records import Layer, Step
from scribblediffusion.errors import SettingError

#: None (all), a position, a name or glob, a `Layer`, or several of these.
LayerSelector = None | int | str | Layer | Sequence[int | str | Layer]
#: None (all), a `Step.index` (negative from the end), a `Step`, or several of these.
StepSelector = None | int | Step | Sequence[int | Step]


def pick_layers(layers: Sequence[Layer], wanted: LayerSelector, source: str) -> list[int]:
    """Positions of the layers that are meant, each once; empty if there are none.

    Args:
        layers: All of a trace.
        wanted: The selector.
        source: Names, globs and None mean the layers of this source alone.

    Raises:
        SettingError: The selector is none of these.
    """
    if isinstance(wanted, (int, np.integer)):
        return [range(len(layers))[wanted]] if -len(layers) <= wanted < len(layers) else []
    if isinstance(wanted, Layer):
        return [i for i, layer in enumerate(layers) if layer == wanted]
    of_source = [(i, layer) for i, layer in enumerate(layers) if layer.source == source]
    if wanted is None:
        return [i for i, _ in of_source]
    if isinstance(wanted, str):
        found = [i for i, layer in of_source if layer.name == wanted]
        return found or [i for i, x in of_source if fnmatch.fnmatchcase(x.name, wanted)]
    several = _several("layer", wanted, "a position, a name or glob, a `Layer`")
    return list(dict.fromkeys(i for one in several for i in pick_layers(layers, one, source)))


def pick_steps(steps: Sequence[Step], wanted: StepSelector) -> list[int]:
    """Positions of the steps that are meant, each once; empty if there are none.

    Args:
        steps: All of a trace.
        wanted: The selector; a number means every call of that step.

    Raises:
        SettingError: The selector is none of these.
    """
    if wanted is None:
        return list(range(len(steps)))
    if isinstance(wanted, Step):
        return [i for i, step in enumerate(steps) if step == wanted]
    if isinstance(wanted, (int, np.integer)):
        numbers = sorted({step.index for step in steps})
        if wanted < 0:
            wanted = numbers[wanted] if -wanted <= len(numbers) else -1
        return [i for i, step in enumerate(steps) if step.index == wanted]
    several = _several("step", wanted, "a `Step.index`, a `Step`")
    return list(dict.fromkeys(i for one in several for i in pick_steps(steps, one)))


def _several(what: str, wanted: Any, one: str) -> Iterable[Any]:
    """A selector that is none of the single ones: it must be several of them."""
    if isinstance(wanted, str) or not np.iterable(wanted):
        raise SettingError(
            f"{what}={wanted!r}: give None for all, {one}, or several of these, as in a list or "
            f"range(0, 2)"
        )
    return wanted
