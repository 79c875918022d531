"""The server: the page in FastAPI, the files of one's own runs, and what keeps strangers in bounds.

app = build(Options())          # a FastAPI application
serve(Options(port=7860))       # runs it
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scribblediffusion.errors import InputError
from scribblediffusion.gallery import Gallery
from scribblediffusion.web.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

_log = logging.getLogger(__name__)
#: Names under which this machine alone is reached.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: Folders of temporary files; and the seconds without a sign of life after which a server is dead:
#: running ones give one every ten minutes, unless the machine slept.
_PREFIX, _DEAD = "scribble-app-", 86400


@dataclass(frozen=True)
class Options:
    """How the studio is served.

    Attributes:
        host: the address that is listened at; loopback unless told otherwise.
        port: the port.
        gallery: the gallery's folder; None for its default place.
        models: name → folder or hub id that visitors may choose, None for the shipped model.
        auth: (name, password) pairs; empty for none.
        limits: what may be asked for.
        load: makes a pipeline of a folder or hub id; for tests.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    gallery: Path | None = None
    models: Mapping[str, str | None] | None = None
    auth: tuple[tuple[str, str], ...] = ()
    limits: Limits = field(default_factory=Limits)
    load: Any = None

    @property
    def local(self) -> bool:
        """Whether this machine alone can reach it, and nobody logs in."""
        return self.host in LOOPBACK and not self.auth


def build(options: Options) -> FastAPI:
    """The application: page, API, and files of runs."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is first imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    left_behind(Path(tempfile.gettempdir()), _DEAD)
    temporary = Path(tempfile.mkdtemp(prefix=_PREFIX))
    os.environ["GRADIO_TEMP_DIR"] = str(temporary)

    from fastapi import FastAPI

    from scribblediffusion.web import page
    from scribblediffusion.web.files import routes
    from scribblediffusion.web.guard import Guard
    from scribblediffusion.web.studio import Studio

    studio = Studio(
        options.gallery,
        models=options.models,
        limits=options.limits,
        local=options.local,
        load=options.load,
    )

    blocks = page.build(studio)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(
            _sweep(temporary, options.limits.keep_seconds, lambda: page.lasting(blocks))
        )
        try:
            yield
        finally:
            sweeping.cancel()
            studio.close()
            shutil.rmtree(temporary, ignore_errors=True)

    app = FastAPI(title=page.TITLE, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.studio = studio
    app.state.leaving = asyncio.Event()
    app.include_router(routes(studio, app, temporary))
    _mount(app, blocks, options)
    alone = options.host in LOOPBACK
    app.add_middleware(
        Guard,
        limits=options.limits,
        hosts=LOOPBACK if alone else (),
        home=options.host if alone else None,
        local=options.local,
        leaving=app.state.leaving,
    )
    return app


def _mount(app: FastAPI, blocks: Any, options: Options) -> None:
    """Put the page under the application's root, without what Gradio would add by itself."""
    import gradio as gr

    from scribblediffusion.web import page

    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=options.host,
        server_port=options.port,
        auth=list(options.auth) or None,
        allowed_paths=[],
        max_file_size=options.limits.upload,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=page.theme(),
        css=page.css(),
        js=page.script(),
    )
    blocks.has_launched = True  # before, Gradio checks no path: mounting alone does not say so


def serve(options: Options) -> None:
    """Run the server until it is interrupted.

    Raises:
        InputError: the port is taken or may not be used.
        GalleryError: no run can be kept in the gallery.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """Ends the streams that open pages listen to, and then waits for what is under way."""

        async def shutdown(self, sockets: Any = None) -> None:
            app.state.leaving.set()
            await super().shutdown(sockets)

    refuse_taken(options)
    Gallery(options.gallery).prepare()
    app = build(options)
    config = uvicorn.Config(
        app, options.host, options.port, log_level="warning", access_log=False,
        timeout_graceful_shutdown=3, limit_concurrency=400, server_header=False,
    )  # fmt: skip
    Server(config).run()


def refuse_taken(options: Options) -> None:
    """Nothing, where it can be listened at the address.

    Raises:
        InputError: the port is taken, or may not be used.
    """
    import socket

    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen at {options.host}, port {options.port}: {error}; "
                "try another with --port"
            ) from None


async def _sweep(folder: Path, seconds: float, lasting: Callable[[], Collection[Path]]) -> None:
    """Removes temporary files that are older than that, again and again."""
    while True:
        await asyncio.to_thread(swept, folder, seconds, lasting())
        folder.touch()  # says that this server is alive
        await asyncio.sleep(min(600.0, seconds))


def left_behind(parent: Path, seconds: float) -> int:
    """Removes the folders of servers that were killed; returns how many.

    Args:
        parent: where such folders are.
        seconds: how long ago a server gave its last sign of life.
    """
    gone, oldest = 0, time.time() - seconds
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)
                gone += 1
    return gone


def swept(folder: Path, seconds: float, lasting: Collection[Path] = ()) -> int:
    """Removes files older than so many seconds, and empty folders; returns how many files.

    Args:
        folder: where they are.
        seconds: how long a file may stay after it was written.
        lasting: files that stay, whatever their age.
    """
    gone, oldest = 0, time.time() - seconds
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            elif path not in lasting and path.stat().st_mtime < oldest:
                path.unlink()
                gone += 1
    return gone
