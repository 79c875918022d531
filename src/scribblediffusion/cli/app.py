"""`scribble app`: the studio in the browser."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from scribblediffusion.cli.pictures import check_gallery
from scribblediffusion.cli.source import GalleryRoot, model_name
from scribblediffusion.errors import InputError


def app(
    port: Annotated[int, typer.Option(metavar="N", help="Port.", min=1, max=65535)] = 7860,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Where to listen; other machines reach 0.0.0.0."),
    ] = "127.0.0.1",
    auth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:PASSWORD",
            help="Ask visitors to log in; may be given several times, or one a line in the "
            "environment variable SCRIBBLE_AUTH.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Folder or hub id that visitors may choose besides the shipped model.",
        ),
    ] = None,
    gallery: GalleryRoot = None,
) -> None:
    """Open the studio: draw, watch the attention live, ask the picture why."""
    from importlib.util import find_spec

    if missing := [name for name in ("gradio", "uvicorn") if find_spec(name) is None]:
        raise InputError(
            f'the studio needs {" and ".join(missing)}; try: pip install "scribblediffusion[web]"'
        )
    from scribblediffusion.web.server import LOOPBACK, Options, refuse_taken, serve

    options = Options(
        host=host,
        port=port,
        gallery=gallery,
        models={"shipped model": None} | {one: model_name(one) for one in model or ()},
        auth=tuple(_pair(one) for one in auth or os.environ.get("SCRIBBLE_AUTH", "").splitlines()),
    )
    if host not in LOOPBACK and not options.auth:
        note = "whoever reaches this machine can draw; --auth asks for a password"
        typer.echo(f"scribble: {note}", err=True)
    refuse_taken(options)
    check_gallery(gallery)
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"http://{shown}:{port}/")
    serve(options)


def _pair(given: str) -> tuple[str, str]:
    """Name and password."""
    name, colon, password = given.partition(":")
    if not (name and colon and password):
        raise InputError("--auth: give NAME:PASSWORD, with a colon between them")
    return name, password
