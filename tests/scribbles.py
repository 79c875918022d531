"""A small, seeded, untrained `ScribblePipeline` with the shipped vocabulary."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import AutoTokenizer

from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.model.strokes import SketchEncoder
from scribblediffusion.model.text import PromptEncoder
from scribblediffusion.model.unet import SHIPPED, ScribbleUNet
from scribblediffusion.model.weights import shipped
from scribblediffusion.pipeline import ScribblePipeline

SMALL = SHIPPED | {
    "block_out_channels": (32, 64, 64),
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
}


def small_unet() -> ScribbleUNet:
    torch.manual_seed(0)
    return ScribbleUNet(**SMALL).eval()


def small_pipeline(seed: int = 0) -> ScribblePipeline:
    torch.manual_seed(seed)
    prompt_encoder = PromptEncoder(table_width=32, width=64, depth=1).eval()
    prompt_encoder.set_table(torch.randn(30522, 32))
    pipe = ScribblePipeline(
        unet=small_unet(),
        prompt_encoder=prompt_encoder,
        sketch_encoder=SketchEncoder(width=64, channels=8, hidden=32).eval(),
        autoencoder=ScribbleAutoencoder(
            encoder_fine=8, encoder_coarse=16, decoder_coarse=16, decoder_fine=8
        ).eval(),
        tokenizer=AutoTokenizer.from_pretrained(shipped() / "tokenizer"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
