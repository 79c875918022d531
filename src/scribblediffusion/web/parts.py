"""The page's own small components: how a run goes, drawings to begin with, the gallery's shelf.

Each is three files in the folder ``parts``: markup, style and script. Whatever comes from people is
put in by the scripts as text, never as markup.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from scribblediffusion.web.studio import Starter

FOLDER = Path(__file__).with_suffix("")


def text_of(name: str) -> str:
    """A file of the folder."""
    return (FOLDER / name).read_text(encoding="utf-8")


def status(**kwargs: Any) -> gr.HTML:
    """How the run goes.

    Its value is ``{"kind", "text", "noise", "step", "count"}`` with kind one of "rest", "waiting",
    "running", "done", "stopped", "error"; noise is 0…1 or None.
    """
    return _built("status", **kwargs)


def starter_strip(found: Sequence[Starter], **kwargs: Any) -> gr.HTML:
    """Drawings to begin with, as a row of buttons; the event ``pick`` has ``number``."""
    shown = [{"prompt": s.prompt, "picture": _small(s.file)} for s in found]
    return _built("starters", value=shown, **kwargs)


def shelf(**kwargs: Any) -> gr.HTML:
    """The gallery: search, thumbnails, pages, undo.

    Its value is ``{"runs", "page", "pages", "total", "words", "undo", "message"}``; undo is the run
    that was deleted last, message a sentence where something could not be done. Events:
    ``turn`` (page, words), ``open``, ``compare``, ``remove``, ``restore`` (id).
    """
    return _built("shelf", **kwargs)


def _built(name: str, **kwargs: Any) -> gr.HTML:
    return gr.HTML(
        html_template=text_of(f"{name}.html"),
        css_template=text_of(f"{name}.css"),
        js_on_load=text_of(f"{name}.js"),
        apply_default_css=False,
        **kwargs,
    )


def _small(file: Path) -> str:
    with Image.open(file) as image:
        small = image.convert("L").resize((96, 96), Image.Resampling.LANCZOS)
    made = io.BytesIO()
    small.save(made, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()
