import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scribbles import small_pipeline

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.cli.rerun import compared
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import seeded
from scribblediffusion.sketch import Sketch


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def drawing(tmp_path):
    image = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(image).ellipse((60, 60, 190, 150), outline=0, width=5)
    image.save(tmp_path / "sketch.png")
    mask = Image.new("L", (300, 200), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 140, 200), fill=255)
    mask.save(tmp_path / "mask.png")
    return tmp_path / "sketch.png"


def draw(scribble, model, drawing, *options):
    done = scribble("draw", drawing, "a red apple", "--seed", 5, "--steps", 2, "--model", model,
                    "--output", "out.png", *options)  # fmt: skip
    assert done.status == 0, done


@pytest.mark.parametrize(
    "options",
    [(), ("--mask", "mask.png"), ("--count", "3"), ("--guidance", "1", "--sketch-guidance", "1")],
)
def test_a_drawn_run_is_repeated_bit_for_bit(scribble, gallery, model, drawing, options):
    draw(scribble, model, drawing, *options)
    (run,) = gallery
    done = scribble("gallery", "rerun", run.id)
    assert done.status == 0, done
    pictures = "3 pictures" if "--count" in options else "1 picture"
    assert done.last == f"the same bits as run {run.id}: {pictures}"
    new = gallery.list().runs[0]
    assert new.id != run.id
    assert new.record["settings"] == run.record["settings"] | {"rerun_of": run.id}
    assert (new.folder / "sketch.png").read_bytes() == (run.folder / "sketch.png").read_bytes()
    again = scribble("gallery", "rerun", new.id)
    assert f"the same bits as run {new.id}" in again.last


def test_where_the_picture_cannot_be_written_the_drawn_run_is_kept(
    scribble, gallery, model, drawing, monkeypatch
):
    def fails(*_):
        raise OSError(28, "No space left on device", "out.png")

    monkeypatch.setattr("scribblediffusion.cli.draw.write_picture", fails)
    done = scribble("draw", drawing, "a cat", "--steps", 1, "--model", model, "--output", "out.png")
    assert done.status == 1
    assert [run.prompt for run in gallery] == ["a cat"]


def test_no_sketch_and_a_model_named_from_another_folder(
    scribble, gallery, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(model.parent)
    draw(scribble, "small", "-", "--output", tmp_path / "out.png")
    monkeypatch.chdir(tmp_path)
    (run,) = gallery
    assert "the same bits" in scribble("gallery", "rerun", run.id).last


def test_a_batch_of_one_generator_and_several_prompts(scribble, gallery, model, drawing):
    pipe = ScribblePipeline.from_pretrained(model, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    with RealAttentionExtractor(pipe) as extractor:
        pipe(["a red apple", "a kite"], Sketch.from_image(drawing), num_inference_steps=2,
             generator=seeded(9)[0])  # fmt: skip
    run = gallery.add(extractor.trace, sketch=Sketch.from_image(drawing))
    done = scribble("gallery", "rerun", run.id, "--model", model)
    assert done.last == f"the same bits as run {run.id}: 2 pictures"


def other_drawing(tmp_path):
    image = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(image).line((20, 30, 230, 200), fill=0, width=6)
    image.save(tmp_path / "other.png")
    return tmp_path / "other.png"


@pytest.mark.parametrize(
    ("sketches", "masks"),
    [
        (["sketch.png"] * 2, None),
        (["sketch.png", "other.png"], None),
        ([None, "other.png"], None),
        (["sketch.png", None], None),
        (["sketch.png", "other.png"], ["mask.png", None]),
        (["sketch.png", "sketch.png"], [None, "mask.png"]),
        (["sketch.png"], "mask.png"),
    ],
)
@pytest.mark.long
def test_a_trace_alone_holds_all_that_its_pictures_were_made_of(
    scribble, gallery, model, drawing, tmp_path, monkeypatch, sketches, masks
):
    monkeypatch.chdir(tmp_path)
    other_drawing(tmp_path)
    pipe = ScribblePipeline.from_pretrained(model, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    with RealAttentionExtractor(pipe) as extractor:
        made = pipe(["a red apple", "a kite"][: len(sketches)], sketches, sketch_mask=masks,
                    num_inference_steps=2, generator=seeded(9)[0])  # fmt: skip
    run = gallery.add(extractor.trace)
    again = run.sketches()
    for number, sketch in enumerate(made.sketches):
        kept = again[number if len(again) > 1 else 0]
        assert (kept is None) == (sketch is None)
        if sketch is not None:
            assert np.array_equal(kept.ink, sketch.ink)
            assert np.array_equal(kept.active, sketch.active)
    done = scribble("gallery", "rerun", run.id, "--model", model)
    assert done.last.startswith(f"the same bits as run {run.id}"), done
    new = gallery.list().runs[0]
    assert {n for n in new.files if "sketch" in n or "mask" in n} == {
        n for n in run.files if "sketch" in n or "mask" in n
    }
    assert gallery.verify() == ()


def test_a_record_of_another_shape_is_refused_in_a_line(refused, gallery, model, run):
    record = json.loads((run.folder / "run.json").read_text())
    for strange in (
        {"settings": [], "seed": None},
        {"settings": None, "seed": "x"},
        {"settings": {"seeds": 3}, "versions": [], "steps": {}, "seed": None},
    ):
        (run.folder / "run.json").write_text(json.dumps(record | strange))
        assert "without a seed" in refused("gallery", "rerun", run.id)


def test_a_stopped_run_is_repeated_as_far_as_it_went(scribble, gallery, model, drawing):
    pipe = ScribblePipeline.from_pretrained(model, device="cpu")
    with RealAttentionExtractor(pipe) as extractor:
        for step in pipe.denoise("a kite", drawing, num_inference_steps=4, generator=seeded(9)):
            if step.index == 1:
                pipe.finish(step.denoised, complete=False)
                break
    run = gallery.add(extractor.trace, sketch=Sketch.from_image(drawing))
    done = scribble("gallery", "rerun", run.id, "--model", model)
    assert f"the same bits as run {run.id}" in done.last
    new = gallery.list().runs[0]
    assert len(new.open().steps) == 2
    assert not new.open().complete


def test_another_picture_is_told_and_kept(scribble, gallery, model, drawing):
    draw(scribble, model, drawing)
    (run,) = gallery
    other = gallery.add(run.open(), sketch=run.sketch(), settings={"seed": 6, "model": str(model)})
    done = scribble("gallery", "rerun", other.id)
    assert done.status == 1
    assert "not the same: " in done.out
    assert "the same versions" in done.last
    assert len(gallery) == 3


def test_a_run_without_a_seed_cannot_be_repeated(refused, gallery, small_trace):
    import dataclasses

    run = gallery.add(dataclasses.replace(small_trace, settings={}))
    assert "without a seed" in refused("gallery", "rerun", run.id)


def test_a_damaged_picture_is_named_before_anything_is_drawn(refused, gallery, run):
    (run.folder / "image.png").write_bytes(b"no picture")
    assert "image.png is damaged" in refused("gallery", "rerun", run.id, status=1)
    assert len(gallery) == 1


def test_a_picture_that_differs_is_measured():
    before = (np.zeros((4, 4, 3), np.uint8),)
    after = (before[0].copy(),)
    assert compared(before, after) == ""
    after[0][0, 0, 1] = 9
    assert compared(before, after) == "not the same: 6.2% of the pixels differ, by at most 9 of 255"
    assert "4×4 before, 8×4 now" in compared(before, (np.zeros((4, 8, 3), np.uint8),))
    assert "no picture now" in compared(before, ())
