"""What went wrong, as strangers may read it: no place of this machine is named."""

from __future__ import annotations

import errno
import re
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PLACE = re.compile(r"(?<![\w:/.])(?:/[^\s/'\":;,]+){2,}")


def clearly(error: BaseException) -> str:
    """The sentence of an error: of a file its name alone, and the gallery for where it lies."""
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return "the disk is full; free some space, then try again"
        return f"a file cannot be read or written: {error.strerror or type(error).__name__}"
    text, cause = str(error), error.__cause__
    if isinstance(cause, OSError) and cause.filename:
        text = text.replace(str(cause.filename), "the gallery")
    return _PLACE.sub(lambda found: Path(found[0]).name, text)
