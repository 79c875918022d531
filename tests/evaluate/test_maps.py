"""The whole evaluation on a small untrained pipeline, interrupted and taken up again."""

import contextlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scribbles import small_pipeline

from scribblediffusion.analysis.change import explain_change
from scribblediffusion.attention.trace import resize
from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate import account, choosing, findings, maps, tables, truth
from scribblediffusion.evaluate.causal import Outcome
from scribblediffusion.evaluate.edits import Edit
from scribblediffusion.evaluate.findings import Evidence, examples, nearest
from scribblediffusion.evaluate.intervals import share_interval
from scribblediffusion.evaluate.maps import edits_of, moments, run, words_in
from scribblediffusion.evaluate.plots import OPTIONAL
from scribblediffusion.evaluate.records import Lines
from scribblediffusion.evaluate.truth import scenes_of_several
from scribblediffusion.pipeline import ScribblePipeline

PAGE = Path(__file__).parents[2] / "docs" / "what-maps-can-tell.md"


class Bar:
    """Stops the work after so many records."""

    def __init__(self, most):
        self.most = most

    def add_task(self, *args, **kwargs):
        return 0

    def update(self, *args, **kwargs):
        self.most -= 1
        if self.most == 0:
            raise KeyboardInterrupt


def bar(most=10_000):
    return lambda: contextlib.nullcontext(Bar(most))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An evaluation of four scenes that was interrupted twice, and one that was not."""
    patch = pytest.MonkeyPatch()
    pipe = small_pipeline()
    patch.setattr(ScribblePipeline, "from_pretrained", lambda model: pipe)
    patch.setattr(truth, "REGIONS_OF_A_LEVEL", {8: 1})
    patch.setattr(truth, "OTHERS", 1)
    torn, whole = (tmp_path_factory.mktemp(name) for name in ("torn", "whole"))
    for most in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(torn, scenes=4, steps=2, progress=bar(most))
        with (torn / maps.LOCALISATION).open("a") as file:
            file.write('{"scene": 99, "cut o')
    run(torn, scenes=4, steps=2, progress=bar())
    run(whole, scenes=4, steps=2, progress=bar())
    yield torn, whole
    patch.undo()


@pytest.mark.long
@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_to_the_same_records(done):
    torn, whole = done
    for name in (maps.LOCALISATION, maps.EFFECTS, maps.MOMENTS_FILE):
        assert (torn / name).read_text() == (whole / name).read_text()
    assert "99" not in Lines(torn / maps.LOCALISATION).found
    with pytest.raises(SettingError, match="another folder"):
        run(torn, scenes=4, steps=3, progress=bar())


@pytest.mark.long
@pytest.mark.slow
def test_records_of_other_questions_are_not_gone_on_with(done, tmp_path):
    _, whole = done
    about = json.loads((whole / maps.SETTINGS).read_text())
    assert about.pop("questions") == maps.QUESTIONS
    (tmp_path / maps.SETTINGS).write_text(json.dumps(about))
    with pytest.raises(SettingError, match="questions None, now"):
        run(tmp_path, scenes=4, steps=2, progress=bar())


@pytest.mark.parametrize("steps", [2, 3, 4, 20, 1000])
def test_words_are_removed_at_steps_that_the_run_has(steps):
    at = moments(steps)
    assert at[0] == 0
    assert at[-1] < steps
    assert at == sorted(set(at))


def test_the_page_asks_for_every_part_once():
    asked = re.findall("<!-- measured: ([^ ]+) -->", PAGE.read_text())
    assert sorted(asked) == sorted(tables.BLOCKS)


@pytest.mark.long
@pytest.mark.slow
def test_tables_plots_and_page(done, tmp_path):
    folder, _ = done
    page = tmp_path / "page.md"
    page.write_text("# x\n<!-- measured: causal -->\nold\n<!-- end -->\nrest\n")
    evidence = Evidence.read(folder, 4)
    parts = account.write(evidence, page)
    text = page.read_text()
    assert "old" not in text
    assert parts["causal"] in text
    assert text.endswith("rest\n")
    found = json.loads((folder / "maps.json").read_text())
    noun = found["localisation"]["all"]["noun"]
    own = noun["own"][2]
    assert 0 <= own["low"] <= own["value"] <= own["high"] <= 1
    assert noun["chance"][2] == 0.5
    assert "nouns" in (folder / "maps.md").read_text()
    assert json.loads((tmp_path / "images" / "maps" / "maps.json").read_text()) == found
    drawn = ("noise", "layers", "heads")
    for name in ("localisation", "time", *drawn, *(f"{name}-regions" for name in drawn)):
        assert (folder / f"{name}.png").stat().st_size > 5000
        assert (tmp_path / "images" / "maps" / f"{name}.png").is_file()
    page.write_text("<!-- measured: nothing -->\n<!-- end -->\n")
    with pytest.raises(SettingError, match="nothing"):
        account.write(evidence, page)


@pytest.mark.long
@pytest.mark.slow
def test_the_page_shows_every_picture_that_is_written_once_and_no_other(done, tmp_path):
    folder, _ = done
    page, pictures = tmp_path / PAGE.name, tmp_path / "images" / "maps"
    page.write_text(PAGE.read_text())
    pictures.mkdir(parents=True)
    for name in OPTIONAL:  # of an earlier evaluation
        (pictures / f"{name}.png").touch()
    account.write(Evidence.read(folder, 4), page)
    shown = re.findall(r"\]\(images/maps/([^)]+)\)", page.read_text())
    assert sorted(shown) == sorted(path.name for path in pictures.glob("*.png"))
    assert all(path.stat().st_size for path in pictures.glob("*.png"))
    assert "Not measured yet" not in page.read_text()


def test_the_edits_of_a_scene():
    pipe = small_pipeline()
    one = scenes_of_several(1)[0]
    words = words_in(pipe, one.caption)
    listed = edits_of(one, words, 0)
    again = edits_of(one, words, 0)
    assert [(k, e.how, e.prompt) for k, _, e in listed] == [
        (k, e.how, e.prompt) for k, _, e in again
    ]
    for kind, _, edit in listed:
        assert edit.keys
        if edit.kind == "removed":
            assert edit.prompt != one.caption
            assert len(edit.prompt) < len(one.caption)
        if edit.kind == "knocked out":
            assert edit.prompt == one.caption
            assert edit.knocked == edit.keys
        assert (kind == "stroke") == (edit.kind == "erased")


def record(scene, edits):
    return {"scene": scene, "caption": "c", "noise": [1.0], "words": [["a", 0.1]], "edits": edits}


def edit(subject, attention, delta, effect=0.5, share=0.8, kind="noun"):
    return {
        "kind": kind, "subject": subject, "edit": "removed", "how": "removed",
        "attention": attention, "attention_by_step": [attention], "effect": effect, "delta": delta,
        "picture": [share, 0.2, 0.3, 0.9], "latents": [share, 0.2, 0.3, 0.9],
    }  # fmt: skip


def test_examples_break_the_rule_and_no_word_twice(tmp_path):
    effects = [
        record(0, [edit("loud", 0.9, 0.1, effect=0.001), edit("even", 0.4, 5.0),
                   edit("quiet", 0.1, 9.0)]),
        record(1, [edit("loud", 0.8, 0.2, effect=0.0), edit("odd", 0.5, 4.0)]),
    ]  # fmt: skip
    evidence = Evidence({"steps": 1}, 4, [], effects, [], tmp_path)
    found = examples(evidence, 2)
    assert found["attention without effect"] == [(0, 0)]
    assert found["effect without attention"] == [(0, 2), (0, 1)]
    assert nearest(evidence)[0] == (0, 0)


def test_a_word_with_an_effect_is_no_example_of_none(tmp_path):
    """Where every removal has an effect, nothing is called without one; the nearest is named."""
    effects = [record(0, [edit("loud", 0.9, 0.1, effect=0.03), edit("quiet", 0.1, 9.0)])]
    evidence = Evidence({"steps": 1}, 4, [], effects, [], tmp_path)
    assert examples(evidence)["attention without effect"] == []
    text = tables._ignored(evidence)
    assert "No word that was removed had more attention" in text
    assert "*loud*" in text


def test_explained_is_of_edits_that_had_an_effect(tmp_path):
    effects = [
        record(0, [edit("a", 0.1, 1.0, share=0.8), edit("b", 0.1, 0.0, effect=0.0, share=0.1)]),
        record(1, [edit("c", 0.1, 1.0, share=0.6)]),
    ]
    evidence = Evidence({"steps": 1}, 4, [], effects, [], tmp_path)
    found = evidence.explained("noun", "removed")
    assert found["share"] is not None
    assert found["share"].value == pytest.approx(0.7)
    assert found["share"].count == 2
    assert findings.sentence(effects[0]["edits"][0]) == (
        "the map of *a* explains 80 % of what changed (chance 20 %, control 30 %)"
    )


def test_over_time_is_relative_to_the_whole_removal_and_to_the_attention_still_to_come(tmp_path):
    moments = [
        {"scene": i, "kind": "noun", "subject": "cat",
         "moments": [[0, True, w, 0], [1, True, w / 2, 0], [1, False, w / 4, 0]]}
        for i, w in enumerate((2.0, 6.0))
    ]  # fmt: skip
    dog = edit("dog", 0.1, 1.0) | {"attention_by_step": [0.0, 1.0]}
    effects = [
        record(i, [dog, edit("cat", 0.1, 1.0) | {"attention_by_step": by_step}])
        | {"noise": [0.9, 0.4]}
        for i, by_step in enumerate(([0.3, 0.1], [0.1, 0.3]))
    ]
    evidence = Evidence({"steps": 2}, 4, [], effects, moments, tmp_path)
    assert [(n, i.value) for n, i in evidence.over_time("noun", True)] == [(0.9, 1), (0.4, 0.5)]
    assert [(n, i.value) for n, i in evidence.over_time("noun", False)] == [(0.4, 0.25)]
    to_come = evidence.attention_to_come("noun")
    assert [n for n, _ in to_come] == [0.9, 0.4]
    # A quarter of the first word's and three of the second's: weighed by their effects, 2 and 6.
    assert [i.value for _, i in to_come] == pytest.approx([1, (2 * 0.25 + 6 * 0.75) / 8])
    assert [i.count for _, i in to_come] == [2, 2]


def scene_record(i, *values):
    """Every measure of nouns and colours under each view; other tokens' maps are not there."""
    kinds = {
        kind: {
            "own": {"count": 1, "sums": [[v, v, v] for v in values]},
            "chance": {"count": 1, "sums": [0.1, 0.1, 0.5]},
        }
        for kind in ("noun", "colour")
    }
    views = ["all", "step 0", "step 1", "layer up", "head up 0", "head up 1"]
    names = ["all layers, all steps", "up blocks, all steps", "up_blocks.1.attn2, all steps"]
    views += [f"choice {name}" for name in names]
    return {"scene": i, "views": views, "noise": [1.0, 0.5], "kinds": kinds}


def test_the_default_is_chosen_on_one_half_and_reported_on_the_other(tmp_path):
    """The best of the choosing half is worse on the other, and the report says so."""
    chooses = scene_record(0, 0.4, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.6, 0.9)
    reports = scene_record(1, 0.4, 0.7, 0.1, 0.3, 0.6, 0.2, 0.4, 0.3, 0.8)
    evidence = Evidence({}, 6, [chooses, reports] * 3, [], [], tmp_path)
    found = choosing.choice(evidence)
    assert found is not None
    assert (found.best, found.default) == ("up blocks, all steps",) * 2
    assert found.sharpest == "up_blocks.1.attn2, all steps"  # a single layer is no default
    assert found.margin == pytest.approx(0.2)
    assert found.reported[found.best]["noun"].own[1].value == pytest.approx(0.3)
    assert found.reported[choosing.DEFAULT]["noun"].own[1].value == pytest.approx(0.4)
    assert "is to become up blocks, all steps" in tables._choice(evidence)
    look = choosing.look(evidence)
    assert look is not None
    assert (look.noise, look.layer, look.head) == (0.5, "up", ("up", 1))
    assert look.found["head"].value == pytest.approx(0.2)


def test_a_small_gain_does_not_change_the_default(tmp_path):
    rows = [scene_record(i, *[0.4] * 6, 0.4, 0.44, 0.1) for i in range(4)]
    found = choosing.choice(Evidence({}, 4, rows, [], [], tmp_path))
    assert found is not None
    assert (found.best, found.default) == ("up blocks, all steps", choosing.DEFAULT)


def test_pointing_that_is_always_right_or_wrong_has_an_interval_of_some_width(tmp_path):
    rows = [scene_record(i, *[1.0] * 9) for i in range(4)]
    evidence = Evidence({}, 4, rows, [], [], tmp_path)
    pointing, iou, _ = evidence.located("noun").own
    assert pointing == share_interval(np.ones(4), np.ones(4))
    assert pointing.low < 0.5
    assert (iou.low, iou.high) == (1, 1)
    look = choosing.look(evidence)
    assert look is not None
    assert look.found["head"].low < 1


def test_the_controls_of_words_and_strokes_have_a_name_for_both(tmp_path):
    strokes = [edit("the stroke", 0.1, 1.0, kind="stroke") | {"edit": "erased", "how": "erased"}]
    effects = [record(0, [edit("cat", 0.1, 1.0), *strokes])]
    table = tables._causal(Evidence({}, 4, [], effects, [], tmp_path))
    assert "strokes erased" in table
    assert "| other maps of its kind |" in table
    assert "other words" not in table


def outcome(how, change, keys=(2,)):
    """What an edit did, with a map of its own place."""
    heat = np.zeros((32, 32))
    heat[:4] = 1
    about = Edit("cat", how, keys, "a cat", None)
    flat = resize(change, 32, 32)
    seen, deep = (explain_change(heat, one, name="cat", edit=how) for one in (change, flat))
    return Outcome(about, np.zeros((256, 256, 3), np.uint8), change, seen, deep, heat)


def test_a_removal_without_effect_is_nothing_to_be_like(tmp_path):
    """Nothing changed, too few pixels did, enough did: only the last says what removing changes."""
    large, small, none = (np.zeros((256, 256)) for _ in range(3))
    large[:64], small[:1, :8] = 10, 10
    one = scenes_of_several(1)[0]
    steps = (SimpleNamespace(index=0),)
    trace = SimpleNamespace(steps=steps, token=lambda key, view, step: np.ones((32, 32)))
    knocked, records = outcome("knocked out", large), []
    for change in (none, small, large):
        done: Any = SimpleNamespace(trace=trace, outcomes=(outcome("removed", change), knocked))
        records.append(maps._record(one, "noun", 0, knocked, done))
    assert ["as removed" in r for r in records] == [False, False, True]
    assert records[2]["as removed"][0] == pytest.approx(0.9, abs=0.05)


def test_where_there_is_no_share_chance_and_control_are_left_out_as_well(tmp_path):
    nothing = edit("a", 0.1, 1.0) | {"latents": [None, 0.0, None, None], "as removed": [None, 0.0]}
    some = edit("b", 0.1, 1.0) | {"as removed": [0.8, 0.2]}
    effects = [record(0, [one | {"edit": "knocked out"} for one in (nothing, some)])]
    evidence = Evidence({}, 4, [], effects, [], tmp_path)
    found = evidence.explained("noun", "knocked out", "latents")
    assert {name: i.count for name, i in found.items() if i} == dict.fromkeys(found, 1)
    assert found["chance"] is not None
    assert found["chance"].value == 0.2
    assert "80 % [80, 80]" in tables._alike(evidence)
    assert "(chance 20 %)" in tables._alike(evidence)
