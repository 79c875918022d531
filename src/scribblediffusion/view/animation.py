"""Frames into files: GIF, animated WebP, MP4. Each is written whole, then moved into place."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from PIL import Image

from scribblediffusion.errors import SettingError
from scribblediffusion.view.colour import Colour
from scribblediffusion.view.files import whole

Frames = Iterator[Image.Image]
Format = Literal["gif", "webp", "mp4"]
#: Formats that an animation can be written in.
FORMATS: tuple[Format, ...] = ("gif", "webp", "mp4")

#: Pictures a second of an MP4: one lasts 20 ms.
RATE = 50


def save_animation(
    frames: Iterable[Image.Image],
    durations: Sequence[int],
    path: str | os.PathLike[str],
    *,
    kept: Sequence[Colour] = (),
) -> Path:
    """Writes frames as GIF, animated WebP or MP4, as the path ends.

    Args:
        frames: RGB images of one size.
        durations: how long each stays, in milliseconds.
        path: ends in .gif, .webp or .mp4; its folder is made if it is not there.
        kept: for GIF, which has 256 colours a frame: colours that stay exactly as they are, the
            same in all frames (at most 128: ground, letters, colour bar).

    Returns:
        The path.

    Raises:
        SettingError: another ending, no frames, not one duration for each, or MP4 without ffmpeg.
    """
    path = Path(path)
    writers = {".gif": _gif, ".webp": _webp, ".mp4": _mp4}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise SettingError(f"animation {path.name!r}: it must end in {', '.join(writers)}")
    with whole(path) as made:
        writer(_one_for_each(frames, durations), durations, made, kept)
    return path


def _one_for_each(frames: Iterable[Image.Image], durations: Sequence[int]) -> Frames:
    """The frames, one at a time, as many as there are durations."""
    count = 0
    for count, frame in enumerate(frames, start=1):
        if count <= len(durations):
            yield frame
    if not count or count != len(durations):
        raise SettingError(f"{count} frames and {len(durations)} durations: one for each")


def _gif(frames: Frames, durations: Sequence[int], path: Path, kept: Sequence[Colour]) -> None:
    """A palette for each frame, without dithering, which would flicker from frame to frame."""
    mapped = _side_by_side(functools.partial(_mapped, kept=kept), frames)
    next(mapped).save(
        path,
        "GIF",
        save_all=True,
        append_images=mapped,
        duration=list(durations),
        loop=0,
        optimize=False,
    )


def _side_by_side(
    work: Callable[[Image.Image], Image.Image], frames: Frames, threads: int = 2
) -> Frames:
    """What becomes of each frame, in their order; some are worked on while another is written.

    Pillow lets other threads run while it counts colours. Few frames are held at once.
    """
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Image.Image]] = deque()
        for frame in frames:
            begun.append(pool.submit(work, frame))
            if len(begun) > 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _mapped(frame: Image.Image, kept: Sequence[Colour]) -> Image.Image:
    """A frame in 256 colours: those to keep as they are, the most frequent, and rare far ones."""
    small = frame.resize((frame.width // 5, frame.height // 5), Image.Resampling.NEAREST)
    kept = tuple(dict.fromkeys(kept))[:128]
    rare = (256 - len(kept)) // 3
    frequent = 256 - len(kept) - rare
    chosen = [
        *kept,
        *_colours(small, frequent, Image.Quantize.MEDIANCUT),
        *_colours(small, rare, Image.Quantize.MAXCOVERAGE),
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in chosen for value in colour])
    return frame.quantize(palette=palette, dither=Image.Dither.NONE)


def _colours(image: Image.Image, count: int, method: Image.Quantize) -> list[Colour]:
    flat = image.quantize(count, method=method).getpalette() or []
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)][:count]


def _webp(frames: Frames, durations: Sequence[int], path: Path, kept: Sequence[Colour]) -> None:
    next(frames).save(
        path,
        "WEBP",
        save_all=True,
        append_images=list(frames),
        duration=list(durations),
        loop=0,
        quality=88,
        method=2,
    )


def _mp4(frames: Frames, durations: Sequence[int], path: Path, kept: Sequence[Colour]) -> None:
    """H.264 through ffmpeg; sizes are cut to even numbers."""
    first = next(frames)
    width, height = (side - side % 2 for side in first.size)
    command = [
        _ffmpeg(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-", "-c:v", "libx264", "-crf", "16",
        "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as said:
        with (
            contextlib.suppress(BrokenPipeError),  # ffmpeg gave up: below, what it said
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as film,
        ):
            stays = _pictures_each(durations)
            for frame, count in zip(itertools.chain([first], frames), stays, strict=True):
                picture = frame.crop((0, 0, width, height)).tobytes()
                for _ in range(count):
                    film.stdin.write(picture)  # type: ignore[union-attr]
        said.seek(0)
        if film.returncode != 0:
            why = said.read().decode(errors="replace").strip()[-300:]
            raise SettingError(f"MP4: ffmpeg failed ({why}): try GIF or WebP")


def _pictures_each(durations: Sequence[int]) -> list[int]:
    """Pictures of a film for each duration; what is rounded does not add up over the frames."""
    ends = [round(end * RATE / 1000) for end in itertools.accumulate(durations)]
    return [max(1, end - begin) for begin, end in itertools.pairwise([0, *ends])]


def _ffmpeg() -> str:
    """The ffmpeg of this machine, or the one that the package imageio-ffmpeg brings."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        return importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    raise SettingError(
        "MP4 needs ffmpeg, which is not on this machine: install it, or imageio-ffmpeg which "
        'brings it (pip install "scribblediffusion[video]"), or ask for GIF or WebP'
    )
