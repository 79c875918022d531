"""The denoiser: diffusers' `UNet2DConditionModel`, with place in its queries."""

from __future__ import annotations

import functools
from typing import Any

import torch

# The pipeline loader looks for ModelMixin in the module that names a component.
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from scribblediffusion.model.aligned import AlignedModel
from scribblediffusion.model.place import PlaceEmbedding, align_heads, orthonormal

#: Seeds of the fixed maps: image side and context side.
QUERY_SEED, CONTEXT_SEED = 11, 7

#: The shipped denoiser.
SHIPPED: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 192),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "only_cross_attention": (True, False, False),
    "mid_block_only_cross_attention": False,
    "attention_head_dim": 8,  # diffusers' name for the number of heads
    "cross_attention_dim": 256,
    "norm_num_groups": 16,
}


class SteadyGroupNorm(nn.GroupNorm):
    """`GroupNorm` one picture at a time, so that a picture's bits do not depend on its row.

    The kernel for channels-last memory cuts the whole batch into one piece a thread, and the
    order of its sums then depends on where in the batch a picture stands.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape."""
        if torch.is_grad_enabled() or len(input) == 1:
            return super().forward(input)
        return torch.cat([super(SteadyGroupNorm, self).forward(row) for row in input.split(1)])


class SteadyLinear(nn.Linear):
    """`Linear` on `[B, C]` one row at a time: kernels treat the last rows of a batch apart."""

    def forward(self, input: Tensor) -> Tensor:
        """`[B, in]` to `[B, out]`."""
        if torch.is_grad_enabled() or len(input) == 1:
            return super().forward(input)
        return torch.cat([super(SteadyLinear, self).forward(row) for row in input.split(1)])


def _steadied(module: nn.Module, name: str) -> nn.Module | None:
    """A drop-in for a module whose bits depend on its place in the batch, or None."""
    if isinstance(module, nn.GroupNorm):
        steady: nn.Module = SteadyGroupNorm(module.num_groups, module.num_channels, module.eps)
    elif isinstance(module, nn.Linear) and "time_emb" in name:
        steady = SteadyLinear(module.in_features, module.out_features)
    else:
        return None
    steady.load_state_dict(module.state_dict())
    return steady


def _mask_first_attention(block: Any, args: tuple, kwargs: dict[str, Any]) -> tuple:
    """Give `attn1` of a block that only cross-attends the mask of the keys that it reads.

    diffusers masks `attn2` alone; without this, padding would get weight in `attn1`.
    """
    return args, kwargs | {"attention_mask": kwargs.get("encoder_attention_mask")}


class ScribbleUNet(AlignedModel, UNet2DConditionModel):
    """`UNet2DConditionModel` whose queries know their place and whose `attn1` respects masks.

    In inference a picture's result has the same bits at any row of equal-sized batches.
    Square latents only. Everything else (configuration, loading, processors) is diffusers'.
    """

    # diffusers reads the configuration's names from this signature: let it see the parent's.
    @functools.wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        context = orthonormal(self.config["cross_attention_dim"], CONTEXT_SEED)
        for block in self.modules():
            if isinstance(block, BasicTransformerBlock):
                self._place(block, context)
        for name, module in list(self.named_modules()):
            if steady := _steadied(module, name):
                self.set_submodule(name, steady)

    @staticmethod
    def _place(block: Any, context: Tensor) -> None:
        block.pos_embed = PlaceEmbedding(block.attn1.to_q.in_features, QUERY_SEED)
        align_heads(block.attn2, block.pos_embed.map, context)
        if block.only_cross_attention:
            align_heads(block.attn1, block.pos_embed.map, context)
            block.register_forward_pre_hook(_mask_first_attention, with_kwargs=True)
