"""What ``train`` prints before and after: settings that differ from the recipe, the kept epoch."""

from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.recipes import Recipe
from smoothinfer.runtime.files import read_json
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


def results_of_others(out: Path, settings: dict[str, Any]) -> str:
    """Say that a folder holds results of another model or other images, and what becomes of them.

    Args:
        out: the folder.
        settings: of this command, as ``settings.json`` keeps them.
    """
    try:
        before = read_json(out / "settings.json")
        models = {name: before["weights"].get(name) for name in _models(before["asked"])}
        data = before["data"]["name"], before["data"]["hash"]
    except (InputError, OSError, LookupError, TypeError, AttributeError):
        return ""  # there are no results, or they are of another program
    now = {name: settings["weights"].get(name) for name in _models(settings["asked"])}
    if models == now and data[1] == settings["data"]["hash"]:
        return ""
    return (
        f"{out} held results of {', '.join(map(str, models))} on {data[0]}: their rows stay in "
        "rows/, and table and summary are now of this command alone"
    )


def _models(asked: dict[str, Any]) -> list[str]:
    """Return the models that a command or a recipe named."""
    models = asked["models"] if "models" in asked else [asked["model"]]
    return [*models]


def kept_epoch(out: Path, history: History, score: str) -> str:
    """Say which epoch of a run was kept, and how accurate it is."""
    best = max(history.epochs, key=lambda row: row.get(score, 0.0))
    figures = ", ".join(f"{name} {100 * best[name]:.1f} %" for name in ("clean", "attacked"))
    place = f"number {best['epoch']:.0f} of {len(history.epochs)} epochs"
    return f"{out}: {place} was kept, best {score}: {figures} in one pass"
