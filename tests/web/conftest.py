"""Fixtures of the studio's tests: a running server, and Chromium where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from running import Served, free_port

#: WebGL by the processor, without the detour that Chromium takes by default: a third faster.
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Gradio makes event loops that it never closes: they go here, and not in another's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.set_event_loop(None)
        gc.collect()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The studio with a small untrained model."""
    with Served(tmp_path_factory.mktemp("gallery"), free_port(), "small") as running:
        yield running


@contextlib.contextmanager
def _launched(*flags: str) -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no Chromium here: apt install chromium (`make setup` does as root)")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        yield browser
        browser.close()


@pytest.fixture
def chromium() -> Iterator[object]:
    """A headless Chromium for one test: drawing boards of many pages wear one down."""
    with _launched() as browser:
        yield browser


@pytest.fixture
def chromium_with_camera() -> Iterator[object]:
    """One that has a camera, before which a green disc turns, and lets every page use it."""
    with _launched("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as one:
        yield one


@pytest.fixture(scope="module")
def shared_chromium() -> Iterator[object]:
    """One for all tests of a module, for pages without a board; not beside `chromium`."""
    with _launched() as browser:
        yield browser


@pytest.fixture
def opened(chromium: object, served: Served) -> Iterator[Any]:
    """The studio's page in a browser of its own; nothing may have gone wrong on it."""
    from opening import Opened

    page = Opened(chromium, served.url)
    yield page
    page.close()
    assert page.wrong == []
