"""Every example runs as it stands (`any_pipeline.py` is tested with the extractor)."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scribblediffusion import AttentionTrace, Sketch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.long
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


def without_model(*arguments):
    """`examples/saved_run.py` where neither torch nor diffusers can be imported; what it says."""
    script = (
        "import runpy, sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        f"sys.argv = {['saved_run.py', *map(str, arguments)]!r}\n"
        f"runpy.run_path({str(EXAMPLES / 'saved_run.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_saved_run_is_drawn_without_torch_or_diffusers(trace, tmp_path):
    trace.save(tmp_path / "run.safetensors")
    said = without_model(tmp_path / "run.safetensors", "apple")
    for name in ("analysis.png", "analysis.svg", "analysis.html"):
        assert (tmp_path / "run-views" / name).stat().st_size > 1000
    assert "evolution-apple" in said
    assert "apple" in said


def test_the_trace_that_ships_is_a_real_run_and_is_drawn(tmp_path):
    shutil.copy(EXAMPLES / "traces" / "fish.safetensors", tmp_path)
    trace = AttentionTrace.load(tmp_path / "fish.safetensors")
    assert trace.audit is not None
    assert trace.audit.passed
    assert len(trace.steps) == 8
    assert trace.versions["model"] == "ScribblePipeline"  # and not where its weights lay
    assert trace.picture is not None
    assert trace.picture.shape == (256, 256, 3)
    sketch = Sketch.from_image(EXAMPLES / "sketches" / "fish.png")
    assert np.array_equal(trace.sketch, np.asarray(sketch.to_image()))
    prompts = json.loads((EXAMPLES / "sketches" / "prompts.json").read_text(encoding="utf-8"))
    assert trace.prompt == prompts["fish.png"]
    for step in trace.steps:
        total = sum(trace.stream(name, step=step.index) for name in ("text", "sketch"))
        assert total == pytest.approx(np.ones(trace.grid), abs=0.05)  # rounded to 8 bits
    said = without_model(tmp_path / "fish.safetensors", "fish")
    assert "fish" in said
    (film,) = (tmp_path / "fish-views").glob("evolution-fish-*.gif")
    with Image.open(film) as evolution:
        assert getattr(evolution, "n_frames", 1) == 8


def test_a_trace_shows_itself_in_a_notebook(trace):
    shown = trace._repr_html_()
    assert "red" in shown
    assert "Noise remaining: 100%" in shown
