"""Classes of a model and of data are the same if they have the same names, not the same numbers."""

from dataclasses import replace

import torch
from torch import nn

from smoothinfer.data.images import ImageData
from smoothinfer.errors import InputError

_INSIDE = ("model", "noisy", "module")  # where a wrapper holds the model that knows its classes


def class_names_of(model: nn.Module) -> tuple[str, ...] | None:
    """Return the names of the classes that ``model`` was trained on, where it knows them."""
    while not hasattr(model, "class_names"):
        inner = next((getattr(model, name) for name in _INSIDE if hasattr(model, name)), None)
        if not isinstance(inner, nn.Module):
            return None
        model = inner
    names = model.class_names
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def match_classes(data: ImageData, names: tuple[str, ...] | None) -> ImageData:
    """Return ``data`` with its classes numbered as those of a model.

    Names that are only numbers, "0" to "K-1", are no names: such data, or such a model, counts
    by number.

    Args:
        data: labelled images.
        names: of the model's classes, or ``None``.

    Raises:
        InputError: the data has a class that the model does not know by that name.

    >>> labels = torch.tensor([0, 1, 2])
    >>> data = ImageData("a", torch.zeros(3, 1, 2, 2).byte(), labels, ("cat", "dog", "owl"))
    >>> match_classes(data, ("owl", "cat", "dog")).labels.tolist()
    [1, 2, 0]
    """
    if names is None or data.classes == names or _are_numbers(names) or _are_numbers(data.classes):
        return data
    unknown = [name for name in data.classes if name not in names]
    if unknown or len(set(names)) < len(names):
        shown = ", ".join(map(repr, (unknown or data.classes)[:3]))
        raise InputError(
            f"{data.name} has the class {shown}, the model's are {', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''}: rename the classes, or give --by-number "
            "(data.by_number() in Python) if only their names differ"
        )
    order = torch.tensor([names.index(name) for name in data.classes])
    return replace(data, labels=order[data.labels], classes=names)


def _are_numbers(names: tuple[str, ...]) -> bool:
    """Say whether ``names`` are only the numbers "0" to "K-1"."""
    return names == tuple(str(number) for number in range(len(names)))
