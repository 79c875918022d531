"""What `scribble evaluate maps` writes: tables, plots, one JSON, and measured parts of a page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate import choosing
from scribblediffusion.evaluate.findings import EDITS, WORDS, Evidence, examples
from scribblediffusion.evaluate.page import filled
from scribblediffusion.evaluate.plots import OPTIONAL, plots
from scribblediffusion.evaluate.tables import BLOCKS, PICTURES_OF_PAGES, blocks
from scribblediffusion.view.figure import save_figure


def write(evidence: Evidence, page: Path | None = None) -> dict[str, str]:
    """Writes `maps.json`, `maps.md` and the plots beside the records.

    Args:
        evidence: what was measured.
        page: a Markdown page whose measured parts, pictures and figures (`maps.json` beside its
            pictures) are brought up to date.

    Returns:
        The parts in Markdown, by name.

    Raises:
        SettingError: there is no such page, or it asks for a part that there is not.
    """
    if page is not None:
        check(page)
    parts = blocks(evidence)
    text = "\n".join(parts.values()).replace(f"{PICTURES_OF_PAGES}/", "")
    (evidence.folder / "maps.md").write_text(text, encoding="utf-8")
    found = figures(evidence)
    text = json.dumps(found, indent=1) + "\n"
    (evidence.folder / "maps.json").write_text(text, encoding="utf-8")
    drawn = plots(evidence)
    _draw(drawn, evidence.folder)
    if page is not None:
        pictures = page.parent / PICTURES_OF_PAGES
        _draw(drawn, pictures)
        text = json.dumps(found, separators=(",", ":")) + "\n"
        (pictures / "maps.json").write_text(text, encoding="utf-8")
        page.write_text(filled(page.read_text(encoding="utf-8"), parts), encoding="utf-8")
    return parts


def check(page: Path) -> None:
    """Whether a page can be brought up to date: asked before anything is measured.

    Raises:
        SettingError: there is no such page, or it asks for a part that there is not.
    """
    if not page.is_file():
        raise SettingError(f"{page}: there is no such page to bring up to date")
    filled(page.read_text(encoding="utf-8"), dict.fromkeys(BLOCKS, ""))


def _draw(drawn: dict[str, Any], folder: Path) -> None:
    """Writes the plots; those of an earlier evaluation that this one has not are deleted."""
    for name in OPTIONAL:
        if name not in drawn:
            (folder / f"{name}.png").unlink(missing_ok=True)
    for name, figure in drawn.items():
        save_figure(figure, folder / f"{name}.png")


def figures(evidence: Evidence) -> dict[str, Any]:
    """Every figure with its interval, as plain JSON values."""
    chosen, look = choosing.choice(evidence), choosing.look(evidence)
    return {
        "about": evidence.about | evidence.counted,
        "localisation": {
            view_: {k: _plain(evidence.located(k, view_)) for k in evidence.kinds}
            for view_ in evidence.views
            if not view_.startswith("choice ")
        },
        "choice": None if chosen is None else _plain(chosen),
        "look": None if look is None else _plain(look),
        "causal": {
            f"{kind}, {edit}": {
                where: _plain(evidence.explained(kind, edit, where))
                for where in ("picture", "latents")
            }
            for kind, edit in EDITS
        },
        "effects": {
            f"{kind}, {edit}": _plain(evidence.consequences(kind, edit)) for kind, edit in EDITS
        },
        "over_time": {
            kind: {
                "removed from": _plain(evidence.over_time(kind, True)),
                "removed until": _plain(evidence.over_time(kind, False)),
                "attention to come": _plain(evidence.attention_to_come(kind)),
            }
            for kind in WORDS
        },
        "examples": _plain(examples(evidence)),
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value
