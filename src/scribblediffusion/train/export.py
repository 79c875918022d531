"""From a checkpoint to the folder of weights that ships: half precision, with checksums."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from safetensors.torch import load_file

from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.model.weights import verify, write_checksums
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.train.denoiser import Denoiser
from scribblediffusion.train.words import word_tokenizer


def pipeline(checkpoint: Path, autoencoder: Path, *, average: bool = True) -> ScribblePipeline:
    """A pipeline from a training checkpoint: the averaged weights, or the raw ones."""
    prefix = "average." if average else "model."
    state = load_file(checkpoint / "state.safetensors")
    denoiser = Denoiser()
    denoiser.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    return ScribblePipeline(
        unet=denoiser.unet.eval(),
        prompt_encoder=denoiser.prompt_encoder.eval(),
        sketch_encoder=denoiser.sketch_encoder.eval(),
        autoencoder=ScribbleAutoencoder.from_pretrained(autoencoder, low_cpu_mem_usage=False),
        tokenizer=word_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def export(checkpoint: Path, autoencoder: Path, folder: Path) -> None:
    """Write the weights that ship, and check them as a user's loading will.

    Args:
        checkpoint: a folder that `train.denoiser.Trainer.save` wrote.
        autoencoder: the folder of the autoencoder.
        folder: the result; replaced when the new one is whole and passes `verify`.
    """
    pipe = pipeline(checkpoint, autoencoder)
    for part in (pipe.unet, pipe.prompt_encoder, pipe.sketch_encoder, pipe.autoencoder):
        part.half()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / "weights"
        pipe.save_pretrained(new, safe_serialization=True)
        write_checksums(new)
        verify(new)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
