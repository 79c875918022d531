"""What every request passes first: sizes, addresses, closed doors, a visitor's cookie.

Pure ASGI, so that streams stay streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from scribblediffusion.web.allowance import Allowance
from scribblediffusion.web.limits import Limits
from scribblediffusion.web.visitors import COOKIE, NEW, PROGRAM, new_token, token_in

#: Doors of Gradio that this page has no use for.
CLOSED = tuple(
    f"/gradio_api/{name}"
    for name in ("proxy=", "vibe", "undo-vibe", "dev/", "runs", "run-history", "profiling",
                 "process_recording", "custom_component", "stream/", "mcp", "monitoring",
                 "deep_link")
)  # fmt: skip
_UPLOAD, _COMPONENTS = "/gradio_api/upload", "/gradio_api/component_server"
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", b"geolocation=(), microphone=(), camera=(self)"),
]


class Guard:
    """The middleware.

    Args:
        app: what comes behind it.
        limits: largest request bodies, and the most that is taken of uploads.
        hosts: names by which the server may be asked; empty for any.
        home: that one of them under which browsers are to open the page, as cookies belong to a
            name; None for any.
        local: whether runs that are asked for without a cookie belong to nobody.
        leaving: set when the server stops: whoever listens to a stream is then sent its end.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits,
        hosts: Sequence[str] = (),
        home: str | None = None,
        *,
        local: bool = False,
        leaving: asyncio.Event | None = None,
    ) -> None:
        self._leaving = leaving or asyncio.Event()
        self._app, self._limits, self._hosts = app, limits, frozenset(hosts)
        self._home, self._local = home, local
        self._allowance = Allowance(limits.sent, limits.keep_seconds)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refused = self._refusal(scope, headers) or self._full(scope)
        if refused is not None:
            await _answer(send, *refused)
            return
        if (place := self._elsewhere(scope, headers)) is not None:
            await _send_on(send, place)
            return
        fresh = _with_visitor(scope, headers, local=self._local)
        body = _Body(receive, self._most(scope), self._counting(scope), self._leaving)
        answer = _Answer(send, fresh, body)
        with contextlib.suppress(ClientDisconnect):  # gone before all was sent: nobody to be told
            await self._app(scope, body.receive, answer.send)
        if answer.open and self._leaving.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, scope: dict[str, Any], headers: dict[bytes, str]) -> tuple[int, str] | None:
        path, host = scope["path"], _name(headers.get(b"host", ""))
        if self._hosts and host not in self._hosts:
            return 421, "This studio answers under its own address alone."
        origin = headers.get(b"origin")
        own = headers.get(b"host", "")
        if origin is not None and _place_of(origin) != own:
            return 403, "Requests from other sites are not answered."
        if path.startswith(CLOSED):
            return 404, "There is nothing here."
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > self._most(scope):
            return 413, f"At most {self._most(scope) / 1e6:.0f} MB are read here."
        return None

    def _full(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """Why no more is taken: from this address, or from anybody; None where it is taken.

        What was sent within the time that files are kept is what lies there of it: the pictures
        that the studio makes itself lie beside it, and keep nobody out.
        """
        hours = self._limits.keep_seconds / 3600
        if not _brings_files(scope):
            return None
        if self._allowance.left(_address(scope)) < 0:
            most = self._limits.sent / 1e6
            return 429, f"You have sent {most:.0f} MB of pictures within {hours:g} h. Try later."
        if self._allowance.sent() + self._most(scope) <= self._limits.held:
            return None
        return 507, f"No more uploads are taken for now: they are kept for {hours:g} h. Try later."

    def _elsewhere(self, scope: dict[str, Any], headers: dict[bytes, str]) -> str | None:
        """The page's own address, where a browser opens it under another name of this machine."""
        own = headers.get(b"host", "")
        opens = scope["path"] == "/" and "text/html" in headers.get(b"accept", "")
        if self._home is None or not opens or _name(own) == self._home:
            return None
        port = own.rpartition("]")[2].rpartition(":")[2]
        name = f"[{self._home}]" if ":" in self._home else self._home
        query = scope.get("query_string", b"").decode("latin-1")
        return f"http://{name}{f':{port}' if port.isdigit() else ''}/{f'?{query}' if query else ''}"

    def _most(self, scope: dict[str, Any]) -> int:
        return self._limits.upload + 100_000 if _brings_files(scope) else self._limits.body

    def _counting(self, scope: dict[str, Any]) -> Callable[[int], None]:
        """What is told of each piece that comes: as it comes, as many may be on their way."""
        if not _brings_files(scope):
            return lambda _: None
        return partial(self._allowance.count, _address(scope))


class _Body:
    """Counts what is received, whatever was announced; a server that stops has no more to read."""

    def __init__(
        self, receive: Any, most: int, count: Callable[[int], None], leaving: asyncio.Event
    ) -> None:
        self._receive, self._most, self._count, self._leaving = receive, most, count, leaving
        self.received = 0

    @property
    def over(self) -> bool:
        """Whether more came than is read."""
        return self.received > self._most

    async def receive(self) -> dict[str, Any]:
        message = await self._next()
        if message["type"] == "http.request":
            came = len(message.get("body", b""))
            self.received += came
            self._count(came)
            if self.over:
                return {"type": "http.disconnect"}
        return message

    async def _next(self) -> dict[str, Any]:
        """What comes next; that the other side is gone where the server stops first."""
        waiting = [
            asyncio.ensure_future(self._receive()),
            asyncio.ensure_future(self._leaving.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return waiting[0].result() if waiting[0].done() else {"type": "http.disconnect"}
        finally:
            for one in waiting:
                one.cancel()


def _with_visitor(scope: dict[str, Any], headers: dict[bytes, str], *, local: bool) -> str | None:
    """Gives a request without a visitor's cookie one; returns what to send back for the next time.

    The request itself is a program's where the server is local, and otherwise the new visitor's.
    There, only whoever opens the page gets a cookie: clients keep those of any answer.
    """
    scope["headers"] = [h for h in scope["headers"] if h[0].lower() != NEW.encode()]
    if token_in(headers.get(b"cookie", "")) not in (None, PROGRAM):
        return None
    fresh = new_token()
    token = PROGRAM if local else fresh
    others = [h for h in scope["headers"] if h[0].lower() != b"cookie"]
    kept = [p for p in headers.get(b"cookie", "").split(";") if not p.strip().startswith(COOKIE)]
    cookie = "; ".join([*(p.strip() for p in kept if p.strip()), f"{COOKIE}={token}"])
    scope["headers"] = [*others, (b"cookie", cookie.encode("latin-1"))]
    if not local:
        scope["headers"] += [(NEW.encode(), _address(scope).encode("latin-1"))]
    return fresh if scope["path"] == "/" or not local else None


class _Answer:
    """Adds headers on the way out, and knows whether the end was sent."""

    def __init__(self, send: Any, fresh: str | None, body: _Body) -> None:
        self._send, self._fresh, self._body = send, fresh, body
        self.open = False

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            drop = (b"access-control-", b"server")
            headers = [h for h in message["headers"] if not h[0].lower().startswith(drop)]
            headers += _HEADERS
            if self._fresh is not None:
                headers.append((b"set-cookie", _cookie(self._fresh)))
            status = 413 if self._body.over else message["status"]
            message = {**message, "headers": headers, "status": status}
        await self._send(message)
        self.open = message["type"] == "http.response.start" or message.get("more_body", False)


def _cookie(token: str) -> bytes:
    return f"{COOKIE}={token}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax".encode()


def _brings_files(scope: dict[str, Any]) -> bool:
    """Whether a request uploads files; components are also asked for maps, in plain JSON."""
    if scope["path"].startswith(_UPLOAD):
        return True
    kinds = [value.lower() for name, value in scope["headers"] if name.lower() == b"content-type"]
    form = any(kind.startswith(b"multipart/form-data") for kind in kinds)
    return form and scope["path"].startswith(_COMPONENTS)


def _address(scope: dict[str, Any]) -> str:
    """Who asks, as the network has it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _place_of(origin: str) -> str:
    """Host and port of an Origin header; "" for none that can be read."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """The host's name without the port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()


async def _send_on(send: Any, place: str) -> None:
    headers = [(b"location", place.encode("latin-1")), (b"content-length", b"0"), *_HEADERS]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})
