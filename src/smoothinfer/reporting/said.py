"""What a summary says in short: what the vote adds, what each attack costs and leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.tables import markdown_of, told

Entries = Sequence[Mapping[str, Any]]
_INTERVAL = ("value", "low", "high", "images")


@dataclass(frozen=True)
class Said:
    """A table of a few lines with a title, made of what `summarise` returns; it may be empty."""

    title: str
    heads: list[str]
    lines: list[list[str]]

    def print(self, console: Console) -> None:
        """Print it on the terminal."""
        if self.lines:
            columns = (Column(name, justify="right", overflow="fold") for name in self.heads)
            table = Table(*columns, title=self.title, box=SIMPLE_HEAD)
            for line in self.lines:
                table.add_row(*line)
            console.print(table)

    def markdown(self) -> str:
        """Return it in Markdown."""
        if not self.lines:
            return ""
        table = markdown_of([self.heads, ["---:"] * len(self.heads), *self.lines])
        return f"{self.title[0].upper()}{self.title[1:]}:\n\n{table}"


def gains(entries: Entries) -> Said:
    """Say what the votes of the most passes add to one pass."""
    most, shown = _of_most(entries)
    names = _names(shown)
    lines = [
        _settings(entry, names) + [gain_told(entry[part]) for part in ("clean", "attacked")]
        for entry in shown
    ]
    title = f"what the vote of {most} adds to one pass, points (95 % interval)"
    return Said(title, [*names, "clean", "attacked"], lines if most > 1 else [])


def budgets(entries: Entries, seconds: Mapping[str, float]) -> Said:
    """Say what each of several attacks costs and leaves; the strongest stands last.

    Args:
        entries: what `summarise` returns.
        seconds: wall-clock of each attack, an image.
    """
    most, shown = _of_most(entries)
    shown = [entry for entry in shown if entry["attacked"] is not None]
    shown.sort(key=lambda entry: -entry["attacked"]["value"])
    names, lines = _names(shown), []
    for entry in shown:
        left, attack = entry["attacked"], entry["description"]["attack"]
        spent = [f"{left[name]:,.0f}" for name in ("backwards", "forwards")]
        cells = [f"{1000 * seconds[attack]:,.1f}" if attack in seconds else ""]
        vote = str(Interval(*(left[k] for k in _INTERVAL)))
        shares = [f"{100 * left[k]:.1f}" for k in ("per_draw", "every_draw")]
        cells += [vote] if most == 1 else [shares[0], vote, shares[1]]
        lines.append(_settings(entry, names) + spent + cells)
    heads = ["backward", "forward", "ms", "one pass"]
    heads += [f"vote of {most}", "every pass"] if most > 1 else []
    title = "passes and time that each attack spends on an image, and what it leaves right, %"
    return Said(title, [*names, *heads], lines if len(lines) > 1 else [])


def gain_told(measured: Mapping[str, Any] | None) -> str:
    """Return a gain in points, with the ends of its interval.

    >>> gain_told({"gain": {"value": 0.05, "low": -0.012, "high": 0.1}})
    '+5.0 (-1.2 to +10.0)'
    """
    if measured is None:
        return ""
    value, low, high = (100 * measured["gain"][name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _of_most(entries: Entries) -> tuple[int, list[Mapping[str, Any]]]:
    most = max(entry["description"]["samples"] for entry in entries)
    return most, [entry for entry in entries if entry["description"]["samples"] == most]


def _names(entries: Entries) -> list[str]:
    """Return what tells the settings apart, the attack always."""
    values = {
        name: {entry["description"].get(name) for entry in entries} for name in ("sigma", "rule")
    }
    return [name for name, found in values.items() if len(found) > 1] + ["attack"]


def _settings(entry: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [told(entry["description"].get(name, "")) for name in names]
