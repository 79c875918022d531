"""A studio as an operator may set it up, in a browser: people log in, and models are offered."""

from __future__ import annotations

from pathlib import Path

import pytest
from opening import APPLE, Opened, expect
from running import Served, free_port

from scribblediffusion.gallery import Gallery

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.long]


def test_two_people_log_in_and_see_their_own(chromium, tmp_path: Path) -> None:
    with Served(tmp_path, free_port(), "small", "auth") as served:
        ada = Opened(chromium, served.url, login=("ada", "lovelace"))
        ada.generate("a secret hat", 2)
        ada.status("Done. Seed")
        bob = Opened(chromium, served.url, login=("bob", "builder"))
        bob.page.get_by_role("tab", name="Gallery").click()
        expect(bob.page.locator("#studio-shelf .none")).to_be_visible()
        bob.visit(served.url)
        bob.generate("a green cup", 2)
        bob.status("Done. Seed")
        assert ada.run != bob.run
        for person, prompt in ((ada, "a secret hat"), (bob, "a green cup")):
            person.page.get_by_role("tab", name="Gallery").click()
            expect(person.page.locator("#studio-shelf .total")).to_have_text("1 run")
            expect(person.page.locator("#studio-shelf li").first).to_contain_text(prompt)
            person.close()
            assert person.wrong == []


def test_another_model_is_chosen_and_comes_back_with_its_run(chromium, tmp_path: Path) -> None:
    with Served(tmp_path, free_port(), "small", "two") as served:
        opened = Opened(chromium, served.url)
        page = opened.page
        page.get_by_role("button", name=APPLE).click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red apple")
        opened.shows(lambda ink: ink > 1000)
        page.get_by_label("Seed", exact=True).fill("7")
        made = []
        for name in ("shipped model", "another"):
            opened.set_steps(2)
            model = page.get_by_label("Model", exact=True)
            model.fill(name)  # by its keys: the list moves with the page while views come in
            model.press("Enter")
            expect(model).to_have_value(name)
            page.get_by_role("button", name="Generate").click()
            opened.status("Done. Seed 7")
            page.wait_for_function("location.search.includes('run=')")
            if made:
                page.wait_for_function(f"!location.search.includes('{made[0]}')")
            made.append(opened.run)
            page.locator("#studio-status .text").evaluate("node => { node.textContent = '' }")
        one, two = (Gallery(tmp_path).get(run) for run in made)
        assert (one.seed, two.seed) == (7, 7)
        assert one.image.read_bytes() != two.image.read_bytes()
        opened.visit(served.url, run=made[1])
        opened.status("Opened")
        opened.set_steps(2)
        expect(page.get_by_label("Model", exact=True)).to_have_value("another")
        assert opened.wrong == []
        opened.close()


def test_a_drawing_that_is_refused_is_a_sentence(chromium, tmp_path: Path) -> None:
    with Served(tmp_path, free_port(), "small", "no-room") as served:
        opened = Opened(chromium, served.url)
        opened.draw_circle()
        opened.generate("a red apple", 2)
        opened.status("No more uploads are taken for now")
        expect(opened.page.locator("#studio-status [role=alert]")).to_be_visible()
        expect(opened.page.get_by_role("button", name="Generate")).to_be_enabled()
        # Browsers write down by themselves whatever was answered so; nothing else went wrong.
        assert all("status of 507" in told for told in opened.wrong), opened.wrong
        opened.close()
