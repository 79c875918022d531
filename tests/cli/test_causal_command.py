import pytest
from PIL import Image, ImageDraw
from scribbles import small_pipeline

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.pipeline import ScribblePipeline
from scribblediffusion.settings import seeded


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model that needs no time; gives its folder."""
    folder = tmp_path_factory.mktemp("models") / "small"
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def drawn(scribble, tmp_path):
    """A run of two steps in the gallery; gives its id."""
    image = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(image).ellipse((60, 60, 190, 190), outline=0, width=5)
    image.save(tmp_path / "ring.png")
    done = scribble("draw", "ring.png", "a red apple", "--steps", "2", "--seed", "3")
    return next(line.split()[1] for line in done.out.splitlines() if line.startswith("run "))


@pytest.mark.long
@pytest.mark.slow
def test_every_word_and_the_longest_stroke(scribble, drawn, tmp_path):
    done = scribble("explain", drawn, "--causal")
    assert done.status == 0
    rows = [line.split() for line in done.out.splitlines() if line.startswith("  ")]
    assert [row[:2] for row in rows[1:4]] == [
        ["a", "removed"],
        ["red", "removed"],
        ["apple", "removed"],
    ]
    assert "the stroke erased" in done.out
    assert "not the kept picture" not in done.out
    assert done.out.count("of what changed") + done.out.count("hardly any effect") == 4
    with Image.open(done.last) as picture:
        assert picture.width > 800


@pytest.mark.long
@pytest.mark.slow
def test_one_word_one_region_and_what_cannot_be(scribble, refused, drawn, tmp_path):
    done = scribble(
        "explain", drawn, "--causal", "--word", "red", "--replace-by", "blue", "--output", "r.png"
    )
    shown = [line for line in done.out.splitlines() if line.startswith("  red")]
    assert [line.split("  ")[1] for line in shown] == [
        "red removed", "red knocked out", "red replaced by blue"
    ]  # fmt: skip
    assert (tmp_path / "r.png").is_file()
    assert "region 8:2,2 erased" in scribble("explain", drawn, "--causal", "--region", "8:2,2").out
    assert "pear" in refused("explain", drawn, "--causal", "--word", "pear")
    assert "no ink" in refused("explain", drawn, "--causal", "--region", "8:0,0")
    assert "8:0,3" in refused("explain", drawn, "--causal", "--region", "9:1,1")
    assert "--word" in refused("explain", drawn, "--causal", "--replace-by", "blue")


def test_a_trace_alone_cannot_be_run_again(refused, trace_file):
    assert "no run" in refused("explain", trace_file, "--causal")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--causal", "--ground", "dark"), "--ground"),
        (("--causal", "--format", "html"), "text, json, png, svg"),
        (("--causal", "--format", "gif", "--output", "x.gif"), "text, json, png, svg"),
        (("--causal", "--output", "x.jpg"), ".txt, .json, .png, .svg"),
        (("--causal", "--output", "nowhere/x.png"), "no folder nowhere"),
        (("--causal", "--format", "png", "--output", "x.svg"), ".png"),
        (("--replace-by", "blue"), "--causal"),
        (("--word", "red", "--replace-by", "blue"), "--causal"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(
    refused, run, monkeypatch, options, says
):
    monkeypatch.setattr(ScribblePipeline, "from_pretrained", None)
    assert says in refused("explain", run.id, *options)


@pytest.mark.long
def test_the_report_as_json_and_as_text(scribble, gallery, small, tmp_path):
    scribble("draw", "-", "a cat and a kite", "--steps", 1, "--seed", 3, "--model", small)
    (run,) = gallery
    done = scribble("explain", run.id, "--causal", "--format", "json")
    assert done.status == 0, done
    assert (done.data["run"], done.data["seed"]) == (run.id, 3)
    assert done.data["notes"] == []
    edits = done.data["edits"]
    assert [e["subject"] for e in edits] == ["a (1)", "cat", "and", "a (2)", "kite"]
    assert {e["how"] for e in edits} == {"removed"}
    assert edits[1]["prompt"] == "a and a kite"
    for edit in edits:
        assert 0 <= edit["pixels_changed"] <= 1
        assert edit["subject"] in edit["says"]
    assert not list(run.folder.glob("views/*"))
    (named,) = {
        e["subject"]
        for e in scribble("explain", run.id, "--causal", "--word", "a", "--format", "json").data[
            "edits"
        ]
    }
    assert named == "a (1)"
    told = scribble("explain", run.id, "--causal", "--word", "kite", "--output", "told.txt")
    assert told.last == "told.txt"
    assert "kite removed" in (tmp_path / "told.txt").read_text()
    scribble("explain", run.id, "--causal", "--word", "kite", "--output", "drawn.svg")
    assert "<svg" in (tmp_path / "drawn.svg").read_text()


def test_of_a_batch_the_first_picture_is_told_of(scribble, gallery, small):
    scribble("draw", "-", "a kite", "--steps", 1, "--seed", 3, "--model", small, "--count", 3)
    (run,) = gallery
    done = scribble("explain", run.id, "--causal", "--format", "text")
    assert "the first of the run's 3 pictures" in done.last
    assert "not the kept picture" not in done.out


def test_a_stopped_run_goes_on_to_its_end_and_says_so(scribble, gallery, small):
    pipe = ScribblePipeline.from_pretrained(small, device="cpu")
    with RealAttentionExtractor(pipe) as extractor:
        for step in pipe.denoise("a kite", num_inference_steps=4, generator=seeded(9)):
            if step.index == 1:
                pipe.finish(step.denoised, complete=False)
                break
    run = gallery.add(extractor.trace, settings={"model": str(small)})
    done = scribble("explain", run.id, "--causal", "--format", "text")
    assert "stopped after 2 of 4 steps" in done.last
    assert "any more" not in done.out
