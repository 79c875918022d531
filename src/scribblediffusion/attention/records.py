"""The small nouns of a trace: tokens, words, prompts, layers, steps and columns.

Frozen, made of plain values, and written to a saved trace as they are. A **key** is a column of
the softmax that the model computed: in the shipped model 0–76 are text and 77–153 are sketch.
"""

from __future__ import annotations

from dataclasses import dataclass

from scribblediffusion.sketch import Region

__all__ = [
    "CONDITION",
    "Column",
    "Layer",
    "Prompt",
    "Region",
    "Step",
    "Token",
    "Word",
    "region_name",
]

#: `Layer.source` of every layer that attends to the condition itself.
CONDITION = "condition"


@dataclass(frozen=True)
class Token:
    """One key that stands for a piece of text or a region of the sketch.

    Attributes:
        key: Column of the model's softmax.
        text: The piece as a person reads it: ``"apple"``, ``"##ed"``, ``"8×8 (2, 3)"``.
        stream: Name of the stream that the key belongs to.
        id: Number in the tokenizer's vocabulary; None for what no tokenizer made.
        special: A start, end or separator token; it stands for no word.
        padding: Fills the length; left out of a record made with ``tokens="used"``.
    """

    key: int
    text: str
    stream: str = "text"
    id: int | None = None
    special: bool = False
    padding: bool = False


@dataclass(frozen=True)
class Word:
    """One word of the prompt, as a set of keys. A repeated word is another word.

    Attributes:
        text: As written in the prompt, or as decoded where only token numbers were seen.
        keys: Its sub-tokens, in every text encoder that gave keys.
        occurrence: 0 for the first time that this word is in the prompt, then 1, 2, …
        start: Position of the first character in the prompt.
    """

    text: str
    keys: tuple[int, ...]
    occurrence: int = 0
    start: int = 0


@dataclass(frozen=True)
class Prompt:
    """What one picture of the batch was conditioned on.

    Attributes:
        text: The prompt; decoded from token numbers where the text was not seen.
        tokens: Every key that has a name, in key order (padding included).
        words: The words in the order of the prompt; those of further prompts, that other encoders
            read, after them. A word of two prompts has the keys of both.
        texts: Where there are several prompts: the words of each, in its order, as positions in
            `words`, as far as its encoder read it. A phrase lies in one of them.
        truncated: Words that the length limit cut off: the model never saw them.
        named: False with precomputed embeddings: the tokens are only numbered, no words.
        decoded: True where the text was decoded from token numbers: its spaces mean nothing.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    words: tuple[Word, ...] = ()
    truncated: tuple[str, ...] = ()
    named: bool = True
    decoded: bool = False
    texts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Layer:
    """One attention module whose keys include the condition.

    Attributes:
        name: Path of the module inside the denoiser.
        heads: Attention heads that the module has (a trace may keep their mean alone).
        height: Rows of places as recorded.
        width: Columns of places as recorded.
        keys: Length of the softmax, all keys counted.
        source: ``"condition"``, or the name of an IP-Adapter: a softmax of its own.
        adapter_scale: Factor on an IP-Adapter's output; None for the condition.
        thinned_from: (height, width) of the model's own grid where the memory limit made the
            record coarser; None where the record is as fine as the model.
    """

    name: str
    heads: int
    height: int
    width: int
    keys: int = 0
    source: str = CONDITION
    adapter_scale: float | None = None
    thinned_from: tuple[int, int] | None = None

    @property
    def places(self) -> int:
        """How many places the record has: height × width."""
        return self.height * self.width


@dataclass(frozen=True)
class Step:
    """One call of the denoiser, in the order run: most noise first.

    Attributes:
        index: Number of the sampling step, from 0. Schedulers such as Heun and PNDM call the
            model more than once in a step: those calls share the index.
        call: Which call of the step, from 0.
        timestep: As the scheduler counts it (0–1000 in most); None where unknown.
        sigma: The scheduler's own noise level; None where it has none.
        noise_remaining: b/(a+b) for a sample a·image + b·noise, 0…1; None where not known.
    """

    index: int
    call: int = 0
    timestep: float | None = None
    sigma: float | None = None
    noise_remaining: float | None = None

    def __str__(self) -> str:
        if self.noise_remaining is None:
            return "Noise remaining: not known"
        return f"Noise remaining: {100 * self.noise_remaining:.0f}%"


@dataclass(frozen=True)
class Column:
    """One column of a record: a key, or the sum of keys that were not kept one by one.

    Attributes:
        stream: The stream that it belongs to.
        key: The model's key; None for a sum.
        rest: True where the column is the sum of the keys of `stream` that were left out
            (padding). False with `key` None means the whole stream as one number, as for the
            `image` stream of joint attention.
    """

    stream: str
    key: int | None = None
    rest: bool = False


def region_name(region: Region) -> str:
    """A region as a token's text: ``8×8 (2, 3)``."""
    return f"{region.level}×{region.level} ({region.row}, {region.column})"
