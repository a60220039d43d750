"""Files of arrays: each is read right, or refused by its header before it fills the memory."""

import io
import os
import zipfile

import numpy as np
import pytest

import smoothinfer as si
from smoothinfer.data import guards, npz_files
from tests.data.conftest import ARRAYS, write_npz

X, Y = ARRAYS["x_test"], ARRAYS["y_test"]  # (4, 6, 6, 3), (4,)


def test_npz_keeps_every_pixel(tmp_path):
    data = si.load_data(write_npz(tmp_path / "a.npz"), "test", limit=3, first=True)
    assert data.shape == (3, 6, 6)
    assert np.array_equal(data.pixels.permute(0, 2, 3, 1).numpy(), X[:3])
    assert data.classes == ("0", "1", "2", "3")
    assert data.name == "a"


@pytest.mark.parametrize(
    "changes",
    [
        {"x_test": np.asfortranarray(X)},
        {"x_test": X.transpose(0, 3, 1, 2)},
        {"y_test": Y.astype(">i8")},
        {"y_test": Y.astype(np.uint8)},
        {"y_test": Y[:, None]},
        {"y_test": Y.astype(np.float32)},
        {"y_weights": np.full(6, 99.0)},
        {"y_weights": np.array([None, "x"], dtype=object)},
        {"x_extra": np.zeros((2, 2))},
    ],
    ids=lambda changes: "-".join(f"{k} {v.dtype} {v.shape}" for k, v in changes.items()),
)
def test_arrays_of_other_orders_and_types_are_read_right(changes, tmp_path):
    for save in (np.savez, np.savez_compressed):
        data = si.load_data(write_npz(tmp_path / "a.npz", save, **changes))
        assert np.array_equal(data.pixels.permute(0, 2, 3, 1).numpy(), X)
        assert data.labels.tolist() == [0, 1, 2, 3]
        assert len(data.classes) == 4


def test_grey_pixels_need_no_channel_and_truth_values_are_two_classes(tmp_path):
    changes = {"x_test": X[..., 0], "y_test": Y > 1, "y_train": ARRAYS["y_train"] > 1}
    data = si.load_data(write_npz(tmp_path / "a.npz", **changes))
    assert np.array_equal(data.pixels[:, 0].numpy(), X[..., 0])
    assert data.labels.tolist() == [0, 0, 1, 1]


def test_classes_are_counted_over_all_splits(tmp_path):
    path = write_npz(tmp_path / "a.npz", y_test=np.array([0, 0, 0, 0]))
    assert len(si.load_data(path).classes) == 4


ODD = {
    "no pixels": ({"x_test": None}, "no array 'x_test'.*splits are train"),
    "no labels": ({"y_test": None}, "no array 'y_test'"),
    "fewer labels": ({"y_test": Y[:2]}, "4 images, 2 labels"),
    "no images": ({"x_test": X[:0], "y_test": Y[:0]}, "holds no images"),
    "no sides": ({"x_test": X[:, :0]}, "holds no images"),
    "floats": ({"x_test": X / 255}, r"x.astype.* in 0\.\.255, \(255 \* x\).* in 0\.\.1"),
    "wide integers": ({"x_test": X.astype(np.int64)}, r"uint8.*x.astype"),
    "four channels": ({"x_test": np.zeros((4, 6, 6, 4), np.uint8)}, "1 or 3 channels"),
    "four channels first": ({"x_test": np.zeros((4, 4, 6, 6), np.uint8)}, "1 or 3 channels"),
    "either order": ({"x_test": np.zeros((4, 3, 6, 3), np.uint8)}, "could be .N, C, H, W. or"),
    "flat pixels": ({"x_test": X.reshape(4, -1)}, r"must be \(N, H, W\)"),
    "text pixels": ({"x_test": X.astype(str)}, "uint8"),
    "negative labels": ({"y_test": np.array([0, 1, -1, 2])}, r"\[-1, 2\].*count from 0"),
    "fractions": ({"y_test": Y + 0.5}, "fractions or NaN"),
    "NaN": ({"y_test": np.array([0, 1, np.nan, 2])}, "fractions or NaN"),
    "infinity": ({"y_test": np.array([0, 1, np.inf, 2])}, "fractions or NaN"),
    "one-hot": ({"y_test": np.eye(4, dtype=int)}, r"y.argmax\(1\)"),
    "soft": ({"y_test": np.full((4, 4), 0.25)}, r"y.argmax\(1\)"),
    "one label": ({"y_test": np.array(3)}, "one class index for each image"),
    "text": ({"y_test": np.array(list("abca"))}, "numpy.unique"),
    "complex": ({"y_test": Y + 1j}, "integer class indices"),
    "objects": ({"y_test": Y.astype(object)}, "Python objects"),
    "records": ({"y_test": np.array([(1, 2)] * 4, "i4,i4")}, "integer class indices"),
    "300 million classes": ({"y_test": np.array([0, 1, 2, 300_000_000])}, "300,000,000.*12 images"),
    "a class beyond int64": ({"y_test": np.array([0, 1, 2, 2**63], np.uint64)}, "range over"),
}


@pytest.mark.parametrize(("changes", "message"), ODD.values(), ids=ODD)
def test_odd_arrays_are_refused_in_one_line_with_a_remedy(changes, message, tmp_path):
    with pytest.raises(si.InputError, match=message) as refused:
        si.load_data(write_npz(tmp_path / "a.npz", **changes))
    assert "\n" not in str(refused.value)
    assert "a" in str(refused.value)


def npy():
    content = io.BytesIO()
    np.save(content, X)
    return content.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"hello", npy(), b"PK\x03\x04" + b"\0" * 40], ids=["", "text", "npy", "zip"]
)
def test_what_is_no_npz_is_refused(content, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(si.InputError, match=r"a.npz is not a readable .npz file"):
        si.load_data(path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_half_an_archive_is_refused(share, tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(si.InputError, match=r"a.npz is not a readable .npz file"):
        si.load_data(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    content = bytearray(path.read_bytes())
    content[content.index(X.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(si.InputError, match=r"not a readable .npz file.*CRC"):
        si.load_data(path)


def test_a_header_that_lies_about_the_length_is_refused_before_memory_is_taken(tmp_path):
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 32, 32, 3)}
    np.lib.format.write_array_header_1_0(header, about)
    path = write_npz(tmp_path / "a.npz", x_test=None)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x_test.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(si.InputError, match="damaged: its x_test is not as long"):
        si.load_data(path)


def test_an_archive_that_unpacks_to_far_too_much_is_refused_before_it_is_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(npz_files, "_ALWAYS_UNPACKED", 2**20)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
    bomb = {"x_test": np.zeros((2000, 32, 32, 3), np.uint8), "y_test": np.zeros(2000, int)}
    path = write_npz(tmp_path / "a.npz", np.savez_compressed, **bomb)
    with pytest.raises(si.InputError, match=r"unpacks to 6,.*numpy.savez"):
        si.load_data(path)


def test_arrays_larger_than_half_of_the_free_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(guards, "free_memory", lambda: 100)
    with pytest.raises(si.InputError, match="more than half of the"):
        si.load_data(write_npz(tmp_path / "a.npz"))
