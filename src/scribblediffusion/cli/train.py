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
    from scribblediffusion.train.trainer import Trainer

app = typer.Typer(help="Train the model: autoencoder, scenes, denoiser, export.")

Runs = Annotated[Path, typer.Option(help="Folder for checkpoints and data.")]


def _log() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )


@app.command()
def autoencoder(
    minutes: Annotated[float, typer.Option(help="Wall time.")] = 20,
    decoder_only: Annotated[bool, typer.Option(help="Keep the latents as they are.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Train the autoencoder on crops of scenes."""
    from scribblediffusion.train.autoencoder import train

    _log()
    train(runs / "autoencoder", minutes=minutes, decoder_only=decoder_only)


@app.command()
def scenes(
    start: Annotated[int, typer.Option(help="Number of the first scene.")] = 0,
    count: Annotated[int, typer.Option(help="How many scenes.")] = 20_000,
    runs: Runs = Path("runs"),
) -> None:
    """Draw scenes and encode them into shards of a thousand."""
    from scribblediffusion.model.autoencoder import ScribbleAutoencoder
    from scribblediffusion.train.latents import build

    _log()
    encoder = ScribbleAutoencoder.from_pretrained(runs / "autoencoder", low_cpu_mem_usage=False)
    (runs / "shards").mkdir(parents=True, exist_ok=True)
    for i, shard in enumerate(build(encoder, range(start, start + count))):
        path = runs / "shards" / f"shard-{start // 1000 + i:04d}.npz"
        shard.save(path)
        logging.getLogger(__name__).info("%s: %d scenes", path, len(shard))


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
    from scribblediffusion.train.denoiser import Recipe
    from scribblediffusion.train.latents import Shard
    from scribblediffusion.train.trainer import CHECKPOINT, Trainer

    shards = sorted((runs / "shards").glob("*.npz"))
    if not shards:
        raise InputError(f"{runs / 'shards'} holds no scenes: make some with scribble train scenes")
    _log()
    trainer = Trainer(Recipe(pool=pool, batch=batch, rate=rate), Shard.load(shards), seed=seed)
    if (runs / name / CHECKPOINT).exists():
        trainer.load(runs / name)
    elif source and (runs / source / CHECKPOINT).exists():
        trainer.load(runs / source)
    else:
        trainer.begin(Path(source) if source else None)
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
