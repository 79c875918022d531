"""`scribble train`: make the shipped model again, or go on training it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

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
    source: Annotated[str | None, typer.Option(help="Begin from this other checkpoint.")] = None,
    seed: Annotated[int, typer.Option(help="Order of scenes and noise.")] = 0,
    pool: Annotated[int, typer.Option(help="2: a first, cheap stage on averaged latents.")] = 1,
    batch: Annotated[int, typer.Option(help="Scenes a step.")] = 16,
    runs: Runs = Path("runs"),
) -> None:
    """Train the denoiser and both encoders on the shards."""
    from scribblediffusion.train.denoiser import Recipe, Trainer, train
    from scribblediffusion.train.latents import Shard

    _log()
    data = Shard.load(sorted((runs / "shards").glob("*.npz")))
    trainer = Trainer(Recipe(pool=pool, batch=batch), data, seed=seed)
    begin = runs / (source or name)
    if (begin / "state.json").exists():
        trainer.load(begin)
    train(trainer, runs / name, minutes=minutes, fall=fall)


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
