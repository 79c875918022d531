"""`scribble train`: make the shipped model again, or go on training it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scribblediffusion.cli.progress import progress
from scribblediffusion.errors import InputError

if TYPE_CHECKING:
    from scribblediffusion.model.autoencoder import ScribbleAutoencoder
    from scribblediffusion.train.trainer import Trainer

app = typer.Typer(help="Train the model: autoencoder, scenes, denoiser, export.")

Runs = Annotated[Path, typer.Option(help="Folder for checkpoints and data.")]


def _log() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )


def _autoencoder(runs: Path) -> ScribbleAutoencoder:
    """The run's own autoencoder, or the shipped one where it has none."""
    from scribblediffusion.model.autoencoder import ScribbleAutoencoder
    from scribblediffusion.model.weights import shipped

    own = runs / "autoencoder"
    folder = own if (own / "config.json").exists() else shipped() / "autoencoder"
    return ScribbleAutoencoder.from_pretrained(folder, low_cpu_mem_usage=False)


@app.command()
def autoencoder(
    minutes: Annotated[float, typer.Option(help="Wall time.")] = 20,
    source: Annotated[
        Path | None, typer.Option(help="Begin from this folder of weights instead of nothing.")
    ] = None,
    decoder_only: Annotated[bool, typer.Option(help="Keep the latents as they are.")] = False,
    scenes: Annotated[int, typer.Option(help="How many pictures to make beforehand.")] = 4000,
    save_every: Annotated[float, typer.Option(help="Minutes between checkpoints.")] = 4,
    runs: Runs = Path("runs"),
) -> None:
    """Train the autoencoder on crops of scenes; gone on from its checkpoint where there is one."""
    from PIL import Image

    from scribblediffusion.train import checkpoint
    from scribblediffusion.train.autoencoder import AutoencoderTrainer, pictures

    _log()
    folder = runs / "autoencoder"
    trainer = AutoencoderTrainer(pictures(scenes), decoder_only=decoder_only)
    if checkpoint.exists(folder):
        trainer.load(folder)
    elif source:
        trainer.begin(source)
    keep = Every(save_every)
    try:
        with progress() as bar:
            task = bar.add_task("Training", total=1.0)
            for report in trainer.run(minutes=minutes):
                bar.update(task, completed=report.done, description=str(report))
                if keep.due():
                    trainer.save(folder)
                    quality, sheet = trainer.quality()
                    Image.fromarray(sheet).save(folder / "samples.png")
                    logging.getLogger(__name__).info("%s, %.2f dB held out", report, quality)
    finally:  # also when interrupted: the last step is kept
        trainer.save(folder)
    trainer.export(folder)


@app.command()
def preview(
    steps: Annotated[int, typer.Option(help="Updates.")] = 3500,
    scenes: Annotated[int, typer.Option(help="How many pictures to make beforehand.")] = 500,
    runs: Runs = Path("runs"),
) -> None:
    """Teach the autoencoder's small preview network what its decoder gives.

    Again after each training of the autoencoder: that leaves the previews as they were.
    """
    from scribblediffusion.train.preview import PreviewTrainer, lessons, likeness

    _log()
    model = _autoencoder(runs)
    with progress() as bar:
        task = bar.add_task("Decoding scenes", total=2 * scenes)
        trainer = PreviewTrainer(
            model, *lessons(model, scenes, lambda count: bar.update(task, advance=count))
        )
        task = bar.add_task("Training", total=steps)
        for loss in trainer.run(steps):
            bar.update(task, advance=1, description=f"loss {loss:.4f}")
    logging.getLogger(__name__).info("previews against pictures: %.2f dB held out", likeness(model))
    model.save_pretrained(runs / "autoencoder")


@app.command()
def scenes(
    start: Annotated[int, typer.Option(help="Number of the first scene.")] = 0,
    count: Annotated[int, typer.Option(help="How many scenes.")] = 20_000,
    runs: Runs = Path("runs"),
) -> None:
    """Draw scenes and encode them into shards of a thousand; shards that exist are kept."""
    from scribblediffusion.train.latents import build

    encoder = _autoencoder(runs)
    (runs / "shards").mkdir(parents=True, exist_ok=True)
    end = start + count
    shards = {
        runs / "shards" / f"shard-{first // 1000:04d}.npz": range(first, min(first + 1000, end))
        for first in range(start, end, 1000)
    }
    missing = {path: numbers for path, numbers in shards.items() if not path.exists()}
    with progress() as bar:
        task = bar.add_task("Drawing scenes", total=len(missing))
        for path, shard in zip(missing, build(encoder, missing.values()), strict=True):
            shard.save(path)
            bar.update(task, advance=1, description=path.name)


@app.command()
def denoiser(
    minutes: Annotated[float, typer.Option(help="Wall time.")] = 60,
    fall: Annotated[
        float, typer.Option(help="Share of the time, at its end, over which the rate falls.")
    ] = 0.0,
    name: Annotated[
        str, typer.Option(help="Checkpoint; gone on from where it exists.")
    ] = "denoiser",
    source: Annotated[
        str | None,
        typer.Option(help="Begin from this other checkpoint, or from a folder of weights."),
    ] = None,
    captions: Annotated[int, typer.Option(help="Steps on captions alone, before the first.")] = 0,
    seed: Annotated[int, typer.Option(help="Order of scenes and noise.")] = 0,
    pool: Annotated[int, typer.Option(help="2: a first, cheap stage on averaged latents.")] = 1,
    batch: Annotated[int, typer.Option(help="Scenes a step, on each device.")] = 16,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1.2e-3,
    save_every: Annotated[float, typer.Option(help="Minutes between checkpoints.")] = 4,
    sample_every: Annotated[
        float, typer.Option(help="Minutes between sheets of samples; 0 for none.")
    ] = 20,
    runs: Runs = Path("runs"),
) -> None:
    """Train the denoiser and both encoders on the shards.

    More than one device: torchrun --nproc-per-node N -m scribblediffusion.cli train denoiser …
    """
    from scribblediffusion.train import checkpoint
    from scribblediffusion.train.denoiser import Recipe
    from scribblediffusion.train.latents import Shard
    from scribblediffusion.train.trainer import Trainer

    shards = sorted((runs / "shards").glob("*.npz"))
    if not shards:
        raise InputError(f"{runs / 'shards'} holds no scenes: make some with scribble train scenes")
    _log()
    trainer = Trainer(Recipe(pool=pool, batch=batch, rate=rate), Shard.load(shards), seed=seed)
    if checkpoint.exists(runs / name):
        trainer.load(runs / name)
    elif source and checkpoint.exists(runs / source):
        trainer.load(runs / source)
    else:
        trainer.begin(Path(source) if source else None)
    if captions and not trainer.step:
        with progress() as bar:
            task = bar.add_task("Reading captions", total=captions)
            for loss in trainer.teach_places(captions):
                bar.update(task, advance=1, description=f"Reading captions: placing {loss:.3f}")
    keep, show, say = Every(save_every), Every(sample_every), Every(1)
    try:
        with progress() as bar:
            task = bar.add_task("Training", total=1.0)
            for report in trainer.run(minutes=minutes, fall=fall):
                bar.update(task, completed=report.done, description=str(report))
                if say.due():
                    logging.getLogger(__name__).info("%s", report)
                if keep.due():
                    trainer.save(runs / name)
                if show.due():
                    _samples(trainer, runs, name)
    finally:  # also when interrupted: the last step is kept
        trainer.save(runs / name)


class Every:
    """Says when some minutes have passed since it last said so; never for 0 minutes."""

    def __init__(self, minutes: float) -> None:
        self.seconds, self.last = minutes * 60, time.monotonic()

    def due(self) -> bool:
        """Whether it is time again."""
        if not self.seconds or time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


def _samples(trainer: Trainer, runs: Path, name: str) -> None:
    """A sheet of test scenes as the averaged weights draw them now."""
    from scribblediffusion.train.export import sample_sheet

    if trainer.accelerator.is_main_process:
        folder = runs / name / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        sheet = sample_sheet(trainer.average, runs / "autoencoder")
        sheet.save(folder / f"step-{trainer.step:06d}.png")


@app.command()
def export(
    name: Annotated[str, typer.Option(help="Which checkpoint.")] = "denoiser",
    folder: Annotated[
        Path | None, typer.Option(help="Where to; the package's own weights.")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write a checkpoint's averaged weights as the folder that ships."""
    from scribblediffusion.model.weights import shipped
    from scribblediffusion.train.export import export

    export(runs / name, runs / "autoencoder", folder or shipped())
