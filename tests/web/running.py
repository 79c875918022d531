"""A studio on loopback, in a process of its own, as people start it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

HERE = Path(__file__).parent
SKETCHES = HERE.parents[1] / "examples" / "sketches"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """A running server; stopped, it must not have written a traceback."""

    def __init__(self, gallery: Path, port: int, *options: str) -> None:
        self.gallery, self.port, self.options = gallery, port, options
        self.url = f"http://127.0.0.{2 if 'behind' in options else 1}:{port}/"
        self.process: subprocess.Popen[bytes] | None = None
        #: What the server says: a file, as a pipe that nobody reads would fill up and hold it.
        self.log = Path(f"{gallery}.log")

    def start(self) -> Served:
        command = [sys.executable, str(HERE / "serving.py"), str(self.port), str(self.gallery)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        for _ in range(240):
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text()[-2000:])
            try:
                httpx.get(self.url + "openapi.json", timeout=1)
            except httpx.HTTPError:
                time.sleep(0.25)
            else:
                return self
        raise RuntimeError("the server did not start within a minute")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        assert "Traceback" not in (said := self.log.read_text()), said[-4000:]

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Each step takes a while, so that one can step in."""
        sign = Path(f"{self.gallery}.slow")
        sign.touch()
        try:
            yield
        finally:
            sign.unlink()

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
