import pytest
from PIL import Image, ImageDraw


@pytest.fixture
def drawn(scribble, tmp_path):
    """A run of two steps in the gallery; gives its id."""
    image = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(image).ellipse((60, 60, 190, 190), outline=0, width=5)
    image.save(tmp_path / "ring.png")
    done = scribble("draw", "ring.png", "a red apple", "--steps", "2", "--seed", "3")
    return next(line.split()[1] for line in done.out.splitlines() if line.startswith("run "))


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
