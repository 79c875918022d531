"""A training run on disk: one safetensors file, replaced whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from scribblediffusion.errors import SettingError, WeightsError
from scribblediffusion.gallery.durable import sync_file, sync_folder

#: A checkpoint, in its folder.
CHECKPOINT = "state.safetensors"


def exists(folder: Path) -> bool:
    """Whether a folder holds a checkpoint to go on from."""
    return (folder / CHECKPOINT).is_file()


def save(
    folder: Path,
    parts: dict[str, dict[str, Tensor]],
    optimiser: torch.optim.Optimizer,
    about: dict[str, Any],
) -> None:
    """Write a checkpoint; a kill, a power cut or a full disk leaves the one before it.

    Args:
        folder: made where it is missing.
        parts: states by name, such as the model's and its average's.
        optimiser: its running moments are kept too.
        about: facts as JSON, the step among them. They travel in the same file, so that they
            cannot be of another step.
    """
    states = optimiser.state_dict()["state"]
    parts = parts | {f"optimiser.{number}": values for number, values in states.items()}
    tensors = {
        f"{name}.{key}": value.detach().clone().contiguous()
        for name, part in parts.items()
        for key, value in part.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "state.tmp"
    save_file(tensors, partial, {"about": json.dumps(about)})
    sync_file(partial)  # or the new name could be on the disk before its content is
    partial.replace(folder / CHECKPOINT)
    sync_folder(folder)


def refuse_other(folder: Path, about: dict[str, Any], settings: dict[str, Any]) -> None:
    """A run goes on with the settings it was begun with, or it is another run.

    Args:
        folder: of the checkpoint.
        about: its facts; settings are "seed" and those of "recipe". What it does not know of, since
            it is older, is not compared.
        settings: those of now.

    Raises:
        SettingError: some differ; it says which.
    """
    before = {"seed": about.get("seed"), **about.get("recipe", {})}
    differing = [
        f"{name} {before[name]}, now {value}"
        for name, value in settings.items()
        if name in before and before[name] != value
    ]
    if differing:
        raise SettingError(
            f"{folder / CHECKPOINT} was trained with other settings ({'; '.join(differing)}): "
            "give the same, or begin a new leg from it in another folder"
        )


def facts(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about itself.

    Raises:
        WeightsError: there is no checkpoint, or it cannot be read.
    """
    path = folder / CHECKPOINT
    try:
        with safe_open(path, "pt") as opened:
            return json.loads(opened.metadata()["about"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WeightsError(f"{path}: no checkpoint of a training run ({error})") from error


def load(
    folder: Path, optimiser: torch.optim.Optimizer | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The parts of a checkpoint by name, and its facts; `optimiser` takes its moments back.

    Raises:
        WeightsError: there is no checkpoint, or it cannot be read.
    """
    about = facts(folder)
    tensors = load_file(folder / CHECKPOINT)
    parts: dict[str, dict[str, Tensor]] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, rest = key.split(".", 1)
        if name == "optimiser":
            number, rest = rest.split(".", 1)
            moments.setdefault(int(number), {})[rest] = value
        else:
            parts.setdefault(name, {})[rest] = value
    if optimiser is not None:
        optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
    return parts, about
