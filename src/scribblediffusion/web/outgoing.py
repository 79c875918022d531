"""A run as it leaves the studio: without what it says of this machine and of who made it."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from scribblediffusion.gallery import Gallery, Run, manifest

_RECORD = "run.json"


def write_zip(gallery: Gallery, run: Run, path: Path, models: Mapping[str, str | None]) -> None:
    """Write a run as a ZIP file that a gallery can import.

    Args:
        gallery: where the run is.
        run: the run.
        path: the file to write.
        models: name → folder or hub id, as the studio offers them: the name stands for a folder.

    Raises:
        GalleryError: the run is damaged, or cannot be written.
    """
    whole = path.with_suffix(".whole")
    try:
        gallery.export(run.id, whole)
        with (
            zipfile.ZipFile(whole) as source,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made,
        ):
            top = f"{run.folder.name}/"
            record = _cleaned(source.read(top + _RECORD), models)
            entries = manifest.parse(source.read(top + manifest.NAME))
            entries[_RECORD] = manifest.Entry(len(record), hashlib.sha256(record).hexdigest())
            changed = {_RECORD: record, manifest.NAME: manifest.dump(entries)}
            for info in source.infolist():
                name = info.filename.removeprefix(top)
                if name in changed:
                    made.writestr(info.filename, changed[name])
                    continue
                with source.open(info) as part, made.open(info.filename, "w") as copy:
                    shutil.copyfileobj(part, copy, 1 << 20)
    finally:
        whole.unlink(missing_ok=True)


def _cleaned(content: bytes, models: Mapping[str, str | None]) -> bytes:
    """A run's record without the visitor, and with a model's name for its folder."""
    record = json.loads(content)
    settings = record.get("settings")
    if isinstance(settings, dict):
        settings.pop("visitor", None)
        source = settings.get("model")
        if isinstance(source, str) and Path(source).is_absolute():
            named = (name for name, there in models.items() if there == source)
            settings["model"] = next(named, Path(source).name)
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
