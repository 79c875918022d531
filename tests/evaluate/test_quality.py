import json
import re
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from scribbles import small_pipeline

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate import dials, quality, report
from scribblediffusion.evaluate.quality import batches, draw, figures, measure
from scribblediffusion.train.scenes import scene

ONE_STEP = {"num_inference_steps": 1}


class Bar:
    def __init__(self):
        self.totals, self.advanced = [], []

    @property
    def done(self):
        return sum(self.advanced)

    def add_task(self, *_, total, **__):
        self.totals.append(total)
        self.advanced.append(0)
        return len(self.totals) - 1

    def update(self, task, advance=0, **__):
        self.advanced[task] += advance


@pytest.fixture(scope="module")
def pipe():
    return small_pipeline()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def bar():
    return Bar()


def progress_of(bar):
    @contextmanager
    def progress():
        yield bar

    return progress


def make(number):
    return scene(number, split="test", seed=quality.SEED)


def test_batches_hold_every_number_once_and_never_one_alone():
    for count in range(2, 30):
        parts = batches(count, 4)
        assert [i for part in parts for i in part] == list(range(count))
        assert min(map(len, parts)) >= 2


def test_an_interrupted_evaluation_goes_on_with_the_same_result(pipe, tmp_path):
    whole = measure(pipe, make, 5, tmp_path / "whole", "test", batch=2, **ONE_STEP)
    seen = []

    def interrupt(more):
        seen.append(more)
        if sum(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(pipe, make, 5, tmp_path / "part", "test", batch=2, on_scenes=interrupt, **ONE_STEP)
    drawn = []
    unet = pipe.unet.register_forward_pre_hook(lambda _, args: drawn.append(len(args[0])))
    try:
        again = measure(pipe, make, 5, tmp_path / "part", "test", batch=2, **ONE_STEP)
    finally:
        unet.remove()
    assert again == whole
    assert len(drawn) == 1  # the last batch alone
    names = [p.name for p in sorted((tmp_path / "part" / "pictures" / "test").iterdir())]
    assert names == [f"{i:04d}.png" for i in range(5)]


def test_a_picture_that_a_sheet_needs_is_drawn_again_and_its_scores_stay(pipe, tmp_path):
    records = measure(pipe, make, 4, tmp_path, "test", batch=2, **ONE_STEP)
    files = [quality.picture_file(tmp_path, "test", number) for number in (0, 3)]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert measure(pipe, make, 4, tmp_path, "test", batch=2, shown=2, **ONE_STEP) == records
    assert files[0].read_bytes() == before[0]
    assert not files[1].exists()
    assert len((tmp_path / "test.jsonl").read_text().splitlines()) == 4


def test_the_floor_is_the_picture_of_another_scene(pipe, tmp_path):
    records = measure(pipe, make, 2, tmp_path, "test", **ONE_STEP)
    pictures = draw(pipe, [make(0), make(1)], quality.SEED, **ONE_STEP)
    kept = np.asarray(Image.open(quality.picture_file(tmp_path, "test", 1)))
    assert np.array_equal(kept, pictures[1])
    other = quality.score(pictures[1], make(0))
    assert records[0]["floor"]["f1"] == pytest.approx(other.f1)
    assert records[0]["caption"] == make(0).caption
    found = figures(records)
    assert found["model"]["scenes"] == 2
    assert set(found) == {"model", "ceiling", "floor"}


@pytest.mark.long
def test_the_report_is_written_and_says_what_misses_its_aim(model, bar, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "STEPS", 1)
    said = []
    given = {"scenes": 3, "model": model, "progress": progress_of(bar), "say": said.append}
    about = report.run(tmp_path / "out", sets=("test", "wobbly"), **given)
    assert bar.advanced == bar.totals
    found = about["sets"]["test"]["model"]
    assert found["scenes"] == 3
    for label in ("one", "two", "three"):
        assert 3 <= found[f"scenes_{label}"] <= 4
        assert found[f"named_{label}"] >= found[f"scenes_{label}"]
        low, high = found[f"colour_{label}_interval"]
        assert low <= found[f"colour_{label}"] <= high
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "### wobbly: drawn with a shaky hand\n\n![Samples](wobbly.png)" in text
    assert f"each of two ({found['named_two']} objects in {found['scenes_two']} scenes)" in text
    assert "ink F1 within 3 px (3 scenes)" in text
    assert "0.95 (−0." in text
    assert "| each of two | " in text
    assert set(about["places"]) == {"placed", "unplaced"}
    assert text in said
    for name in ("test", "wobbly"):
        with Image.open(tmp_path / "out" / f"{name}.png") as page:
            assert page.width > 1000
    monkeypatch.setattr(quality, "draw", None)  # what is there is not drawn again
    again = report.run(tmp_path / "out", sets=("test", "wobbly"), **given)
    assert again["sets"] == about["sets"]
    monkeypatch.setattr(report, "GUIDANCE", 9.0)
    with pytest.raises(SettingError, match="guidance_scale"):
        report.run(tmp_path / "out", sets=("test",), **given)
    with pytest.raises(SettingError, match="choose from"):
        report.run(tmp_path / "out", sets=("nothing",), **given)


@pytest.mark.parametrize("name", ["test", "pairs"])
def test_every_number_of_objects_has_scenes_with_a_named_colour(name):
    plan = report._further(name, 6)
    mix = [report.scene_of(name)(i) for i in range(6)]
    for count in (1, 2, 3):
        there = [one for one in mix if len(one.objects) == count and quality.names_a_colour(one)]
        make = report.scene_of(name, count)
        more = [make(i) for i in quality.with_colours(make, plan.get(count, 0))]
        assert all(len(one.objects) == count and quality.names_a_colour(one) for one in more)
        assert 6 <= len(there) + len(more) <= 7
        captions = {one.caption for one in (*there, *more)}
        assert len(captions) == len(there) + len(more)


def test_further_scenes_count_for_colour_alone():
    one = quality.Score(f1=0.5, precision=0.5, recall=0.5, named=1, right=1, swapped=0, count=1)
    two = quality.Score(f1=0.1, precision=0.1, recall=0.1, named=2, right=1, swapped=1, count=2)
    found = quality.summary([one, one], [two])
    assert found["fidelity"] == 0.5
    assert found["fidelity_interval"] == [0.5, 0.5]
    assert (found["colour_one"], found["colour_two"], found["swapped_two"]) == (1.0, 0.5, 0.5)
    assert (found["scenes_one"], found["scenes_two"], found["scenes_three"]) == (2, 1, 0)
    assert "colour_three" not in found


def test_colours_are_told_apart_by_whether_the_prompt_says_where():
    """Every caption that names two objects' places is found by the way in which they are said."""
    right = {"f1": 1, "precision": 1, "recall": 1, "named": 2, "right": 2, "swapped": 0, "count": 2}
    wrong = right | {"right": 0}
    captions = {"a red dog left of a blue cat": right, "a red top hat and a blue cat": wrong}
    found = quality.by_place([{"caption": c, "model": s} for c, s in captions.items()])
    assert found["placed"]["colour_two"] == 1
    assert found["unplaced"]["colour_two"] == 0
    said = report.places(found)
    assert "| each of two | 1.000 [0.03, 1.00] (of 2) | 0.000 [0.00, 0.97] (of 2) |" in said
    assert "| each of three | – (of 0) | – (of 0) |" in said
    for caption in (make(i).caption for i in range(60)):
        plain = re.search(r"^an? [\w -]+ (and|next to) |, [\w ]+ and ", caption)
        if "from" not in caption and plain:
            assert not quality.says_where(caption), caption


def test_a_sheet_shows_every_caption_whole():
    """Rows are as high as their longest caption needs; nothing is cut."""
    long = next(s for s in (make(i) for i in range(60)) if len(s.caption) > 75)
    short = next(s for s in (make(i) for i in range(60)) if len(s.caption) < 20)
    one, two = ([(s, s.picture)] * 4 for s in (short, long))
    low, high = report.sheet(one), report.sheet(two)
    assert high.width == low.width
    assert high.height > low.height
    assert report.sheet(one + two).height == low.height + high.height - 2 * 48 + 30


@pytest.mark.long
def test_dials_are_tried_on_the_same_scenes_and_ranked(model, bar, tmp_path):
    said = []
    given = {
        "scenes": 2, "text": (1.0, 3.0), "sketch": (1.0,), "steps": 1, "model": model,
        "progress": progress_of(bar), "say": said.append,
    }  # fmt: skip
    rows = dials.run(tmp_path, **given)
    assert bar.done == 4
    assert {(r["text"], r["sketch"], r["calls"]) for r in rows} == {(1, 1, 1), (3, 1, 2)}
    assert rows[0]["score"] >= rows[1]["score"]
    captions = [
        [json.loads(line)["caption"] for line in path.read_text().splitlines()]
        for path in sorted(tmp_path.glob("*.jsonl"))
    ]
    assert captions[0] == captions[1]
    assert len(captions[0]) == 2
    assert "cheapest is text" in said[0]
    assert dials.run(tmp_path, **given) == rows
    with pytest.raises(SettingError, match="guidance_scale"):
        dials.run(tmp_path, **given | {"text": (-1.0,)})
