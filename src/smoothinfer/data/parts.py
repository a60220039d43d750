"""A test split for data that has none: a share of the training images, chosen by a seed."""

import re
from collections.abc import Callable
from dataclasses import replace

import torch

from smoothinfer.data.images import ImageData
from smoothinfer.errors import InputError, NoSplitError
from smoothinfer.numerics.randomness import stream

PARTS = "#"  # stands between a source and how it is split
_FORM = re.compile(r"test=(0?\.\d{1,6})(?:,seed=(\d{1,9}))?")


def read_part(
    source: str, parts: str, split: str, read: Callable[[str, str], ImageData]
) -> ImageData:
    """Return the training or the test part of a source without a test split.

    The test part holds a share of each class, at least one image of it.

    Args:
        source: as ``read`` takes it.
        parts: ``"test=0.2"`` or ``"test=0.2,seed=1"``; the seed is 0 by default.
        split: ``"train"`` or ``"test"``.
        read: returns a split of a source.

    Raises:
        InputError: ``parts`` cannot be read, the source has a test split already, or a class has
            fewer than two images.
    """
    found = _FORM.fullmatch(parts)
    if found is None or float(found[1]) == 0:
        raise InputError(f"{source}{PARTS}{parts}: write {PARTS}test=0.2 or {PARTS}test=0.2,seed=1")
    if split not in ("train", "test"):
        raise InputError(f"{source}{PARTS}{parts} has the splits train and test, no {split!r}")
    if _has_test(source, read):
        raise InputError(f"{source} has a test split: leave {PARTS}{parts} out")
    whole = read(source, "train")
    chosen = torch.zeros(len(whole), dtype=torch.bool)
    order = torch.randperm(len(whole), generator=stream(int(found[2] or 0), "test part"))
    for label, name in enumerate(whole.classes):
        rows = order[whole.labels[order] == label]
        if len(rows) == 1:
            raise InputError(f"class {name!r} of {source} has one image: none is left to test on")
        chosen[rows[: max(1, round(float(found[1]) * len(rows)))]] = True
    part = whole[(chosen if split == "test" else ~chosen).nonzero().flatten()]
    return replace(part, name=f"{whole.name}{PARTS}{parts}")


def _has_test(source: str, read: Callable[[str, str], ImageData]) -> bool:
    try:
        read(source, "test")
    except NoSplitError:
        return False
    return True
