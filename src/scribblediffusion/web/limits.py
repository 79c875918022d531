"""What a stranger may ask for: limits that the server checks, whatever the page allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scribblediffusion.errors import PromptError, SettingError, SketchError
from scribblediffusion.settings import check_prompts
from scribblediffusion.sketch import Sketch


@dataclass(frozen=True)
class Limits:
    """The most that one visitor, and all of them together, may ask for.

    Attributes:
        prompt: characters of a prompt.
        steps: denoising steps.
        guidance: of either dial.
        upload: bytes of one uploaded file.
        body: bytes of any other request.
        pixels: of each picture that is decoded.
        layers: of one drawing.
        waiting: runs that wait, all visitors together; one more is refused.
        mine: runs that one visitor may have waiting or going on.
        stored: bytes of drawings that were sent in parts and not yet used, of one board: that of
            all pages, or of a page whose board the server has changed.
        sent: bytes of pictures that one address may send within `keep_seconds`.
        held: bytes that all visitors together may upload within `keep_seconds`.
        keep_seconds: how long temporary files stay.
        attention: bytes of attention in memory, of one run and of all that are remembered: of a
            larger run the heads are averaged, and it says so.
        pages: open pages whose state is kept; of more, those that were used last. A page that is
            left out goes on, and has forgotten its last seed.
    """

    prompt: int = 500
    steps: int = 100
    guidance: float = 20.0
    upload: int = 15_000_000
    body: int = 2_000_000
    pixels: int = 16_000_000
    layers: int = 6
    waiting: int = 16
    mine: int = 2
    stored: int = 60_000_000
    sent: int = 400_000_000
    held: int = 1_000_000_000
    keep_seconds: int = 3600
    attention: int = 1 << 29
    pages: int = 100


@dataclass(frozen=True)
class Order:
    """One run that was asked for, checked.

    Attributes:
        prompt: what to draw; "" for the sketch alone.
        sketch: the cleaned sketch, None where nothing is drawn.
        steps: denoising steps.
        guidance: how much the words count.
        sketch_guidance: how much the sketch counts.
        seed: same seed, same picture.
        model: name of the model as the operator offers it.
        each_head: keep every head's maps, not only their mean.
        stop_after: stop after so many steps, as the run did that is made again; None for no stop.
        note: what this run was made from, kept with it.
    """

    prompt: str
    sketch: Sketch | None
    steps: int
    guidance: float
    sketch_guidance: float
    seed: int
    model: str = ""
    each_head: bool = False
    stop_after: int | None = None
    note: dict[str, Any] = field(default_factory=dict)


def checked(order: Order, limits: Limits) -> Order:
    """The order itself, if it keeps within the limits.

    Raises:
        PromptError, SettingError, SketchError: it does not; the message is for people.
    """
    if not isinstance(order.prompt, str):
        raise PromptError("the prompt must be text")
    if len(order.prompt) > limits.prompt:
        raise PromptError(
            f"the prompt has {len(order.prompt)} characters, and at most {limits.prompt} are read; "
            "make it shorter"
        )
    check_prompts(order.prompt)
    if order.sketch is None and not order.prompt.strip():
        raise SketchError("there is nothing to go by yet: draw something, or write a prompt")
    _whole("steps", order.steps, 1, limits.steps)
    _number("guidance of the words", order.guidance, limits.guidance)
    _number("guidance of the sketch", order.sketch_guidance, limits.guidance)
    _whole("seed", order.seed, 0, 2**63 - 1)
    return order


def whole(name: str, value: Any) -> int:
    """A whole number out of what a page or a program sent.

    Raises:
        SettingError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not _integral(value):
        raise SettingError(f"{name}: {_told(value)!r} is not a whole number")
    return int(value)


def _integral(value: float) -> bool:
    return isinstance(value, int) or value.is_integer()


def _told(value: Any) -> str:
    """What was sent, short enough to be read."""
    try:
        return str(value)[:40]
    except ValueError:  # more digits than Python writes out
        return "a number of thousands of digits"


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if not least <= whole(name, value) <= most:
        raise SettingError(f"{name}: {_told(value)} was asked for; choose from {least} to {most}")


def _number(name: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"{name}: {_told(value)!r} is not a number")
    if not 0 <= value <= most:  # which NaN is not either
        raise SettingError(f"{name}: {_told(value)} was asked for; choose from 0 to {most:g}")
