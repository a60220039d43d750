"""Arguments that several commands share: models, data, attacks, balls, sigma, numbers."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from torch import nn

from smoothinfer.attacks import Attack
from smoothinfer.attacks.naming import attack_named
from smoothinfer.cards import read_card
from smoothinfer.checkpoints import find_checkpoint, load
from smoothinfer.cli.numbers import number_of, optional_number, seed_number, whole_number
from smoothinfer.config.components import Component
from smoothinfer.config.settings_files import SCALES
from smoothinfer.data import (
    DATASETS,
    OWN_SPLIT,
    VALIDATION,
    ImageData,
    choose_images,
    hold_out,
    images_of_training,
    load_data,
    load_split,
)
from smoothinfer.errors import InputError, plain_float
from smoothinfer.noise.input_noise import with_input_noise
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.runtime.processes import Processes
from smoothinfer.shipped_files import recipe_path
from smoothinfer.types import Images

DATA_HELP = (
    f"a data set: {', '.join(DATASETS)}; a .npz file with x_train, y_train, x_test, y_test; a "
    "folder of Parquet files or of images in train/CLASS/; or a name on the Hugging Face hub"
)
MODEL_HELP = (
    "a run folder, a .safetensors checkpoint, package.module:factory, hf:user/name on the Hugging "
    "Face hub, or a shipped model ('smoothinfer models' lists them)"
)
# Examples of --set, for each kind of recipe.
OF_TRAINING = "epochs=3 attack.steps=10 ball.radius=4/255"
OF_SWEEP = "limit=256 samples=[1,64] radius=[4/255]"
OF_BOARD = "limit=256 budget=standard samples=512"
RADII = {"linf": "8/255", "l2": "0.5"}


def add_model(parser: ArgumentParser) -> None:
    """Add a model and data."""
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument(
        "--by-number",
        action="store_true",
        help="match the classes of model and data by number, not by name",
    )


def add_limit(
    parser: ArgumentParser, default: int | None = None, usual: str = "by default all"
) -> None:
    """Add a number of images, and how they are chosen; see `choose_rows`."""
    parser.add_argument(
        "--limit",
        type=whole_number,
        default=default,
        help=f"number of images, of each class in proportion, the same every time; {usual}",
    )
    parser.add_argument(
        "--first",
        action="store_true",
        help="with --limit: the first images instead, for data in random order",
    )


def add_split(parser: ArgumentParser) -> None:
    """Add a split; see `images_of_split`."""
    parser.add_argument(
        "--split",
        default="test",
        help="train, test, or validation: the training images that the model's own training held "
        "out, where settings such as sigma should be chosen; source:NAME is a split that the data "
        "set itself has, such as source:validation",
    )


def add_ball(parser: ArgumentParser) -> None:
    """Add a ball; see `ball_of`."""
    parser.add_argument(
        "--radius", help="of the attack, in pixel units; by default 8/255 (linf) or 0.5 (l2)"
    )
    parser.add_argument("--norm", default="linf", choices=list(BALLS), help="of the ball")


def add_sigma(parser: ArgumentParser) -> None:
    """Add one sigma; see `load_model`."""
    parser.add_argument(
        "--sigma", help="Gaussian input noise in pixel units; by default the model's own"
    )


def add_seed(parser: ArgumentParser) -> None:
    """Add the seed."""
    parser.add_argument("--seed", type=seed_number, default=0, help="names the random streams")


def add_recipe(parser: ArgumentParser, example: str, changes: str = OF_TRAINING) -> None:
    """Add a recipe file, its scale and overrides; see `recipe_file`."""
    parser.add_argument("recipe", help=f"a recipe file, or a shipped one such as {example}")
    add_scale(parser, changes)


def add_scale(parser: ArgumentParser, changes: str = OF_TRAINING) -> None:
    """Add a scale and overrides of a recipe, with ``changes`` as an example of these."""
    parser.add_argument(
        "--scale",
        default="short",
        choices=list(SCALES),
        help="short: the recipe as written; paper: the paper's length; smoke: a few images, to see "
        "that it runs",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help=f"changes to the recipe, e.g. {changes}",
    )


def recipe_file(options: Namespace) -> Path:
    """Return the recipe's file, or the shipped recipe of that name."""
    return recipe_path(options.recipe)


def ball_of(options: Namespace) -> Ball:
    """Return the ball of --norm and --radius."""
    radius = number_of("radius", options.radius or RADII[options.norm])
    return BALLS[options.norm](radius)


def load_model(options: Namespace) -> nn.Module:
    """Return the model on this process's device, with the input noise of --sigma."""
    model = load(options.model).to(Processes().device)
    return with_input_noise(model, optional_number("sigma", options.sigma))


def attack_of(attack: str | Component) -> Attack:
    """Return an attack by name; a transfer's source is a model by name, with noise or without.

    Raises:
        InputError: a name or an option is unknown, or the source is missing.
    """
    component = Component.of(attack)
    options = dict(component.options)
    if component.name == "transfer":
        options["source"] = _source(options)
        if isinstance(options.get("attack"), str):
            options["attack"] = attack_named(options["attack"])
    return attack_named(Component(component.name, options))


def _source(options: dict[str, Any]) -> nn.Module:
    """Return the source of a transfer; remove the options that concern it alone."""
    if not isinstance(options.get("source"), str):
        raise InputError("transfer needs a source: 'transfer(source=\"runs/other\", steps=7)'")
    sigma, noise = options.pop("sigma", None), options.pop("noise", True)
    sigma = None if sigma is None else plain_float("sigma of a source", sigma, at_least=0)
    if not isinstance(noise, bool) or not (noise or sigma is None):
        raise InputError("noise of a source is True or False, and with False there is no sigma")
    source = load(options["source"]).to(Processes().device)
    if not noise and isinstance(source, NoisyModel):
        source = source.module
    return with_input_noise(source, sigma)


def weights_hash(model: str) -> str | None:
    """Return the SHA-256 of the weights of ``model``, if it has a card."""
    card = _card_of(model)
    return None if card is None else str(card["sha256"])


def _card_of(model: str) -> dict[str, Any] | None:
    path = find_checkpoint(model)
    return None if path is None else read_card(path)


def training_images(options: Namespace) -> Images | None:
    """Return the images that the model was trained and tuned on, if its card names them."""
    if (card := _card_of(options.model)) is None:
        return None
    trained = images_of_training(load_data(options.data, "train"), card.get("data", {}))
    return None if trained is None else trained.images


def images_of_split(options: Namespace) -> ImageData:
    """Return the images of --split, --limit and --first.

    Of the split ``validation`` they are those that the model's training held out.
    """
    data = _images_of_split(options)
    return data.by_number() if options.by_number else data


def _images_of_split(options: Namespace) -> ImageData:
    if options.split != VALIDATION:
        return load_split(options.data, options.split, options.limit, options.first)
    if (card := _card_of(options.model)) is None:
        raise InputError(
            f"{options.model} has no card that names its validation images: --split "
            f"{OWN_SPLIT}{VALIDATION} is the split that the data set itself calls so"
        )
    about = card.get("data", {})
    data = images_of_training(load_data(options.data, "train"), about)
    if data is None:
        raise InputError(
            f"{options.model} was not trained on the training split of {options.data}, so its "
            f"validation images are not known: --split {OWN_SPLIT}{VALIDATION} is the split that "
            "the data set itself calls so"
        )
    return choose_images(hold_out(data, about.get("held_out", 0))[1], options.limit, options.first)
