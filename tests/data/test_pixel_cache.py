"""Decoded pixels are kept, but never trusted once damaged, nor once a picture has changed."""

import os
from pathlib import Path

import pytest

import smoothinfer as si
from smoothinfer.data import pictures
from tests.data.conftest import both_splits, flat, write_files


@pytest.fixture
def pets(tmp_path):
    return write_files(tmp_path / "pets", both_splits(lambda c, i: flat((i, 0, 0))))


def test_pixels_are_decoded_once(pets, monkeypatch):
    first = si.load_data(pets)
    monkeypatch.setattr(pictures, "_decode_one", lambda *_: pytest.fail("decoded again"))
    assert si.load_data(pets).hash == first.hash


@pytest.mark.parametrize("damage", ["pixel", "header", "checksum", "half", "empty"])
def test_damaged_pixels_are_named_and_decoded_anew(damage, pets, cache):
    first = si.load_data(pets)
    (path,) = cache.glob("*.npy")
    content = bytearray(path.read_bytes())
    if damage in ("half", "empty"):
        content = content[: len(content) // 2 if damage == "half" else 0]
    else:
        content[{"pixel": -1, "header": 80, "checksum": 3}[damage]] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{path.name} is damaged .*: pictures are decoded anew"):
        assert si.load_data(pets).hash == first.hash
    assert si.load_data(pets).hash == first.hash  # and nothing is said any more


def test_a_picture_that_changed_in_place_is_noticed(pets):
    path = Path(pets, "test", "cat", "0.bmp")
    flat((0, 0, 0)).save(path)
    before = si.load_data(pets).pixels[0, 0, 0, 0].item()
    times = path.stat()
    flat((before + 9, 0, 0)).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert si.load_data(pets).pixels[0, 0, 0, 0] == before + 9


def test_a_colour_picture_in_the_other_split_is_noticed(tmp_path):
    grey = both_splits(lambda c, i: flat((i, i, i), "L"))
    root = write_files(tmp_path / "pets", grey)
    assert si.load_data(root, "test").shape == (1, 8, 8)
    flat((1, 2, 3)).save(Path(root, "train", "cat", "0.png"))
    assert si.load_data(root, "test").shape == (3, 8, 8)


def test_data_load_where_nothing_can_be_kept(pets, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SMOOTHINFER_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="decoded pixels are not kept"):
        assert len(si.load_data(pets)) == 4
