"""The page: drawing board and picture first, everything else around them.

`build` gives the Gradio blocks; what happens is in `handlers`.
"""

from __future__ import annotations

import logging
from itertools import starmap, zip_longest
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.exceptions import ComponentProcessingError
from gradio.themes import Base
from gradio.themes.utils import colors, sizes

from scribblediffusion.settings import GUIDANCE, SKETCH_GUIDANCE
from scribblediffusion.web import parts
from scribblediffusion.web.asking import files_in, is_uploaded
from scribblediffusion.web.canvas import MASK_COLOUR, SIDE, Canvas, blank
from scribblediffusion.web.clearly import clearly
from scribblediffusion.web.comparison import comparison
from scribblediffusion.web.explorer import explorer
from scribblediffusion.web.files import visitor_of
from scribblediffusion.web.handlers import Handlers
from scribblediffusion.web.programs import Programs
from scribblediffusion.web.studio import Studio, starters

_log = logging.getLogger(__name__)
TITLE = "ScribbleDiffusion"
FOLDER = Path(__file__).with_suffix("")
STEPS = 20
BOARD = "studio-board"
_OTHER_TYPES = (
    "That cannot be read: give a drawing as {background, layers, composite}, the prompt as text, "
    "and steps, guidance and seed as numbers."
)
#: What Gradio raises on such values; the last one where they lie too deep in one another.
_OF_OTHER_TYPES = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError,
)  # fmt: skip
_NOT_UPLOADED = (
    "A file is uploaded, not named by its address or its place; "
    "if it was uploaded long ago, upload it again."
)
_ACCENT = colors.Color(
    name="studio", c50="#eef5fa", c100="#d6e7f3", c200="#aacfe8", c300="#7ab4db", c400="#68b2e8",
    c500="#1f78b0", c600="#005f96", c700="#00507f", c800="#064166", c900="#0a3350", c950="#072338",
)  # fmt: skip
#: No font is fetched: what the reader's own system has.
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
#: Listening costs one slot of Gradio's queue for each visitor; the worker has the real queue.
_LISTENERS = 32


#: Where Gradio's look differs from its base theme, by the names of its variables.
_LOOK = {
    "body_background_fill": "#fbfbfa",
    "body_background_fill_dark": "#15161a",
    "body_text_color": "#1c1c20",
    "body_text_color_dark": "#ececea",
    "background_fill_primary": "#ffffff",
    "background_fill_primary_dark": "#1c1d22",
    "background_fill_secondary": "#f3f3f1",
    "background_fill_secondary_dark": "#24262c",
    "border_color_primary": "#dfdfdb",
    "border_color_primary_dark": "#34363e",
    "block_background_fill": "transparent",
    "block_background_fill_dark": "transparent",
    "block_border_width": "0px",
    "block_border_width_dark": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "block_label_background_fill": "transparent",
    "block_label_background_fill_dark": "transparent",
    "block_label_border_width": "0px",
    "input_background_fill": "#ffffff",
    "input_background_fill_dark": "#1c1d22",
    "input_border_color": "#d2d2ce",
    "input_border_color_dark": "#3c3f48",
    "input_border_color_focus": "*primary_600",
    "input_border_color_focus_dark": "*primary_400",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_400",
    "button_primary_background_fill_hover_dark": "*primary_300",
    "button_primary_text_color": "#ffffff",
    "button_primary_text_color_dark": "#10202c",
    "button_secondary_background_fill": "transparent",
    "button_secondary_background_fill_dark": "transparent",
    "button_secondary_background_fill_hover": "*background_fill_secondary",
    "button_secondary_background_fill_hover_dark": "*background_fill_secondary",
    "button_secondary_border_color": "*border_color_primary",
    "button_secondary_border_color_dark": "*border_color_primary",
    "button_secondary_text_color": "*body_text_color",
    "button_secondary_text_color_dark": "*body_text_color",
    "button_border_width": "1px",
    "button_cancel_background_fill": "transparent",
    "button_cancel_background_fill_dark": "transparent",
    "button_cancel_background_fill_hover": "*background_fill_secondary",
    "button_cancel_background_fill_hover_dark": "*background_fill_secondary",
    "button_cancel_border_color": "*body_text_color",
    "button_cancel_border_color_dark": "*body_text_color",
    "button_cancel_text_color": "*body_text_color",
    "button_cancel_text_color_dark": "*body_text_color",
    "slider_color": "*primary_600",
    "slider_color_dark": "*primary_400",
}


def theme() -> Base:
    """One accent colour on quiet grey; no shadows; the system's own fonts."""
    made = Base(
        primary_hue=_ACCENT,
        secondary_hue=_ACCENT,
        neutral_hue=colors.zinc,
        radius_size=sizes.radius_md,
        font=_FONT,
        font_mono=_MONO,
    )
    return made.set(**_LOOK)


def css() -> str:
    """The page's style."""
    return (FOLDER / "page.css").read_text(encoding="utf-8")


def script() -> str:
    """The page's script: keys of the drawing board, theme switch."""
    return (FOLDER / "page.js").read_text(encoding="utf-8")


class Page(gr.Blocks):
    """Gradio's blocks that take no file but what was uploaded to a board.

    Gradio itself would fetch what an address names, and copy any file of this machine into the
    folder that it serves.
    """

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Values as the handlers take them; what cannot be read as one is a sentence."""
        if not all(starmap(_only_uploads, zip_longest(block_fn.inputs, inputs))):
            raise gr.Error(_NOT_UPLOADED, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except _OF_OTHER_TYPES as error:
            _log.info("values of other types were sent: %s", error)
            raise gr.Error(_OTHER_TYPES, print_exception=False) from None

    async def postprocess_data(self, *args: Any, **kwargs: Any) -> Any:
        """Values as the page takes them; where their files find no room, a sentence."""
        try:
            return await super().postprocess_data(*args, **kwargs)
        except (OSError, ComponentProcessingError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            _log.warning("what was made cannot be shown: %s", cause)
            told = f"This cannot be shown: {clearly(cause)}."
            raise gr.Error(told, print_exception=False) from None


def _only_uploads(block: Any, sent: Any) -> bool:
    """Whether all files among what was sent to a part of the page were uploaded, and to a board."""
    board = isinstance(block, Canvas)
    return all(board and is_uploaded(path, block.GRADIO_CACHE) for path in files_in(sent))


def lasting(page: gr.Blocks) -> frozenset[Path]:
    """Files that every new page asks for, such as the white sheet: they stay while it is served."""
    kept = (getattr(block, "keep_in_cache", ()) for block in page.blocks.values())
    return frozenset(Path(file) for files in kept for file in files)


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio."""
    does = Handlers(studio)
    with Page(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(600, studio.limits.keep_seconds),
    ) as page:
        gr.HTML(_text("header.html"), elem_id="studio-header", js_on_load=None)
        with gr.Tabs(elem_id="studio-tabs") as tabs:
            with gr.Tab("Draw", id="draw"), gr.Row(elem_id="studio-main"):
                with gr.Column(scale=5, min_width=300, elem_id="studio-left"):
                    made = _left(studio)
                with gr.Column(scale=8, min_width=300, elem_id="studio-right"):
                    made |= _right(does)
            with gr.Tab("Gallery", id="gallery") as tab:
                made["shelf"] = parts.shelf(elem_id="studio-shelf")
        made["tabs"] = tabs
        link = gr.Textbox(visible=False)
        does.parts = made
        _wire(does, page, link, tab)
        _programs(does)
    page.queue(max_size=4 * _LISTENERS, default_concurrency_limit=_LISTENERS)
    # Gradio's own limit keeps 10,000 pages, 85 kB each.
    page.state_session_capacity = studio.limits.pages
    return page


def _left(studio: Studio) -> dict[str, Any]:
    """Drawing board, prompt, buttons, settings."""
    limits = studio.limits
    made: dict[str, Any] = {}
    made["board"] = _board(studio, "Drawing board", BOARD, "#000000")
    gr.HTML(_text("sources.html"), js_on_load=None, padding=False)
    made["starters"] = parts.starter_strip(starters(), elem_id="studio-starters")
    made["prompt"] = gr.Textbox(
        label="Prompt",
        placeholder="What is it? For instance: a red sailboat on a blue background",
        max_length=limits.prompt,
        lines=2,
        max_lines=4,
        elem_id="studio-prompt",
    )
    with gr.Row(elem_id="studio-buttons"):
        made["go"] = gr.Button(
            "Generate", variant="primary", size="lg", scale=3, min_width=120, elem_id="studio-go"
        )
        made["halt"] = gr.Button(
            "Stop", variant="stop", size="lg", scale=1, min_width=80, interactive=False,
            elem_id="studio-stop",
        )  # fmt: skip
    with gr.Row(elem_id="studio-seeds"):
        made["seed"] = gr.Textbox(
            label="Seed", placeholder="new each time", max_length=19, elem_id="studio-seed"
        )
        made["use_seed"] = gr.Button(
            "Use last seed", size="sm", interactive=False, elem_id="studio-use-seed"
        )
    # Gradio's own accordion makes its fields when it first unfolds, and then puts their first
    # values over what was typed meanwhile: these are there from the start, and only not shown.
    with gr.Column(elem_id="studio-settings"):
        gr.HTML(_text("settings.html"), js_on_load=None, padding=False)
        with gr.Column(elem_id="studio-fields"):
            made |= _settings(studio)
    made["last_seed"] = gr.State(None)
    return made


def _settings(studio: Studio) -> dict[str, Any]:
    """What can be left as it is."""
    limits = studio.limits
    made: dict[str, Any] = {}
    made["steps"] = gr.Slider(1, limits.steps, STEPS, step=1, label="Steps")
    made["guidance"] = gr.Slider(
        0, limits.guidance, GUIDANCE, step=0.1, label="How much the words count"
    )
    made["sketch_guidance"] = gr.Slider(
        0, limits.guidance, SKETCH_GUIDANCE, step=0.1, label="How much the sketch counts",
        info="1 is fastest.",
    )  # fmt: skip
    made["model"] = gr.Dropdown(
        list(studio.models), value=next(iter(studio.models)), label="Model",
        interactive=len(studio.models) > 1,
    )  # fmt: skip
    made["each_head"] = gr.Checkbox(
        label="Keep each attention head apart (eight times as large)", value=False
    )
    made["masked"] = gr.Checkbox(label="Only a part of the drawing counts", value=False)
    made["mask"] = _board(studio, "Paint over the part that counts", "studio-mask", MASK_COLOUR)
    return made


def _board(studio: Studio, label: str, name: str, colour: str) -> Canvas:
    mask = name != BOARD
    return Canvas(
        studio.limits,
        value=blank(),
        label=label,
        show_label=mask,
        elem_id=name,
        visible=not mask,
        sources=() if mask else ("upload",),
        brush=gr.Brush(
            default_size=40 if mask else 8, colors=[colour], default_color=colour,
            color_mode="fixed",
        ),
        eraser=gr.Eraser(default_size=24),
        layers=False,
        transforms=(),
        buttons=[],
        canvas_size=(SIDE, SIDE),
        fixed_canvas=True,
    )  # fmt: skip


def _right(does: Handlers) -> dict[str, Any]:
    """How it goes, the explorer, the comparison, the files."""
    made: dict[str, Any] = {}
    made["status"] = parts.status(elem_id="studio-status")
    made["explorer"] = explorer(maps=_maps(does.studio), elem_id="studio-explorer")
    with gr.Column(visible="hidden", elem_id="studio-compare") as made["comparison_part"]:
        gr.HTML("<h2>Compared</h2>", js_on_load=None)
        made["comparison"] = comparison(elem_id="studio-comparison")
        made["other"] = gr.Button("Explore the new one", size="sm", elem_id="studio-other")
    # Hidden, not absent: a page that is still setting a part up loses what it is sent meanwhile.
    with gr.Column(visible="hidden", elem_id="studio-outputs") as made["outputs_part"]:
        gr.HTML("<h2>To keep</h2>", js_on_load=None)
        with gr.Row():
            made["picture"] = _file("Picture", "studio-picture", format="png")
            made["gif"] = _file("Evolution", "studio-gif")
        made["analysis"] = _file("Analysis", "studio-analysis", format="png")
        with gr.Accordion("Gallery entry", open=False):
            made["entry"] = gr.JSON(label="Gallery entry", show_label=False, elem_id="studio-entry")
    made["run_id"] = gr.Textbox(visible=False)
    made["other_id"] = gr.Textbox(visible=False)
    return made


def _maps(studio: Studio) -> Any:
    """What the explorer asks for by itself: maps of a run that whoever asks may see."""

    def maps(request: Any, run: str, layer: str | None, head: int | None) -> dict[str, Any]:
        return studio.maps(visitor_of(request, request.app), run, layer, head)

    return maps


def _file(label: str, name: str, **kwargs: Any) -> gr.Image:
    return gr.Image(
        label=label, elem_id=name, interactive=False, buttons=["download", "fullscreen"], **kwargs
    )


def _wire(does: Handlers, page: gr.Blocks, link: gr.Textbox, tab: gr.Tab) -> None:
    """Which event calls which handler."""
    made = does.parts
    shown: Any = {part for part in made.values() if part is not made["starters"]}
    # Gradio would fade and count on what waits; the status line says more. It tells every output
    # how an event goes unless one is named, and a board that is told anything uploads its drawing.
    quiet: dict[str, Any] = {
        "show_progress": "hidden", "show_progress_on": made["status"], "api_visibility": "private",
    }  # fmt: skip
    # A second one that comes while the first is under way is not dropped.
    each: dict[str, Any] = {"trigger_mode": "multiple", **quiet}
    newest: dict[str, Any] = {"trigger_mode": "always_last", **quiet}
    order = ("board", "masked", "mask", "prompt", "steps", "guidance", "sketch_guidance", "seed")
    inputs = [made[name] for name in (*order, "model", "each_head", "run_id")]
    # Asking again is fine while the views of the last run are still being drawn.
    live: dict[str, Any] = {"concurrency_limit": _LISTENERS, **each}
    # A mask that is not shown does not count, and its file may be gone by now.
    unseen = "(...sent) => { if (!sent[1]) sent[2] = null; return sent; }"
    address = (
        "(run) => { if (run) history.replaceState(null, '', '?run=' + encodeURIComponent(run)) }"
    )

    made["go"].click(does.generate, inputs, shown, js=unseen, **live)
    made["prompt"].submit(does.generate, inputs, shown, js=unseen, **live)
    made["halt"].click(does.stop, None, made["halt"], queue=False, **quiet)
    made["explorer"].without(does.without, None, shown, **live)
    made["other"].click(does.explore, [made["other_id"]], shown, **live)
    made["run_id"].change(None, [made["run_id"]], None, js=address, **quiet)
    made["use_seed"].click(_again, made["last_seed"], made["seed"], **quiet)
    made["starters"].pick(does.pick, None, [made["board"], made["prompt"]], **each)
    # Gradio's own bin leaves the board with another tool than the brush.
    made["board"].clear(blank, None, made["board"], **quiet)
    made["mask"].clear(does.mask_board, [made["masked"], made["board"]], made["mask"], **quiet)
    made["masked"].input(does.mask_board, [made["masked"], made["board"]], made["mask"], **newest)

    shelf = made["shelf"]
    tab.select(does.shelf.show_shelf, [shelf], [shelf], **quiet)
    shelf.turn(does.shelf.turn, [shelf], [shelf], **each)
    shelf.remove(does.shelf.remove, [shelf], [shelf], **each)
    shelf.restore(does.shelf.restore, [shelf], [shelf], **each)
    shelf.open(does.open_run, None, shown, **live)
    shelf.compare(does.compare, [made["run_id"]], shown, **live)
    asked = (FOLDER / "asked.js").read_text(encoding="utf-8")
    page.load(does.visit, [link], shown, js=asked, **live)


def _again(seed: int | None) -> Any:
    """The last seed as it is typed; nothing where it was forgotten (see `Limits.pages`)."""
    return gr.skip() if seed is None else str(seed)


def _programs(does: Handlers) -> None:
    """The API `/generate_image`, as programs call it: five values in, four outputs back."""
    made = does.parts
    guidance = gr.Number(value=GUIDANCE, label="guidance_scale", visible=False)
    steps = gr.Number(value=STEPS, label="num_inference_steps", visible=False)
    seed = gr.Number(value=-1, label="seed", visible=False)
    button = gr.Button(visible=False)
    button.click(
        Programs(does.studio, made).generate_image,
        [made["board"], made["prompt"], steps, guidance, seed],
        [made["picture"], made["gif"], made["analysis"], made["entry"]],
        api_name="generate_image",
        concurrency_limit=_LISTENERS,
        show_progress="hidden",
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
