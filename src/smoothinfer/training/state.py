"""The file from which an interrupted training resumes, written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from smoothinfer.errors import InputError
from smoothinfer.runtime.checksums import append_checksum, check_bytes
from smoothinfer.runtime.files import read_content, write_bytes
from smoothinfer.training.history import History

if TYPE_CHECKING:
    from accelerate import Accelerator

_RESTART = "delete it to start the run again"


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: Any,
    history: History,
    ema: AveragedModel | None,
    identity: Mapping[str, Any],
) -> None:
    """Write weights, momentum, history and the average of the weights to ``path``.

    ``identity`` says of which training this is the state; see `read_identity`. The file is one of
    ``torch.save``, with its SHA-256 behind it.
    """
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history.to_dict(),
        "identity": dict(identity),
    }
    if ema is not None:
        state["ema"] = ema.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, append_checksum(buffer.getvalue()))


def read_identity(path: Path) -> dict[str, Any] | None:
    """Return the ``identity`` that `save_state` was given; ``None`` if there is no file.

    Raises:
        InputError: the file is damaged.
    """
    return None if (state := _read(path)) is None else dict(state["identity"])


def restore_state(
    path: Path, model: nn.Module, optimizer: Any, ema: AveragedModel | None
) -> History:
    """Fill everything from ``path``; return the history so far, a new one if there is no file.

    Raises:
        InputError: the file is damaged, or belongs to another network.
    """
    state = _read(path)
    if state is None:
        return History()
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
        return History(**state["history"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not fit this recipe: {error}") from error


def check_same_step(accelerator: Accelerator, step: int) -> None:
    """Refuse processes that would resume from different steps: they would wait forever."""
    mine = torch.tensor([step], device=accelerator.device)
    steps = sorted(set(accelerator.gather(mine).tolist()))
    if len(steps) > 1:
        raise InputError(
            f"the processes would resume from different steps, {steps}: --out must be a folder "
            "that all machines share"
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = check_bytes(read_content(path), path, _RESTART)
    except FileNotFoundError:
        return None
    try:
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(f"{path} cannot be read: {_RESTART}") from error
    if not isinstance(state, dict) or "identity" not in state:
        raise InputError(f"{path} is of another version of smoothinfer: {_RESTART}")
    return state
