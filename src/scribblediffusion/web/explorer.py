"""The explorer: a Gradio component in which one asks a picture why, wholly in the browser.

    view = explorer()                          # value: payload.pack(trace), or None
    view.without(run_again, view_inputs, …)    # "same, but without “red”"

Its value is what `payload.pack` gives, `payload.pack_live` while a run goes on, or None. The
buttons trigger the event ``without``, whose `gr.EventData` has the attributes ``without``,
``{"word": i}`` (position in `trace.words`) or ``{"region": [level, row, column]}``, and ``run``,
the name that was packed.

Markup, style and script are the files in the folder ``explorer`` beside this module; there is no
build step, and the page asks the network for nothing. Texts of a run are put in as text alone.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import HTTPException

from scribblediffusion.errors import ScribbleError
from scribblediffusion.view.colour import COLOUR_MAPS, table
from scribblediffusion.web.clearly import clearly

#: Markup, style and scripts.
FOLDER = Path(__file__).with_suffix("")
#: The explorer's scripts in the order in which they are joined.
SCRIPTS = ("maps.js", "paint.js", "dom.js", "words.js", "parts.js", "panels.js", "explorer.js")


def explorer(
    *,
    maps: Callable[[Any, str, str | None, int | None], dict[str, Any]] | None = None,
    **kwargs: Any,
) -> gr.HTML:
    """The explorer of one run.

    Args:
        maps: ``maps(request, run, layer, head)`` gives `payload.pack_maps` of a run by the
            name that it was packed under, for layers and heads that did not travel along. Whoever
            calls it may be a stranger: check the name, and who asks. None offers
            only what was packed.
        **kwargs: As `gr.HTML` takes them: value, elem_id, visible, render …

    Returns:
        The component. Where it is the output of a long event, give that event
        ``show_progress="hidden"``: Gradio fades components that wait.
    """
    functions = []
    if maps is not None:

        def layer_maps(asked: Any, request: gr.Request) -> dict[str, Any]:
            """One block of maps, by run, layer and head."""
            if not _is_choice(asked):
                raise HTTPException(422, "give a run, a layer and a head")
            try:
                return maps(request, *asked)
            except ScribbleError as error:
                raise HTTPException(404, clearly(error)) from None

        functions.append(layer_maps)
    return built("explorer", SCRIPTS, functions, remote=maps is not None, **kwargs)


def _is_choice(asked: Any) -> bool:
    """Whether something is a run's name, a layer's name or None, a head's number or None."""
    if not isinstance(asked, list | tuple) or len(asked) != 3:
        return False
    run, layer, head = asked
    named = isinstance(run, str) and isinstance(layer, str | None)
    return named and (head is None or type(head) is int)


def built(
    name: str, scripts: Sequence[str], functions: Sequence[Callable[..., Any]], **kwargs: Any
) -> gr.HTML:
    """A component from files of `FOLDER`: ``name.html``, ``name.css`` and scripts in a row.

    Args:
        name: Of the markup and style files.
        scripts: File names; together they are one function's body.
        functions: What the page may call on the server.
        **kwargs: As `gr.HTML` takes them.
    """
    return gr.HTML(
        html_template=_text(f"{name}.html"),
        css_template=_text(f"{name}.css"),
        js_on_load="\n".join(_text(script) for script in scripts),
        server_functions=list(functions) or None,
        apply_default_css=False,
        **{m: base64.b64encode(table(m).tobytes()).decode() for m in COLOUR_MAPS},
        **kwargs,
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
