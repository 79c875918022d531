"""The boards and the gallery in a browser: undo, eraser, runs that are opened again, focus."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from browsing import eventually
from opening import APPLE, PATIENCE, Opened, expect
from PIL import Image
from running import SKETCHES, Served

from scribblediffusion.gallery import Gallery

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.long]


def paint(opened: Opened, board: str, *places: tuple[float, float]) -> None:
    """A stroke on a board through places in 0…1 of it."""
    canvas = opened.page.locator(f"{board} canvas").first
    canvas.scroll_into_view_if_needed()
    box, mouse = canvas.bounding_box(), opened.page.mouse
    at = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in places]
    mouse.move(box["x"] + 9, box["y"] + 9)
    mouse.move(*at[0], steps=2)
    mouse.down()
    for x, y in at[1:]:
        mouse.move(x, y, steps=4)  # each is drawn before the next: few of them
    mouse.up()
    opened.page.wait_for_timeout(600)


def begin_with_the_apple(opened: Opened) -> None:
    opened.page.get_by_role("button", name=APPLE).click()
    expect(opened.page.get_by_label("Prompt", exact=True)).to_have_value("a red apple")
    opened.shows(lambda ink: ink > 1000)
    opened.page.wait_for_timeout(500)


def unfold_the_mask(opened: Opened) -> None:
    opened.set_steps(2)
    opened.page.get_by_label("Only a part of the drawing counts").check()
    expect(opened.page.locator("#studio-mask canvas").first).to_be_visible(timeout=PATIENCE)
    # Its canvas is there before its sheet, which takes away what was painted meanwhile.
    opened.page.wait_for_function(
        "window.editor?.target_element.closest('#studio-mask') && window.editor.background_image",
        timeout=PATIENCE,
    )
    opened.page.wait_for_timeout(1200)


def blue(opened: Opened) -> int:
    """Painted pixels of the mask's board as it is shown."""
    opened.page.mouse.move(2, 2)  # the brush's own ring goes away
    opened.page.wait_for_timeout(300)
    shot = opened.page.locator("#studio-mask canvas").first.screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    return int((pixels[..., 2] - pixels[..., 0] > 80).sum())


def test_an_opened_run_is_made_again_to_the_pixel(opened: Opened, served: Served) -> None:
    page = opened.page
    begin_with_the_apple(opened)
    unfold_the_mask(opened)
    paint(opened, "#studio-mask", (0.2, 0.3), (0.8, 0.35), (0.3, 0.5), (0.7, 0.55))
    page.get_by_label(re.compile("Keep each attention head apart")).check()
    page.get_by_label("Seed", exact=True).fill("7")
    opened.generate("a red apple", 2)
    opened.status("Done. Seed 7")
    first = opened.run
    expect(page.locator("#studio-analysis img")).to_be_visible(timeout=PATIENCE)
    opened.slow_down(3)  # the mask's board is being made while it is unfolded
    opened.visit(served.url, run=first)
    opened.status("Opened")
    opened.slow_down(1)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red apple")
    expect(page.locator("#studio-mask canvas").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_label("Only a part of the drawing counts")).to_be_checked()
    expect(page.get_by_label(re.compile("Keep each attention head apart"))).to_be_checked()
    page.get_by_role("button", name="Generate").click()
    opened.status("Done. Seed 7")
    page.wait_for_function(f"!location.search.includes('{first}')")
    one, two = (Gallery(served.gallery).get(run) for run in (first, opened.run))
    assert np.array_equal(one.sketch().ink, two.sketch().ink)
    assert np.array_equal(one.sketch().mask, two.sketch().mask)
    assert one.image.read_bytes() == two.image.read_bytes()


def test_the_eraser_takes_the_paint_of_an_opened_mask(opened: Opened, served: Served) -> None:
    begin_with_the_apple(opened)
    unfold_the_mask(opened)
    paint(opened, "#studio-mask", (0.3, 0.4), (0.7, 0.4), (0.3, 0.6), (0.7, 0.6))
    opened.generate("a red apple", 2)
    opened.status("Done. Seed")
    opened.visit(served.url, run=opened.run)
    opened.status("Opened")
    # The boards move down with the page while views come in.
    expect(opened.page.locator("#studio-analysis img")).to_be_visible(timeout=PATIENCE)
    expect(opened.page.locator("#studio-mask canvas").first).to_be_visible(timeout=PATIENCE)
    eventually(lambda: blue(opened) > 500, PATIENCE / 1000)
    opened.page.wait_for_timeout(2000)  # the editor may lay its sheet once more
    before = blue(opened)
    tools = opened.page.locator("#studio-mask")
    tools.get_by_role("button", name="Erase", exact=True).click()
    paint(opened, "#studio-mask", (0.3, 0.4), (0.7, 0.4), (0.3, 0.4))
    eventually(lambda: blue(opened) < 0.9 * before)
    tools.get_by_role("button", name="Clear canvas").click()
    eventually(lambda: blue(opened) < 50)
    opened.page.keyboard.press("Control+z")
    eventually(lambda: 50 < blue(opened) < 0.9 * before)


def test_upload_and_mask(opened: Opened, served: Served) -> None:
    with opened.page.expect_file_chooser() as chooser:
        opened.page.get_by_role("button", name="Upload a picture").click()
    chooser.value.set_files(SKETCHES / "house.png")
    opened.shows(lambda ink: ink > 1000)
    unfold_the_mask(opened)
    paint(opened, "#studio-mask", (0.35, 0.3), (0.6, 0.35))
    opened.generate("a pink house", 2)
    opened.status("Done. Seed")
    sketch = Gallery(served.gallery).get(opened.run).sketch()
    assert sketch.mask is not None
    assert 0.01 < sketch.mask.mean() < 0.2
    assert not sketch.mask[160:].any()
    trace = Gallery(served.gallery).get(opened.run).open()
    for row in range(5, 8):
        for column in range(8):
            assert trace.region(row, column, view="attention").max() == 0


def test_undo_is_for_the_board_that_was_pointed_at(opened: Opened) -> None:
    opened.draw_circle()
    drawn = opened.ink()
    unfold_the_mask(opened)
    for board in ("#studio-board", "#studio-mask"):
        canvas = opened.page.locator(f"{board} canvas").first
        expect(canvas).to_have_attribute("role", "img")
        expect(canvas).to_have_attribute("aria-label", re.compile("[Bb]oard"))
    clean = blue(opened)
    paint(opened, "#studio-mask", (0.3, 0.3), (0.7, 0.4))
    eventually(lambda: blue(opened) > clean + 500)
    opened.page.keyboard.press("Control+z")
    eventually(lambda: blue(opened) < clean + 100)
    opened.shows(lambda ink: ink == pytest.approx(drawn, rel=0.05))


def test_the_keyboard_goes_on_after_delete_and_undo(opened: Opened) -> None:
    page = opened.page
    opened.generate("a blue kite", 2)
    opened.status("Done. Seed")
    page.get_by_role("tab", name="Gallery").click()
    page.get_by_role("button", name="Delete: a blue kite").press("Enter")
    expect(page.get_by_role("button", name="Undo").last).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Open: a blue kite"))).to_be_focused()


def test_the_eraser_takes_the_lines_of_a_drawing_that_was_begun_with(opened: Opened) -> None:
    begin_with_the_apple(opened)
    opened.page.get_by_role("button", name="Erase", exact=True).click()
    before = opened.ink()
    paint(opened, "#studio-board", (0.2, 0.4), (0.8, 0.4), (0.8, 0.6), (0.2, 0.6))
    opened.shows(lambda ink: ink < 0.93 * before)
    opened.page.keyboard.press("Control+z")
    opened.shows(lambda ink: ink > 0.98 * before)
    opened.page.keyboard.press("Control+Shift+z")
    opened.shows(lambda ink: ink < 0.93 * before)
    opened.page.get_by_role("button", name="Brush", exact=True).click()
    rubbed = opened.ink()
    paint(opened, "#studio-board", (0.4, 0.5), (0.6, 0.5))
    opened.shows(lambda ink: ink > rubbed + 200)


def test_the_board_draws_on_after_it_was_cleared(opened: Opened) -> None:
    opened.draw_circle()
    drawn = opened.ink()
    opened.page.get_by_role("button", name="Clear canvas").click()
    opened.shows(lambda ink: ink < drawn / 4)
    opened.page.wait_for_timeout(800)
    opened.draw_circle()
    opened.shows(lambda ink: ink > 0.9 * drawn)


def test_clear_can_be_undone_and_redone_in_any_language(chromium, served: Served) -> None:
    opened = Opened(chromium, served.url, locale="de-DE")  # where Gradio names its tools otherwise
    opened.draw_circle()
    drawn = opened.ink()
    opened.page.get_by_role("button", name="Clear canvas").click()
    opened.shows(lambda ink: ink < drawn / 4)
    opened.page.keyboard.press("Control+z")
    opened.shows(lambda ink: ink > 0.9 * drawn)
    opened.page.get_by_role("button", name="Redo", exact=True).click()
    opened.shows(lambda ink: ink < drawn / 4)
    opened.page.get_by_role("button", name="Undo", exact=True).click()
    opened.shows(lambda ink: ink > 0.9 * drawn)
    assert opened.wrong == []
    opened.close()


def green(opened: Opened) -> int:
    """Green pixels of the drawing board as it is shown."""
    shot = opened.page.locator("#studio-board canvas").first.screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    return int((pixels[..., 1] - pixels[..., 0] > 80).sum())


def test_the_camera_takes_a_picture(chromium_with_camera, served: Served) -> None:
    opened = Opened(chromium_with_camera, served.url)
    page, camera = opened.page, "document.querySelector('#studio-lens video').srcObject"
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('#studio-lens video').videoWidth > 0")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_function(f"{camera} === null")
    assert green(opened) < 100  # the tool that is chosen is blue
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('#studio-lens video').videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    eventually(lambda: green(opened) > 10_000)
    assert page.evaluate(f"{camera} === null")
    assert opened.wrong == []
    opened.close()


def test_no_camera_is_a_sentence(opened: Opened) -> None:
    opened.page.get_by_role("button", name="Use the camera").click()
    expect(opened.page.get_by_role("dialog")).to_contain_text("No camera can be used")
    opened.page.keyboard.press("Escape")
    expect(opened.page.get_by_role("dialog")).to_be_hidden()


PASTE = """([place, coded, text]) => {
    const bytes = Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([bytes], "house.png", { type: "image/png" }));
    if (text) clipboardData.setData("text/plain", text);
    const paste = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
    return document.querySelector(place).dispatchEvent(paste);
}"""


def test_a_picture_is_pasted_and_text_with_a_picture_into_a_field_is_text(opened: Opened) -> None:
    picture = base64.b64encode((SKETCHES / "house.png").read_bytes()).decode()
    empty, field = opened.ink(), "#studio-prompt textarea"
    assert opened.page.evaluate(PASTE, [field, picture, "a cell"])  # it is left to the field
    opened.page.wait_for_timeout(1500)
    assert opened.ink() < empty + 100
    assert not opened.page.evaluate(PASTE, [field, picture, ""])
    opened.shows(lambda ink: ink > 1000)
    opened.page.get_by_role("button", name="Clear canvas").click()
    opened.shows(lambda ink: ink < empty + 100)
    assert not opened.page.evaluate(PASTE, ["body", picture, "a cell"])
    opened.shows(lambda ink: ink > 1000)


DROP = """([coded, name]) => {
    const bytes = Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
    const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
    document.querySelector("#studio-board canvas").dispatchEvent(drop);
}"""


def test_what_is_no_picture_leaves_the_drawing(opened: Opened, tmp_path: Path) -> None:
    page, text = opened.page, tmp_path / "text.png"
    text.write_text("this is no picture")
    coded = base64.b64encode(text.read_bytes()).decode()
    opened.draw_circle()
    drawn = opened.ink()

    def upload(file: Path) -> None:
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Upload a picture").click()
        chooser.value.set_files(file)

    def drop() -> None:
        page.evaluate(DROP, [coded, "text.png"])

    def paste() -> None:
        page.evaluate(PASTE, ["body", coded, ""])

    for bring in (lambda: upload(text), drop, paste):
        page.evaluate("document.dispatchEvent(new CustomEvent('studio-refused', { detail: '-' }))")
        bring()
        opened.status("no picture that this browser can read")
        page.wait_for_timeout(500)
        opened.shows(lambda ink: ink == pytest.approx(drawn, rel=0.05))
    picture = base64.b64encode((SKETCHES / "house.png").read_bytes()).decode()
    page.get_by_role("button", name="Clear canvas").click()
    opened.shows(lambda ink: ink < drawn / 4)
    page.evaluate(DROP, [picture, "house.png"])
    opened.shows(lambda ink: ink > 1000)


def test_the_same_file_is_chosen_once_more(opened: Opened) -> None:
    empty = opened.ink()
    for _ in range(2):
        with opened.page.expect_file_chooser() as chooser:
            opened.page.get_by_role("button", name="Upload a picture").click()
        assert chooser.value.element.evaluate("field => field.files.length") == 0
        chooser.value.set_files(SKETCHES / "house.png")
        opened.shows(lambda ink: ink > 1000)
        opened.page.get_by_role("button", name="Clear canvas").click()
        opened.shows(lambda ink: ink < empty + 100)


def test_what_is_no_paper_does_not_look_like_it(opened: Opened) -> None:
    def is_seen() -> bool:
        shot = opened.page.locator("#studio-board canvas").first.screenshot()
        tones = np.asarray(Image.open(io.BytesIO(shot)).convert("L")).astype(int)
        height, width = tones.shape
        return tones[height // 2, width // 2] == 255 and tones[-8, 8] < 240

    eventually(is_seen)  # the margin is coloured a moment after the sheet is laid


def test_a_double_click_asks_once(opened: Opened, served: Served) -> None:
    opened.set_steps(2)
    opened.page.get_by_label("Prompt", exact=True).fill("a twice clicked hat")
    opened.page.get_by_role("button", name="Generate").dblclick()
    opened.status("Done. Seed")
    opened.page.get_by_role("tab", name="Gallery").click()
    expect(opened.page.locator("#studio-shelf .total")).to_have_text("1 run")


def test_a_drawing_to_begin_with_is_black_on_white_whatever_its_paper(opened: Opened) -> None:
    opened.page.get_by_role("button", name=re.compile("Begin with a drawing: .*tulip")).click()
    opened.shows(lambda ink: 500 < ink < 30_000)
    before = opened.ink()
    paint(opened, "#studio-board", (0.2, 0.1), (0.8, 0.1))
    opened.shows(lambda ink: ink > 1.02 * before)


def test_the_board_and_how_it_goes_stay_in_sight(opened: Opened) -> None:
    opened.generate("a blue kite", 2)
    opened.status("Done. Seed")
    expect(opened.page.locator("#studio-analysis img")).to_be_visible(timeout=PATIENCE)
    opened.page.evaluate("scrollTo(0, 600)")
    opened.page.wait_for_function("scrollY > 300")
    for part in ("#studio-status", "#studio-board"):
        eventually(lambda p=part: 0 <= opened.page.locator(p).bounding_box()["y"] < 200)
