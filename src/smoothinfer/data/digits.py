"""The 1,797 handwritten digits of scikit-learn."""

import numpy as np
import torch

from smoothinfer.data.images import ImageData


def read_digits(split: str) -> ImageData:
    """Return the digits, 8x8 and grey, of ``"train"`` or ``"test"``: every fifth one tests."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    test = torch.arange(len(labels)) % 5 == 0
    keep = test if split == "test" else ~test
    return ImageData("digits", pixels[keep], labels[keep], tuple("0123456789"))
