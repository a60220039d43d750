"""What ``train`` prints before and after: settings that differ from the recipe, the kept epoch."""

from pathlib import Path
from typing import Any

from smoothinfer.recipes import Recipe
from smoothinfer.training.history import History


def say_nothing(recipe: Recipe) -> None:
    """Take no notice of the recipe of a training."""
    del recipe


def changes(written: dict[str, Any], used: dict[str, Any], place: str = "") -> list[str]:
    """Return the keys whose values differ from the recipe as it is written, a line for each.

    >>> changes({"lr": 0.1, "attack": {"steps": 7}}, {"lr": 0.1, "attack": {"steps": 9}})
    ['  attack.steps: 9 (the recipe: 7)']
    """
    found = []
    for key, value in used.items():
        before, name = written.get(key), f"{place}{key}"
        if isinstance(value, dict) and isinstance(before, dict):
            found += changes(before, value, f"{name}.")
        elif value != before and key != "description":
            found.append(f"  {name}: {value} (the recipe: {before})")
    return found


def kept_epoch(out: Path, history: History, score: str) -> str:
    """Say which epoch of a run was kept, and how accurate it is."""
    best = max(history.epochs, key=lambda row: row.get(score, 0.0))
    figures = ", ".join(f"{name} {100 * best[name]:.1f} %" for name in ("clean", "attacked"))
    place = f"number {best['epoch']:.0f} of {len(history.epochs)} epochs"
    return f"{out}: {place} was kept, best {score}: {figures} in one pass"
