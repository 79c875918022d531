import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scribblediffusion.cli import main


def failed(capsys, *arguments):
    """One line on standard error, exit status 2; gives the line."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said
    return said


@pytest.fixture
def sketch(tmp_path):
    image = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(image).ellipse((60, 60, 190, 190), outline=0, width=5)
    image.save(tmp_path / "sketch.png")
    return tmp_path / "sketch.png"


def test_no_argument(capsys):
    assert "scribble draw" in failed(capsys)
    assert "argument" in failed(capsys, "draw").lower()


def test_a_missing_file(capsys, tmp_path):
    assert "nowhere.png" in failed(capsys, "draw", tmp_path / "nowhere.png", "a cat")


def test_a_name_that_no_file_can_have_and_a_folder_that_may_not_be_read(
    capsys, tmp_path, monkeypatch
):
    assert "too long" in failed(capsys, "draw", tmp_path / ("n" * 300 + ".png"), "a cat")

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    assert "permission denied" in failed(capsys, "draw", tmp_path / "x.png", "a cat")


def test_a_prompt_that_is_no_unicode(capsys, sketch):
    assert r"'\udce9'" in failed(capsys, "draw", sketch, "caf\udce9")


def test_a_text_file(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("a cat")
    assert "notes.txt" in failed(capsys, "draw", tmp_path / "notes.txt", "a cat")


def test_a_folder_an_empty_file_and_a_mask_without_a_sketch(capsys, tmp_path, sketch):
    (tmp_path / "empty.png").touch()
    assert "folder" in failed(capsys, "draw", tmp_path, "a cat")
    assert "empty" in failed(capsys, "draw", tmp_path / "empty.png", "a cat")
    assert "no sketch" in failed(capsys, "draw", "-", "a cat", "--mask", sketch)


def test_an_enormous_image(capsys, tmp_path):
    Image.new("1", (20_000, 20_000), 1).save(tmp_path / "huge.png")
    assert "400 megapixels" in failed(capsys, "draw", tmp_path / "huge.png", "a cat")


def test_an_endless_prompt(capsys, sketch, tmp_path):
    out = tmp_path / "x.png"
    assert "10000" in failed(capsys, "draw", sketch, "a" * 10_000, "--output", out)
    assert not out.exists()


@pytest.mark.parametrize(
    "option",
    [("--steps", "0"), ("--steps", "many"), ("--guidance", "nan"), ("--count", "0"),
     ("--output", "x.gif"), ("--output", "/nowhere/x.png"), ("--seed", "-1"), ("--nope", "1"),
     ("--seed", str(2**64)), ("--mask", "nowhere.png"), ("--count", "65"), ("--steps", "1001")],
)  # fmt: skip
def test_options_out_of_range(capsys, sketch, option):
    failed(capsys, "draw", sketch, "a cat", *option)


def test_help_is_quick_and_loads_nothing_heavy():
    script = (
        "import sys; from scribblediffusion.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: code = e.code\n"
        "slow = {'torch', 'diffusers', 'transformers', 'matplotlib', 'skimage'}\n"
        "heavy = slow & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "draw" in done.stdout


def test_count_output_and_the_progress_bar(sketch, tmp_path, monkeypatch, capfd):
    """Two pictures with seeds one after another; a terminal is told how much noise remains."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    settings = ["--seed", "5", "--steps", "4", "--no-keep", "--sketch-guidance", "1"]
    with pytest.raises(SystemExit) as left:
        main(["draw", str(sketch), "a red apple", *settings, "--count", "2",
              "--output", str(tmp_path / "out.png")])  # fmt: skip
    assert left.value.code == 0
    said = capfd.readouterr()
    assert "Noise remaining: 25%" in said.err
    assert "Noise" not in said.out
    for number, seed in ((1, "5"), (2, "6")):
        path = tmp_path / f"out-{number}.png"
        assert str(path) in said.out
        assert Image.open(path).text["Seed"] == seed  # type: ignore[attr-defined]


def test_where_no_bar_is_seen_a_line_tells_of_each_quarter(capsys):
    from scribblediffusion.cli.progress import progress, quarterly

    for total, expected in ((20, [5, 10, 15]), (2, [1]), (1, [])):
        with progress() as bar:
            for done in range(1, total + 1):
                quarterly(bar, f"{done}", done, total)
        said = capsys.readouterr()
        assert said.err.split() == [str(n) for n in expected]
        assert not said.out


def test_draw_writes_the_same_picture_for_the_same_seed(sketch, tmp_path, capsys):
    settings = ["--seed", "3", "--steps", "2", "--gallery", str(tmp_path / "gallery")]
    for name in ("a.png", "b.png"):
        with pytest.raises(SystemExit) as left:
            main(["draw", str(sketch), "a red apple", *settings, "--output", str(tmp_path / name)])
        assert left.value.code == 0
    first, again = (Image.open(tmp_path / name) for name in ("a.png", "b.png"))
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert first.text["Prompt"] == "a red apple"  # type: ignore[attr-defined]
    assert first.text["Seed"] == "3"  # type: ignore[attr-defined]
    assert str(tmp_path / "a.png") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_spin_shortly_unless_somebody_says_otherwise(monkeypatch, capsys, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert os.environ.get("GOMP_SPINCOUNT") == spins
