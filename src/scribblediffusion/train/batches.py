"""One training step's data: scenes as tensors, with the tokens that name each object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from scribblediffusion.model.tokens import tokenize
from scribblediffusion.train.augment import freehand
from scribblediffusion.train.latents import Shard, unpack
from scribblediffusion.train.objects import FAMILIES, meanings

#: What spans name → what their words mean, as numbers.
VOCABULARY: dict[str, dict[str, int]] = {
    "noun": meanings(),
    "colour": {family: number for number, family in enumerate(FAMILIES)},
}


@dataclass(kw_only=True)
class Words:
    """What is known of a step's scenes without a look at them. T is the longest caption's length.

    Attributes:
        ids: `[B, T]`, the captions' tokens.
        mask: `[B, T]` bool, False for padding.
        words: `[B, 3, T]` bool, the tokens that name object 0, 1, 2 or its colour.
        nouns: `[B, 3]`, places in `objects.known()`, −1 where there is no such object.
        colours: `[B, 3]`, places in `objects.FAMILIES`, −1 where no colour is named.
        labels: `[B, 32, 32]` uint8, where the objects lie, as in `Shard`.
    """

    ids: Tensor
    mask: Tensor
    words: Tensor
    nouns: Tensor
    colours: Tensor
    labels: np.ndarray

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(kw_only=True)
class Batch(Words):
    """One step's data.

    Attributes:
        latents: `[B, 4, 32, 32]`.
        ink: `[B, 1, 256, 256]`.
    """

    latents: Tensor
    ink: Tensor


def chosen(data: Shard, alone: float, seed: int) -> np.ndarray:
    """The numbers of the scenes that are used: of those of one object only a share."""
    single = np.array([len({span[0] for span in spans}) < 2 for spans in data.spans])
    return np.flatnonzero(~single | (np.random.default_rng(seed).random(len(data)) < alone))


def rows_of(step: int, *, scenes: int, batch: int, seed: int) -> np.ndarray:
    """Which scenes step number `step` sees: every scene once an epoch, in a new order each."""
    epoch, place = divmod(step, scenes // batch)
    order = np.random.default_rng([seed, epoch]).permutation(scenes)
    return order[place * batch : (place + 1) * batch]


def read(data: Shard, rows: np.ndarray, tokenizer: Any) -> Words:
    """The captions of the scenes numbered `rows`, and what their words name."""
    captions = [data.captions[i] for i in rows]
    ids, mask = tokenize(tokenizer, captions, crop=True)
    words = torch.zeros(len(rows), 3, ids.shape[1], dtype=torch.bool)
    offsets = tokenizer(captions, return_offsets_mapping=True)["offset_mapping"]
    named = {what: torch.full((len(rows), 3), -1) for what in VOCABULARY}
    for row, i in enumerate(rows):
        for number, what, start, end in data.spans[i]:
            named[what][row, number] = VOCABULARY[what].get(captions[row][start:end], -1)
            for token, (a, b) in enumerate(offsets[row]):
                if start <= a < b <= end:
                    words[row, number, token] = True
    return Words(
        ids=ids,
        mask=mask,
        words=words,
        nouns=named["noun"],
        colours=named["colour"],
        labels=data.labels[rows],
    )


def collate(data: Shard, rows: np.ndarray, tokenizer: Any, rng: np.random.Generator) -> Batch:
    """The scenes numbered `rows` as one batch, each sketch as a freehand drawer gives it."""
    latents = torch.from_numpy(data.latents[rows]).float()
    ink = torch.from_numpy(np.stack([freehand(one, rng) for one in unpack(data.ink[rows])]))
    return Batch(**vars(read(data, rows, tokenizer)), latents=latents, ink=ink[:, None])
