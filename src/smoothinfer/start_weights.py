"""The weights of a trained model, from which a training starts."""

from pathlib import Path
from typing import Any

from torch import nn

from smoothinfer.cards import read_card
from smoothinfer.checkpoints import find_checkpoint, read_weights
from smoothinfer.errors import InputError
from smoothinfer.noise.noisy_model import NOISE_PARTS
from smoothinfer.runtime.printable import error_line


def load_weights_into(model: nn.Module, name: str | Path) -> None:
    """Give ``model`` the weights of a trained one to start from; noise that is new stays as it is.

    Raises:
        InputError: there is no such model, its weights are not those of its card, or do not fit.
    """
    path = _find_start(name)
    tensors = read_weights(path, read_card(path))
    try:
        missing, surplus = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit this recipe: {error_line(error)}") from error
    lacking = [name for name in missing if not name.startswith(NOISE_PARTS)]
    if lacking or surplus:
        raise InputError(f"{path} does not fit this recipe: {[*lacking, *surplus][:5]} differ")


def load_network_into(network: nn.Module, name: str | Path) -> None:
    """Give ``network`` the weights of a trained model's network, whose noise is left out.

    Raises:
        InputError: there is no such model, its weights are not those of its card, or do not fit.
    """
    path = _find_start(name)
    tensors = read_weights(path, read_card(path))
    own = {
        n.removeprefix("module."): t for n, t in tensors.items() if not n.startswith(NOISE_PARTS)
    }
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit this recipe: {error_line(error)}") from error


def card_of_start(name: str | Path) -> dict[str, Any]:
    """Return the card of a model to start from.

    Raises:
        InputError: there is no such model.
    """
    return read_card(_find_start(name))


def _find_start(name: str | Path) -> Path:
    path = find_checkpoint(name)
    if path is None or not path.is_file():
        raise InputError(
            f"no model {str(name)!r} to start from: train it first, or name another with "
            "--set init_from=MODEL ('smoothinfer models' lists the shipped ones)"
        )
    return path
