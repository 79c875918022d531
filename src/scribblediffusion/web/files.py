"""Files of runs, by the run's id, for those who may see it: nothing else of the disk is served."""

from __future__ import annotations

import asyncio
import io
import secrets
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response
from PIL import Image
from pydantic import BaseModel

from scribblediffusion.errors import GalleryError, ScribbleError
from scribblediffusion.gallery import Run
from scribblediffusion.web import outgoing
from scribblediffusion.web.clearly import clearly
from scribblediffusion.web.studio import ANALYSIS, GIF, Studio
from scribblediffusion.web.visitors import RUN_ID, visitor_named, visitor_with

#: File names on the page → where they are in a run's folder, and what they are.
FILES = {
    "image.png": ("image.png", "image/png"),
    "sketch.png": ("sketch.png", "image/png"),
    GIF: (f"views/{GIF}", "image/gif"),
    ANALYSIS: (f"views/{ANALYSIS}", "image/png"),
}
THUMBNAIL = 256
#: ZIP files that are made at once.
_PACKED = 2
RunId = Annotated[str, InPath(pattern=f"^{RUN_ID.pattern}$", description="a run's whole id")]


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class Entry(BaseModel):
    """What the gallery says of a run."""

    id: str
    prompt: str
    seed: int | None
    created: str
    complete: bool
    steps_run: int
    noise_remaining_at_last_step: float | None
    settings: dict[str, Any]
    audit: str
    permalink: str
    zip: str


_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "Nobody has logged in."},
    403: {"model": Problem, "description": "Asked from another site."},
    404: {"model": Problem, "description": "There is no such run for this visitor."},
    413: {"model": Problem, "description": "The request is too large."},
    421: {"model": Problem, "description": "Asked under another host's name."},
}
_NO_ROOM: dict[int | str, dict[str, Any]] = {
    507: {"model": Problem, "description": "There is no room to make the file."}
}


def routes(studio: Studio, app: FastAPI, temporary: Path) -> APIRouter:
    """The routes under ``/runs``.

    Args:
        studio: whose runs.
        app: the application, to find who has logged in.
        temporary: where files are made that are sent once; it is swept.
    """
    router = APIRouter(prefix="/runs", responses=_NOT_FOUND)
    packing = asyncio.Semaphore(_PACKED)  # each takes twice a run's size of the disk

    def seen(run_id: str, request: Request) -> Run:
        try:
            return studio.visitors.seen(visitor_of(request, app), run_id)
        except GalleryError as error:
            raise HTTPException(404, clearly(error)) from None

    @router.get("/{run_id}")
    def entry(run_id: RunId, request: Request) -> Entry:
        """What the gallery says of a run."""
        try:
            return Entry(**studio.entry(seen(run_id, request)))
        except ScribbleError as error:
            raise HTTPException(404, clearly(error)) from None

    @router.get("/{run_id}/thumbnail.webp", response_class=Response, responses=_kind("image/webp"))
    def thumbnail(run_id: RunId, request: Request) -> Response:
        """The picture, small."""
        run = seen(run_id, request)
        if run.image is None:
            raise HTTPException(404, "this run has no picture")
        try:
            small = _small(run.image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise HTTPException(404, "this run's picture is damaged") from None
        return Response(small, media_type="image/webp", headers=_private(3600))

    @router.get(
        "/{run_id}/run.zip",
        response_class=FileResponse,
        responses=_kind("application/zip") | _NO_ROOM,
    )
    async def archive(run_id: RunId, request: Request, later: BackgroundTasks) -> FileResponse:
        """The whole run as a ZIP file."""
        run = seen(run_id, request)
        path = temporary / f"scribble-run-{secrets.token_hex(8)}.zip"
        later.add_task(path.unlink, missing_ok=True)
        try:
            async with packing:
                given = studio.gallery, run, path, studio.models
                await asyncio.to_thread(outgoing.write_zip, *given)
        except (GalleryError, OSError) as error:
            path.unlink(missing_ok=True)
            no_room = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
            raise HTTPException(507 if no_room else 404, clearly(error)) from None
        return FileResponse(
            path,
            media_type="application/zip",
            filename=f"{run.folder.name}.zip",
            headers=_private(0),
            background=later,
        )

    def served(name: str) -> None:
        inside, kind = FILES[name]

        @router.get(
            f"/{{run_id}}/{name}",
            response_class=FileResponse,
            responses=_kind(kind),
            operation_id=f"file_{name.replace('.', '_')}",
        )
        def file(run_id: RunId, request: Request) -> FileResponse:
            path = seen(run_id, request).folder / inside
            if not path.is_file():
                raise HTTPException(404, f"this run has no {name}")
            return FileResponse(path, media_type=kind, headers=_private(0))

    for name in FILES:
        served(name)
    return router


def visitor_of(request: Request, app: FastAPI) -> str:
    """Digest of who asks, as the page counts visitors.

    Raises:
        HTTPException: logging in is asked for, and nobody has.
    """
    page = _page_of(app)
    if page is not None and page.auth is not None:
        names = (f"access-token-{page.cookie_id}", f"access-token-unsecure-{page.cookie_id}")
        tokens = (request.cookies.get(name) for name in names)
        user = next((page.tokens[t] for t in tokens if t in page.tokens), None)
        if user is None:
            raise HTTPException(401, "log in first")
        return visitor_named(user)
    return visitor_with(request.headers.get("cookie", ""))


def _page_of(app: FastAPI) -> Any:
    """Gradio's application: this one, or the one inside ours."""
    inner = (app, *(getattr(route, "app", None) for route in app.routes))
    return next((one for one in inner if hasattr(one, "cookie_id")), None)


def _small(image: Path) -> bytes:
    with Image.open(image) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    made = io.BytesIO()
    small.save(made, "WEBP", quality=82)
    return made.getvalue()


def _private(seconds: int) -> dict[str, str]:
    return {"Cache-Control": f"private, max-age={seconds}"}


def _kind(media: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media: {}}, "description": "The file."}}
