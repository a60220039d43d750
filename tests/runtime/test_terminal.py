"""The terminal prints text: no markup, no control codes, no broken paths."""

import ast
from pathlib import Path

import pytest

from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.progress import progress_bar, track
from smoothinfer.runtime.terminal import Terminal
from tests.runtime.test_printable import HOSTILE

SOURCE = Path("src/smoothinfer")
MARKUP = [
    "a[/b]",
    "[red]x[/red]",
    "[link=http://a.b]c[/link]",
    ":smile:",
    "[/]",
    "\\[b]",
    "1/2 'a'",
]
# What prints itself: the terminal, errors of the command line, and the training loop, whose words
# are its own.
PRINTERS = {"runtime/terminal.py", "cli/__init__.py", "cli/failures.py"}


@pytest.mark.parametrize("name", MARKUP)
def test_a_name_is_printed_as_it_is(name, capsys):
    Terminal().print(f"{name}: {name}")
    Terminal().print(name, style="yellow")
    Table([name], [[name]], name).print(Terminal())
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name}: {name}\n{name}\n")
    assert printed.count(name) == 6


def test_no_control_character_reaches_the_terminal(capsys):
    Terminal().print(f"{HOSTILE}\nsecond")
    Terminal().print_lines(f"{HOSTILE}\nsecond")
    Table([HOSTILE], [[HOSTILE]], HOSTILE).print(Terminal())
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    lines = printed.splitlines()
    assert lines[0].endswith(r"\nsecond")
    assert lines[2] == "second"


def test_a_long_path_is_not_broken(capsys):
    path = "/".join(["folder"] * 40)
    Terminal().print(path)
    assert capsys.readouterr().out == path + "\n"


def test_a_quiet_terminal_prints_nothing(capsys):
    Terminal(quiet=True).print("a")
    assert capsys.readouterr().out == ""


def test_the_text_of_a_bar_is_a_line_of_text(capsys):
    with progress_bar(f"[/b] {HOSTILE}\n", 2) as bar:
        bar.update(f"[red] {HOSTILE}\n", completed=1)
        assert bar.progress.tasks[0].description.isprintable()
    for _ in track([1], f"[/b] {HOSTILE}"):
        pass
    assert "\x1b" not in capsys.readouterr().out


def test_all_commands_print_through_the_terminal():
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and ast.unparse(node.func)
            imported = isinstance(node, ast.ImportFrom) and node.module == "rich.console"
            if called == "print" or imported:
                found.add(path.relative_to(SOURCE).as_posix())
    # Others name the class for type checkers alone.
    assert found - PRINTERS <= {"reporting/tables.py", "runtime/progress.py"}
