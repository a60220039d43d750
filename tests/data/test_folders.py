"""Folders of pictures: classes are those of the training split, and nothing is guessed."""

import os

import numpy as np
import pytest
from PIL import Image

import smoothinfer as si
from tests.data.conftest import both_splits, encoded, flat, write_files


def numbered(c, i):
    return flat((i, 0, 0))


def test_an_image_folder_keeps_every_pixel(tmp_path):
    expected, random = {}, np.random.default_rng(0)

    def picture(c, i):
        pixels = random.integers(0, 256, (5, 7, 3), np.uint8)
        expected[pixels.tobytes()] = ("cat", "dog").index(c)
        return Image.fromarray(pixels)

    root = write_files(tmp_path / "pets", both_splits(picture, count=3))
    for _ in range(2):  # decoded, then from the cache
        data = si.load_data(root, "test")
        assert data.shape == (3, 5, 7)
        assert data.classes == ("cat", "dog")
        assert data.name == "pets"
        for pixels, label in zip(data.pixels, data.labels, strict=True):
            assert expected[pixels.permute(1, 2, 0).contiguous().numpy().tobytes()] == label


def test_a_class_may_be_called_like_a_split(tmp_path):
    files = both_splits(numbered, ("test_tube", "train"))
    root = write_files(tmp_path / "lab", files)
    for split in ("train", "test"):
        data = si.load_data(root, split)
        assert data.classes == ("test_tube", "train")
        assert len(data) == 4


@pytest.mark.parametrize("names", [("training", "testing"), ("Train", "Test"), ("train", "eval")])
def test_splits_may_have_longer_names_and_lie_deeper(names, tmp_path):
    files = both_splits(numbered, splits=names)
    root = write_files(tmp_path / "pets", {f"data/{name}": each for name, each in files.items()})
    assert [len(si.load_data(root, split)) for split in ("train", "test")] == [4, 4]


def test_without_folders_of_splits_all_is_for_training(tmp_path):
    classes = ("bus", "test_bench", "train_station")
    root = write_files(
        tmp_path / "stops", {f"{c}/{i}.png": numbered(c, i) for c in classes for i in (0, 1)}
    )
    data = si.load_data(root, "train")
    assert data.classes == classes
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(si.InputError, match=r"no split 'test', only train.*#test=0\.2"):
        si.load_data(root, "test")


def test_pictures_in_no_folder_are_refused(tmp_path):
    root = write_files(tmp_path / "pets", {f"{i}.png": numbered("", i) for i in range(3)})
    with pytest.raises(si.InputError, match=r"pets/0.png lies in no folder of a class"):
        si.load_data(root, "train")


def test_two_folders_of_one_split_are_refused(tmp_path):
    root = write_files(tmp_path / "pets", both_splits(numbered, splits=("val", "validation")))
    with pytest.raises(si.InputError, match="are both the split validation"):
        si.load_data(root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_without_folders_of_classes_are_refused(split, tmp_path):
    files = {f"{s}/{i}.png": numbered("", i) for s in ("train", "test") for i in range(3)}
    root = write_files(tmp_path / "flat", files)
    with pytest.raises(si.InputError, match=rf"{split}/0.png lies in .* into {split}/CLASS/"):
        si.load_data(root, split)


def test_an_unlabelled_test_split_is_refused_and_its_training_split_is_not(tmp_path):
    files = both_splits(numbered, splits=("train",)) | {"test/0.png": numbered("", 0)}
    root = write_files(tmp_path / "pets", files)
    assert si.load_data(root, "train").classes == ("cat", "dog")
    with pytest.raises(si.InputError, match=r"test/0.png lies in no folder of a class"):
        si.load_data(root, "test")


def test_classes_are_those_of_the_training_split(tmp_path):
    few = both_splits(numbered, ("cat", "dog", "owl"), splits=("train",))
    root = write_files(tmp_path / "pets", few | {"test/owl/0.png": numbered("", 0)})
    data = si.load_data(root, "test")  # has no cats and no dogs
    assert data.classes == ("cat", "dog", "owl")
    assert data.labels.tolist() == [2]
    write_files(root, {"test/bat/0.png": numbered("", 0)})
    with pytest.raises(si.InputError, match=r"test/bat is a class that the training split lacks"):
        si.load_data(root, "test")
    assert si.load_data(root, "train").classes == ("cat", "dog", "owl")


def test_hidden_files_and_other_kinds_of_files_are_no_pictures(tmp_path):
    more = dict.fromkeys(("test/cat/.DS_Store", "test/cat/._0.png", "test/cat/a.txt"), b"x")
    more |= {"test/.trash/0.png": b"x", "README.md": b"x"}
    root = write_files(tmp_path / "pets", both_splits(numbered) | more)
    assert len(si.load_data(root, "test")) == 4


def test_classes_may_be_links_and_pictures_lie_deeper(tmp_path):
    root = write_files(tmp_path / "pets", both_splits(numbered, ("cat",)))
    write_files(tmp_path / "elsewhere", {"old/0.png": numbered("", 0), "1.JPG": flat((9, 9, 9))})
    for split in ("train", "test"):
        (tmp_path / "pets" / split / "dog").symlink_to(tmp_path / "elsewhere")
    data = si.load_data(root, "test")
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("content", [b"", b"oops", encoded(flat((1, 2, 3)))[:50]])
def test_a_broken_picture_is_named_by_its_path(content, tmp_path):
    root = write_files(tmp_path / "pets", both_splits(numbered) | {"test/dog/x.png": content})
    with pytest.raises(si.InputError, match=r"/test/dog/x.png cannot be read as a picture"):
        si.load_data(root, "test")


def test_images_of_several_sizes_are_refused(tmp_path):
    sizes = {"cat": (5, 5), "dog": (6, 6)}
    root = write_files(
        tmp_path / "pets", both_splits(lambda c, i: flat((i, 0, 0), "RGB", sizes[c]))
    )
    with pytest.raises(si.InputError, match=r"dog/0.png is 6x6, the first picture is 5x5"):
        si.load_data(root, "test")


def test_a_link_to_nothing_is_named(tmp_path):
    root = write_files(tmp_path / "pets", both_splits(numbered))
    (tmp_path / "pets" / "test" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(si.InputError, match=r"gone.png cannot be read"):
        si.load_data(root, "test")


def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path):
    root = write_files(tmp_path / "pets", both_splits(numbered))
    os.mkfifo(tmp_path / "pets" / "train" / "cat" / "pipe.png")
    with pytest.raises(si.InputError, match=r"pipe\.png is no plain file"):
        si.load_data(root, "test")


def test_links_that_lead_in_circles_are_not_followed_for_ever(tmp_path):
    root = write_files(tmp_path / "pets", both_splits(numbered))
    whole = si.load_data(root, "test").hash
    for name in ("a", "b", "c"):  # each leads to all of them: 3^40 paths
        inner = tmp_path / "pets" / "train" / "cat" / name
        inner.symlink_to(inner.parent, target_is_directory=True)
    assert si.load_data(root, "test").hash == whole


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "no pictures and no tables"), (["a.txt", "b.py"], "no pictures and no tables")],
)
def test_a_folder_without_data_is_refused_before_tables_are_sought(files, message, tmp_path):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(si.InputError, match=message):
        si.load_data(str(tmp_path), "test")


def test_a_disk_is_no_folder_of_data(tmp_path, monkeypatch):
    monkeypatch.setattr("smoothinfer.data.folders._MOST_OTHERS", 10)
    root = write_files(tmp_path / "pets", both_splits(numbered))
    for number in range(10):  # a note beside each picture does no harm
        (tmp_path / "pets" / f"{number}.txt").touch()
    si.load_data(root, "test")
    for number in range(100):
        (tmp_path / "pets" / f"{number}.py").touch()
    with pytest.raises(si.InputError, match="neither pictures nor tables"):
        si.load_data(root, "test")
