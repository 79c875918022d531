"""Every example runs as it stands (`any_pipeline.py` is tested with the extractor)."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scribblediffusion import AttentionTrace, Sketch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_demo_draws_and_explains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    paths = {line.split()[0]: Path(line.split()[1]) for line in lines if "/gallery/" in line}
    assert set(paths) == {"picture", "evolution", "analysis", "attention"}
    with Image.open(paths["picture"]) as picture, Image.open(paths["evolution"]) as evolution:
        assert picture.size == (256, 256)
        assert getattr(evolution, "n_frames", 1) == 20
    trace = AttentionTrace.load(paths["attention"])
    assert trace.audit is not None
    assert trace.audit.passed
    assert "passed" in lines[-1]


def test_every_sketch_that_ships_has_a_prompt_and_ink():
    """Pen, a shaky hand, a photographed page and chalk on a board."""
    folder = EXAMPLES / "sketches"
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    assert set(prompts) == {p.name for p in folder.iterdir()} - {"prompts.json"}
    assert 10 <= len(prompts) <= 14
    found = {name: Sketch.from_image(folder / name) for name in prompts}
    for name, sketch in found.items():
        assert 0.02 < sketch.strokes.mean() < 0.2, name
    cleanings = {name: sketch.cleaning for name, sketch in found.items() if sketch.cleaning}
    assert cleanings["tulip.png"].polarity == "light-on-dark"
    assert cleanings["sailboat.jpg"].flattened


def test_a_saved_run_is_drawn_without_torch_or_diffusers(trace, tmp_path):
    trace.save(tmp_path / "run.safetensors")
    script = (
        "import runpy, sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        f"sys.argv = ['saved_run.py', {str(tmp_path / 'run.safetensors')!r}, 'apple']\n"
        f"runpy.run_path({str(EXAMPLES / 'saved_run.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("analysis.png", "analysis.svg", "analysis.html"):
        assert (tmp_path / "run-views" / name).stat().st_size > 1000
    assert "evolution-apple" in done.stdout
    assert "apple" in done.stdout


def test_a_trace_shows_itself_in_a_notebook(trace):
    shown = trace._repr_html_()
    assert "red" in shown
    assert "Noise remaining: 100%" in shown
