"""Who asks, what a page sent with it, and work done away from the server's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import gradio as gr

from scribblediffusion.web.visitors import NEW, digest, new_token, visitor_named, visitor_with


def visitor_of(request: gr.Request | None) -> str:
    """Digest of who asks: the name of a login, or the cookie; a stranger without either is new."""
    if request is None:
        return digest(new_token())
    if name := getattr(request, "username", None):
        return visitor_named(name)
    cookies = request.headers.get("cookie", "") if request.headers else ""
    return visitor_with(cookies)


def among(request: gr.Request) -> str:
    """Among whose runs one more is counted; "" for the visitor's own.

    Who brings no cookie is a new visitor each time, and counted with all of his address.
    """
    return "" if getattr(request, "username", None) else request.headers.get(NEW, "")


def field_of(event: gr.EventData, name: str) -> Any:
    """A field that a page sent with an event; None where there is none."""
    sent = getattr(event, "_data", None)
    return sent.get(name) if isinstance(sent, dict) else None


def files_in(sent: Any) -> Iterator[str]:
    """Where the files lie that are named among what was sent, however deep."""
    waiting = [sent]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("path"), str):
                yield one["path"]
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one


def is_uploaded(path: str, folder: str) -> bool:
    """Whether a plain file lies in a folder, links followed."""
    try:
        real = Path(path).resolve(strict=True)
        return real.is_relative_to(Path(folder).resolve()) and real.is_file()
    except (OSError, RuntimeError, ValueError):  # not there, links in a circle, no path at all
        return False


async def away(executor: Executor, do: Callable[..., Any], *given: Any) -> Any:
    """The result of a function that runs in an executor's thread."""
    return await asyncio.get_running_loop().run_in_executor(executor, do, *given)
