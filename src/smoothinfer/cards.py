"""Cards of checkpoints: JSON files of strangers, checked before anything is made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.recipes import Recipe, recipe_from
from smoothinfer.reporting.shapes import Between, Maybe, check_shape
from smoothinfer.runtime.files import read_json

_SHAPE = {
    "recipe": dict,
    "shape": [Between(1, 2**16)],
    "classes": [str],
    "sha256": str,
    "data": Maybe(dict),
    "figures": Maybe([dict]),
    "certified": Maybe([dict]),
}


def has_card(path: str | Path) -> bool:
    """Say whether a card stands beside the weights ``path``."""
    return Path(path).with_suffix(".json").is_file()


def read_card(path: str | Path) -> dict[str, Any]:
    """Return the card beside a checkpoint.

    Raises:
        InputError: it is missing or malformed.
    """
    file = Path(path).with_suffix(".json")
    card: dict[str, Any] = check_shape(read_json(file), _SHAPE, str(file))
    if len(card["shape"]) != 3 or not all(isinstance(size, int) for size in card["shape"]):
        raise InputError(f"{file}, shape must be [C, H, W] of an image, not {card['shape']!r:.60}")
    if not card["classes"]:
        raise InputError(f"{file}, classes must name at least one class")
    return card


def recipe_of(card: Mapping[str, Any], path: str | Path) -> Recipe:
    """Return the recipe in the card of the checkpoint ``path``."""
    return recipe_from(card["recipe"], f"the recipe in {Path(path).with_suffix('.json')}")
