"""The steps of docs/studio.md, done in a browser with the shipped model, with its screenshots.

They are written to a temporary folder, or with ``SCREENSHOTS=docs/images`` into the guide.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opening import PATIENCE, Opened, expect
from running import Served, free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.long]
GUIDE = Path(__file__).parents[2] / "docs" / "studio.md"
#: More where the pictures are for the guide.
STEPS = 12 if os.environ.get("SCREENSHOTS") else 4
SAILBOAT = "Begin with a drawing: a red sailboat on a blue background"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The studio with the model that comes with the package."""
    with Served(tmp_path_factory.mktemp("gallery"), free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = os.environ.get("SCREENSHOTS")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("shots")


def shoot(opened: Opened, folder: Path, name: str) -> None:
    opened.page.mouse.move(2, 2)
    opened.page.wait_for_timeout(700)
    file = folder / f"studio-{name}.png"
    opened.page.screenshot(path=file)
    assert file.stat().st_size > 20_000


def begin(opened: Opened, steps: int) -> None:
    opened.page.get_by_role("button", name=SAILBOAT).click()
    prompt = opened.page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_value("a red sailboat on a blue background")
    opened.page.wait_for_timeout(1000)
    opened.page.get_by_label("Seed", exact=True).fill("7")
    opened.set_steps(steps)
    opened.page.get_by_role("button", name=re.compile("^Settings")).click()
    opened.page.get_by_role("button", name="Generate").click()
    opened.status("Done. Seed 7")
    if opened.page.viewport_size["width"] > 500:
        expect(opened.page.locator("#studio-analysis img")).to_be_visible(timeout=PATIENCE)
    opened.page.evaluate("scrollTo(0, 0)")


def test_the_guide_step_by_step(chromium, shipped: Served, shots: Path) -> None:
    opened = Opened(chromium, shipped.url)
    page = opened.page
    begin(opened, STEPS)
    explorer = page.locator("#studio-explorer")
    shoot(opened, shots, "light")
    words = explorer.get_by_role("group", name=re.compile("^Words"))
    words.get_by_role("button", name=re.compile("^sailboat")).first.click()
    expect(explorer.locator(".title")).to_contain_text("sailboat")
    shoot(opened, shots, "word")
    picture = explorer.locator(".stage.picture")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.35})
    expect(explorer.locator(".heard-words li").first).to_be_visible()
    shoot(opened, shots, "place")
    words.get_by_role("button", name=re.compile("^blue")).first.click()
    explorer.locator("button.without").first.click()
    opened.status("Drawn again without the word “blue”")
    page.locator("#studio-compare").scroll_into_view_if_needed()
    page.locator("#studio-compare").evaluate("node => node.scrollIntoView()")
    shoot(opened, shots, "compare")
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("tab", name="Gallery").click()
    expect(page.locator("#studio-shelf li")).to_have_count(2)
    page.wait_for_timeout(800)
    shoot(opened, shots, "gallery")
    assert opened.wrong == []
    opened.close()


@pytest.mark.parametrize("name", ["dark", "phone"])
def test_other_looks(chromium, shipped: Served, shots: Path, name: str) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    theme, options = ("dark", {}) if name == "dark" else ("light", phone)
    opened = Opened(chromium, shipped.url, theme=theme, **options)
    begin(opened, STEPS)
    explorer = opened.page.locator("#studio-explorer")
    words = explorer.get_by_role("group", name=re.compile("^Words"))
    words.get_by_role("button", name=re.compile("^sailboat")).first.click()
    if name == "phone":
        explorer.evaluate("node => node.scrollIntoView()")
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    shoot(opened, shots, name)
    assert opened.wrong == []
    opened.close()


def test_the_guide_shows_these_pictures() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    shown = set(re.findall(r"\(images/(studio-[a-z]+\.png)\)", text))
    assert shown == {
        f"studio-{name}.png"
        for name in ("light", "word", "place", "compare", "gallery", "dark", "phone")
    }
    for name in shown:
        assert (GUIDE.parent / "images" / name).is_file()
