"""Weights: where the shipped ones are, and refusing those that do not fit.

A folder of weights is checked before anything is built from it: every file of every component
is safetensors, whole, unaltered (where `checksums.json` says what it was), finite, and has
exactly the tensors that the component's configuration calls for. Pickles are never opened.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from scribblediffusion.errors import WeightsError
from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.model.strokes import SketchEncoder
from scribblediffusion.model.text import PromptEncoder
from scribblediffusion.model.unet import ScribbleUNet

#: The learned components of a pipeline folder, by folder name.
COMPONENTS: dict[str, Any] = {
    "unet": ScribbleUNet,
    "prompt_encoder": PromptEncoder,
    "sketch_encoder": SketchEncoder,
    "autoencoder": ScribbleAutoencoder,
}
FILE = "diffusion_pytorch_model.safetensors"
CHECKSUMS = "checksums.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


def shipped() -> Path:
    """The folder of the weights that come with the package."""
    return Path(str(files("scribblediffusion.model") / "weights"))


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Note the sha256 of every file in a folder of weights, for `verify` to compare."""
    names = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS)
    sums = {p.relative_to(folder).as_posix(): digest(p) for p in names}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def verify(folder: Path) -> None:
    """Refuse a folder whose weights do not fit.

    Raises:
        WeightsError: names the file and the reason.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder of weights")
    if not (folder / "model_index.json").is_file():
        raise WeightsError(f"{folder / 'model_index.json'}: missing, so this is no pipeline folder")
    _verify_sums(folder)
    for name, component in COMPONENTS.items():
        _verify_component(folder / name, component)


def _verify_sums(folder: Path) -> None:
    sums = folder / CHECKSUMS
    if not sums.is_file():
        return
    for name, expected in _json(sums).items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path}: listed in {CHECKSUMS} but missing")
        if digest(path) != expected:
            raise WeightsError(f"{path}: altered or damaged, its sha256 is not the one recorded")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: a JSON object was expected, found {type(found).__name__}")
    return found


def _verify_component(folder: Path, component: Any) -> None:
    path = folder / FILE
    if not path.is_file():
        pickles = [p.name for p in folder.glob("*") if p.suffix in _PICKLES]
        if pickles:
            raise WeightsError(
                f"{folder / pickles[0]}: a pickle can run code when it is opened, so it never is; "
                f"save the weights as safetensors ({FILE})"
            )
        raise WeightsError(f"{path}: missing")
    config = {k: v for k, v in _json(folder / "config.json").items() if not k.startswith("_")}
    with torch.device("meta"):
        try:
            model = component(**config)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise WeightsError(f"{folder / 'config.json'}: no model fits it ({error})") from error
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    _verify_tensors(path, expected)


def _verify_tensors(path: Path, expected: dict[str, tuple[int, ...]]) -> None:
    try:
        with safe_open(path, "pt") as tensors:
            found = {k: tuple(tensors.get_slice(k).get_shape()) for k in tensors.keys()}  # noqa: SIM118
            _verify_shapes(path, expected, found)
            for name in found:
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise WeightsError(f"{path}: {name} holds values that are not finite")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: truncated, or not a safetensors file ({error})") from error


def _verify_shapes(path: Path, expected: dict, found: dict) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise WeightsError(f"{path}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if extra:
        raise WeightsError(f"{path}: {len(extra)} tensors are not ours, the first is {extra[0]}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise WeightsError(f"{path}: {name} has shape {found[name]}, expected {shape}")
