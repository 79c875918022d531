import pytest
from tiny import tiny_trace

from scribblediffusion.gallery import Gallery


@pytest.fixture(scope="session")
def trace():
    return tiny_trace()


@pytest.fixture
def gallery(tmp_path):
    return Gallery(tmp_path / "gallery")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set: `clock.now` in Unix seconds."""

    class Clock:
        now = 1_790_000_000.0

    one = Clock()
    monkeypatch.setattr("time.time", lambda: one.now)
    return one
