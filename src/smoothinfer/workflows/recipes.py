"""``smoothinfer recipes``: the recipes that come with the package, each in one line."""

from argparse import ArgumentParser, Namespace

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
    lines = []
    for name, path in list_shipped("recipes").items():
        said = read_yaml(path).get("description")
        lines.append([name, first_sentence(said if isinstance(said, str) else "")])
    show(Table(["recipe", "what it is"], lines, left=2), options)
    return 0
