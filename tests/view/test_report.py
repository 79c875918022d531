"""The report: every map in one file, and nothing from outside."""

import dataclasses
import json
import re

import numpy as np
import pytest
from painted import make_trace
from PIL import Image

from scribblediffusion.analysis.summary import summarise
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.view.report import report_html, save_report


@pytest.fixture(scope="module")
def summary(trace):
    return summarise(trace)


def embedded(page):
    return json.loads(re.search(r"const data = (.*);\n", page)[1])


def test_the_report_holds_every_map_and_asks_the_network_for_nothing(summary, tmp_path):
    import base64

    path = save_report(summary, tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    data = embedded(page)
    assert data["labels"][5] == "Noise remaining: 75%"
    titles = [s["title"] for s in data["subjects"]]
    assert titles[data["chosen"]] == f"“{summary.leading_word.name}”"
    apple = data["subjects"][titles.index("“apple”")]
    levels = np.frombuffer(base64.b64decode(apple["levels"]), np.uint8).reshape(20, 32, 32)
    heat = summary.maps.heat(summary.words[2])
    assert np.corrcoef(levels.ravel(), heat.ravel())[0, 1] > 0.999
    assert len([p for p in data["pictures"] if p]) == 20
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert "<table>" in page


def test_a_hostile_prompt_stays_text_in_the_report():
    trace = make_trace(steps=2, grid=8)
    evil = '</script><img src=x onerror="alert(1)">${ground} $title "><b>'
    prompts = (dataclasses.replace(trace.prompts[0], text=evil),)
    page = report_html(summarise(dataclasses.replace(trace, prompts=prompts)))
    assert "<img src=x" not in page
    assert page.count("</script>") == 1
    assert "${ground} $title" in page
    embedded(page)


def prompted(text):
    trace = make_trace(steps=1, grid=8)
    prompts = (dataclasses.replace(trace.prompts[0], text=text),)
    return report_html(summarise(dataclasses.replace(trace, prompts=prompts)))


def test_signs_that_turn_the_line_round_are_left_out_and_letters_are_not():
    page = prompted("a \u202ered\u2066  kite\x00 苹果 تفاحة")
    assert "<h1>“a red kite 苹果 تفاحة”</h1>" in page
    assert "<title>a red kite 苹果 تفاحة</title>" in page
    assert "<b>“a red kite 苹果 تفاحة”</b>" in page
    assert not set(page) & set("\u202e\u2066\x00")


def test_a_long_prompt_is_cut_in_the_heading_and_whole_in_a_fold():
    long = "word " * 2000 + "end"
    page = prompted(long)
    heading = re.search(r"<h1>(.*)</h1>", page)[1]
    assert heading.startswith("“word word")
    assert heading.endswith("…”")
    assert len(heading) < 210
    assert page.count(long) == 1
    assert f"<details><summary>the whole prompt, {len(long)} characters</summary>" in page
    assert "<details" not in prompted("a kite")


def test_half_a_character_can_be_written(tmp_path):
    trace = make_trace(steps=1, grid=8)
    prompts = (dataclasses.replace(trace.prompts[0], text="a \ud800 kite"),)
    path = save_report(summarise(dataclasses.replace(trace, prompts=prompts)), tmp_path / "a.html")
    assert "<h1>“a kite”</h1>" in path.read_text(encoding="utf-8")


def test_the_report_shows_the_drawing_that_was_given(trace):
    import base64
    import io

    ink = np.zeros((64, 64), np.float32)
    ink[20:30] = 1
    for run in (trace, dataclasses.replace(trace, sketch=None)):
        data = embedded(report_html(summarise(run, ink)))
        with Image.open(io.BytesIO(base64.b64decode(data["sketch"].partition(",")[2]))) as shown:
            grey = np.asarray(shown.convert("L"), int)
        assert np.abs(grey - 255 * (1 - ink)).mean() < 4
    without = dataclasses.replace(trace, sketch=None)
    assert embedded(report_html(summarise(without)))["sketch"] is None


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, [256, 128]),
        ({"picture_size": (64, 128)}, [256, 128]),
        ({"picture_size": (400, 800)}, [800, 400]),
        ({"pictures": (np.zeros((300, 600, 3), np.uint8),)}, [600, 300]),
    ],
)
def test_the_canvas_lies_as_the_maps_lie(fields, size):
    half = np.full((2, 1, 1, 2, 4, 8), 0.5)
    trace = AttentionTrace.from_arrays({"l": half}, tokens=["cat", "[SEP]"], **fields)
    data = embedded(report_html(summarise(trace)))
    assert data["grid"] == [8, 4]
    assert data["size"] == size


def test_a_report_without_pictures_or_words_is_still_one(bare_trace):
    assert embedded(report_html(summarise(bare_trace)))["pictures"] == [None, None]
    half = np.full((2, 1, 1, 2, 4, 4), 0.5)
    wordless = AttentionTrace.from_arrays({"l": half}, tokens=["[CLS]", "[SEP]"])
    page = report_html(summarise(wordless))
    assert embedded(page)["subjects"] == []
    assert "<h1>no prompt</h1>" in page
