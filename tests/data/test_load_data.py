"""Data sets: every pixel and label as it lies in the source, or the fault is named."""

from argparse import Namespace

import numpy as np
import pytest
import torch

import smoothinfer as si
from smoothinfer.cli.options import images_of_split
from smoothinfer.data import FORMATS, load_split
from tests.conftest import CIFAR10
from tests.data.conftest import ARRAYS, both_splits, flat, write_files, write_npz


@pytest.mark.parametrize("name", si.DATASETS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_data_set_is_pixels_and_labels(name, split):
    data = si.load_data(name, split)
    assert data.pixels.dtype == torch.uint8
    assert data.images.min() >= 0
    assert data.images.max() <= 1
    assert data.labels.dtype == torch.int64
    assert set(data.labels.tolist()) == set(range(len(data.classes)))


def test_the_digits_are_split_without_overlap():
    train, test = (si.load_data("digits", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    seen = {pixels.numpy().tobytes() for pixels in train.pixels}
    assert not any(pixels.numpy().tobytes() in seen for pixels in test.pixels)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digitz/x.npz", "no such file"),
        ("./nowhere", "no such folder"),
        ("", "no data set"),
    ],
)
def test_missing_data_is_named(source, message):
    with pytest.raises(si.InputError, match=message):
        si.load_data(source)


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "pets.zip"
    path.write_bytes(b"PK")
    with pytest.raises(si.InputError, match=r"pets.zip.*ends in .npz"):
        si.load_data(path)


def test_a_format_is_one_entry(tmp_path, monkeypatch):
    digits = si.load_data("digits")
    monkeypatch.setitem(FORMATS, ".dgt", lambda source, split: digits)
    assert len(si.load_data(tmp_path / "x.dgt", limit=5)) == 5


@pytest.mark.parametrize("limit", [0, -3, 2.5, "7"])
def test_a_limit_is_a_number_of_images(limit):
    with pytest.raises(si.InputError, match="limit must be"):
        si.load_data("digits", limit=limit)


def test_a_data_set_has_its_own_splits_by_name(tmp_path):
    pets = both_splits(lambda c, i: flat((i, 0, 0)), splits=("train", "validation"))
    root = write_files(tmp_path / "pets", pets)
    npz = write_npz(tmp_path / "a.npz", x_val=ARRAYS["x_test"], y_val=ARRAYS["y_test"])
    assert len(si.load_data(root, "validation")) == 4
    assert len(load_split(root, "source:validation")) == 4
    assert len(load_split(npz, "source:val")) == 4
    with pytest.raises(si.InputError, match=r"no split 'test', only validation, train.*source:val"):
        si.load_data(root, "test")
    with pytest.raises(si.InputError, match=r"choose one of source:validation .*, test, train"):
        load_split(root, "validation")
    with pytest.raises(si.InputError, match="test, train"):
        si.load_data("digits", "validation")


def test_on_the_command_line_validation_is_what_training_held_out(tmp_path, tiny_run):
    options = {"model": str(tiny_run), "limit": None, "first": False, "by_number": False}
    held_out = images_of_split(Namespace(data="digits", split="validation", **options))
    assert len(held_out) == 100
    pets = both_splits(lambda c, i: flat((i, 0, 0)), splits=("train", "validation"))
    root = write_files(tmp_path / "pets", pets)
    with pytest.raises(si.InputError, match="source:validation"):
        images_of_split(Namespace(data=root, split="validation", **options))
    own = images_of_split(Namespace(data=root, split="source:validation", **options))
    assert own.shape == (3, 8, 8)


def test_hashes_name_the_content():
    data = si.load_data("digits", "test")
    assert data.hash == si.load_data("digits", "test").hash
    assert data.hash != data[:359].hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": torch.zeros(3, 1, 2, 2)}, "uint8"),
        ({"labels": torch.eye(3)}, "class indices"),
        ({"labels": torch.tensor([0, 1])}, "3 images, 2 labels"),
        ({"labels": torch.tensor([0, 1, 2])}, r"\[0, 2\], but must be 0 to 1"),
        ({"pixels": torch.zeros(3, 1, 0, 2, dtype=torch.uint8)}, "holds no images"),
    ],
)
def test_images_in_memory_are_checked(changes, message):
    good = {"pixels": torch.zeros(3, 1, 2, 2, dtype=torch.uint8), "labels": torch.tensor([0, 1, 0])}
    with pytest.raises(si.InputError, match=message):
        si.ImageData("mine", **good | changes, classes=("a", "b"))


def test_cifar10_is_lossless(cifar10):
    assert cifar10.shape == (3, 32, 32)
    assert cifar10.classes[:3] == ("airplane", "automobile", "bird")
    mean = cifar10.images.mean((0, 2, 3))
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.02)
    import pyarrow.parquet as pq

    table = pq.read_table(next(CIFAR10.glob("test*.parquet")), columns=["label"])
    labels = np.array(table["label"].slice(0, 1000).to_pylist())
    assert np.array_equal(cifar10.labels.numpy(), labels)
