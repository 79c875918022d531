"""What the running calls of a pipeline say, read from their frames and never written.

Pipelines keep their prompts, and some of them whether there is guidance, in local variables alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Texts:
    """Texts among the variables of a pipeline's running calls.

    Attributes:
        prompts: Those that are prompts, made ready by the pipeline or not.
        negatives: Those that are negative prompts; a text may be both.
        given: Those of the outermost call: as the person gave them.
    """

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    given: tuple[str, ...]

    def wanted(self, text: str) -> bool | None:
        """Whether a text is a prompt or a negative one; None if it is both, or neither."""
        positive, negative = text in self.prompts, text in self.negatives
        return None if positive == negative else positive


def methods(thread: int | None = None) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Each running call of a method, the innermost first: its object, and its variables.

    Args:
        thread: Number of the thread that is looked at; None for this one.
    """
    frame = sys._getframe() if thread is None else sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_varnames[:1] == ("self",):
            yield frame.f_locals.get("self"), frame.f_locals
        frame = frame.f_back


def calls_of(target: Any, thread: int | None = None) -> Iterator[Mapping[str, Any]]:
    """Variables of each running call of a method of this object, the innermost call first."""
    return (values for one, values in methods(thread) if one is target)


def is_running(target: Any, thread: int | None = None) -> bool:
    """Whether a thread (None: this one) is inside a method of this object at the moment."""
    return any(True for _ in calls_of(target, thread))


def at_work(pipe: Any, thread: int | None = None) -> Any:
    """The pipeline that runs: this one, or another that has its denoiser; None if nobody does.

    What a pipeline says of guidance or steps holds while it runs, and lies about afterwards.
    """
    found = None
    for one, _ in methods(thread):
        if one is pipe or _shares_denoiser(one, pipe):
            found = one  # the outermost: pipelines may call others
    return found


def _shares_denoiser(one: Any, pipe: Any) -> bool:
    if pipe is None or not hasattr(type(one), "components"):
        return False
    pairs = ((getattr(x, name, None) for x in (one, pipe)) for name in ("unet", "transformer"))
    return any(mine is not None and mine is other for mine, other in pairs)


def said(target: Any, name: str) -> Any:
    """A variable of the outermost running call that has one of this name, or None."""
    found = None
    for values in calls_of(target):
        found = values.get(name, found)
    return found


def calls_said(pipe: Any) -> int | None:
    """How many timesteps the pipeline that is `at_work` says it makes; None if none is running."""
    count = getattr(at_work(pipe), "_num_timesteps", None)
    return count if isinstance(count, int) else None


def texts_in_sight(pipe: Any) -> Texts:
    """Prompts and negative prompts of the running calls of the pipeline that is `at_work`.

    They are only to be checked against token numbers: a text that does not give the numbers is
    never used.
    """
    kinds: dict[str, set[str]] = {}
    given: list[str] = []
    running = at_work(pipe)
    for values in () if running is None else calls_of(running):
        given, own = [], {}
        for name, value in values.items():
            if "prompt" in name or "uncond" in name or name in ("text", "texts"):
                kind = "negative" if "negative" in name or "uncond" in name else "prompt"
                for text in _strings(value):
                    given.append(text)
                    own.setdefault(text, set()).add(kind)
        # The outermost call has the last word: helpers call everything a prompt.
        kinds |= own
    prompts, negatives = (
        tuple(text for text, one in kinds.items() if kind in one) for kind in ("prompt", "negative")
    )
    return Texts(prompts, negatives, tuple(given))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [x for x in value if isinstance(x, str)] if isinstance(value, (list, tuple)) else []
