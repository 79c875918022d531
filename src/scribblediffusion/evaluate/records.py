"""What an evaluation keeps in its folder: what it is of, and one line a scene."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from scribblediffusion.errors import SettingError
from scribblediffusion.model.weights import COMPONENTS, FILE, digest, shipped


class Lines:
    """A file of one JSON record a scene; a line that was cut off is as if it were not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[int, dict[str, Any]] = {}
        if path.is_file():
            self._read()

    def _read(self) -> None:
        sound = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
            except ValueError:
                break
            self.found[record["scene"]] = record
            sound += len(line)
        os.truncate(self.path, sound)

    def add(self, record: dict[str, Any]) -> None:
        """Writes one scene's record at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.found[record["scene"]] = record

    def first(self, count: int) -> list[dict[str, Any]]:
        """The records of the first scenes, in their order."""
        return [self.found[i] for i in sorted(self.found) if i < count]


def weights_digest(model: str | None) -> str:
    """Sixteen letters that stand for all the weights of a model."""
    folder = Path(model) if model else shipped()
    parts = [folder / name / FILE for name in COMPONENTS]
    if not all(part.is_file() for part in parts):
        return str(model)  # a hub id
    return "".join(digest(part)[:4] for part in parts)


def claimed(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Notes what a folder's evaluation is of, or finds it the same as before.

    Raises:
        SettingError: the folder holds another evaluation.
    """
    path = folder / "settings.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = {k: v for k, v in about.items() if before.get(k) != v}
        if other:
            raise SettingError(
                f"{folder} holds an evaluation with other settings "
                f"({', '.join(f'{k} {before.get(k)}, now {v}' for k, v in other.items())}): "
                "name another folder, or delete this one"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return dict(about)
