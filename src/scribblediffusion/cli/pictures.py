"""Picture files that a command writes where a person asked for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scribblediffusion.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")


def check_output(output: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Refuses a file that cannot be written, before anything is drawn.

    Raises:
        InputError: another ending, or no such folder.
    """
    if output.suffix.lower() not in suffixes:
        raise InputError(f"--output {output}: the name must end in {', '.join(suffixes)}")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}")


def write_picture(path: Path, picture: np.ndarray | Image.Image, prompt: str, seed: object) -> None:
    """Writes a picture file; PNGs carry prompt and seed as text, as those of the gallery do."""
    from PIL import Image

    from scribblediffusion.gallery.content import write_png

    if path.suffix.lower() == ".png":
        write_png(path, picture, prompt, seed)
        return
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, quality=95)
