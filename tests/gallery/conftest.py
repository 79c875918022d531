import pytest
from tiny import stage, tiny_trace

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


@pytest.fixture
def ten(gallery, clock):
    """Ten runs an hour apart, oldest first."""
    names = ["red apple", "Green APPLE", "blue kite", "café crème", "apple pie", "plug", "a cat",
             "a dog", "a car", "rocket"]  # fmt: skip
    runs = []
    for i, name in enumerate(names):
        clock.now += 3600
        runs.append(stage(gallery, name, seed=i % 3 if i else 2**64 - 1))
    return runs
