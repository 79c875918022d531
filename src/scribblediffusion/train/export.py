"""From a checkpoint to the folder of weights that ships: half precision, with checksums."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image
from torch import Tensor

from scribblediffusion.errors import SettingError
from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.model.weights import verify, write_checksums
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import seeded
from scribblediffusion.sketch import Sketch
from scribblediffusion.train import checkpoint
from scribblediffusion.train.denoiser import Denoiser
from scribblediffusion.train.scenes import scene
from scribblediffusion.train.words import word_tokenizer

#: What the libraries note about a folder on one's own disk.
_LOCAL = {"_name_or_path", "is_local", "local_files_only"}


def averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a training checkpoint, as the state of a `Denoiser`."""
    return checkpoint.load(folder)[0]["average"]


def pipeline(state: dict[str, Tensor], autoencoder: Path) -> ScribblePipeline:
    """A pipeline from the state of a `Denoiser` and the folder of an autoencoder."""
    denoiser = Denoiser()
    denoiser.load_state_dict(state)
    return ScribblePipeline(
        unet=denoiser.unet.eval(),
        prompt_encoder=denoiser.prompt_encoder.eval(),
        sketch_encoder=denoiser.sketch_encoder.eval(),
        autoencoder=ScribbleAutoencoder.from_pretrained(autoencoder, low_cpu_mem_usage=False),
        tokenizer=word_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def sample_sheet(state: dict[str, Tensor], autoencoder: Path, count: int = 12) -> Image.Image:
    """Test scenes as the weights of a run draw them: sketch above picture, in 12 steps each."""
    pipe = pipeline(state, autoencoder)
    pipe.set_progress_bar_config(disable=True)
    scenes = [scene(number, split="test", seed=7) for number in range(count)]
    drawn: Any = pipe(
        [one.caption for one in scenes],
        [Sketch.from_image(255 - one.sketch) for one in scenes],
        num_inference_steps=12,
        generator=seeded(7, count),
        output_type="np",
    )
    columns = [
        np.concatenate([np.repeat(255 - one.sketch[..., None], 3, -1), picture])
        for one, picture in zip(scenes, drawn.images, strict=True)
    ]
    rows = [np.concatenate(columns[i : i + 6], 1) for i in range(0, count, 6)]
    return Image.fromarray(np.concatenate(rows))


def export(trained: Path, autoencoder: Path, folder: Path) -> None:
    """Write the weights that ship, and check them as a user's loading will.

    Args:
        trained: a folder that `train.trainer.Trainer.save` wrote.
        autoencoder: the folder of the autoencoder.
        folder: the result; weights that it holds are replaced when the new ones are whole and pass
            `verify`.

    Raises:
        SettingError: the folder holds something else.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / "model_index.json").is_file() and any(folder.iterdir()):
        raise SettingError(
            f"{folder} holds other things than weights (it has no model_index.json), and exporting "
            "replaces a folder: name a new one"
        )
    pipe = pipeline(averaged(trained), autoencoder)
    for part in (pipe.unet, pipe.prompt_encoder, pipe.sketch_encoder, pipe.autoencoder):
        part.half()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / "weights"
        pipe.save_pretrained(new, safe_serialization=True)
        _tidy(new)
        write_checksums(new)
        verify(new)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)


def _tidy(folder: Path) -> None:
    """Take out of the configurations where on this machine the parts came from."""
    for path in folder.rglob("*.json"):
        if path.name == "tokenizer.json":
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = {k: v for k, v in found.items() if k not in _LOCAL}
        path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
