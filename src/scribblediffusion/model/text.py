"""Prompt tokens: a frozen table of word meanings and a small trained transformer.

A word also says where the prompt puts it, in the code in which sketch tokens and the denoiser's
queries give their places: in "a red plug above a rocket", *red* and *plug* lie in the upper half.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (the loader looks here)
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.model.aligned import AlignedModel
from scribblediffusion.model.place import FEATURES, STRENGTH, orthonormal
from scribblediffusion.model.unet import CONTEXT_SEED

#: Text tokens of a prompt, `[CLS]` and `[SEP]` included.
TEXT_TOKENS = 77


class _Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PromptEncoder(AlignedModel, ConfigMixin):
    """Token ids `[B, T]` to context vectors `[B, T, width]`, T ≤ 77.

    The word table is that of a well-known sentence encoder (all-MiniLM-L6-v2, Apache-2.0),
    frozen and kept as 8-bit rows with one scale each: words never trained on lie near ones
    that were. Padding takes no part: its outputs are meaningless and must be masked.
    """

    @register_to_config
    def __init__(
        self,
        vocabulary: int = 30522,
        table_width: int = 384,
        width: int = 256,
        depth: int = 4,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{width} numbers a token cannot be shared by {heads} heads")
        self.register_buffer("table", torch.zeros(vocabulary, table_width, dtype=torch.int8))
        self.register_buffer("table_scale", torch.ones(vocabulary, 1))
        self.project = nn.Linear(table_width, width)
        self.position = nn.Parameter(torch.randn(TEXT_TOKENS, width) * 0.3)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.place = nn.Linear(width, FEATURES)
        nn.init.zeros_(self.place.weight)  # until it is trained, a word lies nowhere
        nn.init.zeros_(self.place.bias)
        self.map: Tensor
        self.register_buffer("map", STRENGTH * orthonormal(width, CONTEXT_SEED))

    @torch.no_grad()
    def set_table(self, words: Tensor) -> None:
        """Take over a float table `[vocabulary, table_width]`, scaled to unit variance."""
        words = words / words.std()
        scale = words.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
        self.table_scale.copy_(scale)
        self.table.copy_((words / scale).round().to(torch.int8))

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """What the words mean beside each other: `[B, T, width]`, still without their places.

        Args:
            ids: `[B, T]` token ids.
            mask: `[B, T]` bool, True for tokens of the prompt, False for padding.
        """
        words = self.table[ids].to(self.project.weight.dtype) * self.table_scale[ids]
        x = self.project(words.to(self.project.weight.dtype)) + self.position[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Context of a batch of prompts `[B, T, width]`: meanings and places (see `read`).

        `place` gives the Fourier features of `place.fourier` as the prompt lets one expect them:
        small where it says little.
        """
        words = self.read(ids, mask)
        return words + self.place(words) @ self.map
