"""Running the command line inside a test."""

import json
from typing import NamedTuple

import pytest
from painted import make_trace

from scribblediffusion.cli import main
from scribblediffusion.gallery import Gallery


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.strip().splitlines()[-1]

    @property
    def data(self):
        return json.loads(self.out)


@pytest.fixture
def scribble(capsys, tmp_path, monkeypatch):
    """Runs `scribble …` in an empty folder, with a gallery of its own in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRIBBLE_GALLERY", str(tmp_path / "gallery"))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Done(int(left.value.code or 0), said.out, said.err)  # type: ignore[arg-type]

    return run


@pytest.fixture
def refused(scribble):
    """Runs a command that must fail in one line; gives the line."""

    def run(*arguments, status=2) -> str:
        done = scribble(*arguments)
        assert done.status == status, done
        assert len(done.err.strip().splitlines()) == 1
        return done.err.strip()

    return run


@pytest.fixture(scope="session")
def small_trace():
    """Three steps on an 8×8 grid, with pictures and sketch."""
    return make_trace(steps=3, grid=8)


@pytest.fixture
def trace_file(small_trace, tmp_path):
    return small_trace.save(tmp_path / "run.safetensors")


@pytest.fixture
def gallery(tmp_path):
    return Gallery(tmp_path / "gallery")


@pytest.fixture
def run(gallery, small_trace):
    """A run of the gallery."""
    return gallery.add(small_trace)
