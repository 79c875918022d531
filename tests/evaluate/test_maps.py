"""The whole evaluation on a small untrained pipeline, interrupted and taken up again."""

import contextlib
import json

import pytest
from scribbles import small_pipeline

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate import account, maps, truth
from scribblediffusion.evaluate.findings import Evidence, examples
from scribblediffusion.evaluate.maps import Lines, edits_of, run, words_in
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
    for name in ("localisation", "noise", "layers", "heads", "time"):
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
    return {"scene": scene, "caption": "c", "noise": [1.0], "words": {"a": 0.1}, "edits": edits}


def edit(subject, attention, delta, effect=0.5, share=0.8, kind="noun"):
    return {
        "kind": kind, "subject": subject, "edit": "removed", "how": "removed",
        "attention": attention, "attention_by_step": [attention], "effect": effect, "delta": delta,
        "picture": [share, 0.2, 0.3, 0.9], "latents": [share, 0.2, 0.3, 0.9],
    }  # fmt: skip


def test_examples_are_found_by_search_and_no_word_twice(tmp_path):
    effects = [
        record(0, [edit("loud", 0.9, 0.1), edit("even", 0.4, 4.0), edit("quiet", 0.1, 9.0)]),
        record(1, [edit("loud", 0.8, 0.2), edit("odd", 0.5, 5.0)]),
    ]
    evidence = Evidence({"steps": 1}, 4, [], effects, [], tmp_path)
    found = examples(evidence, 2)
    assert found["attention without effect"][0] == (0, 0)
    assert found["effect without attention"][0] == (0, 2)
    assert (1, 0) not in found["attention without effect"]


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


def test_over_time_is_relative_to_the_whole_removal(tmp_path):
    moments = [
        {"scene": i, "kind": "noun", "moments": [[0, True, w, 0], [1, True, w / 2, 0],
         [1, False, w / 4, 0]]}
        for i, w in enumerate((2.0, 4.0))
    ]  # fmt: skip
    evidence = Evidence({"steps": 2}, 4, [], [], moments, tmp_path)
    assert [(n, i.value) for n, i in evidence.over_time("noun", True)] == [(1, 1), (0.5, 0.5)]
    assert [(n, i.value) for n, i in evidence.over_time("noun", False)] == [(0.5, 0.25)]


def test_the_default_is_chosen_on_one_half_and_reported_on_the_other(tmp_path):
    """The best of the choosing half is worse on the other, and the report says so."""

    def scene_record(i, all_, good):
        kinds = {
            kind: {
                "own": {"count": 1, "sums": [[v, v, v] for v in (all_, good, 0.0)]},
                "chance": {"count": 1, "sums": [0.1, 0.1, 0.5]},
            }
            for kind in ("noun", "colour")
        }
        return {"scene": i, "views": ["all", "choice x, y", "choice z, w"], "kinds": kinds}

    rows = [scene_record(0, 0.4, 0.9), scene_record(1, 0.4, 0.3)] * 3
    choice = Evidence({}, 6, rows, [], [], tmp_path).choice()
    assert choice is not None
    assert choice.name == "x, y"
    assert choice.chosen["noun"].own[1].value == pytest.approx(0.3)
    assert choice.present["noun"].own[1].value == pytest.approx(0.4)
    assert choice.gain is not None
    assert choice.gain.value == pytest.approx(-0.1)
