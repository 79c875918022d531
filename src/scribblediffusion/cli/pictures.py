"""Where a person asked for pictures and runs to be kept: looked at before anything is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scribblediffusion.errors import GalleryError, InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")


def check_output(output: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Refuses a file that cannot be written, before anything is drawn.

    It is opened as if to go on with it: what it holds stays, and a new one is taken away again.

    Raises:
        InputError: another ending, no such folder, a folder itself, or it may not be written.
    """
    if output.suffix.lower() not in suffixes:
        raise InputError(f"--output {output}: the name must end in {', '.join(suffixes)}")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}")
    try:
        new = not output.exists()
        with output.open("ab"):
            pass
        if new:
            output.unlink()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(
            f"--output {output}: it cannot be written ({why}); name another"
        ) from error


def check_gallery(root: Path | None) -> None:
    """Refuses a gallery in which nothing can be kept, before anything is drawn; makes a new one.

    Raises:
        InputError: it is no folder, cannot be made, or may not be written to.
    """
    from scribblediffusion.gallery import Gallery

    try:
        Gallery(root).prepare()
    except GalleryError as error:
        raise InputError(f"--gallery: {error}") from error


def write_picture(path: Path, picture: np.ndarray | Image.Image, prompt: str, seed: object) -> None:
    """Writes a picture file; PNGs carry prompt and seed as text, as those of the gallery do."""
    from PIL import Image

    from scribblediffusion.gallery.content import write_png

    if path.suffix.lower() == ".png":
        write_png(path, picture, prompt, seed)
        return
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, quality=95)
