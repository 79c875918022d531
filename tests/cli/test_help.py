import subprocess
import sys

import pytest

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from helps import PAGE, documented, helps, written

sys.path.pop(0)


def test_the_documented_help_is_the_current_one(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    how = "run: python tests/cli/helps.py"
    page = PAGE.read_text(encoding="utf-8")
    assert documented(page) == helps(), how
    assert written(page) == page, how


def test_a_stale_page_is_brought_up_to_date(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = "# x\n\n```console\n$ scribble draw --help\nold\n```\n"
    assert documented(written(page)) == helps()


@pytest.mark.parametrize("command", ["draw", "explain", "gallery rerun"])
def test_help_is_what_a_person_sees(scribble, monkeypatch, command):
    monkeypatch.setattr(sys, "argv", ["scribble"])
    assert (
        scribble(*command.split(), "--help").out.split("\n", 1)[1]
        == (helps()[f"scribble {command}"].split("\n", 1)[1])
    )


def test_every_help_fits_80_columns_and_says_something(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name, text in helps().items():
        assert max(map(len, text.splitlines())) <= 80, name
        assert len(text.splitlines()) > 4, name


@pytest.mark.parametrize("command", ["explain", "gallery", "capture"])
def test_help_loads_nothing_heavy(command):
    script = (
        "import sys; from scribblediffusion.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit as e: code = e.code\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'PIL', 'rich.table'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
