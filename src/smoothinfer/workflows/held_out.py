"""Which images a training holds out, and that no model it starts from was trained on them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from smoothinfer.data import ImageData, held_out_rows, rows_of_training
from smoothinfer.errors import InputError
from smoothinfer.recipes import Recipe

_MOST_HELD_OUT = 5000


def fill_held_out(
    recipe: Recipe, split: ImageData, rows: Tensor, start: dict[str, Any] | None
) -> Recipe:
    """Return ``recipe`` with the number of images to hold out; see `Validation`."""
    if recipe.validation.held_out is not None:
        return recipe
    card = (start or {}).get("data", {})
    theirs = rows_of_training(split, card)
    count = min(_MOST_HELD_OUT, max(1, len(rows) // 10))
    if theirs is not None and torch.equal(theirs, rows):
        count = card.get("held_out") or count
    return replace(recipe, validation=replace(recipe.validation, held_out=count))


def check_unseen(
    recipe: Recipe, split: ImageData, rows: Tensor, start: dict[str, Any] | None
) -> None:
    """Refuse to validate on images that the model to start from was trained on.

    ``rows`` are those of the images of ``split`` that this run uses.
    """
    card = (start or {}).get("data", {})
    theirs = rows_of_training(split, card)
    if theirs is None:
        return  # trained on other images, or on unknown ones
    held_out = card.get("held_out", 0)
    trained_on = theirs[held_out_rows(len(theirs), held_out)[0]]
    assert recipe.validation.held_out is not None
    validation = rows[held_out_rows(len(rows), recipe.validation.held_out)[1]]
    if torch.isin(validation, trained_on).any():
        if torch.equal(theirs, rows):
            remedy = f"set validation.held_out to {held_out} or less"
        elif len(theirs) == len(split):
            remedy = "leave out --limit, as there"
        else:
            first = torch.equal(theirs, torch.arange(len(theirs)))
            remedy = f"give --limit {len(theirs)}{' --first' if first else ''}, as there"
        raise InputError(
            f"{recipe.init_from} was trained on images that this run would hold out: {remedy}"
        )
