"""Tables of accuracies from rows: on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from smoothinfer.config.components import grey_levels
from smoothinfer.evaluation.rows import CLEAN, Rows, setting_columns, summarise
from smoothinfer.numerics.statistics import Interval

RULE_ORDER = ("prediction", "weighted", "top_two", "soft", "logits")


def pivot(rows: Rows) -> tuple[list[str], list[str], dict[tuple[Any, ...], dict[str, Interval]]]:
    """Return (names of varying columns, attacks, {values of these columns: {attack: interval}}).

    Columns with one value throughout say nothing in a table and are left out.
    """
    found = summarise(rows)
    described = [entry["description"] for entry in found]
    names = [name for name in setting_columns(rows) if name != "attack"]
    varying = [n for n in names if len({about.get(n) for about in described}) > 1]
    attacks = sorted(rows["attack"].unique().to_pylist(), key=lambda name: (name != CLEAN,))
    cells: dict[tuple[Any, ...], dict[str, Interval]] = {}
    for about, entry in zip(described, found, strict=True):
        line = cells.setdefault(tuple(about.get(name) for name in varying), {})
        for attack, measured in ((CLEAN, entry["clean"]), (about["attack"], entry["attacked"])):
            if measured:
                shown = (measured[name] for name in ("value", "low", "high", "images"))
                line[attack] = Interval(*shown)
    return (
        varying,
        attacks,
        dict(sorted(cells.items(), key=lambda cell: [place_of(v) for v in cell[0]])),
    )


def print_table(console: Console, rows: Rows, title: str = "accuracy, % (95 % interval)") -> None:
    """Print the table of ``rows``: a line per setting, a column per attack."""
    varying, attacks, cells = pivot(rows)
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for name in (*varying, *(_heading(attack) for attack in attacks)):
        table.add_column(name, justify="right", overflow="fold")
    before = None
    for key, found in cells.items():
        if before is not None and key[:-1] != before:
            table.add_section()  # a gap where all but the last column begins anew
        before = key[:-1]
        table.add_row(*(told(value) for value in key), *(str(found.get(a, "")) for a in attacks))
    console.print(table)


def markdown_table(rows: Rows) -> str:
    """Return the table of ``rows`` in Markdown."""
    varying, attacks, cells = pivot(rows)
    lines = [[*varying, *(_heading(attack) for attack in attacks)]]
    lines.append(["---:"] * len(lines[0]))
    for key, found in cells.items():
        lines.append([told(value) for value in key] + [str(found.get(a, "")) for a in attacks])
    return markdown_of(lines)


def markdown_of(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as a table in Markdown.

    >>> print(markdown_of([["n"], ["---:"], ["8"]]).rstrip())
    | n |
    | ---: |
    | 8 |
    """
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _heading(attack: str) -> str:
    return "clean" if attack == CLEAN else attack


def told(value: Any) -> str:
    """Write a value of a column.

    >>> told(0.060000001), told(8 / 255), told(None)
    ('0.06', '8/255', '')
    """
    if value is None or not isinstance(value, float):
        return "" if value is None else str(value)
    return grey_levels(value) or f"{value:.6g}"


def place_of(value: Any) -> tuple[int, float, str]:
    """Return where ``value`` stands among others: nothing first, numbers by size, rules in the
    order of the paper, other words by the alphabet.

    >>> sorted(["soft", 8, "apgd", "prediction", None, 2.5], key=place_of)
    [None, 2.5, 8, 'prediction', 'soft', 'apgd']
    """
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, RULE_ORDER.index(value) if value in RULE_ORDER else len(RULE_ORDER), str(value)
