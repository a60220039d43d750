"""Tensors by name from files of other tools: ``.npz``, ``.npy``, ``.safetensors``, ``.pt``."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothinfer.data.guards import check_memory
from smoothinfer.data.npz_files import check_unpacked, read_arrays
from smoothinfer.errors import InputError
from smoothinfer.runtime.printable import error_line

_NESTED = ("state_dict", "model_state_dict", "model", "net")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors in a file, by name; one without a name is called ``""``.

    Raises:
        InputError: the file is missing, damaged, too large for memory, of another kind, or holds
            more than tensors. Nothing in it is run.
    """
    file = _existing(path)
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise InputError(f"{path} must be a file of {', '.join(_READERS)}")
    try:
        found = read(file)
    except InputError:
        raise
    except Exception as error:  # each library has its own errors
        raise InputError(f"{path} cannot be read: {error_line(error)}") from error
    return _plain(found, path)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, which may lie under ``state_dict``, ``model`` or ``net``.

    Raises:
        InputError: as `read_tensors`; or there is no state dict in the file.
    """
    file = _existing(path)
    if file.suffix == ".safetensors":
        return read_tensors(path)
    held: Any = _load_torch(file)
    for key in _NESTED:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping):
        raise InputError(
            f"{path} holds a {type(held).__name__}: save the state dict, model.state_dict()"
        )
    tensors = {str(name): each for name, each in held.items() if isinstance(each, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors: save the state dict, model.state_dict()")
    return _plain(tensors, path)


def _plain(tensors: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Refuse tensors that are sparse, nested, without contents, or of complex numbers."""
    for name, tensor in tensors.items():
        odd = tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta
        if odd or tensor.is_complex() or tensor.is_quantized:
            shown = f"{name!r} in {path}" if name else str(path)
            raise InputError(f"{shown} must be a plain tensor of real numbers: save it as such")
    return tensors


def _existing(path: str | Path) -> Path:
    """Return the path of a file that is there and fits into memory."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no such file: {path}")
    check_memory(str(path), file.stat().st_size)
    return file


def _load_torch(file: Path) -> Any:
    """Return the tensors and plain values that a file of ``torch.save`` holds."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                sizes = sum(each.file_size for each in archive.infolist())
                check_unpacked(str(file), archive, sizes)
        return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:  # torch's own text advises to run what is in it
        raise InputError(
            f"{file} cannot be read: it is damaged, or holds more than tensors, such as a whole "
            "pickled model; save the state dict alone, torch.save(model.state_dict(), file)"
        ) from error
    except Exception as error:  # a damaged file
        raise InputError(
            f"{file} cannot be read: {error_line(error)}; save the state dict alone, "
            "torch.save(model.state_dict(), file)"
        ) from error


def _numpy_archive(file: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in read_arrays(str(file)).items()}


def _numpy_array(file: Path) -> dict[str, Tensor]:
    return {"": torch.from_numpy(np.load(file, allow_pickle=False))}


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(file))


def _torch(file: Path) -> dict[str, Tensor]:
    held = _load_torch(file)
    if isinstance(held, Tensor):
        return {"": held}
    if isinstance(held, Mapping):
        return {str(name): each for name, each in held.items() if isinstance(each, Tensor)}
    raise InputError(
        f"{file} holds a {type(held).__name__}: save one tensor, or a dict of tensors by name"
    )


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".npz": _numpy_archive,
    ".npy": _numpy_array,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
}
