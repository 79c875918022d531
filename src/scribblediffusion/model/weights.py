"""Weights: where the shipped ones are, and refusing those that do not fit.

A folder of weights is checked before anything is built from it: its index names our components
and no other class, every component has one safetensors file and no other that could be loaded in
its place, whole, unaltered (where there is a `checksums.json`, which must then list every file),
finite, with exactly the tensors that the component's configuration calls for, the scheduler's noise
levels are those of our training, and the tokenizer has the words that the table was made for.
Pickles are never opened.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.models.bert.tokenization_bert import BertTokenizer

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
#: The other parts: the library and the classes that each may be of, and the file it is read from.
PARTS = {
    "scheduler": ("diffusers", ("FlowMatchEulerDiscreteScheduler",), "scheduler_config.json"),
    "tokenizer": ("transformers", ("BertTokenizer", "BertTokenizerFast"), "tokenizer.json"),
}
#: How the scheduler must be set for its sigmas to be the noise that remains.
SCHEDULE = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": None,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "invert_sigmas": False,
    "stochastic_sampling": False,
}
INDEX = "model_index.json"
FILE = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
CHECKSUMS = "checksums.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
#: What is fetched of a model on a hub, as `huggingface_hub.snapshot_download` takes it.
WANTED: dict[str, Any] = {
    "allow_patterns": [INDEX, CHECKSUMS, *(f"{part}/*" for part in (*COMPONENTS, *PARTS))],
    "ignore_patterns": sorted(f"*{ending}" for ending in _PICKLES),
}
#: What floats are stored in; they are loaded as whichever of them is asked for.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
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
    for name, (_, _, file) in PARTS.items():
        if not (folder / name / file).is_file():
            raise WeightsError(f"{folder / name / file}: missing")
    _verify_schedule(folder / "scheduler" / PARTS["scheduler"][-1])
    _verify_words(folder / "tokenizer" / PARTS["tokenizer"][-1], _rows(folder))


def load_tokenizer(folder: Path) -> BertTokenizer:
    """The tokenizer of a folder that `verify` let through.

    Raises:
        WeightsError: it cannot be made of its files, or has words that the table does not have.
    """
    path = folder / "tokenizer"
    try:
        tokenizer = BertTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare ones
        raise WeightsError(
            f"{path}: no tokenizer can be made of its files ({type(error).__name__}: {error})"
        ) from error
    if len(tokenizer) != (rows := _rows(folder)):
        raise WeightsError(
            f"{path}: {len(tokenizer)} words with those that were added, where the prompt "
            f"encoder's table has {rows}; leave them out"
        )
    return tokenizer


def _verify_index(path: Path) -> None:
    """The index decides which classes are loaded: ours, our scheduler's and our tokenizer's."""
    index = _json(path)
    expected = {name: [(c.__module__, c.__name__)] for name, c in COMPONENTS.items()}
    for name, (library, classes, _) in PARTS.items():
        expected[name] = [(library, made) for made in classes]
    for name, wanted in expected.items():
        found = index.get(name)
        if not isinstance(found, list) or tuple(found) not in wanted:
            names = " or ".join(".".join(one) for one in wanted)
            raise WeightsError(f"{path}: its {name} must be {names}, found {found!r}")
    if not isinstance(index.get("_class_name"), str):
        raise WeightsError(f"{path}: a pipeline with code of its own is not loaded")


def _verify_schedule(path: Path) -> None:
    """With other sigmas the denoiser would be told of noise that is not there."""
    config = _json(path)
    for name, expected in SCHEDULE.items():
        if (found := config.get(name, expected)) != expected:
            raise WeightsError(f"{path}: {name} must be {expected!r}, found {found!r}")


def _verify_words(path: Path, rows: int) -> None:
    """The words must be numbered as the rows of the table are."""
    model = _json(path).get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    numbers = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    if len(numbers) != rows:
        raise WeightsError(
            f"{path}: {len(numbers)} words, where the prompt encoder's table has {rows}"
        )
    if not all(type(n) is int for n in numbers) or sorted(numbers) != list(range(rows)):
        raise WeightsError(
            f"{path}: its words must be numbered from 0 to {rows - 1}, each number once"
        )


def _rows(folder: Path) -> Any:
    """Of the table of words."""
    return _json(folder / "prompt_encoder" / CONFIG).get("vocabulary")


def _verify_sums(folder: Path) -> None:
    path = folder / CHECKSUMS
    if not path.is_file():
        if folder.resolve() == shipped().resolve():
            raise WeightsError(f"{path}: missing from the package; install it again")
        return
    sums = _json(path)
    for name in _to_be_listed(folder):
        if name not in sums:
            raise WeightsError(
                f"{path}: {name} is not listed; save the pipeline again (save_pretrained), which "
                "lists every file"
            )
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise WeightsError(f"{folder / name}: listed in {CHECKSUMS} but missing")
        if digest(folder / name) != expected:
            raise WeightsError(
                f"{folder / name}: altered or damaged, its sha256 is not the one recorded"
            )


def _to_be_listed(folder: Path) -> list[str]:
    """Every file that is read, and what else lies beside the scheduler's and the tokenizer's."""
    components = [f"{name}/{file}" for name in COMPONENTS for file in (CONFIG, FILE)]
    parts = [f"{name}/{file}" for name, (_, _, file) in PARTS.items()]
    beside = (p for name in PARTS for p in (folder / name).glob("[!.]*") if p.is_file())
    found = [p.relative_to(folder).as_posix() for p in beside]
    return sorted({INDEX, *components, *parts, *found})


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: a JSON object was expected, found {type(found).__name__}")
    return found


def _verify_component(folder: Path, component: Any) -> None:
    _refuse_others(folder)
    path = folder / FILE
    if not path.is_file():
        raise WeightsError(f"{path}: missing")
    config = {k: v for k, v in _json(folder / CONFIG).items() if not k.startswith("_")}
    with torch.device("meta"):
        try:
            model = component(**config)
        except _MISFITS as error:
            raise WeightsError(
                f"{folder / 'config.json'}: no model fits it ({type(error).__name__}: {error})"
            ) from error
    _verify_tensors(path, model.state_dict())


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


def _verify_tensors(path: Path, expected: dict[str, Tensor]) -> None:
    try:
        with safe_open(path, "pt") as tensors:
            found = {k: tuple(tensors.get_slice(k).get_shape()) for k in tensors.keys()}  # noqa: SIM118
            _verify_shapes(path, {k: tuple(v.shape) for k, v in expected.items()}, found)
            for name in found:
                tensor = tensors.get_tensor(name)
                _verify_type(path, name, tensor.dtype, expected[name])
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


def _verify_type(path: Path, name: str, found: torch.dtype, expected: Tensor) -> None:
    """Whole numbers as the model keeps them, fractions in a precision that can be converted."""
    allowed = _FLOATS if expected.is_floating_point() else (expected.dtype,)
    if found not in allowed:
        raise WeightsError(
            f"{path}: {name} is of {found}, expected {' or '.join(map(str, allowed))}"
        )
