import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from browsing import opened_page, serving
from painted import make_trace
from short_runs import live_steps, short_run

pytest.importorskip("gradio", reason="the extra [web] is not installed")
pytestmark = [
    pytest.mark.browser,
    # Gradio's own: a socket that it tries ports with, and an option of pandas.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting"),
]

HOSTILE = "<img src=x onerror=hacked=1> ${globalThis.hacked=1} {{value}} `</script>`"


@pytest.fixture(scope="module")
def real():
    return short_run("all")


@pytest.fixture(scope="module")
def address(real):
    """One explorer of a real run, with what it triggers written into a box, and a live run."""
    import gradio as gr

    from scribblediffusion.web.explorer import explorer
    from scribblediffusion.web.payload import pack, pack_live, pack_maps

    def maps(_, run, layer, head):
        assert run == "one"
        return pack_maps(real, layer, head)

    def painting():
        for latest in list(live_steps(real))[:3]:
            yield pack_live(latest, run="two", count=4)

    def told(event: gr.EventData):
        return json.dumps({"without": event.without, "run": event.run})

    def build():
        view = explorer(value=pack(real, run="one"), maps=maps)
        said = gr.Textbox(label="said")
        view.without(told, None, said)
        live = gr.Button("paint")
        live.click(painting, None, view, show_progress="hidden")
        done = gr.Button("finish")
        done.click(lambda: pack(real, run="two"), None, view, show_progress="hidden")

    with serving(build) as url:
        yield url


@pytest.fixture
def page(chromium, address):
    with opened_page(chromium, address) as one:
        one.wait_for_selector(".explorer", state="visible")
        yield one


def word(page, name):
    return page.get_by_role("button", name=name, exact=True)


def region(page, number):
    return page.locator(".cells button").nth(number)


def pixels(page, selector=".picture .map"):
    """The map's canvas as text; what is drawn is drawn in the next frame."""
    settle(page)
    return page.evaluate(f"document.querySelector('{selector}').toDataURL()")


def settle(page):
    page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def is_kept(page, name):
    settle(page)
    return word(page, name).get_attribute("aria-pressed") == "true"


def is_mapped(page):
    settle(page)
    return page.locator(".picture .map").is_visible()


def ranking(page):
    """[(name, share as written)] of both lists, as a person reads them."""
    settle(page)
    rows = page.locator(".lists li").all()
    return [(row.locator(".name").inner_text(), row.locator(".share").inner_text()) for row in rows]


def click_picture(page, x, y, size=256):
    box = page.locator(".picture").bounding_box()
    page.mouse.click(box["x"] + box["width"] * x / size, box["y"] + box["height"] * y / size)


def agrees(page, truth, error=0.0005):
    """The lists on the page are the eight first of each kind, with Python's numbers."""
    shown = ranking(page)
    by_name = {s.name: s.share for s in truth}
    words = [s.name for s in truth if not s.name[0].isdigit()][:8]
    assert {n for n, _ in shown if not n[0].isdigit()} == set(words)
    assert len(shown) == len(words) + 8
    for name, text in shown:
        assert float(text.removesuffix(" %")) / 100 == pytest.approx(
            by_name[name], abs=error + 5e-4
        )
    strokes = [by_name[n] for n, _ in shown if n[0].isdigit()]
    assert all(a >= b - 2 * error for a, b in itertools.pairwise(strokes))
    best = sorted((s.share for s in truth if s.name[0].isdigit()), reverse=True)[7]
    assert min(strokes) >= best - 2 * error


def test_a_word_shows_its_map_while_it_is_pointed_at(page):
    assert not is_mapped(page)
    word(page, "apple").hover()
    assert is_mapped(page)
    apple = pixels(page)
    assert "apple" in page.locator(".about").inner_text()
    word(page, "blue").hover()
    assert pixels(page) != apple
    page.mouse.move(2, 2)
    assert not is_mapped(page)


def test_a_region_of_the_sketch_shows_its_map_and_what_is_drawn(page, real):
    from scribblediffusion.analysis.listening import ink_of
    from scribblediffusion.analysis.regions import describe_regions

    region(page, 10).hover()
    assert is_mapped(page)
    told = str(describe_regions(ink_of(real))[10])
    settle(page)
    assert told in page.locator(".about").inner_text()
    assert region(page, 10).get_attribute("aria-label") == told
    page.get_by_label("3×3").check()
    assert page.locator(".cells button").count() == 9


def test_a_click_keeps_and_escape_frees(page):
    word(page, "apple").click()
    apple = pixels(page)
    assert is_kept(page, "apple")
    region(page, 3).hover()
    assert pixels(page) != apple
    page.mouse.move(2, 2)
    assert pixels(page) == apple
    page.keyboard.press("Escape")
    assert not is_mapped(page)
    word(page, "apple").click()
    word(page, "apple").click()
    page.mouse.move(2, 2)
    assert not is_mapped(page)


def test_the_keyboard_alone_reaches_everything(page):
    word(page, "red").focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    assert "“apple”" in page.locator(".title").inner_text()
    assert is_mapped(page)
    page.keyboard.press("Enter")
    assert is_kept(page, "apple")
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.textContent") == "[CLS]"
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('picture')")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert len(ranking(page)) == 15
    region(page, 0).focus()
    page.keyboard.press("ArrowDown")
    settle(page)
    assert page.locator(".title").inner_text() == "Region 8×8 (1, 0)"
    page.wait_for_function("document.querySelector('.spoken').textContent.includes('Whole run')")


def test_a_focused_button_is_seen_to_be_focused(page):
    word(page, "red").focus()
    page.keyboard.press("ArrowRight")
    outline = "getComputedStyle(document.activeElement).outlineWidth"
    assert page.evaluate(outline) == "3px"


@pytest.mark.parametrize(("x", "y"), [(84, 75), (174, 178), (3, 250)])
def test_a_place_of_the_picture_ranks_as_in_python(page, real, x, y):
    click_picture(page, x, y)
    agrees(page, real.at(x, y))


def test_the_ranking_follows_the_step(page, real):
    click_picture(page, 84, 75)
    page.locator(".scrub").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    agrees(page, real.at(84, 75, step=2))


def test_the_scrubber_moves_picture_map_and_noise_together(page):
    word(page, "apple").click()
    page.locator(".scrub").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    settle(page)
    seen = []
    for noise in ("75%", "50%", "25%"):
        settle(page)
        assert page.locator(".noise").inner_text() == f"Noise remaining: {noise}"
        assert noise in page.locator(".scrub").get_attribute("aria-valuetext")
        seen.append((page.locator(".picture img").get_attribute("src"), pixels(page)))
        page.keyboard.press("ArrowRight")
    pictures, maps = zip(*seen, strict=True)
    assert len(set(pictures)) == len(set(maps)) == 3
    page.get_by_role("button", name="whole run").click()
    settle(page)
    assert page.locator(".noise").inner_text() == "Whole run, mean of 4 steps"


def test_the_first_and_the_last_step_are_reached_from_the_whole_run(page):
    scrub, noise, whole = (page.locator(x) for x in (".scrub", ".noise", ".whole"))
    for key, label in (("Home", "100%"), ("ArrowRight", "100%"), ("ArrowLeft", "25%")):
        scrub.focus()
        page.keyboard.press(key)
        settle(page)
        assert noise.inner_text() == f"Noise remaining: {label}"
        whole.click()
    scrub.click(position={"x": 3, "y": 20})
    settle(page)
    assert noise.inner_text() == "Noise remaining: 100%"


PAUSE_AT_75 = """() => {
    const play = document.querySelector('.play'), noise = document.querySelector('.noise');
    const now = noise.textContent.includes('75%') && play.getAttribute('aria-label') === 'Pause';
    if (now) play.click();
    return now;
}"""


def test_play_goes_through_the_steps_and_pauses(page):
    play = page.locator(".play")
    play.click()
    page.wait_for_function(PAUSE_AT_75)
    page.wait_for_timeout(700)
    settle(page)
    assert page.locator(".noise").inner_text() == "Noise remaining: 75%"
    assert play.get_attribute("aria-label") == "Play the steps"
    play.click()
    page.wait_for_function("document.querySelector('.noise').textContent.includes('25%')")
    page.wait_for_function("document.querySelector('.play').getAttribute('aria-label') != 'Pause'")


def test_shares_of_a_step_sum_to_all(page, real):
    page.locator(".scrub").focus()
    page.keyboard.press("End")
    settle(page)
    text = page.locator(".legend").inner_text()
    shares = [float(n) for n in re.findall(r"([\d.]+) %", text)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    sketch = float(re.search(r"sketch ([\d.]+) %", text).group(1))
    assert sketch == pytest.approx(100 * real.shares(step=3)["sketch"], abs=0.06)


def test_how_a_map_is_drawn_is_said_and_can_be_changed(page):
    word(page, "apple").click()
    drawn, note = pixels(page), page.locator(".scale-note")
    assert "one scale for all words" in note.inner_text()
    assert "smoothly enlarged" in note.inner_text()
    shared = page.locator(".ticks").inner_text()
    page.locator(".dials").get_by_label("own").check()
    assert pixels(page) != drawn
    assert "own scale" in note.inner_text()
    assert page.locator(".ticks").inner_text() != shared
    page.get_by_text("Layers, heads, colours").click()
    before = pixels(page)
    page.get_by_label("cividis").check()
    assert pixels(page) != before
    page.get_by_label("share of each place").check()
    settle(page)
    assert "of each place’s attention" in note.inner_text()
    assert "%" in page.locator(".ticks").inner_text()
    page.get_by_label("as squares").check()
    settle(page)
    assert "each square is one place" in note.inner_text()
    page.get_by_label("Opacity of the map").fill("20")
    settle(page)
    assert page.evaluate("document.querySelector('.picture .map').style.opacity") == "0.2"


def test_layers_and_heads_are_fetched_when_they_are_chosen(page, real):
    click_picture(page, 84, 75)
    word(page, "apple").click()
    mean = pixels(page)
    page.get_by_text("Layers, heads, colours").click()
    layer = next(one for one in real.layers if one.name.startswith("up_blocks.1.attentions.1"))
    heard = [real.word("apple", view="attention", layer=layer.name, head=h).max() for h in range(8)]
    head = str(int(np.argmax(heard)))  # one that listens to the word: others may have no map
    page.get_by_label("Layer").select_option(layer.name)
    page.wait_for_function(
        f"document.querySelector('.scale-note').textContent.includes('{layer.width} by')"
    )
    assert pixels(page) != mean
    agrees(page, real.at(84, 75, layer=layer.name), error=0.002)
    every = pixels(page)
    page.get_by_label("Head").select_option(head)
    page.wait_for_function(f"document.querySelector('select[aria-label=Head]').value === '{head}'")
    page.wait_for_function(f"document.querySelector('.picture .map').toDataURL() !== '{every}'")
    assert page.get_by_label("Head").locator("option").count() == 9


def test_without_a_word_or_a_stroke_triggers_the_event(page):
    said = page.get_by_label("said")
    word(page, "red").click()
    page.get_by_role("button", name="same, but without this word").click()
    page.wait_for_function("document.querySelector('textarea').value")
    assert json.loads(said.input_value()) == {"without": {"word": 1}, "run": "one"}
    region(page, 10).click()
    page.get_by_role("button", name="same, but without this stroke").click()
    page.wait_for_function("document.querySelector('textarea').value.includes('region')")
    assert json.loads(said.input_value()) == {"without": {"region": [8, 1, 2]}, "run": "one"}


def test_the_proof_and_what_it_does_not_prove_are_in_view(page, real):
    assert str(real.audit) in page.locator(".explorer .proofs").inner_text()
    assert "not what it would have painted" in page.locator(".explorer .proofs").inner_text()


def test_a_live_run_grows_step_by_step_and_keeps_the_word(page):
    word(page, "apple").click()
    page.get_by_role("button", name="paint").click()
    page.wait_for_function("document.querySelector('.badge').textContent === 'live: step 3 of 4'")
    assert page.locator(".columns i").count() == 3
    assert page.locator(".noise").inner_text() == "Noise remaining: 50%"
    word(page, "blue").click()
    live = pixels(page)
    page.get_by_role("button", name="finish").click()
    page.wait_for_function("document.querySelector('.badge').hidden")
    assert is_kept(page, "blue")
    assert page.locator(".columns i").count() == 4
    assert pixels(page) != live
    assert page.locator(".noise").inner_text() == "Whole run, mean of 4 steps"


def test_a_phone_has_room_for_all_of_it(chromium, address):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with opened_page(chromium, address, theme="dark", **phone) as page:
        page.wait_for_selector(".explorer", state="visible")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        word(page, "apple").tap()
        assert is_mapped(page)
        assert is_kept(page, "apple")
        box = page.locator(".picture").bounding_box()
        page.touchscreen.tap(box["x"] + 90, box["y"] + 90)
        assert len(ranking(page)) == 15
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_themes_and_reduced_motion(chromium, address):
    colour = "getComputedStyle(document.querySelector('.explorer .title')).color"
    seen = []
    for theme in ("light", "dark"):
        with opened_page(chromium, address, theme=theme, reduced_motion="reduce") as page:
            page.wait_for_selector(".explorer", state="visible")
            seen.append(page.evaluate(colour))
            moving = "getComputedStyle(document.querySelector('.prompt button')).transitionDuration"
            assert page.evaluate(moving) == "0s"
    assert seen[0] != seen[1]


def hostile_trace():
    trace = make_trace(steps=2)
    prompt = trace.prompts[0]
    words = tuple(dataclasses.replace(w, text=HOSTILE) for w in prompt.words)
    evil = dataclasses.replace(prompt, text=HOSTILE, words=words, truncated=(HOSTILE,))
    return dataclasses.replace(trace, prompts=(evil,), settings={"seed": HOSTILE})


def test_a_hostile_prompt_is_text(chromium):
    from scribblediffusion.web.comparison import comparison, pack_comparison
    from scribblediffusion.web.explorer import explorer
    from scribblediffusion.web.payload import pack

    evil, plain = hostile_trace(), make_trace(steps=2)

    def build():
        explorer(value=pack(evil, run=HOSTILE))
        comparison(value=pack_comparison(evil, plain))

    with serving(build) as url, opened_page(chromium, url) as page:
        page.wait_for_selector(".explorer", state="visible")
        page.wait_for_selector(".comparison", state="visible")
        page.locator(".prompt .word").first.hover()
        page.locator(".words button").last.click()
        settle(page)
        assert HOSTILE in page.locator(".comparison .prompts").inner_text()
        assert HOSTILE in page.locator(".proof").inner_text()
        assert page.evaluate("globalThis.hacked") is None
        assert page.locator(".explorer img[src=x], .comparison img[src=x]").count() == 0


def test_two_explorers_do_not_mix_and_an_empty_one_says_what_will_be_there(chromium, real):
    from scribblediffusion.web.explorer import explorer
    from scribblediffusion.web.payload import pack

    def build():
        explorer(value=pack(real), elem_id="first")
        explorer(value=pack(make_trace(steps=3)), elem_id="second")
        explorer(elem_id="empty")

    with serving(build) as url, opened_page(chromium, url) as page:
        page.wait_for_selector("#second .explorer", state="visible")
        page.locator("#second").get_by_role("button", name="kite", exact=True).click()
        page.mouse.move(2, 2)
        settle(page)
        assert page.locator("#second .map").is_visible()
        assert not page.locator("#first .map").is_visible()
        page.locator("#second .dials").get_by_label("own").check()
        assert page.locator("#first .dials").get_by_label("shared").is_checked()
        assert page.locator("#empty .empty").is_visible()
        assert not page.locator("#empty .explorer").is_visible()
        assert "no proof" in page.locator("#second .proof").inner_text()


@pytest.fixture(scope="module")
def compared(real):
    from scribblediffusion.web.comparison import comparison, pack_comparison

    value = pack_comparison(real, short_run("mean", "a apple above a blue kite"))
    with serving(lambda: comparison(value=value)) as url:
        yield url, value


def test_two_runs_under_a_slider(chromium, compared):
    url, value = compared
    with opened_page(chromium, url) as page:
        page.wait_for_selector(".comparison", state="visible")
        page.locator(".wipe").focus()
        page.keyboard.press("Home")
        cut = "getComputedStyle(document.querySelector('.side.a')).clipPath"
        assert page.evaluate(cut) == "inset(0px 100% 0px 0px)"
        page.keyboard.press("End")
        assert page.evaluate(cut) == "inset(0px 0% 0px 0px)"
        assert "All settings are the same" in page.locator(".facts").inner_text()
        pictures = pixels(page, ".change canvas")
        page.get_by_role("button", name="apple,").click()
        assert pixels(page, ".change canvas") != pictures
        apple = next(w for w in value["words"] if w["name"] == "apple")
        assert f"{100 * apple['moved']:.1f} % of its map" in page.locator(".facts").inner_text()
        page.keyboard.press("End")
        page.wait_for_function(
            "document.querySelector('.comparison .nothing').textContent.includes('only before')"
        )
        assert page.locator(".side.a canvas").is_visible()
        assert not page.locator(".side.b canvas").is_visible()
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
