"""The whole evaluation on a small untrained pipeline, interrupted and taken up again."""

import contextlib
import json

import pytest
from scribbles import small_pipeline

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate import account, choosing, maps, truth
from scribblediffusion.evaluate.findings import Evidence, examples, nearest
from scribblediffusion.evaluate.maps import edits_of, run, words_in
from scribblediffusion.evaluate.records import Lines
from scribblediffusion.evaluate.truth import scenes_of_several
from scribblediffusion.pipeline import ScribblePipeline


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
    patch.setattr(maps, "MOMENTS", (0.0, 0.5))
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


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_to_the_same_records(done):
    torn, whole = done
    for name in (maps.LOCALISATION, maps.EFFECTS, maps.MOMENTS_FILE):
        assert (torn / name).read_text() == (whole / name).read_text()
    assert "99" not in Lines(torn / maps.LOCALISATION).found
    with pytest.raises(SettingError, match="another folder"):
        run(torn, scenes=4, steps=3, progress=bar())


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
    text = account._ignored(evidence)
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
    assert account.sentence(effects[0]["edits"][0]) == (
        "the map of *a* explains 80 % of what changed (chance 20 %, control 30 %)"
    )


def test_over_time_is_relative_to_the_whole_removal_and_to_the_attention_still_to_come(tmp_path):
    moments = [
        {"scene": i, "kind": "noun", "subject": "cat",
         "moments": [[0, True, w, 0], [1, True, w / 2, 0], [1, False, w / 4, 0]]}
        for i, w in enumerate((2.0, 4.0))
    ]  # fmt: skip
    cat = edit("cat", 0.1, 1.0) | {"attention_by_step": [0.3, 0.1]}
    dog = edit("dog", 0.1, 1.0) | {"attention_by_step": [0.0, 1.0]}
    effects = [record(i, [dog, cat]) | {"noise": [0.9, 0.4]} for i in range(2)]
    evidence = Evidence({"steps": 2}, 4, [], effects, moments, tmp_path)
    assert [(n, i.value) for n, i in evidence.over_time("noun", True)] == [(0.9, 1), (0.4, 0.5)]
    assert [(n, i.value) for n, i in evidence.over_time("noun", False)] == [(0.4, 0.25)]
    to_come = evidence.attention_to_come("noun")
    assert [n for n, _ in to_come] == [0.9, 0.4]
    assert [i.value for _, i in to_come] == pytest.approx([1, 0.25])
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
    assert "is to become up blocks, all steps" in account._choice(evidence)
    look = choosing.look(evidence)
    assert look is not None
    assert (look.noise, look.layer, look.head) == (0.5, "up", ("up", 1))
    assert look.found["head"].value == pytest.approx(0.2)


def test_a_small_gain_does_not_change_the_default(tmp_path):
    rows = [scene_record(i, *[0.4] * 6, 0.4, 0.44, 0.1) for i in range(4)]
    found = choosing.choice(Evidence({}, 4, rows, [], [], tmp_path))
    assert found is not None
    assert (found.best, found.default) == ("up blocks, all steps", choosing.DEFAULT)
