"""Every exception that ScribbleDiffusion raises on purpose.

    ScribbleError
    ├── InputError (also ValueError)     what a person gave cannot be used
    │   ├── SketchError                  an image that cannot be read as a sketch
    │   ├── PromptError                  a prompt that cannot be used
    │   └── SettingError                 a number or option out of its range
    ├── WeightsError                     a model file that does not fit, or is damaged
    ├── SamplingError                    the denoiser gave a value that is not finite
    ├── TrainingError                    a step of training gave a value that is not finite
    ├── AttentionError                   attention could not be captured or read
    │   ├── UnknownFamilyError           a denoiser whose attention we cannot read
    │   ├── CaptureError                 attaching, nesting, or nothing was captured
    │   ├── TraceFileError               a saved trace that is damaged or not one of ours
    │   └── TraceError                   the trace does not hold what was asked for
    │       ├── UnknownWordError         a word that is not in the prompt
    │       ├── NoHeatMapError           a token with no weight anywhere has no map
    │       ├── NotRecordedError         left out by choice or thinned away
    │       └── SeveralRunsError         one trace was asked for, several were captured
    └── GalleryError                     a run that cannot be stored, found or verified

Each message says what was asked, what was found, and what to try.
"""


class ScribbleError(Exception):
    """The root: catch this to catch everything that ScribbleDiffusion raises on purpose."""


class InputError(ScribbleError, ValueError):
    """What a person gave cannot be used."""


class SketchError(InputError):
    """An image that cannot be read as a sketch."""


class PromptError(InputError):
    """A prompt that cannot be used."""


class SettingError(InputError):
    """A number or option that is out of its range."""


class WeightsError(ScribbleError):
    """A model file that does not fit the model, or is damaged."""


class SamplingError(ScribbleError):
    """The denoiser gave a value that is not finite; there is no picture."""


class TrainingError(ScribbleError):
    """A step of training gave a value that is not finite; the weights before it are kept."""


class AttentionError(ScribbleError):
    """Attention could not be captured or read."""


class UnknownFamilyError(AttentionError):
    """A denoiser whose attention this extractor cannot read."""


class CaptureError(AttentionError):
    """Capture could not begin, was nested, or captured nothing."""


class TraceError(AttentionError):
    """A trace does not hold what was asked of it."""


class UnknownWordError(TraceError, KeyError):
    """A word that is not in the prompt."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class NoHeatMapError(TraceError):
    """A token with no weight anywhere (padding, masked out) has no heat map."""


class NotRecordedError(TraceError):
    """Asked for what was left out by choice or thinned away to stay within the memory limit."""


class SeveralRunsError(TraceError):
    """One trace was asked for where several runs were captured."""


class TraceFileError(AttentionError):
    """A saved trace that is damaged, incomplete, of an unknown version, or not a trace."""


class GalleryError(ScribbleError):
    """A run that cannot be stored, found or verified."""
