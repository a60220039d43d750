"""``smoothinfer models``: the shipped models and their measured figures."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoothinfer.cards import read_card
from smoothinfer.checkpoints import checkpoints_in, find_checkpoint, list_models
from smoothinfer.cli.listing import add_format
from smoothinfer.errors import InputError
from smoothinfer.reporting.escaping import escape_markdown
from smoothinfer.reporting.result_tables import figures_table
from smoothinfer.reporting.shapes import CARD, check_shape
from smoothinfer.runtime.terminal import Terminal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--folder", help="list the checkpoints of a folder, not the shipped ones")
    add_format(parser)


def run(options: Namespace) -> int:
    if options.folder is not None and not (options.folder and Path(options.folder).is_dir()):
        raise InputError(f"no such folder: {options.folder!r}")
    names = list_models() if options.folder is None else checkpoints_in(Path(options.folder))
    console = Terminal()
    if not names:
        console.print("there are no models")
    for name in names:
        path = find_checkpoint(name)
        assert path is not None
        card = check_shape(read_card(path), CARD, str(path.with_suffix(".json")))
        heading, table = describe_model(card), figures_table(card.get("figures") or [])
        if options.format == "markdown":
            parts = f"### {Path(name).stem}", escape_markdown(heading), table.markdown()
            console.print_lines("\n\n".join(parts))
        else:
            console.print(f"{Path(name).stem}: {heading}")
            table.print(console)
    return 0


def describe_model(card: Mapping[str, Any]) -> str:
    """Return network, noise, loss, epoch and data of a model in one line."""
    recipe, noise = card["recipe"], []
    for place, component in recipe["noise"].items():
        if isinstance(component, Mapping):
            noise.append(f"{component.get('name', 'noise')} at {place}")
    data = (card.get("data") or {}).get("name") or "unnamed data"
    measured = (card.get("results") or {}).get("validation") or {}
    epoch = measured.get("epoch") or recipe["epochs"]
    parts = [recipe["model"]["name"], " and ".join(noise) or "no noise"]
    return ", ".join([*parts, f"{recipe['loss']['name']} loss", f"epoch {epoch} on {data}"])
