"""Loading that gives the same bits as the model that was saved."""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers.models.modeling_utils import ModelMixin

#: Bytes: what torch's own allocations are aligned to.
ALIGNMENT = 64


class AlignedModel(ModelMixin):
    """`ModelMixin` whose loaded weights lie in memory as if they had been made there.

    safetensors maps a file into memory, where tensors begin at any byte that is a multiple of 8.
    Matrix kernels choose their path by alignment, and another path rounds differently.
    """

    @classmethod
    @torch.no_grad()
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """As diffusers' `ModelMixin.from_pretrained`."""
        model = super().from_pretrained(*args, **kwargs)
        for tensor in (*model.parameters(), *model.buffers()):
            if not tensor.is_meta and tensor.data_ptr() % ALIGNMENT:
                tensor.data = tensor.data.clone()
        return model
