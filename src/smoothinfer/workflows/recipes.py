"""``smoothinfer recipes``: the recipes that come with the package, each in one line."""

from argparse import ArgumentParser, Namespace
from itertools import groupby
from typing import Any

from smoothinfer.cli.listing import add_format, first_sentence, show
from smoothinfer.config.yaml_files import read_yaml
from smoothinfer.reporting.tables import Table
from smoothinfer.shipped_files import list_shipped


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "List the recipes: of trainings, and in boards, paper and sweeps of leaderboards, tables "
        "of the paper and sweeps. A command takes them by these names, or a file of your own that "
        "extends one."
    )
    add_format(parser)


def run(options: Namespace) -> int:
    lines = [[name, _about(read_yaml(path))] for name, path in list_shipped("recipes").items()]
    whole = options.format == "markdown"
    # Each folder by itself on the terminal: its names are alike, and leave more of the line.
    for _, part in groupby(lines, lambda line: "" if whole else line[0].partition("/")[0]):
        show(Table(["recipe", "what it is"], list(part), left=2), options)
    return 0


def _about(recipe: dict[str, Any]) -> str:
    said = recipe.get("title") or recipe.get("description")
    if not isinstance(said, str):
        return ""
    return said if "title" in recipe else first_sentence(said).removesuffix(".")
