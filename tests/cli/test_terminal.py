import sys

from scribblediffusion.analysis.printing import Table
from scribblediffusion.cli.terminal import aligned, show

TABLE = Table(
    "title", ("word", "share"), [("red", "9.1 %"), ("a\x1b[2Jb\nc", "10.0 %")], ["[bold]note"]
)


def test_numbers_stand_to_the_right_and_controls_are_gone():
    assert aligned(TABLE).splitlines() == [
        "title", "  word      share", "  red       9.1 %", "  a[2Jb c  10.0 %", "[bold]note",
    ]  # fmt: skip


def test_a_table_without_rows_is_its_title_and_notes():
    assert aligned(Table("", (), (), ["alone"])) == "alone"


def test_on_a_terminal_rich_draws_it_and_takes_no_text_for_markup(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    show(TABLE)
    said = capsys.readouterr().out
    assert "─" in said
    assert "[bold]note" in said
    assert "\x1b[2J" not in said
