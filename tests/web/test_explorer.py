import dataclasses
import itertools
import json
import re
import time

import numpy as np
import pytest
from browsing import PATIENCE, eventually, opened_page, serving
from painted import make_trace
from short_runs import live_steps, short_run

pytest.importorskip("gradio", reason="the extra [web] is not installed")
expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=1000 * PATIENCE)
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
        if layer == real.layers[0].name:
            time.sleep(1.5)
        return pack_maps(real, layer, head)

    def painting():
        for latest in list(live_steps(real))[:3]:
            yield pack_live(latest, run="live", count=4)
            time.sleep(0.7)

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
def page(shared_chromium, address):
    with opened_page(shared_chromium, address) as one:
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


def changed(page, before, selector=".picture .map"):
    """The map's canvas once it is another one."""

    def other():
        now = pixels(page, selector)
        return now if now != before else False

    return eventually(other)


def is_kept(page, name):
    expect(word(page, name)).to_have_attribute("aria-pressed", "true")


def is_mapped(page, yes=True):
    expect(page.locator(".picture .map")).to_be_visible(visible=yes)


def ranking(page):
    """[(name, share as written)] of both lists, as a person reads them."""
    settle(page)
    rows = page.locator(".lists li").all()
    return [(row.locator(".name").inner_text(), row.locator(".share").inner_text()) for row in rows]


def click_picture(page, x, y, size=256):
    picture = page.locator(".picture")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    # Not by the mouse's own coordinates: the page may move between measuring and clicking.
    picture.click(position={"x": box["width"] * x / size, "y": box["height"] * y / size})
    expect(page.locator(".ranking")).to_be_visible()


def agrees(page, truth, error=0.0005):
    """The lists on the page are the eight first of each kind, with Python's numbers."""
    eventually(lambda: lists_agree(ranking(page), truth, error))


def lists_agree(shown, truth, error):
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
    is_mapped(page, False)
    word(page, "apple").hover()
    is_mapped(page)
    apple = pixels(page)
    expect(page.locator(".about")).to_contain_text("apple")
    word(page, "blue").hover()
    changed(page, apple)
    page.mouse.move(2, 2)
    is_mapped(page, False)


def test_a_region_of_the_sketch_shows_its_map_and_what_is_drawn(page, real):
    from scribblediffusion.analysis.listening import ink_of
    from scribblediffusion.analysis.regions import describe_regions

    region(page, 10).hover()
    is_mapped(page)
    told = str(describe_regions(ink_of(real))[10])
    expect(page.locator(".about")).to_contain_text(told)
    expect(region(page, 10)).to_have_attribute("aria-label", told)
    page.get_by_label("3×3").check()
    expect(page.locator(".cells button")).to_have_count(9)


@pytest.mark.long
def test_the_drawing_stays_where_it_is_while_its_regions_are_read(page):
    """What is told of a region, and what to try, takes its room; what is pointed at stays."""
    heights = set()
    page.mouse.move(2, 2)
    at_rest = page.locator(".cells").bounding_box()
    for number in (0, 10, 20, 35, 44):
        region(page, number).hover()
        expect(page.locator(".about .title")).to_have_text(
            f"Region 8×8 ({number // 8}, {number % 8})"
        )
        heights.add(page.locator(".about").bounding_box()["height"])
        assert page.locator(".cells").bounding_box() == at_rest
        region(page, number).click()
        expect(page.locator(".about .without")).to_contain_text(f"({number // 8}, {number % 8})")
        heights.add(page.locator(".about").bounding_box()["height"])
        assert page.locator(".cells").bounding_box() == at_rest
        region(page, number).click()
        expect(page.locator(".about .without")).to_have_count(0)
        heights.add(page.locator(".about").bounding_box()["height"])
        assert page.locator(".cells").bounding_box() == at_rest
    assert len(heights) > 1


def test_a_click_keeps_and_escape_frees(page):
    word(page, "apple").click()
    is_kept(page, "apple")
    apple = pixels(page)
    region(page, 3).hover()
    changed(page, apple)
    page.mouse.move(2, 2)
    eventually(lambda: pixels(page) == apple)
    page.keyboard.press("Escape")
    is_mapped(page, False)
    word(page, "apple").click()
    word(page, "apple").click()
    page.mouse.move(2, 2)
    is_mapped(page, False)


def test_the_keyboard_alone_reaches_everything(page):
    word(page, "red").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".title")).to_contain_text("“apple”")
    is_mapped(page)
    page.keyboard.press("Enter")
    is_kept(page, "apple")
    page.keyboard.press("Home")
    expect(page.locator(":focus")).to_have_text("[CLS]")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.locator(".picture")).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator(".lists li")).to_have_count(15)
    region(page, 0).focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".title")).to_have_text("Region 8×8 (1, 0)")
    page.wait_for_function("document.querySelector('.spoken').textContent.includes('Whole run')")


def test_a_focused_button_is_seen_to_be_focused(page):
    word(page, "red").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(":focus")).to_have_css("outline-width", "3px")


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
    seen = []
    for noise in ("75%", "50%", "25%"):
        expect(page.locator(".noise")).to_have_text(f"Noise remaining: {noise}")
        expect(page.locator(".scrub")).to_have_attribute("aria-valuetext", re.compile(noise))
        seen.append((page.locator(".picture img").get_attribute("src"), pixels(page)))
        page.keyboard.press("ArrowRight")
    pictures, maps = zip(*seen, strict=True)
    assert len(set(pictures)) == len(set(maps)) == 3
    page.get_by_role("button", name="whole run").click()
    expect(page.locator(".noise")).to_have_text("Whole run, mean of 4 steps")


def test_the_first_and_the_last_step_are_reached_from_the_whole_run(page):
    scrub, noise, whole = (page.locator(x) for x in (".scrub", ".noise", ".whole"))
    for key, label in (("Home", "100%"), ("ArrowRight", "100%"), ("ArrowLeft", "25%")):
        scrub.focus()
        page.keyboard.press(key)
        expect(noise).to_have_text(f"Noise remaining: {label}")
        whole.click()
    scrub.click(position={"x": 3, "y": 20})
    expect(noise).to_have_text("Noise remaining: 100%")


PAUSE_AT_75 = """() => {
    const play = document.querySelector('.play'), noise = document.querySelector('.noise');
    const plays = play.getAttribute('aria-label') === 'Pause';
    const at = document.querySelector('.scrub').value; // moves before the next frame is drawn
    const now = noise.textContent.includes('75%') && at === '1' && plays;
    if (now || !plays) play.click(); // once more where it had gone by between two looks
    return now;
}"""


@pytest.mark.long
def test_play_goes_through_the_steps_and_pauses(page):
    play = page.locator(".play")
    page.wait_for_function(PAUSE_AT_75)
    page.wait_for_timeout(700)
    expect(play).to_have_attribute("aria-label", "Play the steps")
    expect(page.locator(".noise")).to_have_text("Noise remaining: 75%")
    play.click()
    page.wait_for_function("document.querySelector('.noise').textContent.includes('25%')")
    page.wait_for_function("document.querySelector('.play').getAttribute('aria-label') != 'Pause'")


def test_shares_of_a_step_sum_to_all(page, real):
    page.locator(".scrub").focus()
    page.keyboard.press("End")
    expect(page.locator(".noise")).to_have_text("Noise remaining: 25%")
    text = page.locator(".legend").inner_text()
    shares = [float(n) for n in re.findall(r"([\d.]+) %", text)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    sketch = float(re.search(r"sketch ([\d.]+) %", text).group(1))
    assert sketch == pytest.approx(100 * real.shares(step=3)["sketch"], abs=0.06)


@pytest.mark.long
def test_how_a_map_is_drawn_is_said_and_can_be_changed(page, real):
    palest = min(("red", "apple", "above", "blue", "kite"), key=lambda w: real.word(w).max())
    word(page, palest).click()  # the one whose own scale is furthest from that of all words
    is_kept(page, palest)
    note, ticks = page.locator(".scale-note"), page.locator(".ticks")
    expect(note).to_contain_text("one scale for all words")
    expect(note).to_contain_text("smoothly enlarged")
    drawn, shared = pixels(page), ticks.inner_text()
    page.locator(".dials").get_by_label("own").check()
    expect(note).to_contain_text("own scale")
    own = changed(page, drawn)
    eventually(lambda: ticks.inner_text() != shared)
    page.get_by_text("Layers, heads, colours").click()
    page.get_by_label("cividis").check()
    changed(page, own)
    page.get_by_label("share of each place").check()
    expect(note).to_contain_text("of each place’s attention")
    expect(ticks).to_contain_text("%")
    page.get_by_label("as squares").check()
    expect(note).to_contain_text("each square is one place")
    page.get_by_label("Opacity of the map").fill("20")
    expect(page.locator(".picture .map")).to_have_css("opacity", "0.2")


@pytest.mark.long
def test_layers_and_heads_are_fetched_when_they_are_chosen(page, real):
    click_picture(page, 84, 75)
    word(page, "apple").click()
    is_kept(page, "apple")
    mean = pixels(page)
    page.get_by_text("Layers, heads, colours").click()
    layer = next(one for one in real.layers if one.name.startswith("up_blocks.1.attentions.1"))
    heard = [real.word("apple", view="attention", layer=layer.name, head=h).max() for h in range(8)]
    head = str(int(np.argmax(heard)))  # one that listens to the word: others may have no map
    page.get_by_label("Layer").select_option(layer.name)
    expect(page.locator(".scale-note")).to_contain_text(f"{layer.width} by")
    every = changed(page, mean)
    agrees(page, real.at(84, 75, layer=layer.name), error=0.002)
    page.get_by_label("Head").select_option(head)
    expect(page.get_by_label("Head")).to_have_value(head)
    changed(page, every)
    expect(page.get_by_label("Head").locator("option")).to_have_count(9)


def test_without_a_word_or_a_stroke_triggers_the_event(page):
    said = page.get_by_label("said")
    word(page, "red").click()
    word(page, "apple").hover()  # on the way to the button
    page.get_by_role("button", name="same, but without “red”").click()
    page.wait_for_function("document.querySelector('textarea').value")
    assert json.loads(said.input_value()) == {"without": {"word": 1}, "run": "one"}
    region(page, 10).click()
    page.get_by_role("button", name="same, but without the stroke in 8×8 (1, 2)").click()
    page.wait_for_function("document.querySelector('textarea').value.includes('region')")
    assert json.loads(said.input_value()) == {"without": {"region": [8, 1, 2]}, "run": "one"}


def test_the_proof_and_what_it_does_not_prove_are_in_view(page, real):
    expect(page.locator(".explorer .proofs")).to_contain_text(str(real.audit))
    expect(page.locator(".explorer .proofs")).to_contain_text("not what it would have painted")


@pytest.mark.long
def test_of_two_layers_the_one_chosen_last_is_shown(page, real):
    slow, quick = real.layers[0], real.layers[-1]
    page.get_by_text("Layers, heads, colours").click()
    layer = page.get_by_label("Layer")

    def is_late(answer) -> bool:
        asked = answer.request.post_data or ""
        return "component_server" in answer.url and slow.name in asked

    with page.expect_response(is_late) as late:
        layer.select_option(slow.name)
        layer.select_option(quick.name)
        expect(page.get_by_label("Head").locator("option")).to_have_count(1 + quick.heads)
    late.value.finished()
    page.wait_for_timeout(500)  # for what the page does with it
    expect(layer).to_have_value(quick.name)
    expect(page.locator(".fetching")).to_have_text("")


def test_a_live_run_grows_step_by_step_and_keeps_the_word(page):
    word(page, "apple").click()
    page.get_by_role("button", name="paint").click()
    expect(page.locator(".badge")).to_have_text("live: step 3 of 4")
    expect(page.locator(".columns i")).to_have_count(3)
    expect(page.locator(".noise")).to_have_text("Noise remaining: 50%")
    word(page, "blue").click()
    is_kept(page, "blue")
    live = pixels(page)
    word(page, "blue").focus()
    page.evaluate(
        "[...document.querySelectorAll('button')].find(b => b.innerText === 'finish').click()"
    )
    expect(page.locator(".badge")).to_be_hidden()
    is_kept(page, "blue")
    expect(word(page, "blue")).to_be_focused()
    expect(page.locator(".columns i")).to_have_count(4)
    changed(page, live)
    expect(page.locator(".noise")).to_have_text("Whole run, mean of 4 steps")


def test_whoever_is_at_work_in_a_live_run_is_not_disturbed(page):
    page.get_by_role("button", name="paint").click()
    # Looked at in every frame: a step is there for a moment only.
    page.wait_for_function("document.querySelector('.badge').textContent.startsWith('live: step ')")
    levels = page.get_by_role("radio", name="8×8")
    for control in (page.get_by_label("Opacity of the map"), levels):
        control.focus()
    page.evaluate("document.activeElement.marked = true")
    page.get_by_label("Opacity of the map").evaluate("node => { node.marked = true }")
    expect(page.locator(".badge")).to_have_text("live: step 3 of 4")
    expect(levels).to_be_focused()
    assert levels.evaluate("node => node.marked")
    assert page.get_by_label("Opacity of the map").evaluate("node => node.marked")


def test_keys_of_the_browser_are_left_to_it(page):
    stage = page.locator(".stage.picture")
    stage.focus()
    taken = "event => { globalThis.taken = event.defaultPrevented }"
    page.evaluate(f"document.addEventListener('keydown', {taken})")
    for key, expected in (("Control+ArrowLeft", False), ("ArrowLeft", True)):
        page.keyboard.press(key)
        assert page.evaluate("globalThis.taken") is expected


@pytest.mark.long
def test_a_phone_has_room_for_all_of_it(shared_chromium, address):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with opened_page(shared_chromium, address, theme="dark", **phone) as page:
        page.wait_for_selector(".explorer", state="visible")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        word(page, "apple").tap()
        is_mapped(page)
        is_kept(page, "apple")
        box = page.locator(".picture").bounding_box()
        page.touchscreen.tap(box["x"] + 90, box["y"] + 90)
        expect(page.locator(".lists li")).to_have_count(15)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.long
def test_themes_and_reduced_motion(shared_chromium, address):
    colour = "getComputedStyle(document.querySelector('.explorer .title')).color"
    seen = []
    for theme in ("light", "dark"):
        with opened_page(shared_chromium, address, theme=theme, reduced_motion="reduce") as page:
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


def test_a_hostile_prompt_is_text(shared_chromium):
    from scribblediffusion.web.comparison import comparison, pack_comparison
    from scribblediffusion.web.explorer import explorer
    from scribblediffusion.web.payload import pack

    evil, plain = hostile_trace(), make_trace(steps=2)

    def build():
        explorer(value=pack(evil, run=HOSTILE))
        comparison(value=pack_comparison(evil, plain))

    with serving(build) as url, opened_page(shared_chromium, url) as page:
        page.wait_for_selector(".explorer", state="visible")
        page.wait_for_selector(".comparison", state="visible")
        page.locator(".prompt .word").first.hover()
        page.locator(".words button").last.click()
        expect(page.locator(".comparison .prompts")).to_contain_text(HOSTILE)
        expect(page.locator(".proof")).to_contain_text(HOSTILE)
        assert page.evaluate("globalThis.hacked") is None
        assert page.locator(".explorer img[src=x], .comparison img[src=x]").count() == 0


@pytest.mark.long
def test_two_explorers_do_not_mix_and_an_empty_one_says_what_will_be_there(shared_chromium, real):
    from scribblediffusion.web.explorer import explorer
    from scribblediffusion.web.payload import pack

    def build():
        explorer(value=pack(real), elem_id="first")
        explorer(value=pack(make_trace(steps=3)), elem_id="second")
        explorer(elem_id="empty")

    with serving(build) as url, opened_page(shared_chromium, url) as page:
        page.wait_for_selector("#second .explorer", state="visible")
        page.locator("#second").get_by_role("button", name="kite", exact=True).click()
        page.mouse.move(2, 2)
        expect(page.locator("#second .map")).to_be_visible()
        expect(page.locator("#first .map")).to_be_hidden()
        page.locator("#second .dials").get_by_label("own").check()
        expect(page.locator("#second .scale-note")).to_contain_text("own scale")
        expect(page.locator("#first .dials").get_by_label("shared")).to_be_checked()
        expect(page.locator("#empty .empty")).to_be_visible()
        expect(page.locator("#empty .explorer")).to_be_hidden()
        expect(page.locator("#second .proof")).to_contain_text("no proof")


@pytest.fixture(scope="module")
def compared(real):
    from scribblediffusion.web.comparison import comparison, pack_comparison

    value = pack_comparison(real, short_run("mean", "a apple above a blue kite"))
    with serving(lambda: comparison(value=value)) as url:
        yield url, value


@pytest.mark.long
def test_two_runs_under_a_slider(shared_chromium, compared):
    url, value = compared
    with opened_page(shared_chromium, url) as page:
        page.wait_for_selector(".comparison", state="visible")
        page.locator(".wipe").focus()
        page.keyboard.press("Home")
        first, facts = page.locator(".side.a"), page.locator(".facts")
        expect(first).to_have_css("clip-path", "inset(0px 100% 0px 0px)")
        page.keyboard.press("End")
        expect(first).to_have_css("clip-path", "inset(0px 0% 0px 0px)")
        expect(facts).to_contain_text("All settings are the same")
        pictures = pixels(page, ".change canvas")
        page.get_by_role("button", name="apple,").click()
        changed(page, pictures, ".change canvas")
        apple = next(w for w in value["words"] if w["name"] == "apple")
        expect(facts).to_contain_text(f"{100 * apple['moved']:.1f} % of its map")
        page.keyboard.press("End")
        expect(page.locator(".comparison .nothing")).to_contain_text("only before")
        expect(page.locator(".side.a canvas")).to_be_visible()
        expect(page.locator(".side.b canvas")).to_be_hidden()
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
