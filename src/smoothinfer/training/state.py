"""The one file from which a training that was cut off goes on: whole, or as it was before."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from smoothinfer.errors import InputError
from smoothinfer.runtime.files import write_whole
from smoothinfer.training.history import Course


def save_state(
    path: Path, model: nn.Module, optimizer: Any, course: Course, ema: AveragedModel | None
) -> None:
    """Write weights, momentum, course and the average of the weights to ``path``."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "course": course.written(),
    }
    if ema is not None:
        state["ema"] = ema.state_dict()
    write_whole(path, lambda file: torch.save(state, file))


def restore(path: Path, model: nn.Module, optimizer: Any, ema: AveragedModel | None) -> Course:
    """Fill everything from ``path``; return the course so far, a new one if there is no file.

    Raises:
        InputError: the file cannot be read, or is of another network.
    """
    if not path.exists():
        return Course()
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(f"{path} cannot be read; without it the run starts again") from error
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{path} does not fit this recipe: {error}") from error
    return Course(**state["course"])
