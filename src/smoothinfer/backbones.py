"""Networks of other libraries, made for the images and classes of a data set.

The weights are fresh: those that one has come from a state dict, see ``smoothinfer harden``.
"""

import contextlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from smoothinfer.errors import InputError
from smoothinfer.networks import LogitsOf
from smoothinfer.runtime.hub_access import offline_unless_reachable
from smoothinfer.runtime.printable import one_line


def from_timm(name: str, num_classes: int = 10, in_channels: int = 3, **options: Any) -> nn.Module:
    """Return a network of timm.

    Args:
        name: as ``timm.list_models()`` has it, such as ``"resnet18"``.
        num_classes: K.
        in_channels: of an image.
        options: others of ``timm.create_model``, such as ``img_size``.

    Raises:
        InputError: timm is not installed or cannot be imported, or knows no such network.
    """
    timm: Any = _library("timm")
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0][:8]}*")[:5]
        hint = f"such as {', '.join(close)}" if close else "timm.list_models() names them"
        raise InputError(f"timm knows no network {name!r}: {hint}")
    made: nn.Module = timm.create_model(
        name, num_classes=num_classes, in_chans=in_channels, **options
    )
    return made


def from_transformers(name: str, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Return an image classifier of transformers with fresh weights, from its configuration.

    Args:
        name: on the Hugging Face hub, or a folder with ``config.json``.
        num_classes: K.
        in_channels: of an image.

    Raises:
        InputError: transformers is not installed, or there is no such configuration.
    """
    transformers: Any = _library("transformers")
    with contextlib.nullcontext() if Path(name).is_dir() else offline_unless_reachable():
        try:
            config = transformers.AutoConfig.from_pretrained(name, num_labels=num_classes)
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"no configuration of {name!r}: {why}") from error
    if hasattr(config, "num_channels"):
        config.num_channels = in_channels
    return LogitsOf(transformers.AutoModelForImageClassification.from_config(config))


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name == name:
            raise InputError(f"{name} is not installed: pip install {name}") from None
        raise _broken(name, error) from error
    except RuntimeError as error:  # of operators that were built for another torch
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> InputError:
    return InputError(f"{name} cannot be imported here: {one_line(str(error))}")
