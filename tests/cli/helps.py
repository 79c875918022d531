"""The help of every command as the documentation shows it.

python tests/cli/helps.py    # writes the current help into docs/command-line.md
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.main import get_command

from scribblediffusion.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
_BLOCK = re.compile(r"```console\n\$ (scribble[^\n]*) --help\n(.*?)```\n", re.DOTALL)


def helps() -> dict[str, str]:
    """Command line → what its `--help` prints, 80 columns wide, in the order listed."""
    os.environ["COLUMNS"] = "80"
    return dict(_helps(get_command(app), "scribble", None))


def _helps(command, name: str, parent) -> Iterator[tuple[str, str]]:
    context = typer.Context(command, info_name=name.rsplit(" ", 1)[-1], parent=parent)
    yield name, command.get_help(context).rstrip() + "\n"
    for part in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _helps(command.get_command(context, part), f"{name} {part}", context)


def documented(page: str) -> dict[str, str]:
    """Command line → the help that a page shows."""
    return dict(_BLOCK.findall(page))


def written(page: str) -> str:
    """The page with every help as it is now; commands that it lacks come at its end."""
    now, there = helps(), documented(page)
    page = _BLOCK.sub(lambda m: _block(m[1], now[m[1]]) if m[1] in now else "", page)
    missing = [name for name in now if name not in there]
    return page + "".join(f"\n## {name}\n\n{_block(name, now[name])}" for name in missing)


def _block(name: str, text: str) -> str:
    return f"```console\n$ {name} --help\n{text}```\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
