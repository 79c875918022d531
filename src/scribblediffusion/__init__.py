"""ScribbleDiffusion: see where each word and each stroke acted.

    >>> from scribblediffusion import ScribblePipeline
    >>> pipe = ScribblePipeline.from_pretrained()  # doctest: +SKIP
    >>> picture = pipe("a red apple", sketch="apple.png").images[0]  # doctest: +SKIP

Names are imported on first use: `import scribblediffusion` loads neither torch nor diffusers.
"""

from __future__ import annotations

import gc
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
    from scribblediffusion.attention.trace import AttentionTrace
    from scribblediffusion.errors import (
        AttentionError,
        CaptureError,
        GalleryError,
        InputError,
        NoHeatMapError,
        NotRecordedError,
        PromptError,
        SamplingError,
        ScribbleError,
        SettingError,
        SeveralRunsError,
        SketchError,
        TraceError,
        TraceFileError,
        TrainingError,
        UnknownFamilyError,
        UnknownWordError,
        WeightsError,
    )
    from scribblediffusion.gallery import Gallery
    from scribblediffusion.pipeline import ScribblePipeline
    from scribblediffusion.sketch import Sketch
    from scribblediffusion.visualizer import AttentionVisualizer

    __version__: str

__all__ = [
    "AttentionError",
    "AttentionTrace",
    "AttentionVisualizer",
    "CaptureError",
    "CaptureWarning",
    "Gallery",
    "GalleryError",
    "InputError",
    "NoHeatMapError",
    "NotRecordedError",
    "PromptError",
    "RealAttentionExtractor",
    "SamplingError",
    "ScribbleError",
    "ScribblePipeline",
    "SettingError",
    "SeveralRunsError",
    "Sketch",
    "SketchError",
    "TraceError",
    "TraceFileError",
    "TrainingError",
    "UnknownFamilyError",
    "UnknownWordError",
    "WeightsError",
    "__version__",
]

#: Where the names live that are not errors.
_HOMES = {
    "AttentionTrace": "attention.trace",
    "AttentionVisualizer": "visualizer",
    "CaptureWarning": "attention.extractor",
    "Gallery": "gallery",
    "RealAttentionExtractor": "attention.extractor",
    "ScribblePipeline": "pipeline",
    "Sketch": "sketch",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version(__name__)
    elif name in __all__:
        value = getattr(_home(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _home(module: str) -> Any:
    """A module, imported without collecting garbage.

    What an import makes stays, so that looking for garbage meanwhile finds none; with diffusers
    it would take a sixth of the time.
    """
    if not gc.isenabled():
        return importlib.import_module(module)
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.enable()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
