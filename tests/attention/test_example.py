"""The example runs as it stands, and says what it promises."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "any_pipeline.py"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_any_pipeline_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    assert "words:   a, red, apple" in out
    assert "passed: 28 of 28 records, rows sum to 1.0000" in out
    assert "opened again: a red apple" in out
