"""One training step's data: scenes as tensors, with the tokens that name each object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scribblediffusion.model.tokens import tokenize
from scribblediffusion.train.augment import freehand
from scribblediffusion.train.latents import Shard, unpack


@dataclass
class Batch:
    """One step's data. T is the longest caption's number of tokens."""

    latents: Tensor  # [B, 4, 32, 32]
    ink: Tensor  # [B, 1, 256, 256]
    ids: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool
    labels: np.ndarray  # [B, 32, 32] uint8, as in `Shard`
    words: Tensor  # [B, 3, T] bool: tokens that name object 0, 1, 2 or its colour

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def rows_of(step: int, *, scenes: int, batch: int, seed: int) -> np.ndarray:
    """Which scenes step number `step` sees: every scene once an epoch, in a new order each."""
    epoch, place = divmod(step, scenes // batch)
    order = np.random.default_rng([seed, epoch]).permutation(scenes)
    return order[place * batch : (place + 1) * batch]


def collate(data: Shard, rows: np.ndarray, tokenizer: Any, rng: np.random.Generator) -> Batch:
    """The scenes numbered `rows` as one batch, each sketch as a freehand drawer gives it."""
    captions = [data.captions[i] for i in rows]
    ids, mask = tokenize(tokenizer, captions, crop=True)
    words = torch.zeros(len(rows), 3, ids.shape[1], dtype=torch.bool)
    offsets = tokenizer(captions, return_offsets_mapping=True)["offset_mapping"]
    for row, i in enumerate(rows):
        for number, _, start, end in data.spans[i]:
            for token, (a, b) in enumerate(offsets[row]):
                if start <= a < b <= end:
                    words[row, number, token] = True
    latents = torch.from_numpy(data.latents[rows]).float()
    ink = torch.from_numpy(np.stack([freehand(one, rng) for one in unpack(data.ink[rows])]))
    return Batch(latents, ink[:, None], ids, mask, data.labels[rows], words)
