"""What the benchmarks do between runs: turns, the measures of other packages, and their tables."""

import contextlib
import importlib
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scribblediffusion.evaluate import truth
from scribblediffusion.evaluate.maps import PLACES

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    """Gives the module of a benchmark by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module


def test_ways_take_turns_and_so_does_who_begins(benchmark):
    calls = []
    ways = {name: (lambda name=name: calls.append(name), None) for name in "ab"}
    found = benchmark("measuring").Timed.in_turns(ways, 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert [(one.what, one.clock.count) for one in found] == [("a", 3), ("b", 3)]


def test_growth_begins_with_and_without_capture_in_turns(benchmark, monkeypatch):
    growth, calls, captures = benchmark("growth"), [], []

    class Loop:
        seconds = (0.1,)

        def __call__(self, steps):
            calls.append("captured" if captures else "bare")
            return torch.zeros(1)

    @contextlib.contextmanager
    def extractor(loop):
        captures.append(loop)
        yield SimpleNamespace(trace=SimpleNamespace(nbytes=7))
        captures.clear()

    monkeypatch.setattr(growth, "RealAttentionExtractor", extractor)
    monkeypatch.setattr(growth, "hooks_timed", lambda: contextlib.nullcontext([0.2]))
    point = growth.measure(Loop(), "steps", 2, 3)
    assert calls == ["bare", "bare", "captured", "captured", "bare", "bare", "captured"]
    assert (point.step.count, point.added.count, point.nbytes) == (3, 3, 7)


@pytest.fixture
def word():
    place = np.zeros(PLACES, bool)
    place[8:16, 8:16] = True
    return truth.Subject("noun", "cat", (1,), place, (np.roll(place, 12, 1),), ((2,), (3,)))


def test_maps_of_any_size_are_measured_on_the_same_places(benchmark, word):
    rival_maps = benchmark("rival_maps")
    rng = np.random.default_rng(0)
    maps = {key: rng.random(PLACES) for key in (1, 2, 3)}
    ours = rival_maps.measured(word, lambda keys: maps[keys[0]])
    finer = rival_maps.measured(word, lambda keys: np.kron(maps[keys[0]], np.ones((2, 2))))
    assert ours.controls == 2
    assert ours.elsewhere is not None
    assert finer == ours


def test_the_table_of_rivals_has_each_way_with_its_controls_and_chance_once(benchmark, word):
    rival_maps, page = benchmark("rival_maps"), benchmark("page")
    one = rival_maps.measured(word, lambda keys: word.place + 0.01 * keys[0])
    results = rival_maps.results([[("noun", one)], [("noun", one)], []])
    pointing = results["noun"]["its own object"]["pointing"]
    assert pointing.value == 1
    assert pointing.low < 1  # two scenes are few
    assert results["colour"] == {}
    record = {
        "attempts": [],
        "latents the same under each capture": True,
        "of": {"scenes": 3, "steps": 20, "seed": 1, "weights": "w", "packages": {"daam": "0.2.0"}},
        "ways": {"ours": results, "DAAM": results},
    }
    text = page.rival_maps(json.loads(json.dumps(record, default=asdict)))
    assert "| 2 nouns | pointing game |" in text
    for row in ("ours: its own object", "DAAM: other tokens' maps there", "DAAM: on another"):
        assert text.count(row) == 1
    assert text.count("| chance |") == text.count("| chance on another object |") == 1
    assert "colour" not in text
    assert "3 scenes, 20 steps, seed 1, weights `w`; daam 0.2.0." in text
    assert len(rival_maps.draw(record["ways"]).axes) == 3
