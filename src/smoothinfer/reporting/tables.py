"""Tables of accuracies from rows: on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from smoothinfer.evaluation.table import CLEAN, Rows, accuracy, setting_columns
from smoothinfer.numerics.statistics import Interval

_COLUMN_OF_ATTACKS = ("attack", "radius")
RULE_ORDER = ("prediction", "weighted", "top_two", "soft", "logits")


def pivot(rows: Rows) -> tuple[list[str], list[str], dict[tuple[Any, ...], dict[str, Interval]]]:
    """Return (names of varying columns, attacks, {values of these columns: {attack: interval}}).

    Columns with one value throughout say nothing in a table and are left out.
    """
    names = [n for n in setting_columns(rows) if n not in _COLUMN_OF_ATTACKS]
    varying = [n for n in names if len(rows[n].unique()) > 1]
    attacks = sorted(rows["attack"].unique().to_pylist(), key=lambda name: (name != CLEAN,))
    keys = rows.select([*varying, "attack"])
    indices: dict[tuple[Any, ...], dict[str, list[int]]] = {}
    columns = [keys[name].to_pylist() for name in keys.column_names]
    for index, (*key, attack) in enumerate(zip(*columns, strict=True)):
        indices.setdefault(tuple(key), {}).setdefault(attack, []).append(index)
    cells = {
        key: {attack: accuracy(rows.take(found)) for attack, found in by_attack.items()}
        for key, by_attack in indices.items()
    }
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
        table.add_row(*(_said(value) for value in key), *(str(found.get(a, "")) for a in attacks))
    console.print(table)


def print_gains(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """Print what the votes of the most passes add to one pass, of what `summarise` returns."""
    title, heads, lines = _gains(entries)
    if lines:
        table = Table(*(Column(name, justify="right") for name in heads), title=title)
        table.box = SIMPLE_HEAD
        for line in lines:
            table.add_row(*line)
        console.print(table)


def markdown_gains(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return in Markdown what `print_gains` prints; nothing if there is but one pass."""
    title, heads, lines = _gains(entries)
    if not lines:
        return ""
    return f"{title.capitalize()}:\n\n" + _markdown([heads, ["---:"] * len(heads), *lines])


def _gains(entries: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    most = max(entry["description"]["samples"] for entry in entries)
    shown = [entry for entry in entries if entry["description"]["samples"] == most > 1]
    names = ["sigma"] if any("sigma" in entry["description"] for entry in shown) else []
    names += ["rule", "attack"]
    lines = [
        [_said(entry["description"].get(name, "")) for name in names]
        + [gain_told(entry[measure]) for measure in ("clean", "attacked")]
        for entry in shown
    ]
    title = f"what the vote of {most} adds to one pass, points (95 % interval)"
    return title, [*names, "clean", "attacked"], lines


def gain_told(measured: Mapping[str, Any] | None) -> str:
    """Return a gain in points, with the ends of its interval.

    >>> gain_told({"gain": {"value": 0.05, "low": -0.012, "high": 0.1}})
    '+5.0 (-1.2 to +10.0)'
    """
    if measured is None:
        return ""
    value, low, high = (100 * measured["gain"][name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def markdown_table(rows: Rows) -> str:
    """Return the table of ``rows`` in Markdown."""
    varying, attacks, cells = pivot(rows)
    lines = [[*varying, *(_heading(attack) for attack in attacks)]]
    lines.append(["---:"] * len(lines[0]))
    for key, found in cells.items():
        lines.append([_said(value) for value in key] + [str(found.get(a, "")) for a in attacks])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _heading(attack: str) -> str:
    return "clean" if attack == CLEAN else attack


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
