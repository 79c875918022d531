"""What a run may be asked: settings, prompts and seeds, checked before anything is drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from scribblediffusion.errors import PromptError, SettingError

if TYPE_CHECKING:
    import torch

#: The default dials of the shipped model: a first choice, not yet tuned by measurement.
GUIDANCE, SKETCH_GUIDANCE = 3.0, 1.5
MAX_PROMPT, MAX_STEPS, MAX_GUIDANCE, MAX_BATCH = 2000, 1000, 30.0, 64


def seeded(seed: int, count: int = 1) -> list[torch.Generator]:
    """`count` generators with seeds `seed`, `seed + 1`, …: one for each picture.

    Raises:
        SettingError: a seed that is no whole number, or that no generator takes.
    """
    import torch

    if not _whole(seed) or not 0 <= seed <= 2**64 - count:
        raise SettingError(f"seed {seed!r}: a whole number from 0 to {2**64 - count}")
    return [torch.Generator("cpu").manual_seed(int(seed) + i) for i in range(count)]


def seeds_of(generator: torch.Generator | list[torch.Generator] | None) -> dict[str, Any]:
    """What the generators were seeded with, to be kept with a run; nothing for unseeded noise."""
    if generator is None:
        return {}
    each = generator if isinstance(generator, (list, tuple)) else [generator]
    seeds = [one.initial_seed() for one in each]
    return {"seed": seeds[0]} | ({"seeds": seeds} if len(seeds) > 1 else {})


def check_settings(steps: Any, guidance: Any, sketch_guidance: Any) -> None:
    """Refuse settings out of their range.

    Raises:
        SettingError: names the setting, what was found, and its range.
    """
    if not _whole(steps) or not 1 <= steps <= MAX_STEPS:
        raise SettingError(f"num_inference_steps {steps!r}: a whole number from 1 to {MAX_STEPS}")
    for name, dial in (("guidance_scale", guidance), ("sketch_guidance_scale", sketch_guidance)):
        number: Any = dial if isinstance(dial, Real) and not isinstance(dial, bool) else math.nan
        if not 0 <= number <= MAX_GUIDANCE:  # what is no number is in no range
            raise SettingError(f"{name} {dial!r}: a number from 0 to {MAX_GUIDANCE:g}")


def check_prompts(prompt: str | Sequence[str], count: int = 1) -> list[str]:
    """The prompts of one call as a list.

    Args:
        prompt: one, or several.
        count: pictures for each.

    Raises:
        PromptError: not text, no whole characters, too long, none, or too many.
        SettingError: `count` is no whole number from 1.
    """
    prompts = listed(prompt)
    for one in prompts:
        if not isinstance(one, str):
            raise PromptError(f"a prompt must be text, found {type(one).__name__}: {one!r}")
        if len(one) > MAX_PROMPT:
            raise PromptError(
                f"the prompt has {len(one)} characters; at most {MAX_PROMPT} are read, and the "
                "model listens to the first 75 tokens: shorten it"
            )
        if half := re.search(r"[\ud800-\udfff]", one):
            raise PromptError(
                f"the prompt's character {half.start() + 1}, {half[0]!r}, is half of a character, "
                "or a byte that is no UTF-8: write it again"
            )
    if not _whole(count) or count < 1:
        raise SettingError(f"num_images_per_prompt {count!r}: a whole number from 1")
    if not 1 <= len(prompts) * count <= MAX_BATCH:
        raise PromptError(f"{len(prompts) * count} pictures in one call: from 1 to {MAX_BATCH}")
    return prompts


def _whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def listed(prompt: Any) -> list[Any]:
    """One prompt or several as a list."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, (list, tuple)):
        return list(prompt)
    raise PromptError(
        f'a prompt must be text or a list of texts, found {type(prompt).__name__}; give "" for none'
    )


def one_each(given: Any, count: int, what: str) -> list[Any]:
    """One thing for all prompts, or one for each."""
    each = list(given) if isinstance(given, (list, tuple)) else [given] * count
    if len(each) != count:
        raise PromptError(
            f"{count} prompts but {len(each)} {what}: give one for all, "
            "or one (or None) for each prompt"
        )
    return each


def check_generator(generator: Any, count: int) -> None:
    """Refuse what is no generator, and another number of them than of pictures.

    Raises:
        SettingError: names what was found.
    """
    import torch

    several = isinstance(generator, (list, tuple))
    each = list(generator) if several else [generator]
    if several and len(each) != count:
        raise SettingError(f"{count} pictures need {count} generators, found {len(each)}")
    for one in each:
        if not isinstance(one, torch.Generator) and (several or one is not None):
            raise SettingError(
                f"generator {one!r}: a torch.Generator or a list of them, as "
                "scribblediffusion.settings.seeded(seed) gives"
            )
