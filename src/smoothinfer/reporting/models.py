"""The list of models: what each is, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from smoothinfer.reporting.collect import interval
from smoothinfer.reporting.tables import markdown_of

_COLUMNS = ("attack", "radius", "rule", "samples", "sigma", "images", "clean", "attacked")


def print_models(console: Console, cards: Mapping[str, Mapping[str, Any]]) -> None:
    """Print each model with the figures on its card; accuracies in %, with their intervals."""
    if not cards:
        console.print("there are no models")
        return
    for name, card in cards.items():
        console.print(f"[bold]{name}[/]: {_what(card)}", highlight=False)
        if figures := card.get("figures"):
            console.print(_table(figures))


def figures_told(card: Mapping[str, Any]) -> str:
    """Return the figures on ``card`` in Markdown, or that there are none."""
    figures = card.get("figures")
    if not figures:
        return "Nothing was measured of this model."
    rule = ["---:"] * len(_COLUMNS)
    heading = "## Accuracy, in % with 95 % intervals over images"
    return f"{heading}\n\n{markdown_of([_COLUMNS, rule, *map(_cells, figures)])}"


def _table(figures: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "attack" else "right", overflow="fold")
    for figure in figures:
        table.add_row(*_cells(figure))
    return table


def _what(card: Mapping[str, Any]) -> str:
    recipe, noise = card["recipe"], []
    for place, component in recipe["noise"].items():
        if isinstance(component, Mapping):
            noise.append(f"{component.get('name', 'noise')} at {place}")
    trained = card.get("data", {}).get("name", "unnamed data")
    told = [recipe["model"]["name"], " and ".join(noise) or "no noise"]
    epochs = card.get("results", {}).get("validation", {}).get("epoch", recipe["epochs"])
    return ", ".join([*told, f"{recipe['loss']['name']} loss", f"epoch {epochs} on {trained}"])


def _cells(figure: Mapping[str, Any]) -> list[str]:
    about, clean, attacked = figure["description"], figure["clean"], figure["attacked"]
    radius = about.get("radius", 0.0)
    said = [about["attack"], f"{255 * radius:g}/255" if radius else ""]
    said += [about["rule"], str(about["samples"])]
    sigma = about.get("sigma")
    said.append("" if sigma is None else f"{sigma:g}")
    said.append(str((attacked or clean)["images"]))
    return [*said, interval(clean), interval(attacked)]
