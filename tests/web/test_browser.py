"""The page as people use it, in a real browser: they draw, and read what is on the screen."""

from __future__ import annotations

import re

import pytest
from opening import APPLE, PATIENCE, Opened, expect
from running import Served

from scribblediffusion.gallery import Gallery

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_first_stroke_draws_and_can_be_undone(opened: Opened) -> None:
    empty = opened.ink()  # signs of the tools that lie over the board
    opened.draw_circle()
    opened.shows(lambda ink: ink > empty + 1000)
    drawn = opened.ink()
    opened.page.keyboard.press("Control+z")
    opened.shows(lambda ink: ink < empty + 100)
    opened.page.keyboard.press("Control+Shift+z")
    opened.shows(lambda ink: ink == pytest.approx(drawn, rel=0.05))
    opened.page.get_by_role("button", name="Undo", exact=True).click()
    opened.shows(lambda ink: ink < empty + 100)


def test_draw_generate_and_read_why(opened: Opened) -> None:
    page = opened.page
    opened.draw_circle()
    opened.generate("a red apple")
    opened.status("Done. Seed")
    explorer = page.locator("#studio-explorer")
    expect(explorer.get_by_role("group", name=re.compile("^Words of the prompt"))).to_be_visible()
    for told in ("rows sum to 1.0000", "not what it would have painted otherwise"):
        expect(explorer.get_by_text(told)).to_be_visible()
    expect(explorer).to_contain_text("tick “Keep each attention head apart” under Settings")
    for output in ("picture", "gif", "analysis"):
        expect(page.locator(f"#studio-{output} img")).to_be_visible(timeout=PATIENCE)
    assert len(opened.run) == 26
    # Scrub: picture, map and noise move together.
    slider = explorer.get_by_label("Step", exact=True)
    slider.focus()
    slider.press("Home")
    expect(explorer.locator(".noise")).to_contain_text("100")
    picture = explorer.locator(".stage.picture img")
    first = picture.get_attribute("src")
    slider.press("End")
    expect(explorer.locator(".noise")).to_contain_text("33")
    expect(picture).not_to_have_attribute("src", first)
    # The seed is in plain sight, and gives the same picture.
    page.get_by_role("button", name=re.compile("Use last seed: ")).click()
    seed = page.get_by_label("Seed", exact=True)
    expect(seed).to_have_value(re.compile(r"^\d+$"))
    opened.status(f"Seed {seed.input_value()}.")


@pytest.mark.long
def test_without_a_word_at_the_same_seed(opened: Opened) -> None:
    page = opened.page
    opened.draw_circle()
    opened.generate("a red apple", 2)
    opened.status("Done. Seed")
    explorer = page.locator("#studio-explorer")
    explorer.get_by_role("button", name=re.compile("^red")).first.click()
    explorer.locator("button.without").first.click()
    opened.status("Drawn again without the word “red”")
    comparison = page.locator("#studio-comparison")
    expect(comparison.get_by_role("region", name="Comparison of two runs")).to_be_visible()
    expect(comparison).to_contain_text("apple")
    page.get_by_role("button", name="Explore the new one").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a apple", timeout=PATIENCE)


@pytest.mark.long
def test_without_a_stroke_at_the_same_seed(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("button", name=APPLE).click()
    opened.shows(lambda ink: ink > 1000)
    opened.generate("a red apple", 2)
    opened.status("Done. Seed")
    first, explorer = opened.run, page.locator("#studio-explorer")
    explorer.get_by_label("2×2").check()
    explorer.locator(".cells button").first.click()
    explorer.get_by_role("button", name="same, but without the stroke in 2×2 (0, 0)").click()
    opened.status("Drawn again without the stroke")
    comparison = page.locator("#studio-comparison")
    expect(comparison.get_by_role("region", name="Comparison of two runs")).to_be_visible()
    expect(comparison).to_contain_text("All settings are the same")
    expect(comparison.locator(".prompts .drawing")).to_have_count(2)
    page.get_by_role("button", name="Explore the new one").click()
    page.wait_for_function(f"!location.search.includes('{first}')")
    expect(explorer.locator(".cells button").first).to_have_attribute(
        "aria-label", re.compile("no ink")
    )


@pytest.mark.long
def test_a_run_of_the_gallery_is_compared(opened: Opened) -> None:
    page = opened.page
    for prompt in ("a blue kite", "a green cup"):
        opened.generate(prompt, 2)
        opened.status("Done. Seed")
        page.wait_for_function("location.search.includes('run=')")
        page.locator("#studio-status .text").evaluate("node => { node.textContent = '' }")
    page.get_by_role("tab", name="Gallery").click()
    page.get_by_role("button", name="Compare: a blue kite").click()
    opened.status("Compared")
    prompts = page.locator("#studio-comparison .prompts")
    expect(prompts).to_contain_text("a green cup")
    expect(prompts).to_contain_text("a blue kite")


@pytest.mark.long
def test_one_that_waits_is_stopped(chromium, served: Served, opened: Opened) -> None:
    second = Opened(chromium, served.url)
    with served.slow():
        opened.generate("a red apple", 100)
        opened.status(re.compile(r"Noise remaining: \d\d%"))
        second.generate("a blue kite", 2)
        second.status("1 picture is before yours")
        second.page.get_by_role("button", name="Stop").click()
        second.status("stopped before it began: there is no picture")
        expect(second.page.get_by_role("button", name="Generate")).to_be_enabled()
        opened.page.get_by_role("button", name="Stop").click()
        opened.status("Stopped after step")
    assert second.wrong == []
    second.close()


@pytest.mark.long
def test_errors_are_sentences_on_the_page(opened: Opened) -> None:
    opened.generate("", 2)
    opened.status("draw something, or write a prompt")
    opened.page.get_by_label("Seed", exact=True).fill("many")
    opened.generate("a cat", 2)
    opened.status("not a whole number")
    expect(opened.page.get_by_role("button", name="Generate")).to_be_enabled()


@pytest.mark.long
def test_prompts_are_text_wherever_they_are_shown(opened: Opened, served: Served) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script> ${alert(3)} {{value}}"
    opened.generate(evil, 2)
    opened.status("Done. Seed")
    run = opened.run
    opened.page.get_by_role("tab", name="Gallery").click()
    card = opened.page.locator("#studio-shelf li").first
    expect(card).to_contain_text("<img src=x onerror=alert(1)>")
    opened.visit(served.url, run=run)
    opened.status("Opened")
    expect(opened.page.get_by_label("Prompt", exact=True)).to_have_value(evil)
    opened.page.get_by_role("button", name="Gallery entry").click()
    expect(opened.page.locator("#studio-entry")).to_contain_text("alert(1)")
    explorer = opened.page.locator("#studio-explorer")
    explorer.locator("button.word").first.click()
    explorer.locator("button.without").first.click()
    opened.status("Drawn again without the word “<”")
    opened.page.get_by_role("tab", name="Gallery").click()
    expect(opened.page.locator("#studio-shelf li")).to_have_count(2)  # the list as it is by now
    opened.page.get_by_role("button", name=re.compile("^Delete: <img")).click()
    expect(opened.page.locator("#studio-shelf")).to_contain_text("Deleted: <img src=x")
    opened.page.wait_for_timeout(500)
    assert opened.page.locator("img[src='x']").count() == 0


@pytest.mark.long
def test_a_page_that_is_left_while_it_waits_says_no_error(opened: Opened, served: Served) -> None:
    opened.page.route("**/queue/data*", lambda route: None)  # answers never come
    for _ in range(3):
        with opened.page.expect_request("**/queue/data*"):
            opened.visit(served.url)
    opened.page.unroute_all(behavior="ignoreErrors")


@pytest.mark.long
def test_gallery_search_open_delete_undo(opened: Opened) -> None:
    page = opened.page
    for prompt in ("a blue kite", "a green cup"):
        opened.generate(prompt, 2)
        opened.status("Done. Seed")
        page.locator("#studio-status .text").evaluate("node => { node.textContent = '' }")
    page.get_by_role("tab", name="Gallery").click()
    shelf = page.locator("#studio-shelf")
    expect(shelf.locator("li")).to_have_count(2)
    assert shelf.locator("img").first.evaluate("i => i.decode().then(() => i.naturalWidth)") == 256
    shelf.get_by_role("searchbox").fill("kite")
    shelf.get_by_role("button", name="Search").click()
    expect(shelf.locator("li")).to_have_count(1)
    shelf.get_by_role("button", name="Delete: a blue kite").click()
    expect(shelf).to_contain_text("Deleted: a blue kite")
    expect(shelf.locator("li")).to_have_count(0)
    shelf.get_by_role("searchbox").fill("")
    shelf.get_by_role("button", name="Search").click()
    expect(shelf.locator("li")).to_have_count(1)
    shelf.get_by_role("button", name="Undo").click()
    expect(shelf.locator("li")).to_have_count(2)
    shelf.get_by_role("searchbox").fill("kite")
    shelf.get_by_role("button", name="Search").click()
    expect(shelf.locator("li")).to_have_count(1)
    expect(shelf.locator(".message")).to_be_hidden()
    with page.expect_download() as saved:
        shelf.get_by_role("link", name="ZIP of a blue kite").click()
    assert saved.value.suggested_filename.endswith(".zip")
    shelf.get_by_role("button", name=re.compile("^Open: a blue kite")).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a blue kite", timeout=PATIENCE)
    opened.status("Opened")


@pytest.mark.long
def test_another_visitor_sees_nothing_of_it(chromium, served: Served, opened: Opened) -> None:
    opened.generate("a secret hat", 2)
    opened.status("Done. Seed")
    other = Opened(chromium, served.url)
    other.page.get_by_role("tab", name="Gallery").click()
    expect(other.page.locator("#studio-shelf .none")).to_be_visible()
    other.visit(served.url, run="0" * 26)
    other.status("there is no such run here")
    other.close()


@pytest.mark.long
def test_stop_midway_keeps_the_picture_and_its_attention(chromium, served: Served, opened) -> None:
    second = Opened(chromium, served.url)
    opened.draw_circle()
    with served.slow():
        opened.generate("a red apple", 100)
        opened.status(re.compile(r"Noise remaining: \d\d%"))
        expect(opened.page.locator("#studio-explorer .stage.picture img")).to_be_visible()
        second.generate("a blue kite", 2)
        second.status("1 picture is before yours")
        opened.page.get_by_role("button", name="Stop").click()
        opened.status(
            re.compile(r"Stopped after step \d+ of 100, with \d+% of the noise remaining")
        )
    expect(opened.page.locator("#studio-explorer")).to_contain_text("rows sum to 1.0000")
    second.status("Done. Seed")
    expect(second.page.get_by_label("Prompt", exact=True)).to_have_value("a blue kite")
    assert opened.run != second.run
    for output in ("picture", "gif", "analysis"):
        expect(opened.page.locator(f"#studio-{output} img")).to_be_visible(timeout=PATIENCE)
    kept = Gallery(served.gallery).get(opened.run)
    trace = kept.open()
    assert not trace.complete
    assert 0 < len(trace.steps) < 100
    assert kept.image is not None
    opened.visit(served.url, run=opened.run)
    opened.status("Opened")
    expect(opened.page.locator("#studio-explorer")).to_contain_text("rows sum to 1.0000")
    assert second.wrong == []
    second.close()


@pytest.mark.long
def test_a_run_uploads_the_drawing_as_it_is_asked_for_and_not_at_every_step(opened: Opened) -> None:
    opened.draw_circle()
    sent: list[str] = []
    opened.page.on("request", lambda asked: sent.append(asked.url))
    opened.generate("a red apple", 20)
    opened.status("Done. Seed")
    expect(opened.page.locator("#studio-gif img")).to_be_visible(timeout=PATIENCE)
    uploads = [url for url in sent if "/upload" in url and "progress" not in url]
    # background, composite and layer; Gradio sends them twice as a run begins
    assert 1 <= len(uploads) <= 6, uploads


@pytest.mark.long
def test_a_slow_page_shows_every_output(opened: Opened) -> None:
    # What is sent to a part that the page is still setting up is lost: they stand ready, hidden.
    slowly = opened.context.new_cdp_session(opened.page)
    slowly.send("Emulation.setCPUThrottlingRate", {"rate": 10})
    opened.generate("a red apple", 2)
    opened.status("Done. Seed")
    for output in ("picture", "gif", "analysis"):
        expect(opened.page.locator(f"#studio-{output} img")).to_be_visible(timeout=PATIENCE)


@pytest.mark.long
def test_a_permalink_survives_a_restart(chromium, served: Served) -> None:
    opened = Opened(chromium, served.url)
    opened.page.get_by_role("button", name=APPLE).click()
    expect(opened.page.get_by_label("Prompt", exact=True)).to_have_value("a red apple")
    opened.shows(lambda ink: ink > 1000)
    opened.generate("a red apple", 2)
    opened.status("Done. Seed")
    run = opened.run
    opened.close()
    served.stop()
    served.start()
    opened = Opened(chromium, served.url, run=run)  # another browser: no cookie is left
    opened.status("Opened: the run of")
    expect(opened.page.get_by_label("Prompt", exact=True)).to_have_value("a red apple")
    picture = opened.page.locator("#studio-explorer .stage.picture img")
    expect(picture).to_have_attribute("src", re.compile("^data:"))
    expect(opened.page.locator("#studio-gif img")).to_be_visible(timeout=PATIENCE)
    opened.shows(lambda ink: ink > 1000)
    assert opened.wrong == []
    opened.close()


@pytest.mark.long
def test_everything_from_the_keyboard(opened: Opened) -> None:
    """Nothing is pointed at, and no script moves the focus."""
    page, keys = opened.page, opened.page.keyboard
    opened.tab_to(page.get_by_role("button", name=APPLE))
    keys.press("Enter")
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_value("a red apple")
    page.wait_for_timeout(800)
    opened.tab_to(page.get_by_role("button", name=re.compile("^Settings")))
    keys.press("Enter")
    steps = page.get_by_role("spinbutton", name="number input for Steps")
    opened.tab_to(steps)
    keys.press("Control+a")
    keys.type("3")
    opened.tab_to(page.get_by_role("textbox", name="Seed"))
    expect(steps).to_have_value("3")
    keys.press("Control+a")
    keys.type("7")
    opened.tab_to(page.get_by_role("button", name="Generate"))
    keys.press("Enter")
    opened.status("Done. Seed 7")
    words = page.locator("#studio-explorer").get_by_role("group", name=re.compile("^Words"))
    opened.tab_to(words.get_by_role("button"))  # one stop, the start token; arrows go on from there
    for word in ("a", "red", "apple"):
        keys.press("ArrowRight")
        expect(words.get_by_role("button", name=word, exact=True)).to_be_focused()
    keys.press("Enter")
    expect(page.locator("#studio-explorer .title")).to_contain_text("apple")
    opened.tab_to(page.get_by_role("slider", name="Step", exact=True))
    keys.press("Home")
    expect(page.locator("#studio-explorer .noise")).to_contain_text("100")
    keys.press("End")
    expect(page.locator("#studio-explorer .noise")).to_contain_text("33")
    opened.tab_to(page.get_by_role("tab", name="Gallery"))
    keys.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Open: a red apple")).first).to_be_visible()
    opened.tab_to(page.get_by_role("button", name=re.compile("^Open: a red apple")))
    keys.press("Enter")
    opened.status("Opened")


@pytest.mark.long
def test_a_phone(chromium, served: Served) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    opened = Opened(chromium, served.url, **phone)
    page = opened.page
    empty = opened.ink()
    opened.touch_stroke((0.3, 0.4), (0.5, 0.5), (0.7, 0.4))
    opened.shows(lambda ink: ink > empty + 500)
    page.get_by_role("button", name="Erase", exact=True).tap()
    opened.touch_stroke((0.3, 0.4), (0.5, 0.5), (0.7, 0.4))
    opened.shows(lambda ink: ink < empty + 100)
    page.get_by_role("button", name=APPLE).tap()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red apple")
    page.wait_for_timeout(800)
    opened.generate("a red apple", 2)
    opened.status("Done. Seed")
    for part in ("#studio-explorer", "#studio-explorer button.word"):
        page.locator(part).first.evaluate("node => node.scrollIntoView()")
        line, seen = (page.locator(p).first.bounding_box() for p in ("#studio-status", part))
        assert line["y"] + line["height"] <= seen["y"] < 200, part
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.get_by_role("tab", name="Gallery").tap()
    expect(page.locator("#studio-shelf li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert opened.wrong == []
    opened.close()


@pytest.mark.long
def test_white_board_and_black_ink_in_the_dark(chromium, served: Served) -> None:
    opened = Opened(chromium, served.url, theme="dark")
    opened.draw_circle()
    opened.generate("a red apple", 2)
    opened.status("Done. Seed")
    sketch = opened.page.locator("#studio-explorer .stage.sketch img")
    tones = sketch.evaluate(
        "async (i) => { await i.decode(); const c = document.createElement('canvas');"
        " c.width = c.height = 64; const g = c.getContext('2d'); g.drawImage(i, 0, 0, 64, 64);"
        " const d = g.getImageData(0, 0, 64, 64).data; let light = 0;"
        " for (let k = 0; k < d.length; k += 4) light += d[k] > 200; return light / 4096; }"
    )
    assert 0.7 < tones < 0.999
    assert opened.wrong == []
    opened.close()
