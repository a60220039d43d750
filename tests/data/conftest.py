"""Small folders, archives and tables of pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of decoded pixels; every test has its own."""
    monkeypatch.setenv("SMOOTHINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "smoothinfer"


def flat(colour, mode="RGB", size=(8, 8)):
    """A picture of one colour, which is given in RGB."""
    return Image.new("RGB", size, colour).convert(mode)


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def write_files(root, files):
    """Write pictures or bytes to ``root``; return it as users write it."""
    for name, content in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path)
    return str(root)


def both_splits(make, classes=("cat", "dog"), count=2, splits=("train", "test")):
    """Files of both splits: ``make(class, number)`` gives each picture."""
    return {f"{s}/{c}/{i}.png": make(c, i) for s in splits for c in classes for i in range(count)}


ARRAYS = {
    "x_train": np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8),
    "y_train": np.array([0, 1, 2, 3] * 2),
    "x_test": np.random.default_rng(1).integers(0, 256, (4, 6, 6, 3), np.uint8),
    "y_test": np.array([0, 1, 2, 3]),
}


def write_npz(path, save=np.savez, **changes):
    """Write ``ARRAYS`` with changes (``None`` leaves one out); return the path as users do."""
    arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    save(path, **arrays)
    return str(path)
