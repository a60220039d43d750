"""Weights that other people saved: plain state dicts in ``.pth``, ``.pt`` or ``.safetensors``."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from smoothinfer.cards import has_card
from smoothinfer.data.tensor_files import read_state_dict
from smoothinfer.errors import InputError

_KINDS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
_PREFIXES = ("module.", "model.", "network.", "_orig_mod.", "backbone.")  # of wrappers
_SHOWN = 3


def is_state_dict(name: str | Path) -> bool:
    """Say whether ``name`` is a file of weights without a card of ours beside it."""
    path = Path(name).expanduser()
    return path.suffix in _KINDS and path.is_file() and not has_card(path)


def digest_of_file(name: str | Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(Path(name).expanduser().read_bytes()).hexdigest()


def load_state_dict_into(network: nn.Module, name: str | Path) -> None:
    """Give ``network`` the weights in a file; nothing in it is run.

    The dict may lie under ``state_dict`` or ``model``, and its names may begin with that of a
    wrapper, such as ``module.`` of `DataParallel`.

    Raises:
        InputError: the file is no state dict, or does not fit; the message names the first tensors
            that are missing, left over, of another shape, or no floats.
    """
    found = _renamed(read_state_dict(name), set(network.state_dict()))
    own = network.state_dict()
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    surplus = [key for key in found if key not in own]
    shapes = [
        f"{key} is {tuple(found[key].shape)}, the network's {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in found and found[key].shape != tensor.shape
    ]
    kinds = [
        f"{key} holds {str(found[key].dtype).removeprefix('torch.')}"
        for key, tensor in own.items()
        if key in found and found[key].is_floating_point() != tensor.is_floating_point()
    ]
    faults = [
        _listed("lacks", missing),
        _listed("has besides", surplus),
        _listed("has other shapes:", shapes),
        _listed("has other numbers:", kinds),
    ]
    if told := [fault for fault in faults if fault]:
        raise InputError(f"{name} does not fit the network: it {'; '.join(told)}")
    network.load_state_dict(dict(found), strict=False)


def _renamed(tensors: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Return ``tensors`` without a wrapper's prefix, or with one, where that makes names fit."""
    best = dict(tensors)
    for _ in range(3):  # wrappers of wrappers
        for prefix in _PREFIXES:
            if best and all(key.startswith(prefix) for key in best):
                shorter = {key.removeprefix(prefix): tensor for key, tensor in best.items()}
                if len(wanted & set(shorter)) >= len(wanted & set(best)):
                    best = shorter
    if not wanted & set(best):  # the network wraps what was saved, as `LogitsOf` does
        for prefix in _PREFIXES:
            longer = {f"{prefix}{key}": tensor for key, tensor in best.items()}
            if wanted & set(longer):
                return longer
    return best


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} {', '.join(names[:_SHOWN])}{more}"
