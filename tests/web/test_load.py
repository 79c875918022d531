"""Fifty clients at once: each is served or refused with a sentence, and memory stays flat."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import httpx
import psutil
import pytest
from running import Served, free_port

pytestmark = pytest.mark.slow
#: Some rounds until libraries are loaded, caches full and the allocator has its share.
CLIENTS, WARM, ROUNDS = 50, 4, 4
#: Megabytes by which the floor may rise from the first half of the rounds to the second. The
#: allocator's own peaks come and go by as much; what leaks stays, so it raises the lowest too.
RISE = 40


async def ask(client: httpx.AsyncClient, url: str, number: int) -> str:
    """One call of the API by hand; returns "done" or the sentence it was refused with."""
    nothing = {"background": None, "layers": [], "composite": None}
    data = [nothing, f"a red apple {number}", 1, 3.0, number]
    begun = await client.post(f"{url}gradio_api/call/generate_image", json={"data": data})
    if begun.status_code != 200:
        return begun.text
    event = begun.json()["event_id"]
    kind = ""
    async with client.stream("GET", f"{url}gradio_api/call/generate_image/{event}") as stream:
        async for line in stream.aiter_lines():
            kind = line[7:] if line.startswith("event: ") else kind
            if line.startswith("data: ") and kind == "complete":
                return "done"
            if line.startswith("data: ") and kind == "error":
                return json.dumps(line)
    return "nothing"


async def crowd(url: str) -> list[str]:
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        return await asyncio.gather(*(ask(client, url, n) for n in range(CLIENTS)))


@pytest.mark.long
def test_fifty_clients(tmp_path: Path) -> None:
    with Served(tmp_path, free_port(), "small", "full") as served:
        process = psutil.Process(served.process.pid)
        for _ in range(WARM):
            asyncio.run(crowd(served.url))
        memory, longest = [], 0.0
        for _ in range(ROUNDS):
            begun = time.monotonic()
            told = asyncio.run(crowd(served.url))
            longest = max(longest, time.monotonic() - begun)
            memory.append(process.memory_info().rss / 1e6)
            refused = [one for one in told if one != "done"]
            assert 7 <= len(told) - len(refused) < CLIENTS
            assert all("the studio is full" in one for one in refused), refused[:3]
        assert min(memory[ROUNDS // 2 :]) - min(memory[: ROUNDS // 2]) < RISE, memory
        assert longest < 240
        assert httpx.get(served.url).status_code == 200
