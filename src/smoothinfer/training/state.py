"""The file from which an interrupted training resumes, written whole or not at all."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from smoothinfer.errors import InputError
from smoothinfer.runtime.files import write_whole
from smoothinfer.training.history import History


def save_state(
    path: Path, model: nn.Module, optimizer: Any, history: History, ema: AveragedModel | None
) -> None:
    """Write weights, momentum, history and the average of the weights to ``path``."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history.to_dict(),
    }
    if ema is not None:
        state["ema"] = ema.state_dict()
    write_whole(path, lambda file: torch.save(state, file))


def restore_state(
    path: Path, model: nn.Module, optimizer: Any, ema: AveragedModel | None
) -> History:
    """Fill everything from ``path``; return the history so far, a new one if there is no file.

    Raises:
        InputError: the file cannot be read, or belongs to another network.
    """
    if not path.exists():
        return History()
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(f"{path} cannot be read; delete it to start the run again") from error
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
        return History(**state["history"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not fit this recipe: {error}") from error
