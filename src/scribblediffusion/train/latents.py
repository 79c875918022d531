"""Scenes as the denoiser's training sees them: latents, ink, captions and object masks.

Computed once into shards (`shard-0000.npz`), since encoding and drawing cost more than reading.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from scribblediffusion.errors import InputError
from scribblediffusion.gallery.durable import sync_file
from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.train.autoencoder import to_tensor
from scribblediffusion.train.precision import autocast
from scribblediffusion.train.scenes import Scene, scene

#: Characters of the caption: (object number, "colour" or "noun", start, end).
Span = tuple[int, str, int, int]


@dataclass
class Shard:
    """Scenes ready for training.

    Attributes:
        latents: `[N, 4, 32, 32]` float16, standardised.
        ink: `[N, 8192]` uint8, 256×256 bits packed.
        labels: `[N, 32, 32]` uint8, 0 for ground, i + 1 for object i.
        captions: N prompts.
        spans: for each caption, where its colour words and nouns stand.
    """

    latents: np.ndarray
    ink: np.ndarray
    labels: np.ndarray
    captions: list[str]
    spans: list[list[Span]]

    def __len__(self) -> int:
        return len(self.captions)

    def save(self, path: Path) -> None:
        """One uncompressed npz, there whole or not at all."""
        text = np.array(json.dumps([self.captions, self.spans]))
        partial = path.with_suffix(".tmp")
        with partial.open("wb") as file:
            np.savez(file, latents=self.latents, ink=self.ink, labels=self.labels, text=text)
        sync_file(partial)
        partial.replace(path)

    @classmethod
    def load(cls, paths: list[Path]) -> Shard:
        """Several files as one.

        Raises:
            InputError: one of them is damaged.
        """
        parts = [cls._read(path) for path in paths]
        return cls(
            latents=np.concatenate([part.latents for part in parts]),
            ink=np.concatenate([part.ink for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            captions=[caption for part in parts for caption in part.captions],
            spans=[span for part in parts for span in part.spans],
        )

    @classmethod
    def _read(cls, path: Path) -> Shard:
        try:
            with path.open("rb") as file, np.load(file) as part:
                captions, where = json.loads(str(part["text"]))
                return cls(part["latents"], part["ink"], part["labels"], captions, where)
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
            raise InputError(
                f"{path}: no whole shard of scenes ({error}); delete it, or make it again with "
                "scribble train scenes"
            ) from error

    @classmethod
    def count(cls, path: Path) -> int:
        """How many scenes a file holds; 0 where it is missing or damaged."""
        try:
            return len(cls._read(path))
        except (InputError, FileNotFoundError):
            return 0


def spans(one: Scene) -> list[Span]:
    """Where the caption names each object and its colour, as character ranges."""
    found: list[Span] = []
    position = 0
    for number, placed in enumerate(one.objects):
        position = one.caption.index(placed.phrase, position)
        end = position + len(placed.phrase)
        noun = end - len(placed.noun)
        if placed.named:
            found.append((number, "colour", noun - 1 - len(placed.named), noun - 1))
        found.append((number, "noun", noun, end))
        position = end
    return found


def _drawn(job: tuple[int, int, str]) -> tuple:
    number, seed, split = job
    one = scene(number, seed=seed, split=split)
    ink = np.packbits(one.sketch > 127)
    return one.picture, ink, one.labels[4::8, 4::8], one.caption, spans(one)


def build(
    encoder: ScribbleAutoencoder,
    parts: Iterable[range],
    *,
    seed: int = 0,
    split: str = "train",
    processes: int = 2,
) -> Iterator[Shard]:
    """Draw and encode scenes: one shard for each range of numbers.

    The drawing processes are kept throughout, since each remembers the sprites it has drawn.
    """
    model: Any = encoder.eval()
    model.to(memory_format=torch.channels_last)
    with Pool(processes) as pool:
        for numbers in parts:
            jobs = [(i, seed, split) for i in numbers]
            yield _shard(encoder, pool.map(_drawn, jobs, chunksize=16))


@torch.no_grad()
def _shard(encoder: ScribbleAutoencoder, rows: list[tuple]) -> Shard:
    pictures, ink, labels, captions, where = zip(*rows, strict=True)
    batches = [to_tensor(np.stack(pictures[i : i + 32])) for i in range(0, len(rows), 32)]
    with autocast("cpu"):  # in bfloat16 the error is below 0.5 %
        encoded = [encoder.encode(batch) for batch in batches]
    latents = torch.cat(encoded).half().numpy()
    return Shard(latents, np.stack(ink), np.stack(labels), list(captions), list(where))


def unpack(ink: np.ndarray) -> np.ndarray:
    """Packed bits `[B, 8192]` to ink `[B, 256, 256]` uint8, 1 where there is ink."""
    return np.unpackbits(ink, axis=1).reshape(-1, 256, 256)


def object_masks(labels: np.ndarray, side: int) -> torch.Tensor:
    """Share of each cell that each of three objects covers: `[B, 3, side, side]`."""
    one_hot = torch.from_numpy(labels[:, None] == np.arange(1, 4)[None, :, None, None]).float()
    return F.adaptive_avg_pool2d(one_hot, side)
