"""Data sets: every pixel and label as it lies in the source, or the fault is named."""

import numpy as np
import pytest
import torch
from PIL import Image

import smoothinfer as si
from smoothinfer.data import hold_out
from tests.conftest import CIFAR10

GENERATOR = np.random.default_rng(0)


def write_npz(path, **changes):
    arrays = {
        "x_train": GENERATOR.integers(0, 256, (8, 6, 6, 3), np.uint8),
        "y_train": np.array([0, 1, 2, 3] * 2),
        "x_test": GENERATOR.integers(0, 256, (4, 6, 6, 3), np.uint8),
        "y_test": np.array([0, 1, 2, 3]),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMOOTHINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


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


def test_npz_keeps_every_pixel(tmp_path):
    arrays = write_npz(tmp_path / "a.npz")
    data = si.load_data(str(tmp_path / "a.npz"), "test", limit=3)
    assert data.shape == (3, 6, 6)
    assert len(data) == 3
    assert np.array_equal(data.pixels.permute(0, 2, 3, 1).numpy(), arrays["x_test"][:3])
    assert data.classes == ("0", "1", "2", "3")


def test_an_image_folder_keeps_every_pixel(tmp_path, cache):
    expected = {}
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                pixels = GENERATOR.integers(0, 256, (5, 7, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
                expected[pixels.tobytes()] = label
    for _ in range(2):  # decoded, then from the cache
        data = si.load_data(str(tmp_path / "pets"), "test")
        assert data.shape == (3, 5, 7)
        assert data.classes == ("cat", "dog")
        assert data.name == "pets"
        for pixels, label in zip(data.pixels, data.labels, strict=True):
            assert expected[pixels.permute(1, 2, 0).contiguous().numpy().tobytes()] == label


def test_images_of_several_sizes_are_refused(tmp_path, cache):
    for size, name in ((5, "cat"), (6, "dog")):
        folder = tmp_path / "pets" / "test" / name
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(folder / "0.png")
    with pytest.raises(si.InputError, match="6x6"):
        si.load_data(str(tmp_path / "pets"), "test")


@pytest.mark.parametrize(
    ("source", "message"),
    [("digitz/x.npz", "no such file"), ("./nowhere", "no such folder")],
)
def test_missing_data_is_named(source, message):
    with pytest.raises(si.InputError, match=message):
        si.load_data(source)


def test_bad_data_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    for changes, message in (
        ({"x_test": None}, "x_test"),
        ({"x_test": np.zeros((4, 6, 6, 3))}, "uint8"),
        ({"y_test": np.array([0, 1])}, "4 images, 2 labels"),
        ({"y_test": np.array([0, 1, -1, 2])}, r"\[-1, 2\]"),
    ):
        write_npz(path, **changes)
        with pytest.raises(si.InputError, match=message):
            si.load_data(str(path))
    with pytest.raises(si.InputError, match="test, train"):
        si.load_data("digits", "validation")
    with pytest.raises(si.InputError, match="limit"):
        si.load_data("digits", limit=0)


def test_hold_out_splits_once_and_for_all():
    data = si.load_data("digits", "train")
    rest, held = hold_out(data, 100, seed=0)
    assert (len(rest), len(held)) == (1337, 100)
    assert torch.equal(hold_out(data, 100, seed=0)[1].pixels, held.pixels)
    assert not torch.equal(hold_out(data, 100, seed=1)[1].labels, held.labels)
    both = torch.cat([rest.pixels, held.pixels]).flatten(1).float().sum()
    assert both == data.pixels.flatten(1).float().sum()


def test_hashes_name_the_content():
    data = si.load_data("digits", "test")
    assert data.hash == si.load_data("digits", "test").hash
    assert data.hash != data[:359].hash


def test_cifar10_is_lossless(cifar10):
    assert cifar10.shape == (3, 32, 32)
    assert cifar10.classes[:3] == ("airplane", "automobile", "bird")
    whole = si.load_data(str(CIFAR10), "test")
    assert len(whole) == 10_000
    mean = whole.images.mean((0, 2, 3))
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.005)
