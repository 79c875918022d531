"""What a pipeline may tell an observer: how its keys are laid out, and when a run goes on.

Nothing here is needed for a foreign pipeline: there the extractor finds tokens, words, branches
and runs by itself. A pipeline that knows better offers two things, both optional.

**`pipe.key_layout() -> KeyLayout`**: for the run that is going on. It is asked at the first
denoiser call of each run, on the thread that runs it, and must be right from then on: streams,
sketch regions, and the branches, equal chunks of the batch in their order, each with one `Prompt`
for each picture (tokens, padding marked; words): what these rows hold, the empty prompt where
guidance leaves the words out. Keys are counted as in the softmax. Every key is in exactly one
stream (names with a dot, ``text.clip``, name a part of one and do not count).

**`pipe.observers`**, a plain list that is empty unless somebody looks. The extractor appends
itself on enter and removes itself on exit; the pipeline calls, on the thread that runs it:

    observer.run_begins(prompts, sketch, settings)   # before the first denoiser call of a run
    observer.step_ends(preview)                      # after each scheduler step
    observer.run_ends(pictures)                      # once, when the pictures are decoded

- `prompts`: list[str], one for each picture. `sketch`: uint8 ``[H, W]`` of the first picture, as
  the model read it, or None. `settings`: plain JSON values (seed, steps, guidance, sizes …), kept
  with the trace. `sketches=[Sketch or None, …]`, one for each picture, is given too where `sketch`
  does not tell all: where there are masks, or pictures have sketches of their own.
- `preview`: uint8 ``[h, w, 3]`` of the first picture, or None. Decode one only if some observer
  has `wants_previews` true.
- `pictures`: uint8 ``[H, W, 3]`` each. A run that is stopped or fails never gets this call; its
  trace is kept as far as it went and says ``complete=False``. A run that is stopped on purpose
  and still decodes what there is may call it with ``run_ends(pictures, complete=False)``.

A call to an observer changes nothing in the run. Loop over a copy, ``for o in list(observers)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from scribblediffusion.attention.records import Prompt, Region, Token, Word, region_name
from scribblediffusion.errors import CaptureError
from scribblediffusion.prompt import Reading
from scribblediffusion.sketch import Sketch

__all__ = ["KeyLayout", "RunObserver", "prompt_record", "region_name"]


class RunObserver(Protocol):
    """Whoever is in `pipe.observers`; the module's docstring has the rules."""

    wants_previews: bool

    def run_begins(
        self,
        prompts: list[str],
        sketch: np.ndarray | None,
        settings: Mapping[str, Any],
        *,
        sketches: Sequence[Sketch | None] = (),
    ) -> None:
        """A run begins: its denoiser calls follow."""
        ...

    def step_ends(self, preview: np.ndarray | None) -> None:
        """The scheduler made a step."""
        ...

    def run_ends(self, pictures: Sequence[np.ndarray] | np.ndarray, complete: bool = True) -> None:
        """The pictures are there."""
        ...


@dataclass(frozen=True)
class KeyLayout:
    """What the keys of the present run stand for, and how its batch is cut.

    Attributes:
        streams: Name → range of keys, without gap or overlap; dotted names are parts.
        branches: Name → the prompts that its rows hold, one for each picture. The branches are the
            equal chunks of the batch in order: ``full`` alone without guidance,
            ``unconditional``, ``sketch_only``, ``full`` with both dials of the shipped model.
        regions: Sketch region → key.
        picture_size: (height, width) in pixels of the pictures; None if not known.

    Raises:
        CaptureError: The streams have a gap or overlap, no branch is called ``full``, or the
            branches have different numbers of prompts.
    """

    streams: Mapping[str, range]
    branches: Mapping[str, tuple[Prompt, ...]]
    regions: Mapping[Region, int] = field(default_factory=dict)
    picture_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        whole = sorted((r for s, r in self.streams.items() if "." not in s), key=lambda r: r.start)
        starts = [r.start for r in whole]
        if starts != [0, *(r.stop for r in whole)][: len(starts)]:
            raise CaptureError(f"key layout: streams {dict(self.streams)} have a gap or overlap")
        sizes = {name: len(prompts) for name, prompts in self.branches.items()}
        if "full" not in sizes or len(set(sizes.values())) > 1:
            raise CaptureError(
                f"key layout: the branches have so many prompts: {sizes}; they must have one for "
                f"each picture, all of them, and one must be 'full'"
            )

    @classmethod
    def of_text_and_sketch(
        cls,
        branches: Mapping[str, Sequence[Reading]],
        *,
        text_length: int = 77,
        regions: Sequence[Region] = (),
        picture_size: tuple[int, int] | None = None,
    ) -> KeyLayout:
        """The shipped model's layout: the text tokens, then one key for each sketch region.

        Args:
            branches: Chunks of the batch, in order → what the tokenizer made of the prompt that
                each picture has in this chunk (`prompt.read`).
            text_length: Keys of the text stream, padding included.
            regions: The sketch's regions in key order; none for a model without a sketch.
            picture_size: (height, width) in pixels.
        """
        streams = {"text": range(text_length)}
        if regions:
            streams["sketch"] = range(text_length, text_length + len(regions))
        keyed = {r: text_length + i for i, r in enumerate(regions)}
        sketch = tuple(Token(key, region_name(r), "sketch") for r, key in keyed.items())

        def prompt(reading: Reading) -> Prompt:
            text = prompt_record([(reading, range(text_length))])
            return replace(text, tokens=text.tokens + sketch)

        held = {name: tuple(map(prompt, readings)) for name, readings in branches.items()}
        return cls(streams, held, keyed, picture_size)


def prompt_record(
    readings: Sequence[tuple[Reading, Sequence[int]]],
    stream: str = "text",
    beside: Sequence[tuple[Reading, Sequence[int]]] = (),
) -> Prompt:
    """One prompt as read by one or more tokenizers.

    Args:
        readings: What each tokenizer made of it, with the key of each of its tokens. The first
            one names the words; the sub-tokens of the others join the words at the same place.
        stream: The stream that all of them belong to.
        beside: Readings on keys that the others named already (SDXL): they add words alone.
    """
    tokens = tuple(
        Token(key, piece.text, stream, piece.id, piece.special, piece.padding)
        for reading, keys in readings
        for piece, key in zip(reading.pieces, keys, strict=False)
    )
    words: dict[tuple[str, int], Word] = {}
    seen_whole: set[tuple[str, int]] = set()
    texts: list[list[tuple[str, int]]] = []
    for reading, keys in (*readings, *beside):
        text, length = [], 0  # its words, and how many of them lie before the length limit
        for word in reading.words:
            own = tuple(keys[i] for i in word.tokens if i < len(keys))
            name = (word.text.casefold(), word.occurrence)
            known = words.get(name, Word(word.text, (), word.occurrence, word.start))
            words[name] = replace(known, keys=tuple(dict.fromkeys(known.keys + own)))
            text.append(name)
            if own:
                length = len(text)
            if word.whole:
                seen_whole.add(name)
        texts.append(text[:length])
    # The words of the first prompt, then what the others add.
    kept = dict.fromkeys(name for text in texts for name in text if words[name].keys)
    number = {name: i for i, name in enumerate(kept)}
    return Prompt(
        readings[0][0].text,
        tuple(sorted(tokens, key=lambda t: t.key)),
        tuple(words[name] for name in kept),
        tuple(word.text for name, word in words.items() if name not in seen_whole),
        decoded=readings[0][0].decoded,
        texts=_several([number[name] for name in text if name in number] for text in texts),
    )


def _several(texts: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The words of several prompts, each once; nothing if there is only one (`Prompt.texts`).

    A prompt that is how another one begins, as one encoder cuts off what another reads, is none.
    """
    each = tuple(dict.fromkeys(tuple(text) for text in texts))
    apart = tuple(t for t in each if not any(t == o[: len(t)] for o in each if o != t))
    return apart if len(apart) > 1 else ()
