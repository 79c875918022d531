"""Prompt -> token ids, with the shipped WordPiece vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scribblediffusion.model.text import TEXT_TOKENS

#: Numbers of `[CLS]` and `[SEP]`: what an empty prompt is made of.
EMPTY_PROMPT = (101, 102)


def tokenize(
    tokenizer: Any, prompts: Sequence[str], *, crop: bool = False
) -> tuple[Tensor, Tensor]:
    """Token ids and mask, `[B, 77]` each; with `crop` only as wide as the longest prompt.

    An empty prompt is `[CLS] [SEP]`. What exceeds 77 tokens is cut off, `[SEP]` kept.
    """
    encoded = tokenizer(
        list(prompts),
        padding="longest" if crop else "max_length",
        max_length=TEXT_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    return encoded["input_ids"], encoded["attention_mask"].to(torch.bool)
