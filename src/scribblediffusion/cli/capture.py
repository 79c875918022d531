"""`scribble capture`: the attention of any diffusers pipeline, kept as a run of the gallery."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scribblediffusion.cli.pictures import check_gallery, check_output, write_picture
from scribblediffusion.cli.progress import progress, quiet_loading
from scribblediffusion.cli.source import GalleryRoot, model_name
from scribblediffusion.cli.terminal import say, shortened
from scribblediffusion.errors import CaptureError, InputError, ScribbleError

if TYPE_CHECKING:
    import numpy as np

    from scribblediffusion.attention.trace import AttentionTrace

#: The class of our own model, which diffusers does not know.
OURS = "ScribblePipeline"


def capture(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder or hub id of a diffusers pipeline.")
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw.")],
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Same seed, same picture; else a new one.", min=0),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Denoising steps; else the pipeline's own.", min=1),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="X", help="How much the words count; else the pipeline's own."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the picture here, too.")
    ] = None,
    gallery: GalleryRoot = None,
) -> None:
    """Capture the attention of any diffusers pipeline.

    Draws a picture with the model as it is, notes where each word acted, and keeps both as a run
    of the gallery: Stable Diffusion, SDXL, SD 3, FLUX, PixArt, Sana and their kin.
    """
    import secrets

    if output is not None:
        check_output(output)
    check_gallery(gallery)
    seed = secrets.randbelow(2**31) if seed is None else seed
    trace = captured(model, prompt, seed, steps, guidance)
    from scribblediffusion.gallery import Gallery

    try:
        run = Gallery(gallery).add(trace)
    finally:  # the picture is not lost where the run cannot be kept
        if output is not None:
            write_picture(output, trace.pictures[0], prompt, seed)
    say(f"run {run.id} in {run.folder}")
    say(f"audit: {trace.audit}")
    say(f"seed {seed}")


def captured(
    model: str, prompt: str, seed: int, steps: int | None, guidance: float | None
) -> AttentionTrace:
    """Runs a pipeline once; its trace holds the picture, and all that it takes to run it again.

    Raises:
        InputError: no such model, no pipeline, or it takes no such option.
        UnknownFamilyError: its attention cannot be read.
        CaptureError: the pipeline itself failed.
    """
    from dataclasses import replace

    from scribblediffusion.attention.extractor import RealAttentionExtractor

    with progress() as bar, quiet_loading():
        bar.add_task("Loading the model", total=None)
        pipe = load(model)
    extractor = RealAttentionExtractor(pipe)
    options = _options(pipe, model, steps, guidance)
    with extractor:
        pictures = _call(pipe, prompt, seed, options)
    trace = extractor.trace
    made = {"model": model_name(model), "pipeline": type(pipe).__name__, "seed": seed, **options}
    return replace(
        trace,
        pictures=trace.pictures or pictures,
        picture_size=trace.picture_size or pictures[0].shape[:2],
        settings={**made, **trace.settings},
    )


def load(model: str) -> Any:
    """Any diffusers pipeline, ours included, on the best device there is; no pickles.

    Raises:
        InputError: it cannot be loaded; the message says why in one line.
    """
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from scribblediffusion.pipeline import ScribblePipeline, best_device

    if Path(model).is_absolute() and not Path(model).is_dir():
        raise InputError(f"{model}: there is no such folder")
    try:
        config: Any = DiffusionPipeline.load_config(model)
        if config.get("_class_name") == OURS:
            return ScribblePipeline.from_pretrained(model)
        return DiffusionPipeline.from_pretrained(model, use_safetensors=True).to(best_device())
    except ScribbleError:
        raise
    except Exception as error:
        raise InputError(
            f"{model}: neither a folder nor a hub id of a diffusers pipeline that can be loaded "
            f"({type(error).__name__}: {shortened(str(error), 200)})"
        ) from error


def _options(
    pipe: Any, model: str, steps: int | None, guidance: float | None
) -> dict[str, int | float]:
    """Steps and guidance that the call takes: as asked, or the pipeline's own."""
    takes = inspect.signature(pipe.__call__).parameters
    needed = [
        name
        for name, one in takes.items()
        if one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        and name != "prompt"
    ]
    if "prompt" not in takes or needed:
        what = f"needs {', '.join(needed)} too" if needed else "takes no prompt"
        raise InputError(f"{model}: {type(pipe).__name__} {what}; capture it with Python")
    found: dict[str, int | float] = {}
    for name, option, asked in (
        ("num_inference_steps", "--steps", steps),
        ("guidance_scale", "--guidance", guidance),
    ):
        if asked is not None and name not in takes:
            raise InputError(f"{option}: {type(pipe).__name__} has no {name}; leave it out")
        value = takes[name].default if asked is None and name in takes else asked
        if isinstance(value, (int, float)):
            found[name] = value
    return found


def _call(
    pipe: Any, prompt: str, seed: int, options: dict[str, int | float]
) -> tuple[np.ndarray, ...]:
    """The pictures, uint8 `[H, W, 3]` each."""
    import numpy as np
    import torch
    from PIL import Image

    try:
        output = pipe(prompt, generator=torch.Generator("cpu").manual_seed(seed), **options)
    except ScribbleError:
        raise
    except Exception as error:
        raise CaptureError(
            f"{type(pipe).__name__} failed: {type(error).__name__}: {shortened(str(error), 200)}"
        ) from error
    images = getattr(output, "images", None)
    if not isinstance(images, list) or not all(isinstance(i, Image.Image) for i in images):
        raise CaptureError(f"{type(pipe).__name__} gave no pictures; capture it with Python")
    return tuple(np.asarray(image.convert("RGB")) for image in images)
