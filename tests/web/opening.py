"""The studio's page as people use it, and what it did that it should not have done."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
expect.set_options(timeout=20_000)

PATIENCE = 150_000
APPLE = "Begin with a drawing: a red apple"


class Opened:
    """A page, and what it did that it should not have done."""

    def __init__(
        self,
        browser,
        url: str,
        *,
        theme: str = "light",
        run: str = "",
        login: tuple[str, str] | None = None,
        **kwargs,
    ) -> None:
        kwargs = {"viewport": {"width": 1360, "height": 900}} | kwargs
        self.context = browser.new_context(**kwargs)
        self.page = self.context.new_page()
        self.tools = self.context.new_cdp_session(self.page)
        self.wrong: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", lambda request: self._request(request.url, url))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        if login is not None:
            self._log_in(url, *login)
        self.visit(url, theme, run)

    def _log_in(self, url: str, name: str, password: str) -> None:
        self.page.goto(url)
        self.page.get_by_label("username").fill(name)
        self.page.get_by_label("password").fill(password)
        self.page.get_by_role("button", name="Login").click()
        expect(self.page.locator("#studio-board")).to_be_visible(timeout=PATIENCE)

    def visit(self, url: str, theme: str = "light", run: str = "") -> None:
        self.page.goto(f"{url}?__theme={theme}" + (f"&run={run}" if run else ""))
        expect(self.page.locator("#studio-board canvas").first).to_be_visible(timeout=PATIENCE)
        expect(self.page.get_by_role("button", name="Brush", exact=True)).to_be_visible()
        self.page.wait_for_function("window.editor?.background_image")

    def _console(self, message) -> None:
        if message.type == "error":
            self.wrong.append(f"console: {message.text} {message.location.get('url', '')}")

    def _request(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "data:", "blob:")):
            self.wrong.append(f"outside: {asked}")

    # ── what people do ───────────────────────────────────────────────────────────────────────

    def slow_down(self, times: int) -> None:
        """The browser works so many times as slowly; 1 is its own speed again."""
        self.tools.send("Emulation.setCPUThrottlingRate", {"rate": times})

    def draw_circle(self) -> None:
        box = self.page.locator("#studio-board canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        radius, mouse = min(box["width"], box["height"]) * 0.28, self.page.mouse
        mouse.move(x + radius, y)
        mouse.down()
        for i in range(1, 9):  # each move is drawn before the next: few of them
            a = 2 * math.pi * i / 8
            mouse.move(x + radius * math.cos(a), y + radius * math.sin(a))
        mouse.up()
        self.page.wait_for_timeout(500)

    def touch_stroke(self, *places: tuple[float, float]) -> None:
        """A finger's stroke on the drawing board through places in 0…1 of it."""
        canvas = self.page.locator("#studio-board canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        at = [
            {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y} for x, y in places
        ]
        for kind, points in [("touchStart", at[:1]), *(("touchMove", [p]) for p in at[1:])]:
            self.tools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            self.page.wait_for_timeout(30)
        self.tools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        self.page.wait_for_timeout(600)

    def tab_to(self, wanted) -> None:
        """Presses Tab until a control has the focus."""
        for _ in range(150):
            if wanted.first.evaluate("node => node === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab never reached {wanted}")

    def ink(self) -> int:
        """Dark pixels of the drawing board as it is shown."""
        import io

        import numpy as np
        from PIL import Image

        shot = self.page.locator("#studio-board canvas").first.screenshot()
        return int((np.asarray(Image.open(io.BytesIO(shot)).convert("L")) < 60).sum())

    def shows(self, inked: Callable[[int], bool]) -> None:
        """Waits until the board's dark pixels are as they should be: a page takes its time."""
        end = time.monotonic() + PATIENCE / 1000
        while not inked(self.ink()):
            assert time.monotonic() < end, self.ink()
            self.page.wait_for_timeout(150)

    def set_steps(self, steps: int) -> None:
        settings = self.page.get_by_role("button", name=re.compile("^Settings"))
        field = self.page.get_by_label("number input for Steps")
        for _ in range(10):  # a run that is being opened may unfold them at the same moment
            if field.is_visible():
                break
            settings.click()
            self.page.wait_for_timeout(500)
        field.fill(str(steps))
        field.press("Tab")
        expect(field).to_have_value(str(steps))

    def generate(self, prompt: str, steps: int = 3) -> None:
        self.set_steps(steps)
        self.page.get_by_label("Prompt", exact=True).fill(prompt)
        self.page.get_by_role("button", name="Generate").click()

    def status(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator("#studio-status .text")).to_contain_text(text, timeout=PATIENCE)

    @property
    def run(self) -> str:
        found = re.search(r"run=([0-9A-Z]{26})", self.page.url)
        assert found, self.page.url
        return found[1]

    def close(self) -> None:
        self.context.close()
