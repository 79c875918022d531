"""UNets of known models with random weights, in a bare sampling loop: nothing is fetched.

What capture costs depends on the architecture and not on the weights, so random ones do; only the
maps mean nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.records import Prompt, Token, Word

#: With CLIP's start and end these are 9 of 77 keys.
WORDS = ("a", "red", "apple", "on", "a", "wooden", "table")
WORD = "apple"
KEYS = 77

#: Stable Diffusion 1.5: 860 M weights, 16 layers of cross-attention with 8 heads.
SD15: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
#: SDXL base: 2.6 G weights, 70 layers of cross-attention with 10 or 20 heads.
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
#: SD 1.5 at a quarter of its width: the same layers and heads, and a sixteenth of the work.
QUARTER: dict[str, Any] = SD15 | {"block_out_channels": (80, 160, 320, 320), "norm_num_groups": 16}
ARCHITECTURES = {"SD 1.5": SD15, "SDXL": SDXL, "SD 1.5, quarter width": QUARTER}


class Words:
    """A tokenizer for prompts of plain words: one token a word."""

    model_max_length = KEYS

    def tokenize(self, text: str) -> list[str]:
        """The words."""
        return text.split()


def build(config: dict[str, Any]) -> UNet2DConditionModel:
    """A UNet with uniform weights of a fixed seed, without the time that initialising takes."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    unet = unet.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, weight in unet.named_parameters():
        if weight.dim() == 1:  # biases, and the factors of norms
            weight.fill_(float(name.endswith("weight")))
        else:
            bound = (3 / weight[0].numel()) ** 0.5  # so that the variance is 1 / inputs
            weight.uniform_(-bound, bound, generator=generator)
    return unet


@dataclass
class Loop:
    """A diffusers-like pipeline that begins with embeddings and ends with latents.

    Attributes:
        unet: the denoiser.
        height, width: of the latents.
        words: of the prompt, the same for every picture.
        batch: pictures in one call; guidance doubles it.
        scheduler: DDIM.
        tokenizer, vae_scale_factor: what DAAM looks for.
        seconds: of the processor, for each step of the last run.
    """

    unet: Any
    height: int = 32
    width: int = 32
    words: tuple[str, ...] = WORDS
    batch: int = 1
    scheduler: Any = field(default_factory=lambda: DDIMScheduler(steps_offset=1, clip_sample=False))
    tokenizer: Words = field(default_factory=Words)
    vae_scale_factor: int = 8
    seconds: list[float] = field(default_factory=list)

    def check_inputs(self, prompt: str) -> None:
        """Where DAAM learns of a new prompt."""

    def key_layout(self) -> KeyLayout:
        """Start, words and end are used; the rest of 77 keys is padding."""
        tokens = [Token(i, w) for i, w in enumerate(("<start>", *self.words, "<end>"))]
        tokens += [Token(i, "<pad>", padding=True) for i in range(len(tokens), KEYS)]
        seen = [self.words[:i].count(w) for i, w in enumerate(self.words)]
        words = tuple(
            Word(w, (i + 1,), occurrence=seen[i], start=i) for i, w in enumerate(self.words)
        )
        prompt = Prompt(" ".join(self.words), tuple(tokens), words)
        branches = {"unconditional": (Prompt(named=False),), "full": (prompt,)}
        return KeyLayout({"text": range(KEYS)}, {k: v * self.batch for k, v in branches.items()})

    @torch.no_grad()
    def __call__(self, steps: int) -> Tensor:
        """The final latents `[batch, 4, height, width]`, with guidance 7.5."""
        self.check_inputs(" ".join(self.words))
        generator = torch.Generator().manual_seed(0)
        width = self.unet.config.cross_attention_dim
        condition = torch.randn(2 * self.batch, KEYS, width, generator=generator)
        sample = torch.randn(self.batch, 4, self.height, self.width, generator=generator)
        more = self._more(generator)
        self.scheduler.set_timesteps(steps)
        self.seconds = []
        for t in self.scheduler.timesteps:
            begin = time.process_time()
            both = torch.cat([sample, sample])
            free, full = self.unet(both, t, condition, **more).sample.chunk(2)
            sample = self.scheduler.step(free + 7.5 * (full - free), t, sample).prev_sample
            self.seconds.append(time.process_time() - begin)
        return sample

    def _more(self, generator: torch.Generator) -> dict[str, Any]:
        """SDXL is told of the picture's size and of the prompt as a whole."""
        if self.unet.config.addition_embed_type != "text_time":
            return {}
        rows = 2 * self.batch
        sizes = [8 * self.height, 8 * self.width, 0, 0, 8 * self.height, 8 * self.width]
        pooled = torch.randn(rows, 1280, generator=generator)
        return {
            "added_cond_kwargs": {
                "text_embeds": pooled,
                "time_ids": torch.tensor([sizes] * rows, dtype=torch.float32),
            }
        }
