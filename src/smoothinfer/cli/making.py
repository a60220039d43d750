"""``demo``, ``train``, ``publish`` and ``models``."""

from __future__ import annotations

from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from smoothinfer.checkpoints import (
    checkpoints_in,
    find_checkpoint,
    models,
    read_card,
)
from smoothinfer.cli.command import Command
from smoothinfer.cli.options import DATA_HELP, recipe_file
from smoothinfer.config.yaml_files import SCALES
from smoothinfer.data import load_data
from smoothinfer.workflows.demo import demo
from smoothinfer.hub import HubModel, publish
from smoothinfer.runtime.processes import Processes
from smoothinfer.recipes import load_recipe
from smoothinfer.reporting.models import print_models
from smoothinfer.workflows.train import train_run

_SMOKE_IMAGES = 256


def _demo_options(parser: ArgumentParser) -> None:
    parser.add_argument("--out", default="demo", help="folder of the report")
    parser.add_argument("--seed", type=int, default=0, help="names every random stream")


def _demo(given: Namespace) -> int:
    demo(Path(given.out), given.seed)
    return 0


def _train_options(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file, or a shipped one such as cifar10/cni-w.yaml")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder of the run; the same one resumes it")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the recipe, e.g. epochs=3 attack.steps=10 ball.radius=4/255",
    )
    parser.add_argument(
        "--scale",
        default="short",
        choices=list(SCALES),
        help="short: as the recipe is written; paper: as long as the paper's; smoke: an epoch of "
        f"{_SMOKE_IMAGES} images, to see that it runs",
    )
    parser.add_argument("--limit", type=int, help="use the first so many training images only")


def _train(given: Namespace) -> int:
    recipe = load_recipe(recipe_file(given), given.set, given.scale)
    recipe.training(), recipe.build_loss()
    limit = given.limit
    if limit is None and given.scale == "smoke":
        limit = _SMOKE_IMAGES
    data = load_data(given.data, "train", limit)
    console = Console(quiet=not Processes().main)
    console.print(yaml.safe_dump(recipe.written(), sort_keys=False), markup=False, highlight=False)
    if recipe.risk:
        console.print(f"warning: {recipe.risk}", style="yellow", highlight=False)
    course = train_run(recipe, data, given.out)
    last = course.epochs[-1]
    console.print(f"{given.out}: {len(course.epochs)} epochs, last {last}", highlight=False)
    return 0


def _publish_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", help="a run folder or a .safetensors checkpoint")
    parser.add_argument("--name", required=True, help="what to call the model")
    parser.add_argument("--results", nargs="+", default=[], help="folders that evaluate wrote")
    parser.add_argument("--out", default="checkpoints", help="folder of the checkpoint")
    parser.add_argument(
        "--compact",
        action="store_true",
        help="keep factors of coloured noise in half precision: two thirds of the size",
    )
    parser.add_argument("--hub", metavar="USER/NAME", help="also push it to the Hugging Face hub")


def _publish(given: Namespace) -> int:
    results = [Path(result) for result in given.results]
    path = publish(given.model, given.name, Path(given.out), results, given.compact)
    print(path)
    if given.hub:
        print(HubModel.from_checkpoint(path).push_to_hub(given.hub))
    return 0


def _models_options(parser: ArgumentParser) -> None:
    parser.add_argument("--folder", help="list the checkpoints of a folder, not the shipped ones")


def _models(given: Namespace) -> int:
    names = models() if given.folder is None else checkpoints_in(Path(given.folder))
    print_models(Console(), {Path(name).stem: read_card(_found(name)) for name in names})
    return 0


def _found(name: str | Path) -> Path:
    path = find_checkpoint(name)
    assert path is not None
    return path


COMMANDS = {
    "demo": Command(
        "Train, attack and smooth a small net on real digits.",
        _demo_options,
        _demo,
    ),
    "train": Command(
        "Train a recipe on a data set; resumes.",
        _train_options,
        _train,
    ),
    "publish": Command(
        "Put a trained model and its measured figures into one checkpoint, or on the hub.",
        _publish_options,
        _publish,
    ),
    "models": Command(
        "List the shipped models and their measured figures.",
        _models_options,
        _models,
    ),
}
