"""``smoothinfer models``: the shipped models and their measured figures."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoothinfer.cards import read_card
from smoothinfer.checkpoints import checkpoints_in, find_checkpoint, list_models
from smoothinfer.cli.listing import add_format, show
from smoothinfer.errors import InputError, unknown
from smoothinfer.reporting.attack_names import short_attack
from smoothinfer.reporting.escaping import escape_markdown
from smoothinfer.reporting.result_tables import (
    certified_table,
    figures_table,
    nearest_certified,
    short_figures_table,
)
from smoothinfer.reporting.shapes import CARD, FIGURE, check_shape
from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.terminal import Terminal

_HEADS = ("model", "clean", "left", "attack", "votes", "images", "network, noise")
_ABOUT = (
    "clean, left: accuracy in %, of clean images and under the strongest attack on the card; "
    "votes: passes of a vote; MT: multitargeted; cert. R: certified at radius R; smoothinfer "
    "models NAME shows all figures"
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", help="show all figures of these; else a line each")
    parser.add_argument("--folder", help="list the checkpoints of a folder, not the shipped ones")
    add_format(parser)


def run(options: Namespace) -> int:
    if options.folder is not None and not (options.folder and Path(options.folder).is_dir()):
        raise InputError(f"no such folder: {options.folder!r}")
    if options.folder is None:
        found = {name: _card(name) for name in list_models()}
    else:
        found = {path.stem: _card(path) for path in checkpoints_in(Path(options.folder))}
    for name in options.models:
        if name not in found:
            raise unknown("model", name, found)
    console = Terminal()
    if not found:
        console.print("there are no models")
    elif options.models:
        for name in options.models:
            _show_all(name, found[name], options.format, console)
    else:
        lines = [_line(*each) for each in found.items()]
        show(Table(_HEADS, lines, left=len(_HEADS)), options, heads=True)
        if options.format == "text":
            console.print(_ABOUT, soft_wrap=False)
    return 0


def _card(model: str | Path) -> dict[str, Any]:
    path = find_checkpoint(model)
    assert path is not None
    card: dict[str, Any] = check_shape(read_card(path), CARD, str(path.with_suffix(".json")))
    return card


def _show_all(name: str, card: dict[str, Any], form: str, console: Terminal) -> None:
    heading, figures = describe_model(card), card.get("figures") or []
    certified = [certified_table(each) for each in card.get("certified") or []]
    of = figures_table if form == "markdown" else short_figures_table
    tables = [of(figures)] if figures else []
    if form == "markdown":
        shown = [table.markdown() for table in [*tables, *certified]]
        console.print_lines("\n\n".join([f"### {name}", escape_markdown(heading), *shown]))
    else:
        console.print(f"{name}: {heading}", markup=False)
        for table in [*tables, *certified]:
            table.print(console)


def _line(name: str, card: dict[str, Any]) -> list[str]:
    """Return a model and the lowest figure on its card: of a vote, where there are votes."""
    figures = check_shape(card.get("figures") or [], [FIGURE], "figures of the card")
    attacked = [each for each in figures if each["attacked"]]
    votes = [each for each in attacked if each["description"]["samples"] > 1] or attacked
    if not votes:
        return [name, *_proved(card)]
    lowest = min(votes, key=lambda each: each["attacked"]["value"])
    pair = lowest["clean"], lowest["attacked"]
    shares = ["" if each is None else f"{100 * each['value']:.1f}" for each in pair]
    about, images = lowest["description"], lowest["attacked"]["images"]
    attack = short_attack(about["attack"]).replace("multitargeted", "MT")
    return [name, *shares, attack, str(about["samples"]), str(images), describe_model(card)]


def _proved(card: dict[str, Any]) -> list[str]:
    """Return the cells of a model without votes: what is certified at the radius nearest to 0.5."""
    entry = nearest_certified(card.get("certified") or [])
    if not entry:
        return [*[""] * 5, describe_model(card)]
    share, radius = f"{100 * entry['value']:.1f}", f"{entry['radius']:g}"
    about = f"certified at radius {radius}, {describe_model(card)}"
    return ["", share, f"cert. {radius}", "", str(entry["images"]), about]


def describe_model(card: Mapping[str, Any]) -> str:
    """Return network, noise, loss, epoch and data of a model in one line."""
    recipe, noise = card["recipe"], []
    if isinstance(defence := recipe.get("defence"), Mapping):
        noise.append(str(defence.get("name", "a defence")))
    for place, component in recipe["noise"].items():
        if isinstance(component, Mapping):
            noise.append(f"{component.get('name', 'noise')} at {place}")
    data = (card.get("data") or {}).get("name") or "unnamed data"
    measured = (card.get("results") or {}).get("validation") or {}
    epoch = measured.get("epoch") or recipe["epochs"]
    parts = [recipe["model"]["name"], " and ".join(noise) or "no noise"]
    return ", ".join([*parts, f"{recipe['loss']['name']} loss", f"epoch {epoch} on {data}"])
