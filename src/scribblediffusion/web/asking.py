"""Who asks, what a page sent with it, and work done away from the server's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import gradio as gr

from scribblediffusion.web.visitors import digest, new_token, visitor_named, visitor_with


def visitor_of(request: gr.Request | None) -> str:
    """Digest of who asks: the name of a login, or the cookie; a stranger without either is new."""
    if request is None:
        return digest(new_token())
    if name := getattr(request, "username", None):
        return visitor_named(name)
    cookies = request.headers.get("cookie", "") if request.headers else ""
    return visitor_with(cookies)


def field_of(event: gr.EventData, name: str) -> Any:
    """A field that a page sent with an event; None where there is none."""
    sent = getattr(event, "_data", None)
    return sent.get(name) if isinstance(sent, dict) else None


def names_address(sent: Any) -> bool:
    """Whether a file among what was sent is named by an address of the network."""
    if isinstance(sent, dict):
        path = sent.get("path")
        if "meta" in sent and isinstance(path, str) and "://" in path:
            return True
        sent = list(sent.values())
    return isinstance(sent, list | tuple) and any(map(names_address, sent))


async def away(executor: Executor, do: Callable[..., Any], *given: Any) -> Any:
    """The result of a function that runs in an executor's thread."""
    return await asyncio.get_running_loop().run_in_executor(executor, do, *given)
