"""What several commands are given: models, data, attacks, balls, numbers, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from smoothinfer.checkpoints import find_checkpoint, load, read_card, shipped
from smoothinfer.config.components import Component, number
from smoothinfer.data import DATASETS, SPLITS, ImageData, hold_out, load_data, told_of
from smoothinfer.errors import InputError, unknown
from smoothinfer.workflows.evaluate import attack_of
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.types import Images

DATA_HELP = (
    f"a data set: {', '.join(DATASETS)}; a .npz file with x_train, y_train, x_test, y_test; a "
    "folder of Parquet files or of images in train/CLASS/; or a name on the Hugging Face hub"
)
MODEL_HELP = (
    "a run folder, a .safetensors checkpoint, package.module:factory, hf:user/name on the Hugging "
    "Face hub, or a shipped model "
    "('smoothinfer models' lists them)"
)


def model_options(parser: ArgumentParser) -> None:
    """Take a model and data."""
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--data", required=True, help=DATA_HELP)


def ball_options(parser: ArgumentParser) -> None:
    """Take a ball; see `ball_of`."""
    parser.add_argument(
        "--radius", help="of the attack, in pixel units; by default 8/255 (linf) or 0.5 (l2)"
    )
    parser.add_argument("--norm", default="linf", choices=list(BALLS), help="of the ball")


def sigma_option(parser: ArgumentParser) -> None:
    """Take one sigma; see `optional`."""
    parser.add_argument(
        "--sigma", help="Gaussian input noise in pixel units; by default the model's own"
    )


def recipe_file(given: Namespace) -> Path:
    """Return the recipe's file: one that is there, or a shipped one."""
    path = Path(given.recipe)
    return path if path.exists() else shipped("recipes", str(path).removeprefix("recipes/"))


def optional(given: Namespace, name: str) -> float | None:
    """Return the number called ``name``, where it was given."""
    return None if given[name] is None else number_of(name, given[name])


def sigmas_of(given: Namespace) -> list[float] | None:
    """Return the sigmas asked for, if any."""
    if given.units and not given.sigma:
        raise InputError("--units says in what --sigma is measured: give --sigma too")
    return [number_of("sigma", s) for s in given.sigma] if given.sigma else None


def measured(given: Namespace) -> dict[str, Any]:
    """Return what evaluate, attack and calibrate are all asked for."""
    attacks = {} if given.attack == ["none"] else {a: Component.of(a) for a in given.attack}
    return {
        "model": load(given.model),
        "name": str(given.model),
        "data": images_of(given),
        "attacks": {name: attack_of(component) for name, component in attacks.items()},
        "ball": ball_of(given),
        "out": Path(given.out),
        "units": given.units or "pixel",
        "rules": given.rule,
        "seed": given.seed,
        "settings": given.as_dict() | {"sha256": hash_of(given.model)},
    }


def hash_of(model: str) -> str | None:
    """Return the SHA-256 of the weights that ``model`` names, where its card tells."""
    path = find_checkpoint(model)
    return None if path is None else str(read_card(path)["sha256"])


def ball_of(given: Namespace) -> Ball:
    """Return the ball of --norm and --radius."""
    return BALLS[given.norm](number_of("radius", given.radius or RADII[given.norm]))


def seen_images(given: Namespace) -> Images | None:
    """Return the images that the model was trained and tuned on, where its card tells."""
    path = find_checkpoint(given.model)
    if path is None:
        return None
    trained = told_of(load_data(given.data, "train"), read_card(path).get("data", {}))
    return None if trained is None else trained.images


def images_of(given: Namespace) -> ImageData:
    """Return the images of --split, also those that the model's training held out."""
    if given.split not in (splits := (*SPLITS, "validation")):
        raise unknown("split", given.split, splits)
    if given.split != "validation":
        return load_data(given.data, given.split, given.limit)
    path = find_checkpoint(given.model)
    if path is None:
        raise InputError(f"{given.model} has no card that says which images were held out")
    told = read_card(path).get("data", {})
    data = told_of(load_data(given.data, "train"), told)
    if data is None:
        raise InputError(
            f"{given.model} was not trained on the training split of {given.data}, so it is not "
            "known which of these images it never saw"
        )
    held = hold_out(data, told["held_out"])[1]
    if given.limit is not None and not given.limit >= 1:
        raise InputError(f"limit must be at least 1, not {given.limit}")
    return held[: given.limit]


RADII = {"linf": "8/255", "l2": "0.5"}


def number_of(what: str, text: str) -> float:
    """Read a number such as 0.06 or 8/255, called ``what`` in the error."""
    try:
        return float(number(text))
    except ValueError:
        raise InputError(f"{what} must be a number such as 0.06 or 8/255, not {text!r}") from None
