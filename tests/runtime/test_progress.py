"""Long work talks: a bar on a terminal, a line a minute anywhere else."""

import re
import time

import pytest

from smoothinfer.reporting.tables import Table
from smoothinfer.runtime import progress
from smoothinfer.runtime.terminal import Terminal


def test_without_a_terminal_lines_say_what_is_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.02)
    with progress.progress_bar("units", 40) as bar:
        for step in range(8):
            bar.update(f"unit {step}")
            bar.advance(5)
            time.sleep(0.03)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("unit ")]
    assert len(lines) >= 3
    assert re.fullmatch(
        r"unit \d: \d+ of 40(, (about \d+ min|less than a minute) left)?", lines[-1]
    )


def test_a_line_names_the_unit_of_its_numbers():
    with progress.progress_bar("a", 1344, shown=False, unit="passes of votes") as bar:
        assert progress.line_of(bar.progress, bar.task) == "a: 0 of 1,344 passes of votes"


def test_what_is_not_shown_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.01)
    with progress.progress_bar("units", 4, shown=False) as bar:
        time.sleep(0.05)
        bar.advance()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", [2, 5, 9])
def test_no_table_breaks_a_number_or_leaves_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    number = "30.1 (24.8-36.0)"
    heads = ["model", *(f"attack {at}" for at in range(columns))]
    table = Table(heads, [["a long name of a model", *[number] * columns]], left=1)
    table.print(Terminal())
    said = capsys.readouterr().out
    assert said.count(number) == columns
    assert all(len(line) <= 80 for line in said.splitlines())
    assert all(head in said for head in heads)
