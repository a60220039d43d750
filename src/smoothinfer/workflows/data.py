"""``smoothinfer data DATA``: what a data set holds, before anything is trained on it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch

from smoothinfer.cli.listing import add_format, show
from smoothinfer.data import SPLITS, ImageData, load_split
from smoothinfer.errors import InputError, NoSplitError
from smoothinfer.reporting.image_figures import sheet_of_classes
from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.terminal import Terminal


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Show what a data set holds: sizes, splits, classes and how many images each has, and "
        "with --out a sheet of pictures."
    )
    parser.add_argument("data", help="a folder of pictures, a .npz file, a name on the hub, digits")
    add_format(parser)
    parser.add_argument("--out", help="folder of a sheet of pictures for each split")


def run(options: Namespace) -> int:
    splits, missing = _splits(options.data)
    console = Terminal()
    lines = [
        [
            *(name, f"{len(data):,}", "x".join(map(str, data.shape)), str(len(data.classes))),
            *(f"{number:,}" for number in (counts.min(), counts.max())),
        ]
        for name, data in splits.items()
        for counts in [_counts(data)]
    ]
    heads = ["split", "images", "shape", "classes", "fewest of a class", "most"]
    show(Table(heads, lines, left=1), options, whole=True)
    for line in missing:
        console.print(line, markup=False)
    show(_by_class(splits), options, whole=True)
    for name, data in splits.items() if options.out else ():
        path = Path(options.out) / f"{name}.png"
        sheet_of_classes(data, path)
        console.print(f"{path}: pictures of the classes", markup=False)
    return 0


def _splits(source: str) -> tuple[dict[str, ImageData], list[str]]:
    """Return the splits by name, and why others cannot be had; one at least can."""
    found: dict[str, ImageData] = {}
    missing: list[InputError] = []
    for name in SPLITS:
        try:
            found[name] = load_split(source, name)
        except NoSplitError as error:
            missing.append(error)
    if not found:
        raise missing[0]
    return found, list(map(str, missing))


def _counts(data: ImageData) -> torch.Tensor:
    return torch.bincount(data.labels, minlength=len(data.classes))


def _by_class(splits: dict[str, ImageData]) -> Table:
    classes = next(iter(splits.values())).classes
    counts = {name: _counts(data).tolist() for name, data in splits.items()}
    lines = [
        [str(label), name, *(f"{each[label]:,}" for each in counts.values())]
        for label, name in enumerate(classes)
    ]
    return Table(["label", "class", *counts], lines, left=2)
