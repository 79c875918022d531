import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scribblediffusion.cli import main
from scribblediffusion.errors import GalleryError


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


@pytest.fixture
def painted(monkeypatch):
    """Stands in for the model; counts how often it was asked."""
    asked = []

    def paint(model, prompts, *given, **options):
        asked.append(prompts)
        return np.zeros((len(prompts), 256, 256, 3), np.uint8), SimpleNamespace(audit="passed")

    monkeypatch.setattr("scribblediffusion.cli.draw.paint", paint)
    return asked


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_picture_that_cannot_be_written_is_not_drawn(
    capsys, sketch, tmp_path, monkeypatch, painted, count
):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "x-2.png").mkdir()
    common = ("draw", sketch, "a cat", "--count", count, "--output")
    assert "is a directory" in failed(capsys, *common, tmp_path / "x.png")
    assert "too long" in failed(capsys, *common, tmp_path / f"{'n' * 300}.png")
    (tmp_path / "closed").mkdir()

    def closed(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", closed)
    assert "permission denied" in failed(capsys, *common, tmp_path / "closed" / "y.png")
    assert not painted


@pytest.mark.parametrize("place", ["/dev/null/g", "a file", "n" * 300])
def test_a_gallery_that_cannot_be_is_named_before_anything_is_drawn(
    capsys, sketch, tmp_path, painted, place
):
    (tmp_path / "a file").touch()
    where = ("--output", tmp_path / "out.png", "--gallery", tmp_path / place)
    assert place in failed(capsys, "draw", sketch, "a cat", *where)
    assert not painted
    assert not (tmp_path / "out.png").exists()


def test_a_picture_is_written_where_its_run_cannot_be_kept(
    capsys, sketch, tmp_path, monkeypatch, painted
):
    def full(*_, **__):
        raise GalleryError("cannot save the run: the disk is full")

    monkeypatch.setattr("scribblediffusion.gallery.Gallery.add", full)
    where = ("--output", str(tmp_path / "out.png"), "--gallery", str(tmp_path / "gallery"))
    with pytest.raises(SystemExit) as left:
        main(["draw", str(sketch), "a cat", *where])
    said = capsys.readouterr()
    assert left.value.code == 1
    assert said.err == "scribble: cannot save the run: the disk is full\n"
    assert str(tmp_path / "out.png") in said.out
    with Image.open(tmp_path / "out.png") as written:
        assert written.size == (256, 256)
    assert painted == [["a cat"]]


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


def test_passwords_of_the_environment_are_one_a_line(monkeypatch, tmp_path):
    served = []
    server = pytest.importorskip("scribblediffusion.web.server")
    monkeypatch.setattr(server, "serve", served.append)
    monkeypatch.setattr(server, "refuse_taken", lambda _: None)
    monkeypatch.setenv("SCRIBBLE_AUTH", "ada:my secret:pw\nbob:builder\n")
    with pytest.raises(SystemExit) as left:
        main(["app", "--gallery", str(tmp_path)])
    assert left.value.code == 0
    assert served[0].auth == (("ada", "my secret:pw"), ("bob", "builder"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so")
def test_freed_memory_is_kept_for_the_next_operation():
    program = """
import resource, sys, numpy as np
from scribblediffusion import cli
if "kept" in sys.argv: cli._keep_freed_memory()
def work():
    for _ in range(20):
        held = [np.ones(3 << 17) for _ in range(4)]  # 3 MB each
        del held
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}

    def faults(*how):
        run = subprocess.run(
            [sys.executable, "-c", program, *how],
            env=plain, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(run.stdout)

    assert faults("kept") < faults() / 10
