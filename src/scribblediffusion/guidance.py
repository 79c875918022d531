"""What a run listens to, and how much: words and strokes, and the two guidance dials.

After InstructPix2Pix (Brooks et al. 2023), with v₀ the velocity without conditions, v_s with the
sketch alone and v_full with both:

    v = v₀ + g_sketch·(v_s − v₀) + g_text·(v_full − v_s)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scribblediffusion.prompt import Reading
from scribblediffusion.sketch import Sketch


@dataclass(frozen=True)
class Condition:
    """What one run listens to, for B pictures.

    Attributes:
        prompts: B prompts; empty means no text.
        readings: each prompt as the tokenizer read it.
        sketches: B cleaned sketches, None where there is none, or no ink.
        ids: `[B, 77]` token ids.
        text: `[B, 77]` bool, False for padding.
        regions: `[B, 77]` bool, False for sketch regions that have no say.
        ink: `[B, 1, 256, 256]`, 1 where there is ink and 0 elsewhere.
    """

    prompts: tuple[str, ...]
    readings: tuple[Reading, ...]
    sketches: tuple[Sketch | None, ...]
    ids: Tensor
    text: Tensor
    regions: Tensor
    ink: Tensor

    @property
    def has_text(self) -> bool:
        """Whether any picture of the batch has words."""
        return any(prompt.strip() for prompt in self.prompts)

    @property
    def one_sketch(self) -> bool:
        """Whether the ink of the first picture tells of all: no masks, the same ink everywhere."""
        inks = {None if s is None else s.ink.tobytes() for s in self.sketches}
        return len(inks) == 1 and all(s is None or s.mask is None for s in self.sketches)

    @property
    def has_sketch(self) -> bool:
        """Whether any picture of the batch has ink."""
        return bool(self.regions.any())


def branch_weights(condition: Condition, text: float, sketch: float) -> dict[str, float]:
    """The guidance branches of one call, in batch order, each with its share of the velocity.

    The dials' equation collects to (1 − g_sketch)·v₀ + (g_sketch − g_text)·v_s + g_text·v_full.
    A sketch dial of 1 leaves v₀ out, both at 1 leave v_s out too. Without a sketch v_s is v₀,
    without words v_full is v_s: such twins are run once.
    """
    return _weights(condition.has_text, condition.has_sketch, text, sketch)


def row_weights(condition: Condition, text: float, sketch: float) -> list[dict[str, float]]:
    """What each picture takes of the branches of `branch_weights`: as if all were of its kind.

    A picture without words or without ink has twins among the branches of the others, and takes
    one of each, so that its bits do not depend on them.
    """
    run = branch_weights(condition, text, sketch)
    rows = []
    for prompt, ink in zip(condition.prompts, condition.regions.any(1).tolist(), strict=True):
        own = _weights(bool(prompt.strip()), ink, text, sketch)
        # without ink "sketch_only" hears nothing either, and stands in where the first is not run
        rows.append({name if name in run else "sketch_only": share for name, share in own.items()})
    return rows


def _weights(words: bool, ink: bool, text: float, sketch: float) -> dict[str, float]:
    if words and ink:
        found = {"unconditional": 1 - sketch, "sketch_only": sketch - text, "full": text}
    elif words or ink:
        dial = text if words else sketch
        found = {"unconditional": 1 - dial, "full": dial}
    else:
        found = {"full": 1.0}
    while next(iter(found.values())) == 0 and len(found) > 1:
        found.pop(next(iter(found)))
    return found
