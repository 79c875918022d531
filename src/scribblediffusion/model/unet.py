"""The denoiser: diffusers' `UNet2DConditionModel`, with place in its queries."""

from __future__ import annotations

import functools
from typing import Any

import torch

# The pipeline loader looks for ModelMixin in the module that names a component.
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.model.aligned import AlignedModel
from scribblediffusion.model.place import PlaceEmbedding, align_heads, orthonormal

#: A key whose bias lies so far below another's has weight exactly 0. Diffusers masks with −10000,
#: of which bfloat16 makes −9984.
NO_WEIGHT = 9900.0
#: Seeds of the fixed maps: image side and context side.
QUERY_SEED, CONTEXT_SEED = 11, 7

#: The shipped denoiser.
SHIPPED: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 192),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
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


class CroppedAttnProcessor2_0(AttnProcessor2_0):
    """diffusers' attention, one row at a time and over the keys that its mask leaves any weight.

    A masked key has weight exactly 0, so leaving it out changes no more than rounding. Half of the
    keys are padding for most prompts, and 152 of 154 are masked in the unconditional branch. Rows
    are apart because what is left over differs between them. Where gradients are wanted, off the
    CPU, and without a mask, this is diffusers' own processor.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Places `[B, S, C]`, condition `[B, K, width]` and bias `[B, 1, K]` to `[B, S, C]`."""
        if (
            encoder_hidden_states is None
            or attention_mask is None
            or attention_mask.shape[1] != 1
            or torch.is_grad_enabled()
            or hidden_states.device.type != "cpu"
        ):
            return super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs
            )
        q = attn.to_q(hidden_states)
        k, v = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        rows = zip(q, k, v, attention_mask[:, 0], strict=True)
        mixed = torch.stack([_attended(*row, attn.heads) for row in rows])
        return attn.to_out[1](attn.to_out[0](mixed))


def _attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Attention of one row: `[S, C]`, `[K, C]`, `[K, C]` and `[K]` to `[S, C]`."""
    kept = (bias > bias.max() - NO_WEIGHT).nonzero()[:, 0]
    left = bias[kept]
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for x in (q, k[kept], v[kept]))
    mask = left.expand(1, heads, 1, -1) if left.any() else None
    return F.scaled_dot_product_attention(q, k, v, mask)[0].transpose(0, 1).flatten(1)


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
        block.attn2.set_processor(CroppedAttnProcessor2_0())
        if block.only_cross_attention:
            align_heads(block.attn1, block.pos_embed.map, context)
            block.attn1.set_processor(CroppedAttnProcessor2_0())
            block.register_forward_pre_hook(_mask_first_attention, with_kwargs=True)
