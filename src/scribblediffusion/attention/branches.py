"""Which rows of the denoiser's batch are wanted, and which prompt each of them has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from scribblediffusion.attention.encoders import EncoderWatch, Row
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.records import Prompt
from scribblediffusion.attention.sight import at_work, said

_log = logging.getLogger(__name__)

Branch = Literal["full", "sketch_only", "unconditional"]


@dataclass(frozen=True)
class Rows:
    """The rows of one denoiser call that are recorded; none if it has none of the branch."""

    numbers: tuple[int, ...]
    prompts: tuple[Prompt, ...]


def rows_of_layout(layout: KeyLayout, batch: int, branch: Branch) -> Rows:
    """The chunk of the batch that a pipeline's own layout calls by this name."""
    if branch not in layout.branches:
        return Rows((), ())
    size = batch // len(layout.branches)
    start = list(layout.branches).index(branch) * size
    prompts = layout.branches[branch] or (Prompt(named=False),)
    chosen = tuple(prompts[i % len(prompts)] for i in range(size))
    return Rows(tuple(range(start, start + size)), chosen)


def rows_of_condition(
    pipe: Any, watch: EncoderWatch | None, condition: Tensor, branch: Branch
) -> Rows:
    """The rows of a foreign pipeline, by what their text encoders gave.

    Where comparing does not tell them apart (embeddings made beforehand or weighted, or a prompt
    that is the same as the negative one) the running pipeline's own word on guidance decides, with
    diffusers' usual order. A hand-written loop says nothing: then every row is taken.
    """
    batch = condition.shape[0]
    if pipe is None:
        whole = tuple(range(batch)) if branch == "full" else ()
        return Rows(whole, tuple(Prompt(named=False) for _ in whole))
    rows = watch.rows(condition) if watch else [Row(Prompt(named=False), None)] * batch
    pipe = at_work(pipe)
    guided = pipe is not None and _guided(pipe)
    positive = [i for i, row in enumerate(rows) if row.positive]
    if not _told_apart(rows, len(positive), guided):
        positive = _by_order(pipe, batch, guided)
    perturbed = bool(getattr(pipe, "do_perturbed_attention_guidance", False))
    if perturbed:  # its rows repeat the prompt, last of all
        last = batch - batch // (3 if guided else 2)
        positive = [i for i in positive if i < last]
    wanted = positive if branch == "full" else _rest(positive, batch, perturbed, guided)
    return Rows(tuple(wanted), tuple(rows[i].prompt for i in wanted))


def _guided(pipe: Any) -> bool:
    """Whether a pipeline says that it guides; PixArt says it in a variable of its call alone."""
    own = getattr(pipe, "do_classifier_free_guidance", None)
    return bool(said(pipe, "do_classifier_free_guidance") if own is None else own)


def _told_apart(rows: Sequence[Row], positive: int, guided: bool) -> bool:
    """Whether comparing told which rows are those of the prompt.

    With guidance they cannot all be, and none of them only if all are known to be negative, as
    where each part of the guidance has a call of its own.
    """
    if any(row.positive is None for row in rows):
        return False
    if guided and positive == len(rows):
        return False
    known = [row.prompt.named for row in rows]
    return positive > 0 or (all(known) if guided else any(known))


def _by_order(pipe: Any, batch: int, guided: bool) -> list[int]:
    """Wanted rows where the embeddings do not tell them apart."""
    whole = list(range(batch))
    if not guided or (batch % 2 and batch % 3):
        return whole
    if "Pix2Pix" in type(pipe).__name__:  # text and picture, picture, neither
        return whole[: batch // 3]
    parts = 3 if getattr(pipe, "do_perturbed_attention_guidance", False) else 2
    _log.info("branches of the guidance batch told by diffusers' usual order")
    return whole[batch // parts : 2 * (batch // parts)]


def _rest(positive: list[int], batch: int, perturbed: bool, guided: bool) -> list[int]:
    last = batch - (batch // (3 if guided else 2) if perturbed else 0)
    return [i for i in range(last) if i not in positive]
