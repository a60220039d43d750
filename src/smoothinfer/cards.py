"""Cards of checkpoints: JSON files of strangers, checked before anything is made of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.recipes import Recipe, recipe_from
from smoothinfer.runtime.files import read_json

_CARD_KEYS = {"recipe", "shape", "classes", "sha256"}


def _is_shape(value: Any) -> bool:
    sizes = isinstance(value, list) and len(value) == 3
    return sizes and all(type(size) is int and 0 < size < 2**16 for size in value)


def _is_names(value: Any) -> bool:
    names = isinstance(value, list) and len(value) > 0
    return names and all(isinstance(name, str) for name in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


_CARD_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "recipe": (_is_mapping, "a mapping"),
    "shape": (_is_shape, "three sizes [C, H, W] of an image"),
    "classes": (_is_names, "a list of names"),
    "sha256": (lambda value: isinstance(value, str), "a string"),
    "data": (_is_mapping, "a mapping"),
    "figures": (lambda value: isinstance(value, list), "a list"),
}


def read_card(path: str | Path) -> dict[str, Any]:
    """Return the card beside a checkpoint.

    Raises:
        InputError: it is missing or malformed.
    """
    file = Path(path).with_suffix(".json")
    card: dict[str, Any] = read_json(file)
    if not isinstance(card, dict):
        raise InputError(f"{file} is no card of a checkpoint: it must be a mapping")
    missing = _CARD_KEYS - set(card)
    if missing:
        raise InputError(f"the card {file} lacks {', '.join(sorted(missing))}")
    for key, (is_valid, expected) in _CARD_VALUES.items():
        if key in card and not is_valid(card[key]):
            raise InputError(f"{file}: {key} must be {expected}, not {card[key]!r:.80}")
    return card


def recipe_of(card: Mapping[str, Any], path: str | Path) -> Recipe:
    """Return the recipe in the card of the checkpoint ``path``."""
    return recipe_from(card["recipe"], f"the recipe in {Path(path).with_suffix('.json')}")
