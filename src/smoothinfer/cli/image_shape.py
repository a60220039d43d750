"""The shape of a model's images and the names of its classes, for commands without data."""

from argparse import ArgumentParser, Namespace

import torch
from torch import nn

from smoothinfer.cards import read_card
from smoothinfer.checkpoints import find_checkpoint
from smoothinfer.cli.numbers import whole_number
from smoothinfer.errors import InputError, plain_int
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import count_classes, device_of


def add_shape(parser: ArgumentParser) -> None:
    """Add ``--shape C H W``."""
    parser.add_argument(
        "--shape",
        nargs=3,
        type=whole_number,
        metavar=("C", "H", "W"),
        help="of an image, for a model without a card",
    )


def shape_and_classes(
    options: Namespace, model: nn.Module
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return the shape of an image and the names of the classes, from the card or as given.

    Raises:
        InputError: the model has no card, and no shape is given or it does not suit the model.
    """
    path = find_checkpoint(options.model)
    if path is not None:
        card = read_card(path)
        return tuple(card["shape"]), tuple(card["classes"])
    if options.shape is None:
        raise InputError(f"{options.model} has no card: give --shape C H W of an image")
    shape = options.shape[0], options.shape[1], options.shape[2]
    for size in shape:
        plain_int("shape", size, at_least=1)
    images = torch.rand(2, *shape)
    count_classes(model, images)
    classes = logits_of(model, images.to(device_of(model))).shape[1]
    return shape, tuple(str(label) for label in range(classes))
