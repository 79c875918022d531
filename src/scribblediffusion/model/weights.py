"""Weights: where the shipped ones are, and refusing those that do not fit.

A folder of weights is checked before anything is built from it: its index names our components
and no other class, every component has one safetensors file and no other that could be loaded in
its place, whole, unaltered (where `checksums.json` says what it was), finite, with exactly the
tensors that the component's configuration calls for, and the tokenizer has the words that the
table was made for. Pickles are never opened.
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
#: The other parts: the library that each comes from, and the file that it is read from.
PARTS = {
    "scheduler": ("diffusers", "scheduler_config.json"),
    "tokenizer": ("transformers", "tokenizer.json"),
}
INDEX = "model_index.json"
FILE = "diffusion_pytorch_model.safetensors"
CHECKSUMS = "checksums.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
#: What is fetched of a model on a hub, as `huggingface_hub.snapshot_download` takes it.
WANTED: dict[str, Any] = {
    "allow_patterns": [INDEX, CHECKSUMS, *(f"{part}/*" for part in (*COMPONENTS, *PARTS))],
    "ignore_patterns": sorted(f"*{ending}" for ending in _PICKLES),
}
#: What a configuration that fits no model makes a constructor raise.
_MISFITS = (TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, LookupError)


def shipped() -> Path:
    """The folder of the weights that come with the package."""
    return Path(str(files("scribblediffusion.model") / "weights"))


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Note the sha256 of every file of a pipeline's parts, for `verify` to compare."""
    inside = [p for part in (*COMPONENTS, *PARTS) for p in (folder / part).rglob("*")]
    names = sorted(p for p in (folder / INDEX, *inside) if p.is_file())
    sums = {p.relative_to(folder).as_posix(): digest(p) for p in names}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def verify(folder: Path) -> None:
    """Refuse a folder whose weights do not fit.

    Raises:
        WeightsError: names the file and the reason.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder of weights")
    if not (folder / INDEX).is_file():
        raise WeightsError(f"{folder / INDEX}: missing, so this is no pipeline folder")
    _verify_sums(folder)
    _verify_index(folder / INDEX)
    for name, component in COMPONENTS.items():
        _verify_component(folder / name, component)
    for name, (_, file) in PARTS.items():
        if not (folder / name / file).is_file():
            raise WeightsError(f"{folder / name / file}: missing")
        _json(folder / name / file)
    _verify_words(folder)


def _verify_index(path: Path) -> None:
    """The index decides which classes are loaded: ours, a scheduler and a tokenizer."""
    index = _json(path)
    expected = {name: (c.__module__, c.__name__) for name, c in COMPONENTS.items()}
    for name in (*expected, *PARTS):
        found = index.get(name)
        library, made = found if isinstance(found, list) and len(found) == 2 else (None, None)
        fits = (
            (library, made) == expected[name]
            if name in expected
            else library == PARTS[name][0] and name in str(made).lower()
        )
        if not fits:
            wanted = ".".join(expected.get(name, (PARTS.get(name, ("",))[0], f"a {name}")))
            raise WeightsError(f"{path}: its {name} must be {wanted}, found {found!r}")
    if not isinstance(index.get("_class_name"), str):
        raise WeightsError(f"{path}: a pipeline with code of its own is not loaded")


def _verify_words(folder: Path) -> None:
    """The tokenizer must have one word for each row of the table."""
    path = folder / "tokenizer" / PARTS["tokenizer"][1]
    model = _json(path).get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    words = len(vocabulary) if isinstance(vocabulary, dict) else 0
    rows = _json(folder / "prompt_encoder" / "config.json").get("vocabulary")
    if words != rows:
        raise WeightsError(f"{path}: {words} words, where the prompt encoder's table has {rows}")


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
    _refuse_others(folder)
    path = folder / FILE
    if not path.is_file():
        raise WeightsError(f"{path}: missing")
    config = {k: v for k, v in _json(folder / "config.json").items() if not k.startswith("_")}
    with torch.device("meta"):
        try:
            model = component(**config)
        except _MISFITS as error:
            raise WeightsError(
                f"{folder / 'config.json'}: no model fits it ({type(error).__name__}: {error})"
            ) from error
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    _verify_tensors(path, expected)


def _refuse_others(folder: Path) -> None:
    """No pickle, and no index of shards: diffusers prefers that to the file that we checked."""
    for path in sorted(folder.glob("*")):
        if path.suffix in _PICKLES:
            raise WeightsError(
                f"{path}: a pickle can run code when it is opened, so it never is; "
                f"save the weights as safetensors ({FILE}), and leave no pickle beside them"
            )
        if ".index" in path.name and path.suffix == ".json":
            raise WeightsError(
                f"{path}: an index of weights in several files is not read; "
                f"save them as one ({FILE}), and leave no index beside it"
            )


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
