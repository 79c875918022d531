"""Attention of a diffusers pipeline that knows nothing of us: a tiny Stable Diffusion in memory.

The weights are random, so the maps mean nothing; the way to them is that of any real pipeline:
replace `tiny_stable_diffusion()` by `StableDiffusionPipeline.from_pretrained(...)`.
"""

import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scribblediffusion import AttentionTrace, RealAttentionExtractor


def tiny_stable_diffusion() -> StableDiffusionPipeline:
    """Stable Diffusion's own classes, a few thousand weights, and an alphabet for a vocabulary."""
    torch.manual_seed(0)
    letters = [chr(c) for c in range(33, 127)]
    pieces = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({piece: i for i, piece in enumerate(pieces)}, [], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=16)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    """Capture, look, save, and open without the model."""
    pipe = tiny_stable_diffusion()
    with RealAttentionExtractor(pipe) as extractor:
        pipe("a red apple", num_inference_steps=4, generator=torch.Generator().manual_seed(0))
    trace = extractor.trace

    print(trace)
    print("words:  ", ", ".join(word.text for word in trace.words))
    print("steps:  ", "; ".join(str(step) for step in trace.steps))
    print("audit:  ", trace.audit)
    print(
        "apple:  ", "a map of", trace.word("apple").shape, "that sums to", trace.word("apple").sum()
    )
    print("at 8, 8:", ", ".join(f"{name} {share:.1%}" for name, share in trace.at(8, 8)))

    with tempfile.TemporaryDirectory() as folder:
        path = trace.save(Path(folder) / "run.safetensors")
        again = AttentionTrace.load(path)
        print("saved:  ", f"{path.stat().st_size / 1e6:.2f} MB,", "opened again:", again.prompt)


if __name__ == "__main__":
    main()
